//! How large a snapshot may become: counted while it is copied, since a deployer decides what is in it, and everybody else's snapshots
//! are on the same disk.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::room::Size;
use crate::ansi::shown;
use crate::config::SnapshotLimits;
use crate::effort::Effort;

/// More than a snapshot may have.
#[derive(Debug, thiserror::Error)]
pub enum Exceeded {
    /// Bytes.
    #[error(
        "with {} ({}) its files have more than {}, as much as a snapshot may have; remove what it does not need, or have 'snapshots.max_size' \
         raised in server.yaml",
        shown(path), Size(*size), Size(*most)
    )]
    Size {
        /// The file that was too much.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// Most bytes of all.
        most: u64,
    },
    /// Files, links and directories.
    #[error(
        "it has more than {0} files and directories, as many as a snapshot may have; remove what it does not need, or have \
         'snapshots.max_files' raised in server.yaml"
    )]
    Files(u64),
}

/// What one snapshot has by now.
#[derive(Debug)]
pub(super) struct Spent {
    limits: SnapshotLimits,
    effort: Effort,
    files: u64,
    /// By their lengths, holes included.
    size: u64,
    written: u64,
}

impl Spent {
    pub(super) fn new(limits: SnapshotLimits, effort: Effort) -> Self {
        Self {
            limits,
            effort,
            files: 0,
            size: 0,
            written: 0,
        }
    }

    /// One more file, link or directory.
    pub(super) fn one_more(&mut self) -> Result<(), Exceeded> {
        self.files += 1;
        match self.files > self.limits.max_files {
            true => Err(Exceeded::Files(self.limits.max_files)),
            false => Ok(()),
        }
    }

    /// A file of `size` bytes, before any of them is copied.
    pub(super) fn more(&mut self, size: u64, path: &Path) -> Result<(), Exceeded> {
        self.size = self.size.saturating_add(size);
        let most = self.limits.max_size.0;
        match self.size > most {
            true => Err(Exceeded::Size {
                path: path.to_owned(),
                size,
                most,
            }),
            false => Ok(()),
        }
    }

    /// Between two files, and between two pieces of one.
    pub(super) fn go_on(&self) -> Result<(), Errno> {
        self.effort.step();
        match self.is_given_up() {
            true => Err(Errno::CANCELED),
            false => Ok(()),
        }
    }

    pub(super) fn written(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// Bytes that were written.
    pub(super) fn bytes(&self) -> u64 {
        self.written
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.effort.is_given_up()
    }
}
