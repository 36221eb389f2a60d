//! What makes a request malformed over HTTP/2 (RFC 9113, 8.1 to 8.3, and RFC 8441, 4): a stream's
//! error, and nobody else's.
//!
//! Nothing passes here that the types of the http crate cannot hold: h2 would end the connection for
//! some of it, and reset the stream without a word for the rest.

use http::StatusCode;
use http::uri::{Authority, Scheme};

use super::hpack::OVERHEAD;

/// Longest name, and longest path, that the http crate takes.
const NAME_MAX: usize = u16::MAX as usize;
const PATH_MAX: usize = u16::MAX as usize - 1;

/// Most digits of a length; more may not fit into 64 bits.
const LENGTH_DIGITS: usize = 19;

/// What may be in a name, which has no capitals here (RFC 9110, 5.6.2; RFC 9113, 8.2.1).
static NAME: [bool; 256] = token(false);

/// What may be in a method.
static TOKEN: [bool; 256] = token(true);

/// What is wrong with a request or with the fields after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// A name with anything but small letters, digits and a few signs, or with nothing.
    Name,
    /// A value with a control character.
    Value,
    /// A value that begins or ends with white space.
    Padding,
    /// A field about the connection.
    Connection,
    /// `te` for anything but trailers.
    Te,
    /// A pseudo-header that requests do not have.
    Unknown,
    /// A pseudo-header twice.
    Repeated,
    /// A pseudo-header after other fields.
    Late,
    /// A pseudo-header after the body.
    Trailing,
    /// No method, or none that can be one.
    Method,
    /// No scheme, or none that can be one.
    Scheme,
    /// No path, or none that can be one.
    Path,
    /// No authority where one is needed, or none that can be one.
    Authority,
    /// A CONNECT with a scheme or a path.
    Connect,
    /// A protocol that cannot be one, or for another method than CONNECT.
    Protocol,
    /// A length that is no number, is given twice, or belies a request that has ended.
    Length,
    /// The stream is to depend on itself.
    Priority,
    /// Not malformed: more than is taken.
    TooLarge,
}

/// What there is to know of a field by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Method(Verb),
    Scheme,
    Authority,
    Path { is_asterisk: bool },
    Protocol,
    Length(u64),
    Other,
    Bad(Malformed),
}

/// The methods that have rules of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Connect,
    Head,
    Options,
    Other,
}

/// The fields of a request, or those after its body, as they come.
#[derive(Debug)]
pub(super) struct Message {
    is_trailers: bool,
    /// Bytes there may be, as a table's entries count.
    room: usize,
    /// The first of all that is wrong.
    fault: Option<Malformed>,
    verb: Option<Verb>,
    scheme: bool,
    authority: bool,
    /// There is a path; whether it is `*`.
    path: Option<bool>,
    protocol: bool,
    length: Option<u64>,
    /// A field that is no pseudo-header has come.
    fields: bool,
}

impl Malformed {
    /// The status of the refusal, and a sentence for people.
    pub(super) fn refusal(self) -> (StatusCode, &'static str) {
        let sentence = match self {
            Self::Name => "a header field's name is not one in lower case",
            Self::Value => "a header field's value has a control character",
            Self::Padding => "a header field's value begins or ends with white space",
            Self::Connection => "the request has a header field that HTTP/2 does not have",
            Self::Te => "the header field TE can only be 'trailers'",
            Self::Unknown => "the request has an unknown pseudo-header",
            Self::Repeated => "the request has a pseudo-header more than once",
            Self::Late => "the request has a pseudo-header after other header fields",
            Self::Trailing => "the request has a pseudo-header after its body",
            Self::Method => "the request has no valid :method",
            Self::Scheme => "the request has no valid :scheme",
            Self::Path => "the request has no valid :path",
            Self::Authority => "the request has no valid :authority",
            Self::Connect => "a CONNECT request has neither :scheme nor :path",
            Self::Protocol => "the request has a :protocol that is not for it",
            Self::Length => "the request's Content-Length is not the number of its bytes",
            Self::Priority => "the request's stream depends on itself",
            Self::TooLarge => {
                let sentence = "the request's header fields are too large";
                return (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, sentence);
            }
        };
        (StatusCode::BAD_REQUEST, sentence)
    }
}

