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
use crate::proxy::shard::Lane;
use crate::proxy::table::Table;
use crate::proxy::table::lookup::Lookup;
use crate::proxy::table::route::Route;
use crate::proxy::table::rules::{Limit, Rules};
use crate::proxy::upstream::gate::{Gate, Pass, Wait};
use crate::proxy::upstream::ticket::Ticket;
use crate::proxy::wire::deadline::Deadline;
use crate::proxy::wire::refusal::Refusal;

/// Seconds after which it is worth coming back to a worker that is busy.
const BUSY_RETRY: u64 = 1;

/// The request took longer than its route allows.
pub(crate) fn too_late(worker: &WorkerName) -> Refusal {
    let detail = format!("worker '{worker}' did not answer in the time a request has");
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, detail)
}

fn busy(worker: &WorkerName, why: &str) -> Refusal {
    let detail = format!("worker '{worker}' is busy: {why}");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(Some(BUSY_RETRY))
}

/// Waits until a request may go to its worker, and picks the route and the generation of then.
///
/// # Errors
/// With the answer it gets when that takes too long, or too many wait.
pub(crate) async fn enter(
    lane: &Lane,
    lookup: &Lookup<'_>,
    deadline: Deadline,
) -> Result<(Rc<Route>, Option<Ticket>), Refusal> {
    loop {
        let table = hold(lane, lookup, deadline).await?;
        let route = lookup.find(&table).ok_or_else(Refusal::not_found)?;
        let rules = route.rules.as_ref();
        let pass = match rules.and_then(Rules::limit) {
            Some((gate, limit)) => {
                match queue(lane, lookup, &route.worker, gate, limit, deadline).await? {
                    Some(pass) => Some(pass),
                    None => continue,
                }
            }
            None => None,
        };
        // Whether the route that is picked is still one that the request may enter so.
        let enters = Cell::new(false);
        let (route, mut ticket) = lane.pick_if(&table, lookup, |route| {
            let gate = route.rules.as_ref().and_then(Rules::limit);
            let is_paused = route.rules.as_ref().and_then(Rules::pause).is_some();
            let has_pass = match (gate, &pass) {
                (Some((gate, _)), Some(pass)) => pass.is_of(gate),
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

/// Waits while the route is paused, and returns the table of then.
async fn hold(lane: &Lane, lookup: &Lookup<'_>, deadline: Deadline) -> Result<Rc<Table>, Refusal> {
    // From before the first look on.
    let mut changed = lane.changes();
    let mut wait = None;
    // Once the proxy stops: when it is too late to go on waiting, since an answer would not be out before the proxy has ended.
    let mut last = None;
    loop {
        let table = lane.table();
        let found = lookup.find(&table).and_then(|route| {
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
            wait = Wait::for_end_of_pause(&gate);
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
    lookup: &Lookup<'_>,
    worker: &WorkerName,
    gate: &Arc<Gate>,
    limit: &Limit,
    deadline: Deadline,
) -> Result<Option<Pass>, Refusal> {
    if let Some(pass) = gate.pass() {
        return Ok(Some(pass));
    }
    let Some(_wait) = Wait::for_place(gate, limit.queue_size) else {
        let why = "as many requests wait for it as may";
        gate.complain(worker, why);
        return Err(busy(worker, why));
    };
    let mut changed = lane.changes();
    let until = deadline.or(Instant::now() + limit.queue_timeout);
    let mut place = pin!(gate.clone().acquire());
    loop {
        let table = lane.table();
        let rules = lookup.find(&table).and_then(|route| route.rules.as_ref());
        let same = |(other, _): (&Arc<Gate>, _)| Arc::ptr_eq(other, gate);
        if !rules.and_then(Rules::limit).is_some_and(same) {
            return Ok(None);
        }
        tokio::select! {
            biased;
            pass = place.as_mut() => return Ok(Some(pass)),
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
