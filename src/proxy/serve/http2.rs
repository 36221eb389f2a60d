//! A client that speaks HTTP/2 (RFC 9113): many requests at a time on one connection.
//!
//! Over h2 itself and not hyper: interim answers, a deadline for each stream that the client does not read, and a count of requests
//! that it takes back are not to be had there.
//!
//! | file | what it is for |
//! |---|---|
//! | `filter` | between the client and h2: a malformed request costs its own stream |
//! | `rules` | what is malformed |
//! | `hpack`, `huffman` | compressed fields, decoded to be judged |
//! | `fuzzed` | what must hold of any of it; not in the server |

mod filter;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzed;
mod hpack;
mod huffman;
mod rules;

use crate::proxy::table::builders::Http2;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, DATE, HeaderMap, HeaderName, HeaderValue, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::debug;

use self::filter::Filter;
use self::rules::Malformed;
use crate::proxy::downstream::h2_io::H2Io;
use crate::proxy::downstream::interim::Hints;
use crate::proxy::downstream::request_body::Inbound;
use crate::proxy::downstream::socket::Socket;
use crate::proxy::request::client::Client;
use crate::proxy::request::respond;
use crate::proxy::request::tunnel::Switch;
use crate::proxy::response::body::Body;
use crate::proxy::shard::Streaming;
use crate::proxy::wire::headers::REQUEST_ID;
use crate::proxy::wire::pace::{Pace, RateBudget};

/// Requests that a client may take back in a row, and how many more it may with each second. Each has cost a worker some work
/// (CVE-2023-44487); a browser takes back those of a page that is left.
const RESETS_MAX: f64 = 200.0;
const RESETS_A_SECOND: f64 = 20.0;

/// Fields that a WebSocket's handshake has over HTTP/1.1 alone (RFC 8441, 5).
const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// How often a client may still take a request back.
struct Resets {
    left: f64,
    since: Instant,
}

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With an answer, or with our own word that there is none.
    Answered,
    /// The client took the request back.
    Reset,
}

