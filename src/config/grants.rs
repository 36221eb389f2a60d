//! What of the URL space a deployer's worker may have: the path that its directory gives it and what is below, and what server.yaml leaves to it.

use std::collections::BTreeMap;
use std::fmt;

use super::document::{Content, Node};
use super::hosts::hosts;
use super::section::{Item, Section};
use crate::names::WorkerName;
use crate::route::{HostPattern, RoutePath};

/// Stands for every worker.
const EVERY: &str = "*";

/// A path that is left to a worker: itself, or with `/*` at its end all below it, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    path: RoutePath,
    below: bool,
}

impl Grant {
    fn parse(text: &str) -> Result<Self, String> {
        let (path, below) = match text.strip_suffix("/*") {
            Some("") => ("/", true),
            Some(path) => (path, true),
            None => (text, false),
        };
        let path = RoutePath::parse(path).map_err(|error| error.to_string())?;
        Ok(Self { path, below })
    }

    fn allows(&self, route: &RoutePath) -> bool {
        self.path == *route || self.below && self.path.covers(route.as_str())
    }
}

/// Why a worker may not have what it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `path` or `hosts`.
    pub key: &'static str,
    /// What and why, as a sentence without a full stop.
    pub message: String,
    /// The line that server.yaml would need.
    pub cure: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What `server.yaml` leaves to workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grants {
    /// The hosts that a worker.yaml may name; `None`: any if the administrator wrote it, none if a deployer did.
    pub hosts: Option<Vec<HostPattern>>,
    /// Hosts that are left to one worker, besides, with all their paths.
    pub own_hosts: BTreeMap<WorkerName, Vec<HostPattern>>,
    /// Paths that are left to a deployer's worker beside those below its directory's.
    pub routes: BTreeMap<WorkerName, Vec<Grant>>,
}

impl Grants {
    /// What of this place in the URL space is not a deployer's to take for the worker `name`, beside the workers `all`.
    pub fn refused<'a>(
        &self,
        name: &WorkerName,
        route: &RoutePath,
        hosts: &[HostPattern],
        all: impl IntoIterator<Item = &'a WorkerName>,
    ) -> Option<Refused> {
        let own = self.own_hosts.get(name).map_or(&[][..], Vec::as_slice);
        let is_own = |host: &HostPattern| own.iter().any(|one| one.covers(host));
        if let Some(host) = hosts
            .iter()
            .find(|host| !is_own(host) && !self.is_everybodys(host))
        {
            return Some(foreign(name, host));
        }
        let granted = self.routes.get(name).into_iter().flatten();
        let is_granted = granted.into_iter().any(|grant| grant.allows(route));
        if is_granted || !hosts.is_empty() && hosts.iter().all(is_own) {
            return None;
        }
        let refused = |whose: String| {
            Some(Refused {
                key: "path",
                message: format!("the path {route} {whose}"),
                cure: format!("workers: {{routes: {{{name}: [\"{route}\"]}}}}"),
            })
        };
        let home = RoutePath::of_worker(name);
        if !home.covers(route.as_str()) {
            return refused(format!(
                "is not at or below {home}, the path of the directory of '{name}'"
            ));
        }
        let mut others = all.into_iter().filter(|other| *other != name);
        let nearer = others.find(|other| {
            let path = RoutePath::of_worker(other);
            path != home && home.covers(path.as_str()) && path.covers(route.as_str())
        });
        if let Some(other) = nearer {
            return refused(format!(
                "belongs to the worker '{other}', whose directory is nearer to it"
            ));
        }
        let mut grants = self.routes.iter().filter(|(other, _)| *other != name);
        let left = grants.find(|(_, grants)| {
            let holds = |grant: &Grant| {
                home.covers(grant.path.as_str()) && grant.path.covers(route.as_str())
            };
            grants.iter().any(holds)
        });
        left.and_then(|(other, _)| {
            refused(format!("is left to the worker '{other}' by server.yaml"))
        })
    }

    /// What the administrator's own worker `name` may not have: hosts beyond a list that is for every worker.
    pub fn refused_to_administrators(
        &self,
        name: &WorkerName,
        hosts: &[HostPattern],
    ) -> Option<Refused> {
        let own = self.own_hosts.get(name).into_iter().flatten();
        let allowed: Vec<_> = self.hosts.as_ref()?.iter().chain(own).collect();
        let is_foreign = |host: &&HostPattern| !allowed.iter().any(|one| one.covers(host));
        hosts
            .iter()
            .find(is_foreign)
            .map(|host| foreign(name, host))
    }

    /// Whether every deployer's worker may name this host, and it is not one's own.
    fn is_everybodys(&self, host: &HostPattern) -> bool {
        let covers = |hosts: &[HostPattern]| hosts.iter().any(|one| one.covers(host));
        self.hosts.as_deref().is_some_and(covers)
            && !self.own_hosts.values().any(|hosts| covers(hosts))
    }

    /// Reads `workers.hosts` and `workers.routes`.
    pub(super) fn read(workers: &mut Section<'_>) -> Self {
        let mut read = Self::default();
        let is_mapping = workers
            .peek("hosts")
            .is_some_and(|item| matches!(item.node().content, Content::Map(_)));
        if is_mapping {
            for item in workers.items("hosts") {
                let key = format!("workers.hosts.{}", item.key());
                let named = hosts(&item, &key);
                if item.key() == EVERY {
                    read.hosts = Some(named);
                } else if let Some(name) = worker(&item, "workers.hosts") {
                    read.own_hosts.insert(name, named);
                }
            }
        } else {
            let allowed = workers.item("hosts");
            read.hosts = allowed.map(|item| hosts(&item, "workers.hosts"));
        }
        let mut routes = BTreeMap::new();
        for item in workers.items("routes") {
            if let Some(name) = worker(&item, "workers.routes") {
                routes.insert(name, grants(&item));
            }
        }
        read.routes = routes;
        read
    }
}

