//! One of the proxy's threads. It shares the route table and the counters with the others, and nothing else on the path of a request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::access::Journal;
use super::connection;
use super::generation::Ticket;
use super::listener::Listener;
use super::socket::Signals;
use super::table::{Board, Route, Table, Target};

/// Pause after an accept that failed for want of something: trying again at once would only burn what is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest time between two looks for connections that are too old.
const REAP_MAX: Duration = Duration::from_secs(60);

/// Bytes of memory that request ids share. A request that takes long keeps them all.
const IDS_ROOM: usize = 1 << 10;

/// A thread of the proxy.
pub(super) struct Lane {
    shard: usize,
    board: Arc<Board>,
    table: RefCell<Rc<Table>>,
    tasks: RefCell<Tasks>,
    guests: RefCell<HashMap<u64, (Arc<Signals>, Waker)>>,
    /// Connections so far.
    seen: Cell<u64>,
    stop: CancellationToken,
    journal: Journal,
    ids: Ids,
}

/// A client's connection that the lane tells when the proxy is to stop. It is forgotten when this is dropped.
///
/// Each could wait for the end by itself; but it is polled several times a request, and would each time look at what all threads share.
pub(super) struct Guest {
    lane: Rc<Lane>,
    number: u64,
}

/// What is to end before the thread does.
#[derive(Default)]
struct Tasks {
    /// Connections that are HTTP.
    clients: TaskTracker,
    /// Those that were, which end when their two sides please.
    tunnels: TaskTracker,
}

/// What a thread shares with the others.
pub(super) struct Context {
    /// The thread's number.
    pub(super) shard: usize,
    pub(super) board: Arc<Board>,
    pub(super) stop: CancellationToken,
    pub(super) journal: Journal,
    /// Another proxy will accept from the same listeners when this one has ended.
    pub(super) successor: bool,
}

/// Where request ids come from: no lock and no system call, and still not to be guessed.
struct Ids {
    secrets: [RandomState; 2],
    count: Cell<u64>,
    /// Memory for the next ones: by itself each would need a piece of its own, and another when it is cloned.
    room: RefCell<BytesMut>,
}

/// Serves on this thread until it is told to stop, then lets requests end for at most the grace of the table in force, and if it has
/// a successor those that came meanwhile for as long again.
pub(super) async fn run(context: Context) {
    let (stop, successor) = (context.stop.clone(), context.successor);
    let mut changed = context.board.subscribe();
    let lane = Rc::new(Lane::new(context));
    let mut accepting = Accepting::default();
    accepting.follow(&lane);
    loop {
        let reap = lane.reap();
        tokio::select! {
            _ = changed.changed() => accepting.follow(&lane),
            () = tokio::time::sleep_until(reap) => {}
            Some(_) = accepting.tasks.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    lane.part();
    let grace = lane.table().front().grace;
    let old = lane.tasks.take().end();
    if !successor {
        drop(accepting);
        // What is left after the grace is dropped with the thread.
        let _ = tokio::time::timeout(grace, old).await;
        return;
    }
    // The next proxy starts when this one has ended, so everybody else would wait in the queue for a download or a tunnel that takes
    // its time. They are accepted for one answer each.
    let _ = tokio::time::timeout(grace, old).await;
    // From here on connections queue in the listener, which systemd hands to the next proxy.
    drop(accepting);
    // Tunnels that began meanwhile have no end to wait for.
    let Tasks { clients, .. } = lane.tasks.take();
    clients.close();
    let _ = tokio::time::timeout(grace, clients.wait()).await;
}

impl Tasks {
    /// Waits until all have ended.
    async fn end(self) {
        self.clients.close();
        self.clients.wait().await;
        self.tunnels.close();
        self.tunnels.wait().await;
    }
}

impl Lane {
    fn new(context: Context) -> Self {
        let Context {
            shard,
            board,
            stop,
            journal,
            successor: _,
        } = context;
        Self {
            shard,
            table: RefCell::new(Rc::new(Table::compile(&board, shard, None))),
            board,
            tasks: RefCell::default(),
            guests: RefCell::default(),
            seen: Cell::new(0),
            stop,
            journal,
            ids: Ids {
                secrets: [RandomState::new(), RandomState::new()],
                count: Cell::new(0),
                room: RefCell::default(),
            },
        }
    }

    /// The table in force.
    pub(super) fn table(&self) -> Rc<Table> {
        if self.table.borrow().edition != self.board.edition() {
            let previous = self.table.borrow().clone();
            let table = Table::compile(&self.board, self.shard, Some(&previous));
            self.table.replace(Rc::new(table));
        }
        self.table.borrow().clone()
    }

    /// The route for `path`, and a place in its generation's count. When this returns the table it was picked from was in force
    /// *after* it was counted, so "drained" can not have been said in between.
    pub(super) fn pick(
        &self,
        table: &Rc<Table>,
        path: &str,
    ) -> (Option<Rc<Route>>, Option<Ticket>) {
        let mut table = table.clone();
        loop {
            let route = table.find(path).cloned();
            let ticket = match route.as_deref().map(|route| &route.target) {
                Some(Target::Serving(upstream)) => Some(upstream.enter()),
                _ => None,
            };
            if self.board.edition() == table.edition {
                return (route, ticket);
            }
            drop(ticket);
            table = self.table();
        }
    }

    /// Rings after each table.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.board.subscribe()
    }

    /// Whether the proxy is to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends when the proxy is to stop. Not for what is polled for each request, see [`Guest`].
    pub(super) async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// From now on the connection of `signals`, whose task `waker` wakes, is told when the proxy is to stop.
    pub(super) fn welcome(self: &Rc<Self>, signals: &Arc<Signals>, waker: Waker) -> Guest {
        let number = self.seen.get();
        self.seen.set(number + 1);
        let guest = (signals.clone(), waker);
        self.guests.borrow_mut().insert(number, guest);
        Guest {
            lane: self.clone(),
            number,
        }
    }

    /// Tells the clients that the proxy is to stop.
    fn part(&self) {
        for (signals, waker) in self.guests.borrow().values() {
            signals.part();
            waker.wake_by_ref();
        }
    }

    /// Where the access log is written.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Serves a connection, which the lane waits for when it stops.
    fn serve(&self, connection: impl Future<Output = ()> + 'static) {
        self.tasks.borrow().clients.spawn_local(connection);
    }

    /// Runs a connection that is HTTP no more. The lane waits for it too.
    pub(super) fn tunnel(&self, tunnel: impl Future<Output = ()> + 'static) {
        self.tasks.borrow().tunnels.spawn_local(tunnel);
    }

    /// A new name for a request: a UUID of version 7, so that they sort by time.
    pub(super) fn request_id(&self) -> HeaderValue {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let id = self.ids.next().hyphenated().encode_lower(&mut text);
        let mut room = self.ids.room.borrow_mut();
        if room.capacity() < id.len() {
            room.reserve(IDS_ROOM);
        }
        room.extend_from_slice(id.as_bytes());
        HeaderValue::from_maybe_shared(room.split().freeze())
            .unwrap_or_else(|_| HeaderValue::from_static("-"))
    }

    /// Closes connections to workers that have been unused for too long; says when to look again.
    fn reap(&self) -> Instant {
        let now = Instant::now();
        let table = self.table.borrow().clone();
        for upstream in table.upstreams() {
            upstream.generation.sum_up();
        }
        let next = table.upstreams().filter_map(|upstream| upstream.reap(now));
        next.min().unwrap_or(now + REAP_MAX).min(now + REAP_MAX)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.lane.guests.borrow_mut().remove(&self.number);
    }
}

impl Ids {
    fn next(&self) -> uuid::Uuid {
        let count = self.count.get();
        self.count.set(count.wrapping_add(1));
        let [high, low] = self.secrets.each_ref().map(|s| s.hash_one(count));
        let mut random = [0; 10];
        random[..8].copy_from_slice(&high.to_ne_bytes());
        random[8..].copy_from_slice(&low.to_ne_bytes()[..2]);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = now.map_or(0, |now| now.as_millis());
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(millis).unwrap_or(0), &random)
            .into_uuid()
    }
}

