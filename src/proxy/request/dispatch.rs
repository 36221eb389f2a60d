//! The phases of a request on its way down, from the client to what answers it.
//!
//! Each phase is a function; [`dispatch`] is their order. A phase that answers, or refuses, is the last one. docs/ARCHITECTURE.md draws them.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, FORWARDED, HeaderValue, LOCATION, USER_AGENT, VIA,
};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::client::Client;
use super::forward::{ForwardContext, forward};
use super::notes::Notes;
use super::{development, first_generation, queue, route_file};
use crate::proxy::downstream::request_body::Inbound;
use crate::proxy::response::access::Facts;
use crate::proxy::response::body::Body;
use crate::proxy::response::compression::Offer;
use crate::proxy::response::{report, route_pages};
use crate::proxy::table::Table;
use crate::proxy::table::lookup::Lookup;
use crate::proxy::table::route::{Route, Target};
use crate::proxy::upstream::ticket::Ticket;
use crate::proxy::wire::deadline::Deadline;
use crate::proxy::wire::host;
use crate::proxy::wire::origin::{FORWARDED_FOR, Origin};
use crate::proxy::wire::pace::Pace;
use crate::proxy::wire::path;
use crate::proxy::wire::refusal::Refusal;

/// Below it who gives out certificates looks whether a host is whose it is said to be, without TLS (RFC 8555, 8.3).
const ACME_CHALLENGE: &str = "/.well-known/acme-challenge/";

/// Takes a request through its phases.
///
/// # Errors
/// With what is wrong with the request, or with what should answer it.
pub(super) async fn dispatch(
    client: &Rc<Client>,
    request: &mut Request<Inbound>,
    id: &HeaderValue,
    notes: &mut Notes,
) -> Result<Response<Body>, Refusal> {
    check_framing(client)?;
    let mut table = client.shard().table();
    check_field_count(&table, request)?;
    let (host, origin) = identify(client, &table, request)?;
    // A share in the target's bytes, by which the path is still there when the request is not ours any more.
    let target = request.uri().clone();
    let Some(path) = target_path(request.method(), &target)? else {
        return Ok(no_content());
    };
    let lookup = Lookup { host, path };
    if let Some(response) = own_response(client, &table, request, &lookup, &origin)? {
        return Ok(response);
    }
    let is_page = table.development().is_some() && development::is_wanted(request);
    if is_page {
        table = Box::pin(development::hold(client.shard(), &lookup)).await;
    }
    let (mut route, mut ticket) = client.shard().pick(&table, &lookup);
    // A page has waited already. What comes of the time a request has is over then.
    let mut since = None;
    if !is_page
        && route
            .as_deref()
            .and_then(first_generation::wait_of)
            .is_some()
    {
        since = Some(Instant::now());
        table = Box::pin(first_generation::wait(client.shard(), &lookup)).await;
        (route, ticket) = client.shard().pick(&table, &lookup);
    }
    let mut route = route.ok_or_else(Refusal::not_found)?;
    respell(request, &route, &lookup);
    note(request, &route, is_page, notes);
    if route.access_log {
        let facts = facts(request, &route, id, &origin, &lookup);
        let entry = client.shard().journal().enter(facts);
        entry.goes_to(ticket.as_ref().map(Ticket::number));
        notes.entry = Some(entry);
    }
    if let Some(response) = response_of_route(&route, request, &lookup, notes)? {
        return Ok(response);
    }
    let mut deadline = Deadline::default();
    if let Some(rules) = &route.rules {
        deadline = rules.deadline(since);
        if rules.have_limiter() {
            let entered = queue::enter(client.shard(), &lookup, deadline);
            (route, ticket) = Box::pin(entered).await?;
            if let Some(entry) = &notes.entry {
                entry.goes_to(ticket.as_ref().map(Ticket::number));
            }
        }
    }
    let way = ticket.as_mut();
    let way = way.and_then(|ticket| route.target.way(ticket, request.headers()));
    let Some((upstream, ticket)) = way.zip(ticket) else {
        return without_worker(&table, &route, request.method(), is_page, notes);
    };
    let front = table.front();
    let mut context = ForwardContext {
        upstream,
        host: lookup.host,
        origin,
        id,
        entry: notes.entry.clone(),
        deadline,
        client_pace: Pace::reading(front),
        tunnel_limit: shorter(front.idle_timeout, route.timeouts.idle),
        route,
    };
    drop(table);
    drop(lookup.path);
    drop(target);
    forward(client, &mut context, ticket, request).await
}

