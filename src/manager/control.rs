//! The control interface: a D-Bus object of the manager, `org.tqserver.Manager1`, on the bus it uses anyway.
//!
//! `busctl introspect org.tqserver.Manager1 /org/tqserver/Manager1` shows it; the command line is one of its clients.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, fdo, interface};

use super::look::LookError;
use crate::names::{Generation, WorkerName};
use crate::plan::{Note, Severity};
use crate::systemd::authorise;

/// Its name on the bus, which is also the lock: one manager for one systemd.
pub const NAME: &str = "org.tqserver.Manager1";
/// Its object.
pub const OBJECT: &str = "/org/tqserver/Manager1";

/// Requests that may wait for the manager's loop.
pub(super) const REQUESTS: usize = 64;

/// How a reload went for one worker: name, outcome (`unchanged`, `replaced`, `started`, `assets`, `removed`, `failed`; of a dry
/// run what would be done), generation before and after (0: none), reason and last log lines of a failure.
#[derive(Clone, Debug, Serialize, Deserialize, zbus::Type)]
pub struct WorkerOutcome {
    /// Its name.
    pub worker: String,
    /// In a word.
    pub outcome: String,
    /// Generation before; 0: none.
    pub from: u64,
    /// Generation after; 0: none.
    pub to: u64,
    /// Why it failed; empty: it did not.
    pub reason: String,
    /// Its last log lines, if it failed.
    pub log: Vec<String>,
}

/// A worker as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, zbus::Type)]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// Its place in the URL space.
    pub route: String,
    /// `serving`, `starting`, `sleeping`, `files`, `new`, `failed` or `removed`.
    pub state: String,
    /// Its generations, newest first.
    pub generations: Vec<GenerationStatus>,
    /// What went wrong last; empty: nothing since the manager started.
    pub last_failure: String,
    /// Seconds since then.
    pub last_failure_ago: u64,
    /// Seconds until it is tried again; 0: no try is planned.
    pub retry_in: u64,
}

/// A generation as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, zbus::Type)]
pub struct GenerationStatus {
    /// Its number.
    pub generation: u64,
    /// Its service unit, the first if it has several; empty: it has none.
    pub unit: String,
    /// `building`, `launching`, `activating`, `accepting`, `serving`, `draining` or `stopping`.
    pub stage: String,
    /// Its main process, the first that runs of several; 0: none.
    pub pid: u32,
    /// Memory in bytes, of all of its instances; 0: none, or not accounted.
    pub memory: u64,
    /// CPU time in microseconds, of all of its instances.
    pub cpu_usec: u64,
    /// Requests begun.
    pub requests: u64,
    /// Of those, not yet ended.
    pub in_flight: u64,
    /// How often systemd has restarted its instances.
    pub restarts: u32,
    /// Start of the process `pid`, in seconds since 1970; 0: it has none.
    pub since: u64,
    /// Its instances, in their order.
    pub instances: Vec<InstanceStatus>,
}

/// One instance of a generation as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, zbus::Type)]
pub struct InstanceStatus {
    /// Its service unit.
    pub unit: String,
    /// `running`, `starting`, `sleeping`, `restarting`, `stopping` or `failed`.
    pub state: String,
    /// Its main process; 0: none.
    pub pid: u32,
    /// Memory in bytes; 0: none, or not accounted.
    pub memory: u64,
    /// CPU time in microseconds.
    pub cpu_usec: u64,
    /// How often systemd has restarted it.
    pub restarts: u32,
    /// Start of its process, in seconds since 1970; 0: it has none.
    pub since: u64,
}

/// Why a request was not carried out.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.tqserver.Error")]
pub enum ControlError {
    /// The bus failed.
    #[zbus(error)]
    ZBus(zbus::Error),
    /// server.yaml is wrong; the text holds all problems.
    BadConfiguration(String),
    /// An argument is wrong.
    InvalidArgument(String),
    /// The manager is about to end.
    Ending(String),
    /// Who asks may not.
    NotPermitted(String),
}

/// The polkit actions of what changes something (`packaging/polkit-1/`).
const MAY_RELOAD: &str = "org.tqserver.reload";
const MAY_ROLL_BACK: &str = "org.tqserver.rollback";

/// Which workers a reload is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// This one.
    Worker(WorkerName),
    /// All that have, or had, their directory below this one.
    Below(PathBuf),
}

/// How a request is answered.
pub(super) type Reply = oneshot::Sender<Result<Vec<WorkerOutcome>, Refused>>;

/// Why a request was not carried out at all.
#[derive(Clone, Debug)]
pub(super) enum Refused {
    /// What lies on disk can not be looked at.
    Look(LookError),
    /// What was asked for is not there.
    Argument(String),
}

/// A request to the manager's loop.
pub(super) enum Request {
    Reload {
        only: Vec<Which>,
        force: bool,
        dry_run: bool,
        /// Who is told of the progress.
        caller: Option<String>,
        reply: Reply,
    },
    Rollback {
        worker: WorkerName,
        /// Which to go back to; `None`: the one before.
        generation: Option<Generation>,
        caller: Option<String>,
        reply: Reply,
    },
    Status {
        reply: oneshot::Sender<Vec<WorkerStatus>>,
    },
}

