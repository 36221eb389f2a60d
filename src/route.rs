//! The route table: all the proxy knows. The manager makes it, the proxy serves by it; neither looks behind it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{Generation, Instance, WorkerName};

/// A place in the URL space: `/`, or `/` and segments without a trailing slash (`/api/users`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoutePath(String);

/// Why a string is not a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutePathError {
    /// The first character is not `/`.
    #[error("'{0}' does not start with '/'")]
    Relative(String),
    /// An empty segment, `.` or `..`.
    #[error("'{0}' has an empty, '.' or '..' segment")]
    Segment(String),
    /// A character that would have to be escaped in a URL, or would end the path.
    #[error(
        "'{0}' has the character {1:?}; a route is made of letters, digits and -._~!$&'()*+,;=:@"
    )]
    Character(String, char),
}

impl RoutePath {
    /// The route of everything.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Reads a route; one trailing slash is dropped.
    ///
    /// # Errors
    /// When it is relative, has an empty or dot segment, or a character that is not a `pchar` of RFC 3986 (percent escapes excluded).
    pub fn parse(path: &str) -> Result<Self, RoutePathError> {
        if path == "/" {
            return Ok(Self::root());
        }
        let Some(segments) = path.strip_prefix('/') else {
            return Err(RoutePathError::Relative(path.to_owned()));
        };
        let segments = segments.strip_suffix('/').unwrap_or(segments);
        for segment in segments.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err(RoutePathError::Segment(path.to_owned()));
            }
            let pchar = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c);
            if let Some(bad) = segment.chars().find(|&c| !pchar(c)) {
                return Err(RoutePathError::Character(path.to_owned(), bad));
            }
        }
        Ok(Self(format!("/{segments}")))
    }

    /// The route a worker has by its place in the file system: `api.users` is `/api/users`, and a last part `index` is the directory
    /// it stands in.
    pub fn of_worker(name: &WorkerName) -> Self {
        let mut parts: Vec<&str> = name.as_str().split('.').collect();
        if parts.last() == Some(&"index") {
            parts.pop();
        }
        Self(format!("/{}", parts.join("/")))
    }

    /// Whether this route answers for `path`: it is `path`, or a prefix of it that ends at a segment (`/api` covers `/api/users`
    /// and not `/apix`).
    pub fn covers(&self, path: &str) -> bool {
        match path.strip_prefix(self.prefix()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// The text to cut from a path this route covers: the route without the slash of `/`.
    pub fn prefix(&self) -> &str {
        if self.0 == "/" { "" } else { &self.0 }
    }

    /// The route as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Of the routes in `routes`, the one that answers for `path`: the longest that covers it.
pub fn longest_match<'a, T>(
    routes: &'a BTreeMap<RoutePath, T>,
    path: &str,
) -> Option<(&'a RoutePath, &'a T)> {
    routes
        .iter()
        .filter(|(route, _)| route.covers(path))
        .max_by_key(|(route, _)| route.prefix().len())
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RoutePath {
    type Error = RoutePathError;
    fn try_from(path: String) -> Result<Self, Self::Error> {
        Self::parse(&path)
    }
}

impl From<RoutePath> for String {
    fn from(path: RoutePath) -> Self {
        path.0
    }
}

/// Everything the proxy serves by. A new table replaces the old one whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Grows with each table a manager publishes; the proxy answers "applied" with it.
    pub serial: u64,
    /// How the proxy meets its clients.
    pub front: Front,
    /// One entry for each route, in no particular order; the longest covering route answers.
    pub routes: Vec<Route>,
    /// Generations that get no new requests any more and of which the manager wants to hear "drained". One that the proxy has
    /// never heard of is drained.
    pub draining: Vec<Instance>,
    /// What developers are shown besides; `None` in production.
    #[serde(default)]
    pub development: Option<Development>,
}

/// A developer's server: pages that reload themselves, wait for what is on its way, and show what went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Development {
    /// Names this run of the server: generations of another one begin to count anew.
    pub server: String,
    /// Longest time a page waits for a generation that is on its way; zero: none waits.
    pub hold: Duration,
}

/// The proxy's side towards clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// Where to listen; a port of 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// Longest time a client may take for its request head, and between two pieces of its body.
    pub read_timeout: Duration,
    /// Longest time a client may take to accept a piece of the response.
    pub write_timeout: Duration,
    /// How long a connection may stay open between two requests, or a tunnel without a byte.
    pub idle_timeout: Duration,
    /// The path of the server's own health report.
    pub health_path: RoutePath,
    /// Most bytes of a request's head.
    pub max_header_bytes: usize,
    /// Most header fields of a request.
    pub max_headers: usize,
    /// How long requests in flight may take to end when the proxy stops.
    pub grace: Duration,
}

