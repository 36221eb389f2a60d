//! What a worker sends in answer to a request: a head, and where its body ends (RFC 9112, 2 to 7).
//!
//! Nothing here reads or waits. What has come is in a buffer, and what is whole is taken out of it.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, StatusCode};
use http_body::Frame;
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use crate::proxy::wire::framing;
use crate::proxy::wire::headers::{self, Options};

/// Most bytes of a head, and most fields.
pub(super) const HEAD_MAX: usize = 128 << 10;
const FIELDS_MAX: usize = 100;

/// Most bytes of the line before a chunk, and of what may follow the last one.
const LINE_MAX: usize = 4 << 10;
const TRAILERS_MAX: usize = 16 << 10;

/// Where the name and the value of a field are.
type Place = (Range<usize>, Range<usize>);

/// Why what came is no answer. Nothing more that comes over the connection can be trusted to be the answer to anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResponseError {
    #[error("its answer is not HTTP/1 ({0})")]
    Syntax(httparse::Error),
    #[error("its answer's head is longer than {} KiB", HEAD_MAX >> 10)]
    Long,
    #[error("{0}")]
    Ambiguous(&'static str),
}

/// The head of an answer, interim or final.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    /// Unless it is the usual one.
    pub(super) reason: Option<ReasonPhrase>,
    /// Without those meant for one hop only, but for those of a change of protocol.
    pub(super) headers: HeaderMap,
    pub(super) rest: Rest,
    /// The worker keeps the connection open.
    pub(super) is_kept: bool,
}

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// So many bytes.
    Length(u64),
    Chunks(Chunk),
    /// All until the worker closes the connection.
    UntilClose,
}

/// What comes next of a body in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// The line with its size.
    Size,
    /// The rest of it, in bytes, one at least.
    Data(u64),
    /// The end of the line that it is on.
    End,
    /// Fields, and the empty line that ends all.
    Trailers,
    /// Nothing.
    Nothing,
}

/// What was taken out of a buffer.
#[derive(Debug)]
pub(super) enum Taken {
    Frame(Frame<Bytes>),
    /// The body is whole.
    End,
    /// More must come first.
    Nothing,
}

