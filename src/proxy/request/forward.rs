//! A request on its way to a worker, and the head of the answer on its way back.

use crate::proxy::table::rules;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderValue, SET_COOKIE,
};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version, request};
use http_body::Body as _;
use tokio::time::Instant;
use tracing::warn;

use super::tunnel::{self, Switch};
use crate::proxy::downstream::interim::{Hints, InterimSink};
use crate::proxy::downstream::request_body::Inbound;
use crate::proxy::downstream::upload::{RequestBody, Upload, UploadError};
use crate::proxy::request::client::Client;
use crate::proxy::response::access::Entry;
use crate::proxy::response::body::Body;
use crate::proxy::response::relay::{Feed, Relay};
use crate::proxy::table::route::Route;
use crate::proxy::upstream::balance::Selection;
use crate::proxy::upstream::http1::{self, ExchangeError, ResponseError};
use crate::proxy::upstream::pool::{Content, Message, Upstream};
use crate::proxy::upstream::ticket::Ticket;
use crate::proxy::wire::deadline::Deadline;
use crate::proxy::wire::headers::{self, Forwarded};
use crate::proxy::wire::origin::Origin;
use crate::proxy::wire::pace::Pace;
use crate::proxy::wire::path;
use crate::proxy::wire::refusal::Refusal;
use crate::proxy::wire::timer::Timer;
use crate::route::Protocol;

/// What is known of a request when it is to go to a worker.
pub(crate) struct ForwardContext<'a> {
    pub(crate) route: Rc<Route>,
    pub(crate) upstream: Rc<Upstream>,
    pub(crate) host: HeaderValue,
    pub(crate) origin: Rc<Origin>,
    pub(crate) id: &'a HeaderValue,
    /// Where the request is noted, on a route with an access log.
    pub(crate) entry: Option<Rc<Entry>>,
    /// When all is to be over.
    pub(crate) deadline: Deadline,
    /// How slow the client may be in its body.
    pub(crate) client_pace: Pace,
    /// Longest silence of both ends of a tunnel.
    pub(crate) tunnel_limit: Duration,
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
    Broken(#[source] io::Error),
    #[error("it changed to another protocol without being asked")]
    Switched,
    #[error(transparent)]
    Malformed(ResponseError),
    #[error(transparent)]
    Client(UploadError),
}

