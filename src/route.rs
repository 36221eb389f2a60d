//! The route table: all the proxy knows. The manager makes it, the proxy serves by it; neither looks behind it.

mod error_page;
mod host;
mod redirect;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::boottime::BootTime;
use crate::names::{Generation, Instance, WorkerName};

pub use error_page::{ErrorPages, Errors, error_page};
pub use host::{Claim, HostError, HostPattern, host_name, places};
pub use redirect::{Redirect, RedirectError, endless, redirected, rest_of_path};

/// Most bytes of the certificates and keys in a table, as PEM text.
pub const FRONT_MAX: usize = 2 << 20;

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
    /// One entry for each route, in no particular order. Of those for a request's host the longest covering one answers: first those
    /// that name the host, then those that name all below a name of it, the longest first, then those without hosts.
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
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// How to speak TLS, for those of `listen` that do.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Whether a client may begin with HTTP/2 where there is no TLS ("prior knowledge", RFC 9113, 3.3).
    #[serde(default)]
    pub http2_cleartext: bool,
    /// Where proxies stand whose word on a client's address, protocol and host is believed.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
    /// Most clients' connections at a time.
    pub max_connections: usize,
    /// Most connections of one address at a time (of one network of 64 bits in IPv6); 0: no such limit.
    #[serde(default)]
    pub max_connections_per_address: usize,
    /// Longest time a client may take for its request head, and between two pieces of its body.
    pub read_timeout: Duration,
    /// Longest time a client may take to accept a piece of the response.
    pub write_timeout: Duration,
    /// How long a connection may stay open between two requests, or a tunnel without a byte.
    pub idle_timeout: Duration,
    /// Bytes of a body with which a client earns back a second of [`Front::read_timeout`] when it has kept us waiting; 0: one byte gives
    /// all of it back.
    #[serde(default)]
    pub min_read_rate: u32,
    /// The same for what a client takes of a response, and [`Front::write_timeout`].
    #[serde(default)]
    pub min_write_rate: u32,
    /// The path of the server's own health report.
    pub health_path: RoutePath,
    /// Most bytes of a request's head.
    pub max_header_bytes: usize,
    /// Most header fields of a request.
    pub max_headers: usize,
    /// How long requests in flight may take to end when the proxy stops.
    pub grace: Duration,
}

impl Default for Front {
    /// Listens nowhere; the limits are those of a server.yaml that says nothing.
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            tls: None,
            http2_cleartext: false,
            trusted_proxies: Vec::new(),
            max_connections: 16_384,
            max_connections_per_address: 0,
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            min_read_rate: 240,
            min_write_rate: 240,
            health_path: RoutePath("/health".to_owned()),
            max_header_bytes: 64 << 10,
            max_headers: 100,
            grace: Duration::from_secs(30),
        }
    }
}

impl Front {
    /// Listens on `port` at every address, without TLS.
    pub fn listen_on(&mut self, port: u16) {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for listen in &self.listen {
            if let Place::Tcp(address) = listen.place
                && !addresses.contains(&address.ip())
            {
                addresses.push(address.ip());
            }
        }
        let plain = |ip| Listen::from(SocketAddr::new(ip, port));
        self.listen = addresses.into_iter().map(plain).collect();
    }

    /// Listens at `address` alone, on the first port there was, without TLS.
    pub fn listen_at(&mut self, address: IpAddr) {
        let port = self.listen.iter().find_map(Listen::address);
        let port = port.map_or(0, |address| address.port());
        self.listen = vec![Listen::from(SocketAddr::new(address, port))];
    }

    /// Whether `address` is one whose word about a client is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies
            .iter()
            .any(|net| net.contains(&address))
    }
}

/// A socket that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listen {
    /// Where.
    pub place: Place,
    /// Whether clients speak TLS there.
    #[serde(default)]
    pub tls: bool,
    /// Whether each connection begins with a header of the PROXY protocol, version 2, from one of
    /// [`Front::trusted_proxies`].
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Whether those who connect to this unix socket are believed as [`Front::trusted_proxies`] are: it has no addresses to tell.
    #[serde(default)]
    pub trusted: bool,
    /// Requests that come without TLS are sent to this port with it; `None`: they are answered.
    #[serde(default)]
    pub redirect: Option<u16>,
}

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// An address and port; a port of 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self {
            place: Place::Tcp(address),
            tls: false,
            proxy_protocol: false,
            trusted: false,
            redirect: None,
        }
    }
}

impl Listen {
    /// The address, if it is one of TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Tcp(address) => Some(address),
            Place::Unix(_) => None,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)?;
        if self.tls {
            f.write_str(" (TLS)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How the proxy speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Certificates with their keys; the first is for clients that name no host, or one that none is for.
    pub pairs: Vec<Pair>,
    /// Whether TLS 1.2 is refused.
    #[serde(default)]
    pub only_tls13: bool,
}

/// A certificate with its chain, and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Where the certificate comes from, for messages.
    pub name: String,
    /// The certificate first, then those that vouch for it.
    pub certificate: Pem,
    /// The private key.
    pub key: Pem,
}

/// PEM text (RFC 7468), or where the proxy finds it. It is not shown when the rest of a table is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pem {
    /// The text.
    Text(String),
    /// A credential of the proxy's unit by this name (`LoadCredential=` in systemd.exec(5)).
    Credential(String),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(..)"),
            Self::Credential(name) => f.debug_tuple("Credential").field(name).finish(),
        }
    }
}

