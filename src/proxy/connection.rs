//! One client's connection: its requests, one after the other.

use std::borrow::Cow;
use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tracing::debug;

use super::access::Entry;
use super::answers;
use super::body::Body;
use super::compression::Offer;
use super::crowd::Seat;
use super::development;
use super::files::{self, Lookup};
use super::flow::{self, Deadline};
use super::forward::{Errand, forward};
use super::generation::Ticket;
use super::headers::{self, Origin};
use super::http2;
use super::inbound::Inbound;
use super::lane::{Lane, Streaming};
use super::listener::Listener;
use super::pace::Pace;
use super::pages::{Form, Refusal};
use super::patience::Patience;
use super::preamble::{self, Proxied};
use super::precompressed;
use super::report;
use super::socket::{Signals, Socket};
use super::starting;
use super::stream::{self, Raw, Stream};
use super::table::{Route, Table, Target};
use crate::tls;

/// Below it who gives out certificates looks whether a host is whose it is said to be, without TLS (RFC 8555, 8.3).
const ACME_CHALLENGE: &str = "/.well-known/acme-challenge/";

/// A client at the door.
pub(super) struct Arrival {
    pub(super) stream: Raw,
    /// Where it came in.
    pub(super) listener: Arc<Listener>,
    /// Where it comes from; `None` behind a unix socket.
    pub(super) peer: Option<SocketAddr>,
    pub(super) signals: Arc<Signals>,
    /// Its place among all.
    pub(super) seat: Seat,
    /// What its thread calls it.
    pub(super) number: u64,
}

/// A client and what its requests have in common.
pub(super) struct Client {
    lane: Rc<Lane>,
    /// Where its requests come from, as long as no proxy says otherwise.
    origin: Rc<Origin>,
    /// It is a proxy whose word is believed.
    trusted: bool,
    /// Where its requests are sent that are to come with TLS: a port.
    redirect: Option<u16>,
    /// The certificate it was shown, where there are several.
    shown: Option<tls::Shown>,
    /// How slow it may be in taking an answer.
    write_pace: Pace,
    signals: Arc<Signals>,
    /// Requests so far.
    requests: Cell<u64>,
    /// A clock that requests hand on, one to the next.
    spare: Rc<Cell<Option<Patience>>>,
    _seat: Seat,
}

/// What is found out about a request on its way, for its answer.
#[derive(Default)]
struct Notes {
    /// Where it is noted, on a route with an access log.
    entry: Option<Rc<Entry>>,
    /// What is appended to a page in development.
    tag: Option<Bytes>,
    /// How the answer may be compressed.
    offer: Option<Offer>,
    /// The route, if it has pages of its own for errors.
    own: Option<Rc<Route>>,
}

/// Serves a client until it leaves, or `lane` stops.
pub(super) async fn serve(lane: Rc<Lane>, arrival: Arrival) {
    let address = preamble::client_of(arrival.peer);
    if let Err(error) = meet(lane, arrival).await {
        match address {
            Some(address) => debug!("connection of {address} ended: {error}"),
            None => debug!("connection of a client behind a socket ended: {error}"),
        }
    }
}

/// Finds out who it is and what it speaks.
async fn meet(lane: Rc<Lane>, arrival: Arrival) -> Result<(), Box<dyn Error>> {
    let Arrival {
        stream: mut raw,
        listener,
        mut peer,
        signals,
        mut seat,
        number,
    } = arrival;
    let table = lane.table();
    let front = table.front();
    let how = &listener.listen;
    let mut address = preamble::client_of(peer);
    let mut local = stream::local(&raw);
    let mut trusted = address.map_or(how.trusted, |address| front.trusts(address));
    if how.proxy_protocol {
        if !trusted {
            return Err(
                "it is not a trusted proxy, and only those may speak the PROXY protocol there"
                    .into(),
            );
        }
        let proxied = within(front.read_timeout, preamble::proxied(&mut raw)).await?;
        if let Some(Proxied { client, server }) = proxied {
            (peer, local) = (Some(client), Some(server));
            address = Some(client.ip());
            trusted = front.trusts(client.ip());
        }
    }
    if let Some(address) = address.filter(|_| !trusted)
        && let Err(full) = seat.is(address, front)
    {
        lane.complain(full, front);
        return Err("there are too many of its address".into());
    }
    let mut is_http2 = false;
    let mut shown = None;
    let stream = match table.published.tls.as_ref().filter(|_| how.tls) {
        Some(acceptor) => {
            let stream = within(front.read_timeout, acceptor.accept(raw)).await?;
            is_http2 = tls::is_http2(&stream);
            shown = acceptor.shown(&stream);
            Stream::Right(Box::new(stream))
        }
        None if how.tls => return Err("there is no certificate".into()),
        None => Stream::Left(raw),
    };
    let proto = if how.tls { "https" } else { "http" };
    let address = match address {
        Some(address) => HeaderValue::from_str(&address.to_string())?,
        None => HeaderValue::from_static(headers::UNKNOWN),
    };
    let client = Rc::new(Client {
        origin: Rc::new(Origin {
            way: address.clone(),
            client: address,
            client_port: peer.map(|peer| peer.port()),
            proto: HeaderValue::from_static(proto),
            is_told: false,
            local,
        }),
        trusted,
        redirect: how.redirect,
        shown,
        write_pace: Pace::writing(front),
        signals,
        requests: Cell::new(0),
        spare: Rc::default(),
        _seat: seat,
        lane,
    });
    let mut socket = Socket::new(stream, client.signals.clone(), front);
    // When the proxy stops it is not hyper that is told, which closes at once what is idle: the next request may be on its way.
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    client.lane.welcome(number, waker);
    if client.lane.is_stopping() {
        client.signals.part();
    }
    if front.http2_cleartext && !how.tls {
        let (has_preface, read) = preamble::has_preface(&mut socket).await?;
        socket.unread(read);
        is_http2 = has_preface;
    }
    if is_http2 {
        let server = table.server2.clone();
        drop(table);
        socket.multiplex();
        return Ok(http2::serve(client, socket, server).await?);
    }
    serve_http1(client, socket, table).await
}

