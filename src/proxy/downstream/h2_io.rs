//! One stream of an HTTP/2 connection as bytes both ways: a WebSocket (RFC 8441).

use crate::proxy::wire::unread::hand_on;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::signals::InFlightGuard;

/// The two halves of a stream.
#[derive(Debug)]
pub(crate) struct H2Io {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// What was received and not yet read.
    unread: Bytes,
    /// Our last word is said.
    closed: bool,
    /// The connection is not idle as long as this lives.
    _in_flight: InFlightGuard,
}

impl H2Io {
    /// A stream whose request was answered with 200.
    pub(crate) fn new(
        send: SendStream<Bytes>,
        receive: RecvStream,
        in_flight: InFlightGuard,
    ) -> Self {
        Self {
            _in_flight: in_flight,
            send,
            receive,
            unread: Bytes::new(),
            closed: false,
        }
    }
}

impl AsyncRead for H2Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                Some(Ok(bytes)) => this.unread = bytes,
                Some(Err(error)) if is_farewell(&error) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = hand_on(&mut this.unread, buffer);
        let _ = this.receive.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.send.reserve_capacity(bytes.len());
        let room = match ready!(this.send.poll_capacity(cx)) {
            Some(Ok(room)) => room,
            Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        let count = room.min(bytes.len());
        let bytes = Bytes::copy_from_slice(&bytes[..count]);
        this.send.send_data(bytes, false).map_err(into_io)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.closed, true) {
            // It fails for a stream that the client has reset: then there is nobody to tell.
            let _ = this.send.send_data(Bytes::new(), true);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for H2Io {
    fn drop(&mut self) {
        if !self.closed {
            // As a TCP connection that is not closed in order (RFC 8441, 5).
            self.send.send_reset(Reason::CANCEL);
        }
    }
}

fn is_farewell(error: &h2::Error) -> bool {
    matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL))
}

fn into_io(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()),
        false => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}
