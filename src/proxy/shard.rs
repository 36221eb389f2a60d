//! One of the proxy's threads. It shares the route table and the counters with the others, and nothing else on the path of a request.

use crate::proxy::downstream::clients::Clients;
use crate::proxy::wire::request_id::RequestIds;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::downstream::connection_limit::ConnectionLimit;
use super::response::access::Journal;
use super::table::Table;
use super::table::board::Board;
use super::table::lookup::Lookup;
use super::table::route::Route;
use super::table::rules::Rules;
use super::upstream::ticket::Ticket;

/// Longest time between two looks for connections that are too old.
const REAP_MAX: Duration = Duration::from_secs(60);

/// A thread of the proxy.
pub(crate) struct Shard {
    shard: usize,
    board: Arc<Board>,
    table: RefCell<Rc<Table>>,
    tasks: RefCell<Tasks>,
    stop: CancellationToken,
    journal: Journal,
    ids: RequestIds,
    connection_limit: Arc<ConnectionLimit>,
    clients: Clients,
    /// Requests in flight over HTTP/2.
    streams: Cell<usize>,
}

/// What is to end before the thread does.
#[derive(Default)]
pub(crate) struct Tasks {
    /// Connections that are HTTP.
    pub(crate) clients: TaskTracker,
    /// Those that were, which end when their two sides please.
    tunnels: TaskTracker,
}

/// What a thread shares with the others.
pub(crate) struct Context {
    /// The thread's number.
    pub(crate) shard: usize,
    pub(crate) board: Arc<Board>,
    pub(crate) stop: CancellationToken,
    pub(crate) journal: Journal,
    pub(crate) connection_limit: Arc<ConnectionLimit>,
    /// Another proxy will accept from the same listeners when this one has ended.
    pub(crate) successor: bool,
}

impl Tasks {
    /// Waits until all have ended.
    pub(crate) async fn end(self) {
        self.clients.close();
        self.clients.wait().await;
        self.tunnels.close();
        self.tunnels.wait().await;
    }
}

impl Shard {
    /// The thread's number.
    pub(crate) fn number(&self) -> usize {
        self.shard
    }

    /// The thread that `context` describes, at the table in force.
    pub(crate) fn new(context: Context) -> Self {
        let Context {
            shard,
            board,
            stop,
            journal,
            connection_limit,
            successor: _,
        } = context;
        Self {
            shard,
            table: RefCell::new(Rc::new(Table::compile(&board, shard, None))),
            board,
            tasks: RefCell::default(),
            stop,
            journal,
            connection_limit,
            clients: Clients::default(),
            streams: Cell::new(0),
            ids: RequestIds::default(),
        }
    }

    /// The table in force.
    pub(crate) fn table(&self) -> Rc<Table> {
        if self.table.borrow().edition != self.board.edition() {
            let previous = self.table.borrow().clone();
            let table = Table::compile(&self.board, self.shard, Some(&previous));
            self.table.replace(Rc::new(table));
        }
        self.table.borrow().clone()
    }

    /// The route of a request, and a place in its generation's count. When this returns the table it was picked from was in force
    /// *after* it was counted, so "drained" can not have been said in between.
    pub(crate) fn pick(
        &self,
        table: &Rc<Table>,
        lookup: &Lookup<'_>,
    ) -> (Option<Rc<Route>>, Option<Ticket>) {
        // Who may have to wait is counted when the wait is over.
        let has_limiter = |route: &Route| route.rules.as_ref().is_some_and(Rules::have_limiter);
        self.pick_if(table, lookup, |route| !has_limiter(route))
    }

    /// The same; there is a place in the count only if the request `enters` the route.
    pub(crate) fn pick_if(
        &self,
        table: &Rc<Table>,
        lookup: &Lookup<'_>,
        enters: impl Fn(&Route) -> bool,
    ) -> (Option<Rc<Route>>, Option<Ticket>) {
        let mut table = table.clone();
        loop {
            let route = lookup.find(&table).cloned();
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
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.board.subscribe()
    }

    /// Whether the proxy is to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends when the proxy is to stop. Not for what is polled for each request, see [`Self::welcome`].
    pub(crate) async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// The clients of this thread.
    pub(crate) fn clients(&self) -> &Clients {
        &self.clients
    }

    /// How many clients there may be, on all threads.
    pub(crate) fn connection_limit(&self) -> &Arc<ConnectionLimit> {
        &self.connection_limit
    }

    /// Runs the connection of a client, which the thread waits for when it stops.
    pub(crate) fn serve(&self, connection: impl Future<Output = ()> + 'static) -> AbortHandle {
        let task = self.tasks.borrow().clients.spawn_local(connection);
        task.abort_handle()
    }

    /// What is to end before the thread does; what is begun from now on is not part of it.
    pub(crate) fn take_tasks(&self) -> Tasks {
        self.tasks.take()
    }

    /// Where the access log is written.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// A place for a request over HTTP/2. Connections are counted, and each can have many requests; so all of them together are no more
    /// than there may be connections.
    pub(crate) fn stream(self: &Rc<Self>) -> Option<Streaming> {
        let count = self.streams.get();
        if count >= self.table.borrow().front().max_connections {
            return None;
        }
        self.streams.set(count + 1);
        Some(Streaming(self.clone()))
    }

    /// Runs a connection that is HTTP no more. The shard waits for it too.
    pub(crate) fn tunnel(&self, tunnel: impl Future<Output = ()> + 'static) {
        self.tasks.borrow().tunnels.spawn_local(tunnel);
    }

    /// A new name for a request.
    pub(crate) fn request_id(&self) -> HeaderValue {
        self.ids.next()
    }

    /// Closes connections to workers that have been unused for too long; says when to look again.
    pub(crate) fn reap(&self) -> Instant {
        let now = Instant::now();
        let table = self.table.borrow().clone();
        for upstream in table.upstreams() {
            upstream.generation.sum_up();
        }
        let next = table.upstreams().filter_map(|upstream| upstream.reap(now));
        next.min().unwrap_or(now + REAP_MAX).min(now + REAP_MAX)
    }
}

/// A request in flight over HTTP/2.
pub(crate) struct Streaming(Rc<Shard>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}
