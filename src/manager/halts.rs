//! What operators have put before workers: pauses and maintenance, kept where the next manager finds them.
//!
//! No unit is changed by either, so systemd has no place for them: a worker may have no process, and no unit of its own besides the
//! generations that come and go. They are files instead, one a worker. Those of pauses lie in the runtime directory, and so end with the
//! machine's uptime at the latest, as the clock they are measured by does; those of maintenance lie with the snapshots, where there are any:
//! who shuts a worker does not want a reboot to open it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::control::Refused;
use super::core::{Core, PROXY_WORD};
use crate::names::WorkerName;
use crate::plan::Event;
use crate::route::{Halt, Maintenance, Pause};

/// The directories the files are in.
const PAUSED: &str = "paused";
const MAINTENANCE: &str = ".maintenance";
/// Longest wait for the proxy's counters.
const COUNTS: Duration = Duration::from_secs(2);

/// What holds, and where it is written.
pub(super) struct Halts {
    pauses: Shelf<Pause>,
    maintenance: Shelf<Maintenance>,
}

/// A file for each worker of which something holds.
struct Shelf<T> {
    directory: PathBuf,
    held: BTreeMap<WorkerName, T>,
}

/// What an operator wants.
pub(super) enum Wish {
    /// No request is to go to the worker, for at most `max`. It is answered when none is in flight any more, after `wait` at the latest.
    Pause { max: Duration, wait: Duration },
    /// Its requests are to go on.
    Resume,
    /// Its requests are to be refused, or not any more.
    Maintenance(Option<Maintenance>),
}

/// The answer: requests in flight when a pause is waited for no longer; of the others, whether there was anything to change (1 or 0).
pub(super) type HaltReply = oneshot::Sender<Result<u64, Refused>>;

/// Somebody who waits until what they want is in force.
pub(super) struct Waiting {
    worker: WorkerName,
    /// The table it is in force by.
    serial: u64,
    /// Whether it is answered when the worker is quiet, and not at once.
    quiet: bool,
    until: Instant,
    /// When the proxy must have it in force.
    applied_by: Instant,
    answer: u64,
    reply: HaltReply,
}

impl<T: Serialize + DeserializeOwned> Shelf<T> {
    fn new(directory: PathBuf) -> Self {
        let held = BTreeMap::new();
        Self { directory, held }
    }

    /// Reads what lies there, if anything does. A file that can not be read is told of and does not count.
    fn load(&mut self) {
        let files = std::fs::read_dir(&self.directory).into_iter().flatten();
        for file in files.flatten() {
            let name = file.file_name();
            let Ok(worker) = WorkerName::parse(&name.to_string_lossy()) else {
                continue;
            };
            let text = std::fs::read(file.path());
            match text.and_then(|text| Ok(serde_json::from_slice(&text)?)) {
                Ok(halt) => {
                    self.held.insert(worker, halt);
                }
                Err(error) => tracing::warn!(
                    "{} can not be read ({error}), worker '{worker}' goes on without it",
                    file.path().display()
                ),
            }
        }
    }

    /// Writes are a few bytes into a directory of the manager's own, so they are made where they are asked for.
    fn put(&mut self, worker: &WorkerName, halt: T) -> io::Result<()> {
        // Which workers there are is nobody else's business.
        let mut private = std::fs::DirBuilder::new();
        private
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        // No worker's name begins with a dot.
        let new = self.directory.join(format!(".{worker}"));
        std::fs::write(&new, serde_json::to_vec(&halt)?)?;
        std::fs::rename(&new, self.file(worker))?;
        self.held.insert(worker.clone(), halt);
        Ok(())
    }

    /// Whether there was something.
    fn take(&mut self, worker: &WorkerName) -> io::Result<bool> {
        match std::fs::remove_file(self.file(worker)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(self.held.remove(worker).is_some())
    }

    fn file(&self, worker: &WorkerName) -> PathBuf {
        self.directory.join(worker.as_str())
    }
}

impl Halts {
    /// Nothing; what is to hold is written below the runtime directory and, where there is one, the state directory.
    pub(super) fn new(runtime: &Path, state: Option<&Path>) -> Self {
        Self {
            pauses: Shelf::new(runtime.join(PAUSED)),
            maintenance: Shelf::new(state.unwrap_or(runtime).join(MAINTENANCE)),
        }
    }

