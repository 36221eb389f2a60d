//! What a client sends over HTTP/2, on its way to h2: a malformed request costs its own stream and
//! nothing else (RFC 9113, 8.1.1).
//!
//! h2 decodes fields into types that not every field fits in, and takes one that does not for an
//! error of the compression, so of the connection: all requests on it are lost, and behind a load
//! balancer those are other people's. So each block of fields is decoded here first, to be judged.
//! As long as all are well formed the bytes pass as they came. In the place of a malformed one h2
//! sees a stand-in, on which it opens the stream, and which [`Findings`] says to refuse; in the
//! place of malformed fields after a body it sees some that make it reset the stream.
//!
//! What a malformed block has put into the table of the compression is unknown to h2. So from the
//! first of them on it reads nothing of the kind: all later blocks are written out for it.

use crate::proxy::wire::unread::hand_on;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::hpack::{self, Broken, Decoder};
use super::rules::{Kind, Malformed, Message, judge};

/// Length of the preface that a connection begins with (RFC 9113, 3.4). h2 sees to it.
const PREFACE: usize = 24;

/// Length of a frame's head (4.1).
const HEAD: usize = 9;

/// Longest payload of a frame as long as nobody has asked for longer ones (6.5.2), which we do not.
const PAYLOAD_MAX: usize = 16_384;

/// Most stand-ins that may wait to be asked about. h2 sees fewer in one turn, and hands over what it has taken at the end of it; so
/// whoever has more sends them while all streams there may be are taken.
const REFUSED_MAX: usize = 4096;

/// As much room is kept for the next block.
const KEEP: usize = 4 << 10;

/// As much is read at a time while a block of fields is not whole.
const READ: usize = 4 << 10;

// Types of frames, and flags (6).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A client's stream, past which h2 sees well-formed blocks of fields alone.
#[derive(Debug)]
pub(super) struct Filter<S> {
    stream: S,
    findings: Rc<Findings>,
    decoder: Decoder<Kind>,
    /// Most bytes of a block's fields.
    room: usize,
    /// Most CONTINUATION frames of a block that do not end it.
    continuations: usize,
    /// Bytes to come that are not for us to look at: the preface, or the rest of a frame.
    passing: usize,
    /// The last stream that was opened.
    last: u32,
    /// Blocks are written out.
    rewriting: bool,
    /// h2 has been told that its table is to stay empty.
    told: bool,
    /// What was read, but not as a whole.
    held: BytesMut,
    /// There may be something whole in it.
    fresh: bool,
    /// What h2 is to read next.
    ready: BytesMut,
    /// A block in pieces, and one that is written out.
    gathered: Vec<u8>,
    written: Vec<u8>,
}

/// What is told to the one that answers.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Streams with stand-ins, in the order in which they were opened, and why.
    refused: RefCell<VecDeque<(u32, Malformed)>>,
    /// The connection cannot go on, and why.
    end: Cell<Option<Reason>>,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// What was found in some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// So many pass.
    passed: usize,
    /// So many are done with. Those that did not pass were replaced by what is in `ready`. Those
    /// that follow are to be looked at again, with more if there are no others.
    done: usize,
}

/// A block of fields.
enum Block {
    /// Its frames have this many bytes; its fields are this part of the first, or were gathered.
    Whole {
        length: usize,
        fields: Option<(usize, usize)>,
        depends_on: Option<u32>,
    },
    /// More is to come.
    Partial,
    /// It breaks the rules of frames.
    Broken(Reason),
}

impl Findings {
    /// What is wrong with the request on `stream`. Requests are asked about in the order of their
    /// streams; those that are passed over were refused by h2.
    pub(super) fn of(&self, stream: u32) -> Option<Malformed> {
        let mut refused = self.refused.borrow_mut();
        while let Some(&(first, malformed)) = refused.front()
            && first <= stream
        {
            refused.pop_front();
            if first == stream {
                return Some(malformed);
            }
        }
        None
    }

    /// Notes that the request on `stream` is to be refused.
    fn refuse(&self, stream: u32, malformed: Malformed) {
        let mut refused = self.refused.borrow_mut();
        refused.push_back((stream, malformed));
        if refused.len() > REFUSED_MAX {
            self.end.set(Some(Reason::ENHANCE_YOUR_CALM));
        }
    }

    /// Why the connection cannot go on.
    pub(super) fn end(&self) -> Option<Reason> {
        self.end.get()
    }

