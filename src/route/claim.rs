//! What workers claim of the URL space: paths, with or without hosts.

use std::fmt;

use super::host::HostPattern;
use super::path::RoutePath;

/// What no two workers can have: a path, on the hosts of a pattern or, without one, on every host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// On which hosts.
    pub host: Option<HostPattern>,
    /// From where on.
    pub path: RoutePath,
}

impl Claim {
    /// The claims of a worker with these hosts and this route.
    pub fn all(hosts: &[HostPattern], path: &RoutePath) -> Vec<Self> {
        let of = |host: Option<&HostPattern>| Self {
            host: host.cloned(),
            path: path.clone(),
        };
        match hosts {
            [] => vec![of(None)],
            hosts => hosts.iter().map(|host| of(Some(host))).collect(),
        }
    }
}

/// Claims as people read them: `example.org/api, www.example.org/api`.
pub fn places(claims: &[Claim]) -> String {
    let places: Vec<String> = claims.iter().map(Claim::to_string).collect();
    places.join(", ")
}

impl fmt::Display for Claim {
    /// `/api` or `example.org/api`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{host}{}", self.path),
            None => self.path.fmt(f),
        }
    }
}
