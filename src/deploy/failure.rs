//! Why the store can not do what was asked.

use std::io;
use std::path::{Path, PathBuf};

use super::copy::CopyError;
use super::room::Full;
use crate::ansi::shown;
use crate::names::Instance;

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
