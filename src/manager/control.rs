//! The control interface: a D-Bus object of the manager, `org.tqserver.Manager1`, on the bus it uses anyway.
//!
//! `busctl introspect org.tqserver.Manager1 /org/tqserver/Manager1` shows it; the command line is one of its clients.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, fdo, interface};

use super::requests::{
    Answer, Caller, ExecRequest, PauseRequest, Refused, ReloadRequest, Request, RollbackRequest,
    Which, Who,
};
use super::status::{ListenerStatus, Rollbacks, WorkerOutcome, WorkerStatus};
use crate::names::{Generation, WorkerName};
use crate::plan::{Kind, Note, Severity};
use crate::route::Maintenance;
use crate::systemd::{authorise, user_of};

/// Its name on the bus, which is also the lock: one manager for one systemd.
pub const NAME: &str = "org.tqserver.Manager1";
/// Its object.
pub const OBJECT: &str = "/org/tqserver/Manager1";

/// Requests that may wait for the manager's loop.
const REQUESTS: usize = 64;

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
    /// It could not be done.
    Failed(String),
}

/// The polkit actions of what changes something (`packaging/polkit-1/`).
const MAY_RELOAD: &str = "org.tqserver.reload";
const MAY_ROLL_BACK: &str = "org.tqserver.rollback";
const MAY_PAUSE: &str = "org.tqserver.pause";
const MAY_EXEC: &str = "org.tqserver.exec";
const MAY_MAINTAIN: &str = "org.tqserver.maintenance";

