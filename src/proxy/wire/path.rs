//! The path of a request as routes and files see it: decoded once, and never ambiguous.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;

use crate::route::rest_of_path;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// A `.` or `..` segment, plain or escaped: two programs in a row may resolve it to two different places.
    #[error("the path has a '.' or '..' segment")]
    Dots,
    /// A NUL, which ends a name for whoever is written in C.
    #[error("the path has a NUL")]
    Nul,
    /// A `%` that is not followed by two hexadecimal digits: a character for some, the begin of an escape for others (`%u002e`, `%%32e`).
    #[error("the path has a '%' that is not followed by two hexadecimal digits")]
    Escape,
    /// A character in a longer form than it needs: for a careless decoder, a dot or a slash (RFC 3629, 10).
    #[error("the path has a character in an overlong form")]
    Overlong,
}

/// Decodes the percent escapes of `path`, a slash excepted: `%2F` is a character of a segment and stays as it is written, so that
/// no escape changes which segments there are. The worker gets the path as the client wrote it, except for its route: see [`respell`].
///
/// # Errors
/// For what could be taken for another path further down.
pub(crate) fn decode(path: &str) -> Result<Cow<'_, str>, PathError> {
    let decoded = if path.contains('%') {
        Cow::Owned(unescape(path)?)
    } else {
        Cow::Borrowed(path)
    };
    match has_dots(decoded.as_bytes()) {
        true => Err(PathError::Dots),
        false => Ok(decoded),
    }
}

/// Whether there is a `.` or `..` segment for anybody: some take `\` and `%2F` for a slash, some end a segment at `;`.
fn has_dots(path: &[u8]) -> bool {
    let slash = |three: &[u8]| three.eq_ignore_ascii_case(b"%2f");
    memchr::memchr_iter(b'.', path).any(|at| {
        let (before, rest) = (&path[..at], &path[at + 1..]);
        let begins = match before {
            [.., b'/' | b'\\'] => true,
            [.., a, b, c] => slash(&[*a, *b, *c]),
            _ => false,
        };
        let rest = rest.strip_prefix(b".").unwrap_or(rest);
        begins
            && match rest {
                [] | [b'/' | b'\\' | b';', ..] => true,
                [a, b, c, ..] => slash(&[*a, *b, *c]),
                _ => false,
            }
    })
}

/// The target with the route's `prefix` as the route is written, if the client has written it with escapes: what leads to a worker
/// is what the worker sees.
pub(crate) fn respell(uri: &Uri, prefix: &str) -> Option<Uri> {
    let target = uri.path_and_query()?.as_str();
    if target.starts_with(prefix) {
        return None;
    }
    let bytes = target.as_bytes();
    let mut at = 0;
    for _ in 0..prefix.len() {
        at += if *bytes.get(at)? == b'%' { 3 } else { 1 };
    }
    let target = format!("{prefix}{}", target.get(at..)?);
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

/// `uri` without the first `segments` segments of its path, as the client wrote the rest: decoding makes and takes away no slash, so that
/// these are the segments the route was found by.
pub(crate) fn without(uri: &Uri, segments: usize) -> Uri {
    let rest = rest_of_path(uri.path(), segments);
    let slash = if rest.is_empty() { "/" } else { "" };
    let target = match uri.query() {
        Some(query) => format!("{slash}{rest}?{query}"),
        None => format!("{slash}{rest}"),
    };
    // What was a part of a target is one.
    PathAndQuery::try_from(target).map_or_else(|_| uri.clone(), Uri::from)
}

fn unescape(path: &str) -> Result<String, PathError> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            decoded.push(byte);
            at += 1;
            continue;
        }
        match bytes.get(at + 1..at + 3).and_then(hex) {
            None => return Err(PathError::Escape),
            Some(0) => return Err(PathError::Nul),
            Some(b'/') => decoded.extend_from_slice(&bytes[at..at + 3]),
            Some(character) => decoded.push(character),
        }
        at += 3;
    }
    // Names that are not UTF-8 match no route and no file of ours; the replacement character does neither.
    String::from_utf8(decoded).or_else(|error| match is_overlong(error.as_bytes()) {
        true => Err(PathError::Overlong),
        false => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    })
}

fn is_overlong(bytes: &[u8]) -> bool {
    let overlong = |pair: &[u8]| {
        matches!(
            pair,
            [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]
        )
    };
    bytes.windows(2).any(overlong)
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
            ("/%2561pi", "/%61pi"),
            ("/caf%E9", "/caf\u{fffd}"),
            ("//a", "//a"),
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
            let uri = without(&target.parse().unwrap(), segments);
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

    #[test]
    fn what_others_may_take_for_dot_segments_is_refused() {
        for path in [
            "/a\\..\\b",
            "/a%5c..",
            "/a%2f..%2fb",
            "/%2F.",
            "/..;/b",
            "/..;a=b",
            "/.;",
            "/..%2F",
        ] {
            assert_eq!(decode(path), Err(PathError::Dots), "{path}");
        }
        for path in ["/100%", "/%zz", "/%4", "/%u002e", "/%%32e"] {
            assert_eq!(decode(path), Err(PathError::Escape), "{path}");
        }
        for path in ["/%c0%ae", "/%C1%9C", "/%e0%80%ae", "/%f0%80%80%ae"] {
            assert_eq!(decode(path), Err(PathError::Overlong), "{path}");
        }
    }

    #[test]
    fn a_route_is_spelled_as_it_is_written() {
        let respelled = |target: &str, prefix| {
            let uri = respell(&target.parse().unwrap(), prefix)?;
            Some(uri.to_string())
        };
        assert_eq!(respelled("/%61pi/%61?%61", "/api").unwrap(), "/api/%61?%61");
        assert_eq!(respelled("http://h/a%70i", "/api").unwrap(), "http://h/api");
        assert_eq!(respelled("/api/%61", "/api"), None);
        assert_eq!(respelled("/%61pi", ""), None);
    }
}
