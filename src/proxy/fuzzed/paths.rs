//! Paths and hosts on their way to a route.

use std::collections::HashMap;
use std::str::from_utf8;
use std::sync::Arc;

use http::{HeaderValue, Uri};

use super::lines;
use crate::names::{Instance, WorkerName};
use crate::proxy::control::memory;
use crate::proxy::table::Table;
use crate::proxy::table::board::{Board, Published};
use crate::proxy::upstream::generation::Generation;
use crate::proxy::wire::path::{decode, respell, without};
use crate::route::{
    Flow, Halt, HostPattern, Redirect, Route, RoutePath, RouteSettings, RouteTable, Target,
    Timeouts, endless, host_name, rest_of_path,
};

/// A request's target.
pub fn path(data: &[u8]) {
    let Ok(uri) = Uri::try_from(data) else {
        return;
    };
    let written = uri.path();
    let Ok(decoded) = decode(written) else {
        return;
    };
    let slashes = |path: &str| path.matches('/').count();
    assert_eq!(slashes(&decoded), slashes(written), "{written:?}");
    assert!(!has_dots(&decoded), "{decoded:?}");
    assert!(!decoded.contains('\0'), "{written:?}");
    // Each route that could lead here, and what its worker then sees.
    let ends = decoded.match_indices('/').map(|(at, _)| at).skip(1);
    for end in ends.chain([decoded.len()]) {
        let Ok(route) = RoutePath::parse(&decoded[..end]) else {
            continue;
        };
        let prefix = route.prefix();
        if route.covers(&decoded) {
            reach(&uri, &decoded, prefix);
        }
    }
}

/// What the worker of the route with this prefix sees of `uri`.
fn reach(uri: &Uri, decoded: &str, prefix: &str) {
    let segments = prefix.matches('/').count();
    let rest = rest_of_path(uri.path(), segments);
    let respelled = respell(uri, prefix).unwrap_or_else(|| uri.clone());
    // The route as it is written, and the rest as the client wrote it.
    assert_eq!(respelled.path(), format!("{prefix}{rest}"));
    assert_eq!(decode(respelled.path()).as_deref(), Ok(decoded));
    assert_eq!(respelled.query(), uri.query());
    assert_eq!(respelled.authority(), uri.authority());
    let stripped = without(&respelled, segments);
    let expected = if rest.is_empty() { "/" } else { rest };
    assert_eq!(stripped.path(), expected);
    assert_eq!(stripped.query(), uri.query());
    let below = &decoded[prefix.len()..];
    let below = if below.is_empty() { "/" } else { below };
    assert_eq!(decode(stripped.path()).as_deref(), Ok(below));
}

/// Whether anybody may find a dot segment in a decoded path.
fn has_dots(path: &str) -> bool {
    let path = path.replace("%2f", "/").replace("%2F", "/");
    let segments = path.split(['/', '\\']).skip(1);
    segments
        .map(|segment| segment.split(';').next().unwrap_or_default())
        .any(|segment| matches!(segment, "." | ".."))
}

/// A `Host`, a path, and in the lines below routes: `/path` or `host/path`.
pub fn hosts(data: &[u8]) {
    let mut lines = lines(data);
    let host = HeaderValue::from_bytes(lines.next().unwrap_or_default());
    let path = from_utf8(lines.next().unwrap_or_default());
    let (Ok(host), Ok(path)) = (host, path) else {
        return;
    };
    let name = host.to_str().ok().and_then(host_name);
    if let Some(name) = &name {
        assert_eq!(host_name(name).as_ref(), Some(name));
        let pattern = HostPattern::parse(name).expect("what a client can ask for has a pattern");
        assert_eq!(pattern.as_str(), name);
    }
    let mut table = Published::nothing().table;
    let routes = lines
        .take(16)
        .filter_map(|line| route(from_utf8(line).ok()?));
    table.routes = routes.collect();
    let compiled = compile(table.clone());
    let found = compiled.find(&host, path).map(|route| route.path.clone());
    // A host that is named goes before one below a name, the longer name before the shorter, then the longer path.
    let rank = |route: &Route| {
        let by_host = match route.settings.hosts.first() {
            None => 0,
            Some(pattern) => match (pattern.below(), name.as_deref()?) {
                (None, name) => (name == pattern.as_str()).then_some(usize::MAX)?,
                (Some(below), name) => {
                    let first = name.strip_suffix(below)?;
                    (first.len() > 1 && first.ends_with('.')).then_some(below.len())?
                }
            },
        };
        route
            .path
            .covers(path)
            .then_some((by_host, route.path.prefix().len()))
    };
    let best = table
        .routes
        .iter()
        .filter_map(|route| Some((rank(route)?, route)))
        .max_by_key(|(rank, _)| *rank);
    let best = best.map(|(_, route)| route.path.clone());
    assert_eq!(found, best, "{host:?} {path:?}");
}

