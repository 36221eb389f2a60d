//! The line to a worker: its bytes, over a unix socket, TCP, or through the gateway to one that speaks FastCGI.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::fastcgi::{self, Gateway};
use super::generation::Generation;
use super::holder;
use crate::proxy::wire::origin::Origin;
use crate::proxy::wire::timer::Timer;
use crate::route::{Address, Protocol};

/// A connection to a worker that notices when the worker does not take what it is sent.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: Stream,
    heard: Rc<Cell<u64>>,
    timer: Timer,
    write_limit: Duration,
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    FastCgi(Gateway),
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Transport {
    /// Connects to `address`, where an instance of `generation` listens that may take `write_limit` to accept a piece; zero is no limit.
    /// One to php-fpm is for a request that comes from `origin`.
    ///
    /// # Errors
    /// As connect(2).
    pub(crate) async fn connect(
        address: &Address,
        protocol: &Protocol,
        generation: &Arc<Generation>,
        write_limit: Duration,
        origin: &Origin,
    ) -> io::Result<Self> {
        let stream = match (address, protocol) {
            (Address::Unix(path), Protocol::FastCgi(scripts)) => {
                Stream::FastCgi(fastcgi::connect(path, scripts, Some((generation, origin))).await?)
            }
            (Address::Unix(path), Protocol::Http | Protocol::Http2) => {
                Stream::Unix(UnixStream::connect(path).await?)
            }
            // php-fpm is handed its socket.
            (Address::Tcp(address), _) => Stream::Tcp(tcp(*address).await?),
            (Address::Held { at, by }, _) => {
                let stream = tcp(*at).await?;
                // Before the first byte. The port may have been somebody's for a moment, as while the worker was restarted.
                holder::check(*at, stream.local_addr()?, *by)?;
                Stream::Tcp(stream)
            }
        };
        Ok(Self {
            stream,
            heard: Rc::default(),
            timer: Timer::default(),
            write_limit,
        })
    }

    /// The number of bytes that the worker has sent, to tell a request it never saw from one it may have begun.
    pub(crate) fn heard(&self) -> Rc<Cell<u64>> {
        self.heard.clone()
    }

    /// Whether an unused line has ended, or brings what nobody has asked for; if not, `watcher` is woken when it does. It costs no system
    /// call as long as neither is known.
    pub(crate) fn is_over(&mut self, watcher: &Waker) -> bool {
        let mut byte = [0];
        let mut context = Context::from_waker(watcher);
        Pin::new(self)
            .poll_read(&mut context, &mut ReadBuf::new(&mut byte))
            .is_ready()
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = ready!(match &mut this.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::FastCgi(gateway) => Pin::new(gateway).poll_read(cx, buffer),
        });
        let read = buffer.filled().len() - before;
        this.heard.set(this.heard.get() + read as u64);
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = match &mut this.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::FastCgi(gateway) => Pin::new(gateway).poll_write_vectored(cx, slices),
        };
        match outcome {
            Poll::Ready(outcome) => {
                this.timer.stop();
                Poll::Ready(outcome)
            }
            Poll::Pending => {
                ready!(this.timer.poll(cx, this.write_limit));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has nothing to flush, and neither has a gateway.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::FastCgi(gateway) => Pin::new(gateway).poll_shutdown(cx),
        }
    }
}
