//! The worker behind `/`: it shows what TQServer made of its directory.
//!
//! The listening socket is file descriptor 3, what arrives there is HTTP/1.1, and SIGTERM means: finish and exit. That is all a
//! worker has to know; the rest of this program is the page.

mod page;
mod surroundings;

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::page::{Page, Template};
use crate::surroundings::Surroundings;

/// The first file descriptor systemd passes (sd_listen_fds(3)).
const FIRST_FD: i32 = 3;

/// The page needs its style and its picture from here, and nothing from anywhere else.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; img-src 'self'; style-src 'self'");

struct Worker {
    surroundings: Surroundings,
    index: Template,
    not_found: Template,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Read once: what is served is what was there when this generation was accepted. A mistake in a template ends the process here,
    // and the generation before keeps serving.
    let worker = Arc::new(Worker {
        surroundings: Surroundings::look_around(),
        index: Template::load("views/index.html")?,
        not_found: Template::load("views/404.html")?,
    });
    let mut terminated = signal(SignalKind::terminate())?;
    let listener = Listener::from_systemd()?;
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Connections that have ended leave the set.
            Some(_) = connections.join_next() => continue,
            _ = terminated.recv() => break,
        };
        match accepted {
            Ok(stream) => {
                drop(connections.spawn(serve(Arc::clone(&worker), stream, stopping.clone())))
            }
            Err(error) => {
                eprintln!("accept: {error}");
                // Out of file descriptors, most likely: some have to come back first.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // What connects from here on waits in the socket, which is systemd's, for the next process.
    drop(listener);
    drop(stop);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Serves a connection until it is closed, or until the request in flight at the stop is answered.
async fn serve(worker: Arc<Worker>, stream: Box<dyn Stream>, mut stopping: watch::Receiver<()>) {
    let service = service_fn(move |request| {
        let answer = worker.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A client that went away is not our failure, so errors of a connection are let go.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

impl Worker {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut response = Response::new(Full::from("GET and HEAD are all there is here\n"));
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let path = request.uri().path();
        let (status, template) = if path == self.surroundings.route {
            (StatusCode::OK, &self.index)
        } else {
            (StatusCode::NOT_FOUND, &self.not_found)
        };
        let id = request
            .headers()
            .get("x-request-id")
            .and_then(|id| id.to_str().ok());
        let page = Page {
            path,
            request_id: id,
            surroundings: &self.surroundings,
        };
        let mut response = Response::new(Full::from(template.render(&page)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_SECURITY_POLICY, POLICY);
        response
    }
}

/// The socket: a unix socket from TQServer, TCP from systemd-socket-activate(1).
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    fn from_systemd() -> Result<Self, Box<dyn Error>> {
        // A child would inherit these variables too; LISTEN_PID tells whom they are for.
        let ours = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
        if !ours || env::var("LISTEN_FDS").as_deref() != Ok("1") {
            return Err(
                "no socket was passed; try: systemd-socket-activate -l 8081 bin/index".into(),
            );
        }
        // SAFETY: the variables say that the descriptor is open and ours, and this is called once.
        let passed = unsafe { OwnedFd::from_raw_fd(FIRST_FD) };
        let unix = std::os::unix::net::UnixListener::from(passed);
        unix.set_nonblocking(true)?;
        // Only a unix socket has an address of its kind.
        Ok(match unix.local_addr() {
            Ok(_) => Self::Unix(UnixListener::from_std(unix)?),
            Err(_) => Self::Tcp(TcpListener::from_std(OwnedFd::from(unix).into())?),
        })
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}
