//! TQServer: put a directory under `workers/`, get a URL.
//!
//! ```text
//!               systemd (PID 1, or the user's, or a private one)
//!         D-Bus ▲  │ starts, limits, activates
//!  manager ─────┘  ▼
//!  (no network)    tqserver-index@41.socket/.service   draining
//!     │            tqserver-index@42.socket/.service   serving
//!     │ route table     ▲ one unix socket per generation
//!     ▼                 │
//!   proxy ──────────────┘  <── TCP
//! ```
//!
//! Every worker is a pair of transient units a generation; systemd starts, limits and restarts it, TQServer decides which generation
//! answers. The modules stand on floors; one imports from lower floors only, and neighbours do not meet. Why things are as they are is
//! in `docs/ARCHITECTURE.md`, with the invariants and their tests.

// 0: names with rules, sizes and quotas, read and printed as systemd does; kinds of messages; dates; moments that last until the next boot; how far work on files is; how much room a directory takes; files that do not count; text written for a terminal, and the terminal; who listens at an address; what is known of each type of worker; a short hash
pub mod ansi;
pub mod boottime;
pub mod calendar;
pub mod effort;
pub mod fnv;
pub mod footprint;
pub mod holders;
pub mod ignored;
pub mod limits;
pub mod messages;
pub mod names;
pub mod terminal;
pub mod types;

// 1: the route table; journal or terminal; file -> merged -> checked; the one door to systemd
pub mod config;
pub mod logging;
pub mod route;
pub mod systemd;

// 2: what lies on disk; the link between the planes; builds; file events; certificates, and connections that speak TLS
pub mod builder;
pub mod inventory;
pub mod tls;
pub mod watcher;
pub mod wire;

// 3: pure decisions: events in, actions out
pub mod plan;

// 4: snapshots, and the planes, which never import each other
pub mod deploy;
pub mod manager;
pub mod proxy;

// 5: both planes in one process
pub mod dev;

// 6: one file a verb; the only place that prints
pub mod cli;
