//! One health request to a generation, over a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::body::source;
use crate::route::Address;
use crate::wire::ProbeOutcome;

const AGENT: &str = concat!("tqserver-health/", env!("CARGO_PKG_VERSION"));

/// Asks `address` for `path` and waits for the head of the answer, for at most `timeout` altogether.
pub(super) async fn run(address: Address, path: String, timeout: Duration) -> ProbeOutcome {
    match tokio::time::timeout(timeout, ask(&address, &path)).await {
        Ok(Ok(status)) => ProbeOutcome::Status(status),
        Ok(Err(sentence)) => ProbeOutcome::Broken(sentence),
        Err(_) => ProbeOutcome::TimedOut,
    }
}

async fn ask(address: &Address, path: &str) -> Result<u16, String> {
    let refused = |error| format!("can not connect to {address}: {error}");
    match address {
        Address::Unix(socket) => {
            let stream = UnixStream::connect(socket).await.map_err(refused)?;
            exchange(stream, path).await
        }
        Address::Tcp(socket) => {
            let stream = TcpStream::connect(socket).await.map_err(refused)?;
            exchange(stream, path).await
        }
    }
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
    let mut answer = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        _ = connection => answer.await,
    };
    Ok(response.map_err(broken)?.status().as_u16())
}
