//! What happens: all that the plan hears of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::moment::Moment;
use super::policy::Policy;
use super::reason::Reason;
use super::spec::Spec;
use crate::config::Limits;
use crate::names::{Generation, Instance, Pair, WorkerName};
use crate::route::{Address, Halt, HostPattern, RoutePath};
use crate::systemd::ServiceState;
use crate::wire::ProbeOutcome;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// These generations were there when the manager started. Comes first, once.
    Adopted(Vec<Found>),
    /// Units or snapshots of these are there, and none of ours: their numbers are taken.
    Strangers(Vec<Instance>),
    /// What lies on disk: for each worker what to run, or why it can not be.
    Looked {
        /// Why it was looked.
        look: Look,
        /// What was found. Disabled workers are not in it.
        workers: BTreeMap<WorkerName, Result<Spec, Reason>>,
        /// The accepted snapshots of workers without a running generation: production starts from these.
        snapshots: BTreeMap<WorkerName, (Generation, Spec)>,
    },
    /// Somebody wants this accepted generation of a worker back.
    Rollback {
        /// Names it as a reload's does.
        id: u64,
        /// Which.
        instance: Instance,
        /// What it was made of.
        spec: Box<Spec>,
    },
    /// An operator wants these workers' requests to wait, or to be refused, and those of no other.
    Halted(BTreeMap<WorkerName, Halt>),
    /// What server.yaml does not allow any more of what runs.
    Ruled(Box<Ruling>),
    /// So much memory is available on this machine and to our slice, in bytes; `None`: that is not known.
    Memory(Option<u64>),
    /// The server's configuration was read anew.
    Configured(Box<Policy>),
    /// [`super::Action::Build`] ended; `false`: there was nothing to build.
    Built(Instance, Result<bool, Reason>),
    /// [`super::Action::Launch`] ended: the units are there, with their assets in this place.
    Launched(Instance, Result<Option<PathBuf>, Reason>),
    /// A service of a generation changed.
    Unit(Pair, ServiceState),
    /// A socket of a generation failed (start limit, trigger limit): nothing will start its service any more.
    SocketFailed(Pair),
    /// [`super::Action::Probe`] ended.
    Probed(u64, ProbeOutcome),
    /// What [`super::Action::Probe`] of this number has reached, and is about to tell of, can be reached from outside the machine.
    Exposed(u64),
    /// [`super::Action::Accept`] ended.
    Accepted(Instance, Result<(), Reason>),
    /// [`super::Action::Assets`] ended.
    AssetsReady(Instance, Result<PathBuf, Reason>),
    /// [`super::Action::Stop`] ended; these were the last lines of its log.
    Stopped(Instance, Vec<String>),
    /// The proxy connected.
    Linked,
    /// The proxy is gone.
    Unlinked,
    /// The proxy serves by the table of this serial.
    Applied(u64),
    /// No request is in flight in this generation any more.
    Drained(Instance),
    /// This generation has answered its `max_requests`.
    Spent(Instance),
    /// The manager is to end and take the workers with it.
    StopAll,
    /// [`super::Fleet::deadline`] has come.
    Tick,
}

/// Whose worker is looked at, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The first look after a start: what has no generation gets one; what has one is left alone.
    Start {
        /// Try also what was never accepted. In production that is for a reload to do, unless nothing at all was accepted yet.
        untried: bool,
    },
    /// Somebody asked for a reload.
    Reload {
        /// Names the reload in [`super::Action::Progress`] and [`super::Action::Finish`].
        id: u64,
        /// These workers; empty: all.
        only: Vec<WorkerName>,
        /// Replace also what has not changed.
        force: bool,
    },
    /// Development: files were saved, the first of them at this moment.
    Saved(Moment),
    /// Another try for one worker that is not well.
    Retry(WorkerName),
}

/// A place in the URL space that a worker may not have any more, and why.
pub type Forbidden = (RoutePath, Vec<HostPattern>, String);

/// What server.yaml does not allow any more of what was accepted before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ruling {
    /// Who waits for it.
    pub reloads: Vec<u64>,
    /// Generations whose limits are lowered: to these, and what is lower in words.
    pub limits: Vec<(Instance, Limits, Vec<String>)>,
    /// All places that are forbidden, by worker.
    pub forbidden: BTreeMap<WorkerName, Vec<Forbidden>>,
}

/// A generation found in systemd.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Which.
    pub instance: Instance,
    /// What it was made of, as written into its units.
    pub spec: Spec,
    /// Its pairs of units that are there, by number, at least one.
    pub pairs: BTreeMap<u8, FoundPair>,
    /// Its assets.
    pub public: Option<PathBuf>,
    /// Whether it has passed its check.
    pub accepted: bool,
}

/// A pair of units found in systemd.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundPair {
    /// Where it listens.
    pub address: Address,
    /// Whether its socket listens (or it needs none).
    pub listening: bool,
    /// Its process.
    pub service: ServiceState,
}