/// Ends a step of the beginning that takes too long.
async fn within<T>(limit: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    if limit.is_zero() {
        return step.await;
    }
    match tokio::time::timeout(limit, step).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn serve_http1(
    client: Rc<Client>,
    socket: Socket,
    table: Rc<Table>,
) -> Result<(), Box<dyn Error>> {
    let service = service_fn(|request: Request<Incoming>| {
        let answering = client.signals.answering();
        let client = client.clone();
        let mut request = request.map(Inbound::Http1);
        async move {
            let mut response = client.answer(&mut request, None).await;
            if client.signals.interims().is_waiting() {
                client.signals.interims().empty().await;
            }
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
    Ok(connection.with_upgrades().await?)
}

impl Client {
    /// How slow it may be in taking an answer.
    pub(super) fn write_pace(&self) -> Pace {
        self.write_pace
    }

    /// A place for a request among many on the connection, if there is one left on this thread.
    pub(super) fn stream(&self) -> Option<Streaming> {
        self.lane.stream()
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

    /// Runs what outlives the connection's HTTP.
    pub(super) fn tunnel(&self, tunnel: impl Future<Output = ()> + 'static) {
        self.lane.tunnel(tunnel);
    }

    /// Answers one request, unless it has a flaw that was found beneath. It stays where it is, as in all that is called from here: a future has room for what it is given and again
    /// for what it works with, and that much memory would be written for each request.
    pub(super) async fn answer(
        self: &Rc<Self>,
        request: &mut Request<Inbound>,
        flaw: Option<(StatusCode, &'static str)>,
    ) -> Response<Body> {
        let id = match headers::request_id(request.headers()) {
            Some(id) => id.clone(),
            None => self.lane.request_id(),
        };
        // If the answer is ours.
        let form = Form::wanted(request.headers().get(ACCEPT));
        if !request.body().is_end_stream() {
            self.signals.set_unread(true);
        }
        let mut notes = Notes::default();
        let answered = match flaw {
            None => self.dispatch(request, &id, &mut notes).await,
            Some((status, detail)) => Err(Refusal::new(status, detail)),
        };
        let mut response = match answered {
            Ok(response) => response,
            Err(refusal) => answers::refusal(refusal, notes.own.as_deref(), form, &id),
        };
        if let Some(tag) = notes.tag {
            development::append(&mut response, tag);
        }
        if let Some(offer) = notes.offer {
            offer.apply(&mut response);
        }
        if let Some(entry) = notes.entry {
            entry.answered(response.status());
            response.body_mut().note(entry);
        }
        response.headers_mut().insert(headers::REQUEST_ID, id);
        response
    }

    async fn dispatch(
        self: &Rc<Self>,
        request: &mut Request<Inbound>,
        id: &HeaderValue,
        notes: &mut Notes,
    ) -> Result<Response<Body>, Refusal> {
        self.requests.set(self.requests.get() + 1);
        if let Some(flaw) = self.signals.flaw(self.requests.get()) {
            // Whatever else comes is not read as a request.
            self.signals.set_unread(true);
            let (status, detail) = flaw.refusal();
            return Err(Refusal::new(status, detail).closing());
        }
        let mut table = self.lane.table();
        if request.headers().len() > table.front().max_headers {
            return Err(Refusal::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the request has too many header fields",
            )
            .closing());
        }
        let mut host = host(request)?;
        let mut origin = self.origin.clone();
        if self.trusted {
            let trusts = |address| table.front().trusts(address);
            let (told, asked) = origin.behind(request.headers(), trusts);
            origin = Rc::new(told);
            host = asked.unwrap_or(host);
        } else if let Some(shown) = &self.shown
            && !shown.is_for(host.to_str().unwrap_or_default())
        {
            return Err(Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                "this connection was made to another host, whose certificate is not for this one",
            ));
        }
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        // A share in the target's bytes, by which the path is still there when the request is not ours any more.
        let target = request.uri().clone();
        let path = match target.path() {
            "*" if request.method() == Method::OPTIONS => return Ok(no_content()),
            path if path.starts_with('/') => super::path::decode(path),
            _ => return Err(Refusal::bad_request("the request's target is not a path")),
        };
        let path = path.map_err(|error| Refusal::bad_request(&error.to_string()))?;
        if path == table.front().health_path.as_str() {
            return match reading {
                true => Ok(health(&table)),
                false => Err(Refusal::read_only()),
            };
        }
        if let Some(port) = self.redirect
            && origin.proto == "http"
            && !path.starts_with(ACME_CHALLENGE)
        {
            return Ok(to_https(request, &host, port));
        }
        let mut is_page = false;
        if table.development().is_some() {
            if let Some(response) = development::answer(&self.lane, &path, request) {
                return Ok(response);
            }
            is_page = development::is_wanted(request);
            if is_page {
                table = Box::pin(development::hold(&self.lane, &host, &path)).await;
            }
        }
        let (mut route, mut ticket) = self.lane.pick(&table, &host, &path);
        // A page has waited already. What comes of the time a request has is over then.
        let mut since = None;
        if !is_page && route.as_deref().and_then(starting::wait_of).is_some() {
            since = Some(Instant::now());
            table = Box::pin(starting::wait(&self.lane, &host, &path)).await;
            (route, ticket) = self.lane.pick(&table, &host, &path);
        }
        let Some(mut route) = route else {
            return Err(Refusal::not_found());
        };
        let respelled = match &path {
            Cow::Owned(_) => super::path::respell(request.uri(), route.path.prefix()),
            Cow::Borrowed(_) => None,
        };
        if let Some(uri) = respelled {
            *request.uri_mut() = uri;
        }
        if route.compression {
            notes.offer = Offer::of(request);
        }
        if !route.error_pages.is_empty() {
            notes.own = Some(route.clone());
        }
        if let Some(state) = route.state.as_ref().filter(|_| is_page) {
            notes.tag = Some(state.tag());
            development::ask_whole(request.headers_mut());
        }
        if route.access_log {
            let generation = ticket.as_ref().map(Ticket::number);
            let journal = self.lane.journal();
            notes.entry =
                Some(journal.enter(request, &route, generation, id, &origin.client, &host));
        }
        if !route.redirects.is_empty()
            && let Some(response) = answers::redirect(&route, &path, request.uri())
        {
            return Ok(response);
        }
        if let Some(rules) = &route.rules {
            rules.admit(request.body())?;
        }
        if reading && let Some(response) = public(&route, &path, request, &mut notes.offer) {
            return Ok(response);
        }
        let mut deadline = Deadline::default();
        if let Some(rules) = &route.rules {
            deadline = rules.deadline(since);
            if rules.have_gate() {
                let entered = flow::enter(&self.lane, &host, &path, deadline);
                (route, ticket) = Box::pin(entered).await?;
                if let Some(entry) = &notes.entry {
                    entry.goes_to(ticket.as_ref().map(Ticket::number));
                }
            }
        }
        let front = table.front();
        let way = ticket.as_mut();
        let way = way.and_then(|ticket| route.target.way(ticket, request.headers()));
        let (mut errand, ticket) = match (&route.target, way.zip(ticket)) {
            (_, Some((upstream, ticket))) => {
                let errand = Errand {
                    upstream,
                    host,
                    origin,
                    id,
                    entry: notes.entry.clone(),
                    deadline,
                    client_pace: Pace::reading(front),
                    tunnel_limit: shorter(front.idle_timeout, route.timeouts.idle),
                    route,
                };
                (errand, ticket)
            }
            (
                Target::Unavailable {
                    reason,
                    retry_after,
                    ..
                },
                _,
            ) => {
                let worker = &route.worker;
                if is_page && let Some(page) = development::trouble(&table, worker.as_str()) {
                    // The page brings the element itself.
                    notes.tag = None;
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
        drop(path);
        drop(target);
        forward(self, &mut errand, ticket, request).await
    }
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
    headers::host(request.headers(), authority)
        .filter(|_| may_lack_field() || has_field())
        .ok_or_else(|| {
            Refusal::bad_request(
                "the request needs exactly one valid Host header field, and its target no other host",
            )
        })
}

/// The file that answers, if the path names one.
fn public<B>(
    route: &Route,
    path: &str,
    request: &Request<B>,
    offer: &mut Option<Offer>,
) -> Option<Response<Body>> {
    let public = route.public.as_ref()?;
    let rest = &path[route.path.prefix().len()..];
    match files::find(public, rest, request.uri().path(), route.assets) {
        Lookup::Found(found) => {
            let found = precompressed::chosen(public, found, request.headers());
            if let Some(offer) = offer {
                offer.for_file();
            }
            Some(found.respond(request.method(), request.headers(), offer.as_ref()))
        }
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
#[cold]
fn health(table: &Table) -> Response<Body> {
    let mut response = Response::new(Body::full(report::health(&table.published.table).into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
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
fn shorter(a: std::time::Duration, b: std::time::Duration) -> std::time::Duration {
    match (a.is_zero(), b.is_zero()) {
        (true, _) => b,
        (_, true) => a,
        _ => a.min(b),
    }
}
