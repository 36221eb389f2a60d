//! What operators have put before workers: pauses and maintenance, kept where the next manager finds them.
//!
//! No unit is changed by either, so systemd has no place for them: a worker may have no process, and no unit of its own besides the
//! generations that come and go. They are files instead, one a worker. Those of pauses lie in the runtime directory, and so end with the
//! machine's uptime at the latest, as the clock they are measured by does; those of maintenance lie with the snapshots, where there are any:
//! who shuts a worker does not want a reboot to open it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

use super::control::Refused;
use super::core::{Core, PROXY_WORD};
use super::disk::{Disk, SMALL};
use crate::effort::Effort;
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
    /// What is written for one worker is written one after the other; a write that hangs keeps the turn.
    turns: BTreeMap<WorkerName, Arc<Mutex<()>>>,
}

/// What is to hold of a worker from now on.
#[derive(Clone)]
enum Change {
    Pause(Option<Pause>),
    Maintenance(Option<Maintenance>),
}

/// Who wants a change, and when they are to be answered.
struct Asked {
    wait: Duration,
    quiet: bool,
    reply: HaltReply,
}

/// A change that lies on the disk, or why it does not: then all is as before.
pub(super) struct Written {
    worker: WorkerName,
    change: Change,
    result: Result<(), String>,
    /// `None`: what is written only follows what holds already.
    asked: Option<Asked>,
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
    /// Reads what lies there, if anything does. A file that can not be read is told of and does not count. Blocks on the disk.
    fn load(directory: PathBuf) -> Self {
        let mut held = BTreeMap::new();
        let files = std::fs::read_dir(&directory).into_iter().flatten();
        for file in files.flatten() {
            let name = file.file_name();
            let Ok(worker) = WorkerName::parse(&name.to_string_lossy()) else {
                continue;
            };
            let text = std::fs::read(file.path());
            match text.and_then(|text| Ok(serde_json::from_slice(&text)?)) {
                Ok(halt) => {
                    held.insert(worker, halt);
                }
                Err(error) => tracing::warn!(
                    "{} can not be read ({error}), worker '{worker}' goes on without it",
                    file.path().display()
                ),
            }
        }
        Self {
            directory,
            held,
            turns: BTreeMap::new(),
        }
    }

    /// Whether that changes anything.
    fn hold(&mut self, worker: &WorkerName, halt: Option<T>) -> bool {
        match halt {
            Some(halt) => {
                self.held.insert(worker.clone(), halt);
                true
            }
            None => self.held.remove(worker).is_some(),
        }
    }

    fn turn(&mut self, worker: &WorkerName) -> Arc<Mutex<()>> {
        Arc::clone(self.turns.entry(worker.clone()).or_default())
    }

    fn file(&self, worker: &WorkerName) -> PathBuf {
        self.directory.join(worker.as_str())
    }
}

/// Writes `text` to `file`, or removes it if there is none: as a whole, and to last. Blocks on the disk. What is given up meanwhile is
/// taken back.
fn put(file: &Path, text: Option<&[u8]>, effort: &Effort) -> io::Result<()> {
    let before = match std::fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        before => Some(before?),
    };
    replace(file, text)?;
    if effort.finish() {
        return Ok(());
    }
    replace(file, before.as_deref())?;
    Err(io::Error::other("it took too long, and was taken back"))
}

fn replace(file: &Path, text: Option<&[u8]>) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let Some(text) = text else {
        return match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(_) => Ok(()),
            Ok(()) => std::fs::File::open(directory)?.sync_all(),
        };
    };
    if !directory.is_dir() {
        // Which workers there are is nobody else's business.
        let mut private = std::fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(directory)?;
    }
    // No worker's name begins with a dot.
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let new = directory.join(format!(".{name}"));
    let fill = || {
        let mut opened = std::fs::File::create(&new)?;
        opened.write_all(text)?;
        opened.sync_all()?;
        std::fs::rename(&new, file)?;
        std::fs::File::open(directory)?.sync_all()
    };
    fill().inspect_err(|_| {
        // What is wrong has been found; the next one writes over it.
        let _ = std::fs::remove_file(&new);
    })
}