/// One place in the URL space and who answers there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The place.
    pub path: RoutePath,
    /// The hosts it is for; none: all.
    #[serde(default)]
    pub hosts: Vec<HostPattern>,
    /// Whether the worker is asked without `path` at the beginning of each request's own.
    #[serde(default)]
    pub strip_prefix: bool,
    /// Whether the worker gets a client's fields that have names with `_` and other signs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub underscores_in_headers: bool,
    /// Where requests are sent instead, the first that fits.
    #[serde(default)]
    pub redirects: Vec<Redirect>,
    /// Files in `public` that are sent with the proxy's own errors here.
    #[serde(default)]
    pub error_pages: ErrorPages,
    /// The worker it belongs to.
    pub worker: WorkerName,
    /// Directory whose files are served below `path` without asking the worker.
    pub public: Option<PathBuf>,
    /// Who answers what is not a file.
    pub target: Target,
    /// The proxy's patience with the worker.
    pub timeouts: Timeouts,
    /// How much the worker is asked at a time.
    #[serde(default)]
    pub flow: Flow,
    /// What keeps requests from the worker although it may well be able to answer.
    #[serde(default)]
    pub halt: Halt,
    /// Whether each request is written to the journal.
    pub access_log: bool,
    /// Whether there may be PHP scripts among the files of `public`: no such file is sent as it is.
    #[serde(default)]
    pub scripts: bool,
    /// Whether the proxy compresses answers that came as they are, for clients that take it.
    #[serde(default)]
    pub compression: bool,
    /// The name of the cookie by which a client stays with one of several instances, if it is to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<String>,
    /// How far the worker is with what its developer has saved; `None` in production.
    #[serde(default)]
    pub work: Option<Work>,
}

impl Route {
    /// The route `path` of `worker`, whose requests go to `target`, with all else as where nothing was set: no files, and no patience
    /// shorter than that of [`Front`].
    pub fn new(path: RoutePath, worker: WorkerName, target: Target) -> Self {
        let front = Front::default();
        Self {
            path,
            hosts: Vec::new(),
            strip_prefix: false,
            underscores_in_headers: false,
            redirects: Vec::new(),
            error_pages: ErrorPages::new(),
            worker,
            public: None,
            target,
            timeouts: Timeouts {
                read: front.read_timeout,
                write: front.write_timeout,
                idle: front.idle_timeout,
            },
            flow: Flow::default(),
            halt: Halt::default(),
            access_log: false,
            scripts: false,
            compression: true,
            sticky: None,
            work: None,
        }
    }
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
        /// Its first generation is on its way, and nothing is known to be wrong with it: how long requests may wait for that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        awaited: Option<Duration>,
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
    /// HTTP/2 without TLS, from the first byte on (RFC 9113, 3.3).
    Http2,
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
    /// The same, of a worker with a user of its own: whatever is sent goes to that user's process, or nowhere. Anybody on the machine
    /// can listen on a port.
    Held {
        /// Where.
        at: SocketAddr,
        /// Whose it has to be; [`u32::MAX`]: nobody's yet.
        by: u32,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) | Self::Held { at: address, .. } => address.fmt(f),
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

/// How much a worker is asked at a time, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Most bytes of a request's body; `None`: any. What is longer gets 413.
    pub max_body: Option<u64>,
    /// Most requests in flight in the worker, those of all its generations together; 0: any.
    pub max_concurrency: u32,
    /// Most requests that wait for one of those to end; what comes beyond gets 503.
    pub queue_size: u32,
    /// How long a request waits there before it gets 503.
    pub queue_timeout: Duration,
    /// How often a request that may be sent again is, when a connection broke before a byte of the answer came.
    pub retries: u8,
    /// From a request's head to the end of its answer; zero: any time. Tunnels and event streams are not concerned.
    pub request_timeout: Duration,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            max_body: None,
            max_concurrency: 0,
            queue_size: 100,
            queue_timeout: Duration::from_secs(5),
            retries: 1,
            request_timeout: Duration::ZERO,
        }
    }
}

impl Flow {
    /// Whether it is what is in force where nothing was set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What an operator has put between a worker and its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// Its requests wait.
    pub pause: Option<Pause>,
    /// Its requests are refused.
    pub maintenance: Option<Maintenance>,
}

impl Halt {
    /// Whether there is nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A worker's requests wait. It ends by itself, so that nobody has to be there to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it began.
    pub since: BootTime,
    /// When it ends.
    pub until: BootTime,
}

impl Pause {
    /// Begins now, for at most `max`.
    pub fn begin(max: Duration) -> Self {
        let since = BootTime::now();
        let until = since.after(max);
        Self { since, until }
    }

    /// How long it still lasts; zero once it is over. One that has not begun yet is of another boot, and over.
    pub fn left(&self) -> Duration {
        let now = BootTime::now();
        if now < self.since {
            return Duration::ZERO;
        }
        self.until.since(now)
    }
}

/// A worker's requests are refused, and told that it will be back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// What clients are told; `None`: a sentence of the proxy's own.
    pub message: Option<String>,
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
    fn a_pause_of_another_boot_is_over() {
        let pause = Pause::begin(Duration::from_secs(60));
        assert!(pause.left() > Duration::from_secs(50));
        let later = Pause {
            since: pause.since.after(Duration::from_secs(3600)),
            until: pause.until.after(Duration::from_secs(3600)),
        };
        assert_eq!(later.left(), Duration::ZERO);
        assert_eq!(Pause::begin(Duration::ZERO).left(), Duration::ZERO);
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
