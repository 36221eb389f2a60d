//! A request's body as a client sends it, over HTTP/1.1 or HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Inbound {
    Empty,
    Http1(Incoming),
    Http2(Streamed),
}

/// A body that comes over HTTP/2.
#[derive(Debug)]
pub(crate) struct Streamed {
    stream: RecvStream,
    /// Bytes still to come, if the request says how many there are. That it keeps its word is seen to by h2.
    remaining: Option<u64>,
    /// Bytes that were handed on and whose room in the window the client has not got back. It gets it when the next piece is asked
    /// for, so that a worker that takes its time slows the client down.
    owed: usize,
    /// All data was read.
    data_ended: bool,
}

/// Why a body ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InboundError {
    #[error(transparent)]
    Http1(hyper::Error),
    #[error(transparent)]
    Http2(h2::Error),
}

impl Inbound {
    /// The body that `stream` brings, of `length` bytes if that is known.
    pub(crate) fn http2(stream: RecvStream, length: Option<u64>) -> Self {
        if stream.is_end_stream() {
            return Self::Empty;
        }
        Self::Http2(Streamed {
            stream,
            remaining: length,
            owed: 0,
            data_ended: false,
        })
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = InboundError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InboundError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http1(incoming) => Pin::new(incoming)
                .poll_frame(cx)
                .map_err(InboundError::Http1),
            Self::Http2(streamed) => streamed.poll_frame(cx).map_err(InboundError::Http2),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(streamed) => streamed.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(streamed) => match streamed.remaining {
                Some(remaining) => SizeHint::with_exact(remaining),
                None => SizeHint::new(),
            },
        }
    }
}

impl Streamed {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let owed = std::mem::take(&mut self.owed);
        if owed > 0 {
            // It fails for a stream that is gone, which the next line tells.
            let _ = self.stream.flow_control().release_capacity(owed);
        }
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    self.owed = bytes.len();
                    if let Some(remaining) = &mut self.remaining {
                        *remaining = remaining.saturating_sub(bytes.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                // The client wants no answer any more, and has sent all: the worker's answer ends the exchange.
                Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) => {
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}
