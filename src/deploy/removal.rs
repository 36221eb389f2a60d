//! Removes snapshots: old ones, and what there is of one that could not be finished.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::shelf::Shelf;
use super::snapshot::{SnapshotError, Store};
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
        let removed: Vec<_> = paths.iter().map(|path| remove(path)).collect();
        self.tidy(worker);
        removed.into_iter().collect()
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
