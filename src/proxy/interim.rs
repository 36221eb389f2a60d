//! Interim answers of a worker (1xx: 103 Early Hints, 102 Processing) on their way to the client (RFC 9110, section 15.2).
//!
//! hyper tells a client's side of them at the price of an allocation or four for each request, and its server can not send any. So they
//! are heard beneath hyper on the one side ([`Ear`]) and written beneath it on the other ([`Outbox`]). A worker that sends none costs a
//! comparison for each of its answers. "100 Continue" is not among them: that is between hyper and each of the two ends.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

use super::headers;
use super::http2::Hints;
use super::socket::Signals;

/// Most interim answers to a request that are passed on.
pub(super) const MOST: usize = 16;

/// Most bytes of a head that is waited for, and most that wait for a client.
const BYTES: usize = 32 << 10;

/// Most fields of an interim answer.
const FIELDS: usize = 100;

/// How an interim answer begins.
const BEGINNING: &[u8] = b"HTTP/1.1 1";

/// An interim answer that may be passed on.
#[derive(Debug)]
pub(super) struct Interim {
    pub(super) status: StatusCode,
    /// Without those meant for one hop only.
    pub(super) headers: HeaderMap,
}

/// Who is to hear of interim answers on a connection to a worker. Shared between the request that waits and the connection's stream.
#[derive(Debug, Default)]
pub(super) struct Audience {
    is_there: AtomicBool,
    hearer: Mutex<Option<Hearer>>,
}

/// A client that is told of interim answers.
#[derive(Clone, Debug)]
pub(super) enum Hearer {
    /// It speaks HTTP/1.1, and its socket is to write them.
    Http1(Arc<Signals>),
    /// It speaks HTTP/2, and they are frames of its stream.
    Http2(Hints),
}

/// Hears interim answers in what a worker sends.
#[derive(Debug, Default)]
pub(super) struct Ear {
    /// What may become one.
    begun: Vec<u8>,
    told: usize,
}

/// Interim answers that wait to be written to a client that speaks HTTP/1.1.
#[derive(Debug, Default)]
pub(super) struct Outbox {
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

impl Audience {
    /// A request of a client is about to be sent, and the next bytes from the worker begin its answer.
    pub(super) fn enter(&self, hearer: &Hearer) {
        *self.hearer() = Some(hearer.clone());
        self.is_there.store(true, Ordering::Relaxed);
    }

    /// Nothing more is to be heard: the answer itself has come.
    pub(super) fn leave(&self) {
        self.is_there.store(false, Ordering::Relaxed);
        *self.hearer() = None;
    }

    /// Whether there is any.
    pub(super) fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    fn tell(&self, interim: Interim) {
        match &*self.hearer() {
            Some(Hearer::Http1(client)) => client.interims().put(&interim),
            Some(Hearer::Http2(hints)) => hints.send(interim.status, interim.headers),
            None => {}
        }
    }

