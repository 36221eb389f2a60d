//! One thread's connections to one instance of a generation: the last used is used first, so those that are too many grow old and are closed.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::fastcgi::{self, Gateway};
use super::generation::{Generation, Ticket};
use super::interim::{Audience, Ear};
use super::patience::Patience;
use super::upload::RequestBody;
use crate::route::{Address, Protocol};

/// Most connections kept unused, for each thread and instance.
const IDLE_MAX: usize = 256;

/// Most bytes of an answer that are read before the client has taken what came before, and of its head in all. It is what a client that
/// reads slowly costs.
const BUFFER_MAX: usize = 128 << 10;

/// Pauses between attempts to connect. A listening socket whose backlog is full, or that systemd is about to put in place, gives no
/// event to wait for.
const CONNECT_PAUSES: [Duration; 7] = [
    Duration::from_millis(2),
    Duration::from_millis(8),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(120),
    Duration::from_millis(300),
    Duration::from_millis(500),
];

/// One thread's way to one instance of a generation.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) generation: Arc<Generation>,
    pub(super) address: Address,
    pub(super) protocol: Protocol,
    shard: usize,
    /// Requests under way, of which only a generation with several instances keeps count.
    under_way: Cell<u32>,
    idle: RefCell<Vec<Idle>>,
    /// Of a worker that speaks HTTP/2: the connection that all requests share.
    shared: RefCell<Option<Shared>>,
    /// How long an unused connection is kept.
    idle_limit: Cell<Duration>,
    /// No table leads here any more: connections are not kept.
    retired: Cell<bool>,
}

#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    heard: Arc<AtomicU64>,
    task: Rc<Task>,
    /// When a request on it has ended last.
    since: Instant,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection to a worker, or a share in one. Its task ends with the last, so dropping it is how a request is called off.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    /// Bytes the worker has sent, to tell a request it never saw from one it may have begun.
    heard: Arc<AtomicU64>,
    /// Who is to hear of interim answers.
    pub(super) audience: Arc<Audience>,
    _task: Rc<Task>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// What drives a connection, until this is dropped.
#[derive(Debug)]
struct Task(AbortHandle);

/// Runs what hyper needs besides: on this thread.
#[derive(Clone, Copy, Debug)]
struct Local;

/// The stream to a worker.
#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    FastCgi(Gateway),
}

/// A stream that notices a worker that does not take what it is sent.
#[derive(Debug)]
struct Wire {
    stream: Stream,
    heard: Arc<AtomicU64>,
    audience: Arc<Audience>,
    ear: Ear,
    patience: Patience,
    write_limit: Duration,
}

