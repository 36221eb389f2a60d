//! A part of a file as it is read for sending.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// A part of a file on its way to the client.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: Arc<File>,
    at: u64,
    remaining: u64,
    /// A read that had to wait for the disk, on another thread.
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    /// The first `length` bytes of `file`.
    pub(crate) fn new(file: Arc<File>, length: u64) -> Self {
        Self::part(file, 0, length)
    }

    /// `length` bytes of `file`, from the byte `at` on.
    pub(crate) fn part(file: Arc<File>, at: u64, length: u64) -> Self {
        Self {
            file,
            at,
            remaining: length,
            reading: None,
        }
    }

    /// Bytes still to come.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The next piece. What is in the page cache is read at once; only what must come from a disk is read on another thread.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let read = match &mut self.reading {
            Some(reading) => {
                let outcome = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                outcome.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            None => match self.read_cached() {
                Some(read) => read,
                None => {
                    let (file, at, length) = (self.file.clone(), self.at, self.length());
                    self.reading = Some(tokio::task::spawn_blocking(move || {
                        let mut buffer = vec![0; length];
                        let read = file.read_at(&mut buffer, at)?;
                        buffer.truncate(read);
                        Ok(Bytes::from(buffer))
                    }));
                    return self.poll_frame(cx);
                }
            },
        };
        let bytes = match read {
            Ok(bytes) if bytes.is_empty() => {
                return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
            }
            Ok(bytes) => bytes,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        self.at += bytes.len() as u64;
        self.remaining -= bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn read_cached(&self) -> Option<io::Result<Bytes>> {
        let mut buffer = vec![0; self.length()];
        let slices = &mut [io::IoSliceMut::new(&mut buffer)];
        match rustix::io::preadv2(&self.file, slices, self.at, ReadWriteFlags::NOWAIT) {
            Ok(read) => {
                buffer.truncate(read);
                Some(Ok(buffer.into()))
            }
            // Not in the cache, or a file system that can not tell.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    fn length(&self) -> usize {
        usize::try_from(self.remaining).map_or(CHUNK, |remaining| remaining.min(CHUNK))
    }
}
