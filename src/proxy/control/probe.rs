//! One health request to a generation, over a connection of its own.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::SendRequest;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::proxy::upstream::fastcgi;
use crate::proxy::upstream::holder::{self, Reach};
use crate::proxy::wire::cause;
use crate::route::{Address, Protocol};
use crate::wire::ProbeOutcome;

/// As much of the answer's body is read, and for as long.
const BODY_MAX: usize = 64 << 10;
const BODY_TIME: Duration = Duration::from_millis(250);

const AGENT: &str = concat!("tqserver-health/", env!("CARGO_PKG_VERSION"));

/// Asks `address` for `path` and waits for the head of the answer, for at most `timeout` altogether.
pub(crate) async fn run(
    address: Address,
    protocol: Protocol,
    path: String,
    timeout: Duration,
) -> Asked {
    let mut is_exposed = false;
    let asked = ask(&address, &protocol, &path, &mut is_exposed);
    let outcome = match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(status)) => ProbeOutcome::Status(status),
        Ok(Err(outcome)) => outcome,
        Err(_) => ProbeOutcome::TimedOut,
    };
    Asked {
        outcome,
        is_exposed,
    }
}

/// What came of a health request.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) outcome: ProbeOutcome,
    /// What has answered, or not, listens on all addresses of the machine.
    pub(crate) is_exposed: bool,
}

/// Whether we had nothing to connect with. (A worker that does not accept gives EAGAIN on a unix socket.)
fn is_ours(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::ADDRNOTAVAIL)
    )
}

async fn ask(
    address: &Address,
    protocol: &Protocol,
    path: &str,
    is_exposed: &mut bool,
) -> Result<u16, ProbeOutcome> {
    let refused = |error: io::Error| match is_ours(&error) {
        true => ProbeOutcome::NotAsked(format!("the proxy cannot connect to {address}: {error}")),
        false => ProbeOutcome::Broken(format!("can not connect to {address}: {error}")),
    };
    match (address, protocol) {
        (Address::Unix(socket), Protocol::FastCgi(scripts)) => {
            let gateway = fastcgi::connect(socket, scripts, None);
            let gateway = gateway.await.map_err(refused)?;
            exchange(gateway, path).await.map_err(ProbeOutcome::Broken)
        }
        (Address::Unix(socket), protocol) => {
            let stream = UnixStream::connect(socket).await.map_err(refused)?;
            let answer = speak(stream, protocol, path).await;
            answer.map_err(ProbeOutcome::Broken)
        }
        (Address::Tcp(at) | Address::Held { at, .. }, protocol) => {
            let stream = TcpStream::connect(at).await.map_err(refused)?;
            let reach = match address {
                Address::Held { by, .. } => {
                    let here = stream.local_addr().map_err(refused)?;
                    // EACCES is of this kind too, and says nothing of the port.
                    let is_errno = |error: &io::Error| error.raw_os_error().is_some();
                    holder::check(*at, here, *by).map_err(|error| match error.kind() {
                        io::ErrorKind::PermissionDenied if !is_errno(&error) => {
                            ProbeOutcome::Taken(error.to_string())
                        }
                        _ => refused(error),
                    })?
                }
                // Where the kernel does not tell, nothing is said.
                _ => holder::reach(*at).unwrap_or(Reach::Loopback),
            };
            *is_exposed = reach == Reach::Everywhere;
            let answer = speak(stream, protocol, path).await;
            answer.map_err(ProbeOutcome::Broken)
        }
    }
}

async fn speak<S>(stream: S, protocol: &Protocol, path: &str) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match protocol {
        Protocol::Http2 => exchange2(stream, path).await,
        Protocol::Http | Protocol::FastCgi(_) => exchange(stream, path).await,
    }
}

/// The same over HTTP/2. The body is not waited for: who speaks HTTP/2 is used to streams that are not read to their end.
///
/// A server of gRPC may know calls alone, and take back the stream of any other request; so it is then asked by a call.
async fn exchange2<S>(stream: S, path: &str) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: h2::Error| format!("no HTTP/2 answer: {error}");
    let (mut sender, connection) = h2::client::handshake(stream).await.map_err(broken)?;
    let mut connection = pin!(connection.fuse());
    let answered = async {
        match request2(&mut sender, Method::GET, path).await {
            Err(error) if error.is_reset() && error.is_remote() => {
                request2(&mut sender, Method::POST, path).await
            }
            answered => answered,
        }
    };
    let mut answered = pin!(answered);
    let answered = tokio::select! {
        biased;
        answered = answered.as_mut() => answered,
        _ = connection.as_mut() => answered.await,
    };
    answered.map_err(broken)
}

/// A request over HTTP/2, and its answer's status. POST is a call of gRPC without a message.
async fn request2(
    sender: &mut SendRequest<Bytes>,
    method: Method,
    path: &str,
) -> Result<u16, h2::Error> {
    let is_call = method == Method::POST;
    let mut request = Request::new(());
    *request.method_mut() = method;
    let uri = Uri::builder().scheme("http").authority("localhost");
    let uri = uri.path_and_query(path).build();
    *request.uri_mut() = uri.map_err(|_| h2::Error::from(h2::Reason::PROTOCOL_ERROR))?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if is_call {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    // The first request needs no wait, the second finds the first one's place.
    poll_fn(|cx| sender.poll_ready(cx)).await?;
    let (answer, mut body) = sender.send_request(request, !is_call)?;
    if is_call {
        // The frame of a message of no bytes.
        body.send_data(Bytes::from_static(&[0; 5]), true)?;
    }
    let answer = answer.await?;
    let status = answer.headers().get("grpc-status");
    Ok(match status.map(HeaderValue::as_bytes) {
        // UNAVAILABLE, or any other status that gRPC has: also of a method that is not there.
        Some(b"14") => 503,
        _ => answer.status().as_u16(),
    })
}

async fn exchange<S>(stream: S, path: &str) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::get(path)
        .header(HOST, "localhost")
        .header(CONNECTION, "close")
        .header(USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("'{path}' can not be asked for: {error}"))?;
    let broken = |error: hyper::Error| format!("no HTTP answer: {}", cause::innermost(&error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // The connection is driven here and dropped with the answer: nothing of a probe outlives it.
    let mut connection = pin!(connection.fuse());
    let mut answer = pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        _ = connection.as_mut() => answer.await,
    };
    let response = response.map_err(broken)?;
    let status = response.status().as_u16();
    // A page is read to its end, so that no worker has to complain of a client that left in the middle.
    let body = Limited::new(response.into_body(), BODY_MAX);
    tokio::select! {
        biased;
        _ = body.collect() => {}
        _ = connection => {}
        () = tokio::time::sleep(BODY_TIME) => {}
    }
    Ok(status)
}
