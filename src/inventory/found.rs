//! What was found: workers, and directories that look like one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::fingerprint::Fingerprint;
use crate::config::problem::printable;
use crate::config::{Place, Problem, Problems, WorkerSettings};
use crate::ignored::Developed;
use crate::names::WorkerName;
use crate::route::{Indexes, TooManyIndexes};

/// All workers of the directories they are looked for in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// The workers by name.
    pub workers: BTreeMap<WorkerName, Found>,
    /// Directories that look like a worker and can not be one.
    pub strays: Vec<Stray>,
    /// What else lies there and is not used: directories that nothing says how to run, configurations of another name.
    pub unrecognised: Vec<Stray>,
    /// Directories of workers that are hidden by one of the same name in an earlier directory of workers.
    pub hidden: Vec<PathBuf>,
}

/// A worker's directory and what was found in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its name.
    pub name: WorkerName,
    /// Its directory, absolute.
    pub directory: PathBuf,
    /// The directory of its assets, absolute, if it has one.
    pub public: Option<PathBuf>,
    /// Whether and how it is to run.
    pub status: Status,
    /// Which of its files count in development.
    pub developed: Developed,
    /// By which a change of it is known.
    pub fingerprint: Fingerprint,
    /// Whether nobody but the administrator can have written it.
    pub is_administrators: bool,
    /// Where its file says where it wants to be.
    pub(super) places: BTreeMap<&'static str, Place>,
}

/// Whether and how a worker is to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// It is to run like this.
    Enabled(Box<WorkerSettings>),
    /// Its file says that it is not there in this mode.
    Disabled,
    /// It can not run, for these reasons.
    Refused(Problems),
}

/// A directory that looks like a worker and can not be one, or something else among workers that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The directory, or the file, absolute.
    pub directory: PathBuf,
    /// Why not, as a sentence, with what to do.
    pub reason: String,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = printable(&self.directory.to_string_lossy());
        write!(f, "{directory}: {}", printable(&self.reason))
    }
}

impl Status {
    /// The same of PHP scripts in `directory` that have these indexes.
    pub(super) fn with_indexes(
        self,
        indexes: Result<Indexes, TooManyIndexes>,
        directory: &Path,
    ) -> Self {
        match (self, indexes) {
            (Self::Enabled(mut settings), Ok(indexes)) => {
                settings.indexes = indexes;
                Self::Enabled(settings)
            }
            (Self::Enabled(_), Err(error)) => {
                let help = "move what is not to be asked for by its path out of the document root; public/ as the document root is best";
                let problem = Problem::new(Place::file(directory), error.to_string());
                Self::Refused(problem.help(help).into())
            }
            (other, _) => other,
        }
    }
}

impl Found {
    /// How it is to run, if it is.
    pub fn settings(&self) -> Option<&WorkerSettings> {
        match &self.status {
            Status::Enabled(settings) => Some(settings),
            Status::Disabled | Status::Refused(_) => None,
        }
    }
}

impl Inventory {
    /// What file events are to be judged by.
    pub fn developed(&self) -> Vec<Developed> {
        let workers = self.workers.values();
        workers.map(|found| found.developed.clone()).collect()
    }
}
