//! What php-fpm is told of a request: CGI's variables (RFC 3875, 4.1), those that PHP reads besides, and the script that is to answer.

use std::borrow::Cow;
use std::collections::HashMap;

use fastcgi_client::Params;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap, HeaderName,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;

use super::script::Script;
use crate::proxy::wire::origin::{self, Origin};
use crate::proxy::wire::path;
use crate::route::Scripts;

const SOFTWARE: &str = concat!("tqserver/", env!("CARGO_PKG_VERSION"));

/// Fields that have a variable of their own, or are between us and the client. `Proxy` would be HTTP_PROXY, which programs take for the
/// proxy that they are to use (CVE-2016-5385).
const LEFT_OUT: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("proxy"),
];

/// Most bytes that [`with_length`] adds to [`size`].
pub(super) const LENGTH_SIZE: usize = 64;

/// The variables of a request that comes from `origin`; without one it is us who ask. Who the client is, and where and how it came in, is
/// what the proxy knows, and nothing that a field says.
pub(super) fn of(parts: &Parts, scripts: &Scripts, origin: Option<&Origin>) -> Params<'static> {
    let uri = &parts.uri;
    let prefix = scripts.route.prefix();
    // A path with dots has not come through the proxy; it names no script.
    let decoded = path::decode(uri.path()).unwrap_or(Cow::Borrowed("/"));
    // A health request may go elsewhere.
    let below = decoded.strip_prefix(prefix).unwrap_or(&decoded);
    let script = Script::of(below, scripts);
    let name = format!("{prefix}{}", script.name);
    let root = scripts.root.to_string_lossy();
    let is_https = origin.is_some_and(|origin| origin.proto == "https");
    let client = origin.map_or("127.0.0.1", |origin| match origin.client.to_str() {
        Ok(address) if address != origin::UNKNOWN => address,
        // An address, as it must be one, and nobody's.
        _ => "0.0.0.0",
    });

    let mut params = Params::default()
        .custom("GATEWAY_INTERFACE", "CGI/1.1")
        .server_software(SOFTWARE)
        .server_protocol(format!("{:?}", parts.version))
        .server_name(host_name(&parts.headers).to_owned())
        .custom("SERVER_PORT", origin.map_or(80, Origin::port).to_string())
        .custom("REQUEST_SCHEME", if is_https { "https" } else { "http" })
        .remote_addr(client.to_owned())
        // Nobody looks for its name.
        .custom("REMOTE_HOST", client.to_owned())
        .request_method(parts.method.as_str().to_owned())
        .request_uri(
            uri.path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned(),
        )
        .query_string(uri.query().unwrap_or_default().to_owned())
        .script_filename(format!("{root}{}", script.name))
        .document_root(root.into_owned())
        .document_uri(name.clone())
        .script_name(name)
        // PHP that was built to run behind a redirect alone wants to see one.
        .custom("REDIRECT_STATUS", "200");
    if !script.rest.is_empty() {
        params = params.custom("PATH_INFO", script.rest.to_owned());
    }
    if is_https {
        params = params.custom("HTTPS", "on");
    }
    if let Some(kind) = text(&parts.headers, &CONTENT_TYPE) {
        params = params.content_type(kind);
    }
    if let Some(port) = origin.and_then(|origin| origin.client_port) {
        params = params.custom("REMOTE_PORT", port.to_string());
    }
    if let Some(local) = origin.and_then(|origin| origin.local) {
        params = params.custom("SERVER_ADDR", local.ip().to_string());
    }
    for (name, value) in fields(&parts.headers) {
        params = params.custom(name, value);
    }
    params
}

