//! What the manager is asked for: over the bus, by a signal, by files that were saved.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;

use super::scan::ScanError;
use super::status::{Rollbacks, WorkerOutcome, WorkerStatus};
use crate::names::{Generation, WorkerName};
use crate::route::Maintenance;
use crate::wire::FrontState;

/// Which workers a reload is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// This one.
    Worker(WorkerName),
    /// All that have, or had, their directory below this one.
    Below(PathBuf),
}

/// How a reload or rollback is answered.
pub(super) type Answer = Result<Vec<WorkerOutcome>, Refused>;

/// Why a request was not carried out at all.
#[derive(Clone, Debug)]
pub(super) enum Refused {
    /// What lies on disk cannot be scanned.
    Scan(ScanError),
    /// What was asked for is not there.
    Argument(String),
    /// The system refused: a sentence.
    Failed(String),
}

/// A request to the manager's loop.
pub(super) enum Request {
    Reload(ReloadRequest),
    Rollback(RollbackRequest),
    /// About pause and maintenance of a worker.
    Pause {
        worker: WorkerName,
        what: PauseRequest,
        reply: PauseReply,
    },
    /// Runs a command in the surroundings of a worker.
    Exec(ExecRequest),
    /// A signal for what somebody runs.
    ExecSignal {
        /// Their name on the bus.
        sender: String,
        signal: i32,
    },
    Status {
        /// These workers, as far as they are there; `None`: all.
        only: Option<Vec<WorkerName>>,
        reply: oneshot::Sender<Vec<WorkerStatus>>,
    },
    Front {
        reply: oneshot::Sender<FrontState>,
    },
    /// Which generations can be rolled back to.
    Rollbacks {
        /// Of these workers, as far as they are there; none: all.
        only: Vec<WorkerName>,
        reply: oneshot::Sender<Result<Vec<Rollbacks>, Refused>>,
    },
    /// What lies among workers and is none.
    LeftOut {
        reply: oneshot::Sender<Vec<String>>,
    },
}

/// Replaces the generations of changed workers.
pub(super) struct ReloadRequest {
    /// These; none: all.
    pub(super) only: Vec<Which>,
    pub(super) force: bool,
    pub(super) dry_run: bool,
    pub(super) caller: Caller,
}

/// Goes back to an accepted generation.
pub(super) struct RollbackRequest {
    pub(super) worker: WorkerName,
    /// Which to go back to; `None`: the one before.
    pub(super) generation: Option<Generation>,
    pub(super) caller: Caller,
}

/// A command that somebody wants to run.
pub(super) struct ExecRequest {
    pub(super) worker: WorkerName,
    /// Program and arguments; none: a shell.
    pub(super) words: Vec<String>,
    /// The type of the terminal, if its standard input is one and is to be its own.
    pub(super) terminal: Option<String>,
    /// Standard input, output and error.
    pub(super) ends: [OwnedFd; 3],
    pub(super) who: Who,
    pub(super) reply: oneshot::Sender<Result<Ended, Refused>>,
}

/// Who runs something.
#[derive(Clone, Debug)]
pub(super) struct Who {
    /// Their name on the bus.
    pub(super) sender: String,
    /// Their number on the machine.
    pub(super) uid: u32,
}

/// How a command ended: an exit code, as a shell has it, and a sentence if that does not say it all.
pub(super) type Ended = (i32, String);

/// What is to hold of a worker's requests.
pub(super) enum PauseRequest {
    /// No request is to go to the worker, for at most `max`. It is answered when none is in flight any more, after `wait` at the latest.
    Pause { max: Duration, wait: Duration },
    /// Its requests are to go on.
    Resume,
    /// Its requests are to be refused, or not any more.
    Maintenance(Option<Maintenance>),
}

/// The answer: requests in flight when a pause is waited for no longer; of the others, whether there was anything to change (1 or 0).
pub(super) type PauseReply = oneshot::Sender<Result<u64, Refused>>;

/// Who waits for the end of something.
#[derive(Default)]
pub(super) struct Caller {
    /// Its name on the bus, where it is told of the progress.
    pub(super) name: Option<String>,
    pub(super) reply: Option<oneshot::Sender<Answer>>,
}

impl Caller {
    pub(super) fn answer(self, answer: Answer) {
        if let Some(reply) = self.reply {
            let _ = reply.send(answer);
        }
    }
}

/// What makes a manager look at the disk, beside those who ask over the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nudge {
    /// SIGHUP: a reload of everything.
    Hangup,
    /// Development: files were saved, and more may come: nothing is to serve yet.
    Saving,
    /// Development: files were saved, the first of them then.
    Saved(tokio::time::Instant),
}
