//! Redirects: from a path of a worker to another place.

use serde::{Deserialize, Serialize};

use super::host::{HostPattern, host_name};

/// What stands at the end of a place for all below it.
const REST: &str = "/*";
/// Most redirects in a row that a worker's own can lead to; browsers give up after 20.
const LONGEST_CHAIN: usize = 10;
/// A segment that no redirect names: no path can have it.
const ANY: &str = "/\0";

/// One redirect. Only [`Redirect::new`] makes one, and what it lets through can not end or split a header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// A whole path, with its escapes resolved; with `/*` at its end all that is below it, and itself.
    from: String,
    /// A path, or an address with http or https, as it stands in `Location`; with `/*` at its end the rest of the path goes there.
    to: String,
    status: u16,
}

/// Why two places make no redirect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// `from` is no path.
    #[error("'from' can not be '{0}'")]
    From(String),
    /// `to` is neither a path nor an address.
    #[error("'to' can not be '{0}'")]
    To(String),
    /// Only `to` has a rest.
    #[error("'to' is '{0}', and 'from' has no '/*' at its end")]
    NoRest(String),
}

impl RedirectError {
    /// What to write instead.
    pub fn help(&self) -> &'static str {
        match self {
            Self::From(_) => {
                "write a whole path without escapes, '?', '#' and '\\', as in /old, or /old/* for all below it; a '*' can stand only at the end"
            }
            Self::To(_) => {
                "write a path, as in /new, or an address, as in https://example.org/new; with /* at its end it takes the rest of the path"
            }
            Self::NoRest(_) => "write the '/*' in both, or in 'from' alone",
        }
    }
}

impl Redirect {
    /// Most bytes it has in a table.
    pub fn longest(&self) -> usize {
        2 * (self.from.len() + self.to.len()) + 64
    }

    /// A redirect with this status.
    ///
    /// # Errors
    /// When `from` is not a path, or `to` neither a path nor an address with http or https.
    pub fn new(from: &str, to: &str, status: u16) -> Result<Self, RedirectError> {
        let place = from.strip_suffix(REST);
        let path = place.unwrap_or(from);
        let odd = |c: char| c.is_control() || "?#%\\*".contains(c);
        let is_path = path.starts_with('/') || (path.is_empty() && place.is_some());
        if !is_path || path.contains(odd) || !has_segments(path) {
            return Err(RedirectError::From(from.to_owned()));
        }
        let place = to.strip_suffix(REST);
        // A slash before the rest would make it the begin of a host's name.
        let doubled = place.is_some_and(|place| place.ends_with('/'));
        if doubled || !is_place(place.unwrap_or(to), place.is_some()) {
            return Err(RedirectError::To(to.to_owned()));
        }
        if place.is_some() && !from.ends_with(REST) {
            return Err(RedirectError::NoRest(to.to_owned()));
        }
        Ok(Self {
            from: from.to_owned(),
            to: escaped(to),
            status,
        })
    }

    /// The path it begins at: of `/old/*`, `/old`.
    pub fn start(&self) -> &str {
        match self.from.strip_suffix(REST).unwrap_or(&self.from) {
            "" => "/",
            path => path,
        }
    }

    /// The status of the answer: 301, 302, 303, 307 or 308.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Where a request is sent: `path` is its path decoded, `written` the same as the client wrote it, and both have the same segments.
    /// `None` if this redirect is not for it. Whatever the client wrote, it stays on the host of `to`.
    pub fn location(&self, path: &str, written: &str, query: Option<&str>) -> Option<String> {
        let rest = match self.from.strip_suffix(REST) {
            Some(place) => match path.strip_prefix(place)? {
                rest if rest.is_empty() || rest.starts_with('/') => {
                    rest_of_path(written, place.matches('/').count())
                }
                _ => return None,
            },
            None if path == self.from => "",
            None => return None,
        };
        let mut location = match self.to.strip_suffix(REST) {
            Some(place) => {
                // "//" and "/\" at the beginning would be another host.
                let rest = match rest.trim_start_matches(['/', '\\']) {
                    "" if rest.is_empty() && !place.is_empty() => String::new(),
                    inner => format!("/{}", escaped(inner)),
                };
                format!("{place}{rest}")
            }
            None => self.to.clone(),
        };
        if let Some(query) = query {
            location.push(if location.contains('?') { '&' } else { '?' });
            location.push_str(&escaped(query));
        }
        Some(location)
    }
}

/// What of `path` is behind its first `segments` segments: nothing, or a path.
pub fn rest_of_path(path: &str, segments: usize) -> &str {
    let mut slashes = path.bytes().enumerate().filter(|&(_, byte)| byte == b'/');
    slashes.nth(segments).map_or("", |(at, _)| &path[at..])
}

