//! What developers are shown besides: pages that reload themselves, wait for what is on its way, and tell what went wrong. In production
//! nothing of it is there.
//!
//! | file | what it is for |
//! |---|---|
//! | `document` | which requests ask for a page, and the element at its end |
//! | `state` | how far a worker is, as pages are told |
//! | `events` | the stream on which they are told |
//! | `page`, `place` | the page that shows what went wrong, and where in the source that is |
//! | `client.js` | what runs in the browser |

mod document;
mod events;
mod page;
mod place;

use std::rc::Rc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use crate::proxy::response::body::Body;
use crate::proxy::shard::Shard;
use crate::proxy::table::Table;
use crate::proxy::table::development::State;
use crate::proxy::table::lookup::Lookup;
pub(crate) use document::{append, ask_whole, is_wanted};

/// Where all of it is; no worker's files are there.
const PREFIX: &str = "/.tqserver/";
const CLIENT: &str = include_str!("client.js");
/// Nothing on such a page can run, load or be sent anywhere.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; sandbox; base-uri 'none'; form-action 'none'";
/// The same for one that stands in a worker's place: our script follows the worker.
const POLICY_IN_PLACE: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'";

/// The answer to a request for something of ours.
#[cold]
pub(crate) fn respond<B>(
    shard: &Rc<Shard>,
    path: &str,
    request: &Request<B>,
) -> Option<Response<Body>> {
    let rest = path.strip_prefix(PREFIX)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let worker = asked_for(request.uri().query().unwrap_or_default());
    let table = shard.table();
    match rest {
        "client.js" => Some(with_type(
            "text/javascript; charset=utf-8",
            Body::full(CLIENT.into()),
        )),
        "events" if request.method() == Method::GET => {
            let events = events::events(shard.clone(), worker?);
            Some(with_type(
                "text/event-stream",
                Body::pieces(Box::pin(events)),
            ))
        }
        "trouble" => {
            let text = page::of(&table, worker?, None);
            Some(with_policy(
                with_type(HTML, Body::full(text.into())),
                POLICY,
            ))
        }
        _ => None,
    }
}

const HTML: &str = "text/html; charset=utf-8";

/// The worker that is asked for. Names of workers need no escapes.
fn asked_for(query: &str) -> Option<&str> {
    query
        .split('&')
        .find_map(|part| part.strip_prefix("worker="))
}

/// Waits until nothing newer is on its way on the route of a request, as long as a page may, and returns the table of then.
pub(crate) async fn hold(shard: &Rc<Shard>, lookup: &Lookup<'_>) -> Rc<Table> {
    // From before the first look on.
    let mut changed = shard.changes();
    let since = Instant::now();
    loop {
        let table = shard.table();
        let hold = table.development().map(|development| development.hold);
        let route = lookup.find(&table);
        let pending = route.and_then(|route| route.state.as_ref());
        let (Some(hold), true) = (hold, pending.is_some_and(|state| state.pending)) else {
            return table;
        };
        tokio::select! {
            ended = changed.changed() => if ended.is_err() { return table },
            () = tokio::time::sleep_until(since + hold) => return table,
            () = shard.stopping() => return table,
        }
    }
}

/// The page in place of a worker of which nothing serves, if it is known why.
pub(crate) fn trouble(table: &Table, worker: &str) -> Option<Response<Body>> {
    let routes = &table.published.table.routes;
    let route = routes
        .iter()
        .find(|route| route.worker.as_str() == worker)?;
    route.work.as_ref()?.trouble.as_ref()?;
    let state = State::of(&table.development()?.server, route);
    let text = page::of(table, worker, Some(&state.tag_of_trouble()));
    let mut response = with_policy(with_type(HTML, Body::full(text.into())), POLICY_IN_PLACE);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    Some(response)
}

fn with_type(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderName::from_static("x-content-type-options");
    headers.insert(nosniff, HeaderValue::from_static("nosniff"));
    response
}

fn with_policy(mut response: Response<Body>, policy: &'static str) -> Response<Body> {
    let name = HeaderName::from_static("content-security-policy");
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(policy));
    response
}
