//! Header fields on their way through: what is meant for the next hop only goes, what the worker needs to know comes.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    UPGRADE,
};
use http::uri::Authority;

/// The client's address.
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The protocol the client spoke.
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host the client asked for.
pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The route that led to the worker.
pub(super) const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// What a request is called in all logs.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id of a client that is kept.
const REQUEST_ID_MAX: usize = 128;

/// What the proxy tells a worker about a request.
#[derive(Debug)]
pub(super) struct Forwarded<'a> {
    pub(super) peer: &'a HeaderValue,
    pub(super) host: HeaderValue,
    pub(super) prefix: &'a HeaderValue,
    pub(super) id: &'a HeaderValue,
}

/// Whether `name` speaks about one hop only (RFC 9110, 7.6.1, and what old programs send). `Connection` itself is dealt with apart.
fn is_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a client's field claims what only the proxy can know. A program that reads fields as environment variables (CGI and its
/// heirs) can not tell `_` from `-`, so neither do we.
fn is_claim(name: &str) -> bool {
    let bytes = name.as_bytes();
    match bytes.first() {
        Some(b'f') => name == "forwarded",
        Some(b'x') if bytes.len() >= 9 && matches!(bytes[1], b'-' | b'_') => {
            let name = &bytes[2..];
            name.starts_with(b"forwarded") || same(name, b"real-ip") || same(name, b"request-id")
        }
        _ => false,
    }
}

fn same(name: &[u8], dashed: &[u8]) -> bool {
    name.len() == dashed.len()
        && name
            .iter()
            .zip(dashed)
            .all(|(&a, &b)| a == b || (a == b'_' && b == b'-'))
}

/// Makes a client's fields the worker's.
pub(super) fn to_worker(headers: &mut HeaderMap, forwarded: Forwarded<'_>, upgrading: bool) {
    let upgrade = if upgrading {
        headers.get(UPGRADE).cloned()
    } else {
        None
    };
    let trailers = headers.get(TE).is_some() && takes_trailers(headers);
    strip(headers, |name| is_hop(name) || is_claim(name));
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    headers.insert(FORWARDED_FOR, forwarded.peer.clone());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.insert(FORWARDED_HOST, forwarded.host.clone());
    headers.insert(FORWARDED_PREFIX, forwarded.prefix.clone());
    headers.insert(REQUEST_ID, forwarded.id.clone());
    // Mostly it is the client's own field, which stays where it is.
    if headers.get(HOST) != Some(&forwarded.host) {
        headers.insert(HOST, forwarded.host);
    }
}

/// Makes a worker's fields the client's; an upgrade's own are kept.
pub(super) fn to_client(headers: &mut HeaderMap, upgrading: bool) {
    let upgrade = if upgrading {
        headers.get(UPGRADE).cloned()
    } else {
        None
    };
    strip(headers, is_hop);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Removes what `unwanted` names and what `Connection` names.
fn strip(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let mut gone: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        if unwanted(name.as_str()) {
            gone.push(name.clone());
        }
    }
    if gone.contains(&CONNECTION) {
        let named = headers.get_all(CONNECTION).iter().flat_map(tokens);
        let named = named.filter(|token| {
            !["keep-alive", "close"]
                .iter()
                .any(|usual| token.eq_ignore_ascii_case(usual))
        });
        let named = named.filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok());
        // Framing and the address are not a client's to take away.
        gone.extend(named.filter(|n| ![CONTENT_LENGTH, HOST, EXPECT, TRAILER].contains(n)));
    }
    for name in gone {
        headers.remove(name);
    }
}

/// The members of a list such as `Connection`'s.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let list = value.to_str().unwrap_or_default();
    list.split(',').map(str::trim).filter(|t| !t.is_empty())
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut members = headers.get_all(TE).iter().flat_map(tokens);
    members.any(|member| member.eq_ignore_ascii_case("trailers"))
}

/// Whether the client asks to speak another protocol from here on.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(tokens)
            .any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// The request's host: the target's own when it has one, else the field's. `None` when there is none, there are two, or it could not be