/// A request whose end is ambiguous is refused, and its connection closed.
fn check_framing(client: &Client) -> Result<(), Refusal> {
    let Some(flaw) = client.next_request() else {
        return Ok(());
    };
    // Whatever else comes is not read as a request.
    client.signals().set_unread(true);
    let (status, detail) = flaw.refusal();
    Err(Refusal::new(status, detail).closing())
}

fn check_field_count<B>(table: &Table, request: &Request<B>) -> Result<(), Refusal> {
    if request.headers().len() <= table.front().max_headers {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the request has too many header fields",
    )
    .closing())
}

/// Which host is asked for, and where the request comes from: as the connection shows it, or as a trusted proxy says.
fn identify<B>(
    client: &Client,
    table: &Table,
    request: &Request<B>,
) -> Result<(HeaderValue, Rc<Origin>), Refusal> {
    let host = host(request)?;
    let origin = client.origin().clone();
    if client.is_trusted() {
        let trusts = |address| table.front().trusts(address);
        let (told, asked) = origin.behind(request.headers(), trusts);
        return Ok((asked.unwrap_or(host), Rc::new(told)));
    }
    if let Some(shown) = client.shown()
        && !shown.is_for(host.to_str().unwrap_or_default())
    {
        return Err(Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this connection was made to another host, whose certificate is not for this one",
        ));
    }
    Ok((host, origin))
}

/// The decoded path of a request's target; `None` for the server as a whole (`OPTIONS *`).
fn target_path<'a>(method: &Method, target: &'a Uri) -> Result<Option<Cow<'a, str>>, Refusal> {
    match target.path() {
        "*" if method == Method::OPTIONS => Ok(None),
        written if written.starts_with('/') => match path::decode(written) {
            Ok(path) => Ok(Some(path)),
            Err(error) => Err(Refusal::bad_request(&error.to_string())),
        },
        _ => Err(Refusal::bad_request("the request's target is not a path")),
    }
}

/// What the proxy answers itself, whatever the routes are: its health, HTTPS instead of HTTP, and in development what is its own.
fn own_response<B>(
    client: &Client,
    table: &Table,
    request: &Request<B>,
    lookup: &Lookup<'_>,
    origin: &Origin,
) -> Result<Option<Response<Body>>, Refusal> {
    if lookup.path == table.front().health_path.as_str() {
        return match is_reading(request.method()) {
            true => Ok(Some(health(table, may_see(client, table, request, origin)))),
            false => Err(Refusal::read_only()),
        };
    }
    if let Some(port) = client.https_port()
        && origin.proto == "http"
        && !lookup.path.starts_with(ACME_CHALLENGE)
    {
        return Ok(Some(to_https(request, &lookup.host, port)));
    }
    if table.development().is_some() {
        return Ok(development::respond(client.shard(), &lookup.path, request));
    }
    Ok(None)
}

/// Writes the part of the path by which the route was found as the route is written, whichever way the client escaped it.
fn respell<B>(request: &mut Request<B>, route: &Route, lookup: &Lookup<'_>) {
    let respelled = match &lookup.path {
        Cow::Owned(_) => path::respell(request.uri(), route.path.prefix()),
        Cow::Borrowed(_) => None,
    };
    if let Some(uri) = respelled {
        *request.uri_mut() = uri;
    }
}

/// Notes what the response needs to know of the request and its route.
fn note(request: &mut Request<Inbound>, route: &Rc<Route>, is_page: bool, notes: &mut Notes) {
    if route.compression {
        notes.offer = Offer::of(request);
    }
    if !route.settings.error_pages.is_empty() {
        notes.own = Some(route.clone());
    }
    if let Some(state) = route.state.as_ref().filter(|_| is_page) {
        notes.tag = Some(state.tag());
        development::ask_whole(request.headers_mut());
    }
}

/// What the access log tells of a request.
fn facts<B>(
    request: &Request<B>,
    route: &Route,
    id: &HeaderValue,
    origin: &Origin,
    lookup: &Lookup<'_>,
) -> Facts {
    Facts {
        worker: route.worker.clone(),
        route: route.path.clone(),
        is_on_host: !route.settings.hosts.is_empty(),
        id: id.clone(),
        method: request.method().clone(),
        uri: request.uri().clone(),
        agent: request.headers().get(USER_AGENT).cloned(),
        client: origin.client.clone(),
        host: lookup.host.clone(),
    }
}

