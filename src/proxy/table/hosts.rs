//! From a request's host and path to its route.

use std::collections::HashMap;
use std::rc::Rc;

use http::HeaderValue;

use super::route::Route;
use crate::route::host_name;

/// All routes of a table.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    all: Vec<Rc<Route>>,
    /// Those for all hosts.
    anywhere: Paths,
    /// `None` if no route names a host: then nobody looks at one.
    named: Option<Box<Named>>,
}

/// Routes by host.
#[derive(Debug, Default)]
struct Named {
    /// By the name itself.
    exact: HashMap<Box<str>, Paths>,
    /// By what stands behind `*.`.
    below: HashMap<Box<str>, Paths>,
    /// Bytes of the longest name in `below`: longer ones need not be looked up.
    longest: usize,
}

/// Routes by path.
#[derive(Debug, Default)]
struct Paths {
    /// By [`RoutePath::prefix`](crate::route::RoutePath::prefix), so the root's is empty.
    routes: HashMap<Box<str>, Rc<Route>>,
    /// Most segments of any route: longer prefixes of a path need not be looked up.
    depth: usize,
}

impl Routes {
    /// Adds a route for all of its hosts, or for any host if it names none.
    pub(crate) fn add(&mut self, route: Route) {
        let route = Rc::new(route);
        self.all.push(route.clone());
        if route.settings.hosts.is_empty() {
            return self.anywhere.add(route);
        }
        let named = self.named.get_or_insert_default();
        for host in &route.settings.hosts {
            let paths = match host.below() {
                Some(below) => {
                    named.longest = named.longest.max(below.len());
                    named.below.entry(below.into()).or_default()
                }
                None => named.exact.entry(host.as_str().into()).or_default(),
            };
            paths.add(route.clone());
        }
    }

    /// The route that answers for `path` on `host`: of the routes that name the host most exactly and cover the path, the longest.
    pub(crate) fn find(&self, host: &HeaderValue, path: &str) -> Option<&Rc<Route>> {
        if let Some(named) = &self.named
            && let Some(route) = named.find(host, path)
        {
            return Some(route);
        }
        self.anywhere.find(path)
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Rc<Route>> {
        self.all.iter()
    }
}

impl Named {
    fn find(&self, host: &HeaderValue, path: &str) -> Option<&Rc<Route>> {
        let host = host_name(host.to_str().ok()?)?;
        let exact = self.exact.get(&*host).and_then(|paths| paths.find(path));
        if exact.is_some() {
            return exact;
        }
        let mut rest = &*host;
        while let Some((_, below)) = rest.split_once('.') {
            rest = below;
            if rest.len() > self.longest {
                continue;
            }
            let found = self.below.get(rest).and_then(|paths| paths.find(path));
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

impl Paths {
    fn add(&mut self, route: Rc<Route>) {
        let prefix = route.path.prefix();
        let slashes = prefix.bytes().filter(|&byte| byte == b'/').count();
        self.depth = self.depth.max(slashes);
        self.routes.insert(prefix.into(), route);
    }

    fn find(&self, path: &str) -> Option<&Rc<Route>> {
        let mut slashes = path.bytes().enumerate().filter(|&(_, byte)| byte == b'/');
        let end = slashes.nth(self.depth).map_or(path.len(), |(at, _)| at);
        let mut prefix = &path[..end];
        loop {
            if let Some(route) = self.routes.get(prefix) {
                return Some(route);
            }
            prefix = &prefix[..prefix.rfind('/')?];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::table::Table;
    use crate::proxy::table::board::Published;
    use crate::proxy::table::tests::{board, files_at};
    use crate::route::HostPattern;

    /// What the table of `routes` (`/path` or `host/path`) finds.
    fn found(routes: &[&str], host: &str, path: &str) -> Option<String> {
        let board = board(&[]);
        let mut published = Published::nothing();
        for text in routes {
            let (host, path) = text.split_at(text.find('/').unwrap());
            let mut route = files_at(path);
            route.settings.hosts = match host {
                "" => Vec::new(),
                host => vec![HostPattern::parse(host).unwrap()],
            };
            published.table.routes.push(route);
        }
        board.publish(published);
        let table = Table::compile(&board, 0, None);
        let route = table.find(&HeaderValue::from_str(host).unwrap(), path)?;
        let host = route.settings.hosts.first().map_or("", HostPattern::as_str);
        Some(format!("{host}{}", route.path))
    }

    #[test]
    fn the_most_exact_host_that_covers_the_path_answers() {
        let routes = [
            "a.org/",
            "a.org/api",
            "b.a.org/only",
            "*.a.org/",
            "*.a.org/x",
            "*.c.a.org/deep",
            "[::1]/",
            "/",
            "/api/long",
        ];
        for (host, path, route) in [
            ("a.org", "/", "a.org/"),
            ("a.org", "/api/long/x", "a.org/api"),
            ("A.org.:81", "/apix", "a.org/"),
            ("b.a.org", "/only/1", "b.a.org/only"),
            ("b.a.org", "/", "*.a.org/"),
            ("d.e.a.org", "/x", "*.a.org/x"),
            ("d.c.a.org", "/deep", "*.c.a.org/deep"),
            ("d.c.a.org", "/api/long", "*.a.org/"),
            ("c.a.org", "/deep", "*.a.org/"),
            ("xa.org", "/api/long", "/api/long"),
            ("org", "/", "/"),
            ("", "/", "/"),
            ("a..a.org", "/", "/"),
            (".a.org", "/", "/"),
            ("[0::1]:80", "/", "[::1]/"),
            ("[::2]", "/", "/"),
        ] {
            let found = found(&routes, host, path);
            assert_eq!(found.as_deref(), Some(route), "{host} {path}");
        }
    }

    #[test]
    fn a_path_that_a_host_does_not_have_is_looked_for_among_all_hosts() {
        let routes = ["a.org/api", "*.org/wide", "/rest"];
        assert_eq!(found(&routes, "a.org", "/rest").as_deref(), Some("/rest"));
        assert_eq!(
            found(&routes, "a.org", "/wide").as_deref(),
            Some("*.org/wide")
        );
        assert_eq!(found(&routes, "a.org", "/"), None);
        assert_eq!(found(&routes, "b.example", "/api"), None);
    }
}
