//! The host that a request is for.

use http::header::{HOST, HeaderMap, HeaderValue};
use http::uri::Authority;

/// The request's host: the target's own when it has one, else the field's. `None` when there is none, there are two, field and target
/// differ, or it could not be the name of a host.
pub(crate) fn of(headers: &HeaderMap, authority: Option<&Authority>) -> Option<HeaderValue> {
    let mut fields = headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return None;
    }
    let host = match (authority, field) {
        (Some(authority), Some(field))
            if !field
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            return None;
        }
        (Some(authority), _) => HeaderValue::from_str(authority.as_str()).ok()?,
        (None, field) => field?.clone(),
    };
    is_host(host.as_bytes()).then_some(host)
}

/// Whether this names a host as the web does: a name or an IPv4 address, or an IPv6 address in brackets, and perhaps a port. The other
/// characters that RFC 3986 allows in a name mean something in a list, a path or a log. Nothing at all is a host that is not known.
pub(super) fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else {
                return false;
            };
            let plain = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            if end < 2 || !rest[..end].iter().all(plain) {
                return false;
            }
            (&[][..], &rest[end + 1..])
        }
        _ => {
            let end = host.iter().position(|&byte| byte == b':');
            host.split_at(end.unwrap_or(host.len()))
        }
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let port = match port {
        [] => true,
        [b':', digits @ ..] => {
            host[0] != b':' && digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    port && name.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::wire::origin::tests::fields;

    #[test]
    fn there_is_one_host() {
        assert_eq!(of(&fields(&[("host", "a:1")]), None).unwrap(), "a:1");
        assert!(of(&fields(&[]), None).is_none());
        assert!(of(&fields(&[("host", "a"), ("host", "a")]), None).is_none());
        for good in [
            "",
            "a-b_c.example",
            "192.0.2.1:80",
            "[::1]",
            "[2001:db8::1]:8080",
            "a:",
        ] {
            assert!(of(&fields(&[("host", good)]), None).is_some(), "{good}");
        }
        for bad in [
            "a/b", "a,b", "a b", "u@a", "a:b", "a:1:2", ":80", "[::1", "[]", "[::1]x", "a[b]",
            "a%2eb", "a:123456", "(a)",
        ] {
            assert!(of(&fields(&[("host", bad)]), None).is_none(), "{bad}");
        }
        let target = Authority::from_static("target");
        assert_eq!(
            of(&fields(&[("host", "Target")]), Some(&target)).unwrap(),
            "target"
        );
        assert!(of(&fields(&[("host", "field")]), Some(&target)).is_none());
        let user = Authority::from_static("user@target");
        assert!(of(&fields(&[]), Some(&user)).is_none());
    }
}
