//! A request on its way to a worker, and the head of the answer on its way back.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    SET_COOKIE, TRANSFER_ENCODING,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::warn;

use super::access::Entry;
use super::body::{Body, Relay, source};
use super::connection::Client;
use super::flow::{self, Deadline};
use super::generation::Ticket;
use super::headers::{self, Forwarded, Origin};
use super::http2::Hints;
use super::inbound::Inbound;
use super::interim::Hearer;
use super::pace::Pace;
use super::pages::Refusal;
use super::path;
use super::patience::Patience;
use super::pool::{Connection, Lease, Upstream};
use super::several::Place;
use super::strict;
use super::table::Route;
use super::tunnel::{self, Switch};
use super::upload::{Gate, RequestBody, Upload, UploadError};
use crate::route::Protocol;

/// A request with its place in the count of the generation it goes to.
pub(super) struct Errand<'a> {
    pub(super) route: Rc<Route>,
    pub(super) upstream: Rc<Upstream>,
    pub(super) ticket: Ticket,
    pub(super) host: HeaderValue,
    pub(super) origin: Rc<Origin>,
    pub(super) id: &'a HeaderValue,
    /// Where the request is noted, on a route with an access log.
    pub(super) entry: Option<Rc<Entry>>,
    /// When all is to be over.
    pub(super) deadline: Deadline,
    /// How slow the client may be in its body.
    pub(super) client_pace: Pace,
    /// Longest silence of both ends of a tunnel.
    pub(super) tunnel_limit: Duration,
}

/// Why no answer came from a worker.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("it can not be reached ({0})")]
    Connect(#[source] io::Error),
    #[error("it did not answer within {0:?}")]
    Silent(Duration),
    #[error("it did not take the request's body for {0:?}")]
    Stalled(Duration),
    #[error("it did not answer in the time a request has")]
    Late,
    #[error("the connection broke before its answer ({0})")]
    Broken(String),
    #[error("it changed to another protocol without being asked")]
    Switched,
    #[error("{0}")]
    Ambiguous(&'static str),
    #[error(transparent)]
    Client(UploadError),
}

/// A request that may be sent a second time: it has no body, and its meaning does not change when it is done twice.
struct Copy<'a> {
    method: Method,
    uri: Uri,
    fields: &'a mut Fields,
}

/// Header fields in a row: all that a copy needs of a map, and cheap to fill again for the next request.
pub(super) type Fields = Vec<(HeaderName, HeaderValue)>;

