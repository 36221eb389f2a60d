//! Header fields on their way through: what is meant for the next hop only goes, what the worker needs to know comes.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    UPGRADE,
};

use super::list::{has_member, tokens};
use super::origin::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PREFIX, FORWARDED_PROTO, Origin};

/// What a request is called in all logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id of a client that is kept.
const REQUEST_ID_MAX: usize = 128;

/// What the proxy tells a worker about a request.
#[derive(Debug)]
pub(crate) struct Forwarded<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) host: &'a HeaderValue,
    pub(crate) prefix: &'a HeaderValue,
    pub(crate) id: &'a HeaderValue,
    /// Whether names with `_` and other signs pass, see [`is_barred`].
    pub(crate) odd_names: bool,
}

/// Whether `name` speaks about one hop only (RFC 9110, 7.6.1, and what old programs send). `Connection` itself is dealt with apart.
pub(crate) fn is_hop(name: &str) -> bool {
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
            | "http2-settings"
    )
}

/// What a gateway tells a program besides the fields (RFC 3875, 4.1, and what servers have added), as names of fields would be written.
/// Servers that keep both in one map, WSGI's and Rack's among them, take `script_name` for theirs.
const VARIABLES: [&[u8]; 24] = [
    b"auth-type",
    b"content-length",
    b"content-type",
    b"document-root",
    b"document-uri",
    b"gateway-interface",
    b"path-info",
    b"path-translated",
    b"query-string",
    b"redirect-status",
    b"remote-addr",
    b"remote-host",
    b"remote-ident",
    b"remote-port",
    b"remote-user",
    b"request-method",
    b"request-scheme",
    b"request-uri",
    b"script-filename",
    b"script-name",
    b"server-addr",
    b"server-name",
    b"server-port",
    b"transfer-encoding",
];

/// Whether a client's field is kept from workers. A program that reads fields as environment variables (CGI and its heirs) can not tell
/// `_`, and often no other sign, from `-`: so names that have any are kept back unless a worker asks for them with `odd_names`, as nginx
/// and Apache do. With them go those that read like one of the proxy's own, or like a variable of CGI, all the same.
fn is_barred(name: &str, odd_names: bool) -> bool {
    match is_odd(name) {
        false => is_claim(name),
        true => {
            !odd_names
                || is_claim(name)
                || VARIABLES.iter().any(|known| same(name.as_bytes(), known))
        }
    }
}

/// Whether a name has signs other than `-`.
fn is_odd(name: &str) -> bool {
    // All of them are looked at, so that there is no branch for each.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() | (byte == b'-');
    name.bytes().fold(false, |odd, byte| odd | !plain(byte))
}

/// Whether a client's field claims what only the proxy can know, in any spelling. To CGI `Proxy` is `HTTP_PROXY`, where programs look for
/// the address of their own proxy. Some frameworks take the target from `X-Original-URL` or `X-Rewrite-URL`, which would be another than
/// the one that was routed, and which files a server may send from `X-Sendfile-Type` and `X-Accel-Mapping` (CVE-2025-61780).
fn is_claim(name: &str) -> bool {
    let bytes = name.as_bytes();
    match bytes.first() {
        Some(b'f') => name == "forwarded",
        Some(b'p') => name == "proxy",
        Some(b'x') if bytes.len() >= 9 && !bytes[1].is_ascii_alphanumeric() => {
            let name = &bytes[2..];
            name.starts_with(b"forwarded")
                || [
                    &b"accel-mapping"[..],
                    b"real-ip",
                    b"request-id",
                    b"sendfile-type",
                    b"original-url",
                    b"rewrite-url",
                ]
                .iter()
                .any(|claim| same(name, claim))
        }
        _ => false,
    }
}

fn same(name: &[u8], dashed: &[u8]) -> bool {
    name.len() == dashed.len()
        && name
            .iter()
            .zip(dashed)
            .all(|(&a, &b)| a == b || (b == b'-' && !a.is_ascii_alphanumeric()))
}

/// Hands a worker's fields to `put`, one by one: those of a client that may pass, and what the proxy says itself. `expects`: the client's
/// `Expect` is the worker's to meet.
pub(crate) fn to_worker(
    headers: &HeaderMap,
    forwarded: &Forwarded<'_>,
    upgrading: bool,
    expects: bool,
    mut put: impl FnMut(&HeaderName, &HeaderValue),
) {
    put(&HOST, forwarded.host);
    let options = Options::of(headers);
    let mut takes_trailers = false;
    for (name, value) in headers {
        if is_hop(name.as_str()) {
            takes_trailers |= name == TE && has_member(value, "trailers");
            continue;
        }
        let stays = name == HOST || (name == EXPECT && !expects) || {
            is_barred(name.as_str(), forwarded.odd_names)
        };
        if !stays && !options.names().contains(name) {
            put(name, value);
        }
    }
    if upgrading && let Some(upgrade) = headers.get(UPGRADE) {
        put(&UPGRADE, upgrade);
        put(&CONNECTION, &HeaderValue::from_static("upgrade"));
    } else if takes_trailers {
        put(&TE, &HeaderValue::from_static("trailers"));
        put(&CONNECTION, &HeaderValue::from_static("te"));
    }
    put(&FORWARDED_FOR, &forwarded.origin.way);
    put(&FORWARDED_PROTO, &forwarded.origin.proto);
    put(&FORWARDED_HOST, forwarded.host);
    put(&FORWARDED_PREFIX, forwarded.prefix);
    put(&REQUEST_ID, forwarded.id);
}

