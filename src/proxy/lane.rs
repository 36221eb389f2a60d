//! One of the proxy's threads. It shares the route table and the counters with the others, and nothing else on the path of a request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use http::HeaderValue;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::access::Journal;
use super::connection::{self, Arrival};
use super::crowd::{Crowd, Full};
use super::flow::Rules;
use super::generation::Ticket;
use super::listener::{BACKLOG, Listener};
use super::preamble;
use super::socket::{Rank, Signals};
use super::stream::{Door, Raw};
use super::table::{Board, Route, Table};
use crate::route::Front;

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
    stop: CancellationToken,
    journal: Journal,
    ids: Ids,
    crowd: Arc<Crowd>,
    clients: RefCell<Clients>,
    /// Clients that were sent away to make room, and whose places nobody has got yet.
    sent_away: Cell<usize>,
    /// Requests in flight over HTTP/2.
    streams: Cell<usize>,
}

/// The clients of this thread, to find those that can be sent away when there are too many.
#[derive(Default)]
struct Clients {
    count: u64,
    by_number: HashMap<u64, Known>,
}

/// A client of this thread.
struct Known {
    signals: Arc<Signals>,
    task: AbortHandle,
    /// Wakes its connection, once that is served.
    waker: Option<Waker>,
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
    pub(super) crowd: Arc<Crowd>,
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
            crowd,
            successor: _,
        } = context;
        Self {
            shard,
            table: RefCell::new(Rc::new(Table::compile(&board, shard, None))),
            board,
            tasks: RefCell::default(),
            stop,
            journal,
            crowd,
            clients: RefCell::default(),
            sent_away: Cell::new(0),
            streams: Cell::new(0),
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

    /// The route for `path` on `host`, and a place in its generation's count. When this returns the table it was picked from was in force
    /// *after* it was counted, so "drained" can not have been said in between.
    pub(super) fn pick(
        &self,
        table: &Rc<Table>,
        host: &HeaderValue,
        path: &str,
    ) -> (Option<Rc<Route>>, Option<Ticket>) {
        // Who may have to wait is counted when the wait is over.
        let has_gate = |route: &Route| route.rules.as_ref().is_some_and(Rules::have_gate);
        self.pick_if(table, host, path, |route| !has_gate(route))
    }

    /// The same; there is a place in the count only if the request `enters` the route.
    pub(super) fn pick_if(
        &self,
        table: &Rc<Table>,
        host: &HeaderValue,
        path: &str,
        enters: impl Fn(&Route) -> bool,
    ) -> (Option<Rc<Route>>, Option<Ticket>) {
        let mut table = table.clone();
        loop {
            let route = table.find(host, path).cloned();
            let entered = route.as_deref().filter(|route| enters(route));
            let ticket = entered.and_then(|route| route.target.enter());
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

    /// Ends when the proxy is to stop. Not for what is polled for each request, see [`Self::welcome`].
    pub(super) async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Says that clients are turned away.
    pub(super) fn complain(&self, full: Full, front: &Front) {
        self.crowd.complain(full, front);
    }

    /// From now on the client's connection is woken when the proxy is to stop, and told. Each could wait for that by itself; but it is
    /// polled several times a request, and would each time look at what all threads share.
    pub(super) fn welcome(&self, number: u64, waker: Waker) {
        if let Some(known) = self.clients.borrow_mut().by_number.get_mut(&number) {
            known.waker = Some(waker);
        }
    }

    /// Tells the clients that the proxy is to stop.
    fn part(&self) {
        for known in self.clients.borrow().by_number.values() {
            if let Some(waker) = &known.waker {
                known.signals.part();
                waker.wake_by_ref();
            }
        }
    }

    /// Where the access log is written.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// How the table in force wants clients to be met that come by `listener`.
    fn met(&self, listener: &Arc<Listener>) -> Arc<Listener> {
        let table = self.table();
        let mut all = table.published.listeners.iter();
        let same = all.find(|other| other.id == listener.id);
        same.unwrap_or(listener).clone()
    }

    /// Serves a client, whom the lane waits for when it stops.
    fn admit(self: &Rc<Self>, listener: &Arc<Listener>, stream: Raw, peer: Option<SocketAddr>) {
        let table = self.table();
        let front = table.front();
        let is_full = self.crowd.is_full(front);
        let mut seat = self.crowd.seat();
        let address = preamble::client_of(peer);
        if let Some(address) = address.filter(|address| !front.trusts(*address))
            && let Err(full) = seat.is(address, front)
        {
            return self.crowd.complain(full, front);
        }
        if !self.has_room(is_full) {
            return self.crowd.complain(Full::All, front);
        }
        let signals = Arc::new(Signals::new());
        let number = {
            let mut clients = self.clients.borrow_mut();
            clients.count += 1;
            clients.count
        };
        let arrival = Arrival {
            stream,
            listener: listener.clone(),
            peer,
            signals: signals.clone(),
            seat,
            number,
        };
        let lane = self.clone();
        let task = self.tasks.borrow().clients.spawn_local(async move {
            let _leaving = Leaving(&lane, number);
            connection::serve(lane.clone(), arrival).await;
        });
        let known = Known {
            signals,
            task: task.abort_handle(),
            waker: None,
        };
        self.clients.borrow_mut().by_number.insert(number, known);
    }

    /// Whether a client can be taken in. One is turned away only if nobody is found who needs no place.
    fn has_room(&self, is_full: bool) -> bool {
        // Those who were sent away are gone in a moment, and counted until then. Each place is given away once.
        match self.sent_away.get().checked_sub(1) {
            Some(left) => self.sent_away.set(left),
            None if is_full => match self.send_idle_away().checked_sub(1) {
                Some(left) => self.sent_away.set(left),
                None => return false,
            },
            None => {}
        }
        true
    }

    /// Closes connections of this thread that have nothing in flight, some more than are needed now, so that not each new client needs
    /// a look at all; says how many.
    fn send_idle_away(&self) -> usize {
        let mut clients = self.clients.borrow_mut();
        let now = Instant::now();
        let idle = clients.by_number.iter();
        let mut idle: Vec<_> = idle
            .filter_map(|(number, known)| Some((known.signals.rank(now)?, *number)))
            .collect();
        let count = (idle.len() / 16).max(1).min(idle.len());
        if count == 0 {
            return 0;
        }
        idle.select_nth_unstable(count - 1);
        for (rank, number) in &idle[..count] {
            let Some(known) = clients.by_number.get(number) else {
                continue;
            };
            match (&known.waker, rank) {
                // Its next request may have come already, and not have been read yet.
                (Some(waker), Rank::Idle(_)) => {
                    known.signals.leave();
                    waker.wake_by_ref();
                }
                _ => {
                    known.task.abort();
                    clients.by_number.remove(number);
                }
            }
        }
        count
    }

    /// A place for a request over HTTP/2. Connections are counted, and each can have many requests; so all of them together are no more
    /// than there may be connections.
    pub(super) fn stream(self: &Rc<Self>) -> Option<Streaming> {
        let count = self.streams.get();
        if count >= self.table.borrow().front().max_connections {
            return None;
        }
        self.streams.set(count + 1);
        Some(Streaming(self.clone()))
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

/// A request in flight over HTTP/2.
pub(super) struct Streaming(Rc<Lane>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

/// Notes that a client has left.
struct Leaving<'a>(&'a Lane, u64);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.clients.borrow_mut().by_number.remove(&self.1);
    }
}

/// How long a handshake may take that has begun when its socket is given up; nobody else could end it.
const HANDSHAKE: Duration = Duration::from_secs(1);

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
        let leaving = published.leaving.iter().map(|listener| (listener, true));
        let stays = published.listeners.iter().map(|listener| (listener, false));
        for (listener, is_leaving) in leaving.chain(stays) {
            if self.stops.contains_key(&listener.id) {
                continue;
            }
            match Door::open(listener) {
                Ok(door) => {
                    let stop = CancellationToken::new();
                    match is_leaving {
                        true => stop.cancel(),
                        false => drop(self.stops.insert(listener.id, stop.clone())),
                    }
                    let accepting = accept(lane.clone(), listener.clone(), door, stop);
                    self.tasks.spawn_local(accepting);
                }
                Err(error) => error!(
                    "can not accept connections at {} on thread {}: {error}",
                    listener.listen, lane.shard
                ),
            }
        }
    }
}

