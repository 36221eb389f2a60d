//! What operators have put before workers: pauses and maintenance, and who waits until they are in force.
//!
//! No unit is changed by either, so systemd has no place for them: a worker may have no process, and no unit of its own besides the
//! generations that come and go. They are files instead, one a worker. Those of pauses lie in the runtime directory, and so end with the
//! machine's uptime at the latest, as the clock they are measured by does; those of maintenance lie with the snapshots, where there are any:
//! who shuts a worker does not want a reboot to open it.

mod files;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use self::files::{Change, Files};
use super::confirmations::{APPLY_TIMEOUT, Confirmation};
use super::disk::Disk;
use super::requests::{PauseReply, PauseRequest, Refused};
use crate::names::WorkerName;
use crate::route::{Halt, Pause};
use crate::wire::Count;

/// Longest wait for the proxy's counters.
const COUNTS: Duration = Duration::from_secs(2);

/// Pauses and maintenance of all workers.
pub(super) struct Pauses {
    files: Files,
    disk: Disk,
    /// What is being written.
    writing: JoinSet<Written>,
    /// Who waits until a worker whose pause is in force is quiet.
    awaiting_quiet: Vec<Waiting>,
}

/// Who wants a change, and when they are to be answered.
struct Asked {
    wait: Duration,
    quiet: bool,
    reply: PauseReply,
}

/// A change that lies on the disk, or why it does not: then all is as before.
pub(super) struct Written {
    worker: WorkerName,
    change: Change,
    result: Result<(), String>,
    /// `None`: what is written only follows what holds already.
    asked: Option<Asked>,
}

/// Somebody who waits until what they want is in force.
pub(super) struct Waiting {
    worker: WorkerName,
    /// Whether it is answered when the worker is quiet, and not at once.
    quiet: bool,
    until: Instant,
    answer: u64,
    reply: PauseReply,
}

impl Pauses {
    /// What held when the last manager ended, and still does: below the runtime directory and, where there is one, the state directory.
    /// Blocks on the disk.
    pub(super) fn load(runtime: &Path, state: Option<&Path>, disk: Disk) -> Self {
        Self {
            files: Files::load(runtime, state),
            disk,
            writing: JoinSet::new(),
            awaiting_quiet: Vec::new(),
        }
    }

    /// All of it, by worker.
    pub(super) fn all(&self) -> BTreeMap<WorkerName, Halt> {
        self.files.all()
    }

    /// Begins to do what an operator wants; `known` are the workers there are. They are answered when it is in force.
    pub(super) fn begin(
        &mut self,
        worker: WorkerName,
        what: PauseRequest,
        reply: PauseReply,
        known: &[&WorkerName],
    ) {
        let begins = matches!(
            what,
            PauseRequest::Pause { .. } | PauseRequest::Maintenance(Some(_))
        );
        if !known.contains(&&worker) && (begins || !self.files.all().contains_key(&worker)) {
            let names: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
            let sentence = format!(
                "there is no worker '{worker}'; there are: {}",
                names.join(", ")
            );
            let _ = reply.send(Err(Refused::Argument(sentence)));
            return;
        }
        let (change, wait, quiet) = match what {
            PauseRequest::Pause { max, wait } => {
                (Change::Pause(Some(Pause::begin(max))), wait, true)
            }
            PauseRequest::Resume => (Change::Pause(None), Duration::ZERO, false),
            PauseRequest::Maintenance(what) => (Change::Maintenance(what), Duration::ZERO, false),
        };
        let asked = Asked { wait, quiet, reply };
        self.write(worker, change, Some(asked));
    }

    /// Has a change written, which comes back by [`Self::next_written`].
    fn write(&mut self, worker: WorkerName, change: Change, asked: Option<Asked>) {
        let order = self.files.order(&worker, &change);
        let disk = self.disk.clone();
        self.writing.spawn(async move {
            let result = match order {
                Ok(order) => order.carry_out(&disk).await,
                Err(error) => Err(error.to_string()),
            };
            Written {
                worker,
                change,
                result,
                asked,
            }
        });
    }

    /// The next change that is written; `None`: none is under way.
    pub(super) async fn next_written(&mut self) -> Option<Result<Written, JoinError>> {
        self.writing.join_next().await
    }

