//! How many requests are in a worker and wait for it. Threads share one [`Gate`] a worker, and only where a route limits or pauses it.

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
pub(crate) struct Gate {
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
pub(crate) struct Pass(Arc<Gate>);

/// A place among those who wait.
pub(crate) struct Wait {
    gate: Arc<Gate>,
    count: fn(&Gate) -> &AtomicU32,
}

impl Gate {
    /// A gate that nobody may pass yet.
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
    pub(crate) fn pass(self: &Arc<Self>) -> Option<Pass> {
        self.places.try_acquire().ok()?.forget();
        Some(Pass(self.clone()))
    }

    /// Waits for a place. Those who wait get one in the order in which they came.
    pub(crate) async fn acquire(self: Arc<Self>) -> Pass {
        // It is never closed.
        if let Ok(permit) = self.places.acquire().await {
            permit.forget();
        }
        Pass(self)
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

impl Pass {
    /// Whether it is one of `gate`.
    pub(crate) fn is_of(&self, gate: &Arc<Gate>) -> bool {
        Arc::ptr_eq(&self.0, gate)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.0.takes_surplus() {
            self.0.places.add_permits(1);
        }
    }
}

impl Wait {
    /// One more that waits for the end of a pause, unless too many do.
    pub(crate) fn for_end_of_pause(gate: &Arc<Gate>) -> Option<Self> {
        Self::begin(gate, |gate| &gate.held, HELD_MAX)
    }

    /// One more that waits for a place, if there are fewer than `most`.
    pub(crate) fn for_place(gate: &Arc<Gate>, most: u32) -> Option<Self> {
        Self::begin(gate, |gate| &gate.queued, most)
    }

    /// One more who waits and is counted there, if there are fewer than `most`.
    fn begin(gate: &Arc<Gate>, count: fn(&Gate) -> &AtomicU32, most: u32) -> Option<Self> {
        let more = |waiting: u32| (waiting < most).then_some(waiting + 1);
        count(gate)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        let gate = gate.clone();
        Some(Self { gate, count })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        (self.count)(&self.gate).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(most: u32) -> Arc<Gate> {
        let gate = Arc::new(Gate::new());
        gate.set_most(most);
        gate
    }

    #[test]
    fn no_more_than_so_many_pass_at_a_time() {
        let gate = gate(2);
        let (first, second) = (gate.pass(), gate.pass());
        assert!(first.is_some() && second.is_some() && gate.pass().is_none());
        drop(first);
        assert!(gate.pass().is_some());
    }

    #[test]
    fn what_is_taken_from_those_inside_does_not_come_back() {
        let gate = gate(3);
        let mut inside = vec![gate.pass(), gate.pass(), gate.pass()];
        gate.set_most(1);
        inside.truncate(1);
        assert!(gate.pass().is_none(), "one is inside, and one is all");
        inside.clear();
        assert_eq!(gate.places.available_permits(), 1);
    }

    #[test]
    fn more_places_are_those_that_were_to_go_before_new_ones() {
        let gate = gate(3);
        let inside = [gate.pass(), gate.pass(), gate.pass()];
        gate.set_most(0);
        gate.set_most(4);
        assert_eq!(gate.places.available_permits(), 1);
        drop(inside);
        assert_eq!(gate.places.available_permits(), 4);
    }

    #[test]
    fn who_stops_waiting_leaves_room() {
        let gate = gate(0);
        let begin = || Wait::for_place(&gate, 1);
        let first = begin();
        assert!(first.is_some() && begin().is_none());
        drop(first);
        assert!(begin().is_some());
    }
}
