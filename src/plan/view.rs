//! Workers as `tqserver status` shows them.

use super::moment::Moment;
use super::reason::Failure;
use super::run::Stage;
use crate::names::{Instance, Pair, WorkerName};
use crate::route::{Claim, Halt};
use crate::systemd::ServiceState;

/// A worker, as `tqserver status` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerView {
    /// Its name.
    pub name: WorkerName,
    /// Its places in the URL space.
    pub claims: Vec<Claim>,
    /// `serving`, `starting`, `sleeping`, `files`, `new`, `failed` or `removed`.
    pub state: &'static str,
    /// Its generations, newest first.
    pub generations: Vec<RunView>,
    /// What went wrong last, and when.
    pub last_failure: Option<(Failure, Moment)>,
    /// When the next try is due.
    pub retry_at: Option<Moment>,
    /// What an operator has put before it.
    pub halt: Halt,
    /// Whether a port of what serves can be reached from outside the machine.
    pub exposed: bool,
}

/// A generation, as `tqserver status` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunView {
    /// Which.
    pub instance: Instance,
    /// How far it is.
    pub stage: Stage,
    /// Since when it is in this stage.
    pub since: Moment,
    /// Its pairs of units.
    pub pairs: Vec<PairView>,
}

/// A pair of units, as `tqserver status` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct PairView {
    /// Which.
    pub pair: Pair,
    /// `running`, `starting`, `sleeping`, `restarting`, `stopping` or `failed`.
    pub state: &'static str,
    /// Its service, as systemd told last.
    pub service: ServiceState,
}
