//! The control plane: talks to systemd, decides, acts. It opens no network socket and never sees a request.
//!
//! One loop (`run`) waits for whatever comes first and hands it to its `core`, whose `driver` asks the fleet of `plan/` what follows and
//! has the one place that acts (`perform`) do it. Each part of the core has a state of its own: `scans` of the workers' directories and what they lead to
//! (`deployments`), `pauses`, `reloads`, `builds`, what the proxy has yet to confirm (`confirmations`), strays, the size of states.

mod adoption;
mod backoff;
mod builds;
pub mod certificates;
mod confirmations;
pub mod control;
mod core;
mod deployments;
mod disk;
mod driver;
mod exec;
mod explain;
mod journal;
mod kept;
mod link;
mod notes;
pub mod pair;
mod pauses;
mod perform;
mod policy;
mod progress;
mod proxy;
mod reloads;
mod report;
mod requests;
mod rollback;
mod run;
mod scan;
mod scans;
mod snapshots;
mod state;
pub mod status;
mod strays;
mod turns;
mod users;

pub use explain::explain;
pub use journal::Journal;
pub use kept::KEPT;
pub use link::Door;
pub use progress::{Building, Progress};
pub use requests::Nudge;
pub use run::{Ending, ManagerError, Options, run};
pub use scan::ScanError;
pub use state::{line as line_of_state, words as size_of_state};
pub use strays::{LeftError, stop_what_is_left};