/// Sends `request` to the worker and returns its answer, or the refusal that stands for it. What comes before the worker is asked is
/// done at once: only what is known then is kept while it answers.
pub(super) fn forward<'a>(
    client: &'a Rc<Client>,
    mut errand: Errand<'a>,
    request: &mut Request<Inbound>,
) -> impl Future<Output = Result<Response<Body>, Refusal>> + use<'a> {
    errand.ticket.begin();
    let speaks_http2 = errand.upstream.protocol == Protocol::Http2;
    let upgrade = (request.version() >= Version::HTTP_11
        && !speaks_http2
        && headers::wants_upgrade(request.headers())
        && request.body().is_end_stream())
    .then(|| Switch::of(request));
    let old = request.version() < Version::HTTP_11;
    let hearer = match request.extensions_mut().remove::<Hints>() {
        Some(hints) => Some(Hearer::Http2(hints)),
        None => (!old).then(|| Hearer::Http1(client.signals().clone())),
    };
    let (outbound, upload) = outbound(client, &errand, request, upgrade.is_some());
    async move {
        let mut patience = client.patience();
        let timeouts = errand.route.timeouts;
        let mut fields = client.fields();
        let outcome = exchange(
            &mut errand,
            hearer.as_ref(),
            outbound,
            upload.as_deref(),
            &mut patience,
            &mut fields,
        )
        .await;
        client.keep_fields(fields);
        let (mut response, connection) = match outcome {
            Ok((response, _)) if is_unasked(&response, upgrade.is_some()) => {
                return Err(refuse(&errand, &ForwardError::Switched));
            }
            Ok(answered) => match strict::answer(answered.0.headers()) {
                Ok(()) => answered,
                Err(what) => return Err(refuse(&errand, &ForwardError::Ambiguous(what))),
            },
            Err(error) => return Err(refuse(&errand, &error)),
        };
        *response.version_mut() = Version::HTTP_11;
        if let Some(place) = &errand.ticket.place
            && let Some(cookie) = place.cookie(errand.origin.proto == "https")
        {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        if let Some(client_side) = upgrade.filter(|_| is_switch(&response)) {
            let worker_side = hyper::upgrade::on(&mut response);
            headers::to_client(response.headers_mut(), true);
            client.tunnel(tunnel::run(
                client_side,
                worker_side,
                (connection, errand.ticket),
                errand.entry,
                errand.tunnel_limit,
            ));
            return Ok(response.map(|_| Body::empty()));
        }
        headers::to_client(response.headers_mut(), false);
        let (parts, incoming) = response.into_parts();
        let lease = Lease {
            connection,
            upstream: errand.upstream,
        };
        let whole = |upload: &Rc<Upload>| upload.outcome() == Some(Ok(()));
        if incoming.is_end_stream() {
            patience.stop();
            client.keep(patience);
            if upload.as_ref().is_none_or(whole) {
                lease.give_back();
            }
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        patience.stop();
        let is_stream = is_stream(&parts.headers);
        let until_close = old && !parts.headers.contains_key(CONTENT_LENGTH);
        let body = Body::relay(Relay {
            incoming,
            held: Some((lease, errand.ticket)),
            upload,
            patience,
            spare: client.spare(),
            limit: if is_stream {
                timeouts.idle
            } else {
                timeouts.read
            },
            deadline: if is_stream {
                Deadline::default()
            } else {
                errand.deadline
            },
            until_close: until_close.then(|| client.signals().clone()),
        });
        Ok(Response::from_parts(parts, body))
    }
}

/// Makes the client's request the worker's.
fn outbound(
    client: &Client,
    errand: &Errand<'_>,
    request: &mut Request<Inbound>,
    upgrading: bool,
) -> (Request<RequestBody>, Option<Rc<Upload>>) {
    let incoming = std::mem::replace(request.body_mut(), Inbound::Empty);
    let version = request.version();
    let mut outbound = Request::new(RequestBody::Empty);
    *outbound.method_mut() = std::mem::take(request.method_mut());
    *outbound.headers_mut() = std::mem::take(request.headers_mut());
    let headers = outbound.headers_mut();
    let forwarded = Forwarded {
        origin: &errand.origin,
        host: errand.host.clone(),
        prefix: &errand.route.prefix,
        id: errand.id,
    };
    headers::to_worker(headers, forwarded, upgrading);
    let mut gate = None;
    let mut upload = None;
    if incoming.is_end_stream() {
        headers.remove(EXPECT);
    } else {
        // Over HTTP/2 the worker has room for the beginning of a body in any case.
        if version < Version::HTTP_11 || errand.upstream.protocol == Protocol::Http2 {
            headers.remove(EXPECT);
        } else if headers.contains_key(EXPECT) {
            gate = Some(Arc::new(Gate::default()));
        }
        if !headers.contains_key(CONTENT_LENGTH) && errand.upstream.protocol != Protocol::Http2 {
            // hyper would take it for granted that a GET has no body.
            let chunked = HeaderValue::from_static("chunked");
            headers.insert(TRANSFER_ENCODING, chunked);
        }
        let (body, streaming) = RequestBody::streaming(
            incoming,
            pace(errand, headers),
            errand.route.rules.as_ref().map_or(u64::MAX, |r| r.max_body),
            gate.clone(),
            client.signals(),
        );
        *outbound.body_mut() = body;
        upload = Some(streaming);
    }
    let uri = origin_form(std::mem::take(request.uri_mut()));
    *outbound.uri_mut() = match errand.route.stripped {
        0 => uri,
        segments => path::without(uri, segments),
    };
    if errand.upstream.protocol == Protocol::Http2 {
        into_http2(&mut outbound, &errand.host);
    }
    if let Some(gate) = gate {
        hyper::ext::on_informational(&mut outbound, move |response| {
            if response.status() == StatusCode::CONTINUE {
                gate.open();
            }
        });
    }
    (outbound, upload)
}

/// How slow the client may be in its body. A call that goes on for as long as both sides like is a tunnel; only to a worker that speaks
/// HTTP/2 can it be one.
fn pace(errand: &Errand<'_>, headers: &HeaderMap) -> Pace {
    match errand.upstream.protocol == Protocol::Http2 && is_stream(headers) {
        true => Pace {
            most: errand.tunnel_limit,
            rate: 0,
        },
        false => errand.client_pace,
    }
}

/// The request's target as an origin wants it, also when the client took us for a proxy of its own.
fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    let path = uri.into_parts().path_and_query;
    Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
}