/// What `name: value` is by itself.
pub(super) fn judge(name: &[u8], value: &[u8]) -> Kind {
    if name.first() == Some(&b':') {
        return pseudo(name, value);
    }
    if name.is_empty() || name.len() > NAME_MAX || !all(name, &NAME) {
        return Kind::Bad(Malformed::Name);
    }
    let bad = |bad: bool, byte: &u8| bad | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f);
    if value.iter().fold(false, bad) {
        return Kind::Bad(Malformed::Value);
    }
    // Whoever passes such a value on over HTTP/1.1 changes it.
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if blank(value.first()) || blank(value.last()) {
        return Kind::Bad(Malformed::Padding);
    }
    match name {
        b"te" if value != b"trailers" => Kind::Bad(Malformed::Te),
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            Kind::Bad(Malformed::Connection)
        }
        b"content-length" => number(value).map_or(Kind::Bad(Malformed::Length), Kind::Length),
        _ => Kind::Other,
    }
}

fn pseudo(name: &[u8], value: &[u8]) -> Kind {
    let is_token = || !value.is_empty() && all(value, &TOKEN);
    match name {
        b":method" => match value {
            b"GET" | b"POST" => Kind::Method(Verb::Other),
            b"HEAD" => Kind::Method(Verb::Head),
            b"OPTIONS" => Kind::Method(Verb::Options),
            b"CONNECT" => Kind::Method(Verb::Connect),
            _ if is_token() => Kind::Method(Verb::Other),
            _ => Kind::Bad(Malformed::Method),
        },
        b":scheme" => match value {
            b"http" | b"https" => Kind::Scheme,
            _ if !value.is_empty() && Scheme::try_from(value).is_ok() => Kind::Scheme,
            _ => Kind::Bad(Malformed::Scheme),
        },
        b":path" => match is_path(value) {
            true => Kind::Path {
                is_asterisk: value == b"*",
            },
            false => Kind::Bad(Malformed::Path),
        },
        b":authority" => match Authority::try_from(value) {
            Ok(_) => Kind::Authority,
            Err(_) => Kind::Bad(Malformed::Authority),
        },
        b":protocol" => match is_token() {
            true => Kind::Protocol,
            false => Kind::Bad(Malformed::Protocol),
        },
        _ => Kind::Bad(Malformed::Unknown),
    }
}

/// Whether the http crate takes `target` for a path with or without a query; one with a fragment is
/// none.
fn is_path(target: &[u8]) -> bool {
    if target == b"*" {
        return true;
    }
    if target.first() != Some(&b'/') || target.len() > PATH_MAX {
        return false;
    }
    let query = target.iter().position(|&byte| byte == b'?');
    let (path, query) = target.split_at(query.unwrap_or(target.len()));
    let in_path = |byte: &u8| matches!(byte, b'!' | b'"' | b'$'..=b';' | b'=' | b'@'..=b'_' | b'a'..=b'~' | 0x80..);
    let in_query = |byte: &u8| matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'~' | 0x80..);
    path.iter().all(in_path)
        && query.iter().all(in_query)
        && (target.is_ascii() || std::str::from_utf8(target).is_ok())
}

fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > LENGTH_DIGITS {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| match byte {
        b'0'..=b'9' => Some(number * 10 + u64::from(byte - b'0')),
        _ => None,
    })
}

fn all(text: &[u8], set: &[bool; 256]) -> bool {
    text.iter().all(|&byte| set[usize::from(byte)])
}

