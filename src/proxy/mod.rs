//! The data plane: accepts clients, sends each request to the generation its route names, and knows nothing but the route table.
//!
//! Each thread is a runtime of its own and owns its clients and its connections to workers; threads share the table and the counters
//! (why: docs/ARCHITECTURE.md). hyper and its family are used nowhere else.
//!
//! | file | what it is for |
//! |---|---|
//! | `link` | the manager's wishes, and the answers |
//! | `listener` | the sockets clients connect to |
//! | `lane` | one thread: accepts, follows the table |
//! | `table`, `path` | from a request's path to its route |
//! | `generation` | the counters that all threads share |
//! | `connection`, `socket` | one client: its requests, its deadlines |
//! | `forward`, `upload`, `body`, `tunnel`, `headers` | one request to a worker, and the answer |
//! | `pool` | a thread's connections to a generation |
//! | `files`, `conditions` | `public/` |
//! | `pages`, `report` | what the proxy says in its own name |
//! | `probe` | a health request for the manager |
//! | `patience` | a clock that is cheap to start and stop |

mod body;
mod conditions;
mod connection;
mod files;
mod forward;
mod generation;
mod headers;
mod lane;
mod link;
mod listener;
mod pages;
mod path;
mod patience;
mod pool;
mod probe;
mod report;
mod socket;
mod table;
mod tunnel;
mod upload;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use self::link::Steward;
use self::listener::Listeners;
use self::table::{Board, Published};

/// What is called with each socket the proxy binds itself.
pub type Keep = Box<dyn Fn(&TcpListener) + Send + Sync>;

/// What the proxy needs to run. All else comes over the link.
pub struct Options {
    /// The way to the manager.
    pub link: Link,
    /// Sockets that an earlier proxy has left with systemd. They are used where the table wants to listen at their address; the others
    /// are closed with the first table.
    pub inherited: Vec<TcpListener>,
    /// Called for each socket that is newly bound, so that it can be left with systemd.
    pub keep: Option<Keep>,
    /// Told of each table in force; `None` before the first.
    pub serving: Option<watch::Sender<Option<Serving>>>,
    /// Threads that serve, at least one.
    pub threads: usize,
    /// How long requests in flight may take to end after shutdown.
    pub grace: Duration,
}

/// The way to the manager.
#[derive(Debug)]
pub enum Link {
    /// A connection that stands: one end of a socket pair.
    Stream(UnixStream),
    /// The manager's socket: connected to, and again whenever it breaks.
    Path(PathBuf),
}

/// How the proxy meets its clients by the table in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Where it listens, with the ports the kernel chose.
    pub listening: Vec<SocketAddr>,
    /// What of the table's front could not be had.
    pub problem: Option<String>,
}

/// Why the proxy can not go on.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The system refuses a thread, or what a thread needs.
    #[error("can not start the proxy's thread {0}")]
    Start(usize, #[source] io::Error),
    /// A defect.
    #[error("the proxy's thread {0} has panicked")]
    Panicked(usize),
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("link", &self.link)
            .field("inherited", &self.inherited)
            .field("threads", &self.threads)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

/// Serves until `shutdown`, then accepts no more and lets requests in flight end for at most [`Options::grace`].
///
/// # Errors
/// When a thread can not be started or panics. Nothing a client, a worker or the manager does is an error here.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), ProxyError> {
    let threads = options.threads.max(1);
    let board = Arc::new(Board::new(Published::nothing()));
    // However this ends, the threads do too.
    let stop = shutdown.child_token();
    let _stop = stop.clone().drop_guard();
    let mut lanes = Vec::new();
    for shard in 0..threads {
        let (board, stop) = (board.clone(), stop.clone());
        let lane = start(shard, board, stop, options.grace)
            .map_err(|error| ProxyError::Start(shard, error))?;
        lanes.push(async move { lane.await.map_err(|_| ProxyError::Panicked(shard)) });
    }
    let listeners = Listeners::new(options.inherited, options.keep);
    let steward = Steward::new(board, threads, listeners, options.serving);
    tokio::select! {
        () = steward.run(options.link) => Ok(()),
        ended = futures_util::future::try_join_all(lanes) => ended.map(|_| ()),
    }
}

/// Starts a thread that serves; the receiver gets its end, or an error if it panics.
fn start(
    shard: usize,
    board: Arc<Board>,
    stop: CancellationToken,
    grace: Duration,
) -> io::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name(format!("proxy-{shard}"))
        .spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, lane::run(board, shard, stop, grace));
            // What outlived its grace ends here.
            drop(local);
            drop(runtime);
            let _ = ended.send(());
        })?;
    Ok(end)
}
