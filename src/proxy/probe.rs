//! One health request to a generation, over a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::body::source;
use super::fastcgi;
use crate::route::{Address, Protocol};
use crate::wire::ProbeOutcome;

/// As much of the answer's body is read, and for as long.
const BODY_MAX: usize = 64 << 10;
const BODY_TIME: Duration = Duration::from_millis(250);

const AGENT: &str = concat!("tqserver-health/", env!("CARGO_PKG_VERSION"));

/// Asks `address` for `path` and waits for the head of the answer, for at most `timeout` altogether.
pub(super) async fn run(
    address: Address,
    protocol: Protocol,
    path: String,
    timeout: Duration,
) -> ProbeOutcome {
    match tokio::time::timeout(timeout, ask(&address, &protocol, &path)).await {
        Ok(Ok(status)) => ProbeOutcome::Status(status),
        Ok(Err(sentence)) => ProbeOutcome::Broken(sentence),
        Err(_) => ProbeOutcome::TimedOut,
    }
}

async fn ask(address: &Address, protocol: &Protocol, path: &str) -> Result<u16, String> {
    let refused = |error| format!("can not connect to {address}: {error}");
    match (address, protocol) {
        (Address::Unix(socket), Protocol::FastCgi(scripts)) => {
            let gateway = fastcgi::connect(socket, scripts, None);
            exchange(gateway.await.map_err(refused)?, path).await
        }
        (Address::Unix(socket), protocol) => {
            let stream = UnixStream::connect(socket).await.map_err(refused)?;
            speak(stream, protocol, path).await
        }
        (Address::Tcp(socket), protocol) => {
            let stream = TcpStream::connect(socket).await.map_err(refused)?;
            speak(stream, protocol, path).await
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
async fn exchange2<S>(stream: S, path: &str) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::get(format!("http://localhost{path}"))
        .header(USER_AGENT, AGENT)
        .body(())
        .map_err(|error| format!("'{path}' can not be asked for: {error}"))?;
    let broken = |error: h2::Error| format!("no HTTP/2 answer: {error}");
    let (mut sender, connection) = h2::client::handshake(stream).await.map_err(broken)?;
    let mut connection = std::pin::pin!(connection.fuse());
    let (mut answer, _) = sender.send_request(request, true).map_err(broken)?;
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        _ = connection.as_mut() => answer.await,
    };
    Ok(response.map_err(broken)?.status().as_u16())
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
    let broken = |error: hyper::Error| format!("no HTTP answer: {}", source(&error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // The connection is driven here and dropped with the answer: nothing of a probe outlives it.
    let mut connection = std::pin::pin!(connection.fuse());
    let mut answer = std::pin::pin!(sender.send_request(request));
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
