//! A response's body on its way to the client.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::access::Entry;
use super::compression::Encoding;
use super::relay::Relay;
use crate::proxy::downstream::signals::InFlightGuard;
use crate::proxy::wire::file_body::FileBody;

/// What hyper's server sends.
pub(crate) struct Body {
    kind: Kind,
    /// The connection waits for us as long as there is a body.
    in_flight: Option<InFlightGuard>,
    /// Where the answer is noted, on a route with an access log.
    entry: Option<Rc<Entry>>,
    /// What comes after the end of all else.
    tail: Option<Bytes>,
    /// What all of it goes through.
    encoding: Option<Box<Encoding>>,
    /// Nothing has come since who sends it was last told to wait.
    is_quiet: bool,
    /// Why it breaks off, until that is told.
    torn: Option<io::Error>,
}

/// What is sent as it comes.
pub(crate) type Pieces = Pin<Box<dyn Stream<Item = Bytes>>>;

enum Kind {
    Empty,
    Full(Option<Bytes>),
    /// In a box: an answer is moved from hand to hand.
    Relay(Box<Relay>),
    File(FileBody),
    Pieces(Pieces),
}

impl Body {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    /// A short body of our own.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::of(Kind::Full(Some(bytes)))
    }

    /// A body of our own that has no end before its time.
    pub(crate) fn pieces(pieces: Pieces) -> Self {
        Self::of(Kind::Pieces(pieces))
    }

    /// Sends `tail` at the end.
    pub(crate) fn append(&mut self, tail: Bytes) {
        self.tail = Some(tail);
    }

    /// Compresses all of it.
    pub(crate) fn encode(&mut self, encoding: Encoding) {
        self.encoding = Some(Box::new(encoding));
    }

    /// A worker's body.
    pub(crate) fn relay(relay: Relay) -> Self {
        Self::of(Kind::Relay(Box::new(relay)))
    }

    /// A part of a file.
    pub(crate) fn file(file: FileBody) -> Self {
        Self::of(Kind::File(file))
    }

    /// Marks the end of the answer for the client's socket.
    pub(crate) fn keep_in_flight(&mut self, in_flight: InFlightGuard) {
        self.in_flight = Some(in_flight);
    }

    /// Notes the answer in the access log.
    pub(crate) fn note(&mut self, entry: Rc<Entry>) {
        self.entry = Some(entry);
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            in_flight: None,
            entry: None,
            tail: None,
            encoding: None,
            is_quiet: false,
            torn: None,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let polled = match (this.torn.take(), &mut this.encoding) {
            (Some(error), _) => Poll::Ready(Some(Err(error))),
            (None, None) => poll_plain(&mut this.kind, &mut this.tail, cx),
            (None, Some(encoding)) => {
                let (kind, tail) = (&mut this.kind, &mut this.tail);
                encoding.poll_frame(cx, |cx| poll_plain(kind, tail, cx))
            }
        };
        let polled = this.after_all_before(polled, cx);
        if let Some(entry) = &this.entry {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => entry.sent(frame.data_ref().map_or(0, Bytes::len)),
                Poll::Ready(None) => entry.whole(),
                // It is not whole, whoever asks or does not ask for the end.
                Poll::Ready(Some(Err(_))) => this.entry = None,
                Poll::Pending => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.encoding {
            _ if self.torn.is_some() => false,
            None => self.tail.is_none() && self.is_spent(),
            Some(encoding) => encoding.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.encoding.is_some() {
            return SizeHint::new();
        }
        let mut hint = self.hint();
        let tail = self.tail.as_ref().map_or(0, Bytes::len) as u64;
        if tail > 0 {
            let (lower, upper) = (hint.lower() + tail, hint.upper().map(|upper| upper + tail));
            hint = SizeHint::new();
            hint.set_lower(lower);
            if let Some(upper) = upper {
                hint.set_upper(upper);
            }
        }
        hint
    }
}

impl Body {
    /// Holds a break back until what came before is written, of which hyper and h2 forget the rest when they are told. They write when
    /// they are told to wait, as much as the client's socket takes: who reads slowly may miss more.
    fn after_all_before(
        &mut self,
        polled: Poll<Option<io::Result<Frame<Bytes>>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match polled {
            Poll::Ready(Some(Err(error))) if !self.is_quiet => {
                self.torn = Some(error);
                self.is_quiet = true;
                // Not at once, before the others of its connection have had their turn.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                Poll::Pending
            }
            polled => {
                self.is_quiet = polled.is_pending();
                polled
            }
        }
    }

    /// Whether all that comes before the tail was sent.
    fn is_spent(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Relay(relay) => relay.is_end(),
            Kind::File(file) => file.remaining() == 0,
            Kind::Pieces(_) => false,
        }
    }

    fn hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Relay(relay) => relay.size_hint(),
            Kind::File(file) => SizeHint::with_exact(file.remaining()),
            Kind::Pieces(_) => SizeHint::new(),
        }
    }
}

/// The next piece as it comes.
fn poll_plain(
    kind: &mut Kind,
    tail: &mut Option<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Option<io::Result<Frame<Bytes>>>> {
    let polled = match kind {
        Kind::Empty => Poll::Ready(None),
        Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        Kind::Relay(relay) => relay.poll_frame(cx),
        Kind::File(file) => file.poll_frame(cx),
        Kind::Pieces(pieces) => {
            let piece = ready!(pieces.as_mut().poll_next(cx));
            Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
        }
    };
    match (polled, tail.is_some()) {
        (Poll::Ready(None), true) => Poll::Ready(tail.take().map(|tail| Ok(Frame::data(tail)))),
        // Nothing comes after trailers.
        (Poll::Ready(Some(Ok(frame))), true) if frame.is_trailers() => {
            Poll::Ready(tail.take().map(|tail| Ok(Frame::data(tail))))
        }
        (polled, _) => polled,
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // Who sends it does not ask for the end of a body whose length is known.
        if let Some(entry) = self.entry.take().filter(|_| self.is_end_stream()) {
            entry.whole();
        }
    }
}
