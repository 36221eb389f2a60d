//! What kinds of messages there are in the journal: one `MESSAGE_ID=` each (systemd.journal-fields(7)). `packaging/tqserver.catalog`
//! explains them to `journalctl -x`.

/// A generation passed its check and serves; `TQ_CAUSE=` says what it was made for, `TQ_FROM=` which served before.
pub const GENERATION_ACCEPTED: &str = "6604effcb32e4668a7f18cec4d1d2e6e";

/// A generation, or what was to become one, failed; `TQ_REASON=` says why.
pub const GENERATION_FAILED: &str = "e26a72ae79494af0af90bdedca0844dc";

/// The process of a serving generation ended, and not well; systemd starts it again.
pub const GENERATION_ENDED: &str = "c806be32b25148afb2e42ba237fec1c4";

/// A generation is gone.
pub const GENERATION_STOPPED: &str = "6d0718cf232146d4a5b2db42d9567d0a";

/// The files a generation serves from `public/` were replaced.
pub const ASSETS_ACCEPTED: &str = "de112e05613a45dc88ccfa205894cb76";

/// A worker is gone.
pub const WORKER_REMOVED: &str = "ea891f4dca804e4e9b151d5b4b7ecddf";

/// A worker does not serve any more, and is tried again.
pub const WORKER_DOWN: &str = "11dc3c5b5a244fc589fc776a9e0a6a43";

/// A serving generation does not answer as it should.
pub const HEALTH_FAILED: &str = "ac3683bc4f694500857127c3fe32a63f";

/// A reload is over.
pub const RELOAD_FINISHED: &str = "cb53171c8b6b4060b2fe613af5c93372";

/// A reload was refused because server.yaml is wrong; nothing changed.
pub const RELOAD_REFUSED: &str = "ff60730da27b47fc904a4a00bf91a161";

/// The manager runs, and has taken over what was there.
pub const SERVER_STARTED: &str = "c2e3803dfe9f40568bbfe597ec6d7142";

/// The manager ends.
pub const SERVER_STOPPED: &str = "a2270196db9d4cb7b396bd285bb9092d";
