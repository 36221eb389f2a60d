//! The route table as one thread serves by it: looked up by host and path, with the thread's own connections to the workers beneath.
//!
//! | file | what it is for |
//! |---|---|
//! | `board` | the table in force, shared by all threads |
//! | `lookup`, `hosts` | what a route is found by, and finding it |
//! | `route`, `rules` | a route; what stands between a request and its worker |
//! | `public`, `assets` | a route's directory of files, and which of them are served |
//! | `stored` | directories of a worker's state whose files are served |
//! | `file`, `kept` | one of these files; those that are small, in memory |
//! | `development` | how far a worker is, as developers' pages are told |
//! | `builders` | how hyper and h2 are to serve connections |

pub(super) mod assets;
pub(super) mod board;
pub(super) mod builders;
pub(super) mod development;
pub(super) mod file;
pub(super) mod hosts;
pub(super) mod kept;
pub(super) mod lookup;
pub(super) mod public;
pub(super) mod route;
pub(super) mod rules;
mod stored;

use crate::proxy::table::board::Board;
use crate::proxy::table::board::Published;
use crate::proxy::table::builders::Http2;
use crate::proxy::table::route::Route;
use crate::proxy::table::route::Target;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use hyper::server::conn::http1;

use self::development::State;
use self::hosts::Routes;
use self::public::Public;
use self::stored::Stored;
use super::table::assets::Assets;
use super::table::rules::Rules;
use super::upstream::balance::Balancer;
use super::upstream::generation::Generation;
use super::upstream::pool::Upstream;
use crate::names::Instance;
use crate::route::{Address, Development, Front, Protocol, Target as Asked, Timeouts};

/// A published table made ready for one thread.
#[derive(Debug)]
pub(crate) struct Table {
    /// Read before the table was: if the board still shows it, the table is in force.
    pub(crate) edition: u64,
    pub(crate) published: Arc<Published>,
    pub(crate) server: http1::Builder,
    pub(crate) server2: Http2,
    routes: Routes,
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

impl Table {
    /// Makes the table on `board` ready for thread number `shard`. Connections of generations that stay are taken over from
    /// `previous`; those of generations that left are closed.
    pub(crate) fn compile(board: &Board, shard: usize, previous: Option<&Self>) -> Self {
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
        let room = Rc::default();
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
                        Target::Instances(Rc::new(Balancer::new(
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
                settings: route.settings.clone(),
                stripped: match route.settings.strip_prefix {
                    true => route.path.prefix().matches('/').count(),
                    false => 0,
                },
                worker: route.worker.clone(),
                public: {
                    let public = route.public.as_deref();
                    public.map(|path| Public::new(path, development.is_none(), &room))
                },
                stored: Stored::all(route),
                target,
                timeouts: route.timeouts,
                retries: route.flow.retries,
                rules: Rules::of(
                    route,
                    Rules::want_limiter(route)
                        .then(|| published.limiters.get(&route.worker))
                        .flatten(),
                ),
                access_log: route.access_log,
                compression: route.compression,
                assets: Assets::of(route),
                state: development.map(|development| State::of(&development.server, route)),
            };
            routes.add(compiled);
        }
        let table = Self {
            edition,
            server: builders::http1(&published.table.front),
            server2: builders::http2(&published.table.front),
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
    pub(crate) fn find(&self, host: &HeaderValue, path: &str) -> Option<&Rc<Route>> {
        self.routes.find(host, path)
    }

    /// The connections to workers, one set an instance (several times if it has several routes).
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Rc<Upstream>> {
        let targets = self.routes.all().map(|route| &route.target);
        targets.flat_map(Target::upstreams)
    }

    /// What developers are shown besides.
    pub(crate) fn development(&self) -> Option<&Development> {
        self.published.table.development.as_ref()
    }

    /// How clients are met.
    pub(crate) fn front(&self) -> &Front {
        &self.published.table.front
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    use crate::names::{Generation as Number, WorkerName};
    use crate::proxy::table::board::{Board, Published};
    use crate::route::RouteSettings;
    use crate::route::{
        Flow, Halt, Route as Asked, RoutePath, Target as Answer, Upstream as Serving,
    };

    /// A board with routes that lead to files.
    pub(crate) fn board(routes: &[&str]) -> Board {
        let mut published = Published::nothing();
        published.table.routes = routes.iter().map(|path| files_at(path)).collect();
        Board::new(published)
    }

    /// A route that leads to files.
    pub(crate) fn files_at(path: &str) -> Asked {
        let timeouts = Timeouts {
            read: Duration::ZERO,
            write: Duration::ZERO,
            idle: Duration::ZERO,
        };
        Asked {
            path: RoutePath::parse(path).unwrap(),
            settings: RouteSettings::default(),
            worker: WorkerName::parse("w").unwrap(),
            public: None,
            state: None,
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
    pub(crate) fn serve(board: &Board, number: u64) -> Arc<Generation> {
        let mut published = Published::nothing();
        published.table = board.published().table.clone();
        published.table.routes[0].target = Answer::Serving(Serving {
            generation: Number(number),
            address: Address::Unix("/nowhere".into()),
            instances: BTreeMap::new(),
            protocol: Protocol::Http,
            max_requests: 0,
            starting: None,
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