/// The object.
pub(super) struct Manager1 {
    requests: mpsc::Sender<Request>,
    mode: String,
}

#[interface(
    name = "org.tqserver.Manager1",
    proxy(
        default_service = "org.tqserver.Manager1",
        default_path = "/org/tqserver/Manager1"
    )
)]
impl Manager1 {
    /// Replaces the generations of changed workers and returns when the new ones serve, or failed. `workers`: these; empty: all; one
    /// that begins with '/' is a directory, and means all workers below it. `force`: also what has not changed. `dry_run`: only tell what would be done.
    async fn reload(
        &self,
        workers: Vec<String>,
        force: bool,
        dry_run: bool,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<WorkerOutcome>, ControlError> {
        let only: Result<Vec<_>, _> = workers.iter().map(|word| which(word)).collect();
        let only = only?;
        let caller = permitted(connection, &header, MAY_RELOAD).await?;
        let (reply, answer) = oneshot::channel();
        let request = Request::Reload {
            only,
            force,
            dry_run,
            caller,
            reply,
        };
        self.carry_out(request, answer).await
    }

    /// Makes a generation of the files of an accepted one before it, and returns when it serves, or failed. `generation`: this one;
    /// 0: the one before the one that serves.
    async fn rollback(
        &self,
        worker: &str,
        generation: u64,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<WorkerOutcome, ControlError> {
        let worker = WorkerName::parse(worker);
        let worker = worker.map_err(|error| ControlError::InvalidArgument(error.to_string()))?;
        let caller = permitted(connection, &header, MAY_ROLL_BACK).await?;
        let (reply, answer) = oneshot::channel();
        let request = Request::Rollback {
            worker,
            generation: (generation > 0).then_some(Generation(generation)),
            caller,
            reply,
        };
        let outcomes = self.carry_out(request, answer).await?;
        outcomes.into_iter().next().ok_or_else(ending)
    }

    /// All workers as they are now.
    async fn list_workers(&self) -> Result<Vec<WorkerStatus>, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(Request::Status { reply })
            .await
            .map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }

    /// The version of the manager.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        crate::wire::VERSION
    }

    /// `development` or `production`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> &str {
        &self.mode
    }

    /// A line of a reload's progress, for who called it.
    #[zbus(signal)]
    async fn progress(
        emitter: &SignalEmitter<'_>,
        worker: &str,
        severity: &str,
        text: &str,
    ) -> zbus::Result<()>;
}

impl Manager1 {
    async fn carry_out(
        &self,
        request: Request,
        answer: oneshot::Receiver<Result<Vec<WorkerOutcome>, Refused>>,
    ) -> Result<Vec<WorkerOutcome>, ControlError> {
        self.requests.send(request).await.map_err(|_| ending())?;
        match answer.await {
            Ok(Ok(outcomes)) => Ok(outcomes),
            Ok(Err(Refused::Look(error))) => Err(ControlError::BadConfiguration(error.to_string())),
            Ok(Err(Refused::Argument(sentence))) => Err(ControlError::InvalidArgument(sentence)),
            Err(_) => Err(ending()),
        }
    }
}

/// A worker's name, or a directory of workers.
fn which(word: &str) -> Result<Which, ControlError> {
    if word.starts_with('/') {
        return Ok(Which::Below(PathBuf::from(word)));
    }
    let name = WorkerName::parse(word);
    let name = name.map_err(|error| ControlError::InvalidArgument(error.to_string()))?;
    Ok(Which::Worker(name))
}

/// Who asks, if they may.
async fn permitted(
    connection: &Connection,
    header: &Header<'_>,
    action: &str,
) -> Result<Option<String>, ControlError> {
    let caller = header.sender().map(ToString::to_string);
    if let Some(sender) = &caller {
        let allowed = authorise(connection, sender, action).await;
        allowed.map_err(ControlError::NotPermitted)?;
    }
    Ok(caller)
}

fn ending() -> ControlError {
    ControlError::Ending("the manager is about to end".to_owned())
}

/// Puts the object on the bus and takes the name.
///
/// # Errors
/// When another manager has the name.
pub(super) async fn publish(
    connection: &Connection,
    mode: String,
) -> zbus::Result<mpsc::Receiver<Request>> {
    let (requests, receiver) = mpsc::channel(REQUESTS);
    connection
        .object_server()
        .at(OBJECT, Manager1 { requests, mode })
        .await?;
    let flags = fdo::RequestNameFlags::DO_NOT_QUEUE;
    connection.request_name_with_flags(NAME, flags).await?;
    Ok(receiver)
}

/// Tells the caller of a reload how it goes; one that is gone is no matter.
pub(super) async fn tell(connection: &Connection, caller: &str, note: &Note) -> zbus::Result<()> {
    let severity = match note.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let emitter = SignalEmitter::new(connection, OBJECT)?.set_destination(caller.try_into()?);
    Manager1::progress(&emitter, note.worker.as_str(), severity, &note.text).await
}
