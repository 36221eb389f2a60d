//! Work on files that somebody waits for: how far it is, and whether it is still wanted.
//!
//! A system call on a disk that does not respond can neither be taken back nor be killed. So the one who waits gives up, and the one
//! who works learns of it as soon as the disk is back: then it stops, and takes back what it has done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

const WANTED: u8 = 0;
const GIVEN_UP: u8 = 1;
const FINISHED: u8 = 2;

/// What the one who works and the one who waits share.
#[derive(Clone, Debug, Default)]
pub struct Effort(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    steps: AtomicU64,
}

impl Effort {
    /// Something was done: whoever waits sees that it goes on.
    pub fn step(&self) {
        self.0.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// How much was done, in no unit but "more".
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Whether nobody waits for it any more.
    pub fn is_given_up(&self) -> bool {
        self.0.state.load(Ordering::SeqCst) == GIVEN_UP
    }

    /// By the one who waits: it is not wanted any more. `false`: too late, it is done, and its result counts.
    pub fn give_up(&self) -> bool {
        self.settle(GIVEN_UP)
    }

    /// By the one who works, when all is done: from now on it counts. `false`: it is not wanted, and is to be taken back.
    pub fn finish(&self) -> bool {
        self.settle(FINISHED)
    }

    fn settle(&self, to: u8) -> bool {
        let state = &self.0.state;
        let settled = state.compare_exchange(WANTED, to, Ordering::SeqCst, Ordering::SeqCst);
        settled.is_ok() || settled == Err(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_not_finished_and_what_is_finished_is_not_given_up() {
        let effort = Effort::default();
        assert!(effort.give_up());
        assert!(effort.is_given_up() && effort.give_up());
        assert!(!effort.finish());
        let effort = Effort::default();
        assert!(effort.finish());
        assert!(!effort.give_up() && !effort.is_given_up());
    }
}
