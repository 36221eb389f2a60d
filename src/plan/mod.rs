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
//! - `reconcile`: what changed between what lies on disk and what runs
//! - `simulation`: that small worlds, in which anything dies at any instant, end well

mod budget;
mod fleet;
mod member;
mod reconcile;
mod run;
#[cfg(test)]
mod simulation;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Limits, Listen, WorkerSettings, WorkerType};
use crate::inventory::Fingerprint;
use crate::names::{Generation, Instance, Pair, WorkerName};
use crate::route::{
    Address, Claim, Development, Front, Halt, HostPattern, Protocol, RoutePath, RouteTable,
};
use crate::systemd::{Ending, ServiceState};
use crate::wire::ProbeOutcome;

pub use fleet::Fleet;
pub use run::Stage;

/// A point in time, as the time since the manager started.
pub type Moment = Duration;

/// What a generation is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its configuration.
    pub settings: WorkerSettings,
    /// What its files and configuration were when it was made.
    pub fingerprint: Fingerprint,
    /// The worker's directory.
    pub directory: PathBuf,
    /// Its assets there.
    pub public: Option<PathBuf>,
    /// Directories of other workers inside its own: no part of it.
    pub nested: Vec<PathBuf>,
    /// What lay in its directory when this was rolled back to: a reload does not take that again.
    #[serde(default)]
    pub passed_over: Option<Fingerprint>,
}

impl Spec {
    /// Whether it is started without being asked for: nothing would start one on a port later.
    pub(crate) fn starts_at_once(&self) -> bool {
        let settings = &self.settings;
        settings.kind != WorkerType::Static
            && (settings.autostart || settings.listen == Listen::Port)
    }
}

/// Where a new generation's files come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The worker's directory as it is now.
    Directory,
    /// The files of an earlier generation, which passed its check.
    SameAs(Generation),
    /// Its own, of which a snapshot is there: it was accepted, and its units were lost with the last boot.
    Own(Generation),
}

/// What a generation was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The server was started.
    Start,
    /// A reload found that something changed.
    Reload,
    /// Development: a file was saved.
    Save,
    /// Somebody wanted an earlier generation back.
    Rollback,
    /// What did not work is tried again.
    Retry,
    /// The one before is not well, or has done its share of requests.
    Replacement,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Save => "save",
            Self::Rollback => "rollback",
            Self::Retry => "retry",
            Self::Replacement => "replacement",
        })
    }
}

/// What is wrong with a worker whose port can be reached from outside the machine, and what helps.
pub const EXPOSED: &str = "listens on all addresses of the machine: whoever reaches its port gets past the proxy; let it listen on \
    127.0.0.1, which it finds in HOST, or on the socket it is handed (`listen: socket`)";

/// What the fleet goes by and a reload may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The proxy's side towards clients.
    pub front: Front,
    /// How long a draining generation may take.
    pub grace: Duration,
    /// Fixed wait before the first health request of a generation.
    pub startup_delay: Duration,
    /// Fixed wait between the switch and the end of the old generation.
    pub restart_delay: Duration,
    /// Ports for workers that can not take a socket.
    pub ports: RangeInclusive<u16>,
    /// Each worker is a user of its own: nobody else is to answer on its port.
    pub own_users: bool,
    /// Most instances that are started at the same time.
    pub concurrent_starts: usize,
    /// Development: workers are built before they are started, and clients are told why one is not available.
    pub build: bool,
    /// What developers are shown besides.
    pub development: Option<Development>,
    /// Where the sockets of generations are.
    pub sockets: PathBuf,
    /// Production: the directory below which each generation has its files, as `NAME/GENERATION`.
    pub snapshots: Option<PathBuf>,
}

