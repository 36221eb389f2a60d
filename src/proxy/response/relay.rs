//! A worker's body on its way to the client, and all that is held until it has ended.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tracing::warn;

use crate::proxy::downstream::signals::Signals;
use crate::proxy::downstream::upload::Upload;
use crate::proxy::upstream::pool::{Coming, Upstream};
use crate::proxy::upstream::ticket::Ticket;
use crate::proxy::wire::cause;
use crate::proxy::wire::deadline::Deadline;
use crate::proxy::wire::timer::Timer;

/// A worker's body, and all that is held until it has ended.
pub(crate) struct Relay {
    pub(crate) feed: Feed,
    pub(crate) upstream: Rc<Upstream>,
    /// The request's place in the count, as long as it is there.
    pub(crate) ticket: Option<Ticket>,
    /// The request's own body, which may still be on its way.
    pub(crate) upload: Option<Rc<Upload>>,
    /// Borrowed from the client's connection, so that not every response needs a timer.
    pub(crate) timer: Timer,
    pub(crate) spare: Rc<Cell<Option<Timer>>>,
    /// Longest silence of the worker.
    pub(crate) limit: Duration,
    /// When all is to be over.
    pub(crate) deadline: Deadline,
    /// The client's socket, when its end is all that tells the client where the body ends.
    pub(crate) until_close: Option<Arc<Signals>>,
}

/// Where a worker's body comes from.
pub(crate) enum Feed {
    Coming(Coming),
    Ended,
    /// It has ended before its time.
    Torn,
}

impl Relay {
    /// Whether all has come.
    pub(super) fn is_end(&self) -> bool {
        match &self.feed {
            Feed::Coming(coming) => coming.is_end(),
            Feed::Ended => true,
            Feed::Torn => false,
        }
    }

    /// How much is still to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.feed {
            Feed::Coming(coming) => coming.size_hint(),
            Feed::Ended => SizeHint::with_exact(0),
            Feed::Torn => SizeHint::new(),
        }
    }

    /// The next piece.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let coming = match &mut self.feed {
            Feed::Coming(coming) => coming,
            Feed::Ended => return Poll::Ready(None),
            Feed::Torn => return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))),
        };
        match coming.poll_frame(cx) {
            Poll::Ready(Some(Ok(_))) if self.deadline.is_over() => self.tear_late(),
            Poll::Ready(Some(Ok(frame))) => {
                self.timer.stop();
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
                ready!(self.timer.poll(cx, self.deadline.cap(self.limit)));
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
                    cause::innermost(&error),
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
        let mut timer = std::mem::take(&mut self.timer);
        timer.stop();
        self.spare.set(Some(timer));
    }
}
