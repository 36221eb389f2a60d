//! One thread's connections to one instance of a generation: the last used is used first, so those that are too many grow old and are closed.

use std::cell::{Cell, OnceCell, RefCell};
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::dial::{is_passing, patiently};
use super::generation::{Generation, InFlight};
use super::http1::{self, ExchangeError, ResponseError, Switched};
use super::transport::Transport;
use crate::proxy::downstream::interim::InterimSink;
use crate::proxy::downstream::upload::RequestBody;
use crate::proxy::wire::cause;
use crate::proxy::wire::deadline::Deadline;
use crate::proxy::wire::framing;
use crate::proxy::wire::headers;
use crate::proxy::wire::origin::Origin;
use crate::route::{Address, Protocol};

/// Most connections kept unused, for each thread and instance.
const IDLE_MAX: usize = 256;

/// One thread's way to one instance of a generation.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) generation: Arc<Generation>,
    pub(crate) address: Address,
    pub(crate) protocol: Protocol,
    shard: usize,
    /// Requests under way, of which only a generation with several instances keeps count.
    under_way: Cell<u32>,
    idle: RefCell<Vec<Idle>>,
    /// What looks after those.
    watch: OnceCell<Task>,
    /// Whom to wake when one of them has something to say.
    watcher: RefCell<Option<Waker>>,
    /// Of a worker that speaks HTTP/2: the connection that all requests share.
    shared: RefCell<Option<Shared>>,
    /// How long an unused connection is kept.
    idle_limit: Cell<Duration>,
    /// No table leads here any more: connections are not kept.
    retired: Cell<bool>,
}

/// A worker's connection that all requests share.
#[derive(Debug)]
struct Shared {
    share: Share,
    /// When a request on it has ended last.
    since: Instant,
}

#[derive(Debug)]
struct Idle {
    connection: http1::Connection,
    since: Instant,
}

/// A connection to a worker. Dropping it is how a request is called off.
#[derive(Debug)]
pub(crate) enum Connection {
    Http1(http1::Connection),
    Http2(Share),
}

/// A share in a connection over HTTP/2. Its task ends with the last.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    sender: http2::SendRequest<RequestBody>,
    heard: Rc<Cell<u64>>,
    task: Rc<Task>,
}

/// What drives a connection, until this is dropped.
#[derive(Debug)]
struct Task(AbortHandle);

/// Runs what hyper needs besides: on this thread.
#[derive(Clone, Copy, Debug)]
struct Local;

/// A request as its worker wants it.
#[derive(Debug)]
pub(crate) enum Message {
    Http1(http1::Request),
    Http2(Box<request::Parts>, RequestBody),
}

/// What follows the head of a worker's answer.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of the body, and the connection if it can be used again.
    Whole(Bytes, Option<Connection>),
    Coming(Coming),
    Switched(Switched),
}

/// A body that is still to come, and the connection it comes over.
#[derive(Debug)]
pub(crate) enum Coming {
    Http1(http1::Coming),
    Http2(Incoming, Share),
}

impl Upstream {
    /// A way to `generation` for thread number `shard`, without connections yet.
    pub(crate) fn new(
        generation: Arc<Generation>,
        shard: usize,
        address: Address,
        protocol: Protocol,
    ) -> Self {
        Self {
            generation,
            address,
            protocol,
            shard,
            under_way: Cell::new(0),
            idle: RefCell::default(),
            watch: OnceCell::new(),
            watcher: RefCell::default(),
            shared: RefCell::default(),
            idle_limit: Cell::default(),
            retired: Cell::new(false),
        }
    }

    /// Counts a request in, see [`Generation::enter`].
    pub(crate) fn enter(&self) -> InFlight {
        self.generation.enter(self.shard)
    }

    /// A request goes this way.
    pub(crate) fn begin(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    /// It has ended.
    pub(crate) fn end(&self) {
        self.under_way.set(self.under_way.get() - 1);
    }

    /// Requests between the two.
    pub(crate) fn under_way(&self) -> u32 {
        self.under_way.get()
    }

    /// How long an unused connection is kept; zero is for ever.
    pub(crate) fn set_idle(&self, limit: Duration) {
        self.idle_limit.set(limit);
    }

    /// Closes what is unused now, and later what comes back.
    pub(crate) fn retire(&self) {
        self.retired.set(true);
        let idle = (self.idle.take(), self.shared.take());
        drop(idle);
    }

    #[cfg(test)]
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// A connection that was used before and still stands.
    pub(crate) fn take(&self) -> Option<Connection> {
        if self.protocol == Protocol::Http2 {
            let shared = self.shared.borrow();
            let share = &shared.as_ref()?.share;
            return (!share.sender.is_closed()).then(|| Connection::Http2(share.clone()));
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, .. }) = idle.pop() {
            if !connection.is_over(Waker::noop()) {
                return Some(Connection::Http1(connection));
            }
        }
        None
    }

