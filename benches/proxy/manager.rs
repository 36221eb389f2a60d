//! The manager of the measured data plane: it gives it a route table of fifty routes, and then has nothing to say.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tqserver::names::{Generation, WorkerName};
use tqserver::route::{
    Address, Front, Protocol, Route, RoutePath, RouteTable, Target, Timeouts, Upstream,
};
use tqserver::wire::{Duplex, ToManager, ToProxy};

/// Routes of the table.
const ROUTES: usize = 50;
/// Longest wait for the proxy.
const LONG: Duration = Duration::from_secs(60);
/// Idle connections stay for as long as the peers' do.
const HOUR: Duration = Duration::from_secs(3600);

/// Where the proxy is to find its manager.
pub(crate) struct Manager {
    runtime: Runtime,
    listener: UnixListener,
}

/// The manager's end of the link. A proxy that is left alone tries to find its manager again.
pub(crate) struct Linked {
    _runtime: Runtime,
    _link: Duplex<ToManager, ToProxy>,
}

impl Manager {
    /// Listens at `link`.
    pub(crate) fn listen(link: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = {
            let _context = runtime.enter();
            UnixListener::bind(link).expect("a socket for the link")
        };
        Self { runtime, listener }
    }

    /// Waits for the proxy, and tells it to serve; also where it listens.
    pub(crate) fn publish(self, worker: &Path, files: &Path) -> (Linked, SocketAddr) {
        let table = table(worker, files);
        let publish = async {
            let (stream, _) = self.listener.accept().await.expect("the proxy connects");
            let mut link: Duplex<ToManager, ToProxy> = Duplex::<_, _>::new(stream as UnixStream);
            let publish = ToProxy::Publish(table);
            link.send(&publish).await.expect("the proxy hears");
            loop {
                match link.next().await {
                    Ok(Some(ToManager::Hello { .. })) => {}
                    Ok(Some(ToManager::Applied {
                        problem: None,
                        listening,
                        ..
                    })) => return (link, listening[0]),
                    other => panic!("the table is not in force: {other:?}"),
                }
            }
        };
        let published = async { tokio::time::timeout(LONG, publish).await };
        let (link, address) = self
            .runtime
            .block_on(published)
            .expect("the proxy serves in time");
        let linked = Linked {
            _runtime: self.runtime,
            _link: link,
        };
        (linked, address)
    }
}

/// What a server has whose `server.yaml` says nothing: the limits and deadlines are the defaults, but for those that would close what
/// is to stay open.
fn table(worker: &Path, files: &Path) -> RouteTable {
    let name = |number: usize| WorkerName::parse(&format!("app{number:02}")).expect("a name");
    let route = |number: usize| Route {
        path: match number {
            0 => RoutePath::root(),
            number => RoutePath::of_worker(&name(number)),
        },
        worker: name(number),
        public: None,
        target: Target::Serving(Upstream {
            generation: Generation(1),
            address: Address::Unix(worker.to_owned()),
            protocol: Protocol::Http,
            max_requests: 0,
        }),
        timeouts: Timeouts {
            read: Duration::from_secs(30),
            write: Duration::from_secs(30),
            idle: HOUR,
        },
        access_log: false,
        scripts: false,
        work: None,
    };
    let mut routes: Vec<Route> = (0..ROUTES - 1).map(route).collect();
    routes.push(Route {
        path: RoutePath::parse("/static").expect("a path"),
        public: Some(files.join("static")),
        target: Target::Files,
        ..route(ROUTES)
    });
    RouteTable {
        serial: 1,
        front: Front {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            idle_timeout: HOUR,
            health_path: RoutePath::parse("/health").expect("a path"),
            max_header_bytes: 64 << 10,
            max_headers: 100,
            grace: Duration::from_secs(1),
        },
        routes,
        draining: Vec::new(),
        development: None,
    }
}