impl Head {
    /// Takes the head at the begin of `buffer`, once it is whole, of the answer to a request with `method`.
    pub(super) fn take(
        buffer: &mut BytesMut,
        method: &Method,
    ) -> Result<Option<Self>, ResponseError> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let status = ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            buffer,
            &mut fields,
        );
        let length = match status {
            Ok(Status::Complete(length)) if length <= HEAD_MAX => length,
            Ok(Status::Partial) if buffer.len() <= HEAD_MAX => return Ok(None),
            Ok(_) => return Err(ResponseError::Long),
            Err(error) => return Err(ResponseError::Syntax(error)),
        };
        let code = parsed.code.unwrap_or_default();
        let status = StatusCode::from_u16(code)
            .map_err(|_| ResponseError::Syntax(httparse::Error::Status))?;
        let reason = parsed.reason.unwrap_or_default();
        let reason = match status.canonical_reason() {
            Some(usual) if usual == reason => None,
            _ => ReasonPhrase::try_from(reason.as_bytes()).ok(),
        };
        let is_old = parsed.version == Some(0);
        // Where names and values are: they become shares in the buffer, which is borrowed for now.
        let begin = buffer.as_ptr().addr();
        let place = |bytes: &[u8]| {
            let at = bytes.as_ptr().addr() - begin;
            at..at + bytes.len()
        };
        let fields = parsed.headers.iter();
        let places: Vec<Place> = fields
            .map(|field| (place(field.name.as_bytes()), place(field.value)))
            .collect();
        let bytes = buffer.split_to(length).freeze();
        let mut head = Self {
            status,
            reason,
            headers: HeaderMap::with_capacity(places.len() + 2),
            rest: Rest::UntilClose,
            is_kept: false,
        };
        head.read(&bytes, &places, is_old, method)?;
        Ok(Some(head))
    }

    /// Whether another follows it.
    pub(super) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    fn read(
        &mut self,
        bytes: &Bytes,
        places: &[Place],
        is_old: bool,
        method: &Method,
    ) -> Result<(), ResponseError> {
        let syntax = ResponseError::Syntax;
        let mut framing = framing::Framing::default();
        let mut options = Options::default();
        let mut upgrade = None;
        for (name, value) in places {
            let name = HeaderName::from_bytes(&bytes[name.clone()])
                .map_err(|_| syntax(httparse::Error::HeaderName))?;
            let value = HeaderValue::from_maybe_shared(bytes.slice(value.clone()))
                .map_err(|_| syntax(httparse::Error::HeaderValue))?;
            framing.field(&name, &value);
            if name == CONNECTION {
                options.read(&value);
            } else if name == UPGRADE {
                upgrade = Some(value);
            } else if !headers::is_hop(name.as_str()) {
                self.headers.append(name, value);
            }
        }
        for name in options.names() {
            self.headers.remove(name);
        }
        if self.is_interim() {
            // There is no content, and a length would only tempt someone to wait for it.
            self.headers.remove(CONTENT_LENGTH);
            self.rest = Rest::Length(0);
            return Ok(());
        }
        let framing = framing.only().map_err(ResponseError::Ambiguous)?;
        if is_old && framing.is_chunked {
            let what = "its answer is one of HTTP/1.0 and has a Transfer-Encoding";
            return Err(ResponseError::Ambiguous(what));
        }
        self.is_kept = match is_old {
            true => options.keep_alive && !options.close,
            false => !options.close,
        };
        self.rest = match self.status {
            StatusCode::SWITCHING_PROTOCOLS => {
                if let Some(upgrade) = upgrade {
                    self.headers.insert(UPGRADE, upgrade);
                    let option = HeaderValue::from_static("upgrade");
                    self.headers.insert(CONNECTION, option);
                }
                Rest::Length(0)
            }
            StatusCode::NO_CONTENT => {
                // It may send all the same what it has no business to send.
                self.is_kept &= !framing.is_chunked && framing.length.is_none_or(|n| n == 0);
                Rest::Length(0)
            }
            StatusCode::NOT_MODIFIED => Rest::Length(0),
            _ if method == Method::HEAD => Rest::Length(0),
            _ if framing.is_chunked => Rest::Chunks(Chunk::Size),
            _ => framing.length.map_or(Rest::UntilClose, Rest::Length),
        };
        Ok(())
    }
}

impl Rest {
    /// Whether nothing more is to come.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunks(Chunk::Nothing))
    }

    /// Takes what has come of the body.
    ///
    /// # Errors
    /// When the chunks are none.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> io::Result<Taken> {
        loop {
            match self {
                Self::Length(0) | Self::Chunks(Chunk::Nothing) => return Ok(Taken::End),
                _ if buffer.is_empty() => return Ok(Taken::Nothing),
                Self::UntilClose => return Ok(data(buffer.split())),
                Self::Length(left) => return Ok(data(up_to(buffer, left))),
                Self::Chunks(chunk) => {
                    if let Some(taken) = chunk.take(buffer)? {
                        return Ok(taken);
                    }
                }
            }
        }
    }

    /// The worker has closed the connection.
    ///
    /// # Errors
    /// When that is not how this ends.
    pub(super) fn close(&mut self) -> io::Result<()> {
        match self {
            Self::UntilClose => *self = Self::Length(0),
            _ if self.is_nothing() => {}
            _ => {
                let what = "it closed the connection in the middle of its answer";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
        }
        Ok(())
    }
}

