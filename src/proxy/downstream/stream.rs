//! A client's bytes, as they come over TCP or a unix socket, with TLS or without.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketFlags, sockopt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use super::listener::{Accepts, Listener};
use crate::route::Place;
use crate::tls;

/// Where one thread accepts clients.
#[derive(Debug)]
pub(crate) struct Door {
    listener: Either<TcpListener, UnixListener>,
    /// Goes last: by then this thread's descriptor is closed.
    _accepts: Accepts,
}

/// A connection as the kernel hands it over: over TCP, or by a unix socket.
pub(crate) type Raw = Either<TcpStream, UnixStream>;

/// A connection as HTTP is spoken on it: plain, or with TLS. That is boxed: what it needs would be a burden for all that do without.
pub(crate) type Stream = Either<Raw, Box<tls::Stream<Raw>>>;

impl Door {
    /// This thread's way to accept from `listener`.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub(crate) fn open(listener: &Arc<Listener>) -> io::Result<Self> {
        let accepts = listener.accepts();
        let socket = listener.socket.try_clone()?;
        let listener = match listener.listen.place {
            Place::Tcp(_) => Either::Left(TcpListener::from_std(socket.into())?),
            Place::Unix(_) => Either::Right(UnixListener::from_std(socket.into())?),
        };
        Ok(Self {
            listener,
            _accepts: accepts,
        })
    }

    /// The next client; the address is `None` behind a unix socket.
    ///
    /// # Errors
    /// As accept(2).
    pub(crate) async fn accept(&self) -> io::Result<(Raw, Option<SocketAddr>)> {
        match &self.listener {
            Either::Left(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Raw::Left(stream), Some(peer)))
            }
            Either::Right(listener) => Ok((Raw::Right(listener.accept().await?.0), None)),
        }
    }
}

/// Where a client has connected to; `None` where that is a unix socket.
pub(crate) fn local(stream: &Raw) -> Option<SocketAddr> {
    let local = match stream {
        Raw::Left(tcp) => tcp.local_addr().ok()?,
        Raw::Right(_) => return None,
    };
    Some(SocketAddr::new(local.ip().to_canonical(), local.port()))
}

impl Door {
    /// A client that has connected already, if there is one, whether or not the event loop has heard of it.
    pub(crate) fn queued(&self) -> Option<(Raw, Option<SocketAddr>)> {
        let socket = match &self.listener {
            Either::Left(listener) => listener.as_fd(),
            Either::Right(listener) => listener.as_fd(),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (stream, peer) = rustix::net::acceptfrom_with(socket, flags).ok()?;
        match self.listener {
            Either::Left(_) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                Some((Raw::Left(TcpStream::from_std(stream.into()).ok()?), peer))
            }
            Either::Right(_) => Some((Raw::Right(UnixStream::from_std(stream.into()).ok()?), None)),
        }
    }
}

/// Has `stream` end with a reset instead of an end when it is closed.
pub(crate) fn set_zero_linger(stream: &Stream) {
    let _ = sockopt::set_socket_linger(socket(stream), Some(Duration::ZERO));
}

/// Whether the kernel has bytes of the client's, which the event loop may not have heard of yet.
pub(crate) fn has_unread(stream: &Stream) -> bool {
    rustix::io::ioctl_fionread(socket(stream)).is_ok_and(|bytes| bytes > 0)
}

fn socket(stream: &Stream) -> BorrowedFd<'_> {
    let raw = match stream {
        Stream::Left(raw) => raw,
        Stream::Right(stream) => stream.get_ref().0,
    };
    match raw {
        Raw::Left(stream) => stream.as_fd(),
        Raw::Right(stream) => stream.as_fd(),
    }
}
