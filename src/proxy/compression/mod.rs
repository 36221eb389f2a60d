//! Compression of answers for workers that do not do it themselves.
//!
//! | file | what it is for |
//! |---|---|
//! | `accept` | which codings a client takes |
//! | `encoder` | a body on its way through a compressor |
//!
//! An answer that says anything about its own bytes (a coding, a range, a digest, "no-transform") is not touched.

mod accept;
mod encoder;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, VARY,
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;

use super::body::Body;
pub(super) use accept::{Accepted, Coding};
pub(super) use encoder::Encoding;

/// Fewest bytes worth it: less fits into a packet or two as it is.
const LEAST: u64 = 1 << 10;

/// Most bytes of a file that are compressed anew for each request; a larger one can lie there compressed.
const FILE_MOST: u64 = 8 << 20;

/// Fields of an answer that are about its very bytes.
const CLAIMS: [HeaderName; 6] = [
    CONTENT_ENCODING,
    CONTENT_RANGE,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Types, besides text, of which much is left over when they are compressed. Streams of records (`application/x-ndjson`) are not among
/// them: each would hold a compressor for as long as it lasts.
const TYPES: [&str; 16] = [
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/xml",
    "application/wasm",
    "application/rtf",
    "application/yaml",
    "application/vnd.ms-fontobject",
    "application/x-font-ttf",
    "font/ttf",
    "font/otf",
    "font/collection",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

/// What a client says of codings, kept until its answer is there.
#[derive(Debug)]
pub(super) struct Offer {
    accept: HeaderValue,
    /// The tags of what it has.
    has: Option<HeaderValue>,
    head: bool,
    /// Most bytes of an answer that is worth it.
    most: u64,
    /// The answer comes from a file, which knows what it would be like.
    from_file: bool,
}

impl Offer {
    /// The offer of a client; `None` if it makes none. One that speaks HTTP/1.0 could not tell where a compressed body ends.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        let headers = request.headers();
        let accept = field(headers)?;
        if request.version() < Version::HTTP_11 || forbids(headers) {
            return None;
        }
        Some(Self {
            accept,
            has: headers.get(IF_NONE_MATCH).cloned(),
            head: request.method() == Method::HEAD,
            most: u64::MAX,
            from_file: false,
        })
    }

    /// The answer comes from a file.
    pub(super) fn for_file(&mut self) {
        (self.most, self.from_file) = (FILE_MOST, true);
    }

    /// Whether a file of this type and size would be another for a client that takes other codings.
    pub(super) fn would_vary(&self, kind: &HeaderValue, size: u64) -> bool {
        let least = match Accepted::read(&self.accept).no_identity {
            true => 1,
            false => LEAST,
        };
        is_compressible_type(kind) && (least..=self.most).contains(&size)
    }

    /// Compresses `response`, if it may be, and the client wants it.
    pub(super) fn apply(self, response: &mut Response<Body>) {
        if response.status() == StatusCode::NOT_MODIFIED {
            return self.confirm(response.headers_mut());
        }
        if !has_body(response.status()) || !is_compressible(response.headers()) {
            return;
        }
        let headers = response.headers();
        let length = match headers.get(CONTENT_LENGTH) {
            Some(length) => length.to_str().ok().and_then(|length| length.parse().ok()),
            None if self.head => None,
            None => response.body().size_hint().exact(),
        };
        // Most short answers end here: without a weight nothing is refused.
        let is_short = length.is_some_and(|length| length < LEAST);
        if is_short && !self.accept.as_bytes().contains(&b';') {
            return;
        }
        if forbids(headers) || CLAIMS.iter().any(|claim| headers.contains_key(claim)) {
            return;
        }
        let accepted = Accepted::read(&self.accept);
        let least = if accepted.no_identity { 1 } else { LEAST };
        if length.is_some_and(|length| length < least || length > self.most) {
            return;
        }
        vary(response.headers_mut());
        let Some(coding) = accepted.codings().next() else {
            return;
        };
        if !self.head {
            let Some(encoding) = Encoding::new(coding, length) else {
                return;
            };
            response.body_mut().encode(encoding);
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_ENCODING, coding.name());
        headers.remove(CONTENT_LENGTH);
        // The ranges that can be had are those of what is not compressed.
        headers.remove(ACCEPT_RANGES);
        if let Some(weak) = headers.get(ETAG).and_then(weakened) {
            headers.insert(ETAG, weak);
        }
    }

    /// "Not modified" is about what the client has, and that may be compressed: a cache must know it by its tag (RFC 9111, 4.3.4).
    ///
    /// It has the Vary of the whole answer (RFC 9110, 15.4.5). What a worker's would have been is not known, so it may have been compressed.
    fn confirm(&self, headers: &mut HeaderMap) {
        let has = self.has.as_ref().and_then(|has| has.to_str().ok());
        let weak = headers.get(ETAG).and_then(weakened);
        let known = has.zip(weak).filter(|(has, weak)| {
            let mut tags = has.split(',').map(|tag| tag.trim().as_bytes());
            tags.any(|tag| tag == weak.as_bytes())
        });
        let is_own = forbids(headers) || CLAIMS.iter().any(|claim| headers.contains_key(claim));
        if known.is_some() || !(self.from_file || is_own) {
            vary(headers);
        }
        if let Some((_, weak)) = known {
            headers.insert(ETAG, weak);
        }
    }
}

/// What the client takes, for one that says so.
pub(super) fn accepted(headers: &HeaderMap) -> Option<Accepted> {
    field(headers).map(|value| Accepted::read(&value))
}

/// Adds that the answer would be another one for a client that takes other codings.
pub(super) fn vary(headers: &mut HeaderMap) {
    let mut members: Vec<u8> = Vec::new();
    for value in headers.get_all(VARY) {
        let known = |member: &[u8]| {
            let member = member.trim_ascii();
            member == b"*" || member.eq_ignore_ascii_case(b"accept-encoding")
        };
        if value.as_bytes().split(|&byte| byte == b',').any(known) {
            return;
        }
        members.extend_from_slice(value.as_bytes());
        members.extend_from_slice(b", ");
    }
    members.extend_from_slice(b"Accept-Encoding");
    if let Ok(members) = HeaderValue::from_bytes(&members) {
        headers.insert(VARY, members);
    }
}

/// Whether a type is one of which compression leaves little.
pub(super) fn is_compressible_type(value: &HeaderValue) -> bool {
    let kind = value.as_bytes().split(|&byte| byte == b';').next();
    let kind = kind.unwrap_or_default().trim_ascii();
    let begins = |with: &str| {
        kind.get(..with.len())
            .is_some_and(|k| k.eq_ignore_ascii_case(with.as_bytes()))
    };
    let ends = |with: &str| {
        let at = kind.len().checked_sub(with.len());
        at.is_some_and(|at| kind[at..].eq_ignore_ascii_case(with.as_bytes()))
    };
    if begins("text/") {
        return !kind.eq_ignore_ascii_case(b"text/event-stream");
    }
    ends("+json")
        || ends("+xml")
        || TYPES
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known.as_bytes()))
}

fn is_compressible(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(is_compressible_type)
}

fn has_body(status: StatusCode) -> bool {
    let bodiless = matches!(
        status,
        StatusCode::NO_CONTENT
            | StatusCode::RESET_CONTENT
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::IM_USED
    );
    !bodiless && (status.is_success() || status.is_client_error() || status.is_server_error())
}

/// Whether whoever wrote these fields wants the answer as it was made.
fn forbids(headers: &HeaderMap) -> bool {
    let mut words = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// The tag of the same content in other bytes; `None` if it is weak already.
fn weakened(tag: &HeaderValue) -> Option<HeaderValue> {
    let tag = tag.as_bytes();
    if !tag.starts_with(b"\"") {
        return None;
    }
    HeaderValue::from_bytes(&[b"W/", tag].concat()).ok()
}

/// The one value of all fields `Accept-Encoding`.
fn field(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(ACCEPT_ENCODING).iter();
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(first.clone());
    };
    let all = [first, second].into_iter().chain(values);
    let all: Vec<&[u8]> = all.map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&all.join(&b","[..])).ok()
}

#[cfg(test)]
mod tests;
