//! What a generation is made of, and what for.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Listen, WorkerSettings, WorkerType};
use crate::inventory::Fingerprint;
use crate::names::Generation;

/// What a generation is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its configuration.
    pub settings: WorkerSettings,
    /// What its files and configuration were when it was made.
    pub fingerprint: Fingerprint,
    /// The worker's directory.
    pub directory: PathBuf,
    /// Its assets there.
    pub public: Option<PathBuf>,
    /// What lay in its directory when this was rolled back to: a reload does not take that again.
    #[serde(default)]
    pub passed_over: Option<Fingerprint>,
}

impl Spec {
    /// Whether it is a worker of files that its own `build` makes of others. In production nothing is built, and those others do not count.
    pub(crate) fn is_built_site(&self) -> bool {
        self.settings.is_static_and_built() && !self.fingerprint.program.is_empty()
    }

    /// Whether it is started without being asked for: nothing would start one on a port later.
    pub(crate) fn starts_at_once(&self) -> bool {
        let settings = &self.settings;
        settings.kind != WorkerType::Static
            && (settings.autostart || settings.listen == Listen::Port)
    }
}

/// Where a new generation's files come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The worker's directory as it is now.
    Directory,
    /// The files of an earlier generation, which passed its check.
    SameAs(Generation),
    /// Its own, of which a snapshot is there: it was accepted, and its units were lost with the last boot.
    Own(Generation),
}

/// What a generation was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The server was started.
    Start,
    /// A reload found that something changed.
    Reload,
    /// Development: a file was saved.
    Save,
    /// Somebody wanted an earlier generation back.
    Rollback,
    /// What did not work is tried again.
    Retry,
    /// The one before is not well, or has done its share of requests.
    Replacement,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Save => "save",
            Self::Rollback => "rollback",
            Self::Retry => "retry",
            Self::Replacement => "replacement",
        })
    }
}
