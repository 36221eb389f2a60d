//! Pauses and maintenance as files, one a worker, where the next manager finds them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedMutexGuard;

use super::super::disk::{Disk, SMALL};
use super::super::turns::Turns;
use crate::effort::Effort;
use crate::names::WorkerName;
use crate::route::{Halt, Maintenance, Pause};

/// The directories the files are in.
const PAUSED: &str = "paused";
const MAINTENANCE: &str = ".maintenance";

/// What holds, and where it is written.
pub(super) struct Files {
    pauses: Directory<Pause>,
    maintenance: Directory<Maintenance>,
}

/// A file for each worker of which something holds.
struct Directory<T> {
    path: PathBuf,
    held: BTreeMap<WorkerName, T>,
    /// What is written for one worker is written one after the other; a write that hangs keeps the turn.
    turns: Turns,
}

/// What is to hold of a worker from now on.
#[derive(Clone)]
pub(super) enum Change {
    Pause(Option<Pause>),
    Maintenance(Option<Maintenance>),
}

impl<T: Serialize + DeserializeOwned> Directory<T> {
    /// Reads what lies there, if anything does. A file that cannot be read is told of and does not count. Blocks on the disk.
    fn load(path: PathBuf) -> Self {
        let mut held = BTreeMap::new();
        let files = std::fs::read_dir(&path).into_iter().flatten();
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
            path,
            held,
            turns: Turns::default(),
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

    fn file(&self, worker: &WorkerName) -> PathBuf {
        self.path.join(worker.as_str())
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

impl Files {
    /// What held when the last manager ended, and still does: below the runtime directory and, where there is one, the state directory.
    /// Blocks on the disk.
    pub(super) fn load(runtime: &Path, state: Option<&Path>) -> Self {
        let mut files = Self {
            pauses: Directory::load(runtime.join(PAUSED)),
            maintenance: Directory::load(state.unwrap_or(runtime).join(MAINTENANCE)),
        };
        for worker in files.expire() {
            if let Err(error) = replace(&files.pauses.file(&worker), None) {
                tracing::debug!("the file of a pause that is over stays: {error}");
            }
        }
        files
    }

    /// All of it, by worker.
    pub(super) fn all(&self) -> BTreeMap<WorkerName, Halt> {
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
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.pauses.held.values().map(Pause::left).min()
    }

    /// Forgets pauses that are over, and says whose. Their files are left.
    pub(super) fn expire(&mut self) -> Vec<WorkerName> {
        let held = self.pauses.held.iter();
        let over = held.filter(|(_, pause)| pause.left().is_zero());
        let over: Vec<WorkerName> = over.map(|(worker, _)| worker.clone()).collect();
        for worker in &over {
            self.pauses.held.remove(worker);
        }
        over
    }

    /// From now on it holds. Whether that changes anything.
    pub(super) fn hold(&mut self, worker: &WorkerName, change: Change) -> bool {
        match change {
            Change::Pause(pause) => self.pauses.hold(worker, pause),
            Change::Maintenance(maintenance) => self.maintenance.hold(worker, maintenance),
        }
    }

    /// What is to be written for a change. It can be carried out when it is its turn.
    pub(super) fn order(&self, worker: &WorkerName, change: &Change) -> serde_json::Result<Order> {
        let (file, turns) = match change {
            Change::Pause(_) => (self.pauses.file(worker), &self.pauses.turns),
            Change::Maintenance(_) => (self.maintenance.file(worker), &self.maintenance.turns),
        };
        let text = match change {
            Change::Pause(pause) => pause.as_ref().map(serde_json::to_vec).transpose()?,
            Change::Maintenance(what) => what.as_ref().map(serde_json::to_vec).transpose()?,
        };
        let turn = Box::pin(turns.of(worker));
        Ok(Order { file, text, turn })
    }
}

/// Something to write.
pub(super) struct Order {
    file: PathBuf,
    /// `None`: the file is to go.
    text: Option<Vec<u8>>,
    turn: Pin<Box<dyn Future<Output = OwnedMutexGuard<()>> + Send>>,
}

impl Order {
    pub(super) async fn carry_out(self, disk: &Disk) -> Result<(), String> {
        let Self { file, text, turn } = self;
        let path = file.clone();
        let what = || format!("write {}", path.display());
        let turn = disk.turn(SMALL, what, turn).await;
        let turn = turn.map_err(|error| error.to_string())?;
        let written = disk.run(SMALL, what, move |effort| {
            let _turn = turn;
            put(&file, text.as_deref(), effort)
        });
        let written = written.await.map_err(|error| error.to_string())?;
        written.map_err(|error| format!("write {}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> WorkerName {
        WorkerName::parse("api").unwrap()
    }

    fn put(files: &mut Files, change: Change) {
        let Order { file, text, .. } = files.order(&worker(), &change).unwrap();
        super::put(&file, text.as_deref(), &Effort::default()).unwrap();
        files.hold(&worker(), change);
    }

    #[test]
    fn the_next_manager_finds_what_held() {
        let (runtime, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = || Files::load(runtime.path(), Some(state.path()));
        let mut files = open();
        let pause = Pause::begin(Duration::from_secs(60));
        put(&mut files, Change::Pause(Some(pause)));
        let maintenance = Maintenance {
            message: Some("moving".to_owned()),
        };
        put(&mut files, Change::Maintenance(Some(maintenance.clone())));
        let expected = Halt {
            pause: Some(pause),
            maintenance: Some(maintenance),
        };
        assert_eq!(open().all(), BTreeMap::from([(worker(), expected)]));
        put(&mut files, Change::Pause(None));
        put(&mut files, Change::Maintenance(None));
        assert!(!files.hold(&worker(), Change::Maintenance(None)));
        assert_eq!(open().all(), BTreeMap::new());
    }

    #[test]
    fn a_pause_that_is_over_is_forgotten_and_so_is_its_file() {
        let runtime = tempfile::tempdir().unwrap();
        let mut files = Files::load(runtime.path(), None);
        put(
            &mut files,
            Change::Pause(Some(Pause::begin(Duration::ZERO))),
        );
        assert_eq!(files.next_end(), Some(Duration::ZERO));
        assert_eq!(files.expire(), [worker()]);
        assert_eq!(Files::load(runtime.path(), None).all(), BTreeMap::new());
        let left = std::fs::read_dir(runtime.path().join(PAUSED)).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_file_that_can_not_be_read_does_not_count() {
        let runtime = tempfile::tempdir().unwrap();
        let directory = runtime.path().join(PAUSED);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("api"), "{").unwrap();
        std::fs::write(directory.join(".b"), "{}").unwrap();
        assert_eq!(Files::load(runtime.path(), None).all(), BTreeMap::new());
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