impl Front {
    /// Listens on `port` at every address.
    pub fn listen_on(&mut self, port: u16) {
        self.listen
            .iter_mut()
            .for_each(|address| address.set_port(port));
    }
}

/// One place in the URL space and who answers there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The place.
    pub path: RoutePath,
    /// The worker it belongs to.
    pub worker: WorkerName,
    /// Directory whose files are served below `path` without asking the worker.
    pub public: Option<PathBuf>,
    /// Who answers what is not a file.
    pub target: Target,
    /// The proxy's patience with the worker.
    pub timeouts: Timeouts,
    /// Whether each request is written to the journal.
    pub access_log: bool,
    /// Whether there may be PHP scripts among the files of `public`: no such file is sent as it is.
    #[serde(default)]
    pub scripts: bool,
    /// The name of the cookie by which a client stays with one of several instances, if it is to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<String>,
    /// How far the worker is with what its developer has saved; `None` in production.
    #[serde(default)]
    pub work: Option<Work>,
}

/// How far a worker is with what its developer has saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// A newer generation is on its way: a page would be stale.
    pub pending: bool,
    /// Differs when a stylesheet in `public` does.
    pub styles: String,
    /// Differs when any other file in `public` does.
    pub files: String,
    /// What keeps the files that lie there from being what serves.
    pub trouble: Option<Trouble>,
}

/// Why what was saved does not serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// A sentence: "`cargo build`: exit code 101".
    pub reason: String,
    /// What compiler or worker wrote last, lines with their colours (SGR escape sequences) and any other bytes they pleased.
    pub log: Vec<String>,
}

/// Who answers on a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A generation of the worker.
    Serving(Upstream),
    /// Nobody but the files in `public`: anything else is 404.
    Files,
    /// Nobody for now: 503 with this reason.
    Unavailable {
        /// A sentence for people.
        reason: String,
        /// When it is worth trying again, if that is known.
        retry_after: Option<Duration>,
    },
}

/// A generation that answers requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Which generation.
    pub generation: Generation,
    /// Where it listens, or the first of its instances that can.
    pub address: Address,
    /// Of a worker with several instances: where each that can be reached listens, by its number. Empty: there is but one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instances: BTreeMap<u8, Address>,
    /// What it speaks there.
    #[serde(default)]
    pub protocol: Protocol,
    /// After that many requests the manager wants to hear "spent"; 0: never.
    pub max_requests: u64,
}

/// What a generation speaks on its socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// FastCGI, as php-fpm does; it is told which script is to answer.
    FastCgi(Scripts),
}

/// The scripts of a worker that speaks FastCGI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripts {
    /// The document root: an absolute path in the directory the worker runs from. It is a name for the worker, and the proxy may not be
    /// able to look there.
    pub root: PathBuf,
    /// The script in it that answers whatever names no other.
    pub index: String,
    /// The place in the URL space that stands for `root`.
    pub route: RoutePath,
}

/// Where a generation listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// A unix stream socket.
    Unix(PathBuf),
    /// A TCP port, for workers that can not take a socket.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// How long the proxy waits for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Until the response's head, and between two pieces of its body.
    pub read: Duration,
    /// Until the worker accepts the next piece of a request's body; also for connecting.
    pub write: Duration,
    /// How long an unused connection to the worker is kept, and a tunnel or event stream may be silent.
    pub idle: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> RoutePath {
        RoutePath::parse(path).unwrap()
    }

    #[test]
    fn a_route_covers_whole_segments_only() {
        assert!(route("/api").covers("/api"));
        assert!(route("/api").covers("/api/users"));
        assert!(!route("/api").covers("/apix"));
        assert!(route("/").covers("/anything"));
        assert!(!route("/api").covers("/"));
    }

    #[test]
    fn the_longest_route_answers() {
        let routes = BTreeMap::from([
            (route("/"), 0),
            (route("/api"), 1),
            (route("/api/users"), 2),
        ]);
        for (path, expected) in [
            ("/", 0),
            ("/apix", 0),
            ("/api/user", 1),
            ("/api/users/7", 2),
        ] {
            assert_eq!(longest_match(&routes, path).unwrap().1, &expected, "{path}");
        }
    }

    #[test]
    fn the_file_system_is_the_url_space() {
        for (name, path) in [
            ("index", "/"),
            ("api", "/api"),
            ("api.users", "/api/users"),
            ("api.index", "/api"),
        ] {
            assert_eq!(
                RoutePath::of_worker(&WorkerName::parse(name).unwrap()),
                route(path),
                "{name}"
            );
        }
    }

    #[test]
    fn what_would_be_read_in_two_ways_is_no_route() {
        assert_eq!(route("/a/").as_str(), "/a");
        for bad in [
            "", "a", "//", "/a//b", "/a/../b", "/.", "/a b", "/a?b", "/%41", "/ü",
        ] {
            assert!(RoutePath::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
