//! Snapshots: a generation's own copy of the worker's files, which only the server's user can write.
//!
//! The store is a directory of directories (see `layout`), and nothing else remembers what is in it. Everything appears by rename,
//! whole. What is written is on the disk once the snapshot is accepted, not before: until then nobody would start from it. Which
//! generations are kept is decided elsewhere. One task at a time changes what belongs to one worker, on a thread that may block.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub use super::accepted::Accepted;
use super::allowance::Spent;
pub use super::copy::CopyError;
use super::copy::{self, How, Omit, io_error};
use super::layout::{self, DIRECTORY_MODE, Layout, make_directory};
pub use super::manifest::Manifest;
use super::removal::remove;
use super::room::is_full;
pub use super::room::{Full, Room};
use super::shelf::Shelf;
use crate::ansi::shown;
use crate::config::{SnapshotLimits, WorkerType};
use crate::effort::Effort;
use crate::names::{Instance, WorkerName};

/// Directories of the worker that no snapshot has: `data/` is written at run time, `public/` is kept apart, `target/` is Cargo's.
const NOT_THE_PROGRAMS: &[&str] = &["data", "public", "target"];

/// The same, of a worker whose program was built from `src/`.
const NOT_THE_PROGRAMS_NOR_SOURCE: &[&str] = &["data", "public", "target", "src"];

/// The same, of PHP scripts: `public/` may have some of them, or what they read.
const NOT_THE_SCRIPTS: &[&str] = &["data", "target"];

/// What no snapshot has on any level.
const NOWHERE: &[&str] = &[".git", ".hg", ".svn", "__pycache__"];

