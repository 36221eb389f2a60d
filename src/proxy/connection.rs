//! One client's connection: its requests, one after the other.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tracing::debug;

use super::access::Entry;
use super::body::Body;
use super::development;
use super::files::{self, Lookup};
use super::forward::{Errand, Fields, forward};
use super::headers;
use super::lane::Lane;
use super::pages::{Form, Refusal};
use super::patience::Patience;
use super::report;
use super::socket::{Signals, Socket};
use super::table::{Route, Table, Target};

/// A client and what its requests have in common.
pub(super) struct Client {
    lane: Rc<Lane>,
    /// The value of `X-Forwarded-For`.
    peer: HeaderValue,
    signals: Arc<Signals>,
    /// A clock that requests hand on, one to the next.
    spare: Rc<Cell<Option<Patience>>>,
    /// Room for a copy of a request, handed on likewise.
    fields: Cell<Fields>,
}

/// Serves a client until it leaves, or `lane` stops.
pub(super) async fn serve(lane: Rc<Lane>, stream: TcpStream, peer: SocketAddr) {
    let address = peer.ip().to_canonical().to_string();
    let client = Rc::new(Client {
        peer: HeaderValue::from_str(&address).unwrap_or(HeaderValue::from_static("unknown")),
        signals: Arc::new(Signals::new()),
        spare: Rc::default(),
        fields: Cell::default(),
        lane,
    });
    let (lane, signals) = (client.lane.clone(), client.signals.clone());
    if lane.is_stopping() {
        signals.part();
    }
    let table = lane.table();
    let socket = Socket::new(stream, client.signals.clone(), table.front());
    let service = service_fn(|request| {
        let answering = client.signals.answering();
        let client = client.clone();
        async move {
            let mut response = client.answer(request).await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                answering.for_ever();
            } else {
                if client.signals.is_parting() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                response.body_mut().answering(answering);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = table.server.serve_connection(TokioIo::new(socket), service);
    drop(table);
    // When the proxy stops it is not hyper that is told, which closes at once what is idle: the next request may be on its way.
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let guest = lane.welcome(&signals, waker);
    let outcome = connection.with_upgrades().await;
    drop(guest);
    if let Err(error) = outcome {
        debug!("connection of {address} ended: {error}");
    }
}

impl Client {
    /// The value of `X-Forwarded-For`.
    pub(super) fn peer(&self) -> &HeaderValue {
        &self.peer
    }

    /// The client's socket.
    pub(super) fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// A clock for one request.
    pub(super) fn patience(&self) -> Patience {
        self.spare.take().unwrap_or_default()
    }

    /// Takes a clock back.
    pub(super) fn keep(&self, patience: Patience) {
        self.spare.set(Some(patience));
    }

    /// Where a clock is to be put back.
    pub(super) fn spare(&self) -> Rc<Cell<Option<Patience>>> {
        self.spare.clone()
    }

    /// Room for a copy of a request's fields.
    pub(super) fn fields(&self) -> Fields {
        self.fields.take()
    }

    /// Takes the room back.
    pub(super) fn keep_fields(&self, mut fields: Fields) {
        fields.clear();
        self.fields.set(fields);
    }

    /// Runs what outlives the connection's HTTP.
    pub(super) fn tunnel(&self, tunnel: impl Future<Output = ()> + 'static) {
        self.lane.tunnel(tunnel);
    }

    async fn answer(self: &Rc<Self>, request: Request<Incoming>) -> Response<Body> {
        let id = match headers::request_id(request.headers()) {
            Some(id) => id.clone(),
            None => self.lane.request_id(),
        };
        let form = Form::wanted(request.headers());
        if !request.body().is_end_stream() {
            self.signals.set_unread(true);
        }
        let (mut entry, mut tag) = (None, None);
        let answered = self.dispatch(request, &id, &mut entry, &mut tag).await;
        let mut response = match answered {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(form, &id),
        };
        if let Some(tag) = tag {
            development::append(&mut response, tag);
        }
        if let Some(entry) = entry {
            entry.answered(response.status());
            response.body_mut().note(entry);
        }
        response.headers_mut().insert(headers::REQUEST_ID, id);
        response
    }

    async fn dispatch(
        self: &Rc<Self>,
        mut request: Request<Incoming>,
        id: &HeaderValue,
        entry: &mut Option<Rc<Entry>>,
        tag: &mut Option<Bytes>,
    ) -> Result<Response<Body>, Refusal> {
        let mut table = self.lane.table();
        if request.headers().len() > table.front().max_headers {
            return Err(Refusal::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the request has too many header fields",
            )
            .closing());
        }
        let host = host(&request)?;
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        let path = match request.uri().path() {
            "*" if request.method() == Method::OPTIONS => return Ok(no_content()),
            path if path.starts_with('/') => super::path::decode(path),
            _ => return Err(Refusal::bad_request("the request's target is not a path")),
        };
        let Ok(path) = path else {
            return Err(Refusal::bad_request("the path has a '.' or '..' segment"));
        };
        if path == table.front().health_path.as_str() {
            return match reading {
                true => Ok(health(&table)),
                false => Err(Refusal::read_only()),
            };
        }
        let mut is_page = false;
        if table.development().is_some() {
            if let Some(response) = development::answer(&self.lane, &path, &request) {
                return Ok(response);
            }
            is_page = development::is_wanted(&request);
            if is_page {
                table = development::hold(&self.lane, &path).await;
            }
        }
        let (route, ticket) = self.lane.pick(&table, &path);
        let Some(route) = route else {
            return Err(Refusal::not_found());
        };
        let path = path.into_owned();
        if let Some(state) = route.state.as_ref().filter(|_| is_page) {
            *tag = Some(state.tag());
            development::ask_whole(request.headers_mut());
        }
        if route.access_log {
            let generation = ticket
                .as_ref()
                .map(|t| t.generation().instance.generation.0);
            let journal = self.lane.journal();
            *entry = Some(journal.enter(&request, &route, generation, id, &self.peer));
        }
        if reading && let Some(response) = public(&route, &path, &request) {
            return Ok(response);
        }
        drop(path);
        let front = table.front();
        let errand = match (&route.target, ticket) {
            (Target::Serving(upstream), Some(ticket)) => Errand {
                upstream: upstream.clone(),
                ticket,
                host,
                id: id.clone(),
                entry: entry.clone(),
                client_limit: front.read_timeout,
                tunnel_limit: shorter(front.idle_timeout, route.timeouts.idle),
                route,
            },
            (
                Target::Unavailable {
                    reason,
                    retry_after,
                },
                _,
            ) => {
                let worker = &route.worker;
                if is_page && let Some(page) = development::trouble(&table, worker.as_str()) {
                    // The page brings the element itself.
                    *tag = None;
                    return Ok(page);
                }
                let detail = format!("worker '{worker}' is not available: {reason}");
                let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail);
                return Err(refusal.retry_after(*retry_after));
            }
            _ if reading => return Err(Refusal::not_found()),
            _ => return Err(Refusal::read_only()),
        };
        drop(table);
        errand.ticket.begin();
        forward(self, errand, request).await
    }
}

/// The host the client asks for; a request without one, or with two, may mean another to the worker than to us.
fn host(request: &Request<Incoming>) -> Result<HeaderValue, Refusal> {
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
    let has_field = request.headers().contains_key(http::header::HOST);
    if request.version() < Version::HTTP_11 && !has_field && request.uri().authority().is_none() {
        return Ok(HeaderValue::from_static(""));
    }
    // An absolute target names the host, and the field must still be there.
    let host = headers::host(request.headers(), request.uri().authority());
    host.filter(|_| has_field || request.version() < Version::HTTP_11)
        .ok_or_else(|| {
            Refusal::bad_request("the request needs exactly one valid Host header field")
        })
}

/// The file that answers, if the path names one.
fn public(route: &Route, path: &str, request: &Request<Incoming>) -> Option<Response<Body>> {
    let public = route.public.as_deref()?;
    let rest = &path[route.path.prefix().len()..];
    match files::find(public, rest, route.assets) {
        Lookup::Found(found) => Some(found.respond(request.method(), request.headers())),
        Lookup::Directory if !path.starts_with("//") => {
            let uri = request.uri();
            let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
            let location = format!("{}/{query}", uri.path());
            let mut response = no_content();
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            // Directories come and go.
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            headers.insert(LOCATION, HeaderValue::from_str(&location).ok()?);
            Some(response)
        }
        _ => None,
    }
}

/// The server's own health: it serves, so the status is 200 whatever the workers are.
fn health(table: &Table) -> Response<Body> {
    let mut response = Response::new(Body::full(report::health(&table.published.table).into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The shorter of two limits of which zero is none.
fn shorter(a: std::time::Duration, b: std::time::Duration) -> std::time::Duration {
    match (a.is_zero(), b.is_zero()) {
        (true, _) => b,
        (_, true) => a,
        _ => a.min(b),
    }
}
