//! The thread that watches: which directories, and which events count.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use notify::event::{EventKind, ModifyKind};
use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::time::Instant;

use super::burst::{Burst, Bursts};
use crate::ignored::{Developed, GIT_IGNORE, GitFiles, Rules, is_left_out_between_workers};

/// A burst without an event for so long rests. Whoever writes a file in place has written it by then.
const REST: Duration = Duration::from_millis(5);
/// A burst is handed out at the latest so many times the debounce after its first event, and not before the second of these.
const LONGEST: (u32, Duration) = (20, Duration::from_secs(1));
/// How often it is looked where there are no events to be had.
const POLL: Duration = Duration::from_millis(500);

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Directories of workers, absolute; one that is not there is waited for.
    pub directories: Vec<PathBuf>,
    /// Single files, absolute, that may not be there.
    pub files: Vec<PathBuf>,
    /// The workers, by which it is known what counts.
    pub workers: Vec<Developed>,
    /// How long events are gathered, from the last one on.
    pub debounce: Duration,
    /// A burst so often instead of events.
    pub poll: Option<Duration>,
}

/// What the thread that watches hears.
#[derive(Debug)]
pub(super) enum Message {
    Event(notify::Result<notify::Event>),
    Watch(Box<Watched>),
    Stop,
}

/// What watches.
pub(super) struct Eye {
    notify: Option<RecommendedWatcher>,
    bursts: Arc<Bursts>,
    /// Events were lost on their way to us.
    overflow: Arc<AtomicBool>,
    watched: Watched,
    /// By the worker's directory.
    rules: Vec<(PathBuf, Rules)>,
    git: Rc<GitFiles>,
    /// The directories that are watched.
    directories: BTreeSet<PathBuf>,
    gathered: Option<Gathered>,
    /// When the next burst is due without an event.
    poll_at: Option<Instant>,
}

/// Events that are not handed out yet.
#[derive(Clone, Copy)]
struct Gathered {
    first: Instant,
    last: Instant,
    /// It was told that no event has come for a moment.
    is_told: bool,
}

impl Eye {
    pub(super) fn open(
        hear: impl FnMut(notify::Result<notify::Event>) + Send + 'static,
        bursts: Arc<Bursts>,
        overflow: Arc<AtomicBool>,
    ) -> Self {
        let mut eye = Self {
            notify: None,
            bursts,
            overflow,
            watched: Watched::default(),
            rules: Vec::new(),
            git: Rc::default(),
            directories: BTreeSet::new(),
            gathered: None,
            poll_at: None,
        };
        match notify::recommended_watcher(hear) {
            Ok(notify) => eye.notify = Some(notify),
            Err(error) => eye.give_up(&error),
        }
        eye
    }

    /// Until nobody listens any more.
    pub(super) fn run(mut self, watched: Watched, messages: &Receiver<Message>) {
        self.watch(watched);
        loop {
            let message = match self.due().into_iter().chain(self.rests()).min() {
                Some(at) => messages.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(Message::Event(event)) => self.hear(event),
                Ok(Message::Watch(watched)) => self.watch(*watched),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.overflow.swap(false, Ordering::SeqCst) {
                self.look_again();
            }
            self.hand_out();
        }
    }

    /// When there is something to hand out.
    fn due(&self) -> Option<Instant> {
        let debounce = self.watched.debounce;
        let (times, least) = LONGEST;
        let gathered = self.gathered.map(|gathered| {
            let longest = (debounce * times).max(least);
            (gathered.last + debounce).min(gathered.first + longest)
        });
        gathered.into_iter().chain(self.poll_at).min()
    }

    /// When it is told that a burst rests.
    fn rests(&self) -> Option<Instant> {
        let gathered = self.gathered.filter(|gathered| !gathered.is_told)?;
        Some(gathered.last + REST)
    }

    fn hand_out(&mut self) {
        let now = Instant::now();
        if self.due().is_none_or(|due| due > now) {
            if self.rests().is_some_and(|rests| rests <= now)
                && let Some(gathered) = &mut self.gathered
            {
                gathered.is_told = true;
                self.bursts.rests.notify_one();
            }
            return;
        }
        if self.poll_at.is_some_and(|at| at <= now) {
            self.poll_at = Some(now + self.watched.poll.unwrap_or(POLL));
        }
        let first = self.gathered.take().map_or(now, |gathered| gathered.first);
        self.bursts.add(Burst { first });
    }

    /// There was an event that counts.
    fn gather(&mut self) {
        let now = Instant::now();
        let first = self.gathered.map_or(now, |gathered| gathered.first);
        self.gathered = Some(Gathered {
            first,
            last: now,
            is_told: false,
        });
    }

    fn watch(&mut self, watched: Watched) {
        if self.watched == watched {
            return;
        }
        self.watched = watched;
        if let Some(poll) = self.watched.poll {
            self.notify = None;
            self.directories.clear();
            self.poll_at = Some(Instant::now() + poll);
        }
        self.read_rules();
        self.follow();
    }

    fn read_rules(&mut self) {
        self.git = Rc::default();
        let workers = self.watched.workers.iter();
        let rules = workers.map(|worker| (worker.directory.clone(), Rules::new(worker, &self.git)));
        self.rules = rules.collect();
    }

    /// Watches the directories that count as they are now, and no others.
    fn follow(&mut self) {
        let mut wanted = BTreeSet::new();
        for root in self.watched.directories.clone() {
            if root.is_dir() {
                self.watch_below(&root, &mut wanted);
            } else {
                wanted.extend(nearest(&root));
            }
        }
        let files = self.watched.files.iter();
        wanted.extend(files.filter_map(|file| nearest(file.parent()?)));
        for directory in &wanted {
            self.watch_directory(directory);
        }
        let known = self.directories.iter();
        let gone: Vec<PathBuf> = known
            .filter(|one| !wanted.contains(*one))
            .cloned()
            .collect();
        self.unwatch(gone);
    }

    /// Watches all directories below `root` that count, itself included. Each is listed after it is watched, so that what is made in it
    /// meanwhile is seen by the one or the other.
    fn watch_below(&mut self, root: &Path, found: &mut BTreeSet<PathBuf>) {
        let mut to_do = vec![root.to_owned()];
        while let Some(directory) = to_do.pop() {
            self.watch_directory(&directory);
            let entries = directory.read_dir().into_iter().flatten().flatten();
            for entry in entries {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !self.ignores(&path, true) {
                    to_do.push(path);
                }
            }
            found.insert(directory);
        }
    }

    /// Watches one directory. What happened in it before is seen by the look that follows.
    fn watch_directory(&mut self, directory: &Path) {
        if self.directories.contains(directory) {
            return;
        }
        let Some(notify) = &mut self.notify else {
            return;
        };
        match notify.watch(directory, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.directories.insert(directory.to_owned());
                self.gather();
            }
            Err(error) if is_limit(&error) => self.give_up(&error),
            // It vanished, or is closed to us: then there is nothing to see.
            Err(error) => tracing::debug!("{} is not watched: {error}", directory.display()),
        }
    }