impl Halts {
    /// What held when the last manager ended, and still does: below the runtime directory and, where there is one, the state directory.
    /// Blocks on the disk.
    pub(super) fn load(runtime: &Path, state: Option<&Path>) -> Self {
        let mut halts = Self {
            pauses: Shelf::load(runtime.join(PAUSED)),
            maintenance: Shelf::load(state.unwrap_or(runtime).join(MAINTENANCE)),
        };
        for worker in halts.expire() {
            if let Err(error) = replace(&halts.pauses.file(&worker), None) {
                tracing::debug!("the file of a pause that is over stays: {error}");
            }
        }
        halts
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

    /// Forgets pauses that are over, and says whose. Their files are left.
    fn expire(&mut self) -> Vec<WorkerName> {
        let held = self.pauses.held.iter();
        let over = held.filter(|(_, pause)| pause.left().is_zero());
        let over: Vec<WorkerName> = over.map(|(worker, _)| worker.clone()).collect();
        for worker in &over {
            self.pauses.held.remove(worker);
        }
        over
    }

    /// From now on it holds. Whether that changes anything.
    fn hold(&mut self, worker: &WorkerName, change: Change) -> bool {
        match change {
            Change::Pause(pause) => self.pauses.hold(worker, pause),
            Change::Maintenance(maintenance) => self.maintenance.hold(worker, maintenance),
        }
    }

    /// The file for a change, what is to be in it, and the turn to write it.
    fn order(&mut self, worker: &WorkerName, change: &Change) -> serde_json::Result<Order> {
        let (file, turn) = match change {
            Change::Pause(_) => (self.pauses.file(worker), self.pauses.turn(worker)),
            Change::Maintenance(_) => {
                (self.maintenance.file(worker), self.maintenance.turn(worker))
            }
        };
        let text = match change {
            Change::Pause(pause) => pause.as_ref().map(serde_json::to_vec).transpose()?,
            Change::Maintenance(what) => what.as_ref().map(serde_json::to_vec).transpose()?,
        };
        Ok(Order { file, text, turn })
    }
}

/// Something to write.
struct Order {
    file: PathBuf,
    text: Option<Vec<u8>>,
    turn: Arc<Mutex<()>>,
}

impl Order {
    async fn carry_out(self, disk: &Disk) -> Result<(), String> {
        let Self { file, text, turn } = self;
        let path = file.clone();
        let what = || format!("write {}", path.display());
        let turn = disk.turn(SMALL, what, turn.lock_owned()).await;
        let turn = turn.map_err(|error| error.to_string())?;
        let written = disk.run(SMALL, what, move |effort| {
            let _turn = turn;
            put(&file, text.as_deref(), effort)
        });
        let written = written.await.map_err(|error| error.to_string())?;
        written.map_err(|error| format!("write {}: {error}", path.display()))
    }
}

impl Core {
    /// What the last manager has left.
    pub(super) fn begin_halts(&mut self) {
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
        let (change, wait, quiet) = match wish {
            Wish::Pause { max, wait } => (Change::Pause(Some(Pause::begin(max))), wait, true),
            Wish::Resume => (Change::Pause(None), PROXY_WORD, false),
            Wish::Maintenance(what) => (Change::Maintenance(what), PROXY_WORD, false),
        };
        let asked = Asked { wait, quiet, reply };
        self.write(worker, change, Some(asked));
    }

    /// Has a change written, which comes back by [`Self::written`].
    fn write(&mut self, worker: WorkerName, change: Change, asked: Option<Asked>) {
        let order = self.halts.order(&worker, &change);
        let disk = self.performer.disk.clone();
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

    /// What is written holds.
    pub(super) fn written(&mut self, written: Written) {
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
            return;
        };
        if let Err(error) = result {
            let sentence = format!("it could not be written down, all goes on as before: {error}");
            let _ = reply.send(Err(Refused::Failed(sentence)));
            return;
        }
        let changed = self.halts.hold(&worker, change);
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
            for worker in over {
                self.tell_halt(&worker);
                self.write(worker, Change::Pause(None), None);
            }
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

    fn put(halts: &mut Halts, change: Change) {
        let Order { file, text, .. } = halts.order(&worker(), &change).unwrap();
        super::put(&file, text.as_deref(), &Effort::default()).unwrap();
        halts.hold(&worker(), change);
    }

    #[test]
    fn the_next_manager_finds_what_held() {
        let (runtime, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = || Halts::load(runtime.path(), Some(state.path()));
        let mut halts = open();
        let pause = Pause::begin(Duration::from_secs(60));
        put(&mut halts, Change::Pause(Some(pause)));
        let maintenance = Maintenance {
            message: Some("moving".to_owned()),
        };
        put(&mut halts, Change::Maintenance(Some(maintenance.clone())));
        let expected = Halt {
            pause: Some(pause),
            maintenance: Some(maintenance),
        };
        assert_eq!(open().all(), BTreeMap::from([(worker(), expected)]));
        put(&mut halts, Change::Pause(None));
        put(&mut halts, Change::Maintenance(None));
        assert!(!halts.hold(&worker(), Change::Maintenance(None)));
        assert_eq!(open().all(), BTreeMap::new());
    }

    #[test]
    fn a_pause_that_is_over_is_forgotten_and_so_is_its_file() {
        let runtime = tempfile::tempdir().unwrap();
        let mut halts = Halts::load(runtime.path(), None);
        put(
            &mut halts,
            Change::Pause(Some(Pause::begin(Duration::ZERO))),
        );
        assert_eq!(halts.next_end(), Some(Duration::ZERO));
        assert_eq!(halts.expire(), [worker()]);
        assert_eq!(Halts::load(runtime.path(), None).all(), BTreeMap::new());
        let files = std::fs::read_dir(runtime.path().join(PAUSED)).unwrap();
        assert_eq!(files.count(), 0);
    }

    #[test]
    fn a_file_that_can_not_be_read_does_not_count() {
        let runtime = tempfile::tempdir().unwrap();
        let directory = runtime.path().join(PAUSED);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("api"), "{").unwrap();
        std::fs::write(directory.join(".b"), "{}").unwrap();
        assert_eq!(Halts::load(runtime.path(), None).all(), BTreeMap::new());
    }

    #[test]
    fn what_is_written_after_nobody_waits_for_it_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("api");
        super::put(&file, Some(b"old"), &Effort::default()).unwrap();
        let given_up = Effort::default();
        given_up.give_up();
        assert!(super::put(&file, Some(b"new"), &given_up).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"old");
        assert!(super::put(&file, None, &given_up).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"old");
    }
}