impl Chunk {
    /// `None`: what was taken was nothing of the body itself.
    fn take(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Taken>> {
        match self {
            Self::Size => {
                let Some(end) = memchr::memchr(b'\n', buffer) else {
                    return wait(buffer.len() < LINE_MAX);
                };
                let line = buffer[..end].strip_suffix(b"\r");
                let size = line.and_then(framing::size).ok_or_else(broken)?;
                buffer.advance(end + 1);
                *self = match size {
                    0 => Self::Trailers,
                    size => Self::Data(size),
                };
                Ok(None)
            }
            Self::Data(left) => {
                let taken = up_to(buffer, left);
                if *left == 0 {
                    *self = Self::End;
                }
                Ok(Some(data(taken)))
            }
            Self::End => match &buffer[..] {
                [b'\r', b'\n', ..] => {
                    buffer.advance(2);
                    *self = Self::Size;
                    Ok(None)
                }
                [b'\r'] => wait(true),
                _ => Err(broken()),
            },
            Self::Trailers => self.take_trailers(buffer),
            Self::Nothing => Ok(Some(Taken::End)),
        }
    }

    fn take_trailers(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Taken>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let (length, fields) = match httparse::parse_headers(buffer, &mut fields) {
            Ok(Status::Complete(whole)) => whole,
            Ok(Status::Partial) => return wait(buffer.len() < TRAILERS_MAX),
            Err(_) => return Err(broken()),
        };
        // A line that ends with LF alone is one to httparse, and none to others.
        let taken = &buffer[..length];
        let is_whole = |end| taken[..end].ends_with(b"\r");
        if !memchr::memchr_iter(b'\n', taken).all(is_whole) {
            return Err(broken());
        }
        let mut trailers = HeaderMap::new();
        for field in fields.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| broken())?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| broken())?;
            trailers.append(name, value);
        }
        buffer.advance(length);
        *self = Self::Nothing;
        headers::trailers_to_client(&mut trailers);
        Ok(Some(match trailers.is_empty() {
            true => Taken::End,
            false => Taken::Frame(Frame::trailers(trailers)),
        }))
    }
}

/// At most `left` bytes, which are then taken off it.
fn up_to(buffer: &mut BytesMut, left: &mut u64) -> BytesMut {
    let count = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
    *left -= count as u64;
    buffer.split_to(count)
}

fn data(bytes: BytesMut) -> Taken {
    Taken::Frame(Frame::data(bytes.freeze()))
}

/// More must come first, if that `may` be.
fn wait(may: bool) -> io::Result<Option<Taken>> {
    match may {
        true => Ok(Some(Taken::Nothing)),
        false => Err(broken()),
    }
}

