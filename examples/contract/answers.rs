//! What this worker answers. The last segment of the path decides, so that it does not matter at which route it stands.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, Stream, StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::Worker;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Size of the pieces of a download.
const PIECE: usize = 64 * 1024;

/// What `/allocate` took. It is never given back.
static ALLOCATED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Answers one request.
///
/// | path | answer |
/// |---|---|
/// | `/env` | its environment, as JSON |
/// | `/pid` | its process id |
/// | `/echo` | method, path and headers of the request, as JSON |
/// | `/echo-body` | the body of the request, piece by piece |
/// | `/sse?n=N&ms=M` | N events (default: no end), M ms apart (default: 100) |
/// | `/ws` | a WebSocket that sends back what it gets |
/// | `/download?bytes=N` | N bytes |
/// | `/upload` | the number of bytes it was sent |
/// | `/allocate?mib=N` | takes N MiB of memory, and keeps them |
/// | `/exit?code=N` | none: the process exits |
/// | `/abort` | the first bytes of 1000, then the connection breaks |
/// | `/slow?ms=N` | `slow`, after N ms |
/// | `/fork` | starts `sleep 1000`, and answers its process id |
/// | any other | what it `says`, or its `page` |
pub(crate) async fn answer(
    worker: Arc<Worker>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let last = request.uri().path().rsplit('/').next().unwrap_or_default();
    let number = |key| number(&request, key);
    let mut response = match last {
        "env" => environment(),
        "pid" => text(std::process::id().to_string()),
        "echo" => echo(&request),
        "echo-body" => Response::new(request.into_body().map_err(io::Error::other).boxed_unsync()),
        "sse" => events(&worker, number("n"), number("ms").unwrap_or(100)),
        "ws" => return Ok(web_socket(&worker, request)),
        "download" => download(number("bytes").unwrap_or(0)),
        "upload" => upload(request.into_body()).await,
        "fill" => fill(number("kib").unwrap_or(0)),
        "allocate" => allocate(number("mib").unwrap_or(0)),
        "exit" => exit(number("code").unwrap_or(0)),
        "abort" => abort(),
        "slow" => {
            tokio::time::sleep(Duration::from_millis(number("ms").unwrap_or(0))).await;
            text("slow".to_owned())
        }
        "fork" => fork(),
        _ => {
            tokio::time::sleep(worker.behaviour.delay).await;
            match &worker.behaviour.page {
                Some(page) => typed("text/html; charset=utf-8", page.clone()),
                None => text(says(&worker)),
            }
        }
    };
    if let Some(status) = worker.behaviour.status {
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    }
    Ok(response)
}

/// The number `key` has in the query.
fn number(request: &Request<Incoming>, key: &str) -> Option<u64> {
    let mut pairs = request
        .uri()
        .query()?
        .split('&')
        .filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == key)?.1.parse().ok()
}

fn says(worker: &Worker) -> String {
    let name = || std::env::var("WORKER_NAME").unwrap_or_else(|_| "contract".to_owned());
    worker.behaviour.says.clone().unwrap_or_else(name)
}

fn environment() -> Response<Body> {
    let lossy = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    let all: BTreeMap<_, _> = std::env::vars_os()
        .map(|(k, v)| (lossy(k), lossy(v)))
        .collect();
    typed("application/json", json!(all).to_string())
}

fn echo(request: &Request<Incoming>) -> Response<Body> {
    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str()).or_default().push(value);
    }
    let method = request.method().as_str();
    let path = request.uri().to_string();
    let echo = json!({ "method": method, "path": path, "headers": headers });
    typed("application/json", echo.to_string())
}

