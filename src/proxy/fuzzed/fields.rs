//! Header fields.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Uri};

use super::{fields, lines};
use crate::proxy::response::compression::{Accepted, Coding};
use crate::proxy::wire::conditions::{Condition, Validators, part};
use crate::proxy::wire::headers::{self, Forwarded};
use crate::proxy::wire::host;
use crate::proxy::wire::origin::{self, Origin};

/// Fields that stay between two neighbours (RFC 9110, 7.6.1).
const HOP: [&str; 7] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "transfer-encoding",
    "http2-settings",
    "connection",
];

/// A value of `Accept-Encoding`.
pub fn accept(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let read = |text: &str| Accepted::read(&HeaderValue::from_str(text).unwrap());
    let accepted = Accepted::read(&value);
    let codings: Vec<Coding> = accepted.codings().collect();
    let Ok(text) = value.to_str() else {
        assert!(codings.is_empty());
        return;
    };
    let lower = text.to_ascii_lowercase();
    for (at, coding) in codings.iter().enumerate() {
        assert!(!codings[..at].contains(coding), "named twice");
        let name = coding.name();
        let named = lower.contains(name.to_str().unwrap());
        assert!(named || (*coding == Coding::Gzip && text.contains('*')));
    }
    // In whatever order a client says it.
    let mut members: Vec<&str> = text.split(',').collect();
    members.reverse();
    assert_eq!(read(&members.join(",")), accepted);
    // And it has the last word.
    let first = |accepted: &Accepted| accepted.codings().next();
    assert_eq!(first(&read(&format!("{text},zstd"))), Some(Coding::Zstd));
    if !lower.contains("gzip") && !text.contains('*') {
        assert!(!codings.contains(&Coding::Gzip));
        assert_eq!(read(&format!("{text},gzip;q=0")), accepted);
    }
}

/// Fields of a request for a file.
pub fn conditions(data: &[u8]) {
    let asked = fields(lines(data));
    let validators = Validators {
        etag: "\"v1\"".to_owned(),
        modified: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500),
    };
    let has = |name: HeaderName| asked.contains_key(name);
    for method in [Method::GET, Method::HEAD] {
        match validators.check(&method, &asked) {
            Condition::NotModified => assert!(has(IF_NONE_MATCH) || has(IF_MODIFIED_SINCE)),
            Condition::Failed => assert!(has(IF_MATCH) || has(IF_UNMODIFIED_SINCE)),
            Condition::Whole => {}
            Condition::Part(range) => {
                assert_eq!(method, Method::GET);
                assert_eq!(asked[RANGE], *range);
                assert!(asked.get(IF_RANGE).is_none_or(|tag| *tag == "\"v1\""));
                // A file of this version is never taken for another.
                assert!(!has(IF_MATCH) || asked[IF_MATCH] != "\"v0\"");
                ranges(range);
            }
        }
    }
    ranges(&String::from_utf8_lossy(data));
}

/// A range is of bytes that are there.
fn ranges(range: &str) {
    for size in [0, 1, 10, 1 << 20, u64::MAX] {
        match part(range, size) {
            Ok(Some((start, length))) => {
                assert!(length > 0 && start < size);
                assert!(start.checked_add(length).is_some_and(|end| end <= size));
                // What is there of a file is there of a longer one.
                assert!(part(range, u64::MAX).is_ok_and(|part| part.is_some()));
            }
            Ok(None) => assert_eq!(part(range, 1 << 30), Ok(None), "for one size alone"),
            Err(()) => assert!(range.starts_with("bytes=") && range.contains('-')),
        }
    }
}

/// A request's target and its fields.
pub fn forwarded(data: &[u8]) {
    let mut lines = lines(data);
    let target = Uri::try_from(lines.next().unwrap_or_default()).unwrap_or_default();
    let asked = fields(lines);
    let peer = Origin {
        client: HeaderValue::from_static("192.0.2.1"),
        client_port: Some(4711),
        way: HeaderValue::from_static("192.0.2.1"),
        proto: HeaderValue::from_static("http"),
        is_told: false,
        local: None,
    };
    let (origin, forwarded_host) = whence(&peer, &asked);
    let host = host::of(&asked, target.authority());
    for host in [&host, &forwarded_host].into_iter().flatten() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        assert!(host.as_bytes().iter().all(|&byte| plain(byte)), "{host:?}");
    }
    if let (Some(host), Some(authority)) = (&host, target.authority()) {
        assert_eq!(host, authority.as_str());
    }
    let id = headers::request_id(&asked);
    if let Some(id) = id {
        assert!(id.len() <= 128 && id.as_bytes().iter().all(u8::is_ascii_graphic));
    }
    let own = Own {
        origin: &origin,
        host: host.unwrap_or_else(|| HeaderValue::from_static("example.org")),
        prefix: HeaderValue::from_static("/api"),
        id: id.map_or_else(|| HeaderValue::from_static("own"), HeaderValue::clone),
    };
    own.reach(&asked);
    outwards(&asked);
}