fn broken() -> io::Error {
    let what = "its answer's chunks can not be read";
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, ResponseError> {
        Head::take(&mut text.into(), &Method::GET)
    }

    fn rest(text: &str, method: &Method) -> Rest {
        let head = Head::take(&mut text.into(), method);
        head.unwrap().unwrap().rest
    }

    #[test]
    fn there_is_one_way_to_tell_where_an_answer_ends() {
        let (get, head) = (&Method::GET, &Method::HEAD);
        for (text, method, expected) in [
            ("200 OK\r\ncontent-length: 5\r\n\r\n", get, Rest::Length(5)),
            (
                "200 OK\r\ntransfer-encoding: Chunked\r\n\r\n",
                get,
                Rest::Chunks(Chunk::Size),
            ),
            ("200 OK\r\n\r\n", get, Rest::UntilClose),
            ("200 OK\r\ncontent-length: 5\r\n\r\n", head, Rest::Length(0)),
            (
                "200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                head,
                Rest::Length(0),
            ),
            ("204 No Content\r\n\r\n", get, Rest::Length(0)),
            (
                "304 Not Modified\r\ncontent-length: 5\r\n\r\n",
                get,
                Rest::Length(0),
            ),
            ("101 Switching Protocols\r\n\r\n", get, Rest::Length(0)),
            (
                "103 Early Hints\r\ncontent-length: 5\r\n\r\n",
                get,
                Rest::Length(0),
            ),
        ] {
            assert_eq!(
                rest(&format!("HTTP/1.1 {text}"), method),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn an_answer_that_is_ambiguous_is_none() {
        for fields in [
            "content-length: 5\r\ncontent-length: 5\r\n",
            "content-length: 5, 5\r\n",
            "content-length: +5\r\n",
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        ] {
            let outcome = head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
            assert!(
                matches!(outcome, Err(ResponseError::Ambiguous(_))),
                "{fields}: {outcome:?}"
            );
        }
        let old = head("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        assert!(matches!(old, Err(ResponseError::Ambiguous(_))));
        for text in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 099 x\r\n\r\n",
            "SSH-2.0\r\n",
        ] {
            assert!(
                matches!(head(text), Err(ResponseError::Syntax(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_head_has_a_largest_size() {
        let field = format!("x: {}\r\n", "x".repeat(HEAD_MAX / 50));
        let begun = format!("HTTP/1.1 200 OK\r\n{}", field.repeat(49));
        assert!(matches!(head(&begun), Ok(None)));
        assert!(matches!(head(&format!("{begun}\r\n")), Ok(Some(_))));
        let long = format!("{begun}{field}");
        assert_eq!(head(&long).unwrap_err(), ResponseError::Long);
        assert_eq!(
            head(&format!("{long}\r\n")).unwrap_err(),
            ResponseError::Long
        );
    }

    #[test]
    fn the_worker_says_whether_it_keeps_the_connection() {
        for (text, is_kept) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nconnection: x, Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n", true),
            (
                "HTTP/1.0 200 OK\r\nconnection: keep-alive, close\r\n\r\n",
                false,
            ),
            ("HTTP/1.1 204 x\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.1 204 x\r\ncontent-length: 1\r\n\r\n", false),
        ] {
            assert_eq!(head(text).unwrap().unwrap().is_kept, is_kept, "{text}");
        }
    }

    #[test]
    fn an_unusual_reason_is_the_workers_to_give() {
        let reason = |text: &str| head(text).unwrap().unwrap().reason;
        assert_eq!(reason("HTTP/1.1 404 Not Found\r\n\r\n"), None);
        let own = reason("HTTP/1.1 404 Gone Fishing\r\n\r\n");
        assert_eq!(own.unwrap().as_bytes(), b"Gone Fishing");
    }

    /// What is taken of a body in chunks, and whether it is whole; an error is a body that can not be read.
    fn chunks(bytes: &str) -> io::Result<(Vec<u8>, Option<HeaderMap>, bool)> {
        let mut rest = Rest::Chunks(Chunk::Size);
        let (mut buffer, mut body, mut trailers) = (BytesMut::from(bytes), Vec::new(), None);
        loop {
            match rest.take(&mut buffer)? {
                Taken::Frame(frame) => match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
                Taken::End => return Ok((body, trailers, true)),
                Taken::Nothing => return Ok((body, trailers, rest.close().is_ok())),
            }
        }
    }

    #[test]
    fn chunks_are_put_together() {
        let (body, trailers, is_whole) =
            chunks("3\r\nabc\r\n2;x=\"y\"\r\nde\r\n0\r\nx-sum: 1\r\nconnection: x-sum\r\n\r\n")
                .unwrap();
        assert_eq!((&body[..], is_whole), (&b"abcde"[..], true));
        // The connection's own, and what it names.
        assert_eq!(trailers, None);
        let (_, trailers, _) = chunks("0\r\nx-sum: 1\r\ncontent-length: 3\r\n\r\n").unwrap();
        let trailers = trailers.unwrap();
        assert_eq!(
            (trailers.len(), &trailers["x-sum"]),
            (1, &"1".parse().unwrap())
        );
        for torn in [
            "",
            "3",
            "3\r\nab",
            "3\r\nabc\r",
            "3\r\nabc\r\n",
            "0\r\n",
            "0\r\n\r",
        ] {
            assert!(!chunks(torn).unwrap().2, "{torn:?}");
        }
    }

    #[test]
    fn what_only_looks_like_chunks_is_refused() {
        for broken in [
            "3\nabc\r\n",
            "3\r\nabcd",
            "3\r\nabc\n",
            "x\r\n",
            "-1\r\n",
            "3 4\r\n",
            "1000000000000000\r\n",
            "0\r\nno field\r\n\r\n",
            "0\r\nx: y\r\n\n",
            "0\r\nx: y\n\r\n",
            "0\r\n\n",
        ] {
            assert!(chunks(broken).is_err(), "{broken:?}");
        }
        assert!(chunks(&format!("1;{}", "x".repeat(LINE_MAX))).is_err());
        assert!(chunks(&format!("0\r\nx: {}", "x".repeat(TRAILERS_MAX))).is_err());
    }
}