/// Serves a client until it leaves, or the proxy stops and its requests have ended.
pub(crate) async fn serve(
    client: Rc<Client>,
    socket: Socket,
    server: Http2,
) -> Result<(), h2::Error> {
    let (socket, findings) = Filter::new(socket, server.room as usize);
    let mut connection = server.builder.handshake::<_, Bytes>(socket).await?;
    let (mut parting, mut ended) = (false, false);
    let mut streams = FuturesUnordered::new();
    let mut resets = Resets::new();
    poll_fn(|cx| {
        loop {
            if !parting && client.signals().is_parting() {
                parting = true;
                // The client hears which of its requests will be answered, and brings others elsewhere: none is lost.
                connection.graceful_shutdown();
            }
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    let malformed = findings.of(respond.stream_id().as_u32());
                    match client.stream() {
                        Some(place) => {
                            let client = client.clone();
                            streams.push(serve_stream(client, request, respond, place, malformed));
                        }
                        // The client may send it again (RFC 9113, 8.7).
                        None => respond.send_reset(Reason::REFUSED_STREAM),
                    }
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {}
            }
            if let Some(reason) = findings.end().filter(|_| !ended) {
                ended = true;
                debug!("a client breaks the rules of frames, ending its connection: {reason}");
                connection.abrupt_shutdown(reason);
                continue;
            }
            match streams.poll_next_unpin(cx) {
                Poll::Ready(Some(End::Reset)) if !resets.pass() => {
                    debug!("a client takes back too many requests, ending its connection");
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                Poll::Ready(Some(_)) => {}
                // What they have sent wakes the connection.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

impl Resets {
    fn new() -> Self {
        Self {
            left: RESETS_MAX,
            since: Instant::now(),
        }
    }

    /// Counts one; whether it is one that may be.
    fn pass(&mut self) -> bool {
        let earned = self.since.elapsed().as_secs_f64() * RESETS_A_SECOND;
        self.since = Instant::now();
        self.left = (self.left + earned).min(RESETS_MAX) - 1.0;
        self.left >= 0.0
    }
}

/// One request and its answer.
async fn serve_stream(
    client: Rc<Client>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    _place: Streaming,
    malformed: Option<Malformed>,
) -> End {
    let in_flight = client.signals().in_flight_guard();
    let is_head = request.method() == Method::HEAD;
    let hints = Hints::new(respond);
    let (mut request, mut tunnel) = into_http1(request);
    request.extensions_mut().insert(hints.clone());
    let answered = {
        let flaw = malformed.map(Malformed::refusal);
        let mut answered = pin!(respond::respond(&client, &mut request, flaw));
        poll_fn(|cx| {
            if let Poll::Ready(response) = answered.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            // Else the worker would go on for nobody.
            match ready!(hints.respond().poll_reset(cx)) {
                Ok(_) | Err(_) => Poll::Ready(None),
            }
        })
        .await
    };
    let Some(mut response) = answered else {
        return End::Reset;
    };
    let send = |response: Response<()>, end: bool| hints.respond().send_response(response, end);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some((receive, piece)), mut head) = (tunnel.take(), head_of(&mut response)) else {
            return End::Answered;
        };
        *head.status_mut() = StatusCode::OK;
        for name in [UPGRADE, CONNECTION, ACCEPT] {
            head.headers_mut().remove(name);
        }
        if let Ok(send) = send(head, false) {
            // Nobody there: the worker's side is gone, and the client sees the stream end.
            let _ = piece.send(H2Io::new(send, receive, in_flight));
        }
        return End::Answered;
    }
    let head = head_of(&mut response);
    let body = std::mem::replace(response.body_mut(), Body::empty());
    // A page of ours has its body whatever was asked for; over HTTP/1.1 hyper leaves it out.
    let end = is_head || body.is_end_stream();
    match send(head, end) {
        Ok(stream) if !end => pipe(body, stream, client.write_pace()).await,
        Ok(_) => End::Answered,
        Err(error) => {
            debug!("an answer was not sent: {error}");
            End::Answered
        }
    }
}

/// Takes the head of a response, as HTTP/2 has it.
fn head_of(response: &mut Response<Body>) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = response.status();
    *head.version_mut() = Version::HTTP_2;
    let headers = head.headers_mut();
    *headers = std::mem::take(response.headers_mut());
    // There is no such thing on a connection that many requests share.
    headers.remove(CONNECTION);
    // It is never said again: in the table of the compression it would take the place of what is, and be compared with all like it.
    if let Some(id) = headers.get_mut(REQUEST_ID) {
        id.set_sensitive(true);
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, date());
    }
    let hint = response.body().size_hint();
    if let Some(length) = hint.exact().filter(|length| *length > 0) {
        headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| length.into());
    }
    head
}

/// Now, as it was written last: a second has many answers.
fn date() -> HeaderValue {
    use std::cell::RefCell;
    use std::time::SystemTime;
    thread_local! {
        static DATE: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH);
    let second = second.map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(written, value)| {
        if *written != second {
            let text = httpdate::fmt_http_date(now);
            *value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
            *written = second;
        }
        value.clone()
    })
}

/// What becomes a tunnel: the half that the client sends on, and where the whole is wanted.
type Tunnel = (RecvStream, oneshot::Sender<H2Io>);

/// The request as the rest of the proxy knows it. A WebSocket's becomes the upgrade that workers know.
fn into_http1(request: Request<RecvStream>) -> (Request<Inbound>, Option<Tunnel>) {
    let (mut parts, stream) = request.into_parts();
    join_cookies(&mut parts.headers);
    let protocol = parts.extensions.remove::<Protocol>();
    let is_websocket = protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
    if parts.method == Method::CONNECT && is_websocket {
        parts.method = Method::GET;
        parts.version = Version::HTTP_2;
        let headers = &mut parts.headers;
        headers.remove(CONTENT_LENGTH);
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(KEY, websocket_key());
        let (sender, receiver) = oneshot::channel();
        parts.extensions.insert(Switch::http2(receiver));
        let request = Request::from_parts(parts, Inbound::Empty);
        return (request, Some((stream, sender)));
    }
    let length = parts.headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let body = match parts.method {
        Method::CONNECT => Inbound::Empty,
        _ => Inbound::http2(stream, length),
    };
    (Request::from_parts(parts, body), None)
}