/// The first of `redirects` that is for a request (see [`Redirect::location`]), with its location.
pub fn redirected<'a>(
    redirects: impl IntoIterator<Item = &'a Redirect>,
    path: &str,
    written: &str,
    query: Option<&str>,
) -> Option<(&'a Redirect, String)> {
    redirects.into_iter().find_map(|redirect| {
        let location = redirect.location(path, written, query)?;
        Some((redirect, location))
    })
}

/// The first of a worker's redirects from which a browser would be sent on and on, by the number it has in the list. `hosts` are the
/// worker's own: an address there is another path of it.
pub fn endless(redirects: &[Redirect], hosts: &[HostPattern]) -> Option<usize> {
    // A path whose rest nothing looks at stands for all others: if any goes round, so does the part of it that is looked at.
    let circles = |redirect: &Redirect| {
        let start = redirect.start();
        let place = if start == "/" { "" } else { start };
        let below = redirect.from.ends_with(REST);
        let below = below.then(|| format!("{place}{ANY}"));
        [Some(start.to_owned()), below]
            .into_iter()
            .flatten()
            .any(|path| goes_on(redirects, hosts, path))
    };
    redirects.iter().position(circles)
}

fn goes_on(redirects: &[Redirect], hosts: &[HostPattern], mut path: String) -> bool {
    for _ in 0..=LONGEST_CHAIN {
        let Some((_, location)) = redirected(redirects, &path, &path, None) else {
            return false;
        };
        let next = match authority(&location) {
            Some((authority, rest)) => {
                let host = host_name(authority);
                let is_own = |own: &HostPattern| host.as_deref() == Some(own.as_str());
                if !hosts.iter().any(is_own) {
                    return false;
                }
                rest
            }
            None => &location,
        };
        let next = next.split('?').next().unwrap_or_default();
        path = match next {
            "" => "/".to_owned(),
            next => unescaped(next),
        };
    }
    true
}

