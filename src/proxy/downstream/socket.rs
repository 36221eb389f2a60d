//! The socket of a client, and the deadlines that are about the client alone.
//!
//! hyper knows one such deadline, for a request's head, counts idle time into it and hangs up without a word; so the deadlines are
//! kept here, beneath it. hyper sees a connection that ends.

use crate::proxy::wire::unread::hand_on;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::signals::{PARTING, PARTING_NEW, Signals};
use super::stream::{self, Stream};
use crate::proxy::wire::pace::{Pace, RateBudget};
use crate::proxy::wire::strict::{Scanner, Verdict};
use crate::proxy::wire::timer::Timer;
use crate::route::Front;

/// Sent to a client that did not finish its request's head in time.
const HEAD_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long, and for how many bytes, a client may go on sending what nobody reads.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 4 << 20;

/// How long a connection is kept ready for the next request. After that it rests: all that HTTP needs is given back until a byte comes.
const REST: Duration = Duration::from_millis(100);

/// A request that is being answered is looked at at least so often.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// Bytes that end a rest are taken in pieces of this.
const FIRST_BYTES: usize = 2 << 10;

/// Bytes that are read of a connection with many requests before others on the thread have their turn. Frames that mean nothing (PING,
/// SETTINGS) would else be read for as long as they come.
const TURN: usize = 8 << 10;

/// A client's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
    /// What was read of the connection before it was known what is spoken on it.
    unread: Bytes,
    /// Many requests share the connection: what comes between them need not be the head of one.
    multiplexed: bool,
    /// Bytes read in this turn, if so.
    taken: usize,
    signals: Arc<Signals>,
    /// Looks at what the client sends.
    scanner: Scanner,
    waiting: Waiting,
    /// The turn that `waiting` belongs to.
    turn: u64,
    reading: Timer,
    /// When the last request's first byte came.
    began: Instant,
    /// How long it is until the next look at whether a request has ended.
    look: Duration,
    /// HTTP has been told that this is the end, and it is not: nothing has come for a while.
    rests: bool,
    writing: RateBudget,
    limits: Limits,
    /// The clocks know that the proxy stops.
    parting: bool,
    /// Bytes taken after our last word, once that is said.
    lingered: Option<usize>,
    /// Interim answers of which the client may have a part.
    interims: Bytes,
    /// Who is known to write.
    task: Option<Waker>,
}

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
    idle: Duration,
}

impl Socket {
    /// A connection just accepted.
    pub(crate) fn new(stream: Stream, signals: Arc<Signals>, front: &Front) -> Self {
        let mut socket = Self {
            stream,
            unread: Bytes::new(),
            multiplexed: false,
            taken: 0,
            signals,
            scanner: Scanner::default(),
            waiting: Waiting::Request,
            turn: 0,
            reading: Timer::default(),
            began: Instant::now(),
            look: REST,
            rests: false,
            writing: RateBudget::new(Pace::writing(front)),
            limits: Limits {
                read: front.read_timeout,
                idle: front.idle_timeout,
            },
            parting: false,
            lingered: None,
            interims: Bytes::new(),
            task: None,
        };
        // Who connects is about to ask, so it gets less time than between two requests. Browsers connect and then do not: one that
        // has not said a word is not told that it was late.
        if !socket.limits.read.is_zero() {
            socket.reading.start(socket.limits.read);
        }
        socket
    }