    /// Gives back a connection whose last exchange has ended well.
    pub(crate) fn put(self: &Rc<Self>, connection: Connection) {
        let connection = match connection {
            Connection::Http1(connection) => connection,
            Connection::Http2(_) => {
                if let Some(shared) = self.shared.borrow_mut().as_mut() {
                    shared.since = Instant::now();
                }
                return;
            }
        };
        // One to a worker that speaks FastCGI has had its one request.
        if self.protocol != Protocol::Http || self.retired.get() {
            return;
        }
        let watcher = self.watcher.borrow();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX && !connection.is_over(watcher.as_ref().unwrap_or(Waker::noop())) {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
        self.watch.get_or_init(|| self.watch());
    }

    /// Closes unused connections that have ended, or that bring what nobody has asked for, as soon as that is known.
    fn watch(self: &Rc<Self>) -> Task {
        let upstream = Rc::downgrade(self);
        let watch = poll_fn(move |cx| {
            let Some(upstream) = upstream.upgrade() else {
                return Poll::Ready(());
            };
            let mut idle = upstream.idle.borrow_mut();
            idle.retain(|idle| !idle.connection.is_over(cx.waker()));
            *upstream.watcher.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        });
        Task(tokio::task::spawn_local(watch).abort_handle())
    }

    /// Closes what has been unused for too long; says when to look again.
    pub(crate) fn reap(&self, now: Instant) -> Option<Instant> {
        let limit = self.idle_limit.get();
        if limit.is_zero() {
            return None;
        }
        let mut shared = self.shared.borrow_mut();
        if shared
            .as_ref()
            .is_some_and(|shared| shared.is_unused_since(now - limit))
        {
            *shared = None;
        }
        let mut idle = self.idle.borrow_mut();
        let old = idle.partition_point(|idle| idle.since + limit <= now);
        idle.drain(..old);
        // One that comes back after this look is not too old before then.
        Some(idle.first().map_or(now, |oldest| oldest.since) + limit)
    }

    /// Opens a connection within `limit`, on which the worker may take `write_limit` to accept a piece; zero is no limit. `patient`: also
    /// when its socket refuses for a moment, and while its process is on its way up. `origin` is that of the request it is for.
    ///
    /// # Errors
    /// When the worker can not be reached within `limit`, within a second or so of its socket refusing, and before `deadline`.
    pub(crate) async fn connect(
        &self,
        limit: Duration,
        write_limit: Duration,
        patient: bool,
        deadline: Deadline,
        origin: &Origin,
    ) -> io::Result<Connection> {
        let since = Instant::now();
        let line = loop {
            let refused = match self.dial(limit, write_limit, patient, origin).await {
                Err(error) if patient && is_passing(&error) => error,
                dialed => break dialed?,
            };
            // What takes this long to listen is a process that starts, or it is down.
            if deadline.is_over() || self.generation.start_left(since.elapsed()).is_none() {
                return Err(refused);
            }
        };
        match self.protocol {
            Protocol::Http | Protocol::FastCgi(_) => {
                Ok(Connection::Http1(http1::Connection::new(line)))
            }
            Protocol::Http2 => self.share(line).await.map(Connection::Http2),
        }
    }

    async fn dial(
        &self,
        limit: Duration,
        write_limit: Duration,
        patient: bool,
        origin: &Origin,
    ) -> io::Result<Transport> {
        let (address, protocol) = (&self.address, &self.protocol);
        let dialed = patiently(patient, || {
            Transport::connect(address, protocol, &self.generation, write_limit, origin)
        });
        if limit.is_zero() {
            return dialed.await;
        }
        let dialed = tokio::time::timeout(limit, dialed).await;
        dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn share(&self, line: Transport) -> io::Result<Share> {
        let heard = line.heard();
        let (sender, connection) = http2::handshake(Local, TokioIo::new(line))
            .await
            .map_err(io::Error::other)?;
        // How it ends is told to whoever waits for an answer on it.
        let task = tokio::task::spawn_local(connection);
        let share = Share {
            sender,
            heard,
            task: Rc::new(Task(task.abort_handle())),
        };
        if !self.retired.get() {
            *self.shared.borrow_mut() = Some(Shared {
                share: share.clone(),
                since: Instant::now(),
            });
        }
        Ok(share)
    }
}

impl Message {
    /// Its method.
    pub(crate) fn method(&self) -> &Method {
        match self {
            Self::Http1(request) => request.method(),
            Self::Http2(parts, _) => &parts.method,
        }
    }
}

impl Connection {
    /// Sends a request and waits for the head of its answer. Interim answers are told to `sink`.
    ///
    /// # Errors
    /// When no answer comes.
    pub(crate) async fn exchange(
        self,
        message: &mut Message,
        sink: Option<&InterimSink<'_>>,
    ) -> Result<Response<Content>, ExchangeError> {
        match (self, message) {
            (Self::Http1(connection), Message::Http1(request)) => {
                let answer = connection.exchange(request, sink).await?;
                Ok(answer.map(|content| match content {
                    http1::Content::Whole(bytes, connection) => {
                        Content::Whole(bytes, connection.map(Self::Http1))
                    }
                    http1::Content::Coming(coming) => Content::Coming(Coming::Http1(coming)),
                    http1::Content::Switched(switched) => Content::Switched(switched),
                }))
            }
            (Self::Http2(share), Message::Http2(parts, body)) => {
                // Not a part of this future: most workers do without.
                Box::pin(share.exchange(parts, body)).await
            }
            // A way to a worker has connections and messages of one protocol alone.
            _ => Err(ExchangeError::Unsent(io::ErrorKind::Unsupported.into())),
        }
    }
}

impl Share {
    async fn exchange(
        mut self,
        parts: &request::Parts,
        body: &mut RequestBody,
    ) -> Result<Response<Content>, ExchangeError> {
        let before = self.heard.get();
        let whole = std::mem::replace(body, RequestBody::Empty);
        let request = Request::from_parts(parts.clone(), whole);
        let mut error = match self.sender.try_send_request(request).await {
            Ok(response) => return self.response(response).map_err(ExchangeError::Malformed),
            Err(error) => error,
        };
        let unsent = error.take_message();
        let error = into_io(error.error());
        if let Some(request) = unsent {
            *body = request.into_body();
            return Err(ExchangeError::Unsent(error));
        }
        Err(match self.heard.get() == before {
            true => ExchangeError::Unheard(error),
            false => ExchangeError::Broken(error),
        })
    }

    fn response(
        self,
        mut response: Response<Incoming>,
    ) -> Result<Response<Content>, ResponseError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let what = "its answer over HTTP/2 has the status 101, which there is none of";
            return Err(ResponseError::Ambiguous(what));
        }
        framing::check(response.headers()).map_err(ResponseError::Ambiguous)?;
        headers::to_client(response.headers_mut());
        Ok(response.map(|incoming| match incoming.is_end_stream() {
            true => Content::Whole(Bytes::new(), Some(Connection::Http2(self))),
            false => Content::Coming(Coming::Http2(incoming, self)),
        }))
    }
}