const fn token(capitals: bool) -> [bool; 256] {
    let mut set = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        set[byte] = match byte as u8 {
            b'!'
            | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
            | b'0'..=b'9'
            | b'a'..=b'z' => true,
            b'A'..=b'Z' => capitals,
            _ => false,
        };
        byte += 1;
    }
    set
}

impl Message {
    /// A request, or the fields after one, of `room` bytes at most.
    pub(super) fn new(is_trailers: bool, room: usize) -> Self {
        Self {
            is_trailers,
            room,
            fault: None,
            verb: None,
            scheme: false,
            authority: false,
            path: None,
            protocol: false,
            length: None,
            fields: false,
        }
    }

    /// Takes the next field, which `judge` has looked at. Whether all is well so far.
    pub(super) fn take(&mut self, name: &[u8], value: &[u8], kind: Kind) -> bool {
        if self.fault.is_none() {
            self.fault = self.fault_of(name.len() + value.len() + OVERHEAD, kind);
        }
        self.fault.is_none()
    }

    fn fault_of(&mut self, size: usize, kind: Kind) -> Option<Malformed> {
        // h2 counts as many, and refuses what reaches its limit.
        if size >= self.room {
            return Some(Malformed::TooLarge);
        }
        self.room -= size;
        let again = match kind {
            Kind::Bad(fault) => return Some(fault),
            Kind::Length(_) | Kind::Other => {
                self.fields = true;
                if let Kind::Length(length) = kind
                    && self.length.replace(length).is_some()
                {
                    return Some(Malformed::Length);
                }
                return None;
            }
            _ if self.is_trailers => return Some(Malformed::Trailing),
            _ if self.fields => return Some(Malformed::Late),
            Kind::Method(verb) => self.verb.replace(verb).is_some(),
            Kind::Scheme => std::mem::replace(&mut self.scheme, true),
            Kind::Authority => std::mem::replace(&mut self.authority, true),
            Kind::Path { is_asterisk } => self.path.replace(is_asterisk).is_some(),
            Kind::Protocol => std::mem::replace(&mut self.protocol, true),
        };
        again.then_some(Malformed::Repeated)
    }

    /// Notes something that is wrong beside the fields.
    pub(super) fn fail(&mut self, fault: Malformed) {
        self.fault.get_or_insert(fault);
    }

    /// Whether the request asks for an answer's head alone.
    pub(super) fn is_head(&self) -> bool {
        self.verb == Some(Verb::Head)
    }

    /// What is wrong with the whole, which has a body or trailers to come or not.
    pub(super) fn fault(&self, is_end: bool) -> Option<Malformed> {
        if self.fault.is_some() || self.is_trailers {
            return self.fault;
        }
        let Some(verb) = self.verb else {
            return Some(Malformed::Method);
        };
        if self.protocol && verb != Verb::Connect {
            return Some(Malformed::Protocol);
        }
        if verb == Verb::Connect && !self.protocol {
            if self.scheme || self.path.is_some() {
                return Some(Malformed::Connect);
            }
            if !self.authority {
                return Some(Malformed::Authority);
            }
        } else {
            if !self.scheme {
                return Some(Malformed::Scheme);
            }
            match self.path {
                Some(false) => {}
                Some(true) if verb == Verb::Options => {}
                _ => return Some(Malformed::Path),
            }
        }
        (is_end && self.length.is_some_and(|length| length > 0)).then_some(Malformed::Length)
    }
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use http::{HeaderName, HeaderValue, Method};

    use super::*;

    /// Texts with each byte in them.
    fn texts() -> impl Iterator<Item = Vec<u8>> {
        (0..=255).flat_map(|byte| {
            let texts = [&b"/ab"[..], b"/?ab", b"ab", b"/\xc3ab", b""];
            texts.into_iter().flat_map(move |text| {
                (0..=text.len()).map(move |at| {
                    let (before, after) = text.split_at(at);
                    [before, &[byte], after].concat()
                })
            })
        })
    }

