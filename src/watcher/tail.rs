//! The lines by which files in a directory grow.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Lines that may wait for their reader; then the files wait.
const LINES: usize = 1024;
/// Longest line; a longer one is handed on in pieces.
const LINE_MAX: usize = 8 << 10;
/// How often files are looked at where the kernel has no room for a watch.
const POLL: Duration = Duration::from_millis(500);

/// A line, and the name of the file it stands in.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The file's name.
    pub file: OsString,
    /// Without its end.
    pub bytes: Vec<u8>,
}

/// Follows the files of a directory until it is dropped.
#[derive(Debug)]
pub struct Tails {
    lines: mpsc::Receiver<Line>,
    _ended: SyncSender<()>,
    _watch: Option<RecommendedWatcher>,
}

/// A file that is followed. It stays open, so that its last lines are read though it is gone.
struct Followed {
    file: File,
    partial: Vec<u8>,
    /// It was gone when it was read last.
    is_gone: bool,
}

impl Tails {
    /// Follows the files in `directory`, those that are there from their end on.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn follow(directory: PathBuf) -> io::Result<Self> {
        let (ended, wake) = sync_channel(1);
        let waker = ended.clone();
        let watch = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // We read them ourselves; and one that waits covers all that comes after it.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = waker.try_send(());
            }
        });
        let watch = watch.and_then(|mut watch| {
            watch.watch(&directory, RecursiveMode::NonRecursive)?;
            Ok(watch)
        });
        let poll = watch.is_err().then_some(POLL);
        let (sender, lines) = mpsc::channel(LINES);
        let mut known = HashMap::new();
        for (name, path) in files(&directory) {
            if let Some(followed) = Followed::open(&path, SeekFrom::End(0)) {
                known.insert(name, followed);
            }
        }
        thread::Builder::new()
            .name("tails".to_owned())
            .spawn(move || run(&directory, known, &wake, poll, &sender))?;
        Ok(Self {
            lines,
            _ended: ended,
            _watch: watch.ok(),
        })
    }

    /// The next line; `None` only if the thread that reads has died. May be dropped and called again without losing one.
    pub async fn next(&mut self) -> Option<Line> {
        self.lines.recv().await
    }
}

/// Reads until nobody wants any more lines.
fn run(
    directory: &Path,
    mut known: HashMap<OsString, Followed>,
    wake: &Receiver<()>,
    poll: Option<Duration>,
    lines: &mpsc::Sender<Line>,
) {
    loop {
        for (name, path) in files(directory) {
            if !known.contains_key(&name)
                && let Some(followed) = Followed::open(&path, SeekFrom::Start(0))
            {
                known.insert(name, followed);
            }
        }
        for (name, followed) in &mut known {
            let send = |bytes: Vec<u8>| {
                let file = name.clone();
                lines.blocking_send(Line { file, bytes }).is_ok()
            };
            if !followed.read(send) {
                return;
            }
        }
        // Not before it was read once more: it may go at any moment.
        known.retain(|_, followed| !followed.is_gone);
        let woken = match poll {
            Some(poll) => wake.recv_timeout(poll),
            None => wake.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if woken == Err(RecvTimeoutError::Disconnected) || lines.is_closed() {
            return;
        }
    }
}

fn files(directory: &Path) -> Vec<(OsString, PathBuf)> {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files
        .map(|entry| (entry.file_name(), entry.path()))
        .filter(|(name, _)| Path::new(name).extension() == Some(OsStr::new("log")))
        .collect()
}

impl Followed {
    fn open(path: &Path, from: SeekFrom) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        file.seek(from).ok()?;
        Some(Self {
            file,
            partial: Vec::new(),
            is_gone: false,
        })
    }

    /// Hands on the lines that are whole, and what is left of a file that is gone; `false`: nobody takes them.
    fn read(&mut self, send: impl Fn(Vec<u8>) -> bool) -> bool {
        let Ok(found) = self.file.metadata() else {
            return true;
        };
        self.is_gone = found.nlink() == 0;
        // It was emptied: what is written now stands at its beginning.
        if self.file.stream_position().is_ok_and(|at| at > found.len()) {
            let _ = self.file.seek(SeekFrom::Start(0));
            self.partial.clear();
        }
        let mut chunk = [0; 8192];
        while let Ok(read @ 1..) = self.file.read(&mut chunk) {
            for &byte in &chunk[..read] {
                if byte != b'\n' {
                    self.partial.push(byte);
                }
                if (byte == b'\n' || self.partial.len() >= LINE_MAX)
                    && !send(std::mem::take(&mut self.partial))
                {
                    return false;
                }
            }
        }
        if self.is_gone && !self.partial.is_empty() {
            return send(std::mem::take(&mut self.partial));
        }
        true
    }
}