/// Host and port of an address, and what follows.
fn authority(to: &str) -> Option<(&str, &str)> {
    let rest = to.strip_prefix("https://").or(to.strip_prefix("http://"))?;
    Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

/// Whether `to` is a path or an address to which a browser goes without having to mend it; before a rest it can be empty.
fn is_place(to: &str, before_rest: bool) -> bool {
    let odd = |c: char| c.is_control() || " \\#*\"<>^`{|}".contains(c);
    if to.contains(odd) || (before_rest && to.contains('?')) {
        return false;
    }
    let path = match authority(to) {
        Some((authority, path)) => {
            let name = match authority.rsplit_once(':') {
                Some((name, port)) if !port.contains(']') => {
                    if port.parse::<u16>().is_err() {
                        return false;
                    }
                    name
                }
                _ => authority,
            };
            let is_bare_address = name.contains(':') && !name.starts_with('[');
            let host = HostPattern::parse(name).ok();
            if is_bare_address || host.is_none_or(|host| host.below().is_some()) {
                return false;
            }
            path
        }
        None if to.is_empty() => return before_rest,
        None if to.starts_with('/') && !to.starts_with("//") => to,
        None => return false,
    };
    has_segments(&unescaped(path.split('?').next().unwrap_or_default()))
}

/// Whether no segment of a path but the last is empty, and none is `.` or `..`.
fn has_segments(path: &str) -> bool {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    (inner.is_empty() && path.len() < 2) || inner.split('/').all(|s| !matches!(s, "" | "." | ".."))
}

/// What can stand in a header field as it is, and the rest in percent escapes. Escapes that are there stay.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !b"\\\"<>^`{|}".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// The path that a server sees in `path`.
fn unescaped(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = path
            .get(at + 1..at + 3)
            .filter(|digits| byte == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(character) if character != b'/' => {
                plain.push(character);
                at += 3;
            }
            _ => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(from: &str, to: &str) -> Redirect {
        Redirect::new(from, to, 308).unwrap_or_else(|error| panic!("{from} {to}: {error}"))
    }

    fn sent(from: &str, to: &str, written: &str) -> Option<String> {
        let (path, query) = match written.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (written, None),
        };
        redirect(from, to).location(&unescaped(path), path, query)
    }

    #[test]
    fn a_path_is_sent_on_with_its_query_and_its_rest() {
        for (from, to, asked, location) in [
            ("/old", "/new", "/old", Some("/new")),
            ("/old", "/new", "/old?a=1&b", Some("/new?a=1&b")),
            ("/old", "/new?x=1", "/old?a", Some("/new?x=1&a")),
            ("/old", "/new", "/old/", None),
            ("/old", "/new", "/old/x", None),
            ("/docs", "/docs/", "/docs", Some("/docs/")),
            ("/old/*", "/new/*", "/old", Some("/new")),
            ("/old/*", "/new/*", "/old/", Some("/new/")),
            ("/old/*", "/new/*", "/old/a%20b/c?q", Some("/new/a%20b/c?q")),
            ("/old/*", "/new/*", "/%6fld/a%2Fb", Some("/new/a%2Fb")),
            ("/old/*", "/new/*", "/older", None),
            ("/old/*", "/gone", "/old/a/b", Some("/gone")),
            (
                "/*",
                "https://b.example/*",
                "/a?b",
                Some("https://b.example/a?b"),
            ),
            (
                "/*",
                "https://b.example:8443/x/*",
                "/",
                Some("https://b.example:8443/x/"),
            ),
            ("/old/*", "/*", "/old", Some("/")),
            ("/über", "/ü", "/%C3%BCber", Some("/%C3%BC")),
        ] {
            assert_eq!(sent(from, to, asked).as_deref(), location, "{from} {asked}");
        }
    }

    #[test]
    fn no_rest_leads_to_another_host() {
        for (to, asked, location) in [
            ("/*", "/old//evil.example", "/evil.example"),
            ("/*", "/old///evil.example", "/evil.example"),
            ("/*", "/old/\\evil.example", "/evil.example"),
            ("/*", "/old\\/evil.example", ""),
            ("/*", "/old/%2Fevil.example", "/%2Fevil.example"),
            ("/*", "/old/%5Cevil.example", "/%5Cevil.example"),
            ("/*", "/old/a\\b", "/a%5Cb"),
            ("/new/*", "/old//evil.example", "/new/evil.example"),
            (
                "https://b.example/*",
                "/old/@evil",
                "https://b.example/@evil",
            ),
            (
                "https://b.example/*",
                "/old//evil",
                "https://b.example/evil",
            ),
            ("https://b.example/*", "/old", "https://b.example"),
            ("https://b.example/*", "/old.evil.example", ""),
        ] {
            let found = sent("/old/*", to, asked).unwrap_or_default();
            assert_eq!(found, location, "{to} {asked}");
        }
    }

    #[test]
    fn nothing_a_client_writes_ends_a_header_field() {
        let redirect = redirect("/a/*", "/b/*");
        let odd = "/a/x\r\nset-cookie: y\u{7f}\u{fc}";
        let location = redirect.location(odd, odd, Some("\r\n")).unwrap();
        assert_eq!(location, "/b/x%0D%0Aset-cookie:%20y%7F%C3%BC?%0D%0A");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_place() {
        for from in [
            "", "old", "/a?b", "/a#b", "/a%20", "/a\\b", "/a*", "/*/a", "//a", "/a/../b", "/a\n",
            "*",
        ] {
            assert!(Redirect::new(from, "/b", 308).is_err(), "{from:?}");
        }
        for to in [
            "",
            "b",
            "//evil.example",
            "/\\evil.example",
            "/a b",
            "/a\r\nx: y",
            "/a#b",
            "/a/%2e%2e/b",
            "/a*",
            "/x?y/*",
            "ftp://a/",
            "javascript:alert(1)",
            "https://",
            "https:///a",
            "https://u@a/",
            "https://*.a/",
            "https://a:b/",
            "https://::1/",
        ] {
            assert!(Redirect::new("/a/*", to, 308).is_err(), "{to:?}");
        }
        assert!(Redirect::new("/a", "https://[::1]:80/x?y=1", 308).is_ok());
        assert!(matches!(
            Redirect::new("/a", "/b/*", 308),
            Err(RedirectError::NoRest(_))
        ));
    }

    #[test]
    fn redirects_that_go_round_are_found() {
        let endless = |list: &[(&str, &str)], hosts: &[&str]| {
            let list: Vec<_> = list.iter().map(|(from, to)| redirect(from, to)).collect();
            let hosts: Vec<_> = hosts
                .iter()
                .map(|h| HostPattern::parse(h).unwrap())
                .collect();
            super::endless(&list, &hosts)
        };
        assert_eq!(endless(&[("/a", "/a")], &[]), Some(0));
        assert_eq!(endless(&[("/a", "/%61")], &[]), Some(0));
        assert_eq!(
            endless(&[("/x", "/a"), ("/a", "/b"), ("/b", "/a")], &[]),
            Some(0)
        );
        assert_eq!(endless(&[("/*", "/new/*")], &[]), Some(0));
        assert_eq!(endless(&[("/*", "/new")], &[]), Some(0));
        assert_eq!(endless(&[("/b/*", "/a/b/*"), ("/a/*", "/*")], &[]), Some(0));
        assert_eq!(
            endless(&[("/a", "http://w.example:80/a?b")], &["w.example"]),
            Some(0)
        );
        assert_eq!(
            endless(&[("/a", "http://w.example/a")], &["v.example"]),
            None
        );
        assert_eq!(endless(&[("/old/*", "/*"), ("/c", "/old/d")], &[]), None);
        assert_eq!(endless(&[("/docs", "/docs/"), ("/a", "/docs")], &[]), None);
        assert_eq!(endless(&[("/a/*", "/b/*"), ("/b/*", "/c/*")], &[]), None);
    }
}
