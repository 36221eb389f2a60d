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

use super::allowance::Spent;
use super::copy::{self, CopyError, How, Omit, io_error};
use super::failure::SnapshotError;
use super::layout::{self, make_directory};
use super::modes::DIRECTORY_MODE;
use super::removal::remove;
use super::room::is_full;
use super::shelf::Shelf;
use super::store::Store;
use crate::config::{SnapshotLimits, WorkerType};
use crate::names::{Instance, WorkerName};
use crate::types::{self, Run};

/// What the proxy serves of a worker.
const ASSETS: &str = "public";

impl Store {
    /// Makes the snapshot of a generation from the worker's directory `source`, its assets included, and returns where its files are. It is
    /// there when all of it is.
    ///
    /// # Errors
    /// When the worker has files that can not be deployed, or the copy fails; nothing is left then.
    pub fn create(
        &self,
        instance: &Instance,
        source: &Path,
        kind: WorkerType,
    ) -> Result<PathBuf, SnapshotError> {
        let kind = types::of(kind);
        let top = [kind.omits, &[ASSETS]].concat();
        self.vacant(instance)?;
        let all = || {
            let (base, below) = split_base(&instance.worker, source);
            let opened = copy::open_below(base, below);
            let opened = opened.map_err(|reason| self.copy_failed(instance, source, reason, 0))?;
            let mut spent = self.spent();
            let assets = self.add_assets_from(instance, source, &mut spent)?;
            let from = Tree {
                opened,
                path: source,
                how: How::Copy,
                omit: Omit {
                    top: &top,
                    anywhere: true,
                },
                assets: assets.filter(|_| !matches!(kind.run, Run::Nothing)),
            };
            self.make(instance, from, self.files(instance), &mut spent)
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
            let from = Tree {
                opened,
                path,
                how: How::Link,
                omit: Omit::default(),
                assets: None,
            };
            self.make(to, from, place, &mut spent)
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
        let path = &source.join(ASSETS);
        let (base, below) = split_base(&instance.worker, source);
        let opened = match copy::open_below(base, &below.join(ASSETS)) {
            Ok(opened) => opened,
            Err(CopyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(reason) => return Err(self.copy_failed(instance, path, reason, 0)),
        };
        let from = Tree {
            opened,
            path,
            how: How::Copy,
            omit: Omit {
                top: &[],
                anywhere: true,
            },
            assets: None,
        };
        let place = self.next_assets(instance)?;
        self.make(instance, from, place, spent).map(Some)
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
        spent: &mut Spent,
    ) -> Result<PathBuf, SnapshotError> {
        let Tree {
            opened,
            path,
            how,
            omit,
            assets,
        } = from;
        if let Some(directory) = place.parent() {
            make_directory(directory, DIRECTORY_MODE, None)
                .map_err(|error| self.with_room(error))?;
        }
        let new = layout::unfinished(&place);
        remove(&new)?;
        let create = |path: &Path| {
            let made = fs::DirBuilder::new().mode(0o700).create(path);
            made.map_err(|error| io_error("create", path, errno(&error)))
        };
        let fill = || {
            create(&new)?;
            if let Some(assets) = assets {
                let public = new.join(ASSETS);
                create(&public)?;
                let assets = copy::open_below(&assets, Path::new(""))?;
                copy::tree(assets, &public, How::Link, Omit::default(), spent)?;
            }
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
}

/// A directory to copy.
struct Tree<'a> {
    opened: OwnedFd,
    /// The name it has for people.
    path: &'a Path,
    how: How,
    omit: Omit<'a>,
    /// The copy of its assets, which is the copy's `public/` too: the program reads the very files that the proxy serves.
    assets: Option<PathBuf>,
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