    fn hearer(&self) -> MutexGuard<'_, Option<Hearer>> {
        self.hearer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ear {
    /// Hears the next bytes a worker has sent while there is an `audience`.
    pub(super) fn hear(&mut self, bytes: &[u8], audience: &Audience) {
        if !self.begun.is_empty() || may_be_interim(bytes) {
            self.begun.extend_from_slice(bytes);
            if self.look(audience) {
                return;
            }
            *self = Self::default();
        }
        audience.leave();
    }

    /// Takes what is whole out of what has begun; whether more may come before the answer itself.
    fn look(&mut self, audience: &Audience) -> bool {
        while may_be_interim(&self.begun) {
            let mut fields = [httparse::EMPTY_HEADER; FIELDS];
            let mut head = httparse::Response::new(&mut fields);
            match head.parse(&self.begun) {
                Ok(httparse::Status::Complete(end)) => {
                    let Some(interim) = Interim::of(&head) else {
                        return false;
                    };
                    if interim.status != StatusCode::CONTINUE && self.told < MOST {
                        self.told += 1;
                        audience.tell(interim);
                    }
                    self.begun.drain(..end);
                }
                Ok(httparse::Status::Partial) => return self.begun.len() <= BYTES,
                // For hyper to refuse.
                Err(_) => return false,
            }
        }
        false
    }
}

/// Whether `bytes` are how an interim answer begins, as far as they go.
fn may_be_interim(bytes: &[u8]) -> bool {
    let length = bytes.len().min(BEGINNING.len());
    bytes[..length] == BEGINNING[..length]
}

impl Interim {
    /// `None` for an answer that is final, as "101 Switching Protocols" is.
    fn of(head: &httparse::Response<'_, '_>) -> Option<Self> {
        let status = StatusCode::from_u16(head.code?).ok()?;
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return None;
        }
        let mut headers = HeaderMap::new();
        for field in head.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
        headers::to_client(&mut headers, false);
        // There is no content, and a length would only tempt someone to wait for it.
        headers.remove(CONTENT_LENGTH);
        Some(Self { status, headers })
    }

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
    pub(super) fn put(&self, interim: &Interim) {
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
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The task that writes, and is to be woken when there is something to write.
    pub(super) fn written_by(&self, task: &Waker) {
        self.letters().task = Some(task.clone());
    }

    /// What is to be written next.
    pub(super) fn take(&self) -> Bytes {
        std::mem::take(&mut self.letters().bytes).into()
    }

    /// All that was taken is written.
    pub(super) fn written(&self) {
        if self.letters().bytes.is_empty() {
            self.waiting.store(false, Ordering::Relaxed);
        }
    }

    /// Ends when nothing is left to be written. For the task that writes, which goes on with this when it has written.
    pub(super) async fn empty(&self) {
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

    /// What a client gets of `pieces`, and whether more is listened for.
    fn heard(pieces: &[&[u8]]) -> (String, bool) {
        let (client, audience) = (Arc::new(Signals::new()), Audience::default());
        audience.enter(&Hearer::Http1(client.clone()));
        let mut ear = Ear::default();
        for piece in pieces {
            if audience.is_there() {
                ear.hear(piece, &audience);
            }
        }
        let bytes = client.interims().take();
        (
            String::from_utf8(bytes.to_vec()).unwrap(),
            audience.is_there(),
        )
    }

    #[test]
    fn interim_answers_are_heard_however_they_are_cut() {
        let sent = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 x\r\n\r\n";
        let expected =
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
        assert_eq!(heard(&[sent]), (expected.to_owned(), false));
        let bytes: Vec<&[u8]> = sent.chunks(1).collect();
        assert_eq!(heard(&bytes), (expected.to_owned(), false));
        for at in 0..sent.len() {
            let (first, second) = sent.split_at(at);
            assert_eq!(heard(&[first, second]).0, expected, "{at}");
        }
    }

    #[test]
    fn what_is_no_interim_answer_is_not_listened_to() {
        for sent in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "HTTP/1.1 1xx\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nno field\r\n\r\n",
            "x",
        ] {
            assert_eq!(
                heard(&[sent.as_bytes()]),
                (String::new(), false),
                "{sent:?}"
            );
        }
        // That is not passed on from here, and hints may follow.
        let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(heard(&[go_on.as_bytes()]), (String::new(), true));
    }

    #[test]
    fn what_is_for_one_hop_stays_there() {
        let sent = "HTTP/1.1 103 Early Hints\r\nconnection: x-own\r\nx-own: 1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nlink: <a>\r\n\r\n";
        let expected = "HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n";
        assert_eq!(heard(&[sent.as_bytes()]).0, expected);
    }

    #[test]
    fn they_are_bounded() {
        let one = "HTTP/1.1 103 Early Hints\r\n\r\n";
        assert_eq!(heard(&[one.repeat(1000).as_bytes()]).0, one.repeat(MOST));
        let long = format!(
            "HTTP/1.1 103 Early Hints\r\nx: {}\r\n\r\n",
            "x".repeat(BYTES / 2)
        );
        assert_eq!(heard(&[long.repeat(3).as_bytes()]).0, long);
        let endless = vec![b'x'; BYTES];
        let begin = b"HTTP/1.1 103 Early Hints\r\nx: ".as_slice();
        assert_eq!(heard(&[begin, &endless]), (String::new(), false));
    }
}
