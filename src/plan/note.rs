//! What people are told of, one line each.

use super::spec::Cause;
use crate::names::{Generation, WorkerName};

/// One line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How grave it is.
    pub severity: Severity,
    /// Whom it is about.
    pub worker: WorkerName,
    /// Which run of it.
    pub generation: Option<Generation>,
    /// The line; it stands alone.
    pub text: String,
    /// What kind of thing happened.
    pub kind: Kind,
}

/// What kind of thing a note tells of, for those who read many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A step on the way.
    Progress,
    /// A generation passed its check and serves.
    Accepted {
        /// What it was made for.
        cause: Cause,
        /// The one that served before.
        from: Option<Generation>,
    },
    /// A generation, or what was to become one, failed.
    Failed {
        /// What it was made for, if it came to that.
        cause: Option<Cause>,
        /// Why.
        reason: String,
    },
    /// The process of a serving generation ended, and not well.
    Ended {
        /// How.
        reason: String,
    },
    /// The assets of a serving generation were replaced.
    Assets,
    /// A generation is gone.
    Stopped,
    /// A worker is gone.
    Removed,
    /// A worker does not serve any more.
    Down {
        /// Why.
        reason: String,
    },
    /// A serving generation does not answer as it should.
    Unhealthy {
        /// How.
        reason: String,
    },
}

/// How grave a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// All is well.
    Info,
    /// Something failed and we go on.
    Warning,
    /// An operator must act: a worker does not serve.
    Error,
}
