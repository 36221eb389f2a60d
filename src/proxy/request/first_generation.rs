//! Requests for a route whose first generation is on its way: built, or asked for its health for the first time.
//!
//! They wait, whatever asks: a browser, a script, a load balancer's health check. Of their bodies nothing is read meanwhile. How many wait
//! is bounded by the connections and streams that clients may have. A first generation that has failed is waited for by nobody.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::proxy::shard::Shard;
use crate::proxy::table::Table;
use crate::proxy::table::lookup::Lookup;
use crate::proxy::table::route::Route;

/// How long a request may wait for the worker of `route`; `None`: there is nothing to wait for.
pub(crate) fn wait_of(route: &Route) -> Option<Duration> {
    let wait = route.awaited()?;
    let rules = route.rules.as_ref();
    // In maintenance it would not be asked either.
    match rules {
        Some(rules) if rules.is_in_maintenance() => None,
        Some(rules) => Some(rules.deadline(None).cap(wait)),
        None => Some(wait),
    }
}

/// Waits for the first generation on the route of a request, as long as a request may, and returns the table of then.
#[cold]
pub(crate) async fn wait(shard: &Shard, lookup: &Lookup<'_>) -> Rc<Table> {
    // From before the first look on.
    let mut changed = shard.changes();
    let since = Instant::now();
    // Once the proxy stops: when an answer would not be out any more before the proxy has ended.
    let mut last: Option<Instant> = None;
    loop {
        let table = shard.table();
        let wait = lookup.find(&table).and_then(|route| wait_of(route));
        let until = wait.map(|wait| since + wait);
        let until = until.map(|until| last.map_or(until, |last| last.min(until)));
        let Some(until) = until.filter(|until| *until > Instant::now()) else {
            return table;
        };
        tokio::select! {
            ended = changed.changed() => if ended.is_err() { return table },
            () = sleep_until(until) => return table,
            () = shard.stopping(), if last.is_none() => {
                last = Some(Instant::now() + table.front().grace / 2);
            }
        }
    }
}
