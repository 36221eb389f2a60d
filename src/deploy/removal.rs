//! Removes snapshots: old ones, and what there is of one that could not be finished.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::failure::SnapshotError;
use super::layout::make_directory;
use super::modes::DIRECTORY_MODE;
use super::shelf::Shelf;
use super::store::Store;
use crate::names::{Generation, Instance, WorkerName};

impl Store {
    /// Removes all a worker has here of generations up to `last`, but for those to `keep`: their files, the latest of their assets and
    /// their manifests stay.
    ///
    /// # Errors
    /// When something can not be removed; the rest is removed all the same, and the first such error is returned.
    pub fn prune(
        &self,
        worker: &WorkerName,
        keep: &[Generation],
        last: Generation,
    ) -> Result<(), SnapshotError> {
        let shelf = Shelf::of(&self.layout, worker)?;
        let goes = |generation: &&Generation| **generation <= last && !keep.contains(generation);
        let of = |generation: &Generation| Instance::new(worker.clone(), *generation);
        // The manifests first: a snapshot that is half gone must not look like one to start from.
        let manifests = shelf.manifests.iter().filter(goes);
        let mut paths: Vec<PathBuf> = manifests.map(|g| self.layout.manifest(&of(g))).collect();
        for (generation, numbers) in &shelf.assets {
            let latest = shelf.latest_assets(*generation);
            let stays =
                |number: u64| *generation > last || !goes(&generation) && Some(number) == latest;
            let old = numbers.iter().filter(|number| !stays(**number));
            paths.extend(old.map(|number| self.layout.assets(&of(generation), *number)));
        }
        let files = shelf.files.iter().filter(goes);
        paths.extend(files.map(|generation| self.layout.files(&of(generation))));
        paths.extend(shelf.unfinished);
        let remove = |path: &PathBuf| {
            self.step();
            remove(path)
        };
        let removed: Vec<_> = paths.iter().map(remove).collect();
        self.tidy(worker);
        removed.into_iter().collect()
    }

    /// Notes that a worker is gone, since now if it was not noted before. Once it has been gone for longer than `keep` all of its generations
    /// up to `last` are removed, their assets too; `true`: they were. The worker's own files are not ours to remove.
    ///
    /// # Errors
    /// When it can not be noted, or something not be removed.
    pub fn expire(
        &self,
        worker: &WorkerName,
        last: Generation,
        keep: Option<Duration>,
        now: SystemTime,
    ) -> Result<bool, SnapshotError> {
        let mark = self.layout.gone(worker);
        let failed = |error| self.io_failed("write", &mark, error);
        let since = match fs::metadata(&mark).and_then(|found| found.modified()) {
            Ok(since) => Some(since),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        // A clock that was ahead and is not any more would keep it for ever.
        let Some(gone_for) = since.and_then(|since| now.duration_since(since).ok()) else {
            make_directory(&self.layout.programs_of(worker), DIRECTORY_MODE, None)?;
            let noted = fs::File::create(&mark).and_then(|file| file.set_modified(now));
            return noted.map(|()| false).map_err(failed);
        };
        if keep.is_none_or(|keep| gone_for <= keep) {
            return Ok(false);
        }
        self.prune(worker, &[], last)?;
        remove(&mark)?;
        self.tidy(worker);
        Ok(true)
    }

    /// Whether it is noted that a worker is gone.
    pub fn is_gone(&self, worker: &WorkerName) -> bool {
        self.layout.gone(worker).symlink_metadata().is_ok()
    }

    /// A worker is back, and has all it had.
    ///
    /// # Errors
    /// When the note can not be removed.
    pub fn came_back(&self, worker: &WorkerName) -> Result<(), SnapshotError> {
        remove(&self.layout.gone(worker))?;
        self.tidy(worker);
        Ok(())
    }

    /// Removes what there is of a snapshot that can not be finished.
    pub(super) fn discard(&self, instance: &Instance) {
        // As above: prune comes by again.
        if let Ok(shelf) = Shelf::of(&self.layout, &instance.worker) {
            let _ = remove(&self.layout.manifest(instance));
            for number in shelf.assets.get(&instance.generation).into_iter().flatten() {
                let _ = remove(&self.layout.assets(instance, *number));
            }
        }
        self.tidy(&instance.worker);
    }

    /// Removes the worker's directories if nothing is in them.
    fn tidy(&self, worker: &WorkerName) {
        let _ = fs::remove_dir(self.layout.programs_of(worker));
        let _ = fs::remove_dir(self.layout.public_of(worker));
    }
}

/// Removes a file or a tree, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), SnapshotError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SnapshotError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}