/// Makes a client's trailers the worker's. What may not be claimed before the body may not be claimed after it.
pub(crate) fn trailers_to_worker(trailers: &mut HeaderMap, odd_names: bool) {
    strip(trailers, |name| {
        is_hop(name) || is_barred(name, odd_names) || is_of_a_head(name)
    });
}

/// Makes a worker's trailers the client's.
pub(crate) fn trailers_to_client(trailers: &mut HeaderMap) {
    strip(trailers, |name| is_hop(name) || is_of_a_head(name));
}

/// Whether `name` means something in a head alone (RFC 9110, 6.5.1): how a message is framed, routed, changed or understood, and who
/// may see it. Framing is meant also for a program that can not tell `_` from `-`.
fn is_of_a_head(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "cache-control"
            | "content-encoding"
            | "content-range"
            | "content-type"
            | "expect"
            | "host"
            | "max-forwards"
            | "set-cookie"
            | "trailer"
    ) || same(name.as_bytes(), b"content-length")
        || same(name.as_bytes(), b"transfer-encoding")
}

/// The names that the value of a field such as `Trailer` lists.
pub(crate) fn names(value: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    tokens(value).filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
}

/// Makes a worker's fields the client's.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    strip(headers, is_hop);
}

/// Removes what `unwanted` names and what `Connection` names.
fn strip(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let mut options = Options::of(headers);
    let unwanted = headers.keys().filter(|name| unwanted(name.as_str()));
    let mut gone: Vec<HeaderName> = unwanted.cloned().collect();
    gone.append(&mut options.names);
    for name in gone {
        headers.remove(name);
    }
}

/// What `Connection` says (RFC 9110, 7.6.1).
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// The connection ends with this message.
    pub(crate) close: bool,
    /// It does not, although the message is one of HTTP/1.0.
    pub(crate) keep_alive: bool,
    names: Vec<HeaderName>,
}

impl Options {
    fn of(headers: &HeaderMap) -> Self {
        let mut options = Self::default();
        for value in headers.get_all(CONNECTION) {
            options.read(value);
        }
        options
    }

    /// Takes the value of one of its fields.
    pub(crate) fn read(&mut self, value: &HeaderValue) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case("close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case("keep-alive") {
                self.keep_alive = true;
            } else if let Ok(name) = HeaderName::from_bytes(token.as_bytes())
                // Framing and the address are not a client's to take away.
                && ![CONTENT_LENGTH, HOST, EXPECT, TRAILER].contains(&name)
            {
                self.names.push(name);
            }
        }
    }

    /// Fields that are for one hop only because it says so.
    pub(crate) fn names(&self) -> &[HeaderName] {
        &self.names
    }
}

/// Whether the client asks to speak another protocol from here on. Other versions of HTTP are none: a worker that took it up would
/// answer, inside a tunnel, requests that nobody has routed.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    let is_http = |protocol: &str| {
        let name = protocol.split('/').next().unwrap_or_default();
        ["h2c", "h2", "http", "tls"]
            .iter()
            .any(|http| name.trim().eq_ignore_ascii_case(http))
    };
    headers.contains_key(UPGRADE)
        && !headers
            .get_all(UPGRADE)
            .iter()
            .flat_map(tokens)
            .any(is_http)
        && headers
            .get_all(CONNECTION)
            .iter()
            .any(|value| has_member(value, "upgrade"))
}

/// The client's own name for the request, if it is one that can stand in a log.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut ids = headers.get_all(REQUEST_ID).iter();
    let id = ids.next()?;
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
    let fits = (1..=REQUEST_ID_MAX).contains(&id.len()) && id.as_bytes().iter().all(safe);
    (fits && ids.next().is_none()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::wire::origin::tests::{fields, origin};

    fn passed(lines: &[(&str, &str)], upgrading: bool) -> HeaderMap {
        passed_with(lines, upgrading, false)
    }

    fn passed_with(lines: &[(&str, &str)], upgrading: bool, odd_names: bool) -> HeaderMap {
        let value = HeaderValue::from_static;
        let forwarded = Forwarded {
            origin: &origin("192.0.2.1"),
            host: &value("example.org"),
            prefix: &value("/api"),
            id: &value("id"),
            odd_names,
        };
        let mut headers = HeaderMap::new();
        to_worker(
            &fields(lines),
            &forwarded,
            upgrading,
            true,
            |name, value| {
                headers.append(name, value.clone());
            },
        );
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
    fn odd_names_pass_where_they_are_asked_for_unless_they_read_like_another() {
        let lines = [
            ("x_own", "1"),
            ("x.own", "1"),
            ("grpc_call", "1"),
            ("script_name", "/"),
            ("remote_user", "root"),
            ("remote.user", "root"),
            ("content_length", "9"),
            ("transfer_encoding", "chunked"),
            ("x_forwarded-for", "203.0.113.9"),
            ("x.real.ip", "203.0.113.9"),
            ("x_sendfile_type", "X-Accel-Redirect"),
        ];
        let known = passed(&[], false).len();
        assert_eq!(passed(&lines, false).len(), known);
        let headers = passed_with(&lines, false, true);
        for name in ["x_own", "x.own", "grpc_call"] {
            assert!(headers.contains_key(name), "{name}");
        }
        assert_eq!(headers.len(), known + 3);
        let mut trailers = fields(&lines);
        trailers_to_worker(&mut trailers, true);
        assert_eq!(trailers.len(), 3, "{trailers:?}");
        trailers_to_worker(&mut trailers, false);
        assert!(trailers.is_empty());
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
        for http in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.2"] {
            assert!(!wants_upgrade(&fields(&[
                ("connection", "Upgrade"),
                ("upgrade", http)
            ])));
        }
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
}