/// Sends `request` to the worker and returns its answer, or the refusal that stands for it. The context stays where it is, and of the request
/// nothing is left while the worker answers: a share in its bytes would keep all of the buffer that they came in.
pub(crate) async fn forward(
    client: &Rc<Client>,
    context: &mut ForwardContext<'_>,
    mut ticket: Ticket,
    request: &mut Request<Inbound>,
) -> Result<Response<Body>, Refusal> {
    ticket.begin();
    let old = request.version() < Version::HTTP_11;
    let upgrade = (!old
        && context.upstream.protocol != Protocol::Http2
        && headers::wants_upgrade(request.headers())
        && request.body().is_end_stream())
    .then(|| Switch::of(request))
    .flatten();
    let sink = match request.extensions_mut().remove::<Hints>() {
        Some(hints) => Some(InterimSink::Http2(hints)),
        None => (!old).then(|| InterimSink::Http1(client.signals().interims())),
    };
    let (mut message, upload) = outbound(client, context, request, upgrade.is_some());
    *request.headers_mut() = HeaderMap::new();
    *request.uri_mut() = Uri::default();
    context.host = HeaderValue::from_static("");
    let mut timer = client.timer();
    let timeouts = context.route.timeouts;
    let answered = exchange(
        context,
        &mut ticket,
        sink.as_ref(),
        &mut message,
        upload.as_deref(),
        &mut timer,
    );
    let mut response = match answered.await {
        Ok(response) => response,
        Err(error) => return Err(refuse(context, &error)),
    };
    timer.stop();
    *response.version_mut() = Version::HTTP_11;
    if let Some(place) = &ticket.place
        && let Some(cookie) = place.cookie(context.origin.proto == "https")
    {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    let (parts, content) = response.into_parts();
    let body = match content {
        Content::Switched(worker_side) => {
            let Some(client_side) = upgrade else {
                return Err(refuse(context, &ForwardError::Switched));
            };
            client.keep(timer);
            client.tunnel(tunnel::run(
                client_side,
                worker_side,
                ticket,
                context.entry.take(),
                context.tunnel_limit,
            ));
            Body::empty()
        }
        Content::Whole(bytes, connection) => {
            client.keep(timer);
            if let Some(connection) = connection
                && upload.is_none_or(|upload| upload.is_whole())
            {
                context.upstream.put(connection);
            }
            match bytes.is_empty() {
                true => Body::empty(),
                false => Body::full(bytes),
            }
        }
        Content::Coming(coming) => {
            let is_stream = is_stream(&parts.headers);
            let until_close = old && !parts.headers.contains_key(CONTENT_LENGTH);
            let (limit, deadline) = match is_stream {
                true => (timeouts.idle, Deadline::default()),
                false => (timeouts.read, context.deadline),
            };
            Body::relay(Relay {
                feed: Feed::Coming(coming),
                upstream: context.upstream.clone(),
                ticket: Some(ticket),
                upload,
                timer,
                spare: client.spare(),
                limit,
                deadline,
                until_close: until_close.then(|| client.signals().clone()),
            })
        }
    };
    Ok(Response::from_parts(parts, body))
}

/// Makes the client's request the worker's.
fn outbound(
    client: &Client,
    context: &ForwardContext<'_>,
    request: &mut Request<Inbound>,
    upgrading: bool,
) -> (Message, Option<Rc<Upload>>) {
    let incoming = std::mem::replace(request.body_mut(), Inbound::Empty);
    let has_body = !incoming.is_end_stream();
    let speaks_http2 = context.upstream.protocol == Protocol::Http2;
    // Over HTTP/2 the worker has room for the beginning of a body in any case.
    let expects = has_body && request.version() >= Version::HTTP_11 && !speaks_http2;
    let stripped;
    let target = match context.route.stripped {
        0 => request.uri(),
        segments => {
            stripped = path::without(request.uri(), segments);
            &stripped
        }
    };
    let headers = request.headers();
    let waits = expects && headers.contains_key(EXPECT);
    let body = has_body.then(|| {
        RequestBody::streaming(
            incoming,
            pace(context, headers),
            context
                .route
                .rules
                .as_ref()
                .map_or(u64::MAX, |r| r.max_body),
            waits,
            context.route.settings.underscores_in_headers,
            client.signals(),
        )
    });
    let forwarded = Forwarded {
        origin: &context.origin,
        host: &context.host,
        prefix: &context.route.prefix,
        id: context.id,
        odd_names: context.route.settings.underscores_in_headers,
    };
    if speaks_http2 {
        let mut outbound = HeaderMap::with_capacity(headers.len() + 8);
        headers::to_worker(headers, &forwarded, upgrading, expects, |name, value| {
            outbound.append(name, value.clone());
        });
        let parts = http2_parts(request, target, outbound, &context.host);
        let (body, upload) = body.unzip();
        let body = body.unwrap_or(RequestBody::Empty);
        return (Message::Http2(Box::new(parts), body), upload);
    }
    let mut writer = http1::Writer::new(request.method().clone(), target);
    headers::to_worker(headers, &forwarded, upgrading, expects, |name, value| {
        writer.field(name, value);
    });
    match body {
        None => (Message::Http1(writer.finish()), None),
        Some((body, upload)) => {
            let request = writer.with_body(body, upload.clone());
            (Message::Http1(request), Some(upload))
        }
    }
}

/// How slow the client may be in its body. A call that goes on for as long as both sides like is a tunnel; only to a worker that speaks
/// HTTP/2 can it be one.
fn pace(context: &ForwardContext<'_>, headers: &HeaderMap) -> Pace {
    match context.upstream.protocol == Protocol::Http2 && is_stream(headers) {
        true => Pace {
            most: context.tunnel_limit,
            rate: 0,
        },
        false => context.client_pace,
    }
}

/// The head of a request over HTTP/2, which has the host in its target and no fields about the connection.
fn http2_parts(
    request: &Request<Inbound>,
    target: &Uri,
    mut headers: HeaderMap,
    host: &HeaderValue,
) -> request::Parts {
    headers.remove(CONNECTION);
    headers.remove(HOST);
    let mut parts = uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    // A client of HTTP/1.0 may have named none.
    let host = Authority::try_from(host.as_bytes());
    parts.authority = Some(host.unwrap_or(Authority::from_static("localhost")));
    let path = target.path_and_query().cloned();
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    let mut outbound = Request::new(());
    *outbound.method_mut() = request.method().clone();
    *outbound.version_mut() = Version::HTTP_2;
    *outbound.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *outbound.headers_mut() = headers;
    outbound.into_parts().0
}

/// Sends the request until it is answered, has failed, or must not be sent again.
async fn exchange(
    context: &mut ForwardContext<'_>,
    ticket: &mut Ticket,
    sink: Option<&InterimSink<'_>>,
    message: &mut Message,
    upload: Option<&Upload>,
    timer: &mut Timer,
) -> Result<Response<Content>, ForwardError> {
    let timeouts = context.route.timeouts;
    let deadline = context.deadline;
    let mut retries = context.route.retries;
    let mut kept = context.upstream.take();
    let since = Instant::now();
    let may_repeat = upload.is_none() && message.method().is_idempotent();
    // All tries together have the time of one.
    timer.stop();
    loop {
        let reused = kept.is_some();
        let connection = match kept.take() {
            Some(connection) => connection,
            None => {
                // On a further try, what is left of the time of all.
                let limit = deadline.cap(shorter(timeouts.write, timer.left()));
                let patient = ticket.place.as_ref().is_none_or(Selection::is_last);
                let connected = context.upstream.connect(
                    limit,
                    timeouts.write,
                    patient,
                    deadline,
                    &context.origin,
                );
                // Not a part of this future, which would be twice as large for what is seldom done.
                match Box::pin(connected).await {
                    Ok(connection) => connection,
                    Err(_) if deadline.is_over() => return Err(ForwardError::Late),
                    Err(error) => {
                        let place = ticket.place.as_mut();
                        let Some(other) = place.and_then(Selection::move_on) else {
                            return Err(ForwardError::Connect(error));
                        };
                        kept = other.take();
                        context.upstream = other;
                        continue;
                    }
                }
            }
        };
        let answer = pin!(connection.exchange(message, sink));
        let generation = &context.upstream.generation;
        let more = || generation.start_left(since.elapsed());
        let answer = within(answer, timer, timeouts.read, deadline, upload, more).await;
        let error = match answer {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => error,
            Err(()) if deadline.is_over() => return Err(ForwardError::Late),
            Err(()) => return Err(ForwardError::Silent(timeouts.read)),
        };
        if let Some(error) = upload.and_then(Upload::failure) {
            return Err(ForwardError::Client(error));
        }
        // A connection that stood unused may have been closed while the request was on its way into it; then the next one is fresh.
        let (error, may_repeat) = match error {
            ExchangeError::Client(error) => return Err(ForwardError::Client(error)),
            ExchangeError::Malformed(error) => return Err(ForwardError::Malformed(error)),
            // What stands between had to wait for the body, and then did not reach the worker.
            ExchangeError::Unsent(error) | ExchangeError::Unheard(error)
                if error.kind() == io::ErrorKind::NotConnected =>
            {
                return Err(ForwardError::Connect(error));
            }
            ExchangeError::Unsent(_) if reused => continue,
            ExchangeError::Unheard(_) if reused && may_repeat => continue,
            ExchangeError::Unsent(error) | ExchangeError::Unheard(error) => (error, may_repeat),
            ExchangeError::Broken(error) => (error, false),
        };
        let has_time = timer.left().is_none_or(|left| !left.is_zero());
        let is_late = http1::is_timeout(&error);
        if may_repeat && retries > 0 && has_time && !is_late {
            retries -= 1;
            continue;
        }
        return Err(match is_late {
            true => ForwardError::Stalled(timeouts.write),
            false => ForwardError::Broken(error),
        });
    }
}

/// Waits for the worker's response. Its time runs while the worker has the whole request; while the body is on its way, the body has
/// deadlines of its own. `more`: how much longer it may take because the worker's process is on its way up.
fn within<T>(
    mut answer: Pin<&mut impl Future<Output = T>>,
    timer: &mut Timer,
    limit: Duration,
    deadline: Deadline,
    upload: Option<&Upload>,
    more: impl Fn() -> Option<Duration>,
) -> impl Future<Output = Result<T, ()>> {
    poll_fn(move |cx| {
        loop {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            ready!(timer.poll(cx, deadline.cap(limit)));
            let now = Instant::now();
            match upload {
                _ if deadline.is_over() => return Poll::Ready(Err(())),
                Some(upload) if upload.outcome().is_none() => timer.start(deadline.cap(limit)),
                Some(upload) if upload.progress() + limit > now => {
                    timer.start(deadline.cap(upload.progress() + limit - now))
                }
                _ => match more() {
                    // Once it is up, it has the time of any other.
                    Some(left) => timer.start(deadline.cap(left.min(limit))),
                    None => return Poll::Ready(Err(())),
                },
            };
        }
    })
}

/// The refusal for a request that failed; what the operator should know is logged here, once.
#[cold]
fn refuse(context: &ForwardContext<'_>, error: &ForwardError) -> Refusal {
    let worker = &context.route.worker;
    let status = match error {
        ForwardError::Connect(_) => StatusCode::SERVICE_UNAVAILABLE,
        ForwardError::Silent(_) | ForwardError::Stalled(_) | ForwardError::Late => {
            StatusCode::GATEWAY_TIMEOUT
        }
        ForwardError::Broken(_) | ForwardError::Switched | ForwardError::Malformed(_) => {
            StatusCode::BAD_GATEWAY
        }
        ForwardError::Client(UploadError::Slow) => {
            return Refusal::new(StatusCode::REQUEST_TIMEOUT, error.to_string()).closing();
        }
        ForwardError::Client(UploadError::Long(most)) => return rules::too_large(*most),
        ForwardError::Client(UploadError::Torn | UploadError::Unwanted | UploadError::Stalled) => {
            return Refusal::bad_request(&error.to_string());
        }
    };
    let generation = &context.upstream.generation;
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
    let refusal = Refusal::by_worker(status, detail);
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

/// Whether silence is a part of the answer: it is one of events, or of calls that go on for as long as both sides like.
fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let begins = |kind: &[u8], with: &[u8]| {
        kind.get(..with.len())
            .is_some_and(|kind| kind.eq_ignore_ascii_case(with))
    };
    kind.is_some_and(|kind| begins(kind, b"text/event-stream") || begins(kind, b"application/grpc"))
}
