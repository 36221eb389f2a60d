//! What a client says of codings, and a response compressed as it says.

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;

use super::accept::{Accepted, field, vary};
use super::encoder::Encoding;
use super::media_type::is_compressible_type;
use crate::proxy::response::body::Body;

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

/// What a client says of codings, kept until its answer is there.
#[derive(Debug)]
pub(crate) struct Offer {
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
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
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
    pub(crate) fn for_file(&mut self) {
        (self.most, self.from_file) = (FILE_MOST, true);
    }

    /// Whether a file of this type and size would be another for a client that takes other codings.
    pub(crate) fn would_vary(&self, kind: &HeaderValue, size: u64) -> bool {
        let least = match Accepted::read(&self.accept).no_identity {
            true => 1,
            false => LEAST,
        };
        is_compressible_type(kind) && (least..=self.most).contains(&size)
    }

    /// Compresses `response`, if it may be, and the client wants it.
    pub(crate) fn apply(self, response: &mut Response<Body>) {
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

#[cfg(test)]
mod tests;
