//! Where a worker's connections come from.

use std::env;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// The first file descriptor systemd passes (SD_LISTEN_FDS_START in sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// A listening socket: a unix socket from the server, or TCP from systemd-socket-activate(1) and for `PORT`.
pub(crate) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A connection of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Socket {
    /// The socket that was passed, or else one on the port that was named.
    pub(crate) async fn from_environment() -> Result<Self, String> {
        if let Some(passed) = passed_socket()? {
            return Self::listening(passed)
                .map_err(|error| format!("take over fd {FIRST}: {error}"));
        }
        let port = env::var("PORT").map_err(|_| {
            "neither LISTEN_FDS nor PORT is set: start me with systemd-socket-activate".to_owned()
        })?;
        let number: u16 = port
            .parse()
            .map_err(|_| format!("PORT: '{port}' is no port number"))?;
        let bound = TcpListener::bind(("127.0.0.1", number)).await;
        bound
            .map(Self::Tcp)
            .map_err(|error| format!("listen on port {number}: {error}"))
    }

    fn listening(passed: OwnedFd) -> io::Result<Self> {
        let unix = std::os::unix::net::UnixListener::from(passed);
        unix.set_nonblocking(true)?;
        // Only a unix socket has an address of that kind.
        if unix.local_addr().is_ok() {
            UnixListener::from_std(unix).map(Self::Unix)
        } else {
            TcpListener::from_std(OwnedFd::from(unix).into()).map(Self::Tcp)
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// The file descriptor systemd passed, if it did.
fn passed_socket() -> Result<Option<OwnedFd>, String> {
    // The variables are for the process systemd started. A child inherits them, and must not take them for its own.
    let for_us = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    match env::var("LISTEN_FDS") {
        Ok(count) if for_us && count == "1" => Ok(Some(first_fd())),
        Ok(count) if for_us => Err(format!("LISTEN_FDS is {count}, one socket was expected")),
        _ => Ok(None),
    }
}

#[expect(
    unsafe_code,
    reason = "a descriptor that was inherited has no owner in Rust's eyes yet"
)]
fn first_fd() -> OwnedFd {
    // SAFETY: LISTEN_PID and LISTEN_FDS say that it is open and ours, and this is called once.
    unsafe { OwnedFd::from_raw_fd(FIRST) }
}
