//! Where a request comes from: the client's address, and what trusted proxies say of who is behind them.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::host::is_host;
use super::list::tokens;

/// The client's address.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The protocol the client spoke.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host the client asked for.
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The route that led to the worker.
pub(crate) const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Longest way through proxies that is passed on.
const WAY_MAX: usize = 1024;

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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn fields(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    pub(crate) fn origin(address: &str) -> Origin {
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
}
