//! Names of hosts: those a route is for, and the one a request asks for.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

/// Longest name of a host, and longest part of one, in bytes (RFC 1035, 2.3.4).
const LONGEST: (usize, usize) = (253, 63);

/// Hosts that a route is for: one by its name (`example.org`) or its address, or all those below a name (`*.example.org`, which is not
/// `example.org` itself). Lower case, without port and without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(String);

/// Why a text does not name hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// A character beyond ASCII.
    #[error("'{0}' is not written in ASCII, as browsers send it")]
    Letters(String),
    /// A `*` that is not the whole first part, or nothing but one.
    #[error("'{0}' has a '*' that does not stand for all names below another")]
    Star(String),
    /// A name and a port.
    #[error("'{0}' has a port, and a route is the same on all of them")]
    Port(String),
    /// Anything else.
    #[error("'{0}' is not the name of a host")]
    Name(String),
}

impl HostError {
    /// What to write instead.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Letters(_) => {
                "write its punycode, as in \"xn--bcher-kva.example\" for bücher.example"
            }
            Self::Star(_) => {
                "write the '*' as the first part and alone, as in \"*.example.org\"; for all hosts leave 'hosts' out"
            }
            Self::Port(_) => "write the name alone, as in \"example.org\"",
            Self::Name(_) => {
                "write it without 'http://' and path, as in \"example.org\", \"*.example.org\" or \"[::1]\""
            }
        }
    }
}

impl HostPattern {
    /// Reads a name or `*.` and a name; capitals and a dot at the end make no difference.
    ///
    /// # Errors
    /// When it is neither, nor an address.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let own = || text.to_owned();
        if !text.is_ascii() {
            return Err(HostError::Letters(own()));
        }
        if let Some(address) = address(text) {
            return Ok(Self(format!("[{address}]")));
        }
        let lower = text.to_ascii_lowercase();
        let lower = lower.strip_suffix('.').unwrap_or(&lower);
        let below = lower.strip_prefix("*.").unwrap_or(lower);
        if is_name(below) {
            return Ok(Self(lower.to_owned()));
        }
        if below.contains('*') {
            return Err(HostError::Star(own()));
        }
        Err(match below.rsplit_once(':') {
            Some((name, port)) if is_port(port) && (is_name(name) || address(name).is_some()) => {
                HostError::Port(own())
            }
            _ => HostError::Name(own()),
        })
    }

    /// Of `*.example.org`, `example.org`.
    pub fn below(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }

    /// Whether all hosts of `other` are hosts of this one.
    pub fn covers(&self, other: &Self) -> bool {
        let is_below = |name: &str| {
            let first = other.0.strip_suffix(name);
            first.is_some_and(|first| first.ends_with('.'))
        };
        self == other || self.below().is_some_and(is_below)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for HostPattern {
    type Error = HostError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<HostPattern> for String {
    fn from(host: HostPattern) -> Self {
        host.0
    }
}

/// The host of a `Host` header field as patterns know it: without port and without a dot at the end, in lower case, an address in its
/// one form. `None` if no pattern could mean it. A usual one is returned as it came.
pub fn host_name(field: &str) -> Option<Cow<'_, str>> {
    if field.starts_with('[') {
        let (literal, port) = field.split_at(field.find(']')? + 1);
        let is_end = port.is_empty() || port.strip_prefix(':').is_some_and(is_port_or_none);
        let address = address(literal).filter(|_| is_end)?;
        return Some(Cow::Owned(format!("[{address}]")));
    }
    let name = match field.split_once(':') {
        Some((name, port)) if is_port_or_none(port) => name,
        Some(_) => return None,
        None => field,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if !is_name(name) {
        return None;
    }
    Some(match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    })
}

/// An IPv6 address, in brackets or not.
fn address(text: &str) -> Option<Ipv6Addr> {
    let inside = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inside.unwrap_or(text).parse().ok()
}

/// RFC 3986 lets a colon be followed by nothing.
fn is_port_or_none(port: &str) -> bool {
    port.is_empty() || is_port(port)
}

fn is_port(port: &str) -> bool {
    port.len() <= 5 && port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Letters, digits, `-` and `_` in parts that are not empty; also an IPv4 address.
fn is_name(name: &str) -> bool {
    let (whole, part) = LONGEST;
    let fits = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=part).contains(&label.len()) && label.bytes().all(plain)
    };
    name.len() <= whole && name.split('.').all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    #[test]
    fn a_host_has_one_form() {
        for (text, form) in [
            ("example.org", "example.org"),
            ("Example.ORG.", "example.org"),
            ("*.Example.org", "*.example.org"),
            ("a_b-c.d", "a_b-c.d"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("2001:DB8:0::1", "[2001:db8::1]"),
        ] {
            assert_eq!(pattern(text).as_str(), form, "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused_for_its_reason() {
        use HostError::{Letters, Name, Port, Star};
        let refused = |text: &str| HostPattern::parse(text).unwrap_err();
        for text in [
            "", ".", "a..b", ".a", "a/b", "http://a", "a b", "u@a", "[a]",
        ] {
            assert!(matches!(refused(text), Name(_)), "{text:?}");
        }
        for text in ["*", "*.", "a.*", "a*.b", "*.*.b", "**.b"] {
            assert!(matches!(refused(text), Star(_)), "{text:?}");
        }
        for text in ["a:80", "[::1]:80", "*.a:80"] {
            assert!(matches!(refused(text), Port(_)), "{text:?}");
        }
        assert!(matches!(refused("bücher.example"), Letters(_)));
        assert!(HostPattern::parse(&format!("{}.a", "x".repeat(64))).is_err());
        assert!(HostPattern::parse(&"x.".repeat(200)).is_err());
    }

    #[test]
    fn a_request_names_its_host_with_or_without_port_dot_and_capitals() {
        for (field, name) in [
            ("example.org", Some("example.org")),
            ("example.org:8080", Some("example.org")),
            ("example.org:", Some("example.org")),
            ("EXAMPLE.org.:80", Some("example.org")),
            ("[::1]:80", Some("[::1]")),
            ("[0:0::0:1]", Some("[::1]")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("example.org..", None),
            (".example.org", None),
            ("a:b", None),
            ("a:80:80", None),
            ("a:+80", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[::1%25eth0]", None),
            ("%65xample.org", None),
            ("a!.example.org", None),
        ] {
            assert_eq!(host_name(field).as_deref(), name, "{field:?}");
        }
        assert!(matches!(host_name("a.b:1"), Some(Cow::Borrowed(_))));
    }

    #[test]
    fn a_star_is_one_part_or_more_and_never_none() {
        let all = pattern("*.example.org");
        for (host, covered) in [
            ("a.example.org", true),
            ("a.b.example.org", true),
            ("*.example.org", true),
            ("*.a.example.org", true),
            ("example.org", false),
            ("notexample.org", false),
            ("*.org", false),
        ] {
            assert_eq!(all.covers(&pattern(host)), covered, "{host}");
        }
        assert!(pattern("example.org").covers(&pattern("example.org")));
        assert!(!pattern("example.org").covers(&all));
    }
}
