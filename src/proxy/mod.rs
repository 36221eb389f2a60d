//! The data plane: accepts clients, sends each request to the generation its route names, and knows nothing but the route table.
//!
//! Each thread is a runtime of its own and owns its clients and its connections to workers; threads share the table and the counters
//! (why: docs/ARCHITECTURE.md, which also draws the way of a request). hyper and its family are used nowhere else.
//!
//! A wing imports from those above it only, and says in its own `mod.rs` what its files are for:
//!
//! | wing | what it is for |
//! |---|---|
//! | `wire/` | what bytes and fields mean, and how long one waits for them |
//! | `downstream/` | the side of the clients: listeners, sockets, bodies |
//! | `upstream/` | the side of the workers: generations, connections to them, the protocols spoken there |
//! | `table/` | from a request's host and path to its route |
//! | `response/` | what is sent to a client |
//! | `shard` | what belongs to one thread |
//! | `request/` | one request: down to a worker, and up with the response |
//! | `serve/` | accepting clients, and the connection of one |
//! | `control/` | the link to the manager, and what it asks for |
//! | `options` | what the proxy needs to run |
//! | `fuzzed/` | what must hold of any bytes from outside; not in the server |

mod control;
mod downstream;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzed;
mod options;
mod request;
mod response;
mod serve;
mod shard;
mod table;
mod upstream;
mod wire;

pub use self::options::{Heart, Link, Options, Serving, Store};

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::control::link::ControlLink;
use self::control::pulse::Pulse;
use self::downstream::connection_limit::ConnectionLimit;
use self::downstream::listeners::Listeners;
use self::table::board::{Board, Published};

/// Longest wait for the journal to take the last lines of the access log.
const JOURNAL_WAIT: Duration = Duration::from_secs(1);

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
    let (journal, written) =
        response::access::start().map_err(|error| ProxyError::Start(threads, error))?;
    let descriptors = getrlimit(Resource::Nofile).current;
    let descriptors = descriptors.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    });
    let connection_limit = Arc::new(ConnectionLimit::new(descriptors));
    let mut shards = Vec::new();
    for shard in 0..threads {
        let context = shard::Context {
            shard,
            board: board.clone(),
            stop: stop.clone(),
            journal: journal.clone(),
            connection_limit: connection_limit.clone(),
            successor: options.store.is_some(),
        };
        let responder = pulse.thread(thread_name(shard));
        let thread = start(context, responder).map_err(|error| ProxyError::Start(shard, error))?;
        shards.push(async move { thread.await.map_err(|_| ProxyError::Panicked(shard)) });
    }
    drop(journal);
    let listeners = Listeners::new(options.inherited, options.tickets.as_deref());
    // This thread too: what it serves is the manager.
    let own = tokio::spawn(control::pulse::respond(pulse.thread("main".to_owned())));
    let watch = options.heart.map(|heart| pulse.watch(heart)).transpose();
    let _watch = watch.map_err(|error| ProxyError::Start(threads, error))?;
    let link = ControlLink::new(board, threads, listeners, options.store, options.serving);
    let ended = tokio::select! {
        () = link.run(options.link, options.remembered) => Ok(()),
        ended = futures_util::future::try_join_all(shards) => ended.map(|_| ()),
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
fn start(
    context: shard::Context,
    responder: control::pulse::Responder,
) -> io::Result<oneshot::Receiver<()>> {
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
            runtime.spawn_local(control::pulse::respond(responder));
            // A task of its own, for the future that is blocked on is polled whenever any of the tasks has something to do.
            let shard = runtime.spawn_local(serve::accept::run(context));
            if runtime.block_on(shard).is_err() {
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