    /// Takes up what held when the last manager ended, and still does.
    fn load(&mut self) {
        self.pauses.load();
        self.maintenance.load();
        self.expire();
    }

    /// All of it, by worker.
    fn all(&self) -> BTreeMap<WorkerName, Halt> {
        let mut all: BTreeMap<WorkerName, Halt> = BTreeMap::new();
        for (worker, pause) in &self.pauses.held {
            all.entry(worker.clone()).or_default().pause = Some(*pause);
        }
        for (worker, maintenance) in &self.maintenance.held {
            all.entry(worker.clone()).or_default().maintenance = Some(maintenance.clone());
        }
        all
    }

    /// How long until the next pause is over.
    fn next_end(&self) -> Option<Duration> {
        self.pauses.held.values().map(Pause::left).min()
    }

    /// Forgets pauses that are over, and says whose.
    fn expire(&mut self) -> Vec<WorkerName> {
        let held = self.pauses.held.iter();
        let over = held.filter(|(_, pause)| pause.left().is_zero());
        let over: Vec<WorkerName> = over.map(|(worker, _)| worker.clone()).collect();
        for worker in &over {
            if let Err(error) = self.pauses.take(worker) {
                // Over it is, whatever lies there.
                self.pauses.held.remove(worker);
                tracing::debug!("the file of a pause that is over stays: {error}");
            }
        }
        over
    }
}

impl Core {
    /// What the last manager has left.
    pub(super) fn begin_halts(&mut self) {
        self.halts.load();
        self.step(Event::Halted(self.halts.all()));
    }

    /// Does what an operator wants; they are answered when it is in force.
    pub(super) fn halt(&mut self, worker: WorkerName, wish: Wish, reply: HaltReply) {
        let known = self.fleet.view();
        let is_known = known.iter().any(|view| view.name == worker);
        let begins = matches!(wish, Wish::Pause { .. } | Wish::Maintenance(Some(_)));
        if !is_known && (begins || !self.halts.all().contains_key(&worker)) {
            let names: Vec<String> = known.iter().map(|view| view.name.to_string()).collect();
            let sentence = format!(
                "there is no worker '{worker}'; there are: {}",
                names.join(", ")
            );
            let _ = reply.send(Err(Refused::Argument(sentence)));
            return;
        }
        let (changed, wait, quiet) = match wish {
            Wish::Pause { max, wait } => {
                let begun = self.halts.pauses.put(&worker, Pause::begin(max));
                (begun.map(|()| true), wait, true)
            }
            Wish::Resume => (self.halts.pauses.take(&worker), PROXY_WORD, false),
            Wish::Maintenance(Some(maintenance)) => {
                let begun = self.halts.maintenance.put(&worker, maintenance);
                (begun.map(|()| true), PROXY_WORD, false)
            }
            Wish::Maintenance(None) => (self.halts.maintenance.take(&worker), PROXY_WORD, false),
        };
        let changed = match changed {
            Ok(changed) => changed,
            Err(error) => {
                let sentence = format!("it could not be written down: {error}");
                let _ = reply.send(Err(Refused::Failed(sentence)));
                return;
            }
        };
        if changed {
            self.tell_halt(&worker);
        }
        self.step(Event::Halted(self.halts.all()));
        self.halting.push(Waiting {
            worker,
            serial: self.fleet.up_to_date(),
            quiet,
            until: Instant::now() + wait,
            applied_by: Instant::now() + PROXY_WORD,
            answer: u64::from(changed && !quiet),
            reply,
        });
        self.settle_halts();
    }