/// What the proxy answers on a route before its worker is asked: a redirect, a file.
///
/// # Errors
/// When the route's rules do not let the request in.
fn response_of_route(
    route: &Route,
    request: &Request<Inbound>,
    lookup: &Lookup<'_>,
    notes: &mut Notes,
) -> Result<Option<Response<Body>>, Refusal> {
    if !route.settings.redirects.is_empty()
        && let Some(response) = route_pages::redirect(route, &lookup.path, request.uri())
    {
        return Ok(Some(response));
    }
    if let Some(rules) = &route.rules {
        rules.admit(request.body())?;
    }
    if !is_reading(request.method()) {
        return Ok(None);
    }
    let offer = &mut notes.offer;
    Ok(route_file::respond(route, &lookup.path, request, offer))
}

/// The response on a route whose worker cannot be asked, or that has none.
fn without_worker(
    table: &Table,
    route: &Route,
    method: &Method,
    is_page: bool,
    notes: &mut Notes,
) -> Result<Response<Body>, Refusal> {
    let Target::Unavailable {
        reason,
        retry_after,
        ..
    } = &route.target
    else {
        return Err(match is_reading(method) {
            true => Refusal::not_found(),
            false => Refusal::read_only(),
        });
    };
    let worker = &route.worker;
    if is_page && let Some(page) = development::trouble(table, worker.as_str()) {
        // The page brings the element itself.
        notes.tag = None;
        return Ok(page);
    }
    let detail = format!("worker '{worker}' is not available: {reason}");
    let refusal = Refusal::by_worker(StatusCode::SERVICE_UNAVAILABLE, detail);
    Err(refusal.retry_after(*retry_after))
}

fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The host the client asks for; a request without one, or with two, may mean another to the worker than to us.
fn host<B>(request: &Request<B>) -> Result<HeaderValue, Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "this server is not a proxy to other hosts",
        )
        .closing());
    }
    let foreign = |scheme: &str| !matches!(scheme, "http" | "https");
    if request.uri().scheme_str().is_some_and(foreign) {
        return Err(Refusal::bad_request(
            "the request's target is not an http address",
        ));
    }
    let authority = request.uri().authority();
    let has_field = || request.headers().contains_key(http::header::HOST);
    if request.version() < Version::HTTP_11 && authority.is_none() && !has_field() {
        return Ok(HeaderValue::from_static(""));
    }
    // An absolute target names the host, and in HTTP/1.1 the field must still be there and say the same.
    let may_lack_field = || authority.is_none() || request.version() != Version::HTTP_11;
    host::of(request.headers(), authority)
        .filter(|_| may_lack_field() || has_field())
        .ok_or_else(|| {
            Refusal::bad_request(
                "the request needs exactly one valid Host header field, and its target no other host",
            )
        })
}

/// The server's own health; `details`: with the workers it depends on.
#[cold]
fn health(table: &Table, details: bool) -> Response<Body> {
    let (status, text) = report::health(&table.published.table, details);
    let mut response = Response::new(Body::full(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether a request comes from the machine itself, or from a trusted proxy on its own behalf: names of workers are not for strangers.
#[cold]
fn may_see<B>(client: &Client, table: &Table, request: &Request<B>, origin: &Origin) -> bool {
    let headers = request.headers();
    // One that is not trusted, or speaks of its clients in words that are not read, may speak for anybody.
    let is_own = match headers.contains_key(FORWARDED_FOR) {
        true => client.is_trusted(),
        false => !headers.contains_key(FORWARDED) && !headers.contains_key(VIA),
    };
    let address = origin.client.to_str().ok();
    let address = address.and_then(|address| address.parse::<IpAddr>().ok());
    let is_known =
        |address: IpAddr| address.to_canonical().is_loopback() || table.front().trusts(address);
    table.development().is_some() || (is_own && address.is_some_and(is_known))
}

/// The same with TLS.
#[cold]
fn to_https<B>(request: &Request<B>, host: &HeaderValue, port: u16) -> Response<Body> {
    let host = host.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        // Not the end of an address in brackets.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let port = match port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut response = no_content();
    if let Ok(location) = HeaderValue::from_str(&format!("https://{name}{port}{target}")) {
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The shorter of two limits of which zero is none.
fn shorter(a: Duration, b: Duration) -> Duration {
    match (a.is_zero(), b.is_zero()) {
        (true, _) => b,
        (_, true) => a,
        _ => a.min(b),
    }
}
