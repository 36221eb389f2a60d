//! A request as a worker that speaks HTTP/1.1 gets it (RFC 9112, 3 to 7).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRAILER};
use http::{Method, Uri};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use crate::proxy::downstream::upload::{RequestBody, Upload, UploadError};
use crate::proxy::wire::headers;

/// Bytes for which a head has room at first; most need less.
const HEAD: usize = 1000;

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Request {
    method: Method,
    /// As it is written.
    head: Vec<u8>,
    /// Bytes of it that are written.
    written: usize,
    /// In a box, since most have none.
    body: Option<Box<Body>>,
    /// The worker takes no more of it.
    is_given_up: bool,
}

/// A body on its way.
#[derive(Debug)]
struct Body {
    pieces: RequestBody,
    upload: Rc<Upload>,
    /// Bytes still to come; `None`: it is sent in chunks.
    left: Option<u64>,
    /// What is written next: the line before a chunk, the piece itself, and what comes after it.
    lead: Bytes,
    piece: Bytes,
    tail: &'static [u8],
    /// Nothing comes after that.
    is_last: bool,
    /// The trailers that the head has announced. Others are left out: who reads them may take them for what he was not told of.
    announced: Vec<HeaderName>,
}

/// Why a request was not sent as a whole.
#[derive(Debug)]
pub(super) enum SendError {
    Client(UploadError),
    Worker(io::Error),
}

/// A head that is being written.
#[derive(Debug)]
pub(crate) struct Writer {
    method: Method,
    head: Vec<u8>,
    length: Option<u64>,
    announced: Vec<HeaderName>,
}

impl Writer {
    /// The first line: `target` as an origin wants it, also when the client took us for a proxy of its own.
    pub(crate) fn new(method: Method, target: &Uri) -> Self {
        let mut head = Vec::with_capacity(HEAD);
        head.extend_from_slice(method.as_str().as_bytes());
        head.push(b' ');
        head.extend_from_slice(target.path().as_bytes());
        if let Some(query) = target.query() {
            head.push(b'?');
            head.extend_from_slice(query.as_bytes());
        }
        head.extend_from_slice(b" HTTP/1.1\r\n");
        Self {
            method,
            head,
            length: None,
            announced: Vec::new(),
        }
    }

    /// A field. Neither names nor values can hold what ends a line.
    pub(crate) fn field(&mut self, name: &HeaderName, value: &HeaderValue) {
        if name == CONTENT_LENGTH {
            // Over HTTP/2 it may be said twice, or be empty; here it is said once, or not at all.
            let length = value.to_str().ok();
            self.length = length.and_then(|length| length.parse().ok());
            return;
        }
        if name == TRAILER {
            self.announced.extend(headers::names(value));
        }
        line(&mut self.head, name, value);
    }

    /// The request, with no body.
    pub(crate) fn finish(mut self) -> Request {
        if let Some(length) = self.length {
            line(&mut self.head, &CONTENT_LENGTH, &length.into());
        }
        self.head.extend_from_slice(b"\r\n");
        Request {
            method: self.method,
            head: self.head,
            written: 0,
            body: None,
            is_given_up: false,
        }
    }

    /// The request, with a body of the length that a field has said, or in chunks.
    pub(crate) fn with_body(mut self, pieces: RequestBody, upload: Rc<Upload>) -> Request {
        if self.length.is_none() {
            self.head
                .extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        let left = self.length;
        let announced = std::mem::take(&mut self.announced);
        let mut request = self.finish();
        request.body = Some(Box::new(Body {
            pieces,
            upload,
            left,
            lead: Bytes::new(),
            piece: Bytes::new(),
            tail: b"",
            is_last: false,
            announced,
        }));
        request
    }
}

fn line(head: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    head.extend_from_slice(name.as_str().as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value.as_bytes());
    head.extend_from_slice(b"\r\n");
}

impl Request {
    /// Its method.
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// Whether nothing of it is written: then it may go to whoever it may, whatever it means.
    pub(super) fn is_untouched(&self) -> bool {
        self.written == 0
    }

    /// It is written from the begin. Of what was written before only one without a body is whole again.
    pub(super) fn rewind(&mut self) {
        self.written = 0;
        self.is_given_up = false;
    }

    /// Whether all of it is written.
    pub(super) fn is_sent(&self) -> bool {
        !self.is_given_up && self.written == self.head.len() && self.body.is_none()
    }

    /// Whether there is more to write, now or when the client sends it.
    pub(super) fn goes_on(&self) -> bool {
        !self.is_given_up && !self.is_sent()
    }

    /// The worker has a part of it, and takes no more for this reason.
    pub(super) fn give_up(&mut self, reason: &io::Error) {
        self.is_given_up = true;
        if let Some(body) = self.body.take() {
            body.upload.end(Err(match is_timeout(reason) {
                true => UploadError::Stalled,
                false => UploadError::Unwanted,
            }));
        }
    }

    /// The worker has said that it wants the body.
    pub(super) fn welcome(&mut self) {
        if let Some(body) = &mut self.body {
            body.pieces.welcome();
        }
    }

    /// What is still to be written of it.
    pub(super) fn take_rest(&mut self) -> Option<Self> {
        let nothing = Self {
            method: Method::default(),
            head: Vec::new(),
            written: 0,
            body: None,
            is_given_up: true,
        };
        self.goes_on().then(|| std::mem::replace(self, nothing))
    }

