//! A connection to a worker, and what comes over it.

use crate::proxy::wire::unread::hand_on;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;
use tokio_util::task::AbortOnDropHandle;

use super::request::{Request, SendError, is_timeout};
use super::response::{Head, ResponseError, Rest, Taken};
use crate::proxy::downstream::interim::{Interim, InterimSink, MOST};
use crate::proxy::downstream::upload::UploadError;
use crate::proxy::upstream::transport::Transport;

/// Bytes read at once: of most answers, and of those that go on. It is what a client that reads slowly costs. From 128 KiB on malloc would
/// ask the kernel for each piece (mallopt(3), `M_MMAP_THRESHOLD`).
const FEW: usize = 16 << 10;
const MANY: usize = 120 << 10;

/// A connection to a worker.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Shared with the rest of a request that is sent while the answer comes.
    line: Rc<RefCell<Transport>>,
    heard: Rc<Cell<u64>>,
    /// What was read and is not taken yet.
    buffer: BytesMut,
    /// The last read brought as much as it could.
    is_flowing: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// The client's body did not come.
    Client(UploadError),
    /// The worker has none of the request.
    Unsent(io::Error),
    /// The connection broke before the worker said a word.
    Unheard(io::Error),
    /// It broke after that.
    Broken(io::Error),
    /// What it said was no answer.
    Malformed(ResponseError),
}

/// What follows the head of an answer.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of the body, and the connection if it can be used again.
    Whole(Bytes, Option<Connection>),
    /// A body that is still to come.
    Coming(Coming),
    /// Bytes of another protocol.
    Switched(Switched),
}

/// A body that is still to come.
#[derive(Debug)]
pub(crate) struct Coming {
    connection: Connection,
    rest: Rest,
    /// The worker keeps the connection open.
    is_kept: bool,
    sending: Option<Sending>,
}

/// What sends the rest of a request while its answer comes.
#[derive(Debug)]
struct Sending {
    is_sent: Rc<Cell<bool>>,
    _task: AbortOnDropHandle<()>,
}

/// A connection that is HTTP no more.
#[derive(Debug)]
pub(crate) struct Switched {
    line: Rc<RefCell<Transport>>,
    /// What came with the answer.
    unread: BytesMut,
}

impl Connection {
    /// A connection over `line`.
    pub(crate) fn new(line: Transport) -> Self {
        Self {
            heard: line.heard(),
            line: Rc::new(RefCell::new(line)),
            buffer: BytesMut::new(),
            is_flowing: false,
        }
    }

    /// Whether it has ended while nobody used it, or brings what nobody has asked for; if not, `watcher` is woken when it does.
    pub(crate) fn is_over(&self, watcher: &Waker) -> bool {
        self.line.borrow_mut().is_over(watcher)
    }

