//! What all threads know together of one generation: its counters.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::warn;

use crate::names::Instance;
use crate::wire::Count;

/// Complaints about one generation that are written in [`COMPLAINTS_TIME`]; the others are summed up. A worker that is down fails
/// each request, and that many lines say no more than a number.
const COMPLAINTS: u32 = 10;
const COMPLAINTS_TIME: Duration = Duration::from_secs(60);

/// A generation and its counters, a set for each thread so that no two threads write the same cache line on the path of a request.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) instance: Instance,
    shards: Box<[Counters]>,
    born: Instant,
    max_requests: AtomicU64,
    /// For how long a request may wait for its process, which is on its way up, in milliseconds; 0: it runs.
    starting: AtomicU64,
    /// Somebody waits for the last request to end.
    draining: AtomicBool,
    /// The news that `max_requests` is reached has been given.
    spent: AtomicBool,
    news: Arc<Notify>,
    complaints: Mutex<Complaints>,
}

/// What was said of a generation's failures.
#[derive(Debug, Default)]
struct Complaints {
    /// When the current minute began.
    since: Option<Instant>,
    /// Said in it.
    said: u32,
    /// Not said in it.
    unsaid: u64,
}

/// Two cache lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counters {
    begun: AtomicU64,
    in_flight: AtomicU64,
    /// When a request has ended last, in milliseconds since the generation's birth.
    active: AtomicU64,
}

/// A request counted in a generation. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    generation: Arc<Generation>,
    shard: usize,
}

impl Generation {
    /// A generation nobody has asked yet; `news` is told when it drains or is spent.
    pub(crate) fn new(instance: Instance, threads: usize, news: Arc<Notify>) -> Self {
        Self {
            instance,
            shards: (0..threads).map(|_| Counters::default()).collect(),
            born: Instant::now(),
            max_requests: AtomicU64::new(0),
            starting: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            spent: AtomicBool::new(false),
            news,
            complaints: Mutex::default(),
        }
    }

    /// Says what is wrong with it, unless that was said often enough.
    pub(crate) fn complain(&self, say: impl FnOnce()) {
        self.sum_up();
        let mut complaints = self.complaints();
        complaints.since.get_or_insert_with(Instant::now);
        if complaints.said < COMPLAINTS {
            complaints.said += 1;
            drop(complaints);
            say();
        } else {
            complaints.unsaid += 1;
        }
    }

    /// Says how much was not said, once its minute is over.
    pub(crate) fn sum_up(&self) {
        let mut complaints = self.complaints();
        let over = |since: Instant| since.elapsed() >= COMPLAINTS_TIME;
        if complaints.since.is_some_and(over) {
            std::mem::take(&mut *complaints).sum_up(&self.instance);
        }
    }

    fn complaints(&self) -> MutexGuard<'_, Complaints> {
        self.complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request in.
    ///
    /// The caller looks again whether its table is still in force and drops the ticket if not. The count and that look are both
    /// sequentially consistent, as are the publisher's change and its look at the count: at least one of the two sees the other.
    pub(crate) fn enter(self: &Arc<Self>, shard: usize) -> InFlight {
        self.shards[shard].in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight {
            generation: self.clone(),
            shard,
        }
    }

    /// Requests in flight. Once no table leads here each thread's part only falls, so the sum may be read part by part.
    pub(crate) fn in_flight(&self) -> u64 {
        let parts = self.shards.iter();
        parts.map(|s| s.in_flight.load(Ordering::SeqCst)).sum()
    }

