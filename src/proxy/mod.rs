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
//! | `memory` | the last table, for the next proxy |
//! | `pulse` | whether every thread still does its work |
//! | `table`, `hosts`, `path` | from a request's host and path to its route |
//! | `generation` | the counters that all threads share |
//! | `crowd` | how many clients there are, and how many too many |
//! | `connection`, `socket`, `stream` | one client: its requests, its deadlines, its bytes |
//! | `strict` | messages whose end is ambiguous |
//! | `flow` | what stands between a request and its worker: limits, a queue, a pause |
//! | `starting` | requests that wait for a route's first generation |
//! | `http2`, `http2/`, `inbound`, `piece` | a client with many requests at a time |
//! | `preamble` | what a connection begins with: a header of the PROXY protocol, HTTP/2's preface |
//! | `forward`, `upload`, `body`, `tunnel`, `headers` | one request to a worker, and the answer |
//! | `interim` | what a worker says before its answer |
//! | `pool`, `line`, `dial` | a thread's connections to an instance of a generation, their bytes, and how they are made |
//! | `http1/` | what is said on them to a worker that speaks HTTP/1.1 |
//! | `several` | the choice between several instances |
//! | `fastcgi/` | the way to a generation that speaks FastCGI |
//! | `files`, `precompressed`, `conditions` | `public/` |
//! | `compression/` | answers made smaller on their way to the client |
//! | `development` | what developers are shown besides |
//! | `pages`, `report` | what the proxy says in its own name |
//! | `answers` | and on a worker's route as the worker's settings say |
//! | `access` | the access log |
//! | `probe` | a health request for the manager |
//! | `patience`, `pace` | a clock that is cheap to start and stop, and how slow a client may be |
//! | `fuzzed` | what must hold of any bytes from outside; not in the server |

mod access;
mod answers;
mod body;
mod compression;
mod conditions;
mod connection;
mod crowd;
mod development;
mod dial;
mod fastcgi;
mod files;
mod flow;
mod forward;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzed;
mod generation;
mod headers;
mod holder;
mod hosts;
mod http1;
mod http2;
mod inbound;
mod interim;
mod lane;
mod line;
mod link;
mod listener;
mod memory;
mod pace;
mod pages;
mod path;
mod patience;
mod piece;
mod pool;
mod preamble;
mod precompressed;
mod probe;
mod public;
mod pulse;
mod report;
mod several;
mod socket;
mod starting;
mod stream;
mod strict;
mod table;
mod tunnel;
mod upload;

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::runtime::LocalOptions;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::crowd::Crowd;
use self::link::Steward;
use self::listener::Listeners;
use self::pulse::Pulse;
use self::table::{Board, Published};
use crate::route::Place;
use crate::wire::FrontState;

/// Longest wait for the journal to take the last lines of the access log.
const JOURNAL_WAIT: Duration = Duration::from_secs(1);

/// Where a proxy leaves what the next one is to find.
pub trait Store: Send {
    /// Keeps a socket that was newly bound at `place`.
    fn keep_listener(&self, place: &Place, listener: BorrowedFd<'_>);
    /// Keeps the socket of this place no longer.
    fn drop_listener(&self, place: &Place);
    /// Keeps the route table in force, in place of the one before.
    fn keep_table(&self, table: &[u8]);
    /// Keeps the keys of TLS sessions, in place of those before.
    fn keep_tickets(&self, keys: &[u8]);
}

/// Who is told that the proxy is alive.
pub struct Heart {
    /// How often.
    pub every: Duration,
    /// Called so often while all threads of the proxy do their work.
    pub beat: Box<dyn Fn() + Send>,
    /// Called when one of them hangs, with a sentence that says which, and how. No more beats come then.
    pub hung: Box<dyn Fn(&str) + Send>,
}

/// What the proxy needs to run. All else comes over the link.
pub struct Options {
    /// The way to the manager.
    pub link: Link,
    /// Sockets that an earlier proxy has left with systemd. They are used where the table wants to listen at their address; the others
    /// are closed with the first table.
    pub inherited: Vec<OwnedFd>,
    /// The route table that an earlier proxy has left. It is served by while no manager can be reached.
    pub remembered: Option<Vec<u8>>,
    /// Keys of TLS sessions that an earlier proxy has left.
    pub tickets: Option<Vec<u8>>,
    /// Where to leave all of that for the next proxy.
    pub store: Option<Box<dyn Store>>,
    /// Told of each table in force; `None` before the first.
    pub serving: Option<watch::Sender<Option<Serving>>>,
    /// Threads that serve, at least one.
    pub threads: usize,
    /// Who is told that the proxy is alive.
    pub heart: Option<Heart>,
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
    /// Where, and where not.
    pub front: FrontState,
    /// How long requests in flight may take to end at shutdown.
    pub grace: Duration,
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
            .finish_non_exhaustive()
    }
}