/// Clients may send crumbs of a cookie in fields of their own, for the sake of compression (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else {
        return;
    };
    let mut whole = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(whole) = HeaderValue::from_bytes(&whole) {
        headers.insert(COOKIE, whole);
    }
}

/// A key that no cache has seen (RFC 6455, 4.1).
fn websocket_key() -> HeaderValue {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode(uuid::Uuid::now_v7().as_bytes());
    HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static(""))
}

/// Sends a body piece by piece, as the client takes it.
async fn pipe(mut body: Body, mut stream: SendStream<Bytes>, pace: Pace) -> End {
    let mut budget = RateBudget::new(pace);
    loop {
        let frame = poll_fn(|cx| poll_next(&mut body, &mut stream, cx)).await;
        let frame = match frame {
            Next::Frame(frame) => frame,
            Next::Reset => return End::Reset,
            Next::End => {
                let _ = stream.send_data(Bytes::new(), true);
                return End::Answered;
            }
            Next::Torn => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return End::Answered;
            }
        };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    let _ = stream.send_trailers(trailers);
                }
                return End::Answered;
            }
        };
        let last = body.is_end_stream();
        if data.is_empty() && last {
            let _ = stream.send_data(data, true);
            return End::Answered;
        }
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let room = poll_fn(|cx| poll_room(&mut stream, &mut budget, cx)).await;
            let Some(room) = room else {
                stream.send_reset(Reason::CANCEL);
                return End::Reset;
            };
            let piece = data.split_to(room.min(data.len()));
            budget.moved(piece.len());
            if stream.send_data(piece, last && data.is_empty()).is_err() {
                return End::Reset;
            }
        }
        if last {
            return End::Answered;
        }
    }
}

/// What comes next of a body.
enum Next {
    Frame(http_body::Frame<Bytes>),
    End,
    Torn,
    Reset,
}

fn poll_next(body: &mut Body, stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Next> {
    match Pin::new(body).poll_frame(cx) {
        Poll::Ready(Some(Ok(frame))) => Poll::Ready(Next::Frame(frame)),
        Poll::Ready(Some(Err(_))) => Poll::Ready(Next::Torn),
        Poll::Ready(None) => Poll::Ready(Next::End),
        Poll::Pending => stream.poll_reset(cx).map(|_| Next::Reset),
    }
}

/// Room in the client's window; `None` when it is too slow, or has left.
fn poll_room(
    stream: &mut SendStream<Bytes>,
    budget: &mut RateBudget,
    cx: &mut Context<'_>,
) -> Poll<Option<usize>> {
    loop {
        match stream.poll_capacity(cx) {
            Poll::Ready(Some(Ok(0))) => {}
            Poll::Ready(Some(Ok(room))) => return Poll::Ready(Some(room)),
            Poll::Ready(_) => return Poll::Ready(None),
            Poll::Pending => return budget.poll(cx).map(|()| None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn crumbs_become_one_cookie() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            headers.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookies(&mut headers);
        assert_eq!(headers[COOKIE], "a=1; b=2; c=3");
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn the_id_of_a_request_has_no_place_in_the_table_of_the_compression() {
        let mut response = Response::new(Body::empty());
        let id = HeaderValue::from_static("0192f0c1");
        response.headers_mut().insert(REQUEST_ID, id.clone());
        response.headers_mut().insert(ACCEPT, id);
        let head = head_of(&mut response);
        assert!(head.headers()[REQUEST_ID].is_sensitive());
        assert!(!head.headers()[ACCEPT].is_sensitive());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_may_be_taken_back_now_and_then_and_not_all_the_time() {
        let mut resets = Resets::new();
        for _ in 0..200 {
            assert!(resets.pass());
        }
        assert!(!resets.pass());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(resets.pass());
    }

    #[test]
    fn the_time_is_written_as_http_has_it() {
        let text = date();
        assert!(text.to_str().unwrap().ends_with(" GMT"));
        assert_eq!(date(), text);
    }
}
