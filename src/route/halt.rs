//! What an operator has put between a worker and its requests: a pause, or maintenance.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::boottime::BootTime;

/// What an operator has put between a worker and its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// Its requests wait.
    pub pause: Option<Pause>,
    /// Its requests are refused.
    pub maintenance: Option<Maintenance>,
}

impl Halt {
    /// Whether there is nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A worker's requests wait. It ends by itself, so that nobody has to be there to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it began.
    pub since: BootTime,
    /// When it ends.
    pub until: BootTime,
}

impl Pause {
    /// Begins now, for at most `max`.
    pub fn begin(max: Duration) -> Self {
        let since = BootTime::now();
        let until = since.after(max);
        Self { since, until }
    }

    /// How long it still lasts; zero once it is over. One that has not begun yet is of another boot, and over.
    pub fn left(&self) -> Duration {
        let now = BootTime::now();
        if now < self.since {
            return Duration::ZERO;
        }
        self.until.since(now)
    }
}

/// A worker's requests are refused, and told that it will be back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// What clients are told; `None`: a sentence of the proxy's own.
    pub message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_another_boot_is_over() {
        let pause = Pause::begin(Duration::from_secs(60));
        assert!(pause.left() > Duration::from_secs(50));
        let later = Pause {
            since: pause.since.after(Duration::from_secs(3600)),
            until: pause.until.after(Duration::from_secs(3600)),
        };
        assert_eq!(later.left(), Duration::ZERO);
        assert_eq!(Pause::begin(Duration::ZERO).left(), Duration::ZERO);
    }
}
