//! A request on its way to a worker, and the head of the answer on its way back.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::warn;

use super::access::Entry;
use super::body::{Body, Relay, source};
use super::connection::Client;
use super::generation::Ticket;
use super::headers::{self, Forwarded};
use super::pages::Refusal;
use super::patience::Patience;
use super::pool::{Connection, Lease, Upstream};
use super::strict;
use super::table::Route;
use super::tunnel;
use super::upload::{Gate, RequestBody, Upload, UploadError};

/// A request with its place in the count of the generation it goes to.
pub(super) struct Errand {
    pub(super) route: Rc<Route>,
    pub(super) upstream: Rc<Upstream>,
    pub(super) ticket: Ticket,
    pub(super) host: HeaderValue,
    pub(super) id: HeaderValue,
    /// Where the request is noted, on a route with an access log.
    pub(super) entry: Option<Rc<Entry>>,
    /// Longest pause of the client in its body.
    pub(super) client_limit: Duration,
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

/// Sends `request` to the worker and returns its answer, or the refusal that stands for it.
pub(super) async fn forward(
    client: &Rc<Client>,
    errand: Errand,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let upgrade = (request.version() == Version::HTTP_11
        && headers::wants_upgrade(request.headers())
        && request.body().is_end_stream())
    .then(|| hyper::upgrade::on(&mut request));
    let old = request.version() < Version::HTTP_11;
    let (request, upload) = outbound(client, &errand, request, upgrade.is_some());
    let mut patience = client.patience();
    let timeouts = errand.route.timeouts;
    let mut fields = client.fields();
    let outcome = exchange(
        &errand,
        request,
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
    let until_close = old && !parts.headers.contains_key(CONTENT_LENGTH);
    let body = Body::relay(Relay {
        incoming,
        held: Some((lease, errand.ticket)),
        upload,
        patience,
        spare: client.spare(),
        limit: if is_event_stream(&parts.headers) {
            timeouts.idle
        } else {
            timeouts.read
        },
        until_close: until_close.then(|| client.signals().clone()),
    });
    Ok(Response::from_parts(parts, body))
}

/// Makes the client's request the worker's.
fn outbound(
    client: &Client,
    errand: &Errand,
    request: Request<Incoming>,
    upgrading: bool,
) -> (Request<RequestBody>, Option<Rc<Upload>>) {
    let (mut parts, incoming) = request.into_parts();
    let forwarded = Forwarded {
        peer: client.peer(),
        host: errand.host.clone(),
        prefix: &errand.route.prefix,
        id: &errand.id,
    };
    headers::to_worker(&mut parts.headers, forwarded, upgrading);
    let mut gate = None;
    let (body, upload) = if incoming.is_end_stream() {
        parts.headers.remove(EXPECT);
        (RequestBody::Empty, None)
    } else {
        if parts.version < Version::HTTP_11 {
            parts.headers.remove(EXPECT);
        } else if parts.headers.contains_key(EXPECT) {
            gate = Some(Arc::new(Gate::default()));
        }
        let (body, upload) = RequestBody::streaming(
            incoming,
            errand.client_limit,
            gate.clone(),
            client.signals(),
        );
        if !parts.headers.contains_key(CONTENT_LENGTH) {
            // hyper would take it for granted that a GET has no body.
            let chunked = HeaderValue::from_static("chunked");
            parts.headers.insert(TRANSFER_ENCODING, chunked);
        }
        (body, Some(upload))
    };
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.headers_mut() = parts.headers;
    *request.uri_mut() = origin_form(parts.uri);
    if let Some(gate) = gate {
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                gate.open();
            }
        });
    }
    (request, upload)
}

/// The request's target as an origin wants it, also when the client took us for a proxy of its own.
fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    let path = uri.into_parts().path_and_query;
    Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
}

/// Sends the request until it is answered, has failed, or must not be sent again.
async fn exchange(
    errand: &Errand,
    mut request: Request<RequestBody>,
    upload: Option<&Upload>,
    patience: &mut Patience,
    fields: &mut Fields,
) -> Result<(Response<Incoming>, Connection), ForwardError> {
    let (upstream, timeouts) = (&errand.upstream, errand.route.timeouts);
    let mut kept = upstream.take();
    loop {
        let reused = kept.is_some();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => {
                let connected = upstream.connect(timeouts.write).await;
                connected.map_err(ForwardError::Connect)?
            }
        };
        let copy = if reused && upload.is_none() && request.method().is_idempotent() {
            Some(Copy::of(&request, fields))
        } else {
            None
        };
        let heard = connection.heard();
        let sent = connection.sender.try_send_request(request);
        let Ok(answer) = within(sent, patience, timeouts.read, upload).await else {
            return Err(ForwardError::Silent(timeouts.read));
        };
        let mut error = match answer {
            Ok(response) => return Ok((response, connection)),
            Err(error) => error,
        };
        if let Some(Err(error)) = upload.and_then(Upload::outcome) {
            return Err(ForwardError::Client(error));
        }
        // A connection that stood unused may have been closed while the request was on its way into it; then the next one is fresh.
        let again = match (error.take_message(), copy) {
            (Some(unsent), _) => Some(unsent),
            (None, Some(copy)) if connection.heard() == heard => Some(copy.into_request()),
            _ => None,
        };
        match again {
            Some(again) if reused => request = again,
            _ if is_timeout(error.error()) => return Err(ForwardError::Stalled(timeouts.write)),
            _ => return Err(ForwardError::Broken(source(error.error()))),
        }
    }
}

/// Waits for the worker's answer. Its time runs while the worker has the whole request; while the body is on its way, the body has
/// deadlines of its own.
async fn within<T>(
    answer: impl Future<Output = T>,
    patience: &mut Patience,
    limit: Duration,
    upload: Option<&Upload>,
) -> Result<T, ()> {
    let mut answer = pin!(answer);
    patience.stop();
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            ready!(patience.poll(cx, limit));
            match upload {
                Some(upload) if upload.outcome().is_none() => patience.start(limit),
                Some(upload) if upload.progress() + limit > Instant::now() => {
                    patience.start_at(upload.progress(), limit)
                }
                _ => return Poll::Ready(Err(())),
            };
        }
    })
    .await
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
fn refuse(errand: &Errand, error: &ForwardError) -> Refusal {
    let worker = &errand.route.worker;
    let status = match error {
        ForwardError::Connect(_) => StatusCode::SERVICE_UNAVAILABLE,
        ForwardError::Silent(_) | ForwardError::Stalled(_) => StatusCode::GATEWAY_TIMEOUT,
        ForwardError::Broken(_) | ForwardError::Switched | ForwardError::Ambiguous(_) => {
            StatusCode::BAD_GATEWAY
        }
        ForwardError::Client(UploadError::Slow) => {
            return Refusal::new(StatusCode::REQUEST_TIMEOUT, error.to_string()).closing();
        }
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

fn is_switch(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

fn is_unasked(response: &Response<Incoming>, asked: bool) -> bool {
    is_switch(response) && !asked
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| {
        kind.len() >= 17 && kind[..17].eq_ignore_ascii_case(b"text/event-stream")
    })
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
