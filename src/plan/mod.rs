//! What should happen: pure decisions, without I/O and without a clock.
//!
//! [`Fleet`] holds all workers. The manager hands it one [`Event`] after another, each with the moment it came, and performs the
//! [`Action`]s it answers. Whatever an action leads to comes back as an event. So the whole state machine can be driven by a
//! simulation, through orders of failures that no real machine would show in years.
//!
//! - `fleet`: all workers; reloads; the route table
//! - `worker`: one worker: which of its generations serves, which is on its way, when the next try is due
//! - `run`: one generation: its stages
//! - `member`: one of its instances
//! - `budget`: how much of the route table a worker may have
//! - `hint`: what helps where many meet the same failure
//! - `event`, `action`: what comes in and goes out, and what both consist of: `spec`, `policy`, `reason`, `note`, `moment`
//! - `view`: what is shown of workers
//! - `reconcile`: what changed between what lies on disk and what runs
//! - `simulation`: that small worlds, in which anything dies at any instant, end well

mod action;
mod budget;
mod event;
mod fleet;
mod hint;
mod member;
mod moment;
mod note;
mod policy;
mod reason;
mod reconcile;
mod run;
#[cfg(test)]
mod simulation;
mod spec;
mod view;
mod worker;

pub use action::{Action, Outcome};
pub use event::{Event, Forbidden, Found, FoundPair, Look, Ruling};
pub use fleet::Fleet;
pub use moment::Moment;
pub use note::{Kind, Note, Severity};
pub use policy::Policy;
pub use reason::{EXPOSED, Failure, Reason};
pub use run::Stage;
pub use spec::{Cause, Source, Spec};
pub use view::{PairView, RunView, WorkerView};
