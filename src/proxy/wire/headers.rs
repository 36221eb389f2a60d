//! Header fields on their way through: what is meant for the next hop only goes, what the worker needs to know comes.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    UPGRADE,
};
use http::uri::Authority;

/// The client's address.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The protocol the client spoke.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host the client asked for.
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The route that led to the worker.
pub(crate) const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// What a request is called in all logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id of a client that is kept.
const REQUEST_ID_MAX: usize = 128;

/// Longest way through proxies that is passed on.
const WAY_MAX: usize = 1024;

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

/// Where a request comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The client's address: our peer's own, or what a trusted proxy says; [`UNKNOWN`] where neither is there.
    pub(crate) client: HeaderValue,
    /// The port it came from, if that is known.
    pub(crate) client_port: Option<u16>,
    /// The value of `X-Forwarded-For`: the client's address, or with trusted proxies in between the whole way.
    pub(crate) way: HeaderValue,
    /// The value of `X-Forwarded-Proto`.
    pub(crate) proto: HeaderValue,
    /// Whether that is a trusted proxy's word: the client has connected to that, and not to us.
    pub(crate) is_told: bool,
    /// Where the connection came in; `None` behind a unix socket.
    pub(crate) local: Option<SocketAddr>,
}

/// The address of a client behind a unix socket of which no proxy says more.
pub(crate) const UNKNOWN: &str = "unknown";

impl Origin {
    /// The port that the client has connected to.
    pub(crate) fn port(&self) -> u16 {
        match self.local.filter(|_| !self.is_told) {
            Some(local) => local.port(),
            None if self.proto == "https" => 443,
            None => 80,
        }
    }

    /// What a trusted proxy at `self` says in `headers` of who is behind it, and which host that has asked for. `trusts` tells which
    /// addresses are such proxies.
    ///
    /// All of it is told in lists, to which each proxy adds at the right. The client is the first from the right that is not trusted, and
    /// its protocol and host stand at the same place from the right: what is left of that is the client's own invention. A shorter list
    /// was passed on by those in between, and so was one of which nobody says how many there were: there the leftmost counts.
    pub(crate) fn behind(
        &self,
        headers: &HeaderMap,
        trusts: impl Fn(IpAddr) -> bool,
    ) -> (Self, Option<HeaderValue>) {
        let way: Vec<&str> = headers
            .get_all(FORWARDED_FOR)
            .iter()
            .flat_map(tokens)
            .collect();
        let (mut client, mut client_port) = (self.client.clone(), self.client_port);
        let mut place = (!way.is_empty()).then_some(0);
        // From right to left: each says who came to it, and the first that is not trusted may have said anything.
        for (at, step) in way.iter().rev().enumerate() {
            let Some((address, port)) = address_of(step) else {
                break;
            };
            client = HeaderValue::from_str(&address.to_string()).unwrap_or(client);
            (client_port, place) = (port, Some(at));
            if !trusts(address) {
                break;
            }
        }
        let mut whole = way.join(", ");
        if !whole.is_empty() && whole.len() <= WAY_MAX && !whole.contains(char::is_control) {
            whole.push_str(", ");
        } else {
            whole.clear();
        }
        whole.push_str(self.client.to_str().unwrap_or("unknown"));
        let named = |name: &'static str| HeaderValue::from_static(name);
        let proto = member(headers, &FORWARDED_PROTO, place).and_then(|proto| match proto {
            // A scheme's case does not matter (RFC 3986, 3.1).
            _ if proto.eq_ignore_ascii_case("http") => Some(named("http")),
            _ if proto.eq_ignore_ascii_case("https") => Some(named("https")),
            _ => None,
        });
        let host = member(headers, &FORWARDED_HOST, place)
            .filter(|host| is_host(host.as_bytes()))
            .and_then(|host| HeaderValue::from_str(host).ok());
        let origin = Self {
            client,
            client_port,
            way: HeaderValue::from_str(&whole).unwrap_or_else(|_| self.way.clone()),
            is_told: proto.is_some(),
            proto: proto.unwrap_or_else(|| self.proto.clone()),
            local: self.local,
        };
        (origin, host)
    }
}

/// The member of a list that has `place` others at its right, or the leftmost.
fn member<'h>(headers: &'h HeaderMap, name: &HeaderName, place: Option<usize>) -> Option<&'h str> {
    let members = || headers.get_all(name).iter().flat_map(tokens);
    let at = place.map_or(0, |place| members().count().saturating_sub(place + 1));
    members().nth(at)
}