    /// Sends `request` until its answer has begun. Interim answers are told to `sink`.
    ///
    /// # Errors
    /// When no answer comes. The request is as it was before if nothing of it was sent.
    pub(crate) async fn exchange(
        mut self,
        request: &mut Request,
        sink: Option<&InterimSink<'_>>,
    ) -> Result<Response<Content>, ExchangeError> {
        request.rewind();
        let before = self.heard.get();
        let mut told = 0;
        // Why the worker takes no more of the request. It may have said something before.
        let mut deaf = None;
        let head = poll_fn(|cx| self.poll_head(cx, request, sink, &mut told, &mut deaf)).await;
        let head = head.map_err(|error| match error {
            ExchangeError::Broken(error) if self.heard.get() == before => {
                ExchangeError::Unheard(deaf.take().unwrap_or(error))
            }
            error => error,
        })?;
        Ok(self.response(head, request))
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request,
        sink: Option<&InterimSink<'_>>,
        told: &mut usize,
        deaf: &mut Option<io::Error>,
    ) -> Poll<Result<Head, ExchangeError>> {
        loop {
            if request.goes_on() {
                match request.poll_send(cx, &mut *self.line.borrow_mut()) {
                    Poll::Ready(Err(SendError::Client(error))) => {
                        return Poll::Ready(Err(ExchangeError::Client(error)));
                    }
                    Poll::Ready(Err(SendError::Worker(error))) if request.is_untouched() => {
                        return Poll::Ready(Err(ExchangeError::Unsent(error)));
                    }
                    Poll::Ready(Err(SendError::Worker(error))) if is_timeout(&error) => {
                        return Poll::Ready(Err(ExchangeError::Broken(error)));
                    }
                    Poll::Ready(Err(SendError::Worker(error))) => {
                        request.give_up(&error);
                        *deaf = Some(error);
                    }
                    Poll::Ready(Ok(())) | Poll::Pending => {}
                }
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => {
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it was closed");
                    return Poll::Ready(Err(ExchangeError::Broken(error)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(ExchangeError::Broken(error))),
            }
            while let Some(head) =
                Head::take(&mut self.buffer, request.method()).map_err(ExchangeError::Malformed)?
            {
                if head.status == StatusCode::SWITCHING_PROTOCOLS && !request.is_sent() {
                    let what = "it changed the protocol before it had the request";
                    let error = ExchangeError::Malformed(ResponseError::Ambiguous(what));
                    return Poll::Ready(Err(error));
                }
                if !head.is_interim() {
                    return Poll::Ready(Ok(head));
                }
                if head.status == StatusCode::CONTINUE {
                    request.welcome();
                } else if let Some(sink) = sink.filter(|_| *told < MOST) {
                    *told += 1;
                    sink.tell(Interim {
                        status: head.status,
                        headers: head.headers,
                    });
                }
            }
        }
    }

    /// The answer that begins with `head`, and what is to become of the request.
    fn response(mut self, mut head: Head, request: &mut Request) -> Response<Content> {
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = std::mem::take(&mut head.headers);
        if let Some(reason) = head.reason.take() {
            response.extensions_mut().insert(reason);
        }
        let has_come = match head.rest {
            Rest::Length(length) => usize::try_from(length)
                .ok()
                .filter(|length| *length <= self.buffer.len()),
            _ => None,
        };
        let content = match has_come {
            _ if head.status == StatusCode::SWITCHING_PROTOCOLS => Content::Switched(Switched {
                line: self.line,
                unread: self.buffer,
            }),
            Some(length) => {
                let body = self.buffer.split_to(length).freeze();
                let is_kept = head.is_kept && request.is_sent();
                Content::Whole(body, self.clean().filter(|_| is_kept))
            }
            None => {
                let is_kept = head.is_kept && (request.is_sent() || request.goes_on());
                let sending = request.take_rest().map(|rest| self.send(rest));
                Content::Coming(Coming {
                    connection: self,
                    rest: head.rest,
                    is_kept,
                    sending,
                })
            }
        };
        response.map(|()| content)
    }

    fn send(&self, mut rest: Request) -> Sending {
        let line = self.line.clone();
        let is_sent = Rc::new(Cell::new(false));
        let sent = is_sent.clone();
        let sending = async move {
            match poll_fn(|cx| rest.poll_send(cx, &mut *line.borrow_mut())).await {
                Ok(()) => sent.set(true),
                // Whoever waits for the answer knows.
                Err(SendError::Client(_)) => {}
                Err(SendError::Worker(error)) => rest.give_up(&error),
            }
        };
        Sending {
            is_sent,
            _task: AbortOnDropHandle::new(tokio::task::spawn_local(sending)),
        }
    }

    /// The connection as it is for the next exchange, if there is nothing that nobody has asked for.
    fn clean(mut self) -> Option<Self> {
        if !self.buffer.is_empty() {
            return None;
        }
        self.buffer = BytesMut::new();
        self.is_flowing = false;
        Some(self)
    }

    /// Reads what has come; zero bytes are the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut line = self.line.borrow_mut();
        let read = if self.is_flowing {
            // What was read last may be in somebody's hands, and the room behind it is as good as any.
            if self.buffer.capacity() - self.buffer.len() < FEW {
                self.buffer.reserve(MANY);
            }
            ready!(poll_read_buf(Pin::new(&mut *line), cx, &mut self.buffer))?
        } else {
            // Most answers are shorter by far, so that this costs a copy of a few bytes. What is read into is warm, and what is kept
            // is as large as what has come.
            let mut room = [const { MaybeUninit::uninit() }; FEW];
            let mut buffer = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut *line).poll_read(cx, &mut buffer))?;
            self.buffer.extend_from_slice(buffer.filled());
            buffer.filled().len()
        };
        self.is_flowing = read >= FEW;
        Poll::Ready(Ok(read))
    }
}

impl Coming {
    /// The next piece; `None` when it is whole.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match self.rest.take(&mut self.connection.buffer)? {
                Taken::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Taken::End => return Poll::Ready(None),
                Taken::Nothing => {}
            }
            if ready!(self.connection.poll_fill(cx))? == 0 {
                self.rest.close()?;
                self.is_kept = false;
            }
        }
    }

    /// Whether all has come.
    pub(crate) fn is_end(&self) -> bool {
        self.rest.is_nothing()
    }

    /// How much is still to come.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.rest {
            Rest::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::new(),
        }
    }

    /// The connection, if all has come, the worker has the whole request, and it can be used again.
    pub(crate) fn into_connection(self) -> Option<Connection> {
        let is_sent = self.sending.is_none_or(|sending| sending.is_sent.get());
        let is_over = is_sent && self.is_kept && self.rest.is_nothing();
        self.connection.clean().filter(|_| is_over)
    }
}

impl AsyncRead for Switched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            return Pin::new(&mut *this.line.borrow_mut()).poll_read(cx, buffer);
        }
        hand_on(&mut this.unread, buffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Switched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.line.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.line.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.line.borrow_mut()).poll_shutdown(cx)
    }
}