    fn unwatch(&mut self, gone: Vec<PathBuf>) {
        for directory in gone {
            if let Some(notify) = &mut self.notify {
                // It may be gone itself.
                let _ = notify.unwatch(&directory);
            }
            self.directories.remove(&directory);
        }
    }

    /// Whether what is at `path`, in a directory that counts, does not.
    fn ignores(&self, path: &Path, is_directory: bool) -> bool {
        let around = self
            .rules
            .iter()
            .filter(|(worker, _)| path.starts_with(worker));
        match around.max_by_key(|(worker, _)| worker.components().count()) {
            Some((worker, _)) if worker == path => false,
            Some((_, rules)) => rules.ignores(path, is_directory),
            None => is_left_out_between_workers(path.file_name().unwrap_or_default(), is_directory),
        }
    }

    fn hear(&mut self, event: notify::Result<notify::Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) if is_limit(&error) => return self.give_up(&error),
            Err(error) => {
                tracing::debug!("a file event could not be read: {error}");
                return self.look_again();
            }
        };
        if event.need_rescan() {
            return self.look_again();
        }
        // Reading changes nothing; of writing there is another event.
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        for path in &event.paths {
            self.happened(path, &event.kind);
        }
    }

    /// Something happened to what is, or was, at `path`.
    fn happened(&mut self, path: &Path, kind: &EventKind) {
        let is_rules = path.file_name() == Some(OsStr::new(GIT_IGNORE));
        if self.watched.files.iter().any(|file| file == path) {
            return match is_rules {
                true => self.look_again(),
                false => self.gather(),
            };
        }
        let mut roots = self.watched.directories.iter();
        if !roots.any(|root| path.starts_with(root)) {
            return self.beside(path);
        }
        let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        if is_rules {
            self.look_again();
        } else if self.watched.directories.iter().any(|root| root == path) && !is_directory {
            // It is gone: where it was, it may come back.
            self.look_again();
        } else if self.ignores(path, is_directory) {
            // A directory that did not count is no news either when it goes.
        } else if !is_directory {
            self.forget_below(path);
            self.gather();
        } else if !self.directories.contains(path) {
            self.watch_below(path, &mut BTreeSet::new());
            self.gather();
        } else if !matches!(kind, EventKind::Modify(ModifyKind::Metadata(_))) {
            // It was there and is again: another one of the same name, whose directories are not the ones we knew.
            self.forget_below(path);
            self.watch_below(path, &mut BTreeSet::new());
            self.gather();
        }
    }

    fn forget_below(&mut self, path: &Path) {
        let below = |known: &&PathBuf| known.starts_with(path);
        self.unwatch(self.directories.iter().filter(below).cloned().collect());
    }

    /// Something happened outside of the directories of workers, where one of them is waited for, or a file.
    fn beside(&mut self, path: &Path) {
        let mut awaited = self.watched.directories.iter().chain(&self.watched.files);
        if awaited.any(|awaited| awaited.starts_with(path)) {
            self.look_again();
        }
    }

    /// Anything may have changed.
    fn look_again(&mut self) {
        self.read_rules();
        self.follow();
        self.gather();
    }

    /// There are no events to be had (any more).
    fn give_up(&mut self, error: &notify::Error) {
        let hint = match is_limit(error) {
            true => {
                "; `sysctl fs.inotify.max_user_watches=524288` (and fs.inotify.max_user_instances=1024) lets more be watched"
            }
            false => "",
        };
        tracing::warn!(
            "files can not be watched: {error}; they are looked at every {} ms instead{hint}",
            POLL.as_millis()
        );
        self.notify = None;
        self.directories.clear();
        self.poll_at = Some(Instant::now() + POLL);
        self.gather();
    }
}

/// The directory itself, or the nearest around it that is there.
fn nearest(directory: &Path) -> Option<PathBuf> {
    directory
        .ancestors()
        .find(|around| around.is_dir())
        .map(Path::to_owned)
}

/// Whether the kernel has no room for another watch (inotify_add_watch(2): ENOSPC) or another watcher (inotify_init(2): EMFILE).
fn is_limit(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::MaxFilesWatch => true,
        ErrorKind::Io(error) => {
            matches!(
                error.raw_os_error(),
                Some(code) if code == rustix::io::Errno::NOSPC.raw_os_error()
                    || code == rustix::io::Errno::MFILE.raw_os_error()
            ) || error.kind() == io::ErrorKind::StorageFull
        }
        _ => false,
    }
}