    /// The streams with stand-ins.
    #[cfg(any(fuzzing, test))]
    pub(super) fn refused(&self) -> Vec<u32> {
        let refused = self.refused.borrow();
        refused.iter().map(|(stream, _)| *stream).collect()
    }
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD] = bytes.first_chunk()?;
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        })
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl<S> Filter<S> {
    /// A connection on which nothing was read, with at most `room` bytes of fields in a request.
    pub(super) fn new(stream: S, room: usize) -> (Self, Rc<Findings>) {
        let findings = Rc::new(Findings::default());
        // As many as h2 takes: what the fields may need, and some more.
        let frames = (room / PAYLOAD_MAX).max(1);
        let filter = Self {
            stream,
            findings: findings.clone(),
            decoder: Decoder::new(judge),
            room,
            continuations: (frames + frames / 4).max(5),
            passing: PREFACE,
            last: 0,
            rewriting: false,
            told: false,
            held: BytesMut::new(),
            fresh: false,
            ready: BytesMut::new(),
            gathered: Vec::new(),
            written: Vec::new(),
        };
        (filter, findings)
    }

    /// Bytes that are held back.
    #[cfg(any(fuzzing, test))]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Goes through `bytes` up to the first block of fields that does not pass as it is, or is not
    /// whole.
    fn follow(&mut self, bytes: &[u8]) -> Step {
        let mut at = 0;
        loop {
            let passing = self.passing.min(bytes.len() - at);
            at += passing;
            self.passing -= passing;
            let rest = &bytes[at..];
            let held = Step {
                passed: at,
                done: at,
            };
            let Some(head) = Head::read(rest) else {
                return held;
            };
            // h2 sees to all other frames, and ends the connection for these.
            if head.kind != HEADERS || head.length > PAYLOAD_MAX || head.stream == 0 {
                self.passing = HEAD + head.length;
                continue;
            }
            match self.block(head, rest) {
                Block::Partial => return held,
                Block::Broken(reason) => {
                    self.findings.end.set(Some(reason));
                    return held;
                }
                Block::Whole {
                    length,
                    fields,
                    depends_on,
                } => {
                    let gathered = std::mem::take(&mut self.gathered);
                    let fields = match fields {
                        Some((from, to)) => &rest[from..to],
                        None => &gathered[..],
                    };
                    let passes = self.judge(head, fields, depends_on == Some(head.stream));
                    self.gathered = gathered;
                    self.gathered.clear();
                    self.gathered.shrink_to(KEEP);
                    match passes {
                        Err(Broken) => {
                            self.findings.end.set(Some(Reason::COMPRESSION_ERROR));
                            return held;
                        }
                        Ok(true) => at += length,
                        Ok(false) => {
                            return Step {
                                passed: at,
                                done: at + length,
                            };
                        }
                    }
                }
            }
        }
    }

    /// Finds the block of fields that `bytes` begin with, in a frame of HEADERS and what continues
    /// it.
    fn block(&mut self, head: Head, bytes: &[u8]) -> Block {
        let Some(payload) = bytes.get(HEAD..HEAD + head.length) else {
            return Block::Partial;
        };
        let (mut from, mut to) = (HEAD, HEAD + head.length);
        if head.has(PADDED) {
            let Some(&padding) = payload.first() else {
                return Block::Broken(Reason::PROTOCOL_ERROR);
            };
            from += 1;
            to = to.saturating_sub(usize::from(padding));
        }
        let mut depends_on = None;
        if head.has(PRIORITY) {
            let Some(stream) = bytes[..to.max(from)].get(from..from + 5) else {
                return Block::Broken(Reason::PROTOCOL_ERROR);
            };
            let stream = [stream[0] & 0x7f, stream[1], stream[2], stream[3]];
            depends_on = Some(u32::from_be_bytes(stream));
            from += 5;
        }
        if from > to {
            return Block::Broken(Reason::PROTOCOL_ERROR);
        }
        let mut length = HEAD + head.length;
        if head.has(END_HEADERS) {
            return Block::Whole {
                length,
                fields: Some((from, to)),
                depends_on,
            };
        }
        self.gathered.clear();
        self.gathered.extend_from_slice(&bytes[from..to]);
        for count in 0.. {
            let rest = &bytes[length..];
            let Some(next) = Head::read(rest) else {
                return Block::Partial;
            };
            if next.kind != CONTINUATION || next.stream != head.stream {
                return Block::Broken(Reason::PROTOCOL_ERROR);
            }
            if next.length > PAYLOAD_MAX {
                return Block::Broken(Reason::FRAME_SIZE_ERROR);
            }
            if !next.has(END_HEADERS) && count >= self.continuations {
                return Block::Broken(Reason::ENHANCE_YOUR_CALM);
            }
            let Some(payload) = rest.get(HEAD..HEAD + next.length) else {
                return Block::Partial;
            };
            self.gathered.extend_from_slice(payload);
            length += HEAD + next.length;
            if next.has(END_HEADERS) {
                break;
            }
        }
        Block::Whole {
            length,
            fields: None,
            depends_on,
        }
    }

    /// Judges a block; one that does not pass as it came is replaced. Whether it passes.
    fn judge(
        &mut self,
        head: Head,
        fields: &[u8],
        depends_on_itself: bool,
    ) -> Result<bool, Broken> {
        let is_end = head.has(END_STREAM);
        let is_trailers = head.stream <= self.last;
        self.last = self.last.max(head.stream);
        let mut message = Message::new(is_trailers, self.room);
        if depends_on_itself {
            message.fail(Malformed::Priority);
        }
        let (rewriting, written) = (self.rewriting, &mut self.written);
        self.decoder.decode(fields, |name, value, kind| {
            if message.take(name, value, kind) && rewriting {
                hpack::write_literal(name, value, written);
            }
        })?;
        match message.fault(is_end) {
            None if !self.rewriting => return Ok(true),
            None => self.replace(head.stream, is_end),
            Some(malformed) => {
                self.rewriting = true;
                self.written.clear();
                // Fields after a body that do not end the request make h2 reset the stream.
                if !is_trailers {
                    let method: &[u8] = if message.is_head() { b"HEAD" } else { b"GET" };
                    hpack::write_literal(b":method", method, &mut self.written);
                    hpack::write_literal(b":scheme", b"http", &mut self.written);
                    hpack::write_literal(b":path", b"/", &mut self.written);
                    self.findings.refuse(head.stream, malformed);
                }
                self.replace(head.stream, is_end && !is_trailers);
            }
        }
        Ok(false)
    }

    /// Has h2 read what was written out, as the next block of `stream`.
    fn replace(&mut self, stream: u32, is_end: bool) {
        let mut block = std::mem::take(&mut self.written);
        if !std::mem::replace(&mut self.told, true) {
            let mut first = Vec::new();
            hpack::write_no_table(&mut first);
            first.append(&mut block);
            block = first;
        }
        let mut kind = HEADERS;
        let mut rest = &block[..];
        loop {
            let (payload, after) = rest.split_at(rest.len().min(PAYLOAD_MAX));
            rest = after;
            let mut flags = 0;
            if kind == HEADERS && is_end {
                flags |= END_STREAM;
            }
            if rest.is_empty() {
                flags |= END_HEADERS;
            }
            let length = (payload.len() as u32).to_be_bytes();
            self.ready.extend_from_slice(&length[1..]);
            self.ready.extend_from_slice(&[kind, flags]);
            self.ready.extend_from_slice(&stream.to_be_bytes());
            self.ready.extend_from_slice(payload);
            kind = CONTINUATION;
            if rest.is_empty() {
                break;
            }
        }
        block.clear();
        block.shrink_to(KEEP);
        self.written = block;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Filter<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                hand_on(&mut this.ready, buffer);
                return Poll::Ready(Ok(()));
            }
            if this.findings.end.get().is_some() {
                // The one that looks at the findings ends the connection.
                return Poll::Pending;
            }
            if std::mem::take(&mut this.fresh) {
                let mut held = std::mem::take(&mut this.held);
                let step = this.follow(&held);
                let mut passed = held.split_to(step.passed);
                held.advance(step.done - step.passed);
                passed.extend_from_slice(&this.ready);
                this.ready = passed;
                this.fresh = step.done > step.passed;
                if !held.is_empty() {
                    this.held = held;
                }
            } else if this.held.is_empty() {
                let before = buffer.filled().len();
                ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
                let read = &buffer.filled()[before..];
                if read.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let step = this.follow(read);
                this.held.extend_from_slice(&read[step.done..]);
                this.fresh = step.done > step.passed;
                buffer.set_filled(before + step.passed);
                if step.passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.reserve(READ);
                if ready!(poll_read_buf(
                    Pin::new(&mut this.stream),
                    cx,
                    &mut this.held
                ))? == 0
                {
                    // The connection ends within a frame.
                    return Poll::Ready(Ok(()));
                }
                this.fresh = true;
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Filter<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