fn foreign(name: &WorkerName, host: &HostPattern) -> Refused {
    Refused {
        key: "hosts",
        message: format!("'hosts' names '{host}', which server.yaml does not leave to '{name}'"),
        cure: format!("workers: {{hosts: {{{name}: [\"{host}\"]}}}}"),
    }
}

fn worker(item: &Item<'_>, key: &str) -> Option<WorkerName> {
    let name = WorkerName::parse(item.key()).map_err(|error| {
        let help = "write the name of a worker, as in `tqserver status`";
        item.key_problem(format!("'{key}': {error}"), help);
    });
    name.ok()
}

fn grants(item: &Item<'_>) -> Vec<Grant> {
    let nodes = match &item.node().content {
        Content::List(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(item.node()),
    };
    let read = |node: &Node| {
        let text: String = node.typed().unwrap_or_default();
        let grant = Grant::parse(&text).map_err(|error| {
            let message = format!("'workers.routes.{}': {error}", item.key());
            let help = "write a path, as in /checkout, or with all below it, as in /cart/*";
            item.part_problem(node, message, help);
        });
        grant.ok()
    };
    nodes.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Settings;

    fn refused(server: &str, name: &str, path: &str, hosts: &[&str]) -> Option<String> {
        let settings = Settings::parse(Path::new("server.yaml"), server).unwrap();
        let worker = |name: &str| WorkerName::parse(name).unwrap();
        let all = [
            "index",
            "alice",
            "victim",
            "api",
            "api.users",
            "checkout",
            "shop",
        ]
        .map(worker);
        let hosts: Vec<_> = hosts
            .iter()
            .map(|host| HostPattern::parse(host).unwrap())
            .collect();
        let path = RoutePath::parse(path).unwrap();
        let refused = settings
            .grants
            .refused(&worker(name), &path, &hosts, &all)?;
        Some(format!("{}: {refused}: {}", refused.key, refused.cure))
    }

    #[test]
    fn a_worker_has_its_own_path_and_what_is_below() {
        let allowed = |name, path| refused("", name, path, &[]).is_none();
        assert!(allowed("alice", "/alice") && allowed("alice", "/alice/a/b"));
        assert!(allowed("index", "/") && allowed("index", "/other"));
        assert!(allowed("api.users", "/api/users") && allowed("api", "/api/other"));
        for (name, path) in [
            ("alice", "/victim/login"),
            ("alice", "/"),
            ("alice", "/alice2"),
            ("index", "/victim/login"),
            ("api", "/api/users/login"),
            ("api.users", "/api"),
        ] {
            assert!(!allowed(name, path), "{name} {path}");
        }
        let text = refused("", "alice", "/victim/login", &[]).unwrap();
        assert!(
            text.ends_with("workers: {routes: {alice: [\"/victim/login\"]}}"),
            "{text}"
        );
    }

    #[test]
    fn server_yaml_leaves_more_to_a_worker_and_takes_it_from_others() {
        let server = "workers: {routes: {shop: [/checkout, /cart/*], index: '/*'}}";
        let allowed = |name, path| refused(server, name, path, &[]).is_none();
        assert!(
            allowed("shop", "/checkout") && allowed("shop", "/cart") && allowed("shop", "/cart/x")
        );
        assert!(!allowed("shop", "/checkout/x") && !allowed("shop", "/carts"));
        assert!(allowed("index", "/victim/login") && allowed("alice", "/alice/x"));
        assert!(!allowed("checkout", "/checkout"));
    }

    #[test]
    fn a_host_is_nobodys_unless_server_yaml_leaves_it_to_all_or_to_one() {
        assert!(refused("", "alice", "/alice", &["localhost"]).is_some());
        let all = "workers: {hosts: ['*.example.org']}";
        assert!(refused(all, "alice", "/alice", &["a.example.org"]).is_none());
        assert!(refused(all, "alice", "/victim/x", &["a.example.org"]).is_some());
        let one = "workers: {hosts: {'*': ['*.example.org'], shop: [shop.example.org]}}";
        assert!(
            refused(one, "shop", "/", &["shop.example.org"]).is_none(),
            "all of its host"
        );
        assert!(refused(one, "alice", "/alice", &["shop.example.org"]).is_some());
        assert!(refused(one, "alice", "/alice", &["a.example.org"]).is_none());
        assert!(refused(one, "shop", "/", &["shop.example.org", "a.example.org"]).is_some());
    }
}
