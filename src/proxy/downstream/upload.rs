//! A request's body on its way to the worker.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::request_body::Inbound;
use super::signals::Signals;
use crate::proxy::wire::headers;
use crate::proxy::wire::pace::{Pace, RateBudget};

/// How long a client that asked "may I send?" waits for a worker that does not say. RFC 9110 forbids to wait for ever: many never say.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Why a body did not arrive whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadError {
    /// The client paused for too long, in one go or all in all.
    #[error("the client was too slow in sending the request's body")]
    Slow,
    /// The client went away, or broke the framing.
    #[error("the client broke off the request's body")]
    Torn,
    /// It is longer than its route allows.
    #[error("the request's body is longer than {0} bytes")]
    Long(u64),
    /// The worker took no more of it, which it may: it may have answered.
    #[error("the request's body was not taken to its end")]
    Unwanted,
    /// The worker took no more of it in the time it has.
    #[error("the request's body was not taken in time")]
    Stalled,
}

/// How far a body has come, known to both the body and the one that waits for the answer.
#[derive(Debug)]
pub(crate) struct Upload {
    /// When the worker last took a piece.
    progress: Cell<Instant>,
    state: Cell<Option<Result<(), UploadError>>>,
    /// Who is to hear that it does not come.
    watcher: RefCell<Option<Waker>>,
    /// The client's socket, which wants to know whether the client is still sending.
    signals: Arc<Signals>,
}

/// The body as it is passed on.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// No body.
    Empty,
    /// Piece by piece as the client sends it and the worker takes it. In a box, since most requests have none and all are moved about.
    Streaming(Box<Streaming>),
}

#[derive(Debug)]
pub(crate) struct Streaming {
    incoming: Inbound,
    upload: Rc<Upload>,
    /// The client's time.
    budget: RateBudget,
    /// Most bytes, and those that have passed.
    most: u64,
    passed: u64,
    /// It waits for the worker to say that it is welcome.
    waits: bool,
    /// Which of its trailers pass, see [`headers::trailers_to_worker`].
    odd_names: bool,
}

impl Upload {
    fn new(signals: Arc<Signals>) -> Self {
        Self {
            progress: Cell::new(Instant::now()),
            state: Cell::new(None),
            watcher: RefCell::new(None),
            signals,
        }
    }

    /// No more of it is passed on.
    pub(crate) fn end(&self, outcome: Result<(), UploadError>) {
        self.state.set(Some(outcome));
        if outcome.is_ok() {
            self.signals.set_unread(false);
        } else if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }

    /// Why the exchange is to be broken off, if it is: unless the worker wants no more, its body must come.
    pub(crate) fn failure(&self) -> Option<UploadError> {
        let error = self.state.get()?.err()?;
        (error != UploadError::Unwanted).then_some(error)
    }

    /// Wakes `cx` when that becomes known, if it is not.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        if self.state.get().is_none() {
            *self.watcher.borrow_mut() = Some(cx.waker().clone());
        }
    }

    /// Whether all of it was passed on.
    pub(crate) fn is_whole(&self) -> bool {
        self.state.get() == Some(Ok(()))
    }

    /// `None` while pieces are still to come, else how it ended.
    pub(crate) fn outcome(&self) -> Option<Result<(), UploadError>> {
        self.state.get()
    }

    /// When the worker last took a piece.
    pub(crate) fn progress(&self) -> Instant {
        self.progress.get()
    }
}

impl RequestBody {
    /// Passes `incoming` on as it comes, `most` bytes at least at `pace`; if it `waits`, not before the worker wants it.
    pub(crate) fn streaming(
        incoming: Inbound,
        pace: Pace,
        most: u64,
        waits: bool,
        odd_names: bool,
        signals: &Arc<Signals>,
    ) -> (Self, Rc<Upload>) {
        let upload = Rc::new(Upload::new(signals.clone()));
        let body = Self::Streaming(Box::new(Streaming {
            incoming,
            upload: upload.clone(),
            budget: RateBudget::new(pace),
            most,
            passed: 0,
            waits,
            odd_names,
        }));
        (body, upload)
    }

    /// The worker has said that it wants it.
    pub(crate) fn welcome(&mut self) {
        if let Self::Streaming(streaming) = self {
            streaming.waits = false;
            streaming.budget.clock().stop();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streaming(streaming) => streaming.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(streaming) => streaming.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(streaming) => streaming.incoming.size_hint(),
        }
    }
}

impl Streaming {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        ready!(self.poll_welcome(cx));
        let end = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => {
                ready!(self.budget.poll(cx));
                Err(UploadError::Slow)
            }
            Poll::Ready(Some(Ok(frame))) if self.is_too_long(&frame) => {
                Err(UploadError::Long(self.most))
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.budget.moved(frame.data_ref().map_or(0, Bytes::len));
                self.upload.progress.set(Instant::now());
                // Nothing comes after trailers, and nobody asks for it.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.upload.end(Ok(()));
                }
                let frame = frame.into_trailers().map(|mut trailers| {
                    headers::trailers_to_worker(&mut trailers, self.odd_names);
                    Frame::trailers(trailers)
                });
                return Poll::Ready(Some(Ok(frame.unwrap_or_else(|data| data))));
            }
            Poll::Ready(Some(Err(_))) => Err(UploadError::Torn),
            Poll::Ready(None) => Ok(()),
        };
        self.upload.end(end);
        Poll::Ready(end.err().map(Err))
    }

    /// Whether there is more than there may be with this.
    fn is_too_long(&mut self, frame: &Frame<Bytes>) -> bool {
        self.passed += frame.data_ref().map_or(0, Bytes::len) as u64;
        self.passed > self.most
    }

    /// Polling the client's body is what tells the client "100 Continue", so it waits for the worker's.
    fn poll_welcome(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waits {
            ready!(self.budget.clock().poll(cx, CONTINUE_WAIT));
            self.budget.clock().stop();
            self.waits = false;
        }
        Poll::Ready(())
    }
}