/// Makes a request one of HTTP/2, which has the host in its target and no fields about the connection.
fn into_http2(request: &mut Request<RequestBody>, host: &HeaderValue) {
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.remove(HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    // A client of HTTP/1.0 may have named none.
    let host = Authority::try_from(host.as_bytes());
    parts.authority = Some(host.unwrap_or(Authority::from_static("localhost")));
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// Sends the request until it is answered, has failed, or must not be sent again. Not an `async fn`, whose future would keep the request
/// twice: once as it was given, and once to send it.
fn exchange(
    errand: &mut Errand<'_>,
    audience: Option<&Hearer>,
    mut request: Request<RequestBody>,
    upload: Option<&Upload>,
    patience: &mut Patience,
    fields: &mut Fields,
) -> impl Future<Output = Result<(Response<Incoming>, Connection), ForwardError>> {
    let timeouts = errand.route.timeouts;
    let deadline = errand.deadline;
    let mut retries = errand.route.retries;
    let mut kept = errand.upstream.take();
    // All tries together have the time of one.
    patience.stop();
    async move {
        loop {
            let reused = kept.is_some();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => {
                    // On a further try, what is left of the time of all.
                    let limit = deadline.cap(shorter(timeouts.write, patience.left()));
                    let patient = errand.ticket.place.as_ref().is_none_or(Place::is_last);
                    let connected = errand.upstream.connect(limit, timeouts.write, patient);
                    // Not a part of this future, which would be twice as large for what is seldom done.
                    match Box::pin(connected).await {
                        Ok(connection) => connection,
                        Err(_) if deadline.is_over() => return Err(ForwardError::Late),
                        Err(error) => {
                            let place = errand.ticket.place.as_mut();
                            let Some(other) = place.and_then(Place::move_on) else {
                                return Err(ForwardError::Connect(error));
                            };
                            kept = other.take();
                            errand.upstream = other;
                            continue;
                        }
                    }
                }
            };
            let may_repeat = upload.is_none() && request.method().is_idempotent();
            let copy = if may_repeat && (reused || retries > 0) {
                Some(Copy::of(&request, fields))
            } else {
                None
            };
            let heard = connection.heard();
            if let Some(hearer) = audience {
                connection.audience.enter(hearer);
            }
            let mut sent = pin!(connection.send(request));
            let answer = within(sent.as_mut(), patience, timeouts.read, deadline, upload);
            let Ok(answer) = answer.await else {
                return Err(match deadline.is_over() {
                    true => ForwardError::Late,
                    false => ForwardError::Silent(timeouts.read),
                });
            };
            if connection.audience.is_there() {
                // Whatever the ear has made of it, nothing comes before an answer that has come.
                connection.audience.leave();
            }
            let mut error = match answer {
                Ok(response) => return Ok((response, connection)),
                Err(error) => error,
            };
            if let Some(Err(error)) = upload.and_then(Upload::outcome) {
                return Err(ForwardError::Client(error));
            }
            let has_time = patience.left().is_none_or(|left| !left.is_zero());
            // A connection that stood unused may have been closed while the request was on its way into it; then the next one is fresh.
            let again = match (error.take_message(), copy) {
                (Some(unsent), _) => Some(unsent),
                (None, Some(copy)) if connection.heard() == heard => Some(copy.into_request()),
                _ => None,
            };
            match again {
                Some(again) if reused => request = again,
                Some(again)
                    if may_repeat && retries > 0 && has_time && !is_timeout(error.error()) =>
                {
                    retries -= 1;
                    request = again;
                }
                _ if is_timeout(error.error()) => {
                    return Err(ForwardError::Stalled(timeouts.write));
                }
                _ => return Err(ForwardError::Broken(source(error.error()))),
            }
        }
    }
}

/// Waits for the worker's answer. Its time runs while the worker has the whole request; while the body is on its way, the body has
/// deadlines of its own.
fn within<T>(
    mut answer: Pin<&mut impl Future<Output = T>>,
    patience: &mut Patience,
    limit: Duration,
    deadline: Deadline,
    upload: Option<&Upload>,
) -> impl Future<Output = Result<T, ()>> {
    poll_fn(move |cx| {
        loop {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            ready!(patience.poll(cx, deadline.cap(limit)));
            let now = Instant::now();
            match upload {
                _ if deadline.is_over() => return Poll::Ready(Err(())),
                Some(upload) if upload.outcome().is_none() => patience.start(deadline.cap(limit)),
                Some(upload) if upload.progress() + limit > now => {
                    patience.start(deadline.cap(upload.progress() + limit - now))
                }
                _ => return Poll::Ready(Err(())),
            };
        }
    })
}

impl<'a> Copy<'a> {
    fn of(request: &Request<RequestBody>, fields: &'a mut Fields) -> Self {
        fields.clear();
        let original = request.headers().iter();
        fields.extend(original.map(|(name, value)| (name.clone(), value.clone())));
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            fields,
        }
    }

    fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        let headers = request.headers_mut();
        headers.reserve(self.fields.len());
        for (name, value) in self.fields.drain(..) {
            headers.append(name, value);
        }
        request
    }
}

