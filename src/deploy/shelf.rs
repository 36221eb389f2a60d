//! What lies in the store: of all workers, and of one, whose two directories are read once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::failure::SnapshotError;
use super::layout::{Entry, Layout};
use super::store::Store;
use crate::names::{Generation, Instance, WorkerName};

/// What a worker has.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// Generations whose files are there.
    pub(super) files: BTreeSet<Generation>,
    /// Generations that have a manifest.
    pub(super) manifests: BTreeSet<Generation>,
    /// The numbers of the assets of each generation.
    pub(super) assets: BTreeMap<Generation, BTreeSet<u64>>,
    /// What nobody finished.
    pub(super) unfinished: Vec<PathBuf>,
}

impl Shelf {
    /// What `worker` has now; nothing, if it has no directory.
    pub(super) fn of(layout: &Layout, worker: &WorkerName) -> Result<Self, SnapshotError> {
        let mut shelf = Self::default();
        for directory in [layout.programs_of(worker), layout.public_of(worker)] {
            for name in names(&directory)? {
                match Entry::of(&name) {
                    Some(Entry::Files(generation)) => {
                        shelf.files.insert(generation);
                    }
                    Some(Entry::Manifest(generation)) => {
                        shelf.manifests.insert(generation);
                    }
                    Some(Entry::Assets(generation, number)) => {
                        shelf.assets.entry(generation).or_default().insert(number);
                    }
                    Some(Entry::New) => shelf.unfinished.push(directory.join(name)),
                    None => {}
                }
            }
        }
        Ok(shelf)
    }

    /// The number of the assets a generation got last.
    pub(super) fn latest_assets(&self, generation: Generation) -> Option<u64> {
        self.assets.get(&generation)?.last().copied()
    }

    /// Snapshots that may have been accepted, the newest first: whether a manifest can be read has not been tried.
    pub(super) fn with_manifest(&self) -> impl Iterator<Item = Generation> + '_ {
        let is_there = |generation: &Generation| self.files.contains(generation);
        self.manifests.iter().rev().copied().filter(is_there)
    }
}

impl Store {
    /// The directory of assets that was added last to the snapshot of a generation.
    pub fn latest_assets(&self, instance: &Instance) -> Option<PathBuf> {
        let shelf = Shelf::of(&self.layout, &instance.worker).ok()?;
        let number = shelf.latest_assets(instance.generation)?;
        Some(self.layout.assets(instance, number))
    }

    /// The generations of a worker that have a snapshot, in order.
    pub fn generations(&self, worker: &WorkerName) -> Vec<Generation> {
        let shelf = Shelf::of(&self.layout, worker).unwrap_or_default();
        shelf.files.into_iter().collect()
    }

    /// The workers that have snapshots, in order.
    pub fn workers(&self) -> Vec<WorkerName> {
        // Of a snapshot nobody finished there may be the assets alone.
        let found = [&self.layout.programs, &self.layout.public]
            .map(|directory| names(directory).unwrap_or_default());
        let workers = found.iter().flatten();
        let workers: BTreeSet<WorkerName> = workers
            .filter_map(|name| WorkerName::parse(name).ok())
            .collect();
        workers.into_iter().collect()
    }
}

/// The names in a directory, none if there is no such directory. What is not text is not ours.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, SnapshotError> {
    let failed = |source| SnapshotError::io("list", directory, source);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    Ok(names)
}