/// The listeners this thread accepts from.
#[derive(Default)]
struct Accepting {
    tasks: JoinSet<()>,
    /// By the listener's number; cancelled to stop accepting there.
    stops: HashMap<u64, CancellationToken>,
}

impl Accepting {
    /// Accepts where the table in force says.
    fn follow(&mut self, lane: &Rc<Lane>) {
        let published = lane.table().published.clone();
        self.stops.retain(|id, stop| {
            let stays = published.listeners.iter().any(|l| l.id == *id);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for listener in &published.listeners {
            if self.stops.contains_key(&listener.id) {
                continue;
            }
            match duplicate(listener) {
                Ok(socket) => {
                    let stop = CancellationToken::new();
                    self.stops.insert(listener.id, stop.clone());
                    self.tasks.spawn_local(accept(lane.clone(), socket, stop));
                }
                Err(error) => error!(
                    "can not accept connections at {} on thread {}: {error}",
                    listener.local, lane.shard
                ),
            }
        }
    }
}

fn duplicate(listener: &Listener) -> io::Result<TcpListener> {
    TcpListener::from_std(listener.socket.try_clone()?)
}

/// Accepts until `stop`, and then what has already connected: it was promised an answer.
async fn accept(lane: Rc<Lane>, socket: TcpListener, stop: CancellationToken) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                lane.serve(connection::serve(lane.clone(), stream, peer));
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!("can not accept connections for now ({error}), trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether a failed accept concerns one client only, who is gone.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::super::access;
    use super::super::table::tests::{board, serve};
    use super::*;

    fn lane(board: Arc<Board>) -> Lane {
        Lane::new(Context {
            shard: 0,
            board,
            stop: CancellationToken::new(),
            journal: access::start().unwrap().0,
            successor: false,
        })
    }

    #[test]
    fn a_table_that_changes_while_a_request_is_counted_is_not_followed() {
        let board = Arc::new(board(&["/"]));
        let old = serve(&board, 1);
        let lane = lane(board.clone());
        let table = lane.table();
        let new = serve(&board, 2);
        // The manager may hear "drained" of the old one from here on.
        let (_, ticket) = lane.pick(&table, "/");
        assert_eq!((old.in_flight(), new.in_flight()), (0, 1));
        drop(ticket);
        assert_eq!(new.in_flight(), 0);
    }

    #[test]
    fn request_ids_are_new_each_time() {
        let lane = lane(Arc::new(board(&[])));
        let ids: Vec<_> = (0..1000).map(|_| lane.request_id()).collect();
        let different: std::collections::HashSet<_> =
            ids.iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(different.len(), ids.len());
        let id = uuid::Uuid::parse_str(ids[0].to_str().unwrap()).unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
}