    /// Whether the last request's end is news.
    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::SeqCst);
    }

    /// For how long a request may wait for its process, if that is on its way up.
    pub(crate) fn set_starting(&self, wait: Option<Duration>) {
        let wait = wait.map_or(0, |wait| {
            u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
        });
        self.starting.store(wait, Ordering::Relaxed);
    }

    /// How much longer a request that has waited for `waited` may wait for its process; `None`: that is not what it waits for, or too long.
    pub(crate) fn start_left(&self, waited: Duration) -> Option<Duration> {
        let wait = Duration::from_millis(self.starting.load(Ordering::Relaxed));
        wait.checked_sub(waited).filter(|left| !left.is_zero())
    }

    /// After how many requests it is news that they were answered; 0: never. What was news before may be so again.
    pub(crate) fn set_max_requests(&self, max: u64) {
        self.max_requests.store(max, Ordering::SeqCst);
        self.spent.store(false, Ordering::SeqCst);
    }

    /// Whether `max_requests` have been answered. Once it was so it stays so: the counters of a generation under load are read one
    /// after the other, and a later look may see fewer answers.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::SeqCst) || self.has_served_enough()
    }

    fn has_served_enough(&self) -> bool {
        let max = self.max_requests.load(Ordering::Relaxed);
        max != 0 && self.begun().saturating_sub(self.in_flight()) >= max
    }

    /// The counters, for the manager.
    pub(crate) fn count(&self) -> Count {
        // In this order: if none is in flight, the end of the last one is known.
        let in_flight = self.in_flight();
        let active = self.shards.iter().map(|s| s.active.load(Ordering::Relaxed));
        let active = Duration::from_millis(active.max().unwrap_or(0));
        Count {
            instance: self.instance.clone(),
            requests: self.begun(),
            in_flight,
            idle: match in_flight {
                0 => self.born.elapsed().saturating_sub(active),
                _ => Duration::ZERO,
            },
        }
    }

    fn begun(&self) -> u64 {
        let parts = self.shards.iter();
        parts.map(|s| s.begun.load(Ordering::SeqCst)).sum()
    }

    fn touch(&self, shard: usize) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shards[shard].active.store(now, Ordering::Relaxed);
    }
}

impl Complaints {
    fn sum_up(self, instance: &Instance) {
        if self.unsaid > 0 {
            let Instance { worker, generation } = instance;
            warn!(
                tq.worker = %worker,
                tq.generation = generation.0,
                "worker '{worker}' failed {} more requests in the last minute",
                self.unsaid,
            );
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let complaints = std::mem::take(&mut *self.complaints());
        complaints.sum_up(&self.instance);
    }
}

impl InFlight {
    /// The request does go to this generation.
    pub(crate) fn begin(&self) {
        let shard = &self.generation.shards[self.shard];
        shard.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// The generation it is in flight in.
    pub(crate) fn generation(&self) -> &Generation {
        &self.generation
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let generation = &*self.generation;
        generation.touch(self.shard);
        let shard = &generation.shards[self.shard];
        shard.in_flight.fetch_sub(1, Ordering::SeqCst);
        let drained = generation.draining.load(Ordering::SeqCst)
            && shard.in_flight.load(Ordering::SeqCst) == 0;
        let spent = generation.max_requests.load(Ordering::Relaxed) != 0
            && generation.has_served_enough()
            && !generation.spent.swap(true, Ordering::SeqCst);
        if drained || spent {
            generation.news.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Generation as Number, WorkerName};

    fn generation() -> Arc<Generation> {
        let instance = Instance::new(WorkerName::parse("api").unwrap(), Number(1));
        Arc::new(Generation::new(instance, 2, Arc::default()))
    }

    #[test]
    fn a_request_is_in_flight_until_its_ticket_is_dropped() {
        let generation = generation();
        let (one, two) = (generation.enter(0), generation.enter(1));
        one.begin();
        drop(one);
        assert_eq!(generation.in_flight(), 1);
        drop(two);
        assert_eq!(generation.in_flight(), 0);
        assert_eq!(
            generation.count().requests,
            1,
            "one was not begun and does not count"
        );
    }

    #[test]
    fn complaints_beyond_a_few_are_only_counted() {
        let generation = generation();
        let mut said = 0;
        for _ in 0..COMPLAINTS + 5 {
            generation.complain(|| said += 1);
        }
        assert_eq!(said, COMPLAINTS);
        assert_eq!(generation.complaints().unsaid, 5);
        let past = Instant::now().checked_sub(COMPLAINTS_TIME);
        generation.complaints().since = past;
        generation.complain(|| said += 1);
        assert_eq!(said, COMPLAINTS + 1);
        assert_eq!(generation.complaints().unsaid, 0);
    }

    #[test]
    fn spent_means_served_and_not_only_begun() {
        let generation = generation();
        generation.set_max_requests(1);
        let ticket = generation.enter(0);
        ticket.begin();
        assert!(!generation.is_spent());
        drop(ticket);
        assert!(generation.is_spent());
    }

    #[test]
    fn spent_stays_spent_while_others_come() {
        let generation = generation();
        generation.set_max_requests(1);
        let ticket = generation.enter(0);
        ticket.begin();
        drop(ticket);
        // In flight already, and not yet counted as begun.
        let _others = (generation.enter(0), generation.enter(1));
        assert!(generation.is_spent());
    }
}
