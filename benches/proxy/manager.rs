//! The manager of the measured data plane: it gives it a route table of fifty routes, and then has nothing to say.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::scenario;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tqserver::names::{Generation, WorkerName};
use tqserver::route::{
    Address, Front, Indexes, Listen, Pair, Pem, Protocol, Route, RoutePath, RouteTable, Scripts,
    Target, Tls, Upstream,
};
use tqserver::wire::{Duplex, FrontState, ToManager, ToProxy};

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

/// The socket of the worker that speaks FastCGI, in the directory of what is served.
pub(crate) const SCRIPTS: &str = "scripts.sock";

/// The manager's end of the link. A proxy that is left alone tries to find its manager again.
pub(crate) struct Linked {
    runtime: Runtime,
    link: Duplex<ToManager, ToProxy>,
    table: RouteTable,
}

impl Linked {
    /// Publishes the same again, with a new generation of each worker.
    pub(crate) fn reload(&mut self) {
        self.table.serial += 1;
        for route in &mut self.table.routes {
            if let Target::Serving(upstream) = &mut route.target {
                upstream.generation = Generation(self.table.serial);
            }
        }
        let published = put_in_force(&mut self.link, &self.table);
        self.runtime.block_on(in_time(published));
    }
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

    /// Waits for the proxy, and tells it to serve; also where it listens, without TLS and with it.
    pub(crate) fn publish(self, worker: &Path, files: &Path) -> (Linked, [SocketAddr; 2]) {
        let table = table(worker, files);
        let publish = async {
            let (stream, _) = self.listener.accept().await.expect("the proxy connects");
            let mut link: Duplex<ToManager, ToProxy> = Duplex::<_, _>::new(stream as UnixStream);
            let front = put_in_force(&mut link, &table).await;
            (link, front.listening)
        };
        let (link, listening) = self.runtime.block_on(in_time(publish));
        let linked = Linked {
            runtime: self.runtime,
            link,
            table,
        };
        let address = |at: usize| listening[at].address().expect("an address");
        (linked, [address(0), address(1)])
    }
}

/// Publishes `table`, and says what the proxy says when it serves by it.
async fn put_in_force(link: &mut Duplex<ToManager, ToProxy>, table: &RouteTable) -> FrontState {
    let publish = ToProxy::Publish(table.clone());
    link.send(&publish).await.expect("the proxy hears");
    loop {
        match link.next().await {
            Ok(Some(ToManager::Applied { serial, front }))
                if serial == table.serial && front.problem.is_none() =>
            {
                return front;
            }
            Ok(Some(message)) if !matches!(message, ToManager::Applied { .. }) => {}
            other => panic!("the table is not in force: {other:?}"),
        }
    }
}

async fn in_time<T>(step: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(LONG, step).await;
    outcome.expect("the proxy serves in time")
}

fn fastcgi(route: &RoutePath) -> Protocol {
    Protocol::FastCgi(Scripts {
        root: "/srv/scripts".into(),
        front_controller: "index.php".to_owned(),
        indexes: Some(Indexes::default()),
        route: route.clone(),
    })
}

/// What a server has whose `server.yaml` says nothing: the limits and deadlines are the defaults, but for those that would close what
/// is to stay open.
fn table(worker: &Path, files: &Path) -> RouteTable {
    let name = |number: usize| WorkerName::parse(&format!("app{number:02}")).expect("a name");
    let route = |number: usize| {
        let path = match number {
            0 => RoutePath::root(),
            number => RoutePath::of_worker(&name(number)),
        };
        let (address, protocol) = match path.as_str() {
            scenario::SCRIPTS => (files.join(SCRIPTS), fastcgi(&path)),
            _ => (worker.to_owned(), Protocol::Http),
        };
        let target = Target::Serving(Upstream {
            generation: Generation(1),
            address: Address::Unix(address),
            instances: BTreeMap::new(),
            protocol,
            max_requests: 0,
            starting: None,
        });
        let mut route = Route::new(path, name(number), target);
        route.timeouts.idle = HOUR;
        route
    };
    let mut routes: Vec<Route> = (0..ROUTES - 1).map(route).collect();
    routes.push(Route {
        path: RoutePath::parse("/static").expect("a path"),
        public: Some(files.join("static")),
        state: None,
        target: Target::Files,
        ..route(ROUTES)
    });
    let any = Listen::from(SocketAddr::from(([127, 0, 0, 1], 0)));
    let read =
        |name: &str| Pem::Text(fs::read_to_string(files.join(name)).expect("what openssl made"));
    RouteTable {
        serial: 1,
        front: Front {
            listen: vec![any.clone(), Listen { tls: true, ..any }],
            tls: Some(Tls {
                pairs: vec![Pair {
                    name: "bench.test".to_owned(),
                    certificate: read("certificate.pem"),
                    key: read("key.pem"),
                }],
                only_tls13: false,
            }),
            idle_timeout: HOUR,
            grace: Duration::from_secs(1),
            ..Front::default()
        },
        routes,
        draining: Vec::new(),
        development: None,
    }
}
