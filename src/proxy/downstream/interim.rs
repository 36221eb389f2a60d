//! Interim answers of a worker (1xx: 103 Early Hints, 102 Processing) on their way to the client (RFC 9110, section 15.2).
//!
//! hyper's server can not send any. So they are written beneath it ([`Outbox`]), and to a client that speaks HTTP/2 by h2. "100 Continue" is
//! not among them: that is between hyper and the client, and between us and the worker.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use h2::server::SendResponse;
use http::header::HeaderMap;
use http::{Response, StatusCode};
use tracing::debug;

/// Most interim answers to a request that are passed on.
pub(crate) const MOST: usize = 16;

/// Most bytes that wait for a client.
const BYTES: usize = 32 << 10;

/// An interim answer that may be passed on.
#[derive(Debug)]
pub(crate) struct Interim {
    pub(crate) status: StatusCode,
    /// Without those meant for one hop only.
    pub(crate) headers: HeaderMap,
}

/// A client that is told of interim answers.
#[derive(Debug)]
pub(crate) enum InterimSink<'a> {
    /// It speaks HTTP/1.1, and its socket is to write them.
    Http1(&'a Outbox),
    /// It speaks HTTP/2, and they are frames of its stream.
    Http2(Hints),
}

/// Interim answers that wait to be written to a client that speaks HTTP/1.1.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// From the moment one is put in until all are written.
    waiting: AtomicBool,
    letters: Mutex<Letters>,
}

/// What is in an outbox.
#[derive(Debug, Default)]
struct Letters {
    bytes: Vec<u8>,
    /// Who writes: the task of the client's connection.
    task: Option<Waker>,
}

/// What can be sent to the client before the answer: 103 and its like. It is found among the request's extensions.
#[derive(Clone)]
pub(crate) struct Hints(Arc<Mutex<SendResponse<Bytes>>>);

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hints")
    }
}

impl Hints {
    /// Those of a request that `respond` answers.
    pub(crate) fn new(respond: SendResponse<Bytes>) -> Self {
        Self(Arc::new(Mutex::new(respond)))
    }

    pub(crate) fn respond(&self) -> MutexGuard<'_, SendResponse<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an interim answer. One that comes too late, or can not be, is left out: it is a hint.
    pub(crate) fn send(&self, status: StatusCode, headers: HeaderMap) {
        let mut interim = Response::new(());
        *interim.status_mut() = status;
        *interim.headers_mut() = headers;
        if let Err(error) = self.respond().send_informational(interim) {
            debug!("an interim answer was not sent: {error}");
        }
    }
}

impl InterimSink<'_> {
    /// Passes an interim answer on.
    pub(crate) fn tell(&self, interim: Interim) {
        match self {
            Self::Http1(outbox) => outbox.put(&interim),
            Self::Http2(hints) => hints.send(interim.status, interim.headers),
        }
    }
}

impl Interim {
    /// As HTTP/1.1 writes it. Neither names nor values can hold what ends a line.
    fn write(&self, bytes: &mut Vec<u8>) {
        let reason = self.status.canonical_reason().unwrap_or_default();
        bytes.extend_from_slice(b"HTTP/1.1 ");
        bytes.extend_from_slice(self.status.as_str().as_bytes());
        bytes.extend_from_slice(b" ");
        bytes.extend_from_slice(reason.as_bytes());
        for (name, value) in &self.headers {
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
        }
        bytes.extend_from_slice(b"\r\n\r\n");
    }
}

impl Outbox {
    /// Has `interim` written before the answer. One that would have to wait behind too many others is not: it is a hint.
    pub(crate) fn put(&self, interim: &Interim) {
        let mut letters = self.letters();
        let before = letters.bytes.len();
        interim.write(&mut letters.bytes);
        if letters.bytes.len() > BYTES {
            letters.bytes.truncate(before);
            return;
        }
        self.waiting.store(true, Ordering::Relaxed);
        if let Some(task) = &letters.task {
            task.wake_by_ref();
        }
    }

    /// Whether anything is still to be written.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The task that writes, and is to be woken when there is something to write.
    pub(crate) fn written_by(&self, task: &Waker) {
        self.letters().task = Some(task.clone());
    }

    /// What is to be written next.
    pub(crate) fn take(&self) -> Bytes {
        std::mem::take(&mut self.letters().bytes).into()
    }

    /// All that was taken is written.
    pub(crate) fn written(&self) {
        if self.letters().bytes.is_empty() {
            self.waiting.store(false, Ordering::Relaxed);
        }
    }

    /// Ends when nothing is left to be written. For the task that writes, which goes on with this when it has written.
    pub(crate) async fn empty(&self) {
        poll_fn(|_| match self.is_waiting() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(link: &str) -> Interim {
        let mut headers = HeaderMap::new();
        headers.append("link", link.parse().unwrap());
        Interim {
            status: StatusCode::EARLY_HINTS,
            headers,
        }
    }

    #[test]
    fn they_are_written_one_after_the_other_and_waited_for() {
        let outbox = Outbox::default();
        let sink = InterimSink::Http1(&outbox);
        sink.tell(hints("</a>"));
        sink.tell(hints("</b>"));
        assert!(outbox.is_waiting());
        let bytes = outbox.take();
        assert_eq!(
            bytes,
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\n"
        );
        sink.tell(hints("</c>"));
        outbox.written();
        assert!(outbox.is_waiting());
        outbox.take();
        outbox.written();
        assert!(!outbox.is_waiting());
    }

    #[test]
    fn one_that_would_have_to_wait_for_too_many_others_is_left_out() {
        let outbox = Outbox::default();
        let sink = InterimSink::Http1(&outbox);
        let long = "x".repeat(BYTES / 2);
        sink.tell(hints(&long));
        let once = outbox.take();
        for _ in 0..3 {
            sink.tell(hints(&long));
        }
        assert_eq!(outbox.take(), once);
    }
}