/// A route by how people write it.
fn route(text: &str) -> Option<Route> {
    let (host, path) = text.split_at(text.find('/')?);
    let hosts = match host {
        "" => Vec::new(),
        host => {
            let pattern = HostPattern::parse(host).ok()?;
            assert_eq!(HostPattern::parse(pattern.as_str()), Ok(pattern.clone()));
            assert!(pattern.covers(&pattern));
            vec![pattern]
        }
    };
    let path = RoutePath::parse(path).ok()?;
    assert_eq!(RoutePath::parse(path.as_str()), Ok(path.clone()));
    Some(Route {
        path,
        settings: RouteSettings {
            hosts,
            ..RouteSettings::default()
        },
        worker: WorkerName::parse("w").ok()?,
        public: None,
        state: None,
        target: Target::Files,
        timeouts: Timeouts {
            read: std::time::Duration::ZERO,
            write: std::time::Duration::ZERO,
            idle: std::time::Duration::ZERO,
        },
        flow: Flow::default(),
        halt: Halt::default(),
        access_log: false,
        scripts: false,
        compression: false,
        sticky: None,
        work: None,
    })
}

/// The table as a thread of the proxy serves by it.
fn compile(table: RouteTable) -> Table {
    let mut generations = HashMap::new();
    for route in &table.routes {
        if let Target::Serving(upstream) = &route.target {
            let instance = Instance::new(route.worker.clone(), upstream.generation);
            let generation = Generation::new(instance.clone(), 1, Arc::default());
            generations.insert(instance, Arc::new(generation));
        }
    }
    let published = Published {
        table,
        generations,
        ..Published::nothing()
    };
    Table::compile(&Board::new(published), 0, None)
}

/// A table as one proxy leaves it to the next.
pub fn table(data: &[u8]) {
    let Ok(read) = memory::read(data) else {
        return;
    };
    let written = memory::write(&read).expect("what was read can be written");
    let again = memory::read(&written).expect("what was written can be read");
    let expected = RouteTable {
        serial: 0,
        draining: Vec::new(),
        development: None,
        ..read.clone()
    };
    assert_eq!(again, expected);
    let compiled = compile(read.clone());
    for route in &read.routes {
        let hosts = route
            .settings
            .hosts
            .iter()
            .filter(|host| host.below().is_none());
        let hosts = hosts.map(HostPattern::as_str).chain([""]);
        for host in hosts {
            let host = HeaderValue::from_str(host).expect("a host can stand in a field");
            let found = compiled.find(&host, route.path.as_str());
            if route.settings.hosts.is_empty() || !host.is_empty() {
                assert!(
                    found
                        .expect("it leads here")
                        .path
                        .covers(route.path.as_str())
                );
            }
        }
    }
}

/// A redirect: `from`, `to`, and the target of a request, a line each.
pub fn redirects(data: &[u8]) {
    let mut lines = lines(data).map(from_utf8);
    let mut next = || lines.next().and_then(Result::ok);
    let (Some(from), Some(to), Some(target)) = (next(), next(), next()) else {
        return;
    };
    let (Ok(redirect), Ok(uri)) = (Redirect::new(from, to, 308), target.parse::<Uri>()) else {
        return;
    };
    let own = HostPattern::parse("example.org").expect("it is one");
    let _ = endless(std::slice::from_ref(&redirect), &[own]);
    let Ok(decoded) = decode(uri.path()) else {
        return;
    };
    let Some(location) = redirect.location(&decoded, uri.path(), uri.query()) else {
        return;
    };
    assert!(
        location.bytes().all(|byte| byte.is_ascii_graphic()),
        "{location:?}"
    );
    let authority = |text: &str| {
        let rest = text
            .strip_prefix("https://")
            .or(text.strip_prefix("http://"))?;
        let end = rest.find(['/', '?', '#', '\\']);
        Some(rest[..end.unwrap_or(rest.len())].to_owned())
    };
    let place = to.strip_suffix("/*").unwrap_or(to);
    assert_eq!(authority(&location), authority(place), "{location:?}");
    if authority(place).is_none() {
        assert!(location.starts_with('/'), "{location:?}");
        assert!(
            !location.starts_with("//") && !location.starts_with("/\\"),
            "{location:?}"
        );
    }
    location.parse::<Uri>().expect("a browser can go there");
}