/// Shortest and longest pause in milliseconds. Clients do not wait longer, and nobody is to forget one.
pub(crate) const PAUSE: std::ops::RangeInclusive<u64> = 1000..=3_600_000;
/// The most words and bytes of a command that somebody runs in the surroundings of a worker.
const MOST_WORDS: usize = 1024;
const LONGEST_COMMAND: usize = 64 << 10;
/// Signals that are passed on to it: HUP, INT, QUIT, TERM (signal(7)).
const SIGNALS: [i32; 4] = [1, 2, 3, 15];
/// Longest text that clients can be told of maintenance, in bytes: it is in the route table.
const LONGEST_MESSAGE: usize = 2000;

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
        let name = permitted(connection, &header, MAY_RELOAD).await?;
        let (caller, answer) = caller(name);
        let request = Request::Reload(ReloadRequest {
            only,
            force,
            dry_run,
            caller,
        });
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
        let worker = parsed(worker)?;
        let name = permitted(connection, &header, MAY_ROLL_BACK).await?;
        let (caller, answer) = caller(name);
        let request = Request::Rollback(RollbackRequest {
            worker,
            generation: (generation > 0).then_some(Generation(generation)),
            caller,
        });
        let outcomes = self.carry_out(request, answer).await?;
        outcomes.into_iter().next().ok_or_else(ending)
    }

    /// Keeps requests from a worker, for `max` milliseconds at most: they wait. Returns the number of requests still in flight in it: 0
    /// as soon as there are none, and what there is after `wait` milliseconds.
    async fn pause(
        &self,
        worker: &str,
        max: u64,
        wait: u64,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u64, ControlError> {
        let worker = parsed(worker)?;
        if !PAUSE.contains(&max) || wait > *PAUSE.end() {
            let sentence = "a pause lasts from 1 s to 1 h, and is waited for that long at most";
            return Err(ControlError::InvalidArgument(sentence.to_owned()));
        }
        permitted(connection, &header, MAY_PAUSE).await?;
        let (max, wait) = (Duration::from_millis(max), Duration::from_millis(wait));
        self.ask(worker, PauseRequest::Pause { max, wait }).await
    }

    /// Ends a worker's pause; returns whether there was one.
    async fn resume(
        &self,
        worker: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, ControlError> {
        let worker = parsed(worker)?;
        permitted(connection, &header, MAY_PAUSE).await?;
        Ok(self.ask(worker, PauseRequest::Resume).await? > 0)
    }

    /// Refuses a worker's requests, with `message` for the clients (empty: a sentence of the server's own), until it is called with `on`
    /// false; returns whether that changed anything.
    async fn maintenance(
        &self,
        worker: &str,
        on: bool,
        message: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, ControlError> {
        let worker = parsed(worker)?;
        if message.len() > LONGEST_MESSAGE || message.chars().any(char::is_control) {
            let sentence =
                format!("a message is one line of at most {LONGEST_MESSAGE} bytes of text");
            return Err(ControlError::InvalidArgument(sentence));
        }
        permitted(connection, &header, MAY_MAINTAIN).await?;
        let message = Some(message.to_owned()).filter(|message| !message.is_empty());
        let what = PauseRequest::Maintenance(on.then_some(Maintenance { message }));
        Ok(self.ask(worker, what).await? > 0)
    }

    /// Runs a command in the surroundings of a worker and returns when it has ended: its exit code as a shell has it (beyond 128 is a
    /// signal), and a sentence if that does not say it all. `words`: program and arguments; none: a shell. `terminal`: its standard
    /// input is a terminal of this type that is to be its own; empty: it is not.
    #[allow(
        clippy::too_many_arguments,
        reason = "the interface has three descriptors, and each is one"
    )]
    async fn exec(
        &self,
        worker: &str,
        words: Vec<String>,
        terminal: &str,
        input: zbus::OwnedFd,
        output: zbus::OwnedFd,
        errors: zbus::OwnedFd,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(i32, String), ControlError> {
        let worker = parsed(worker)?;
        let size: usize = words.iter().map(String::len).sum();
        let is_odd = words.iter().any(|word| word.contains('\0'));
        if is_odd || size > LONGEST_COMMAND || words.len() > MOST_WORDS {
            let sentence = format!(
                "a command has at most {MOST_WORDS} words and {LONGEST_COMMAND} bytes, and no NUL"
            );
            return Err(ControlError::InvalidArgument(sentence));
        }
        let is_type = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        if terminal.len() > 64 || !terminal.chars().all(is_type) {
            let sentence = "this is not the type of a terminal".to_owned();
            return Err(ControlError::InvalidArgument(sentence));
        }
        let sender = permitted(connection, &header, MAY_EXEC).await?;
        let sender = sender.unwrap_or_default();
        let uid = user_of(connection, &sender).await;
        let uid = uid.map_err(ControlError::NotPermitted)?;
        let (reply, answer) = oneshot::channel();
        let request = Request::Exec(ExecRequest {
            worker,
            words,
            terminal: Some(terminal.to_owned()).filter(|terminal| !terminal.is_empty()),
            ends: [input, output, errors].map(Into::into),
            who: Who { sender, uid },
            reply,
        });
        self.requests.send(request).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?.map_err(control_error)
    }

    /// Sends a signal (1, 2, 3, 15: HUP, INT, QUIT, TERM) to the command that the caller runs.
    async fn signal_exec(
        &self,
        signal: i32,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), ControlError> {
        if !SIGNALS.contains(&signal) {
            let sentence = "this signal is not passed on".to_owned();
            return Err(ControlError::InvalidArgument(sentence));
        }
        // Whoever runs something was allowed to, and nobody else has their name.
        let sender = header.sender().map(ToString::to_string);
        let sender = sender.unwrap_or_default();
        let request = Request::ExecSignal { sender, signal };
        self.requests.send(request).await.map_err(|_| ending())
    }

    /// All workers as they are now.
    async fn list_workers(&self) -> Result<Vec<WorkerStatus>, ControlError> {
        self.status(None).await
    }

    /// These workers as they are now; one that is not there is left out.
    async fn get_workers(&self, workers: Vec<String>) -> Result<Vec<WorkerStatus>, ControlError> {
        let only: Result<Vec<_>, _> = workers.iter().map(|name| parsed(name)).collect();
        self.status(Some(only?)).await
    }

    /// Where clients connect, and where they cannot although server.yaml says so.
    async fn list_listeners(&self) -> Result<Vec<ListenerStatus>, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(Request::Front { reply })
            .await
            .map_err(|_| ending())?;
        let front = answer.await.map_err(|_| ending())?;
        Ok(ListenerStatus::all(&front))
    }

    /// The generations of these workers, of all if none is named, that can be rolled back to, the newest first. In development nothing is
    /// kept to go back to.
    async fn list_rollbacks(&self, workers: Vec<String>) -> Result<Vec<Rollbacks>, ControlError> {
        let only: Result<Vec<_>, _> = workers.iter().map(|name| parsed(name)).collect();
        let (reply, answer) = oneshot::channel();
        let request = Request::Rollbacks { only: only?, reply };
        self.requests.send(request).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?.map_err(control_error)
    }

    /// What lies among the workers and is none, as of the last look at them: each in a sentence with what to do.
    async fn list_left_out(&self) -> Result<Vec<String>, ControlError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::LeftOut { reply };
        self.requests.send(request).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }

    /// The version of the manager.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
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
    async fn status(
        &self,
        only: Option<Vec<WorkerName>>,
    ) -> Result<Vec<WorkerStatus>, ControlError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Status { only, reply };
        self.requests.send(request).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }

    async fn ask(&self, worker: WorkerName, what: PauseRequest) -> Result<u64, ControlError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Pause {
            worker,
            what,
            reply,
        };
        self.requests.send(request).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?.map_err(control_error)
    }

    async fn carry_out(
        &self,
        request: Request,
        answer: oneshot::Receiver<Answer>,
    ) -> Result<Vec<WorkerOutcome>, ControlError> {
        self.requests.send(request).await.map_err(|_| ending())?;
        match answer.await {
            Ok(Ok(outcomes)) => Ok(outcomes),
            Ok(Err(refused)) => Err(control_error(refused)),
            Err(_) => Err(ending()),
        }
    }
}