    /// Gives back what was read to find out what is spoken.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.unread = bytes;
    }

    /// Many requests share the connection.
    pub(crate) fn multiplex(&mut self) {
        self.multiplexed = true;
        self.waiting = Waiting::Request;
    }

    /// Learns what has happened above since the last look.
    fn take_turn(&mut self) {
        let turn = self.signals.turns.load(Ordering::Relaxed);
        if turn == self.turn {
            return;
        }
        self.turn = turn;
        if turn % 2 == 1 {
            self.waiting = Waiting::Nothing;
            match self.parting {
                true => self.reading.stop(),
                false => drop(self.reading.start_at(self.began, self.look)),
            }
        } else {
            self.waiting = Waiting::Request;
            self.rests = false;
            self.look = REST;
            let ended = self.signals.ended();
            self.reading.start_at(ended, self.ready_for());
        }
    }

    /// How long it waits for the next request as it is.
    fn ready_for(&self) -> Duration {
        let idle = self.limits.idle;
        let is_http1 = !self.multiplexed && self.turn > 0;
        let can_rest = is_http1 && !self.rests && self.scanner.is_between();
        match can_rest && (idle.is_zero() || idle > REST) {
            true => REST,
            false => idle,
        }
    }

    fn poll_reading(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.take_turn();
            let parted = self.signals.parted();
            if parted.is_some() && !std::mem::replace(&mut self.parting, true) {
                // The clock may have been set to a time beyond.
                if self.waiting == Waiting::Nothing {
                    self.reading.stop();
                }
            }
            match (self.waiting, parted) {
                // hyper does not look again when an answer has ended, and waking it for that each time would be dear. So the clock
                // for idle connections runs already, and is set right when it rings.
                (Waiting::Nothing, parted) => {
                    let look = parted.map_or(self.look, |_| PARTING);
                    ready!(self.reading.poll(cx, look));
                    // One that lasts is looked at ever more rarely.
                    self.look = (2 * self.look).min(LONGEST_LOOK);
                    self.reading.start(look);
                }
                // What has come wakes it again in a moment.
                (Waiting::Request, _) if self.signals.is_leaving() => {
                    if stream::has_unread(&self.stream) {
                        return Poll::Pending;
                    }
                    self.signals.go();
                    return Poll::Ready(Ok(()));
                }
                (Waiting::Request, None) => {
                    let limit = self.ready_for();
                    ready!(self.reading.poll(cx, limit));
                    if limit != self.limits.idle {
                        self.rests = true;
                        let ended = self.signals.ended();
                        self.reading.start_at(ended, self.limits.idle);
                    }
                    // As if the client had closed.
                    return Poll::Ready(Ok(()));
                }
                (Waiting::Request, Some(parted)) => {
                    let last = self.last_call(parted);
                    self.reading.start_at(last, Duration::ZERO);
                    ready!(self.reading.poll(cx, PARTING));
                    return Poll::Ready(Ok(()));
                }
                (Waiting::Head, Some(parted)) if self.signals.is_leaving() => {
                    if stream::has_unread(&self.stream) {
                        return Poll::Pending;
                    }
                    // It has sent a part of a request, and nothing since.
                    self.signals.go();
                    if !self.signals.is_late() {
                        self.reading.start_at(parted, PARTING);
                        ready!(self.reading.poll(cx, PARTING));
                    }
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                (Waiting::Head, _) => {
                    ready!(self.reading.poll(cx, self.limits.read));
                    // The socket takes so little or the client is past caring.
                    let _ = Pin::new(&mut self.stream).poll_write(cx, HEAD_TIMEOUT);
                    let _ = Pin::new(&mut self.stream).poll_flush(cx);
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }

    /// Until when the next request may come if the proxy has said at `parted` that it stops.
    fn last_call(&self, parted: Instant) -> Instant {
        let (since, limit, parting) = match self.turn {
            0 => (self.signals.born, self.limits.read, PARTING_NEW),
            _ => (self.signals.ended(), self.limits.idle, PARTING),
        };
        let last = (parted + PARTING).max(since + parting);
        match limit.is_zero() {
            true => last,
            false => last.min(since + limit),
        }
    }
}

impl Socket {
    /// Whether it was not the client who ended HTTP: there is to be more of it when something has come.
    pub(crate) fn rests(&self) -> bool {
        self.rests
    }

    /// Waits for the next request, with as little memory as that takes. Says whether anything has come.
    ///
    /// # Errors
    /// As reading.
    pub(crate) async fn rest(&mut self) -> io::Result<bool> {
        let read = poll_fn(|cx| {
            // Not a part of what waits.
            let mut room = [MaybeUninit::uninit(); FIRST_BYTES];
            let mut buffer = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut *self).poll_read(cx, &mut buffer))?;
            Poll::Ready(io::Result::Ok(Bytes::copy_from_slice(buffer.filled())))
        });
        self.unread = read.await?;
        self.rests = false;
        Ok(!self.unread.is_empty())
    }

    /// Takes for a moment what a client goes on sending. A socket closed with bytes unread is reset, and a reset overtakes the answer
    /// that said why.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.signals.unread.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let mut bytes = [0; 8 << 10];
        let mut taken = self.lingered.unwrap_or(0);
        while taken < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => {
                    self.lingered = Some(taken);
                    return self.reading.poll(cx, LINGER_TIME);
                }
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    taken += buffer.filled().len();
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl Socket {
    /// Looks at what was read beyond `before`, and takes away what must not pass. The error is for who wants to read more of it.
    fn scan(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> Option<io::Error> {
        let answered = self.waiting != Waiting::Nothing;
        match self.scanner.take(&buffer.filled()[before..], answered) {
            Verdict::Pass => {}
            Verdict::Refuse(request, flaw) => self.signals.flaw.set(request, flaw),
            // What came before may belong to requests that are to be answered.
            Verdict::Break(0) => return Some(io::ErrorKind::InvalidData.into()),
            Verdict::Break(passed) => buffer.set_filled(before + passed),
        }
        None
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.unread.is_empty() {
            hand_on(&mut this.unread, buffer);
            return Poll::Ready(Ok(()));
        }
        if this.scanner.is_broken() {
            // hyper takes it for a body that has broken off, and so it is.
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if this.taken >= TURN {
            this.taken = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Pending => {
                this.taken = 0;
                this.poll_reading(cx)
            }
            outcome => {
                this.take_turn();
                if this.multiplexed {
                    this.taken += buffer.filled().len() - before;
                    return outcome;
                }
                let passed = this.scan(buffer, before);
                if this.waiting == Waiting::Request {
                    this.waiting = Waiting::Head;
                    this.began = Instant::now();
                    this.reading.start_at(this.began, this.limits.read);
                }
                passed.map_or(outcome, |error| Poll::Ready(Err(error)))
            }
        }
    }
}

impl Socket {
    fn poll_writing(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &outcome {
            self.writing.moved(*written.as_ref().unwrap_or(&0));
            return outcome;
        }
        ready!(self.writing.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes interim answers. hyper flushes when it has nothing left to write itself, so what it wrote before has ended; and it has no
    /// answer to write yet, because that waits for these.
    fn poll_interims(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.interims.is_empty() {
                self.interims = self.signals.interims.take();
            }
            if self.interims.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let outcome = Pin::new(&mut self.stream).poll_write(cx, &self.interims);
            match ready!(self.poll_writing(cx, outcome))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.interims.advance(written),
            }
            if self.interims.is_empty() {
                self.signals.interims.written();
                // The answer may go on.
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Sees to it that interim answers are written when there are any.
    fn poll_flush_interims(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.task.as_ref().is_some_and(|t| t.will_wake(cx.waker())) {
            self.signals.interims.written_by(cx.waker());
            self.task = Some(cx.waker().clone());
        }
        match self.signals.interims.is_waiting() {
            true => self.poll_interims(cx),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.interims.is_empty() {
            // Not "100 Continue" into the middle of one.
            ready!(this.poll_interims(cx))?;
        }
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.poll_writing(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.interims.is_empty() {
            ready!(this.poll_interims(cx))?;
        }
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.poll_writing(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_flush_interims(cx))?;
        let outcome = Pin::new(&mut this.stream).poll_flush(cx);
        let outcome = this.poll_writing(cx, outcome.map_ok(|()| 0));
        outcome.map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rests {
            return Poll::Ready(Ok(()));
        }
        if this.lingered.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.lingered = Some(0);
            this.reading.stop();
        }
        this.poll_linger(cx).map(Ok)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.signals.torn.load(Ordering::Relaxed) {
            stream::set_zero_linger(&self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::proxy::downstream::stream::Raw;

    #[tokio::test]
    async fn a_client_that_never_stops_sending_leaves_others_their_turn() {
        let (mut client, server) = tokio::net::UnixStream::pair().unwrap();
        let signals = Arc::new(Signals::new());
        let stream = Stream::Left(Raw::Right(server));
        let mut socket = Socket::new(stream, signals, &Front::default());
        socket.multiplex();
        client.write_all(&[0; TURN + 2048]).await.unwrap();
        let mut room = [0; 1024];
        let mut turns = vec![0];
        while turns.iter().sum::<usize>() < TURN + 2048 {
            let read = poll_fn(|cx| {
                let mut buffer = ReadBuf::new(&mut room);
                let polled = Pin::new(&mut socket).poll_read(cx, &mut buffer);
                assert!(!matches!(polled, Poll::Ready(Err(_))));
                Poll::Ready(buffer.filled().len())
            });
            match read.await {
                0 => {
                    turns.push(0);
                    tokio::task::yield_now().await;
                }
                read => *turns.last_mut().unwrap() += read,
            }
        }
        // The first is over before it is known that there is something to read.
        turns.retain(|&bytes| bytes > 0);
        assert_eq!(turns, [TURN, 2048], "what is left is read in the next turn");
    }

    /// A client that has asked and was answered, and its socket.
    async fn answered(asked: &[u8]) -> (tokio::net::UnixStream, Socket) {
        let (mut client, server) = tokio::net::UnixStream::pair().unwrap();
        let signals = Arc::new(Signals::new());
        let stream = Stream::Left(Raw::Right(server));
        let mut socket = Socket::new(stream, signals.clone(), &Front::default());
        client.write_all(asked).await.unwrap();
        assert_eq!(read(&mut socket).await.unwrap(), asked);
        drop(signals.in_flight_guard());
        (client, socket)
    }

    async fn read(socket: &mut Socket) -> io::Result<Vec<u8>> {
        let mut room = [0; 1024];
        let read = poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut room);
            let polled = Pin::new(&mut *socket).poll_read(cx, &mut buffer);
            polled.map_ok(|()| buffer.filled().to_vec())
        });
        read.await
    }

    const ASKED: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_for_a_while_rests_until_it_does() {
        let (mut client, mut socket) = answered(ASKED).await;
        let began = Instant::now();
        assert_eq!(read(&mut socket).await.unwrap(), b"");
        assert!(began.elapsed() < 2 * REST);
        assert!(socket.rests());
        client.write_all(ASKED).await.unwrap();
        assert!(socket.rest().await.unwrap());
        assert_eq!(read(&mut socket).await.unwrap(), ASKED);
        assert!(!socket.rests(), "it is at work");
    }

    #[tokio::test(start_paused = true)]
    async fn who_rests_for_too_long_has_left() {
        let (_client, mut socket) = answered(ASKED).await;
        let began = Instant::now();
        assert_eq!(read(&mut socket).await.unwrap(), b"");
        assert!(!socket.rest().await.unwrap());
        let idle = Front::default().idle_timeout;
        assert_eq!(began.elapsed().as_secs(), idle.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_begun_with_the_next_request_does_not_rest() {
        let asked = [ASKED, b"GET / HT"].concat();
        let (_client, mut socket) = answered(&asked).await;
        let later = tokio::time::timeout(Duration::from_secs(5), read(&mut socket));
        assert!(later.await.is_err(), "nothing was lost");
        assert!(!socket.rests());
    }
}