    /// What is written holds from now on: who waits for the proxy to take it over, unless nothing is to.
    pub(super) fn written(&mut self, written: Written) -> Option<Waiting> {
        let Written {
            worker,
            change,
            result,
            asked,
        } = written;
        let Some(Asked { wait, quiet, reply }) = asked else {
            if let Err(error) = result {
                tracing::debug!("the file of a pause that is over stays: {error}");
            }
            return None;
        };
        if let Err(error) = result {
            let sentence = format!("it could not be written down, all goes on as before: {error}");
            let _ = reply.send(Err(Refused::Failed(sentence)));
            return None;
        }
        let changed = self.files.hold(&worker, change);
        if changed {
            self.log(&worker);
        }
        Some(Waiting {
            worker,
            quiet,
            until: Instant::now() + wait,
            answer: u64::from(changed && !quiet),
            reply,
        })
    }

    /// Says what holds of a worker now.
    fn log(&self, worker: &WorkerName) {
        let halt = self.files.all().remove(worker).unwrap_or_default();
        let pause = halt.pause.map(|pause| {
            let left = pause.left().as_secs_f64().ceil();
            format!("its requests wait, for {left} s at most")
        });
        let maintenance = halt
            .maintenance
            .map(|_| "its clients are told of maintenance");
        let words: Vec<&str> = pause.as_deref().into_iter().chain(maintenance).collect();
        let words = match words.is_empty() {
            true => "its requests go to it again".to_owned(),
            false => words.join(", "),
        };
        tracing::info!(tq.worker = %worker, "worker '{worker}': {words}");
    }

    /// When somebody is to be answered at the latest, or a pause is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let end = self.files.next_end().map(|left| Instant::now() + left);
        let due = self.awaiting_quiet.iter().map(|one| one.until);
        due.chain(end).min()
    }

    /// Forgets what is over; returns whether anything is. The proxy knows by itself.
    pub(super) fn expire(&mut self) -> bool {
        let over = self.files.expire();
        let is_any = !over.is_empty();
        for worker in over {
            self.log(&worker);
            self.write(worker, Change::Pause(None), None);
        }
        is_any
    }

    /// The proxy has taken over what `waiting` waits for, or has not.
    pub(super) fn confirmed(&mut self, waiting: Waiting, confirmation: Confirmation) {
        if confirmation != Confirmation::Applied {
            let sentence = format!(
                "it is written down, but the proxy did not take it over within {} s and may go on as before until it does; \
                 `systemctl status tqserver-proxy` says how the proxy is",
                APPLY_TIMEOUT.as_secs()
            );
            let _ = waiting.reply.send(Err(Refused::Failed(sentence)));
        } else if waiting.quiet {
            self.awaiting_quiet.push(waiting);
        } else {
            let _ = waiting.reply.send(Ok(waiting.answer));
        }
    }

    /// No request of this worker is in flight, by the table in force.
    pub(super) fn quiet(&mut self, worker: &WorkerName) {
        let is_over = |one: &mut Waiting| one.worker == *worker;
        for one in self.awaiting_quiet.extract_if(.., is_over) {
            let _ = one.reply.send(Ok(0));
        }
    }

    /// Answers those whose worker has no route any more; returns those who have waited long enough, and are to be told what is in flight.
    pub(super) fn settle(&mut self, has_route: impl Fn(&WorkerName) -> bool) -> Vec<Waiting> {
        let is_over = |one: &mut Waiting| !has_route(&one.worker);
        for one in self.awaiting_quiet.extract_if(.., is_over) {
            let _ = one.reply.send(Ok(one.answer));
        }
        let now = Instant::now();
        let is_over = |one: &mut Waiting| one.until <= now;
        self.awaiting_quiet.extract_if(.., is_over).collect()
    }
}

impl Waiting {
    /// Answers with the number of requests in flight, by the proxy's counters.
    pub(super) async fn answer(self, counts: oneshot::Receiver<Vec<Count>>) {
        let counts = tokio::time::timeout(COUNTS, counts).await;
        let in_flight = match counts {
            Ok(Ok(counts)) => {
                let its = counts.iter().filter(|c| c.instance.worker == self.worker);
                Ok(its.map(|count| count.in_flight).sum())
            }
            _ => Err(Refused::Failed(
                "it is paused, but the proxy does not say how many requests are in flight"
                    .to_owned(),
            )),
        };
        let _ = self.reply.send(in_flight);
    }
}