/// Who waits, and for what.
fn caller(name: Option<String>) -> (Caller, oneshot::Receiver<Answer>) {
    let (reply, answer) = oneshot::channel();
    let reply = Some(reply);
    (Caller { name, reply }, answer)
}

fn control_error(refused: Refused) -> ControlError {
    match refused {
        Refused::Scan(error) => ControlError::BadConfiguration(error.to_string()),
        Refused::Argument(sentence) => ControlError::InvalidArgument(sentence),
        Refused::Failed(sentence) => ControlError::Failed(sentence),
    }
}

fn parsed(worker: &str) -> Result<WorkerName, ControlError> {
    let name = WorkerName::parse(worker);
    name.map_err(|error| ControlError::InvalidArgument(error.to_string()))
}

/// A worker's name, or a directory of workers.
fn which(word: &str) -> Result<Which, ControlError> {
    if word.starts_with('/') {
        return Ok(Which::Below(PathBuf::from(word)));
    }
    Ok(Which::Worker(parsed(word)?))
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
pub(super) async fn report(connection: &Connection, caller: &str, note: &Note) -> zbus::Result<()> {
    let severity = match note.severity {
        Severity::Info => "info",
        // Of what failed the outcome tells.
        Severity::Warning if note.kind == Kind::Progress => "notice",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let worker = note.worker.as_str();
    progress(connection, caller, worker, severity, &note.text).await
}

/// Tells the caller of a reload how many of its workers are done.
pub(super) async fn report_how_far(
    connection: &Connection,
    caller: &str,
    text: &str,
) -> zbus::Result<()> {
    progress(connection, caller, "", "info", text).await
}

async fn progress(
    connection: &Connection,
    caller: &str,
    worker: &str,
    severity: &str,
    text: &str,
) -> zbus::Result<()> {
    let emitter = SignalEmitter::new(connection, OBJECT)?.set_destination(caller.try_into()?);
    Manager1::progress(&emitter, worker, severity, text).await
}

#[cfg(test)]
mod tests {
    use zbus::object_server::Interface;

    use super::*;

    const POLICY: &str = include_str!("../../packaging/dbus-1/org.tqserver.Manager1.conf");

    /// The part of the policy that begins so.
    fn policy(begin: &str) -> &'static str {
        let (_, policy) = POLICY.split_once(begin).unwrap();
        policy.split_once("</policy>").unwrap().0
    }

    /// Or `tqserver status` would be refused, or tell less, to those who may see it.
    #[test]
    fn the_policy_of_the_bus_knows_every_method() {
        let (requests, _) = mpsc::channel(1);
        let mode = String::new();
        let mut introspected = String::new();
        Manager1 { requests, mode }.introspect_to_writer(&mut introspected, 0);
        let methods = introspected.split("<method name=\"").skip(1);
        let methods = methods.map(|rest| rest.split('"').next().unwrap());
        let methods: Vec<_> = methods.collect();
        assert!(methods.contains(&"ListWorkers"), "{methods:?}");
        for method in methods {
            let reads = method.starts_with("List") || method.starts_with("Get");
            let whose = match reads {
                true => "<policy group=\"tqserver-admin\">",
                false => "<policy context=\"default\">",
            };
            let member = format!("send_member=\"{method}\"");
            assert!(policy(whose).contains(&member), "{whose} lacks {member}");
        }
    }
}
