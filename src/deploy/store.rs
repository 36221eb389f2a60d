//! The store of the snapshots of all workers: where it is, what bounds the work on it, and its failures in words.

use std::io;
use std::path::{Path, PathBuf};

use super::allowance::Spent;
use super::failure::SnapshotError;
use super::layout::Layout;
use super::room::{Full, Room, is_full};
use crate::config::SnapshotLimits;
use crate::effort::Effort;
use crate::names::Instance;

/// The snapshots of all workers.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) layout: Layout,
    limits: SnapshotLimits,
    pub(super) effort: Effort,
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

    pub(super) fn spent(&self) -> Spent {
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

    /// The error of a system call of ours.
    pub(super) fn io_failed(
        &self,
        what: &'static str,
        path: &Path,
        error: io::Error,
    ) -> SnapshotError {
        self.with_room(SnapshotError::io(what, path, error))
    }

    pub(super) fn with_room(&self, error: SnapshotError) -> SnapshotError {
        match error {
            SnapshotError::Io { what, path, source } if is_full(&source) => {
                self.full(what, path, source, 0).into()
            }
            other => other,
        }
    }

    pub(super) fn full(
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
