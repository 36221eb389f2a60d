//! The route table as one thread serves by it: looked up by host and path, with the thread's own connections to the workers beneath.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use tokio::sync::watch;

use super::development::State;
use super::files::Assets;
use super::flow::{Gate, Rules};
use super::generation::{Generation, Ticket};
use super::hosts::Routes;
use super::http2;
use super::listener::Listener;
use super::pool::Upstream;
use super::public::Public;
use super::several::Several;
use crate::names::{Instance, WorkerName};
use crate::route::{
    Address, Development, ErrorPages, Front, HostPattern, Protocol, Redirect, RoutePath,
    RouteTable, Target as Asked, Timeouts,
};
use crate::tls::Acceptor;

/// Fewest bytes hyper reads a message's head into.
const BUFFER_MIN: usize = 16 << 10;

/// Header fields hyper parses without an allocation; only a front that allows more pays for it.
const HEADERS_INLINE: usize = 100;

/// A table in force, as all threads share it.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) table: RouteTable,
    pub(super) generations: HashMap<Instance, Arc<Generation>>,
    /// Of the workers whose requests may have to wait.
    pub(super) gates: HashMap<WorkerName, Arc<Gate>>,
    pub(super) listeners: Vec<Arc<Listener>>,
    /// Those of the last proxy that are given up with this table: who waits there is let in.
    pub(super) leaving: Vec<Arc<Listener>>,
    /// How clients are met that speak TLS.
    pub(super) tls: Option<Acceptor>,
}

/// The table in force and its edition, which grows with each.
#[derive(Debug)]
pub(super) struct Board {
    published: ArcSwap<Published>,
    edition: AtomicU64,
    changed: watch::Sender<()>,
}

/// A published table made ready for one thread.
#[derive(Debug)]
pub(super) struct Table {
    /// Read before the table was: if the board still shows it, the table is in force.
    pub(super) edition: u64,
    pub(super) published: Arc<Published>,
    pub(super) server: http1::Builder,
    pub(super) server2: http2::Server,
    routes: Routes,
}

/// A route and what is needed on it for each request.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) path: RoutePath,
    pub(super) hosts: Vec<HostPattern>,
    /// Segments that are cut off before the worker sees a path.
    pub(super) stripped: usize,
    /// Whether the worker gets fields that have names with `_` and other signs.
    pub(super) underscores_in_headers: bool,
    pub(super) redirects: Vec<Redirect>,
    pub(super) error_pages: ErrorPages,
    /// The value of `X-Forwarded-Prefix`.
    pub(super) prefix: HeaderValue,
    pub(super) worker: WorkerName,
    pub(super) public: Option<Public>,
    pub(super) target: Target,
    pub(super) timeouts: Timeouts,
    /// How often a request is sent again that may be.
    pub(super) retries: u8,
    /// What stands between a request and the worker; `None`: nothing.
    pub(super) rules: Option<Rules>,
    pub(super) access_log: bool,
    /// Whether answers are compressed.
    pub(super) compression: bool,
    /// Which files of `public` are served.
    pub(super) assets: Assets,
    /// In development: how far the worker is.
    pub(super) state: Option<State>,
}

/// Who answers on a route.
#[derive(Debug)]
pub(super) enum Target {
    Serving(Rc<Upstream>),
    /// A generation with several instances.
    Several(Rc<Several>),
    Files,
    Unavailable {
        reason: String,
        /// Seconds.
        retry_after: Option<u64>,
        /// How long requests may wait for it.
        awaited: Option<Duration>,
    },
}

/// One thread's ways to workers. The same generation may answer on two routes: one set of connections for both.
struct Ways<'a> {
    shard: usize,
    all: HashMap<(&'a Instance, &'a Address), Rc<Upstream>>,
}

impl<'a> Ways<'a> {
    fn way(
        &mut self,
        generation: &'a Arc<Generation>,
        address: &'a Address,
        protocol: &Protocol,
        timeouts: Timeouts,
    ) -> Rc<Upstream> {
        let key = (&generation.instance, address);
        let known = self.all.get(&key);
        let known = known.filter(|known| known.protocol == *protocol).cloned();
        let way = known.unwrap_or_else(|| {
            let (generation, address) = (generation.clone(), address.clone());
            let upstream = Upstream::new(generation, self.shard, address, protocol.clone());
            Rc::new(upstream)
        });
        way.set_idle(timeouts.idle);
        self.all.insert(key, way.clone());
        way
    }
}

impl Route {
    /// How long requests may wait for its first generation, if that is on its way.
    pub(super) fn awaited(&self) -> Option<Duration> {
        match self.target {
            Target::Unavailable { awaited, .. } => awaited,
            _ => None,
        }
    }
}

impl Target {
    /// The ways to the worker.
    fn upstreams(&self) -> &[Rc<Upstream>] {
        match self {
            Self::Serving(upstream) => std::slice::from_ref(upstream),
            Self::Several(several) => several.upstreams(),
            Self::Files | Self::Unavailable { .. } => &[],
        }
    }