/// Where a request comes from whose peer is trusted.
fn whence(peer: &Origin, asked: &HeaderMap) -> (Origin, Option<HeaderValue>) {
    let trusts = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.is_loopback(),
    };
    let (origin, host) = peer.behind(asked, trusts);
    let client: IpAddr = origin.client.to_str().unwrap().parse().unwrap();
    assert_eq!(client.to_canonical(), client);
    let way = origin.way.to_str().expect("a way is text");
    assert!(way == "192.0.2.1" || way.ends_with(", 192.0.2.1"));
    assert!(way.len() <= 1024 + 11 && !way.contains(char::is_control));
    assert!(origin.proto == "http" || origin.proto == "https");
    if !asked.contains_key(origin::FORWARDED_FOR) {
        assert_eq!((&origin.client, &origin.way), (&peer.client, &peer.way));
    }
    // Whatever the client says, a trusted proxy's word for the client's address is the last.
    let mut told = asked.clone();
    told.append(
        origin::FORWARDED_FOR,
        HeaderValue::from_static("203.0.113.9, 10.0.0.1"),
    );
    // And so is its word for the rest.
    for (name, value) in [
        (origin::FORWARDED_PROTO, "HTTPS, http"),
        (origin::FORWARDED_HOST, "a.example, b.example"),
    ] {
        told.append(name, HeaderValue::from_static(value));
    }
    let (last, last_host) = peer.behind(&told, trusts);
    assert_eq!(last.client, "203.0.113.9");
    assert_eq!(
        (&last.proto, last.port()),
        (&HeaderValue::from_static("https"), 443)
    );
    assert_eq!(last_host, Some(HeaderValue::from_static("a.example")));
    (origin, host)
}

/// What a worker is told.
struct Own<'a> {
    origin: &'a Origin,
    host: HeaderValue,
    prefix: HeaderValue,
    id: HeaderValue,
}

impl Own<'_> {
    /// What the worker gets of a client that sends `asked`, whether it wants odd names or not.
    fn reach(&self, asked: &HeaderMap) {
        for odd_names in [false, true] {
            self.reach_with(asked, odd_names);
        }
    }

    fn reach_with(&self, asked: &HeaderMap, odd_names: bool) {
        let upgrading = headers::wants_upgrade(asked);
        let told = |headers: &HeaderMap| {
            let forwarded = Forwarded {
                origin: self.origin,
                host: &self.host,
                prefix: &self.prefix,
                id: &self.id,
                odd_names,
            };
            let mut got = HeaderMap::new();
            headers::to_worker(headers, &forwarded, upgrading, true, |name, value| {
                got.append(name, value.clone());
            });
            got
        };
        let got = told(asked);
        let own = [
            (HOST, &self.host),
            (origin::FORWARDED_FOR, &self.origin.way),
            (origin::FORWARDED_PROTO, &self.origin.proto),
            (origin::FORWARDED_HOST, &self.host),
            (origin::FORWARDED_PREFIX, &self.prefix),
            (headers::REQUEST_ID, &self.id),
        ];
        for (name, value) in &own {
            let values: Vec<_> = got.get_all(name).iter().collect();
            assert_eq!(values, [*value], "{name}");
        }
        for name in got.keys() {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            assert!(odd_names || name.as_str().bytes().all(plain), "{name}");
            let dashed = dashed(name);
            assert!(*name == *dashed || !VARIABLES.contains(&&*dashed), "{name}");
            let is_own = own.iter().any(|(own, _)| own == name);
            let is_claim = dashed.starts_with("x-forwarded")
                || [
                    "forwarded",
                    "proxy",
                    "x-real-ip",
                    "x-request-id",
                    "x-original-url",
                    "x-sendfile-type",
                    "x-accel-mapping",
                ]
                .contains(&&*dashed);
            assert!(is_own || !is_claim, "{name}");
        }
        hops(&got, upgrading);
        // Framing is not the client's to take away.
        assert_eq!(
            asked.get_all(CONTENT_LENGTH).iter().count(),
            got.get_all(CONTENT_LENGTH).iter().count()
        );
        let again = told(&got);
        assert_eq!(got, again, "a second proxy changes what the first one said");
    }
}

/// Some of the variables of CGI that a program must not take from a field.
const VARIABLES: [&str; 4] = ["script-name", "path-info", "remote-user", "content-length"];

/// A name as a program reads it that can tell letters and digits alone.
fn dashed(name: &HeaderName) -> String {
    name.as_str()
        .replace(|sign: char| !sign.is_ascii_alphanumeric(), "-")
}

/// Nothing that is about one hop, but for what this hop asks of the next.
fn hops(got: &HeaderMap, upgrading: bool) {
    match got.get(CONNECTION).map(HeaderValue::as_bytes) {
        Some(b"upgrade") => assert!(upgrading && got.contains_key(UPGRADE)),
        Some(b"te") => assert!(got[TE] == "trailers" && !got.contains_key(UPGRADE)),
        None => assert!(!got.contains_key(UPGRADE) && !got.contains_key(TE)),
        Some(other) => panic!("{other:?}"),
    }
    for name in HOP {
        assert!(name == "connection" || !got.contains_key(name), "{name}");
    }
    assert!(got.get_all(CONNECTION).iter().count() <= 1);
}

/// The same fields as a worker's, and as trailers.
fn outwards(said: &HeaderMap) {
    let mut got = said.clone();
    headers::to_client(&mut got);
    hops(&got, false);
    let once = got.clone();
    headers::to_client(&mut got);
    assert_eq!(got, once);
    let to_worker = |trailers: &mut HeaderMap| headers::trailers_to_worker(trailers, true);
    for make in [headers::trailers_to_client, to_worker] {
        let mut trailers = said.clone();
        make(&mut trailers);
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, UPGRADE] {
            assert!(!trailers.contains_key(&name), "{name}");
        }
    }
    let mut trailers = said.clone();
    headers::trailers_to_worker(&mut trailers, true);
    for name in trailers.keys() {
        let dashed = dashed(name);
        assert!(!dashed.starts_with("x-forwarded") && dashed != "content-length");
    }
    assert!(!trailers.contains_key(ACCEPT_ENCODING) || said.contains_key(ACCEPT_ENCODING));
}