    /// Writes it; ready when all is written.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut line: impl AsyncWrite + Unpin,
    ) -> Poll<Result<(), SendError>> {
        loop {
            // The first piece goes with the head, if it is there.
            if let Some(body) = &mut self.body
                && let Poll::Ready(Err(error)) = body.poll_fill(cx)
            {
                body.upload.end(Err(error));
                return Poll::Ready(Err(SendError::Client(error)));
            }
            let head = &self.head[self.written..];
            let slices = match &self.body {
                Some(body) => [head, &body.lead, &body.piece, body.tail],
                None => [head, b"", b"", b""],
            };
            let length: usize = slices.iter().map(|slice| slice.len()).sum();
            if length == 0 {
                if self.body.as_ref().is_some_and(|body| !body.is_last) {
                    return Poll::Pending;
                }
                self.body = None;
                return Poll::Ready(Ok(()));
            }
            let slices = slices.map(IoSlice::new);
            let written = match &self.body {
                Some(_) => Pin::new(&mut line).poll_write_vectored(cx, &slices),
                None => Pin::new(&mut line).poll_write(cx, head),
            };
            match ready!(written).map_err(SendError::Worker)? {
                0 => return Poll::Ready(Err(SendError::Worker(io::ErrorKind::WriteZero.into()))),
                written => self.advance(written),
            }
        }
    }

    fn advance(&mut self, written: usize) {
        let of_head = written.min(self.head.len() - self.written);
        self.written += of_head;
        if let Some(body) = &mut self.body {
            body.advance(written - of_head);
        }
    }
}

impl Body {
    /// Makes the next piece ready to be written, unless one is.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        while !self.is_last && self.is_written() {
            match ready!(Pin::new(&mut self.pieces).poll_frame(cx)) {
                Some(frame) => match frame?.into_data() {
                    Ok(data) => self.put(data)?,
                    Err(frame) => self.end(frame.into_trailers().ok().as_ref())?,
                },
                None => self.end(None)?,
            }
            if !self.is_last && self.pieces.is_end_stream() {
                self.end(None)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_written(&self) -> bool {
        self.lead.is_empty() && self.piece.is_empty() && self.tail.is_empty()
    }

    fn put(&mut self, data: Bytes) -> Result<(), UploadError> {
        match &mut self.left {
            Some(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(UploadError::Torn)?
            }
            // That would be the last chunk.
            None if data.is_empty() => return Ok(()),
            None => {
                self.lead = format!("{:x}\r\n", data.len()).into();
                self.tail = b"\r\n";
            }
        }
        self.piece = data;
        Ok(())
    }

    /// Nothing comes after this, and perhaps after `trailers`. Those are for chunks: a body with a length has no place for them.
    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), UploadError> {
        self.is_last = true;
        match (self.left, trailers) {
            (Some(0), _) => {}
            (Some(_), _) => return Err(UploadError::Torn),
            (None, None) if self.piece.is_empty() => self.tail = b"0\r\n\r\n",
            (None, None) => self.tail = b"\r\n0\r\n\r\n",
            (None, Some(trailers)) => {
                let mut last = b"0\r\n".to_vec();
                let announced = |name: &HeaderName| self.announced.contains(name);
                for (name, value) in trailers.iter().filter(|(name, _)| announced(name)) {
                    line(&mut last, name, value);
                }
                self.lead = last.into();
                self.tail = b"\r\n";
            }
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        for part in [&mut self.lead, &mut self.piece] {
            let taken = written.min(part.len());
            part.advance(taken);
            written -= taken;
        }
        self.tail = &self.tail[written..];
    }
}

/// Whether a worker did not take what it was sent.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http::header::{ACCEPT, HOST};

    use super::*;

    async fn written(method: Method, target: &str) -> String {
        let mut writer = Writer::new(method, &target.parse().unwrap());
        writer.field(&HOST, &HeaderValue::from_static("h"));
        writer.field(&ACCEPT, &HeaderValue::from_static("*/*"));
        let mut request = writer.finish();
        assert!(request.is_untouched() && request.goes_on());
        let mut once = Vec::new();
        for _ in 0..2 {
            let mut bytes = Vec::new();
            let sent = poll_fn(|cx| request.poll_send(cx, &mut bytes)).await;
            assert!(sent.is_ok() && request.is_sent());
            assert!(once.is_empty() || once == bytes);
            once = bytes;
            request.rewind();
        }
        String::from_utf8(once).unwrap()
    }

    #[tokio::test]
    async fn a_request_is_written_as_an_origin_wants_it_and_can_be_again() {
        for (target, line) in [
            ("/", "GET / HTTP/1.1"),
            ("/a%20b?c=d&e", "GET /a%20b?c=d&e HTTP/1.1"),
            ("/a?", "GET /a? HTTP/1.1"),
            ("http://h/a?b", "GET /a?b HTTP/1.1"),
            ("http://h", "GET / HTTP/1.1"),
            ("http://h?b", "GET /?b HTTP/1.1"),
        ] {
            let expected = format!("{line}\r\nhost: h\r\naccept: */*\r\n\r\n");
            assert_eq!(written(Method::GET, target).await, expected);
        }
        let line = "PROPFIND / HTTP/1.1\r\n";
        let method = Method::from_bytes(b"PROPFIND").unwrap();
        assert!(written(method, "/").await.starts_with(line));
    }
}
