//! The plan's time: it has no clock of its own.

use std::time::Duration;

/// A point in time, as the time since the manager started.
pub type Moment = Duration;
