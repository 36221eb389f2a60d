//! The path of a request as routes and files see it: decoded once, and never ambiguous.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;

use crate::route::rest_of_path;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathError {
    /// A `.` or `..` segment, plain or escaped: two programs in a row may resolve it to two different places.
    Dots,
    /// A NUL, which ends a name for whoever is written in C.
    Nul,
}

/// Decodes the percent escapes of `path`, a slash excepted: `%2F` is a character of a segment and stays as it is written, so that
/// no escape changes which segments there are. The worker gets the path as the client wrote it, not this one.
///
/// # Errors
/// For what could be taken for another path further down.
pub(super) fn decode(path: &str) -> Result<Cow<'_, str>, PathError> {
    let decoded = if path.contains('%') {
        Cow::Owned(unescape(path)?)
    } else {
        Cow::Borrowed(path)
    };
    // `memmem` for the rare pair first: hardly any path has a segment that begins with a dot.
    if decoded.contains("/.") && decoded.split('/').any(|s| matches!(s, "." | "..")) {
        return Err(PathError::Dots);
    }
    Ok(decoded)
}

/// `uri` without the first `segments` segments of its path, as the client wrote the rest: decoding makes and takes away no slash, so that
/// these are the segments the route was found by.
pub(super) fn without(uri: Uri, segments: usize) -> Uri {
    let rest = rest_of_path(uri.path(), segments);
    let slash = if rest.is_empty() { "/" } else { "" };
    let target = match uri.query() {
        Some(query) => format!("{slash}{rest}?{query}"),
        None => format!("{slash}{rest}"),
    };
    // What was a part of a target is one.
    PathAndQuery::try_from(target).map_or(uri, Uri::from)
}

fn unescape(path: &str) -> Result<String, PathError> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = (byte == b'%')
            .then(|| hex(bytes.get(at + 1..at + 3)?))
            .flatten();
        match escape {
            Some(0) => return Err(PathError::Nul),
            Some(b'/') => decoded.extend_from_slice(&bytes[at..at + 3]),
            Some(character) => decoded.push(character),
            None => {
                decoded.push(byte);
                at += 1;
                continue;
            }
        }
        at += 3;
    }
    // Names that are not UTF-8 match no route and no file of ours; the replacement character does neither.
    Ok(String::from_utf8(decoded)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*digits.first()?)? * 16 + digit(*digits.get(1)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_a_slash_is_not() {
        for (path, decoded) in [
            ("/a/b", "/a/b"),
            ("/%61pi", "/api"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb", "/a%2fb"),
            ("/100%", "/100%"),
            ("/%zz/%4", "/%zz/%4"),
            ("/.hidden", "/.hidden"),
            ("/a..b/...", "/a..b/..."),
        ] {
            assert_eq!(decode(path).unwrap(), decoded, "{path}");
        }
    }

    #[test]
    fn segments_are_cut_from_what_the_client_wrote() {
        for (target, segments, rest) in [
            ("/api", 1, "/"),
            ("/api?a=1&b", 1, "/?a=1&b"),
            ("/api/", 1, "/"),
            ("/%61pi/us%65rs?%41", 1, "/us%65rs?%41"),
            ("/api/a%2Fb", 1, "/a%2Fb"),
            ("/a/b/c/d", 2, "/c/d"),
            ("/api//x", 1, "//x"),
            ("/api?", 1, "/?"),
        ] {
            let uri = without(target.parse().unwrap(), segments);
            assert_eq!(uri.to_string(), rest, "{target}");
        }
    }

    #[test]
    fn dot_segments_are_refused_however_they_are_written() {
        for path in ["/..", "/a/../b", "/a/.", "/%2e%2e/b", "/a/.%2E", "/%2e"] {
            assert_eq!(decode(path), Err(PathError::Dots), "{path}");
        }
        assert_eq!(decode("/a%00"), Err(PathError::Nul));
    }
}
