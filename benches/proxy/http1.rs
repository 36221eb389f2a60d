//! HTTP/1.1, as much of it as a load generator needs.

use std::rc::Rc;
use std::time::Instant;

use super::talk::{Goal, Talk, record};

/// Most header fields of an answer.
const FIELDS: usize = 32;
/// How a body in chunks ends.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// A connection: one request at a time.
pub(crate) struct Http1 {
    request: Rc<[u8]>,
    /// How much of the request is sent.
    sent: usize,
    began: Instant,
    answer: Answer,
}

enum Answer {
    /// No request is on its way.
    None,
    /// What has come of a head.
    Head(Vec<u8>),
    /// So many bytes of the body are to come.
    Body(usize),
    /// A body in chunks, and the last bytes of it so far: there is nothing behind its last chunk.
    Chunks(Vec<u8>),
}

impl Http1 {
    /// Is to send `request` again and again.
    pub(crate) fn new(request: &Rc<[u8]>) -> Self {
        Self {
            request: request.clone(),
            sent: request.len(),
            began: Instant::now(),
            answer: Answer::None,
        }
    }

    /// Takes bytes of one answer, and returns those behind it, if it is whole.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match &mut self.answer {
            Answer::None => panic!("an answer to nothing: {}", String::from_utf8_lossy(bytes)),
            Answer::Head(seen) if seen.is_empty() => match head(bytes) {
                Some((head, body)) => {
                    self.answer = body;
                    self.take(&bytes[head..])
                }
                None => {
                    seen.extend_from_slice(bytes);
                    None
                }
            },
            Answer::Head(seen) => {
                let before = seen.len();
                seen.extend_from_slice(bytes);
                let (head, body) = head(seen)?;
                self.answer = body;
                self.take(&bytes[head - before..])
            }
            Answer::Chunks(end) => {
                end.extend_from_slice(bytes);
                end.drain(..end.len().saturating_sub(LAST_CHUNK.len()));
                if end != LAST_CHUNK {
                    return None;
                }
                self.answer = Answer::None;
                Some(&[])
            }
            Answer::Body(left) if *left > bytes.len() => {
                *left -= bytes.len();
                None
            }
            Answer::Body(left) => {
                let rest = &bytes[*left..];
                self.answer = Answer::None;
                Some(rest)
            }
        }
    }
}

impl Talk for Http1 {
    fn ask(&mut self, now: Instant) {
        self.sent = 0;
        self.began = now;
        self.answer = Answer::Head(Vec::new());
    }

    fn unsent(&self) -> &[u8] {
        &self.request[self.sent..]
    }

    fn sent(&mut self, count: usize) {
        self.sent += count;
    }

    fn hear(&mut self, bytes: &[u8], goal: &Goal, latencies: &mut Vec<u32>) {
        let Some(rest) = self.take(bytes) else {
            return;
        };
        assert!(rest.is_empty(), "more than was asked for");
        let now = Instant::now();
        record(latencies, self.began, now);
        if !goal.is_reached(latencies.len(), now) {
            self.ask(now);
        }
    }

    fn is_quiet(&self) -> bool {
        matches!(self.answer, Answer::None)
    }
}

/// Length of the head in front of `bytes`, and the body that it announces; `None` if it is not whole.
fn head(bytes: &[u8]) -> Option<(usize, Answer)> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let text = || String::from_utf8_lossy(bytes);
    let parsed = response.parse(bytes);
    let parsed = parsed.unwrap_or_else(|error| panic!("{error}: {}", text()));
    let httparse::Status::Complete(head) = parsed else {
        return None;
    };
    assert_eq!(response.code, Some(200), "{}", text());
    let mut fields = response.headers.iter();
    let length = fields.find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let Some(length) = length else {
        return Some((head, Answer::Chunks(Vec::new())));
    };
    let length = str::from_utf8(length.value)
        .ok()
        .and_then(|length| length.parse().ok());
    let length = length.unwrap_or_else(|| panic!("no length: {}", text()));
    Some((head, Answer::Body(length)))
}