    #[test]
    fn nothing_passes_that_has_no_type() {
        for text in texts() {
            let is = |name: &[u8]| !matches!(judge(name, &text), Kind::Bad(_));
            assert_eq!(
                is(b":method"),
                Method::from_bytes(&text).is_ok(),
                "{text:?}"
            );
            let path = PathAndQuery::try_from(&text[..]);
            let as_it_is = path.is_ok_and(|path| path.as_str().as_bytes() == text);
            let begins = text.starts_with(b"/") || text == b"*";
            assert_eq!(is(b":path"), as_it_is && begins, "{text:?}");
            let value = HeaderValue::from_bytes(&text).is_ok();
            assert_eq!(is(b"x"), value && text.trim_ascii() == text, "{text:?}");
            // The crate takes a quotation mark in a name, which RFC 9110 does not.
            let name = HeaderName::from_lowercase(&text).is_ok() && !text.contains(&b'"');
            let is_name = !matches!(judge(&text, b"x"), Kind::Bad(_));
            assert_eq!(is_name, name, "{text:?}");
        }
    }

    #[test]
    fn a_length_is_a_number_of_bytes() {
        let is = |value: &[u8]| judge(b"content-length", value);
        assert_eq!(is(b"0"), Kind::Length(0));
        assert_eq!(is(b"007"), Kind::Length(7));
        assert_eq!(
            is(b"9999999999999999999"),
            Kind::Length(9_999_999_999_999_999_999)
        );
        for value in [
            &b""[..],
            b"+4",
            b"-4",
            b"4,4",
            b"4 4",
            b"0x4",
            b"10000000000000000000",
        ] {
            assert_eq!(is(value), Kind::Bad(Malformed::Length), "{value:?}");
        }
    }

    fn fault(fields: &[(&str, &str)], is_end: bool) -> Option<Malformed> {
        let mut message = Message::new(false, 1000);
        for (name, value) in fields {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            message.take(name, value, judge(name, value));
        }
        message.fault(is_end)
    }

    #[test]
    fn a_connect_has_an_authority_alone_unless_it_is_for_a_protocol() {
        let (method, authority) = ((":method", "CONNECT"), (":authority", "h:1"));
        let (scheme, path) = ((":scheme", "http"), (":path", "/"));
        let protocol = (":protocol", "websocket");
        assert_eq!(fault(&[method, authority], true), None);
        assert_eq!(fault(&[method], true), Some(Malformed::Authority));
        assert_eq!(
            fault(&[method, authority, path], true),
            Some(Malformed::Connect)
        );
        assert_eq!(
            fault(&[method, authority, scheme], true),
            Some(Malformed::Connect)
        );
        assert_eq!(
            fault(&[method, authority, scheme, path, protocol], false),
            None
        );
        let without = fault(&[method, authority, path, protocol], false);
        assert_eq!(without, Some(Malformed::Scheme));
        let get = (":method", "GET");
        let without = fault(&[get, authority, scheme, path, protocol], false);
        assert_eq!(without, Some(Malformed::Protocol));
    }

    #[test]
    fn an_asterisk_is_the_path_of_options_alone() {
        let rest = [(":scheme", "http"), (":authority", "h"), (":path", "*")];
        for (method, expected) in [("OPTIONS", None), ("GET", Some(Malformed::Path))] {
            let mut fields = vec![(":method", method)];
            fields.extend(rest);
            assert_eq!(fault(&fields, true), expected);
        }
    }

    #[test]
    fn fields_are_counted_as_h2_counts_them() {
        let size = (b":method".len() + b"GET".len() + OVERHEAD) + (1 + 1 + OVERHEAD);
        for (room, expected) in [(size, false), (size + 1, true)] {
            let mut message = Message::new(false, room);
            message.take(b":method", b"GET", judge(b":method", b"GET"));
            assert_eq!(message.take(b"x", b"y", Kind::Other), expected);
        }
    }
}
