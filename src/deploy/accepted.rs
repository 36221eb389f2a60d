//! Which snapshots can be started from: those that were accepted, which is to say, that have a manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::failure::SnapshotError;
use super::manifest::Manifest;
use super::shelf::{Shelf, names};
use super::store::Store;
use crate::names::{Generation, Instance, WorkerName};

/// An accepted snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Which generation it was made for.
    pub generation: Generation,
    /// What it was made of.
    pub manifest: Manifest,
    /// Its latest assets, if it has any.
    pub assets: Option<PathBuf>,
}

impl Accepted {
    /// What to go back to from `serving`: the newest of `history` that is of something else. Gone back once, it is what was gone back from.
    pub fn previous(history: &[Self], serving: Generation) -> Option<&Self> {
        let serves = history.iter().find(|one| one.generation == serving);
        history.iter().find(|one| {
            let same = |serves: &Self| serves.manifest.is_of_the_same(&one.manifest);
            one.generation != serving && !serves.is_some_and(same)
        })
    }
}

impl Store {
    /// The newest accepted snapshot of each worker, and what was in the way of finding out: a worker whose newest manifest can not be
    /// read has the one before.
    pub fn newest_accepted(&self) -> (BTreeMap<WorkerName, Accepted>, Vec<SnapshotError>) {
        // One that can not be listed is not an empty one.
        let mut problems: Vec<_> = names(self.programs()).err().into_iter().collect();
        let mut newest = BTreeMap::new();
        for worker in self.workers() {
            match self.newest_of(&worker, &mut problems) {
                Ok(Some(accepted)) => {
                    newest.insert(worker, accepted);
                }
                Ok(None) => {}
                Err(error) => problems.push(error),
            }
        }
        (newest, problems)
    }

    fn newest_of(
        &self,
        worker: &WorkerName,
        problems: &mut Vec<SnapshotError>,
    ) -> Result<Option<Accepted>, SnapshotError> {
        let shelf = Shelf::of(&self.layout, worker)?;
        for generation in shelf.with_manifest() {
            let instance = Instance::new(worker.clone(), generation);
            match self.manifest(&instance) {
                Ok(Some(manifest)) => {
                    let assets = shelf.latest_assets(generation);
                    return Ok(Some(Accepted {
                        generation,
                        manifest,
                        assets: assets.map(|number| self.layout.assets(&instance, number)),
                    }));
                }
                Ok(None) => {}
                Err(error) => problems.push(error),
            }
        }
        Ok(None)
    }

    /// The accepted snapshots of a worker, the newest first. One whose manifest can not be read is none.
    pub fn accepted(&self, worker: &WorkerName) -> Vec<Generation> {
        let Ok(shelf) = Shelf::of(&self.layout, worker) else {
            return Vec::new();
        };
        let readable = |generation: &Generation| self.readable(worker, *generation).is_some();
        shelf.with_manifest().filter(readable).collect()
    }

    /// The newest accepted snapshots of a worker that differ in what they were made of, at most `count`: those to keep. That a
    /// generation took the place of one that ended says nothing about the deployment before it.
    ///
    /// # Errors
    /// When it can not be found out: a disk that does not answer for a moment is no reason to remove anything.
    pub fn worth_keeping(
        &self,
        worker: &WorkerName,
        count: usize,
    ) -> Result<Vec<Generation>, SnapshotError> {
        let mut kept: Vec<(Generation, Manifest)> = Vec::new();
        for generation in Shelf::of(&self.layout, worker)?.with_manifest() {
            if kept.len() == count {
                break;
            }
            let manifest = match self.manifest(&Instance::new(worker.clone(), generation)) {
                Ok(Some(manifest)) => manifest,
                // Nobody could start from it.
                Ok(None) | Err(SnapshotError::Manifest { .. }) => continue,
                Err(error) => return Err(error),
            };
            if !kept
                .iter()
                .any(|(_, other)| other.is_of_the_same(&manifest))
            {
                kept.push((generation, manifest));
            }
        }
        Ok(kept.into_iter().map(|(generation, _)| generation).collect())
    }

    /// The accepted snapshots of a worker with all that is needed to go back to them, the newest first.
    pub fn history(&self, worker: &WorkerName) -> Vec<Accepted> {
        let Ok(shelf) = Shelf::of(&self.layout, worker) else {
            return Vec::new();
        };
        let found = shelf.with_manifest().filter_map(|generation| {
            let assets = shelf.latest_assets(generation);
            let instance = Instance::new(worker.clone(), generation);
            Some(Accepted {
                generation,
                manifest: self.readable(worker, generation)?,
                assets: assets.map(|number| self.layout.assets(&instance, number)),
            })
        });
        found.collect()
    }

    fn readable(&self, worker: &WorkerName, generation: Generation) -> Option<Manifest> {
        let instance = Instance::new(worker.clone(), generation);
        self.manifest(&instance).ok().flatten()
    }
}