fn events(worker: &Worker, count: Option<u64>, millis: u64) -> Response<Body> {
    let every = tokio::time::interval(Duration::from_millis(millis.max(1)));
    let events = stream::unfold((1, every), move |(n, mut every)| async move {
        if count.is_some_and(|count| n > count) {
            return None;
        }
        every.tick().await;
        Some((Ok(Bytes::from(format!("data: {n}\n\n"))), (n + 1, every)))
    });
    // A stream without an end would keep the process from ending; its client connects again, to the next generation.
    let events = events.take_until(worker.stopping.clone().cancelled_owned());
    with_type("text/event-stream", streamed(events))
}

fn web_socket(worker: &Arc<Worker>, mut request: Request<Incoming>) -> Response<Body> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let Some(accept) = key.map(|key| derive_accept_key(key.as_bytes())) else {
        let mut response = text("this is a WebSocket; ask for an upgrade\n".to_owned());
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    let upgrade = hyper::upgrade::on(&mut request);
    worker.open.spawn(send_back(Arc::clone(worker), upgrade));
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Sends each message back, until the client closes or the worker stops.
async fn send_back(worker: Arc<Worker>, upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = worker.stopping.cancelled() => break,
        };
        let sent = match message {
            Some(Ok(message)) if message.is_text() || message.is_binary() => {
                socket.send(message).await
            }
            // Pings are answered, and a close confirmed, by the library.
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => return,
        };
        if sent.is_err() {
            return;
        }
    }
    // The client may be gone already; then there is nobody to tell.
    let _ = socket.close(None).await;
}

fn download(size: u64) -> Response<Body> {
    let pieces = stream::unfold(size, |left| async move {
        let piece = left.min(PIECE as u64);
        (piece > 0).then(|| (Ok(Bytes::from(vec![b'x'; piece as usize])), left - piece))
    });
    let mut response = streamed(pieces);
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, size.into());
    response
}

async fn upload(mut body: Incoming) -> Response<Body> {
    let mut count = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => count += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => eprintln!("contract: upload broke off after {count} bytes: {error}"),
        }
    }
    text(count.to_string())
}

/// Keeps so much in its state directory.
fn fill(kib: u64) -> Response<Body> {
    let directory = std::env::var("STATE_DIRECTORY").unwrap_or_default();
    let file = std::path::Path::new(&directory).join("fill");
    match std::fs::write(&file, vec![1; usize::try_from(kib << 10).unwrap_or(0)]) {
        Ok(()) => text(format!("{kib} KiB")),
        Err(error) => text(format!("write {}: {error}\n", file.display())),
    }
}

fn allocate(mib: u64) -> Response<Body> {
    let size = usize::try_from(mib << 20).unwrap_or(usize::MAX);
    // Not zeroes: those the kernel would give only when they are read.
    let taken = vec![1; size];
    if let Ok(mut allocated) = ALLOCATED.lock() {
        allocated.push(taken);
    }
    text(format!("{mib} MiB"))
}

fn exit(code: u64) -> ! {
    std::process::exit(i32::try_from(code).unwrap_or(1))
}

fn abort() -> Response<Body> {
    let start = Ok(Bytes::from_static(b"the start"));
    let broken = Err(io::Error::other("told to break off"));
    // The start has to leave before the error: hyper drops what it has not written yet.
    let broken = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        broken
    };
    let mut response = streamed(stream::iter([start]).chain(stream::once(broken)));
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, 1000.into());
    response
}

fn fork() -> Response<Body> {
    match std::process::Command::new("sleep").arg("1000").spawn() {
        Ok(child) => text(child.id().to_string()),
        Err(error) => {
            let mut response = text(format!("start sleep: {error}\n"));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

fn text(body: String) -> Response<Body> {
    typed("text/plain; charset=utf-8", body)
}

fn typed(kind: &'static str, body: String) -> Response<Body> {
    with_type(kind, Response::new(whole(body.into())))
}

fn whole(body: Bytes) -> Body {
    Full::new(body)
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn with_type(kind: &'static str, mut response: Response<Body>) -> Response<Body> {
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn streamed(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    let frames = pieces.map(|piece| piece.map(Frame::data));
    Response::new(StreamBody::new(frames).boxed_unsync())
}
