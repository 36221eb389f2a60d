//! The socket of a client, and the deadlines that are about the client alone.
//!
//! hyper knows one such deadline, for a request's head, counts idle time into it and hangs up without a word; so the deadlines are
//! kept here, beneath it. hyper sees a connection that ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::patience::Patience;
use crate::route::Front;

/// Sent to a client that did not finish its request's head in time.
const HEAD_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A client's socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    signals: Arc<Signals>,
    waiting: Waiting,
    /// The turn that `waiting` belongs to.
    turn: u64,
    reading: Patience,
    writing: Patience,
    limits: Limits,
}

/// What the one that answers tells the socket. Shared by reference count only because an upgraded connection must be `Send`.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Grows when a request begins and when its answer has ended: odd means that silence is not the client's fault.
    turns: AtomicU64,
    /// What was sent is not whole, and only a reset can say so.
    torn: AtomicBool,
}

/// While it lives the connection waits for us and not for the client.
#[derive(Debug)]
pub(super) struct Answering(Option<Arc<Signals>>);

/// What the socket waits for when it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The first byte of the next request.
    Request,
    /// The rest of a request's head.
    Head,
    /// Nothing: a request is being answered.
    Nothing,
}

/// The deadlines of [`Front`].
#[derive(Debug, Clone, Copy)]
struct Limits {
    read: Duration,
    write: Duration,
    idle: Duration,
}

impl Signals {
    /// A request has come and is being answered until the result is dropped.
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.turns.fetch_add(1, Ordering::Relaxed);
        Answering(Some(self.clone()))
    }

    /// Ends the connection with a reset: the only way to tell a client that reads until the end that this is not the end.
    pub(super) fn tear(&self) {
        self.torn.store(true, Ordering::Relaxed);
    }
}

impl Answering {
    /// The connection is not HTTP any more, and the socket's deadlines for reading do not apply.
    pub(super) fn for_ever(mut self) {
        self.0 = None;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(signals) = &self.0 {
            signals.turns.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Socket {
    /// A connection just accepted.
    pub(super) fn new(stream: TcpStream, signals: Arc<Signals>, front: &Front) -> Self {
        let mut socket = Self {
            stream,
            signals,
            waiting: Waiting::Head,
            turn: 0,
            reading: Patience::default(),
            writing: Patience::default(),
            limits: Limits {
                read: front.read_timeout,
                write: front.write_timeout,
                idle: front.idle_timeout,
            },
        };
        // Who connects is about to ask: the first request's clock runs from the start.
        socket.reading.start(socket.limits.read);
        socket
    }

    /// Learns what has happened above since the last look.
    fn take_turn(&mut self) {
        let turn = self.signals.turns.load(Ordering::Relaxed);
        if turn == self.turn {
            return;
        }
        self.turn = turn;
        self.reading.stop();
        self.waiting = if turn % 2 == 1 {
            Waiting::Nothing
        } else {
            Waiting::Request
        };
    }

    fn poll_reading(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.take_turn();
        if self.waiting == Waiting::Nothing {
            return Poll::Pending;
        }
        if self.waiting == Waiting::Request {
            ready!(self.reading.poll(cx, self.limits.idle));
            // As if the client had closed.
            return Poll::Ready(Ok(()));
        }
        ready!(self.reading.poll(cx, self.limits.read));
        // The socket takes so little or the client is past caring.
        let _ = self.stream.try_write(HEAD_TIMEOUT);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Pending => this.poll_reading(cx),
            outcome => {
                this.take_turn();
                if this.waiting == Waiting::Request {
                    this.waiting = Waiting::Head;
                    this.reading.start(this.limits.read);
                }
                outcome
            }
        }
    }
}

impl Socket {
    fn poll_writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.writing.stop();
            return outcome;
        }
        ready!(self.writing.poll(cx, self.limits.write));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.poll_writing(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.poll_writing(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.signals.torn.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}
