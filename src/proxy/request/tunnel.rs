//! A connection that is HTTP no more: bytes both ways until both sides have closed, or neither has spoken for too long.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::either::Either;
use tracing::debug;

use crate::proxy::downstream::h2_io::H2Io;
use crate::proxy::downstream::socket::Socket;
use crate::proxy::response::access::Entry;
use crate::proxy::upstream::http1::Switched;
use crate::proxy::upstream::ticket::Ticket;

/// Bytes under way in each direction.
const BUFFER: usize = 16 << 10;

/// The client's side, once it has heard that HTTP is over.
#[derive(Debug)]
pub(crate) enum Switch {
    Http1(oneshot::Receiver<Box<Socket>>),
    Http2(oneshot::Receiver<H2Io>),
}

/// A [`Switch`] among a request's extensions, which have to be cloned.
#[derive(Clone, Debug)]
struct Held(Arc<Mutex<Option<Switch>>>);

/// The bytes of the client's side: of a connection that was HTTP/1.1, or of a stream among others.
type Bytes = Either<Box<Socket>, H2Io>;

/// One side, which notes when it last spoke.
struct Side<S> {
    stream: S,
    spoke: Rc<Cell<Instant>>,
    /// Where what is sent to this side is noted.
    entry: Option<Rc<Entry>>,
}

impl Switch {
    /// The extension of a request whose connection comes by `receiver` when it has been answered.
    pub(crate) fn http1(
        receiver: oneshot::Receiver<Box<Socket>>,
    ) -> impl Clone + Send + Sync + 'static {
        Held(Arc::new(Mutex::new(Some(Self::Http1(receiver)))))
    }

    /// The extension of a request whose stream comes by `receiver` when it has been answered.
    pub(crate) fn http2(receiver: oneshot::Receiver<H2Io>) -> impl Clone + Send + Sync + 'static {
        Held(Arc::new(Mutex::new(Some(Self::Http2(receiver)))))
    }

    /// The client's side of `request`, if that asks for it.
    pub(crate) fn of<B>(request: &mut Request<B>) -> Option<Self> {
        let Held(held) = request.extensions_mut().remove()?;
        held.lock().ok()?.take()
    }

    async fn bytes(self) -> io::Result<Bytes> {
        match self {
            Self::Http1(socket) => {
                let socket = socket.await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                Ok(Bytes::Left(socket))
            }
            Self::Http2(piece) => {
                let piece = piece.await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                Ok(Bytes::Right(piece))
            }
        }
    }
}

/// Joins the client and the worker. The request is in flight until this ends.
pub(crate) async fn run(
    client: Switch,
    worker: Switched,
    ticket: Ticket,
    entry: Option<Rc<Entry>>,
    limit: Duration,
) {
    let outcome = async {
        let client = client.bytes().await?;
        let spoke = Rc::new(Cell::new(Instant::now()));
        if let Some(entry) = &entry {
            entry.whole();
        }
        let mut client = Side {
            stream: client,
            spoke: spoke.clone(),
            entry,
        };
        let mut worker = Side {
            stream: worker,
            spoke: spoke.clone(),
            entry: None,
        };
        tokio::select! {
            copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut worker, BUFFER, BUFFER) => copied.map(|_| ()),
            () = silence(&spoke, limit) => Err(io::ErrorKind::TimedOut.into()),
        }
    };
    if let Err(error) = outcome.await {
        let worker = &ticket.generation().instance.worker;
        debug!(tq.worker = %worker, "tunnel to worker '{worker}' ended: {error}");
    }
}

/// Ends when neither side has spoken for `limit`.
async fn silence(spoke: &Cell<Instant>, limit: Duration) {
    if limit.is_zero() {
        return std::future::pending().await;
    }
    loop {
        let last = spoke.get();
        tokio::time::sleep_until(last + limit).await;
        if spoke.get() == last {
            return;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Side<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        this.spoke.set(Instant::now());
        Poll::Ready(outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Side<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        if let Some(entry) = &this.entry {
            entry.sent(written);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