/// Why the store can not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The files could not be copied.
    #[error("copy the files of {instance} from {}", shown(from))]
    Copy {
        /// For which generation.
        instance: Instance,
        /// From where.
        from: PathBuf,
        /// Why not.
        #[source]
        reason: CopyError,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot of {0}")]
    NoSnapshot(Instance),
    /// A snapshot is never written a second time.
    #[error("there is a snapshot of {0} already")]
    Exists(Instance),
    /// The manifest is not one of ours.
    #[error("read the manifest {}", shown(path))]
    Manifest {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The file system is full.
    #[error(transparent)]
    Full(#[from] Box<Full>),
    /// Whoever wanted it does not wait for it any more.
    #[error("it took too long and was given up")]
    GivenUp,
    /// Another failure.
    #[error("{what} {}", shown(path))]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which object.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl SnapshotError {
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

/// The snapshots of all workers.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) layout: Layout,
    limits: SnapshotLimits,
    effort: Effort,
}

impl Store {
    /// The store below the directory `state`, which is made if it is not there. Members of `group`, the proxy's, may read the assets.
    ///
    /// # Errors
    /// When a directory can not be made, or is another user's.
    pub fn open(state: &Path, group: Option<u32>) -> Result<Self, SnapshotError> {
        let layout = Layout::make(state, group)?;
        Ok(Self {
            layout,
            limits: SnapshotLimits::default(),
            effort: Effort::default(),
        })
    }

    /// The same store for one piece of work: snapshots have these limits, and what is made is taken back if `effort` is given up.
    pub fn with(&self, limits: SnapshotLimits, effort: &Effort) -> Self {
        Self {
            limits,
            effort: effort.clone(),
            ..self.clone()
        }
    }

    pub(super) fn step(&self) {
        self.effort.step();
    }

    fn spent(&self) -> Spent {
        Spent::new(self.limits, self.effort.clone())
    }

    /// What was made counts from now on, if it is still wanted.
    pub(super) fn finished(&self) -> Result<(), SnapshotError> {
        match self.effort.finish() {
            true => Ok(()),
            false => Err(SnapshotError::GivenUp),
        }
    }

    /// The directory of all programs, which of all workers' users none may see more of than its own.
    pub fn programs(&self) -> &Path {
        &self.layout.programs
    }

    /// The directory of all assets, which is the proxy's to read and no worker's.
    pub fn public(&self) -> &Path {
        &self.layout.public
    }

    /// Where the files of a generation are, or would be.
    pub fn files(&self, instance: &Instance) -> PathBuf {
        self.layout.files(instance)
    }

    /// Makes the snapshot of a generation from the worker's directory `source`, its assets included and the directories in `nested`
    /// left out, and returns where its files are. It is there when all of it is.
    ///
    /// # Errors
    /// When the worker has files that can not be deployed, or the copy fails; nothing is left then.
    pub fn create(
        &self,
        instance: &Instance,
        source: &Path,
        kind: WorkerType,
        nested: &[PathBuf],
    ) -> Result<PathBuf, SnapshotError> {
        let inside = nested
            .iter()
            .filter_map(|path| path.strip_prefix(source).ok());
        let nested: Vec<PathBuf> = inside.map(Path::to_owned).collect();
        let top = match kind {
            WorkerType::Rust | WorkerType::Go | WorkerType::Exec => NOT_THE_PROGRAMS_NOR_SOURCE,
            WorkerType::Node
            | WorkerType::Python
            | WorkerType::Bun
            | WorkerType::Deno
            | WorkerType::Static => NOT_THE_PROGRAMS,
            WorkerType::Php => NOT_THE_SCRIPTS,
        };
        let omit = Omit {
            top,
            dot_directories: true,
            anywhere: NOWHERE,
            paths: &nested,
        };
        self.vacant(instance)?;
        let all = || {
            let (base, below) = split_base(&instance.worker, source);
            let opened = copy::open_below(base, below);
            let from = Tree {
                opened: opened.map_err(|reason| self.copy_failed(instance, source, reason, 0))?,
                path: source,
            };
            let mut spent = self.spent();
            self.add_assets_from(instance, source, &mut spent)?;
            let place = self.files(instance);
            self.make(instance, from, place, How::Copy, omit, &mut spent)
        };
        self.whole(instance, all())
    }

    /// Makes the snapshot of `to` of the very files of `from`, and of its latest assets: for a generation that is replaced though
    /// nothing changed, or that something is gone back to. It has no manifest: `to` has not been accepted yet.
    ///
    /// # Errors
    /// When there is no snapshot of `from`, or it can not be linked; nothing is left then.
    pub fn clone_of(&self, from: &Instance, to: &Instance) -> Result<PathBuf, SnapshotError> {
        self.vacant(to)?;
        let source = self.files(from);
        if !source.is_dir() {
            return Err(SnapshotError::NoSnapshot(from.clone()));
        }
        let mut spent = Spent::new(SnapshotLimits::NONE, self.effort.clone());
        let mut link = |path: &Path, place: PathBuf| {
            let opened = copy::open_below(path, Path::new(""));
            let opened = opened.map_err(|reason| self.copy_failed(to, path, reason, 0))?;
            let from = Tree { opened, path };
            self.make(to, from, place, How::Link, Omit::default(), &mut spent)
        };
        let mut all = || {
            if let Some(assets) = self.latest_assets(from) {
                link(&assets, self.layout.assets(to, 1))?;
            }
            link(&source, self.files(to))
        };
        self.whole(to, all())
    }

    /// A snapshot counts once all of it is there; of one that does not, nothing stays.
    fn whole(
        &self,
        instance: &Instance,
        made: Result<PathBuf, SnapshotError>,
    ) -> Result<PathBuf, SnapshotError> {
        made.and_then(|files| {
            self.finished().inspect_err(|_| {
                // What can not be removed now is removed by the next prune.
                let _ = remove(&files);
            })?;
            Ok(files)
        })
        .inspect_err(|_| self.discard(instance))
    }

    /// Adds the present `public/` of the worker's directory `source` to the snapshot of a generation, as its latest assets, and notes
    /// their fingerprint in its manifest. A worker without `public/` gets an empty directory.
    ///
    /// # Errors
    /// When there is no such snapshot, or the copy fails; the assets before it stay the latest then.
    pub fn add_assets(
        &self,
        instance: &Instance,
        source: &Path,
        fingerprint: &str,
    ) -> Result<PathBuf, SnapshotError> {
        if !self.files(instance).is_dir() {
            return Err(SnapshotError::NoSnapshot(instance.clone()));
        }
        let assets = match self.add_assets_from(instance, source, &mut self.spent())? {
            Some(assets) => assets,
            None => {
                make_directory(
                    &self.layout.public_of(&instance.worker),
                    DIRECTORY_MODE,
                    None,
                )?;
                let empty = self.next_assets(instance)?;
                make_directory(&empty, DIRECTORY_MODE, None)?;
                empty
            }
        };
        let note = || match self.manifest(instance)? {
            Some(before) => {
                let mut manifest = before.clone();
                fingerprint.clone_into(&mut manifest.assets);
                self.put_manifest(instance, &manifest)?;
                self.finished().inspect_err(|_| {
                    // Its disk is back, or this would not be reached.
                    let _ = self.put_manifest(instance, &before);
                })
            }
            None => self.finished(),
        };
        note().inspect_err(|_| {
            // Or they would be served after the next start, as the assets of the manifest that stayed.
            let _ = remove(&assets);
        })?;
        Ok(assets)
    }

    fn vacant(&self, instance: &Instance) -> Result<(), SnapshotError> {
        match self.files(instance).exists() {
            true => Err(SnapshotError::Exists(instance.clone())),
            // Assets or a manifest without files are what is left of a snapshot nobody finished.
            false => {
                self.discard(instance);
                Ok(())
            }
        }
    }

    /// Copies `public/`, if the worker has one.
    fn add_assets_from(
        &self,
        instance: &Instance,
        source: &Path,
        spent: &mut Spent,
    ) -> Result<Option<PathBuf>, SnapshotError> {
        let path = &source.join("public");
        let (base, below) = split_base(&instance.worker, source);
        let opened = match copy::open_below(base, &below.join("public")) {
            Ok(opened) => opened,
            Err(CopyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(reason) => return Err(self.copy_failed(instance, path, reason, 0)),
        };
        let omit = Omit {
            anywhere: NOWHERE,
            ..Omit::default()
        };
        let place = self.next_assets(instance)?;
        let from = Tree { opened, path };
        self.make(instance, from, place, How::Copy, omit, spent)
            .map(Some)
    }

    fn next_assets(&self, instance: &Instance) -> Result<PathBuf, SnapshotError> {
        let shelf = Shelf::of(&self.layout, &instance.worker)?;
        let latest = shelf.latest_assets(instance.generation).unwrap_or(0);
        Ok(self.layout.assets(instance, latest + 1))
    }

    /// Makes the directory `place` of the tree `from`, under another name first.
    fn make(
        &self,
        instance: &Instance,
        from: Tree<'_>,
        place: PathBuf,
        how: How,
        omit: Omit,
        spent: &mut Spent,
    ) -> Result<PathBuf, SnapshotError> {
        let Tree { opened, path } = from;
        if let Some(directory) = place.parent() {
            make_directory(directory, DIRECTORY_MODE, None)
                .map_err(|error| self.with_room(error))?;
        }
        let new = layout::unfinished(&place);
        remove(&new)?;
        let fill = || {
            let made = fs::DirBuilder::new().mode(0o700).create(&new);
            made.map_err(|error| io_error("create", &new, errno(&error)))?;
            copy::tree(opened, &new, how, omit, spent)?;
            fs::rename(&new, &place).map_err(|error| io_error("rename", &new, errno(&error)))
        };
        let filled = fill();
        filled.map(|()| place.clone()).map_err(|reason| {
            // First, so that what it says of the disk is what was met.
            let error = self.copy_failed(instance, path, reason, spent.bytes());
            // What is wrong has been found; what can not be removed now is removed by the next prune.
            let _ = remove(&new);
            error
        })
    }

    /// The error of a copy, in the words of the whole.
    fn copy_failed(
        &self,
        instance: &Instance,
        from: &Path,
        reason: CopyError,
        written: u64,
    ) -> SnapshotError {
        let reason = match reason {
            CopyError::Io { what, path, source } if is_full(&source) => {
                CopyError::Full(self.full(what, path, source, written))
            }
            // It is to be typed somewhere else.
            CopyError::Unreadable { path, rights } => CopyError::Unreadable {
                path: from.join(path),
                rights,
            },
            other => other,
        };
        SnapshotError::Copy {
            instance: instance.clone(),
            from: from.to_owned(),
            reason,
        }
    }

    /// The error of a system call of ours.
    pub(super) fn io_failed(
        &self,
        what: &'static str,
        path: &Path,
        error: io::Error,
    ) -> SnapshotError {
        self.with_room(SnapshotError::io(what, path, error))
    }

    fn with_room(&self, error: SnapshotError) -> SnapshotError {
        match error {
            SnapshotError::Io { what, path, source } if is_full(&source) => {
                self.full(what, path, source, 0).into()
            }
            other => other,
        }
    }

    fn full(
        &self,
        what: &'static str,
        path: PathBuf,
        reason: io::Error,
        written: u64,
    ) -> Box<Full> {
        let room = Room::of(&self.layout.programs);
        Box::new(Full {
            what,
            path,
            reason,
            written,
            room,
        })
    }
}

/// A directory to copy: opened, and by the name it has for people.
struct Tree<'a> {
    opened: OwnedFd,
    path: &'a Path,
}

/// Parts a worker's directory into the directory of all workers, whose path root chose, and the rest, which the deployer could
/// replace by a link.
fn split_base<'a>(worker: &WorkerName, source: &'a Path) -> (&'a Path, &'a Path) {
    let parts = worker.directory().components().count();
    let base = source.ancestors().nth(parts);
    match base.and_then(|base| Some((base, source.strip_prefix(base).ok()?))) {
        Some((base, below)) if below == worker.directory() => (base, below),
        _ => (source, Path::new("")),
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