/// the name of a host.
pub(super) fn host(headers: &HeaderMap, authority: Option<&Authority>) -> Option<HeaderValue> {
    let mut fields = headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return None;
    }
    let host = match authority {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok()?,
        None => field?.clone(),
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte);
    host.as_bytes().iter().all(plain).then_some(host)
}

/// The client's own name for the request, if it is one that can stand in a log.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut ids = headers.get_all(REQUEST_ID).iter();
    let id = ids.next()?;
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
    let fits = (1..=REQUEST_ID_MAX).contains(&id.len()) && id.as_bytes().iter().all(safe);
    (fits && ids.next().is_none()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn passed(lines: &[(&str, &str)], upgrading: bool) -> HeaderMap {
        let mut headers = fields(lines);
        let value = HeaderValue::from_static;
        let forwarded = Forwarded {
            peer: &value("192.0.2.1"),
            host: value("example.org"),
            prefix: &value("/api"),
            id: &value("id"),
        };
        to_worker(&mut headers, forwarded, upgrading);
        headers
    }

    #[test]
    fn what_is_for_one_hop_ends_there() {
        let headers = passed(
            &[
                ("connection", "keep-alive, X-Secret"),
                ("connection", "x-other"),
                ("x-secret", "1"),
                ("x-other", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-authorization", "Basic x"),
                ("te", "gzip"),
                ("upgrade", "h2c"),
                ("x-kept", "1"),
            ],
            false,
        );
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "host",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-prefix",
                "x-forwarded-proto",
                "x-kept",
                "x-request-id"
            ]
        );
    }

    #[test]
    fn a_client_can_not_say_who_it_is() {
        let headers = passed(
            &[
                ("x-forwarded-for", "203.0.113.9"),
                ("x_forwarded_for", "203.0.113.9"),
                ("x-forwarded-user", "root"),
                ("forwarded", "for=203.0.113.9"),
                ("x-real_ip", "203.0.113.9"),
                ("connection", "x-forwarded-for, x-forwarded-host"),
            ],
            false,
        );
        assert_eq!(headers[FORWARDED_FOR], "192.0.2.1");
        assert_eq!(headers[FORWARDED_HOST], "example.org");
        assert_eq!(headers.len(), 6);
    }

    #[test]
    fn trailers_and_upgrades_are_asked_for_on_the_next_hop_too() {
        let headers = passed(&[("te", "deflate, trailers"), ("connection", "te")], false);
        assert_eq!(
            (&headers[TE], &headers[CONNECTION]),
            (&"trailers".parse().unwrap(), &"te".parse().unwrap())
        );
        let lines = [("connection", "Upgrade"), ("upgrade", "websocket")];
        assert!(wants_upgrade(&fields(&lines)));
        let headers = passed(&lines, true);
        assert_eq!(headers[UPGRADE], "websocket");
    }

    #[test]
    fn a_request_id_that_could_forge_a_log_line_is_not_kept() {
        let kept = |id: &str| request_id(&fields(&[("x-request-id", id)])).is_some();
        assert!(kept("a-1_2.3"));
        assert!(!kept(""));
        assert!(!kept("a b"));
        assert!(!kept("<script>"));
        assert!(!kept(&"x".repeat(129)));
        assert!(request_id(&fields(&[("x-request-id", "a"), ("x-request-id", "b")])).is_none());
    }

    #[test]
    fn there_is_one_host() {
        assert_eq!(host(&fields(&[("host", "a:1")]), None).unwrap(), "a:1");
        assert!(host(&fields(&[]), None).is_none());
        assert!(host(&fields(&[("host", "a"), ("host", "a")]), None).is_none());
        assert!(host(&fields(&[("host", "a/b")]), None).is_none());
        let target = Authority::from_static("target");
        assert_eq!(
            host(&fields(&[("host", "field")]), Some(&target)).unwrap(),
            "target"
        );
        let user = Authority::from_static("user@target");
        assert!(host(&fields(&[]), Some(&user)).is_none());
    }
}
