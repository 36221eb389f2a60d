//! Bursts of file events, on their way from the thread that watches to whoever looks.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// Something changed, or may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// When the first event of it came.
    pub first: Instant,
}

/// The burst that is to be taken: one that is not taken yet takes the next one in.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    waiting: Mutex<Option<Burst>>,
    pub(super) ready: Notify,
    /// A burst rests.
    pub(super) rests: Notify,
}

impl Bursts {
    pub(super) fn add(&self, burst: Burst) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get_or_insert(burst);
        self.ready.notify_one();
    }

    pub(super) fn take(&self) -> Option<Burst> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.take()
    }
}