/// Why something did not work, in the words an operator needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its process ended.
    Ended(Ending),
    /// It did not answer its health request in this time.
    NotReady(Duration),
    /// It answered its health request with this status.
    HttpStatus(u16),
    /// It did not speak HTTP on its socket.
    Broken(String),
    /// Somebody else listens on its port: a sentence.
    Taken(String),
    /// It could not be built: a sentence, and the compiler's last words.
    Build(String, Vec<String>),
    /// It is not in a state to be started: wrong configuration, missing program.
    Unusable(String),
    /// systemd or the file system refused: a sentence.
    Refused(String),
    /// The proxy is away and can not confirm.
    NoProxy,
    /// The worker was removed while it started.
    Removed,
    /// Development: its files were saved again before it was ready.
    Superseded,
    /// Production: its files were never accepted, and nobody has asked for them to be tried.
    Untried,
    /// It happened to this one of several instances.
    Instance(u8, Box<Reason>),
}

impl Reason {
    /// Whether another try of the same files can end otherwise. A build of the same source can not.
    pub fn may_pass(&self) -> bool {
        !matches!(
            self,
            Self::Build(..) | Self::Removed | Self::Superseded | Self::Untried
        )
    }

    /// Whether somebody else holds its port.
    pub(crate) fn is_taken(&self) -> bool {
        match self {
            Self::Taken(_) => true,
            Self::Instance(_, reason) => reason.is_taken(),
            _ => false,
        }
    }

    /// Whether nothing went wrong: it was not wanted any more.
    pub fn is_unwanted(&self) -> bool {
        matches!(self, Self::Removed | Self::Superseded)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(ending) => ending.fmt(f),
            Self::NotReady(after) => write!(
                f,
                "timeout: it did not become ready within {} s",
                after.as_secs_f64()
            ),
            Self::HttpStatus(status) => write!(f, "HTTP status {status} to its health request"),
            Self::Broken(how) => write!(f, "no HTTP on its socket: {how}"),
            Self::Build(sentence, _)
            | Self::Unusable(sentence)
            | Self::Refused(sentence)
            | Self::Taken(sentence) => {
                write!(f, "{sentence}")
            }
            Self::NoProxy => write!(f, "the proxy is not connected"),
            Self::Instance(number, reason) => write!(f, "instance {number}: {reason}"),
            Self::Removed => write!(f, "the worker was removed"),
            Self::Superseded => write!(f, "its files were saved again meanwhile"),
            Self::Untried => write!(
                f,
                "its files were not accepted yet; `tqserver reload` tries them"
            ),
        }
    }
}

/// A failure with what the worker said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which generation failed, if it came to one.
    pub generation: Option<Generation>,
    /// Why.
    pub reason: Reason,
    /// Its last log lines, oldest first.
    pub log: Vec<String>,
}

/// How a reload ended for one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing changed; this generation serves on.
    Unchanged(Generation),
    /// This generation was rolled back to, and nothing new was deployed since; it serves on.
    PassedOver(Generation),
    /// A new generation serves.
    Replaced {
        /// The one that served before.
        from: Option<Generation>,
        /// The one that serves now.
        to: Generation,
    },
    /// Only assets changed; they are live, the process is the same.
    Assets,
    /// Its directory is gone, or it is disabled; its route is gone too.
    Removed,
    /// The new generation was not accepted. What served before, if anything, serves on.
    Failed(Failure),
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
        /// Names the reload in [`Action::Progress`] and [`Action::Finish`].
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
    /// [`Action::Build`] ended; `false`: there was nothing to build.
    Built(Instance, Result<bool, Reason>),
    /// [`Action::Launch`] ended: the units are there, with their assets in this place.
    Launched(Instance, Result<Option<PathBuf>, Reason>),
    /// A service of a generation changed.
    Unit(Pair, ServiceState),
    /// A socket of a generation failed (start limit, trigger limit): nothing will start its service any more.
    SocketFailed(Pair),
    /// [`Action::Probe`] ended.
    Probed(u64, ProbeOutcome),
    /// What [`Action::Probe`] of this number has reached, and is about to tell of, can be reached from outside the machine.
    Exposed(u64),
    /// [`Action::Accept`] ended.
    Accepted(Instance, Result<(), Reason>),
    /// [`Action::Assets`] ended.
    AssetsReady(Instance, Result<PathBuf, Reason>),
    /// [`Action::Stop`] ended; these were the last lines of its log.
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
    /// [`Fleet::deadline`] has come.
    Tick,
}

