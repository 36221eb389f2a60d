//! The attacks by name, and how they are carried out.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::gettid;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tqserver::route::Front;

use super::house::House;
use super::normal::Figures;
use super::{connections, requests};

/// Where they come from: not where the normal client does.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Connections that are being made at a time, so that none is lost to a full queue of the kernel.
const CONNECTING: usize = 100;
/// Pause after a connection that could not be made.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest wait until an attack is under way.
const LONG: Duration = Duration::from_secs(120);
/// Then what it asks for at once is on its way: what a worker does in its first moments is not the attack.
const SETTLE: Duration = Duration::from_secs(3);
/// Attackers get what the others leave of the processors: they would be elsewhere.
const NICE: i32 = 19;

/// One of them.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// What it changes of the proxy's settings.
    pub(crate) front: fn(&mut Front),
    run: fn(Arc<Field>) -> Running,
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where an attack takes place.
pub(crate) struct Field {
    pub(crate) plain: SocketAddr,
    pub(crate) secure: SocketAddr,
    pub(crate) proxied: SocketAddr,
    /// How many are to be there before it counts as under way, and how many are.
    wanted: AtomicUsize,
    standing: AtomicUsize,
    connecting: Semaphore,
    /// Connections that have ended.
    ended: AtomicUsize,
    /// Requests, or whatever it is made of, that were sent.
    pub(crate) sent: AtomicUsize,
}

macro_rules! attack {
    ($name:literal, $run:path) => {
        attack!($name, $run, |_| {})
    };
    ($name:literal, $run:path, $front:expr) => {
        Attack {
            name: $name,
            front: $front,
            run: |field| Box::pin($run(field)),
        }
    };
}

pub(crate) const ALL: &[Attack] = &[
    attack!("slowloris, 2,000 connections", connections::slowloris),
    attack!("idle keep-alive, 10,000 connections", connections::idle),
    attack!("heads of 60 KB without an end, 10,000", connections::heads),
    attack!("TLS, 2,000 handshakes half open", connections::half_open),
    attack!("TLS, handshakes without end", connections::handshakes),
    attack!("PROXY protocol, garbage", connections::garbage),
    attack!(
        "connections beyond max_connections",
        connections::flood,
        |f| {
            f.max_connections = 1000;
        }
    ),
    attack!(
        "connections beyond those of an address",
        connections::flood,
        |f| {
            f.max_connections_per_address = 100;
        }
    ),
    attack!("slow bodies, 1,000 connections", requests::bodies),
    attack!("slow readers of 1 MB, 1,000", requests::readers),
    attack!(
        "HTTP/2 zero windows, 4,000 answers of 1 MB",
        requests::windows
    ),
    attack!("HTTP/2 rapid reset", requests::resets),
    attack!("HTTP/2 CONTINUATION flood", requests::continuations),
    attack!("HTTP/2 SETTINGS flood", requests::settings),
    attack!("HTTP/2 PING flood", requests::pings),
    attack!("HTTP/2 HPACK bombs", requests::hpack_bombs),
    attack!("header bombs, one field of 60 KB", requests::large_fields),
    attack!("header bombs, 5,000 fields", requests::many_fields),
    attack!("compression bombs, 10 MB in 10 KB", requests::zip_bombs),
];

/// Runs `measured` while the attack is under way.
pub(crate) fn under(attack: &Attack, house: &House, measured: impl FnOnce() -> Figures) -> Figures {
    let field = Arc::new(Field {
        plain: house.plain,
        secure: house.secure,
        proxied: house.proxied,
        wanted: AtomicUsize::new(1),
        standing: AtomicUsize::new(0),
        connecting: Semaphore::new(CONNECTING),
        ended: AtomicUsize::new(0),
        sent: AtomicUsize::new(0),
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let (run, attacking) = (attack.run, field.clone());
    let attacker = thread::spawn(move || {
        // Of this thread, which is a process to the kernel.
        let nice = setpriority_process(Some(gettid()), NICE);
        nice.and_then(|()| getpriority_process(Some(gettid())))
            .expect("a lower priority");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            tokio::select! {
                () = run(attacking) => {}
                _ = stopped => {}
            }
        });
    });
    let began = std::time::Instant::now();
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    while count(&field.standing) < count(&field.wanted) {
        assert!(
            began.elapsed() < LONG,
            "{}: {} of {} stand",
            attack.name,
            count(&field.standing),
            count(&field.wanted)
        );
        thread::sleep(PAUSE);
    }
    thread::sleep(SETTLE);
    let taken = house.taken.load(Ordering::Relaxed);
    let figures = measured();
    eprintln!(
        "{}: under way after {:.1} s, then {} connections have ended, {} pieces were sent, the worker got {} bytes of bodies",
        attack.name,
        began.elapsed().as_secs_f64(),
        count(&field.ended),
        count(&field.sent),
        house.taken.load(Ordering::Relaxed) - taken,
    );
    drop(stop);
    attacker.join().expect("the attacker");
    figures
}

impl Field {
    /// One that is to be there now is.
    pub(crate) fn stands(&self) {
        self.standing.fetch_add(1, Ordering::Relaxed);
    }

    /// Something was sent.
    pub(crate) fn sends(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let _turn = self.connecting.acquire().await.map_err(io::Error::other)?;
        let socket = TcpSocket::new_v4()?;
        // What is closed leaves nothing behind: there are only so many ports.
        rustix::net::sockopt::set_socket_linger(socket.as_fd(), Some(Duration::ZERO))?;
        socket.bind((ATTACKER, 0).into())?;
        socket.connect(address).await
    }
}

/// Keeps `count` connections to `address` that each do what `one` says, and makes a new one for each that ends.
pub(crate) async fn swarm<F>(
    field: Arc<Field>,
    count: usize,
    address: SocketAddr,
    one: impl Fn(Arc<Field>, TcpStream) -> F + Copy + Send + 'static,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    // A few may be late: the kernel has its own limits for all buffers together.
    field.wanted.store(count - count / 50, Ordering::Relaxed);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..count {
        let field = field.clone();
        all.spawn(async move {
            loop {
                if let Ok(stream) = field.connect(address).await {
                    let _ = one(field.clone(), stream).await;
                    field.ended.fetch_add(1, Ordering::Relaxed);
                } else {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
    }
    while all.join_next().await.is_some() {}
}
