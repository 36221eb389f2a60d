//! A proxy as it ships, its table, its worker and its memory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tqserver::names::{Generation, WorkerName};
use tqserver::route::{
    Address, Front, Listen, Pair, Pem, Protocol, Route, RoutePath, RouteTable, Target, Timeouts,
    Tls, Upstream,
};
use tqserver::wire::{Duplex, ToManager, ToProxy};

use super::worker::{self, Taken};

/// Longest wait for the proxy to serve.
const LONG: Duration = Duration::from_secs(60);
/// Time between two looks at its memory.
const LOOK: Duration = Duration::from_millis(100);
/// Open files that the greatest attack needs on each side, with some to spare.
const FILES: u64 = 16_000;
/// The proxy in front, where a listener wants one.
const TRUSTED: &str = "127.0.0.3/32";

/// A proxy that runs.
pub(crate) struct House {
    child: Child,
    /// Where it listens: without TLS, with it, and with the PROXY protocol.
    pub(crate) plain: SocketAddr,
    pub(crate) secure: SocketAddr,
    pub(crate) proxied: SocketAddr,
    pub(crate) taken: Taken,
    watch: Arc<Watch>,
    _link: (Duplex<ToManager, ToProxy>, Runtime, TempDir),
}

/// The most memory that was seen.
#[derive(Default)]
struct Watch {
    peak: AtomicU64,
    over: AtomicBool,
}

impl House {
    /// Starts one with the limits of a server.yaml that says nothing, but for what `change` does.
    pub(crate) fn new(program: &Path, change: fn(&mut Front)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("worker.sock");
        let taken = worker::start(&socket);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let link = directory.path().join("link.sock");
        let listener = runtime.block_on(async { UnixListener::bind(&link) });
        let child = Command::new(program)
            .args(["proxy", "--link"])
            .arg(&link)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the proxy");
        let mut table = table(Address::Unix(socket));
        change(&mut table.front);
        let published = publish(listener.expect("a socket for the link"), table);
        let (link, addresses) = runtime.block_on(published);
        let watch = Arc::new(Watch::default());
        let (watching, pid) = (watch.clone(), child.id());
        thread::spawn(move || watching.look(pid));
        Self {
            child,
            plain: addresses[0],
            secure: addresses[1],
            proxied: addresses[2],
            taken,
            watch,
            _link: (link, runtime, directory),
        }
    }

    /// Its share of what is in memory (PSS) now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        memory(self.child.id())
    }

    /// The most of it since it was started.
    pub(crate) fn peak(&self) -> u64 {
        self.watch.peak.load(Ordering::Relaxed).max(self.memory())
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.watch.over.store(true, Ordering::Relaxed);
        // Clients that attack need not be let go in peace.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watch {
    fn look(&self, pid: u32) {
        while !self.over.load(Ordering::Relaxed) {
            self.peak.fetch_max(memory(pid), Ordering::Relaxed);
            thread::sleep(LOOK);
        }
    }
}

fn memory(pid: u32) -> u64 {
    let Ok(file) = fs::File::open(format!("/proc/{pid}/smaps_rollup")) else {
        return 0;
    };
    let mut lines = BufReader::new(file).lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("Pss:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

async fn publish(
    listener: UnixListener,
    table: RouteTable,
) -> (Duplex<ToManager, ToProxy>, Vec<SocketAddr>) {
    let publish = async {
        let (stream, _) = listener.accept().await.expect("the proxy connects");
        let mut link: Duplex<ToManager, ToProxy> = Duplex::<_, _>::new(stream as UnixStream);
        let publish = ToProxy::Publish(table);
        link.send(&publish).await.expect("the proxy hears");
        loop {
            match link.next().await {
                Ok(Some(ToManager::Hello { .. })) => {}
                Ok(Some(ToManager::Applied { front, .. })) if front.problem.is_none() => {
                    let listening = front.listening.iter().filter_map(Listen::address);
                    return (link, listening.collect());
                }
                other => panic!("the table is not in force: {other:?}"),
            }
        }
    };
    let published = tokio::time::timeout(LONG, publish).await;
    published.expect("the proxy serves in time")
}

fn table(address: Address) -> RouteTable {
    let listen = |tls, proxy_protocol| Listen {
        tls,
        proxy_protocol,
        ..Listen::from(SocketAddr::from(([127, 0, 0, 1], 0)))
    };
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
    let made = made.expect("a certificate");
    let pair = Pair {
        name: "localhost".to_owned(),
        certificate: Pem::Text(made.cert.pem()),
        key: Pem::Text(made.signing_key.serialize_pem()),
    };
    RouteTable {
        serial: 1,
        front: Front {
            listen: vec![
                listen(false, false),
                listen(true, false),
                listen(false, true),
            ],
            tls: Some(Tls {
                pairs: vec![pair],
                only_tls13: false,
            }),
            http2_cleartext: true,
            trusted_proxies: vec![TRUSTED.parse().expect("a network")],
            ..Front::default()
        },
        routes: vec![Route {
            path: RoutePath::root(),
            settings: Default::default(),
            worker: WorkerName::parse("worker").expect("a name"),
            public: None,
            state: None,
            target: Target::Serving(Upstream {
                generation: Generation(1),
                address,
                instances: Default::default(),
                protocol: Protocol::Http,
                max_requests: 0,
                starting: None,
            }),
            timeouts: Timeouts {
                read: Duration::from_secs(30),
                write: Duration::from_secs(30),
                idle: Duration::from_secs(120),
            },
            flow: Default::default(),
            halt: Default::default(),
            access_log: false,
            scripts: false,
            compression: true,
            sticky: None,
            work: None,
        }],
        draining: Vec::new(),
        development: None,
    }
}

/// Attackers need many open files, and the proxy inherits it.
pub(crate) fn allow_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as many open files as may be");
    if limit.maximum.is_some_and(|most| most < FILES) {
        eprintln!("attacks: {FILES} open files are needed\nhint: ulimit -Hn {FILES}, as root");
        std::process::exit(77);
    }
}