/// Accepts until `stop`, and a little longer: who has connected by then, or has begun to, was promised an answer.
async fn accept(lane: Rc<Lane>, listener: Arc<Listener>, door: Door, stop: CancellationToken) {
    let last_call = async {
        stop.cancelled().await;
        tokio::time::sleep(HANDSHAKE).await;
    };
    let mut last_call = std::pin::pin!(last_call);
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            // Clients may come faster than they are let in: that must not keep the door open.
            biased;
            () = &mut last_call => break,
            accepted = door.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                lane.admit(&lane.met(&listener), stream, peer);
            }
            Err(error) if is_the_clients(&error) => {}
            // Given up, and the other threads have closed it already.
            Err(_) if stop.is_cancelled() => return,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!("can not accept connections for now ({error}), trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The event loop may not have heard yet of those who have connected, and there are no more of them than this.
    let queued = std::iter::from_fn(|| door.queued()).take(BACKLOG.into());
    for (stream, peer) in queued {
        lane.admit(&lane.met(&listener), stream, peer);
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::access;
    use super::super::listener::Listeners;
    use super::super::table::tests::{board, serve};
    use super::*;
    use crate::route::{Listen, Place};

    fn lane(board: Arc<Board>) -> Lane {
        Lane::new(Context {
            shard: 0,
            board,
            stop: CancellationToken::new(),
            journal: access::start().unwrap().0,
            crowd: Arc::new(Crowd::new(usize::MAX)),
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
        let (_, ticket) = lane.pick(&table, &HeaderValue::from_static("h"), "/");
        assert_eq!((old.in_flight(), new.in_flight()), (0, 1));
        drop(ticket);
        assert_eq!(new.in_flight(), 0);
    }

    /// Its bytes are here; that the thread has not looked yet is not the client's doing.
    #[tokio::test]
    async fn a_request_that_has_just_come_is_answered_before_its_client_makes_room() {
        const ASKED: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
        let everything = async {
            let lane = Rc::new(lane(Arc::new(board(&[]))));
            let front = Front {
                listen: vec![Listen::from(SocketAddr::from(([127, 0, 0, 1], 0)))],
                ..Front::default()
            };
            let mut listeners = Listeners::new(Vec::new(), None);
            listeners.follow(&front, None);
            let listener = &listeners.current()[0];
            let Place::Tcp(address) = &listener.listen.place else {
                panic!("another place");
            };
            let (mut client, mut idler) = tokio::join!(connect(*address), connect(*address));
            let door = Door::open(listener).unwrap();
            while let Some((stream, peer)) = door.queued() {
                lane.admit(listener, stream, peer);
            }
            for client in [&mut client, &mut idler] {
                client.write_all(ASKED).await.unwrap();
                assert!(answer(client).await.starts_with("http/1.1 "));
            }
            assert_eq!(client.try_write(ASKED).unwrap(), ASKED.len());
            let sent_away = [lane.send_idle_away(), lane.send_idle_away()];
            assert_eq!(sent_away, [1, 1]);
            assert_eq!(lane.send_idle_away(), 0, "each place is given away once");
            let last = answer(&mut client).await;
            assert!(last.contains("connection: close"), "{last}");
            assert_eq!(answer(&mut idler).await, "");
        };
        tokio::task::LocalSet::new().run_until(everything).await;
    }

    async fn connect(address: SocketAddr) -> tokio::net::TcpStream {
        tokio::net::TcpStream::connect(address).await.unwrap()
    }

    /// What comes next; nothing: the connection is over.
    async fn answer(client: &mut tokio::net::TcpStream) -> String {
        let mut bytes = [0; 4096];
        let count = client.read(&mut bytes).await.unwrap_or(0);
        String::from_utf8_lossy(&bytes[..count]).to_ascii_lowercase()
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