    /// Counts a request in, if it goes to a worker. See [`Generation::enter`].
    pub(super) fn enter(&self) -> Option<Ticket> {
        match self {
            Self::Serving(upstream) => Some(upstream.enter()),
            _ => Some(self.upstreams().first()?.enter()),
        }
    }

    /// The way of a request that was counted in and has these header fields.
    pub(super) fn way(&self, ticket: &mut Ticket, headers: &HeaderMap) -> Option<Rc<Upstream>> {
        match self {
            Self::Serving(upstream) => Some(upstream.clone()),
            Self::Several(several) => {
                let place = ticket.place.insert(several.place(headers));
                Some(place.upstream().clone())
            }
            Self::Files | Self::Unavailable { .. } => None,
        }
    }
}

impl Published {
    /// A table without routes and listeners, in force until the manager's first word.
    pub(super) fn nothing() -> Self {
        Self {
            table: RouteTable {
                serial: 0,
                front: Front {
                    max_header_bytes: BUFFER_MIN,
                    ..Front::default()
                },
                routes: Vec::new(),
                draining: Vec::new(),
                development: None,
            },
            generations: HashMap::new(),
            gates: HashMap::new(),
            listeners: Vec::new(),
            leaving: Vec::new(),
            tls: None,
        }
    }
}

impl Board {
    /// A board that shows a table without routes.
    pub(super) fn new(published: Published) -> Self {
        Self {
            published: ArcSwap::from_pointee(published),
            edition: AtomicU64::new(1),
            changed: watch::Sender::new(()),
        }
    }

    /// Puts a table in force: when this returns no request that begins follows an older one.
    pub(super) fn publish(&self, published: Published) {
        self.published.store(Arc::new(published));
        self.edition.fetch_add(1, Ordering::SeqCst);
        self.changed.send_replace(());
    }

    /// The edition in force.
    pub(super) fn edition(&self) -> u64 {
        self.edition.load(Ordering::SeqCst)
    }

    /// The table in force.
    pub(super) fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Rings after each [`Self::publish`].
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl Table {
    /// Makes the table on `board` ready for thread number `shard`. Connections of generations that stay are taken over from
    /// `previous`; those of generations that left are closed.
    pub(super) fn compile(board: &Board, shard: usize, previous: Option<&Self>) -> Self {
        let edition = board.edition();
        let published = board.published();
        let previous_ways = previous.into_iter().flat_map(Self::upstreams);
        let mut ways = Ways {
            shard,
            all: previous_ways
                .map(|way| ((&way.generation.instance, &way.address), way.clone()))
                .collect(),
        };
        let mut routes = Routes::default();
        let development = published.table.development.as_ref();
        for route in &published.table.routes {
            let target = match &route.target {
                Asked::Serving(asked) => {
                    let instance = Instance::new(route.worker.clone(), asked.generation);
                    let generation = &published.generations[&instance];
                    let mut way =
                        |address| ways.way(generation, address, &asked.protocol, route.timeouts);
                    if asked.instances.is_empty() {
                        Target::Serving(way(&asked.address))
                    } else {
                        let ways = asked.instances.iter();
                        let ways = ways.map(|(number, address)| (*number, way(address)));
                        Target::Several(Rc::new(Several::new(
                            ways.collect(),
                            route.sticky.as_deref(),
                            &route.worker,
                            &route.path,
                            shard,
                        )))
                    }
                }
                Asked::Files => Target::Files,
                Asked::Unavailable {
                    reason,
                    retry_after,
                    awaited,
                } => Target::Unavailable {
                    reason: reason.clone(),
                    awaited: *awaited,
                    retry_after: retry_after.map(|d| d.as_secs() + u64::from(d.subsec_nanos() > 0)),
                },
            };
            let compiled = Route {
                prefix: HeaderValue::from_str(route.path.as_str())
                    .unwrap_or_else(|_| HeaderValue::from_static("/")),
                path: route.path.clone(),
                hosts: route.hosts.clone(),
                stripped: match route.strip_prefix {
                    true => route.path.prefix().matches('/').count(),
                    false => 0,
                },
                underscores_in_headers: route.underscores_in_headers,
                redirects: route.redirects.clone(),
                error_pages: route.error_pages.clone(),
                worker: route.worker.clone(),
                public: {
                    let public = route.public.as_deref();
                    public.map(|path| Public::new(path, development.is_none()))
                },
                target,
                timeouts: route.timeouts,
                retries: route.flow.retries,
                rules: Rules::of(
                    route,
                    Rules::want_gate(route)
                        .then(|| published.gates.get(&route.worker))
                        .flatten(),
                ),
                access_log: route.access_log,
                compression: route.compression,
                assets: Assets::of(route),
                state: development.map(|development| State::of(&development.server, route)),
            };
            routes.add(compiled, &route.hosts);
        }
        let table = Self {
            edition,
            server: server(&published.table.front),
            server2: http2::server(&published.table.front),
            published: published.clone(),
            routes,
        };
        if let Some(previous) = previous {
            let stays =
                |upstream: &Rc<Upstream>| table.upstreams().any(|u| Rc::ptr_eq(u, upstream));
            for upstream in previous.upstreams().filter(|u| !stays(u)) {
                upstream.retire();
            }
        }
        table
    }

    /// The route that answers for `path` on `host`.
    pub(super) fn find(&self, host: &HeaderValue, path: &str) -> Option<&Rc<Route>> {
        self.routes.find(host, path)
    }

    /// The connections to workers, one set an instance (several times if it has several routes).
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Rc<Upstream>> {
        let targets = self.routes.all().map(|route| &route.target);
        targets.flat_map(Target::upstreams)
    }

    /// What developers are shown besides.
    pub(super) fn development(&self) -> Option<&Development> {
        self.published.table.development.as_ref()
    }

    /// How clients are met.
    pub(super) fn front(&self) -> &Front {
        &self.published.table.front
    }
}

/// What all connections of this front have in common. Deadlines are not hyper's: see `socket.rs`.
fn server(front: &Front) -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .max_buf_size(front.max_header_bytes.max(BUFFER_MIN))
        .max_header_size(front.max_header_bytes);
    if front.max_headers > HEADERS_INLINE {
        server.max_headers(front.max_headers);
    }
    server
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::names::Generation as Number;
    use crate::route::{Flow, Halt, Route as Asked, Target as Answer, Upstream as Serving};