impl Upstream {
    /// A way to `generation` for thread number `shard`, without connections yet.
    pub(super) fn new(
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
            shared: RefCell::default(),
            idle_limit: Cell::default(),
            retired: Cell::new(false),
        }
    }

    /// Counts a request in, see [`Generation::enter`].
    pub(super) fn enter(&self) -> Ticket {
        self.generation.enter(self.shard)
    }

    /// A request goes this way.
    pub(super) fn begin(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.under_way.set(self.under_way.get() - 1);
    }

    /// Requests between the two.
    pub(super) fn under_way(&self) -> u32 {
        self.under_way.get()
    }

    /// How long an unused connection is kept; zero is for ever.
    pub(super) fn set_idle(&self, limit: Duration) {
        self.idle_limit.set(limit);
    }

    /// Closes what is unused now, and later what comes back.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        let idle = (self.idle.take(), self.shared.take());
        drop(idle);
    }

    #[cfg(test)]
    pub(super) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// A connection that was used before and still stands.
    pub(super) fn take(&self) -> Option<Connection> {
        if self.protocol == Protocol::Http2 {
            let shared = self.shared.borrow();
            let shared = shared.as_ref().filter(|shared| !shared.sender.is_closed());
            return shared.map(Shared::share);
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, .. }) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// Gives back a connection whose last exchange has ended well.
    pub(super) fn put(&self, connection: Connection) {
        match self.protocol {
            Protocol::Http => {}
            // It has had its one request.
            Protocol::FastCgi(_) => return,
            Protocol::Http2 => {
                if let Some(shared) = self.shared.borrow_mut().as_mut() {
                    shared.since = Instant::now();
                }
                return;
            }
        }
        let mut idle = self.idle.borrow_mut();
        if !self.retired.get() && idle.len() < IDLE_MAX && !connection.is_closed() {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    /// Closes what has been unused for too long; says when to look again.
    pub(super) fn reap(&self, now: Instant) -> Option<Instant> {
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
    /// when its socket refuses for a moment.
    ///
    /// # Errors
    /// When the worker can not be reached within `limit`, and within a second or so of its socket refusing.
    pub(super) async fn connect(
        &self,
        limit: Duration,
        write_limit: Duration,
        patient: bool,
    ) -> io::Result<Connection> {
        let stream = if limit.is_zero() {
            self.dial(patient).await?
        } else {
            match tokio::time::timeout(limit, self.dial(patient)).await {
                Ok(stream) => stream?,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        };
        let heard = Arc::<AtomicU64>::default();
        let audience = Arc::<Audience>::default();
        let wire = Wire {
            stream,
            heard: heard.clone(),
            audience: audience.clone(),
            ear: Ear::default(),
            patience: Patience::default(),
            write_limit,
        };
        if self.protocol == Protocol::Http2 {
            return self.connect2(wire, heard).await;
        }
        let handshake = http1::Builder::new()
            .max_buf_size(BUFFER_MAX)
            .handshake(TokioIo::new(wire));
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        // How it ends is told to whoever waits for an answer on it.
        let task = tokio::task::spawn_local(connection.with_upgrades());
        Ok(Connection {
            sender: Sender::Http1(sender),
            heard,
            audience,
            _task: Rc::new(Task(task.abort_handle())),
        })
    }

    async fn connect2(&self, wire: Wire, heard: Arc<AtomicU64>) -> io::Result<Connection> {
        let (sender, connection) = http2::handshake(Local, TokioIo::new(wire))
            .await
            .map_err(io::Error::other)?;
        let task = tokio::task::spawn_local(connection);
        let shared = Shared {
            sender,
            heard,
            task: Rc::new(Task(task.abort_handle())),
            since: Instant::now(),
        };
        let connection = shared.share();
        if !self.retired.get() {
            *self.shared.borrow_mut() = Some(shared);
        }
        Ok(connection)
    }

    async fn dial(&self, patient: bool) -> io::Result<Stream> {
        let pauses: &[Duration] = if patient { &CONNECT_PAUSES } else { &[] };
        let mut pauses = pauses.iter();
        loop {
            match Stream::connect(self).await {
                Err(error) if is_passing(&error) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Err(error),
                },
                outcome => return outcome,
            }
        }
    }
}

/// Whether a refusal may be over in a moment: the backlog is full, or the socket is just being put in place.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
    )
}

impl Connection {
    /// Bytes heard from the worker so far.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Sends a request. The answer's connection is not used for another before it has ended.
    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<>
    {
        match &mut self.sender {
            Sender::Http1(sender) => Either::Left(sender.try_send_request(request)),
            Sender::Http2(sender) => Either::Right(sender.try_send_request(request)),
        }
    }

    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

impl Shared {
    fn share(&self) -> Connection {
        Connection {
            sender: Sender::Http2(self.sender.clone()),
            heard: self.heard.clone(),
            audience: Arc::default(),
            _task: self.task.clone(),
        }
    }

    /// Whether no request was on it since `then`, and none is.
    fn is_unused_since(&self, then: Instant) -> bool {
        self.since <= then && Rc::strong_count(&self.task) == 1
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

impl Stream {
    async fn connect(upstream: &Upstream) -> io::Result<Self> {
        match (&upstream.address, &upstream.protocol) {
            (Address::Unix(path), Protocol::FastCgi(scripts)) => {
                let gateway = fastcgi::connect(path, scripts, Some(&upstream.generation));
                gateway.await.map(Self::FastCgi)
            }
            (Address::Unix(path), Protocol::Http | Protocol::Http2) => {
                UnixStream::connect(path).await.map(Self::Unix)
            }
            // php-fpm is handed its socket.
            (Address::Tcp(address), _) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
        }
    }
}

impl AsyncRead for Wire {
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
        this.heard.fetch_add(read as u64, Ordering::Relaxed);
        if this.audience.is_there() {
            this.ear.hear(&buffer.filled()[before..], &this.audience);
        }
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Wire {
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
                this.patience.stop();
                Poll::Ready(outcome)
            }
            Poll::Pending => {
                ready!(this.patience.poll(cx, this.write_limit));
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

/// The connection goes back to where it came from when the exchange has ended well, and is closed when not.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) connection: Connection,
    pub(super) upstream: Rc<Upstream>,
}

impl Lease {
    /// Both sides have said all they had to say.
    pub(super) fn give_back(self) {
        self.upstream.put(self.connection);
    }
}