    /// Says what holds of a worker now.
    fn tell_halt(&self, worker: &WorkerName) {
        let halt = self.halts.all().remove(worker).unwrap_or_default();
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
    pub(super) fn halt_deadline(&self) -> Option<Instant> {
        let end = self.halts.next_end().map(|left| Instant::now() + left);
        let due = self
            .halting
            .iter()
            .map(|one| match one.serial <= self.applied {
                true => one.until,
                false => one.applied_by,
            });
        due.chain(end).min()
    }

    /// Forgets what is over. The proxy knows by itself.
    pub(super) fn expire_halts(&mut self) {
        let over = self.halts.expire();
        if !over.is_empty() {
            over.iter().for_each(|worker| self.tell_halt(worker));
            self.step(Event::Halted(self.halts.all()));
        }
        self.settle_halts();
    }

    /// No request of this worker is in flight, by the table in force.
    pub(super) fn quiet(&mut self, worker: &WorkerName) {
        let applied = self.applied;
        let is_over =
            |one: &mut Waiting| one.quiet && one.worker == *worker && one.serial <= applied;
        let over: Vec<Waiting> = self.halting.extract_if(.., is_over).collect();
        for one in over {
            let _ = one.reply.send(Ok(0));
        }
    }

    /// Answers those whose wish is in force, and those who have waited long enough.
    pub(super) fn settle_halts(&mut self) {
        if self.halting.is_empty() {
            return;
        }
        let (now, ending) = (Instant::now(), self.ending);
        let applied = self.applied;
        let view = self.fleet.view();
        let has_route =
            |name: &WorkerName| view.iter().any(|w| w.name == *name && !w.claims.is_empty());
        let is_over = |one: &mut Waiting| match one.serial <= applied {
            true => one.until <= now || !one.quiet || !has_route(&one.worker),
            false => ending || one.applied_by <= now,
        };
        let over: Vec<Waiting> = self.halting.extract_if(.., is_over).collect();
        for one in over {
            if one.serial > applied {
                let sentence = format!(
                    "it is written down, but the proxy did not take it over within {} s and may go on as before until it does;                      `systemctl status tqserver-proxy` says how the proxy is",
                    PROXY_WORD.as_secs()
                );
                let _ = one.reply.send(Err(Refused::Failed(sentence)));
                continue;
            }
            if !one.quiet || !has_route(&one.worker) {
                let _ = one.reply.send(Ok(one.answer));
                continue;
            }
            let counts = self.questions.ask(self.proxy.as_ref());
            self.aside.spawn(async move {
                let counts = tokio::time::timeout(COUNTS, counts).await;
                let in_flight = match counts {
                    Ok(Ok(counts)) => {
                        let its = counts.iter().filter(|c| c.instance.worker == one.worker);
                        Ok(its.map(|count| count.in_flight).sum())
                    }
                    _ => Err(Refused::Failed(
                        "it is paused, but the proxy does not say how many requests are in flight"
                            .to_owned(),
                    )),
                };
                let _ = one.reply.send(in_flight);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> WorkerName {
        WorkerName::parse("api").unwrap()
    }

    fn opened(runtime: &Path, state: Option<&Path>) -> Halts {
        let mut halts = Halts::new(runtime, state);
        halts.load();
        halts
    }

    #[test]
    fn the_next_manager_finds_what_held() {
        let (runtime, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = || opened(runtime.path(), Some(state.path()));
        let mut halts = open();
        let pause = Pause::begin(Duration::from_secs(60));
        halts.pauses.put(&worker(), pause).unwrap();
        let maintenance = Maintenance {
            message: Some("moving".to_owned()),
        };
        halts
            .maintenance
            .put(&worker(), maintenance.clone())
            .unwrap();
        let expected = Halt {
            pause: Some(pause),
            maintenance: Some(maintenance),
        };
        assert_eq!(open().all(), BTreeMap::from([(worker(), expected)]));
        assert!(halts.pauses.take(&worker()).unwrap());
        assert!(halts.maintenance.take(&worker()).unwrap());
        assert!(!halts.maintenance.take(&worker()).unwrap());
        assert_eq!(open().all(), BTreeMap::new());
    }

    #[test]
    fn a_pause_that_is_over_is_forgotten_and_so_is_its_file() {
        let runtime = tempfile::tempdir().unwrap();
        let mut halts = opened(runtime.path(), None);
        halts
            .pauses
            .put(&worker(), Pause::begin(Duration::ZERO))
            .unwrap();
        assert_eq!(halts.next_end(), Some(Duration::ZERO));
        assert_eq!(halts.expire(), [worker()]);
        assert_eq!(opened(runtime.path(), None).all(), BTreeMap::new());
    }

    #[test]
    fn a_file_that_can_not_be_read_does_not_count() {
        let runtime = tempfile::tempdir().unwrap();
        let directory = runtime.path().join(PAUSED);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("api"), "{").unwrap();
        std::fs::write(directory.join(".b"), "{}").unwrap();
        assert_eq!(opened(runtime.path(), None).all(), BTreeMap::new());
    }
}
