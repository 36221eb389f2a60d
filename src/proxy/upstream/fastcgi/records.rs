//! php-fpm's records on their way to the crate that reads them.
//!
//! The crate takes the end of the connection for the end of the answer, believes what a record's head says, and reads on before it hands
//! out what it has. So it is handed one record at a time, each one looked at first, and a connection that ends before the record that
//! ends the answer is an error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of a record's head.
const HEAD: usize = 8;
/// The version of the protocol there is.
const VERSION: u8 = 1;
/// The one request of a connection, as the crate numbers it.
const REQUEST: u16 = 1;
/// Types of records (FastCGI specification, 8).
const END_REQUEST: u8 = 3;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
/// Bytes that the record at the end has at least.
const END_MIN: usize = 8;

/// A stream of records that ends with the record that ends the answer.
#[derive(Debug)]
pub(super) struct Records<R> {
    stream: R,
    head: [u8; HEAD],
    /// Bytes of the head that have come, and that were handed on.
    come: usize,
    handed: usize,
    /// Bytes of the present record behind its head that are still to come.
    remaining: usize,
    /// The present record is the last.
    is_last: bool,
}

impl<R: AsyncRead + Unpin> Records<R> {
    /// The records that come over `stream`.
    pub(super) fn new(stream: R) -> Self {
        Self {
            stream,
            head: [0; HEAD],
            come: 0,
            handed: 0,
            remaining: 0,
            is_last: false,
        }
    }

    /// Waits for the next record's head; `false`: the last record is over.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.handed == HEAD && self.remaining == 0 {
            if self.is_last {
                return Poll::Ready(Ok(false));
            }
            (self.come, self.handed) = (0, 0);
        }
        while self.come < HEAD {
            let mut head = ReadBuf::new(&mut self.head[self.come..]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut head))?;
            match head.filled().len() {
                0 => return Poll::Ready(Err(torn())),
                more => self.come += more,
            }
            if self.come == HEAD {
                self.look()?;
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Looks at a head that has come.
    fn look(&mut self) -> io::Result<()> {
        let [version, kind, id1, id0, length1, length0, padding, _] = self.head;
        let length = usize::from(u16::from_be_bytes([length1, length0]));
        let id = u16::from_be_bytes([id1, id0]);
        let what = match kind {
            _ if version != VERSION => format!("a record of version {version}"),
            STDOUT | STDERR | END_REQUEST if id != REQUEST => format!("a record of request {id}"),
            END_REQUEST if length < END_MIN => format!("a last record of {length} bytes"),
            STDOUT | STDERR | END_REQUEST => {
                self.remaining = length + usize::from(padding);
                self.is_last = kind == END_REQUEST;
                return Ok(());
            }
            kind => format!("a record of type {kind}"),
        };
        let sentence = format!("it does not speak FastCGI: {what} came");
        Err(io::Error::new(io::ErrorKind::InvalidData, sentence))
    }
}

fn torn() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the connection ended in the middle of its answer",
    )
}

impl<R: AsyncRead + Unpin> AsyncRead for Records<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 || !ready!(this.poll_head(cx))? {
            return Poll::Ready(Ok(()));
        }
        if this.handed < HEAD {
            let head = &this.head[this.handed..];
            let fit = head.len().min(buffer.remaining());
            buffer.put_slice(&head[..fit]);
            this.handed += fit;
            return Poll::Ready(Ok(()));
        }
        let fit = this.remaining.min(buffer.remaining());
        let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(fit));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece))?;
        let read = piece.filled().len();
        if read == 0 {
            return Poll::Ready(Err(torn()));
        }
        buffer.advance(read);
        this.remaining -= read;
        Poll::Ready(Ok(()))
    }
}
