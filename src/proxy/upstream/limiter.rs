//! How many requests are in a worker and wait for it. Threads share one [`Limiter`] a worker, and only where a route limits or pauses it.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

use crate::names::WorkerName;

/// Most requests that wait for the end of a pause, for each worker. Each keeps a connection.
const HELD_MAX: u32 = 1000;

/// How often it is told that a worker is too busy for all who ask.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// How many requests are in a worker and wait for it, over all threads.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// A place in the worker each. Those who wait for one get it in the order in which they came.
    places: Semaphore,
    /// How many there should be.
    most: AtomicUsize,
    /// How many of those that are taken are not to come back, since there are fewer now.
    surplus: AtomicUsize,
    queued: AtomicU32,
    held: AtomicU32,
    complained: Mutex<Option<Instant>>,
}

/// A place in a worker. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Limiter>);

/// A place among those who wait.
pub(crate) struct Wait {
    limiter: Arc<Limiter>,
    count: fn(&Limiter) -> &AtomicU32,
}

impl Limiter {
    /// A limiter without places.
    pub(crate) fn new() -> Self {
        Self {
            places: Semaphore::new(0),
            most: AtomicUsize::new(0),
            surplus: AtomicUsize::new(0),
            queued: AtomicU32::new(0),
            held: AtomicU32::new(0),
            complained: Mutex::default(),
        }
    }

    /// Lets so many in at a time from now on. Called by one thread only.
    pub(crate) fn set_most(&self, most: u32) {
        let most = most as usize;
        let before = self.most.swap(most, Ordering::SeqCst);
        if most < before {
            let gone = self.places.forget_permits(before - most);
            self.surplus
                .fetch_add(before - most - gone, Ordering::SeqCst);
        } else {
            let fresh = (before..most).filter(|_| !self.takes_surplus()).count();
            self.places.add_permits(fresh);
        }
    }

    /// Takes one off the surplus, if there is one.
    fn takes_surplus(&self) -> bool {
        let less = |surplus: usize| surplus.checked_sub(1);
        let taken = self
            .surplus
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        taken.is_ok()
    }

    /// A place that is free.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.places.try_acquire().ok()?.forget();
        Some(Permit(self.clone()))
    }

    /// Waits for a place. Those who wait get one in the order in which they came.
    pub(crate) async fn acquire(self: Arc<Self>) -> Permit {
        // It is never closed.
        if let Ok(permit) = self.places.acquire().await {
            permit.forget();
        }
        Permit(self)
    }

    /// Says that not all who ask get to the worker, unless that was said a moment ago.
    pub(crate) fn complain(&self, worker: &WorkerName, why: &str) {
        let complained = self.complained.lock();
        let mut complained = complained.unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_EVERY) {
            *complained = Some(Instant::now());
            warn!(
                tq.worker = %worker,
                "worker '{worker}' is too busy for a request ({why}); the client got 503 (told once a minute)"
            );
        }
    }
}

impl Permit {
    /// Whether it is one of `limiter`.
    pub(crate) fn is_of(&self, limiter: &Arc<Limiter>) -> bool {
        Arc::ptr_eq(&self.0, limiter)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.0.takes_surplus() {
            self.0.places.add_permits(1);
        }
    }
}

impl Wait {
    /// One more that waits for the end of a pause, unless too many do.
    pub(crate) fn for_end_of_pause(limiter: &Arc<Limiter>) -> Option<Self> {
        Self::begin(limiter, |limiter| &limiter.held, HELD_MAX)
    }

    /// One more that waits for a place, if there are fewer than `most`.
    pub(crate) fn for_place(limiter: &Arc<Limiter>, most: u32) -> Option<Self> {
        Self::begin(limiter, |limiter| &limiter.queued, most)
    }

    /// One more who waits and is counted there, if there are fewer than `most`.
    fn begin(limiter: &Arc<Limiter>, count: fn(&Limiter) -> &AtomicU32, most: u32) -> Option<Self> {
        let more = |waiting: u32| (waiting < most).then_some(waiting + 1);
        count(limiter)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        let limiter = limiter.clone();
        Some(Self { limiter, count })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        (self.count)(&self.limiter).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(most: u32) -> Arc<Limiter> {
        let limiter = Arc::new(Limiter::new());
        limiter.set_most(most);
        limiter
    }

    #[test]
    fn no_more_than_so_many_pass_at_a_time() {
        let limiter = limiter(2);
        let (first, second) = (limiter.try_acquire(), limiter.try_acquire());
        assert!(first.is_some() && second.is_some() && limiter.try_acquire().is_none());
        drop(first);
        assert!(limiter.try_acquire().is_some());
    }

    #[test]
    fn what_is_taken_from_those_inside_does_not_come_back() {
        let limiter = limiter(3);
        let mut inside = vec![
            limiter.try_acquire(),
            limiter.try_acquire(),
            limiter.try_acquire(),
        ];
        limiter.set_most(1);
        inside.truncate(1);
        assert!(
            limiter.try_acquire().is_none(),
            "one is inside, and one is all"
        );
        inside.clear();
        assert_eq!(limiter.places.available_permits(), 1);
    }

    #[test]
    fn more_places_are_those_that_were_to_go_before_new_ones() {
        let limiter = limiter(3);
        let inside = [
            limiter.try_acquire(),
            limiter.try_acquire(),
            limiter.try_acquire(),
        ];
        limiter.set_most(0);
        limiter.set_most(4);
        assert_eq!(limiter.places.available_permits(), 1);
        drop(inside);
        assert_eq!(limiter.places.available_permits(), 4);
    }

    #[test]
    fn who_stops_waiting_leaves_room() {
        let limiter = limiter(0);
        let begin = || Wait::for_place(&limiter, 1);
        let first = begin();
        assert!(first.is_some() && begin().is_none());
        drop(first);
        assert!(begin().is_some());
    }
}
