//! A response's body on its way to the client.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tracing::warn;

use super::access::Entry;
use super::compression::Encoding;
use super::files::FileBody;
use super::flow::Deadline;
use super::generation::Ticket;
use super::patience::Patience;
use super::pool::{Coming, Upstream};
use super::socket::{Answering, Signals};
use super::upload::Upload;

/// What hyper's server sends.
pub(super) struct Body {
    kind: Kind,
    /// The connection waits for us as long as there is a body.
    answering: Option<Answering>,
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
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Bytes>>>;

enum Kind {
    Empty,
    Full(Option<Bytes>),
    /// In a box: an answer is moved from hand to hand.
    Relay(Box<Relay>),
    File(FileBody),
    Pieces(Pieces),
}

/// A worker's body, and all that is held until it has ended.
pub(super) struct Relay {
    pub(super) feed: Feed,
    pub(super) upstream: Rc<Upstream>,
    /// The request's place in the count, as long as it is there.
    pub(super) ticket: Option<Ticket>,
    /// The request's own body, which may still be on its way.
    pub(super) upload: Option<Rc<Upload>>,
    /// Borrowed from the client's connection, so that not every response needs a timer.
    pub(super) patience: Patience,
    pub(super) spare: Rc<Cell<Option<Patience>>>,
    /// Longest silence of the worker.
    pub(super) limit: Duration,
    /// When all is to be over.
    pub(super) deadline: Deadline,
    /// The client's socket, when its end is all that tells the client where the body ends.
    pub(super) until_close: Option<Arc<Signals>>,
}

/// Where a worker's body comes from.
pub(super) enum Feed {
    Coming(Coming),
    Ended,
    /// It has ended before its time.
    Torn,
}

impl Body {
    /// No body.
    pub(super) fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    /// A short body of our own.
    pub(super) fn full(bytes: Bytes) -> Self {
        Self::of(Kind::Full(Some(bytes)))
    }

    /// A body of our own that has no end before its time.
    pub(super) fn pieces(pieces: Pieces) -> Self {
        Self::of(Kind::Pieces(pieces))
    }

    /// Sends `tail` at the end.
    pub(super) fn append(&mut self, tail: Bytes) {
        self.tail = Some(tail);
    }

    /// Compresses all of it.
    pub(super) fn encode(&mut self, encoding: Encoding) {
        self.encoding = Some(Box::new(encoding));
    }

    /// A worker's body.
    pub(super) fn relay(relay: Relay) -> Self {
        Self::of(Kind::Relay(Box::new(relay)))
    }

    /// A part of a file.
    pub(super) fn file(file: FileBody) -> Self {
        Self::of(Kind::File(file))
    }

    /// Marks the end of the answer for the client's socket.
    pub(super) fn answering(&mut self, answering: Answering) {
        self.answering = Some(answering);
    }

    /// Notes the answer in the access log.
    pub(super) fn note(&mut self, entry: Rc<Entry>) {
        self.entry = Some(entry);
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            answering: None,
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
            Kind::Relay(relay) => relay.feed.is_end(),
            Kind::File(file) => file.remaining() == 0,
            Kind::Pieces(_) => false,
        }
    }

    fn hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Relay(relay) => match &relay.feed {
                Feed::Coming(coming) => coming.size_hint(),
                Feed::Ended => SizeHint::with_exact(0),
                Feed::Torn => SizeHint::new(),
            },
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

impl Feed {
    fn is_end(&self) -> bool {
        match self {
            Self::Coming(coming) => coming.is_end(),
            Self::Ended => true,
            Self::Torn => false,
        }
    }
}

impl Relay {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let coming = match &mut self.feed {
            Feed::Coming(coming) => coming,
            Feed::Ended => return Poll::Ready(None),
            Feed::Torn => return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))),
        };
        match coming.poll_frame(cx) {
            Poll::Ready(Some(Ok(_))) if self.deadline.is_over() => self.tear_late(),
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.stop();
                // Nothing comes after trailers, and nobody asks for it.
                if frame.is_trailers() || coming.is_end() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => self.tear(error),
            Poll::Pending => {
                // A worker that waits for the rest of the request has nothing more to say.
                if let Some(upload) = &self.upload {
                    upload.watch(cx);
                    if let Some(error) = upload.failure() {
                        return self.tear(io::Error::other(error));
                    }
                }
                ready!(self.patience.poll(cx, self.deadline.cap(self.limit)));
                if self.deadline.is_over() {
                    return self.tear_late();
                }
                let silent = format!("nothing came for {:?}", self.limit);
                self.tear(io::Error::new(io::ErrorKind::TimedOut, silent))
            }
        }
    }

    /// All has come.
    fn end(&mut self) {
        if let Feed::Coming(coming) = std::mem::replace(&mut self.feed, Feed::Ended)
            && self.upload.as_ref().is_none_or(|upload| upload.is_whole())
            && let Some(connection) = coming.into_connection()
        {
            self.upstream.put(connection);
        }
        self.ticket = None;
    }

    /// The request has had its time.
    fn tear_late(&mut self) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let late = "it was not over in the time a request has";
        self.tear(io::Error::new(io::ErrorKind::TimedOut, late))
    }

    /// What has come is not all there was; the client must be able to see it.
    fn tear(&mut self, error: io::Error) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.feed = Feed::Torn;
        if let Some(ticket) = self.ticket.take() {
            let instance = &ticket.generation().instance;
            ticket.generation().complain(|| {
                warn!(
                    tq.worker = %instance.worker,
                    tq.generation = instance.generation.0,
                    "worker '{}' broke off a response ({}), passing that on to the client",
                    instance.worker,
                    source(&error),
                );
            });
        }
        if let Some(signals) = &self.until_close {
            signals.tear();
        }
        Poll::Ready(Some(Err(error)))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut patience = std::mem::take(&mut self.patience);
        patience.stop();
        self.spare.set(Some(patience));
    }
}

/// The innermost reason, which is the one that says something.
pub(super) fn source(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