/// The same of a request whose body has `length` bytes: php-fpm reads as much as is announced, and otherwise nothing.
pub(super) fn with_length(params: Params<'static>, length: u64) -> Params<'static> {
    params.custom("CONTENT_LENGTH", length.to_string())
}

/// Bytes that `params` take in a record, at most: each name and each value has its length before it.
pub(super) fn size(params: &Params<'_>) -> usize {
    let sizes = params
        .iter()
        .map(|(name, value)| name.len() + value.len() + 8);
    sizes.sum()
}

/// The host that the request was routed by, without its port.
fn host_name(headers: &HeaderMap) -> &str {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.filter(|host| !host.is_empty()).unwrap_or("localhost");
    match host.rsplit_once(':') {
        // An address of IPv6 has colons, and brackets around them.
        Some((name, _)) if !name.contains(':') || name.ends_with(']') => name,
        _ => host,
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The client's fields as variables. PHP can not tell `_` and `.` in their names from `-`: a name with `_` that says the same as one with
/// `-` is left out, and so is any with other signs.
fn fields(headers: &HeaderMap) -> HashMap<String, String> {
    let plain = |name: &HeaderName| {
        let mut bytes = name.as_str().bytes();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let wanted = headers
        .keys()
        .filter(|name| plain(name) && !is_left_out(name));
    let (dashed, lined): (Vec<_>, Vec<_>) = wanted.partition(|name| !name.as_str().contains('_'));
    let mut fields: HashMap<String, String> = HashMap::new();
    for name in dashed.into_iter().chain(lined) {
        let variable = format!("HTTP_{}", name.as_str().to_uppercase().replace('-', "_"));
        let separator = if *name == COOKIE { "; " } else { ", " };
        let values = headers.get_all(name).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
        let value = values.collect::<Vec<_>>().join(separator);
        fields.entry(variable).or_insert(value);
    }
    fields
}

/// Whether a field has no variable, also in the spelling that makes the same one.
fn is_left_out(name: &HeaderName) -> bool {
    let name = name.as_str();
    LEFT_OUT.iter().any(|left| {
        let pairs = left.as_str().bytes().zip(name.bytes());
        let same = |(left, own): (u8, u8)| left == own || (left == b'-' && own == b'_');
        left.as_str().len() == name.len() && pairs.into_iter().all(same)
    })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::route::{Indexes, RoutePath};

    fn origin() -> Origin {
        Origin {
            client: http::HeaderValue::from_static("192.0.2.1"),
            client_port: Some(4711),
            way: http::HeaderValue::from_static("6.6.6.6, 192.0.2.1, 10.0.0.1"),
            proto: http::HeaderValue::from_static("http"),
            is_told: false,
            local: Some("192.0.2.80:8080".parse().unwrap()),
        }
    }

    fn told(route: &str, uri: &str, headers: &[(&str, &str)]) -> Params<'static> {
        told_of(&origin(), route, uri, headers)
    }

    fn told_of(
        origin: &Origin,
        route: &str,
        uri: &str,
        headers: &[(&str, &str)],
    ) -> Params<'static> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let scripts = Scripts {
            root: "/srv/w/public".into(),
            front_controller: "index.php".to_owned(),
            indexes: Some(Indexes::default()),
            route: RoutePath::parse(route).unwrap(),
        };
        of(&parts, &scripts, Some(origin))
    }

    fn is(params: &Params<'_>, name: &str, value: &str) {
        assert_eq!(params.get(name).map(|v| &**v), Some(value), "{name}");
    }

    #[test]
    fn a_script_is_named_below_the_route_and_the_document_root() {
        let params = told("/blog", "/blog/a%2ephp/x%20y?q=%41&r", &[]);
        is(&params, "SCRIPT_FILENAME", "/srv/w/public/a.php");
        is(&params, "SCRIPT_NAME", "/blog/a.php");
        is(&params, "PATH_INFO", "/x y");
        is(&params, "REQUEST_URI", "/blog/a%2ephp/x%20y?q=%41&r");
        is(&params, "QUERY_STRING", "q=%41&r");
        is(&params, "DOCUMENT_ROOT", "/srv/w/public");
        let params = told("/blog", "/blog", &[]);
        is(&params, "SCRIPT_FILENAME", "/srv/w/public/index.php");
        is(&params, "SCRIPT_NAME", "/blog/index.php");
        assert!(!params.contains_key("PATH_INFO"));
        let params = told("/", "/a/../b.php", &[]);
        is(&params, "SCRIPT_FILENAME", "/srv/w/public/index.php");
    }

    #[test]
    fn the_clients_fields_are_variables_and_none_passes_for_another() {
        let params = told(
            "/",
            "/",
            &[
                ("host", "example.org:8080"),
                ("proxy", "evil:1"),
                ("x_forwarded_for", "evil"),
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded.for", "evil"),
                ("x_own", "1"),
                ("accept", "a"),
                ("accept", "b"),
                ("cookie", "a=1"),
                ("cookie", "b=2"),
                ("content-type", "text/plain"),
                ("connection", "close"),
            ],
        );
        is(&params, "HTTP_HOST", "example.org:8080");
        is(&params, "SERVER_NAME", "example.org");
        is(&params, "REMOTE_ADDR", "192.0.2.1");
        is(&params, "REMOTE_PORT", "4711");
        is(&params, "HTTP_X_FORWARDED_FOR", "192.0.2.1");
        is(&params, "HTTP_X_OWN", "1");
        is(&params, "HTTP_ACCEPT", "a, b");
        is(&params, "HTTP_COOKIE", "a=1; b=2");
        is(&params, "CONTENT_TYPE", "text/plain");
        for name in [
            "HTTP_PROXY",
            "HTTP_CONNECTION",
            "HTTP_CONTENT_TYPE",
            "HTTPS",
        ] {
            assert!(!params.contains_key(name), "{name}");
        }
        assert!(params.values().all(|value| !value.contains("evil")));
    }

    #[test]
    fn a_server_is_named_as_the_client_did_and_its_port_is_where_that_came_in() {
        for (host, name) in [
            ("a", "a"),
            ("a:1", "a"),
            ("[::1]:8080", "[::1]"),
            ("[::1]", "[::1]"),
            ("", "localhost"),
        ] {
            let params = told("/", "/", &[("host", host), ("x-forwarded-proto", "https")]);
            is(&params, "SERVER_NAME", name);
            is(&params, "SERVER_PORT", "8080");
            is(&params, "SERVER_ADDR", "192.0.2.80");
            is(&params, "REQUEST_SCHEME", "http");
            assert!(!params.contains_key("HTTPS"));
        }
        let secure = Origin {
            proto: http::HeaderValue::from_static("https"),
            is_told: true,
            ..origin()
        };
        let params = told_of(&secure, "/", "/", &[]);
        is(&params, "HTTPS", "on");
        is(&params, "SERVER_PORT", "443");
        is(&params, "REQUEST_SCHEME", "https");
    }

    #[test]
    fn a_client_has_an_address_even_where_nobody_knows_it() {
        let unknown = Origin {
            client: http::HeaderValue::from_static(origin::UNKNOWN),
            client_port: None,
            local: None,
            ..origin()
        };
        let params = told_of(&unknown, "/", "/", &[]);
        is(&params, "REMOTE_ADDR", "0.0.0.0");
        is(&params, "SERVER_PORT", "80");
        assert!(!params.contains_key("REMOTE_PORT") && !params.contains_key("SERVER_ADDR"));
    }
}
