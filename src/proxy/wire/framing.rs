//! Where a message ends: lengths, the sizes of chunks, and the fields that say which of the two it is (RFC 9112, 6 and 7).

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};

/// No body is as large as this, so no sum of lengths can overflow, here or further down.
const BODY_MAX: u64 = 1 << 60;

/// Most digits of a chunk's size, leading zeros included; it is then below [`BODY_MAX`].
const CHUNK_DIGITS: usize = 15;

/// Without the white space that may stand around a value. Rust's own notion of it knows more.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A length: digits, and nothing else, and no more than any body has.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number < BODY_MAX).then_some(number)
}

/// The size on the line before a chunk. Extensions are allowed, and nobody reads them.
pub(crate) fn size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let (digits, extension) = line.split_at(digits.count());
    let plain = |&byte: &u8| byte == b'\t' || !byte.is_ascii_control();
    if digits.len() > CHUNK_DIGITS || !extension.iter().all(plain) {
        return None;
    }
    if !extension.is_empty() && !trim(extension).starts_with(b";") {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Whether a worker's answer says in exactly one way where it ends.
///
/// # Errors
/// What is wrong, for the operator. Nothing that comes over its connection can then be trusted to be the answer to anything.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut framing = Framing::default();
    for (name, value) in headers {
        framing.field(name, value);
    }
    framing.only().map(drop)
}

/// What the head of an answer says of where it ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Framing {
    pub(crate) length: Option<u64>,
    pub(crate) is_chunked: bool,
    flaw: Option<&'static str>,
}

impl Framing {
    /// Takes a field.
    pub(crate) fn field(&mut self, name: &HeaderName, value: &HeaderValue) {
        if name == CONTENT_LENGTH {
            match number(value.as_bytes()) {
                Some(length) if self.length.is_none() => self.length = Some(length),
                _ => self.flaw = Some("it does not say in one number how long its answer is"),
            }
        } else if name == TRANSFER_ENCODING {
            let is_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
            if self.is_chunked || !is_chunked {
                self.flaw = Some("its answer's Transfer-Encoding is not 'chunked'");
            }
            self.is_chunked = true;
        }
    }

    /// The one way in which it ends.
    ///
    /// # Errors
    /// What is wrong, for the operator.
    pub(crate) fn only(self) -> Result<Self, &'static str> {
        if self.is_chunked && self.length.is_some() {
            return Err("its answer has Content-Length and Transfer-Encoding");
        }
        self.flaw.map_or(Ok(self), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_in_one_way() {
        let check = |fields: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            check(&headers).is_ok()
        };
        let (length, coding) = ("content-length", "transfer-encoding");
        assert!(check(&[]) && check(&[(length, "0")]) && check(&[(coding, "Chunked")]));
        assert!(!check(&[(length, "1"), (coding, "chunked")]));
        assert!(!check(&[(length, "1"), (length, "1")]));
        assert!(!check(&[(length, "1, 1")]));
        assert!(!check(&[(coding, "gzip, chunked")]));
        assert!(!check(&[(coding, "chunked"), (coding, "chunked")]));
        assert!(!check(&[(coding, "identity")]));
    }
}
