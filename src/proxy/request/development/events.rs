//! The stream on which pages are told how far their worker is: at once, and whenever that changes.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};

use crate::proxy::shard::Shard;
use crate::proxy::table::development::State;

/// How soon a browser comes again when the stream broke; and how often one in which nothing happens is heard of, so that a browser that
/// is gone is noticed.
const RETRY: &str = "retry: 250\n\n";
const ALIVE: Duration = Duration::from_secs(15);

/// The events of one worker, until the proxy stops.
pub(super) fn events(shard: Rc<Shard>, worker: &str) -> impl Stream<Item = Bytes> + use<> {
    let worker = worker.to_owned();
    let changed = shard.changes();
    let start = (shard, worker, changed, None::<String>);
    let states = stream::unfold(start, |(shard, worker, mut changed, said)| async move {
        loop {
            changed.borrow_and_update();
            let now = state(&shard, &worker)?;
            if said.as_ref() != Some(&now) {
                return Some((data(&now), (shard, worker, changed, Some(now))));
            }
            tokio::select! {
                rung = changed.changed() => rung.ok()?,
                () = tokio::time::sleep(ALIVE) => {
                    return Some((Bytes::from_static(b":\n\n"), (shard, worker, changed, said)));
                }
                () = shard.stopping() => return None,
            }
        }
    });
    let retry = stream::iter([Bytes::from_static(RETRY.as_bytes())]);
    futures_util::StreamExt::chain(retry, states)
}

fn state(shard: &Shard, worker: &str) -> Option<String> {
    let table = shard.table();
    let server = &table.development()?.server;
    let state = State::named(server, worker, &table.published.table);
    Some(state.json().to_owned())
}

/// A line of an event stream.
fn data(json: &str) -> Bytes {
    format!("data: {json}\n\n").into()
}
