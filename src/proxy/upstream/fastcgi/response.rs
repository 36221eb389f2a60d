//! php-fpm's answer: a head as CGI has it (RFC 3875, 6), and a body.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, LOCATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Method, Response, StatusCode};
use http_body::Frame;

use super::exchange::Exchange;
use super::trouble::{HEAD_MAX, Trouble, Verdict};
use crate::proxy::wire::cause::innermost;

const FIELDS_MAX: usize = 100;

/// What is between php-fpm and us alone, and no script's to say.
const HOP: [HeaderName; 5] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// The body of a response.
pub(super) struct Body {
    /// What has come of it, or all of it.
    first: Option<Bytes>,
    /// Where the rest comes from.
    exchange: Option<Exchange>,
    /// Bytes that the head has announced and that have not come.
    owed: u64,
    /// How it ended, if not well.
    trouble: Option<Trouble>,
    verdict: Verdict,
}

/// Waits for the head of the response to a request with `method`.
///
/// # Errors
/// When none comes, or none that can be understood.
pub(super) async fn begin(
    mut exchange: Exchange,
    method: &Method,
    verdict: Verdict,
) -> Result<Response<Body>, Trouble> {
    let mut heard = BytesMut::new();
    let mut looked = 0;
    let end = loop {
        if let Some(end) = end_of_head(&heard, &mut looked) {
            break end;
        }
        if heard.len() > HEAD_MAX {
            return Err(Trouble::LongHead);
        }
        match poll_fn(|cx| exchange.poll_next(cx)).await {
            Some(piece) => heard.extend_from_slice(&piece?),
            None => return Err(Trouble::NoHead),
        }
    };
    if end > HEAD_MAX {
        return Err(Trouble::LongHead);
    }
    let head = heard.split_to(end);
    let (status, headers, length) = read(&head)?;
    let has_body = method != Method::HEAD
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED;
    let mut body = Body {
        first: Some(heard.freeze()).filter(|first| has_body && !first.is_empty()),
        exchange: None,
        owed: 0,
        trouble: None,
        verdict,
    };
    if has_body {
        body.exchange = Some(exchange);
        body.owed = length.unwrap_or(0);
    } else {
        // A script whose output nobody takes is broken off: it is let come to its end.
        while let Some(piece) = poll_fn(|cx| exchange.poll_next(cx)).await {
            piece?;
        }
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Where the head ends, behind its empty line. `looked` bytes were looked at before.
fn end_of_head(heard: &[u8], looked: &mut usize) -> Option<usize> {
    let mut at = *looked;
    while let Some(&byte) = heard.get(at) {
        let starts = at == 0 || heard[at - 1] == b'\n';
        match (byte, heard.get(at + 1)) {
            (b'\n', _) if starts => return Some(at + 1),
            (b'\r', Some(b'\n')) if starts => return Some(at + 2),
            // Not known yet.
            (b'\r', None) if starts => break,
            _ => at += 1,
        }
    }
    *looked = at;
    None
}

/// Reads a head: status, fields, and the length of the body if it says so.
fn read(head: &[u8]) -> Result<(StatusCode, HeaderMap, Option<u64>), Trouble> {
    let wrong = |what: String| Trouble::Head(what);
    let mut fields = vec![httparse::EMPTY_HEADER; FIELDS_MAX];
    let fields = match httparse::parse_headers(head, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => fields,
        Ok(httparse::Status::Partial) => return Err(Trouble::NoHead),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let (mut status, mut headers) = (None, HeaderMap::new());
    for field in fields {
        if field.name.eq_ignore_ascii_case("status") {
            status = Some(status_of(field.value).ok_or_else(|| {
                let value = String::from_utf8_lossy(field.value);
                wrong(format!("the status {value:?}"))
            })?);
            continue;
        }
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|error| wrong(error.to_string()))?;
        let value = HeaderValue::from_bytes(field.value);
        headers.append(name, value.map_err(|error| wrong(error.to_string()))?);
    }
    for name in HOP {
        headers.remove(name);
    }
    let length = one_length(&headers)?;
    let usual = match headers.contains_key(LOCATION) {
        true => StatusCode::FOUND,
        false => StatusCode::OK,
    };
    Ok((status.unwrap_or(usual), headers, length))
}

/// The code of `404 Not Found`. What is no end of an exchange is none.
fn status_of(value: &[u8]) -> Option<StatusCode> {
    let code = value.split(|byte| *byte == b' ').next()?;
    let status = StatusCode::from_bytes(code).ok()?;
    (200..600).contains(&status.as_u16()).then_some(status)
}

/// Two lengths, or one that is none, would mean different bodies to different readers.
fn one_length(headers: &HeaderMap) -> Result<Option<u64>, Trouble> {
    let mut lengths = headers.get_all(http::header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = length.to_str().ok().filter(|text| is_number(text));
    let number = number.and_then(|text| text.parse::<u64>().ok());
    match lengths.next() {
        None if number.is_some() => Ok(number),
        _ => Err(Trouble::Head("its Content-Length is no length".to_owned())),
    }
}

impl Body {
    fn counted(&mut self, bytes: Bytes) -> Frame<Bytes> {
        self.owed = self.owed.saturating_sub(bytes.len() as u64);
        Frame::data(bytes)
    }

    /// A body of ours.
    pub(super) fn full(bytes: Bytes) -> Self {
        Self {
            first: Some(bytes),
            exchange: None,
            owed: 0,
            trouble: None,
            verdict: Verdict::default(),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Trouble;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Trouble>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(this.counted(first))));
        }
        if let Some(trouble) = this.trouble.take() {
            return Poll::Ready(Some(Err(trouble)));
        }
        let Some(exchange) = &mut this.exchange else {
            return Poll::Ready(None);
        };
        let trouble = match std::task::ready!(exchange.poll_next(cx)) {
            Some(Ok(bytes)) => return Poll::Ready(Some(Ok(this.counted(bytes)))),
            Some(Err(trouble)) => trouble,
            None if this.owed > 0 => Trouble::Short,
            None => {
                // php-fpm's process waits for the connection's end before it takes the next request.
                this.exchange = None;
                return Poll::Ready(None);
            }
        };
        let _ = this.verdict.set(innermost(&trouble));
        this.exchange = None;
        // hyper drops with the error what it has not yet passed on, and passes it on when nothing more comes at once.
        this.trouble = Some(trouble);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.exchange.is_none() && self.trouble.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(pieces: &[&str]) -> Option<usize> {
        let (mut heard, mut looked) = (Vec::new(), 0);
        for piece in pieces {
            heard.extend_from_slice(piece.as_bytes());
            if let Some(end) = end_of_head(&heard, &mut looked) {
                return Some(end);
            }
        }
        None
    }

    #[test]
    fn a_head_ends_with_its_empty_line_however_it_comes() {
        assert_eq!(end(&["A: b\r\n\r\nbody\r\n\r\n"]), Some(8));
        assert_eq!(end(&["A: b\n\nbody"]), Some(6));
        assert_eq!(end(&["A: b\n\r\nbody"]), Some(7));
        assert_eq!(end(&["A: b\r", "\n", "\r", "\n"]), Some(8));
        assert_eq!(end(&["A: b\r\n\r"]), None);
        assert_eq!(end(&["\r\nbody"]), Some(2));
        assert_eq!(end(&["A: b\r\n", "C: d\r\n"]), None);
        assert_eq!(end(&["A: b\r\r\nC: \r\n\r\n"]), Some(14));
    }

    #[test]
    fn the_status_is_what_the_head_says_or_follows_from_it() {
        let status = |head: &str| read(head.as_bytes()).map(|(status, ..)| status.as_u16());
        for (head, expected) in [
            ("A: b\r\n\r\n", 200),
            ("Status: 404 Not Found\r\n\r\n", 404),
            ("status: 599\r\n\r\n", 599),
            ("Location: /x\r\n\r\n", 302),
            ("Status: 201 Created\r\nLocation: /x\r\n\r\n", 201),
        ] {
            assert_eq!(status(head).unwrap(), expected, "{head:?}");
        }
        for bad in [
            "Status: 100\r\n\r\n",
            "Status: 101 x\r\n\r\n",
            "Status: ok\r\n\r\n",
            "Status:\r\n\r\n",
            "Status: 600\r\n\r\n",
        ] {
            assert!(status(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn fields_are_kept_but_for_those_of_the_connection() {
        let head = b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nTransfer-Encoding: chunked\r\nConnection: x\r\nX-Y: \xe4\r\n\r\n";
        let (_, headers, _) = read(head).unwrap();
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(headers["x-y"].as_bytes(), b"\xe4");
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn what_is_no_head_or_has_no_certain_length_is_an_error() {
        for bad in [
            "no colon\r\n\r\n",
            "A b: c\r\n\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: -1\r\n\r\n",
            "Content-Length: +1\r\n\r\n",
            "Content-Length: 99999999999999999999\r\n\r\n",
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(read(&b"A: b\r\n".repeat(FIELDS_MAX + 1)).is_err());
    }
}
