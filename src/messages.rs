//! What manager and proxy say for machines too: one `MESSAGE_ID=` for each kind of event.
//!
//! An id is the kind's for ever, in every version: the catalog (`journalctl -x`), `tqserver history` and whoever watches the journal
//! know it. Each comes with the fields that are named here; `TQ_WORKER` and `TQ_GENERATION` wherever one is meant.

/// A generation passed its check and serves. `TQ_CAUSE`: `start`, `reload`, `rollback`, `retry` or `replacement`; `TQ_FROM`: the
/// generation before it, if there was one.
pub const GENERATION_ACCEPTED: &str = "e64a09b9ef874fecb4c717f19186b144";
/// A generation did not pass its check; whatever served before serves on. `TQ_CAUSE` as above; `TQ_REASON`: why.
pub const GENERATION_FAILED: &str = "aa2757966fd44e399eddb66c7a34c918";
/// The process of a generation that served ended, and not well. `TQ_REASON`: how, as in `oom-kill: ...`.
pub const GENERATION_ENDED: &str = "f982f656da024ffe81fbad4be3dec50f";
/// A generation that was replaced has drained, or its grace was over, and it was stopped.
pub const GENERATION_STOPPED: &str = "79ff0a44392843e08933b5539bbaccb7";
/// The files a generation serves from `public/` were replaced.
pub const ASSETS_ACCEPTED: &str = "de112e05613a45dc88ccfa205894cb76";
/// A worker's directory is gone, and so is its route.
pub const WORKER_REMOVED: &str = "85f3d475ea39412295a5f85ce817e280";
/// A worker does not serve any more, and is tried again. `TQ_REASON`: why.
pub const WORKER_DOWN: &str = "e99da7c77ff74db79d4ac00b26a948a0";
/// A generation that serves failed its periodic health requests. `TQ_REASON`: how.
pub const HEALTH_FAILED: &str = "313994c0e6aa4725ab81206e1b4694de";
/// What a worker keeps on the disk has come to 90 %, or to all, of its `state_max`.
pub const STATE_LARGE: &str = "6d0f1c0f3b5d4f0e9a7c2f6a1b58e3d4";
/// A reload has ended, well or not for each worker.
pub const RELOAD_FINISHED: &str = "95aae8df6b2347bc901f2cbace028aac";
/// A reload did not begin: the configuration is wrong. The running one stays. `TQ_REASON`: the problems.
pub const RELOAD_REFUSED: &str = "d066f1b05cb146cfaebe9caaae96ca79";
/// The manager is up: it has adopted what ran, and tried what was to be tried.
pub const SERVER_STARTED: &str = "8b491c81c8ee4e63af4e98f1c005854b";
/// The manager ends, because it was told to.
pub const SERVER_STOPPED: &str = "7b8587e6891d440ba74f540cc75eae5c";
/// The proxy has answered a request on a route with `access_log`. `TQ_ROUTE`, `TQ_REQUEST_ID`, `TQ_METHOD`, `TQ_HOST`, `TQ_PATH`, `TQ_STATUS`
/// (0: the client left before there was an answer), `TQ_BYTES`, `TQ_DURATION_USEC`, `TQ_CLIENT`, `TQ_USER_AGENT`,
/// `TQ_REASON` (why the worker did not answer, where the proxy did in its place).
pub const ACCESS: &str = "026c193ddd3f441aa75158a07d6ce322";
