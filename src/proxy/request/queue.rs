//! Requests that wait before they go to a worker: for a place in it, or for the end of a pause.
//!
//! No request that waits is counted in a generation. The generation is picked when the wait is over, so what waits follows a reload.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use tokio::time::{Instant, sleep_until};

use crate::names::WorkerName;
use crate::proxy::shard::Shard;
use crate::proxy::table::Table;
use crate::proxy::table::lookup::Lookup;
use crate::proxy::table::route::Route;
use crate::proxy::table::rules::{Limit, Rules};
use crate::proxy::upstream::limiter::{Limiter, Permit, Wait};
use crate::proxy::upstream::ticket::Ticket;
use crate::proxy::wire::deadline::Deadline;
use crate::proxy::wire::refusal::Refusal;

/// Seconds after which it is worth coming back to a worker that is busy.
const BUSY_RETRY: u64 = 1;

/// The request took longer than its route allows.
pub(crate) fn too_late(worker: &WorkerName) -> Refusal {
    let detail = format!("worker '{worker}' did not answer in the time a request has");
    Refusal::by_worker(StatusCode::GATEWAY_TIMEOUT, detail)
}

fn busy(worker: &WorkerName, why: &str) -> Refusal {
    let detail = format!("worker '{worker}' is busy: {why}");
    Refusal::by_worker(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(Some(BUSY_RETRY))
}

/// Waits until a request may go to its worker, and picks the route and the generation of then.
///
/// # Errors
/// With the answer it gets when that takes too long, or too many wait.
pub(crate) async fn enter(
    shard: &Shard,
    lookup: &Lookup<'_>,
    deadline: Deadline,
) -> Result<(Rc<Route>, Option<Ticket>), Refusal> {
    loop {
        let table = hold(shard, lookup, deadline).await?;
        let route = lookup.find(&table).ok_or_else(Refusal::not_found)?;
        let rules = route.rules.as_ref();
        let permit = match rules.and_then(Rules::limit) {
            Some((limiter, limit)) => {
                match queue(shard, lookup, &route.worker, limiter, limit, deadline).await? {
                    Some(permit) => Some(permit),
                    None => continue,
                }
            }
            None => None,
        };
        // Whether the route that is picked is still one that the request may enter so.
        let enters = Cell::new(false);
        let (route, mut ticket) = shard.pick_if(&table, lookup, |route| {
            let limiter = route.rules.as_ref().and_then(Rules::limit);
            let is_paused = route.rules.as_ref().and_then(Rules::pause).is_some();
            let has_permit = match (limiter, &permit) {
                (Some((limiter, _)), Some(permit)) => permit.is_of(limiter),
                (limiter, permit) => limiter.is_none() && permit.is_none(),
            };
            enters.set(has_permit && !is_paused);
            enters.get()
        });
        let route = route.ok_or_else(Refusal::not_found)?;
        if enters.get() {
            if let Some(rules) = &route.rules {
                rules.serve()?;
            }
            if let Some(ticket) = &mut ticket {
                ticket.hold(permit);
            }
            return Ok((route, ticket));
        }
    }
}

/// Waits while the route is paused, and returns the table of then.
async fn hold(
    shard: &Shard,
    lookup: &Lookup<'_>,
    deadline: Deadline,
) -> Result<Rc<Table>, Refusal> {
    // From before the first look on.
    let mut changed = shard.changes();
    let mut wait = None;
    // Once the proxy stops: when it is too late to go on waiting, since an answer would not be out before the proxy has ended.
    let mut last = None;
    loop {
        let table = shard.table();
        let found = lookup.find(&table).and_then(|route| {
            let (limiter, until) = route.rules.as_ref()?.pause()?;
            Some((route.worker.clone(), limiter.clone(), until))
        });
        let Some((worker, limiter, until)) = found else {
            return Ok(table);
        };
        if deadline.is_over() {
            return Err(too_late(&worker));
        }
        if last.is_some_and(|last| last <= Instant::now()) {
            return Err(busy(&worker, "it is paused, and the server is restarted"));
        }
        if wait.is_none() {
            wait = Wait::for_end_of_pause(&limiter);
        }
        if wait.is_none() {
            let why = "it is paused, and as many requests wait as may";
            limiter.complain(&worker, why);
            return Err(busy(&worker, why));
        }
        let until = last.map_or(deadline.or(until), |last| deadline.or(until).min(last));
        tokio::select! {
            ended = changed.changed() => if ended.is_err() {
                return Err(busy(&worker, "the server is being stopped"));
            },
            () = sleep_until(until) => {}
            () = shard.stopping(), if last.is_none() => {
                last = Some(Instant::now() + table.front().grace / 2);
            }
        }
    }
}

/// Waits for a place in the worker; `None`: places are not what it takes any more.
async fn queue(
    shard: &Shard,
    lookup: &Lookup<'_>,
    worker: &WorkerName,
    limiter: &Arc<Limiter>,
    limit: &Limit,
    deadline: Deadline,
) -> Result<Option<Permit>, Refusal> {
    if let Some(permit) = limiter.try_acquire() {
        return Ok(Some(permit));
    }
    let Some(_wait) = Wait::for_place(limiter, limit.queue_size) else {
        let why = "as many requests wait for it as may";
        limiter.complain(worker, why);
        return Err(busy(worker, why));
    };
    let mut changed = shard.changes();
    let until = deadline.or(Instant::now() + limit.queue_timeout);
    let mut place = pin!(limiter.clone().acquire());
    loop {
        let table = shard.table();
        let rules = lookup.find(&table).and_then(|route| route.rules.as_ref());
        let same = |(other, _): (&Arc<Limiter>, _)| Arc::ptr_eq(other, limiter);
        if !rules.and_then(Rules::limit).is_some_and(same) {
            return Ok(None);
        }
        tokio::select! {
            biased;
            permit = place.as_mut() => return Ok(Some(permit)),
            () = sleep_until(until) => {
                if deadline.is_over() {
                    return Err(too_late(worker));
                }
                let why = "no request before this one has ended in time";
                limiter.complain(worker, why);
                return Err(busy(worker, why));
            }
            ended = changed.changed() => if ended.is_err() {
                return Err(busy(worker, "the server is being stopped"));
            },
        }
    }
}