/// The answer to the client for an errand that failed; what the operator should know is logged here, once.
#[cold]
fn refuse(errand: &Errand<'_>, error: &ForwardError) -> Refusal {
    let worker = &errand.route.worker;
    let status = match error {
        ForwardError::Connect(_) => StatusCode::SERVICE_UNAVAILABLE,
        ForwardError::Silent(_) | ForwardError::Stalled(_) | ForwardError::Late => {
            StatusCode::GATEWAY_TIMEOUT
        }
        ForwardError::Broken(_) | ForwardError::Switched | ForwardError::Ambiguous(_) => {
            StatusCode::BAD_GATEWAY
        }
        ForwardError::Client(UploadError::Slow) => {
            return Refusal::new(StatusCode::REQUEST_TIMEOUT, error.to_string()).closing();
        }
        ForwardError::Client(UploadError::Long(most)) => return flow::too_large(*most),
        ForwardError::Client(UploadError::Torn) => return Refusal::bad_request(&error.to_string()),
    };
    let generation = &errand.upstream.generation;
    generation.complain(|| {
        warn!(
            tq.worker = %worker,
            tq.generation = generation.instance.generation.0,
            "worker '{worker}' did not answer a request: {error}; the client got {}",
            status.as_u16(),
        );
    });
    let detail = match error {
        ForwardError::Connect(_) => format!("worker '{worker}' can not be reached"),
        ForwardError::Broken(_) => {
            format!("worker '{worker}' broke the connection before its answer")
        }
        other => format!("worker '{worker}' failed: {other}"),
    };
    let refusal = Refusal::new(status, detail);
    match error {
        ForwardError::Connect(_) => refusal.retry_after(Some(1)),
        _ => refusal,
    }
}

/// The limit, where zero is none, or what is left if that is shorter.
fn shorter(limit: Duration, left: Option<Duration>) -> Duration {
    let Some(left) = left else {
        return limit;
    };
    let left = left.max(Duration::from_millis(1));
    match limit.is_zero() {
        true => left,
        false => limit.min(left),
    }
}

fn is_switch(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

fn is_unasked(response: &Response<Incoming>, asked: bool) -> bool {
    is_switch(response) && !asked
}

/// Whether silence is a part of the answer: it is one of events, or of calls that go on for as long as both sides like.
fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let begins = |kind: &[u8], with: &[u8]| {
        kind.get(..with.len())
            .is_some_and(|kind| kind.eq_ignore_ascii_case(with))
    };
    kind.is_some_and(|kind| begins(kind, b"text/event-stream") || begins(kind, b"application/grpc"))
}

fn is_timeout(error: &hyper::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::TimedOut;
        }
        cause = error.source();
    }
    false
}
