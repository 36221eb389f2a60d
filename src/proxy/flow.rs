//! What stands between a request and its worker: how much it may carry, how many may be there at a time, a pause, maintenance.
//!
//! Threads share one [`Gate`] a worker, and only where its route says so: a route without any of this has no [`Rules`]. Nobody who waits
//! is counted in a generation. The generation is picked when the wait is over, so what waits follows a reload.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::generation::Ticket;
use super::lane::Lane;
use super::pages::Refusal;
use super::table::{Route, Table};
use crate::names::WorkerName;
use crate::route::{Maintenance, Route as Asked};

/// Most requests that wait for the end of a pause, for each worker. Each keeps a connection.
const HELD_MAX: u32 = 1000;

/// Seconds after which it is worth coming back to a worker that is busy.
const BUSY_RETRY: u64 = 1;

/// Seconds after which it is worth looking whether maintenance is over.
const MAINTENANCE_RETRY: u64 = 60;

/// How often it is told that a worker is too busy for all who ask.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// What clients are told of maintenance unless the operator says something else.
const MAINTENANCE: &str = "This is being worked on, and will be back soon.";

/// How many requests are in a worker and wait for it, over all threads.
#[derive(Debug)]
pub(super) struct Gate {
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
pub(super) struct Pass(Arc<Gate>);

/// A place among those who wait.
struct Wait {
    gate: Arc<Gate>,
    count: fn(&Gate) -> &AtomicU32,
}

/// What a route asks of a request before it goes to the worker.
#[derive(Debug)]
pub(super) struct Rules {
    /// Most bytes of a body.
    pub(super) max_body: u64,
    request_timeout: Duration,
    /// Shared by all threads; there if `limit` or `paused` is.
    gate: Option<Arc<Gate>>,
    limit: Option<Limit>,
    /// Until when requests wait.
    paused: Option<Instant>,
    maintenance: Option<Maintenance>,
}

/// How many requests may be in a worker, and wait for it.
#[derive(Debug)]
struct Limit {
    queue_size: u32,
    queue_timeout: Duration,
}

/// The moment by which a request is to be over, if its route sets one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deadline(Option<Instant>);

impl Gate {
    /// A gate that nobody may pass yet.
    pub(super) fn new() -> Self {
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
    pub(super) fn set_most(&self, most: u32) {
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
    fn pass(self: &Arc<Self>) -> Option<Pass> {
        self.places.try_acquire().ok()?.forget();
        Some(Pass(self.clone()))
    }

    /// Says that not all who ask get to the worker, unless that was said a moment ago.
    fn complain(&self, worker: &WorkerName, why: &str) {
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

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.0.takes_surplus() {
            self.0.places.add_permits(1);
        }
    }
}

impl Wait {
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

impl Rules {
    /// The rules of a route; `None`: a request goes straight to its worker.
    pub(super) fn of(route: &Asked, gate: Option<&Arc<Gate>>) -> Option<Self> {
        let (flow, halt) = (&route.flow, &route.halt);
        let left = halt.pause.map(|pause| pause.left());
        let rules = Self {
            max_body: flow.max_body.unwrap_or(u64::MAX),
            request_timeout: flow.request_timeout,
            gate: gate.cloned(),
            limit: (gate.is_some() && flow.max_concurrency > 0).then_some(Limit {
                queue_size: flow.queue_size,
                queue_timeout: flow.queue_timeout,
            }),
            paused: left
                .filter(|left| gate.is_some() && !left.is_zero())
                .map(|left| Instant::now() + left),
            maintenance: halt.maintenance.clone(),
        };
        let plain = rules.max_body == u64::MAX
            && rules.request_timeout.is_zero()
            && rules.gate.is_none()
            && rules.maintenance.is_none();
        (!plain).then_some(rules)
    }

    /// Whether the route wants a gate for its worker.
    pub(super) fn want_gate(route: &Asked) -> bool {
        route.flow.max_concurrency > 0 || route.halt.pause.is_some()
    }

    /// Whether a request may have to wait.
    pub(super) fn have_gate(&self) -> bool {
        self.gate.is_some()
    }

    /// When a request is to be over that has come at `since`, or just now.
    pub(super) fn deadline(&self, since: Option<Instant>) -> Deadline {
        match self.request_timeout.is_zero() {
            true => Deadline(None),
            false => Deadline(Some(
                since.unwrap_or_else(Instant::now) + self.request_timeout,
            )),
        }
    }

    /// Whether a request is let in at all.
    ///
    /// # Errors
    /// With the answer it gets instead.
    pub(super) fn admit<B: http_body::Body>(&self, body: &B) -> Result<(), Refusal> {
        self.serve()?;
        if body.size_hint().lower() > self.max_body {
            return Err(too_large(self.max_body));
        }
        Ok(())
    }

    /// Whether the worker is not in maintenance.
    fn serve(&self) -> Result<(), Refusal> {
        let Some(maintenance) = &self.maintenance else {
            return Ok(());
        };
        let message = maintenance.message.as_deref().unwrap_or(MAINTENANCE);
        Err(Refusal::maintenance(message).retry_after(Some(MAINTENANCE_RETRY)))
    }

    /// Whether its worker is not asked.
    pub(super) fn is_in_maintenance(&self) -> bool {
        self.maintenance.is_some()
    }

    /// The gate before which requests wait now, and until when.
    fn pause(&self) -> Option<(&Arc<Gate>, Instant)> {
        let until = self.paused.filter(|until| *until > Instant::now())?;
        Some((self.gate.as_ref()?, until))
    }

    /// The gate at which requests are counted.
    fn limit(&self) -> Option<(&Arc<Gate>, &Limit)> {
        Some((self.gate.as_ref()?, self.limit.as_ref()?))
    }
}

impl Deadline {
    /// The shorter of `limit`, where zero is none, and what is left until the deadline, which is never zero.
    pub(super) fn cap(self, limit: Duration) -> Duration {
        let Some(deadline) = self.0 else {
            return limit;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        match limit.is_zero() {
            true => left,
            false => limit.min(left),
        }
    }

    /// Whether it has passed.
    pub(super) fn is_over(self) -> bool {
        self.0.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// The earlier of the two.
    fn or(self, other: Instant) -> Instant {
        self.0.map_or(other, |deadline| deadline.min(other))
    }
}

/// A body is longer than its route allows.
pub(super) fn too_large(most: u64) -> Refusal {
    let detail = format!("the request's body is longer than {most} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail).closing()
}

/// The request took longer than its route allows.
pub(super) fn too_late(worker: &WorkerName) -> Refusal {
    let detail = format!("worker '{worker}' did not answer in the time a request has");
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, detail)
}

fn busy(worker: &WorkerName, why: &str) -> Refusal {
    let detail = format!("worker '{worker}' is busy: {why}");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(Some(BUSY_RETRY))
}

/// Waits until a request for `path` may go to its worker, and picks the route and the generation of then.
///
/// # Errors
/// With the answer it gets when that takes too long, or too many wait.
pub(super) async fn enter(
    lane: &Lane,
    host: &HeaderValue,
    path: &str,
    deadline: Deadline,
) -> Result<(Rc<Route>, Option<Ticket>), Refusal> {
    loop {
        let table = hold(lane, host, path, deadline).await?;
        let route = table.find(host, path).ok_or_else(Refusal::not_found)?;
        let rules = route.rules.as_ref();
        let pass = match rules.and_then(Rules::limit) {
            Some((gate, limit)) => {
                match queue(lane, host, path, &route.worker, gate, limit, deadline).await? {
                    Some(pass) => Some(pass),
                    None => continue,
                }
            }
            None => None,
        };
        // Whether the route that is picked is still one that the request may enter so.
        let enters = Cell::new(false);
        let (route, mut ticket) = lane.pick_if(&table, host, path, |route| {
            let gate = route.rules.as_ref().and_then(Rules::limit);
            let is_paused = route.rules.as_ref().and_then(Rules::pause).is_some();
            let has_pass = match (gate, &pass) {
                (Some((gate, _)), Some(pass)) => Arc::ptr_eq(gate, &pass.0),
                (gate, pass) => gate.is_none() && pass.is_none(),
            };
            enters.set(has_pass && !is_paused);
            enters.get()
        });
        let route = route.ok_or_else(Refusal::not_found)?;
        if enters.get() {
            if let Some(rules) = &route.rules {
                rules.serve()?;
            }
            if let Some(ticket) = &mut ticket {
                ticket.hold(pass);
            }
            return Ok((route, ticket));
        }
    }
}

/// Waits while the route for `path` is paused, and returns the table of then.
async fn hold(
    lane: &Lane,
    host: &HeaderValue,
    path: &str,
    deadline: Deadline,
) -> Result<Rc<Table>, Refusal> {
    // From before the first look on.
    let mut changed = lane.changes();
    let mut wait = None;
    // Once the proxy stops: when it is too late to go on waiting, since an answer would not be out before the proxy has ended.
    let mut last = None;
    loop {
        let table = lane.table();
        let found = table.find(host, path).and_then(|route| {
            let (gate, until) = route.rules.as_ref()?.pause()?;
            Some((route.worker.clone(), gate.clone(), until))
        });
        let Some((worker, gate, until)) = found else {
            return Ok(table);
        };
        if deadline.is_over() {
            return Err(too_late(&worker));
        }
        if last.is_some_and(|last| last <= Instant::now()) {
            return Err(busy(&worker, "it is paused, and the server is restarted"));
        }
        if wait.is_none() {
            wait = Wait::begin(&gate, |gate| &gate.held, HELD_MAX);
        }
        if wait.is_none() {
            let why = "it is paused, and as many requests wait as may";
            gate.complain(&worker, why);
            return Err(busy(&worker, why));
        }
        let until = last.map_or(deadline.or(until), |last| deadline.or(until).min(last));
        tokio::select! {
            ended = changed.changed() => if ended.is_err() {
                return Err(busy(&worker, "the server is being stopped"));
            },
            () = sleep_until(until) => {}
            () = lane.stopping(), if last.is_none() => {
                last = Some(Instant::now() + table.front().grace / 2);
            }
        }
    }
}

/// Waits for a place in the worker; `None`: places are not what it takes any more.
async fn queue(
    lane: &Lane,
    host: &HeaderValue,
    path: &str,
    worker: &WorkerName,
    gate: &Arc<Gate>,
    limit: &Limit,
    deadline: Deadline,
) -> Result<Option<Pass>, Refusal> {
    if let Some(pass) = gate.pass() {
        return Ok(Some(pass));
    }
    let Some(_wait) = Wait::begin(gate, |gate| &gate.queued, limit.queue_size) else {
        let why = "as many requests wait for it as may";
        gate.complain(worker, why);
        return Err(busy(worker, why));
    };
    let mut changed = lane.changes();
    let until = deadline.or(Instant::now() + limit.queue_timeout);
    let mut place = pin!(gate.places.acquire());
    loop {
        let table = lane.table();
        let rules = table
            .find(host, path)
            .and_then(|route| route.rules.as_ref());
        let same = |(other, _): (&Arc<Gate>, _)| Arc::ptr_eq(other, gate);
        if !rules.and_then(Rules::limit).is_some_and(same) {
            return Ok(None);
        }
        tokio::select! {
            biased;
            // Nobody closes it.
            Ok(permit) = place.as_mut() => {
                permit.forget();
                return Ok(Some(Pass(gate.clone())));
            }
            () = sleep_until(until) => {
                if deadline.is_over() {
                    return Err(too_late(worker));
                }
                let why = "no request before this one has ended in time";
                gate.complain(worker, why);
                return Err(busy(worker, why));
            }
            ended = changed.changed() => if ended.is_err() {
                return Err(busy(worker, "the server is being stopped"));
            },
        }
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
        let begin = || Wait::begin(&gate, |gate| &gate.queued, 1);
        let first = begin();
        assert!(first.is_some() && begin().is_none());
        drop(first);
        assert!(begin().is_some());
    }

    #[test]
    fn a_deadline_shortens_a_limit_and_is_one_where_there_is_none() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let deadline = Deadline(Some(Instant::now() + Duration::from_secs(60)));
        assert_eq!(deadline.cap(second), second);
        assert!(deadline.cap(hour) <= Duration::from_secs(60));
        assert!(deadline.cap(Duration::ZERO) > Duration::from_secs(50));
        assert_eq!(Deadline::default().cap(hour), hour);
        assert!(!deadline.is_over() && !Deadline::default().is_over());
    }
}