/// Something to do. Each is performed at once and beside the others.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Build the worker.
    Build(Instance, Spec),
    /// End this build, which nobody waits for any more.
    Abandon(Instance),
    /// Make the files of the generation and start its pairs of units.
    Launch {
        /// Which.
        instance: Instance,
        /// What of.
        spec: Spec,
        /// Its files.
        source: Source,
        /// Where each of its pairs is to listen, in their order.
        addresses: Vec<Address>,
        /// Whether it was accepted before.
        accepted: bool,
    },
    /// Ask for its health.
    Probe {
        /// Comes back in [`Event::Probed`].
        id: u64,
        /// Whose.
        pair: Pair,
        /// Where it listens.
        address: Address,
        /// What it speaks there.
        protocol: Protocol,
        /// The path of the request.
        path: String,
        /// Deadline.
        timeout: Duration,
    },
    /// Write down, where the next manager will find it, that it passed.
    Accept(Instance, Spec),
    /// Make its changed assets ready.
    Assets(Instance, Spec),
    /// Bound its units as its settings say now, and write that down for the next boot.
    Limit(Instance, Spec),
    /// Hand the proxy this table.
    Publish(RouteTable),
    /// Stop its pairs of units.
    Stop {
        /// Which.
        instance: Instance,
        /// How many pairs it has.
        pairs: u8,
        /// The pair whose last log lines are wanted, if it failed.
        failed: Option<u8>,
        /// Whether it had passed its check: what is kept of one that had not is not to be started from.
        accepted: bool,
    },
    /// Forget the snapshots of a worker but these, and those after the last: they were begun later.
    Prune {
        /// Whose.
        worker: WorkerName,
        /// Generations that run, or whose files others are made from.
        live: Vec<Generation>,
        /// The newest generation there has been.
        last: Generation,
    },
    /// Look at one worker's directory again; answered by [`Event::Looked`] with [`Look::Retry`].
    Look(WorkerName),
    /// Tell who waits for these reloads, and the journal.
    Progress {
        /// The reloads it belongs to.
        reloads: Vec<u64>,
        /// What happened.
        note: Note,
    },
    /// This reload is over.
    Finish {
        /// Which.
        id: u64,
        /// How it went, worker by worker.
        outcomes: BTreeMap<WorkerName, Outcome>,
    },
    /// All units are stopped; the manager can end.
    End,
}

/// One line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How grave it is.
    pub severity: Severity,
    /// Whom it is about.
    pub worker: WorkerName,
    /// Which run of it.
    pub generation: Option<Generation>,
    /// The line; it stands alone.
    pub text: String,
    /// What kind of thing happened.
    pub kind: Kind,
}

/// What kind of thing a note tells of, for those who read many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A step on the way.
    Progress,
    /// A generation passed its check and serves.
    Accepted {
        /// What it was made for.
        cause: Cause,
        /// The one that served before.
        from: Option<Generation>,
    },
    /// A generation, or what was to become one, failed.
    Failed {
        /// What it was made for, if it came to that.
        cause: Option<Cause>,
        /// Why.
        reason: String,
    },
    /// The process of a serving generation ended, and not well.
    Ended {
        /// How.
        reason: String,
    },
    /// The assets of a serving generation were replaced.
    Assets,
    /// A generation is gone.
    Stopped,
    /// A worker is gone.
    Removed,
    /// A worker does not serve any more.
    Down {
        /// Why.
        reason: String,
    },
    /// A serving generation does not answer as it should.
    Unhealthy {
        /// How.
        reason: String,
    },
}

/// How grave a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// All is well.
    Info,
    /// Something failed and we go on.
    Warning,
    /// An operator must act: a worker does not serve.
    Error,
}

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

/// The address of a `listen: port` worker.
pub fn loopback(port: u16) -> Address {
    Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
}