impl Shared {
    /// Whether no request was on it since `then`, and none is.
    fn is_unused_since(&self, then: Instant) -> bool {
        self.since <= then && Rc::strong_count(&self.share.task) == 1
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

impl Coming {
    /// The next piece; `None` when all has come.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self {
            Self::Http1(coming) => coming.poll_frame(cx),
            Self::Http2(incoming, _) => Pin::new(incoming).poll_frame(cx).map_err(io::Error::other),
        }
    }

    /// Whether all has come.
    pub(crate) fn is_end(&self) -> bool {
        match self {
            Self::Http1(coming) => coming.is_end(),
            Self::Http2(incoming, _) => incoming.is_end_stream(),
        }
    }

    /// How much is still to come.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(coming) => coming.size_hint(),
            Self::Http2(incoming, _) => incoming.size_hint(),
        }
    }

    /// The connection, if all has come and it can be used again.
    pub(crate) fn into_connection(self) -> Option<Connection> {
        match self {
            Self::Http1(coming) => coming.into_connection().map(Connection::Http1),
            Self::Http2(_, share) => Some(Connection::Http2(share)),
        }
    }
}

/// The same, of the kind of its cause.
fn into_io(error: &hyper::Error) -> io::Error {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return io::Error::new(error.kind(), cause::innermost(error));
        }
        cause = error.source();
    }
    io::Error::other(cause::innermost(error))
}