    /// A board with routes that lead to files.
    pub(in crate::proxy) fn board(routes: &[&str]) -> Board {
        let mut published = Published::nothing();
        published.table.routes = routes.iter().map(|path| files_at(path)).collect();
        Board::new(published)
    }

    /// A route that leads to files.
    pub(in crate::proxy) fn files_at(path: &str) -> Asked {
        let timeouts = Timeouts {
            read: Duration::ZERO,
            write: Duration::ZERO,
            idle: Duration::ZERO,
        };
        Asked {
            path: RoutePath::parse(path).unwrap(),
            hosts: Vec::new(),
            strip_prefix: false,
            underscores_in_headers: false,
            redirects: Vec::new(),
            error_pages: ErrorPages::new(),
            worker: WorkerName::parse("w").unwrap(),
            public: None,
            target: Answer::Files,
            timeouts,
            flow: Flow::default(),
            halt: Halt::default(),
            access_log: false,
            scripts: false,
            compression: false,
            sticky: None,
            work: None,
        }
    }

    /// Makes the first route of `board` lead to generation `number`.
    pub(in crate::proxy) fn serve(board: &Board, number: u64) -> Arc<Generation> {
        let mut published = Published::nothing();
        published.table = board.published().table.clone();
        published.table.routes[0].target = Answer::Serving(Serving {
            generation: Number(number),
            address: Address::Unix("/nowhere".into()),
            instances: BTreeMap::new(),
            protocol: Protocol::Http,
            max_requests: 0,
        });
        let instance = Instance::new(WorkerName::parse("w").unwrap(), Number(number));
        let generation = Arc::new(Generation::new(instance.clone(), 1, Arc::default()));
        published.generations.insert(instance, generation.clone());
        board.publish(published);
        generation
    }

    #[test]
    fn the_longest_route_that_ends_at_a_segment_answers() {
        let host = HeaderValue::from_static("h");
        let table = Table::compile(&board(&["/", "/api", "/api/users/new"]), 0, None);
        for (path, route) in [
            ("/", "/"),
            ("/apix", "/"),
            ("/api", "/api"),
            ("/api/", "/api"),
            ("/api/users", "/api"),
            ("/api/users/new", "/api/users/new"),
            ("/api/users/new/1/2/3", "/api/users/new"),
            ("//api", "/"),
        ] {
            let found = table.find(&host, path).unwrap();
            assert_eq!(found.path.as_str(), route, "{path}");
        }
        let table = Table::compile(&board(&["/api"]), 0, None);
        assert!(table.find(&host, "/").is_none());
        assert!(table.find(&host, "/other/api").is_none());
    }

    #[test]
    fn connections_are_kept_for_a_generation_that_stays_and_only_for_it() {
        let board = board(&["/"]);
        serve(&board, 1);
        let first = Table::compile(&board, 0, None);
        let same = Table::compile(&board, 0, Some(&first));
        let upstream = |table: &Table| table.upstreams().next().unwrap().clone();
        assert!(Rc::ptr_eq(&upstream(&first), &upstream(&same)));
        serve(&board, 2);
        let other = Table::compile(&board, 0, Some(&same));
        assert!(!Rc::ptr_eq(&upstream(&same), &upstream(&other)));
        assert!(upstream(&same).is_retired());
    }
}