/// A member of `X-Forwarded-For`: an address, perhaps with a port.
fn address_of(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let text = text.trim_matches('"');
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let (address, port) = match text.parse::<SocketAddr>() {
        Ok(whole) => (whole.ip(), Some(whole.port())),
        Err(_) => (text.parse::<IpAddr>().ok().or_else(bare)?, None),
    };
    Some((address.to_canonical(), port))
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

/// The members of a list such as `Connection`'s.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let list = value.to_str().unwrap_or_default();
    list.split(',').map(str::trim).filter(|t| !t.is_empty())
}

fn has_member(value: &HeaderValue, member: &str) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(member))
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

/// The request's host: the target's own when it has one, else the field's. `None` when there is none, there are two, field and target
/// differ, or it could not be the name of a host.
pub(crate) fn host(headers: &HeaderMap, authority: Option<&Authority>) -> Option<HeaderValue> {
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
fn is_host(host: &[u8]) -> bool {
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

    fn fields(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn origin(address: &str) -> Origin {
        let address = HeaderValue::from_str(address).unwrap();
        Origin {
            client: address.clone(),
            client_port: Some(4711),
            way: address,
            proto: HeaderValue::from_static("http"),
            is_told: false,
            local: Some("192.0.2.80:8080".parse().unwrap()),
        }
    }

    #[test]
    fn a_trusted_proxy_is_believed_up_to_the_first_that_is_not() {
        let trusts = |address: IpAddr| address.to_string().starts_with("10.");
        let behind = |way: &[&str]| {
            let lines: Vec<_> = way.iter().map(|w| ("x-forwarded-for", *w)).collect();
            origin("10.0.0.1").behind(&fields(&lines), trusts).0
        };
        for (way, client, whole) in [
            (
                &["192.0.2.1"] as &[&str],
                "192.0.2.1",
                "192.0.2.1, 10.0.0.1",
            ),
            (
                &["6.6.6.6, 192.0.2.1"],
                "192.0.2.1",
                "6.6.6.6, 192.0.2.1, 10.0.0.1",
            ),
            (
                &["6.6.6.6", "192.0.2.1, 10.0.0.2"],
                "192.0.2.1",
                "6.6.6.6, 192.0.2.1, 10.0.0.2, 10.0.0.1",
            ),
            (
                &["[2001:db8::1]:4711"],
                "2001:db8::1",
                "[2001:db8::1]:4711, 10.0.0.1",
            ),
            (&["192.0.2.1:80"], "192.0.2.1", "192.0.2.1:80, 10.0.0.1"),
            (
                &["nonsense, 10.0.0.2"],
                "10.0.0.2",
                "nonsense, 10.0.0.2, 10.0.0.1",
            ),
            (&[], "10.0.0.1", "10.0.0.1"),
        ] {
            let origin = behind(way);
            assert_eq!(
                (&origin.client, &origin.way),
                (&client.parse().unwrap(), &whole.parse().unwrap())
            );
        }
        assert_eq!(behind(&[&"1.1.1.1, ".repeat(1000)]).way, "10.0.0.1");
        let proto = |value| {
            let (origin, _) =
                origin("10.0.0.1").behind(&fields(&[("x-forwarded-proto", value)]), trusts);
            (origin.port(), origin.proto)
        };
        assert_eq!(
            (proto("https"), proto("gopher")),
            (
                (443, "https".parse().unwrap()),
                (8080, "http".parse().unwrap())
            )
        );
        let ports = ["192.0.2.1:80", "[2001:db8::1]:443", "192.0.2.1"]
            .map(|way| behind(&[way]).client_port);
        assert_eq!(ports, [Some(80), Some(443), None]);
        assert_eq!(behind(&[]).client_port, Some(4711));
    }

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

    #[test]
    fn there_is_one_host() {
        assert_eq!(host(&fields(&[("host", "a:1")]), None).unwrap(), "a:1");
        assert!(host(&fields(&[]), None).is_none());
        assert!(host(&fields(&[("host", "a"), ("host", "a")]), None).is_none());
        for good in [
            "",
            "a-b_c.example",
            "192.0.2.1:80",
            "[::1]",
            "[2001:db8::1]:8080",
            "a:",
        ] {
            assert!(host(&fields(&[("host", good)]), None).is_some(), "{good}");
        }
        for bad in [
            "a/b", "a,b", "a b", "u@a", "a:b", "a:1:2", ":80", "[::1", "[]", "[::1]x", "a[b]",
            "a%2eb", "a:123456", "(a)",
        ] {
            assert!(host(&fields(&[("host", bad)]), None).is_none(), "{bad}");
        }
        let target = Authority::from_static("target");
        assert_eq!(
            host(&fields(&[("host", "Target")]), Some(&target)).unwrap(),
            "target"
        );
        assert!(host(&fields(&[("host", "field")]), Some(&target)).is_none());
        let user = Authority::from_static("user@target");
        assert!(host(&fields(&[]), Some(&user)).is_none());
    }
}