/// Serves until `shutdown`, then lets requests end for at most [`crate::route::Front::grace`]. Without a [`Store`] no more are accepted;
/// with one, those that come while others take long are still answered here, and may take as long again.
///
/// # Errors
/// When a thread can not be started or panics. Nothing a client, a worker or the manager does is an error here.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), ProxyError> {
    let threads = options.threads.max(1);
    let board = Arc::new(Board::new(Published::nothing()));
    // However this ends, the threads do too.
    let stop = shutdown.child_token();
    let _stop = stop.clone().drop_guard();
    let mut pulse = Pulse::default();
    let (journal, written) = access::start().map_err(|error| ProxyError::Start(threads, error))?;
    let descriptors = getrlimit(Resource::Nofile).current;
    let descriptors = descriptors.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    });
    let crowd = Arc::new(Crowd::new(descriptors));
    let mut lanes = Vec::new();
    for shard in 0..threads {
        let context = lane::Context {
            shard,
            board: board.clone(),
            stop: stop.clone(),
            journal: journal.clone(),
            crowd: crowd.clone(),
            successor: options.store.is_some(),
        };
        let ear = pulse.thread(thread_name(shard));
        let lane = start(context, ear).map_err(|error| ProxyError::Start(shard, error))?;
        lanes.push(async move { lane.await.map_err(|_| ProxyError::Panicked(shard)) });
    }
    drop(journal);
    let listeners = Listeners::new(options.inherited, options.tickets.as_deref());
    // This thread too: what it serves is the manager.
    let own = tokio::spawn(pulse::answer(pulse.thread("main".to_owned())));
    let watch = options.heart.map(|heart| pulse.watch(heart)).transpose();
    let _watch = watch.map_err(|error| ProxyError::Start(threads, error))?;
    let steward = Steward::new(board, threads, listeners, options.store, options.serving);
    let ended = tokio::select! {
        () = steward.run(options.link, options.remembered) => Ok(()),
        ended = futures_util::future::try_join_all(lanes) => ended.map(|_| ()),
    };
    own.abort();
    // The last lines of the access log. A journal that does not take them does not hold us up.
    let _ = tokio::time::timeout(JOURNAL_WAIT, written).await;
    ended
}

fn thread_name(shard: usize) -> String {
    format!("proxy-{shard}")
}

/// Starts a thread that serves; the receiver gets its end, or an error if it panics.
fn start(context: lane::Context, ear: pulse::Ear) -> io::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    let (begun, begin) = mpsc::channel();
    thread::Builder::new()
        .name(thread_name(context.shard))
        .spawn(move || {
            // Its tasks are this thread's by themselves. A LocalSet would be a second list of tasks within the runtime's own.
            let built = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            let runtime = match built {
                Ok(runtime) => runtime,
                Err(error) => return drop(begun.send(Err(error))),
            };
            let _ = begun.send(Ok(()));
            runtime.spawn_local(pulse::answer(ear));
            // A task of its own, for the future that is blocked on is polled whenever any of the tasks has something to do.
            let lane = runtime.spawn_local(lane::run(context));
            if runtime.block_on(lane).is_err() {
                // It has panicked, and was heard.
                return;
            }
            // What outlived its grace ends here.
            drop(runtime);
            let _ = ended.send(());
        })?;
    match begin.recv() {
        Ok(begun) => begun.map(|()| end),
        Err(_) => Ok(end),
    }
}
