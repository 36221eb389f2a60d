//! The proxy's end of the link: hears what the manager wants, tells what happened. Serving does not depend on it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::memory;
use super::probe::{self, Asked};
use crate::names::{Instance, WorkerName};
use crate::proxy::downstream::listeners::{Followed, Listeners};
use crate::proxy::options::{Link, Serving, Store};
use crate::proxy::table::board::{Board, Published};
use crate::proxy::table::rules::Rules;
use crate::proxy::upstream::generation::Generation;
use crate::proxy::upstream::limiter::Limiter;
use crate::route::{Route, RouteTable, Target};
use crate::wire::{Duplex, FrontState, ToManager, ToProxy, VERSION, WireError, Writer};

/// Pauses between attempts to reach the manager; the last is repeated.
const RECONNECT_PAUSES: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// A link that ends sooner is made again with the same pauses: what is wrong with it is likely to be wrong with the next one.
const LASTING: Duration = Duration::from_secs(1);

/// How long the table of the last proxy is held back when the manager can be reached: it is about to say what is in force now.
const RECALL_WAIT: Duration = Duration::from_millis(500);

/// Most health requests at a time; further ones wait on the link.
const PROBES_MAX: usize = 1024;

/// Pauses between attempts to listen where that was refused; the last is repeated.
const LISTEN_PAUSES: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// How often it is looked whether the keys of TLS sessions are old.
const TICKETS_EVERY: Duration = Duration::from_secs(60);
/// Shortest wait between two of these looks.
const TICKETS_PAUSE: Duration = Duration::from_secs(1);

/// The one that puts tables in force and answers for them.
pub(crate) struct ControlLink {
    board: Arc<Board>,
    threads: usize,
    listeners: Listeners,
    /// Every generation in the table, and those that still have requests or are asked after.
    generations: BTreeMap<Instance, Arc<Generation>>,
    /// Generations whose end the manager waits for.
    draining: Vec<Instance>,
    /// Generations in the table that may get spent and of which it has not been said.
    unspent: Vec<Instance>,
    /// Workers that are paused and of which it has not been said that nothing is in flight.
    unquiet: Vec<WorkerName>,
    /// Of the workers whose requests may have to wait, and of those whose requests had to and are still in flight.
    limiters: HashMap<WorkerName, Arc<Limiter>>,
    news: Arc<Notify>,
    store: Option<Box<dyn Store>>,
    /// What lies in the store as the last table.
    stored: Vec<u8>,
    /// The last proxy's table, until there is one of our own.
    remembered: Option<RouteTable>,
    serving: Option<watch::Sender<Option<Serving>>>,
    /// How clients are met now.
    front: FrontState,
    /// When to try again to listen where that was refused, and how often that was done.
    listen_at: Option<(Instant, usize)>,
    /// When to look at the keys of TLS sessions.
    tickets_at: Instant,
}

impl ControlLink {
    /// The link of a proxy that has no table yet.
    pub(crate) fn new(
        board: Arc<Board>,
        threads: usize,
        listeners: Listeners,
        store: Option<Box<dyn Store>>,
        serving: Option<watch::Sender<Option<Serving>>>,
    ) -> Self {
        Self {
            board,
            threads,
            listeners,
            generations: BTreeMap::new(),
            draining: Vec::new(),
            unspent: Vec::new(),
            unquiet: Vec::new(),
            limiters: HashMap::new(),
            news: Arc::default(),
            store,
            stored: Vec::new(),
            remembered: None,
            serving,
            front: FrontState::default(),
            listen_at: None,
            tickets_at: Instant::now(),
        }
    }

    /// Speaks with the manager for ever, and reaches for it when it is away. The last proxy's table, if it has left one, is served by
    /// when the manager is away at the start.
    pub(crate) async fn run(mut self, link: Link, remembered: Option<Vec<u8>>) {
        if let Some(text) = remembered {
            match memory::read(&text) {
                Ok(table) => self.remembered = Some(table),
                Err(error) => warn!(
                    "the route table of the last proxy can not be used ({error}), waiting for the manager"
                ),
            }
            self.stored = text;
        }
        match link {
            Link::Stream(stream) => {
                if let Err(error) = self.speak(stream).await {
                    warn!("the link to the manager broke ({error}), serving the last route table");
                }
                // The pair is gone for good; what is in force stays so.
                self.recall();
                loop {
                    tokio::time::sleep_until(self.due()).await;
                    self.tend();
                }
            }
            Link::Path(path) => self.keep_linked(&path).await,
        }
    }

    /// Speaks with one manager after the other, for ever.
    async fn keep_linked(&mut self, path: &Path) {
        // Links in a row that did not last.
        let mut short = 0;
        loop {
            let stream = match UnixStream::connect(path).await {
                Ok(stream) => stream,
                Err(_) => {
                    self.recall();
                    self.reach(path).await
                }
            };
            let began = Instant::now();
            match self.converse(stream).await {
                Ok(()) => info!("the manager closed the link, serving the last route table"),
                Err(error) => {
                    warn!("the link to the manager broke ({error}), serving the last route table");
                }
            }
            short = if began.elapsed() < LASTING {
                short + 1
            } else {
                0
            };
            if short > 0 {
                let last = RECONNECT_PAUSES.len() - 1;
                tokio::time::sleep(RECONNECT_PAUSES[last.min(short - 1)]).await;
            }
        }
    }

    async fn speak(&mut self, stream: std::os::unix::net::UnixStream) -> Result<(), WireError> {
        stream.set_nonblocking(true)?;
        self.converse(UnixStream::from_std(stream)?).await
    }

    /// One connection, from hello to its end.
    async fn converse(&mut self, stream: UnixStream) -> Result<(), WireError> {
        let (mut reader, mut writer) = Duplex::<ToProxy, ToManager>::new(stream).split();
        let version = VERSION.clone();
        writer.send(&ToManager::Hello { version }).await?;
        // What another link asked for is not answered on this one; its first table tells what it wants to hear.
        self.draining.clear();
        self.unspent.clear();
        self.unquiet.clear();
        let mut recall = std::pin::pin!(tokio::time::sleep(RECALL_WAIT));
        // Probes belong to the connection they were asked on and end with it.
        let mut probes: JoinSet<(u64, Asked)> = JoinSet::new();
        let news = self.news.clone();
        loop {
            let due = self.due();
            tokio::select! {
                heard = reader.next(), if probes.len() < PROBES_MAX => match heard? {
                    None => return Ok(()),
                    Some(ToProxy::Publish(table)) => {
                        let last = self.remembered.take();
                        let applied = self.publish(self.completed(table, last));
                        writer.send(&applied).await?;
                        self.settle(&mut writer).await?;
                    }
                    Some(ToProxy::Probe { id, address, protocol, path, timeout }) => {
                        probes.spawn(async move { (id, probe::run(address, protocol, path, timeout).await) });
                    }
                    Some(ToProxy::Count { id }) => {
                        let counts = self.generations.values().map(|g| g.count()).collect();
                        writer.send(&ToManager::Counted { id, counts }).await?;
                    }
                },
                Some(Ok((id, Asked { outcome, is_exposed }))) = probes.join_next() => {
                    if is_exposed {
                        writer.send(&ToManager::Exposed { id }).await?;
                    }
                    writer.send(&ToManager::Probed { id, outcome }).await?;
                }
                () = &mut recall, if self.remembered.is_some() => self.recall(),
                () = news.notified() => self.settle(&mut writer).await?,
                () = tokio::time::sleep_until(due) => if let Some(news) = self.tend() {
                    writer.send(&news).await?;
                },
            }
        }
    }

    /// `table` with the certificates in use, or else those of the `last` proxy, if the manager that sent it could not read its own: one
    /// that has just started with a broken pair is no reason to serve no longer.
    fn completed(&self, mut table: RouteTable, last: Option<RouteTable>) -> RouteTable {
        if let Some(tls) = &mut table.front.tls
            && tls.pairs.is_empty()
        {
            let of_last = || Some(last?.front.tls?.pairs);
            let known = self.listeners.certificates().map(<[_]>::to_vec);
            tls.pairs = known.or_else(of_last).unwrap_or_default();
        }
        table
    }

    /// Serves by the last proxy's table.
    fn recall(&mut self) {
        let Some(table) = self.remembered.take() else {
            return;
        };
        warn!(
            "the manager says nothing, serving {} routes by the table of the last proxy",
            table.routes.len()
        );
        // The manager has not sent it and hears nothing of it.
        self.publish(table);
        self.unspent.clear();
        self.unquiet.clear();
    }

    /// Leaves the table in force to the next proxy.
    fn remember(&mut self, table: &RouteTable) {
        let Some(store) = &self.store else {
            return;
        };
        match memory::write(table) {
            Ok(text) if text == self.stored => {}
            Ok(text) => {
                store.keep_table(&text);
                self.stored = text;
            }
            Err(error) => warn!("the route table can not be left to the next proxy ({error})"),
        }
    }

    /// Puts a table in force.
    fn publish(&mut self, table: RouteTable) -> ToManager {
        let followed = self.listeners.follow(&table.front, self.store.as_deref());
        let front = self.front_after(&followed);
        self.listen_at = front.problem.is_some().then(|| next_try(0));
        let mut generations = HashMap::new();
        self.unspent.clear();
        for route in &table.routes {
            let Target::Serving(upstream) = &route.target else {
                continue;
            };
            let instance = Instance::new(route.worker.clone(), upstream.generation);
            let generation = self.generations.entry(instance.clone()).or_insert_with(|| {
                let news = self.news.clone();
                Arc::new(Generation::new(instance.clone(), self.threads, news))
            });
            generation.set_max_requests(upstream.max_requests);
            generation.set_starting(upstream.starting);
            if upstream.max_requests > 0 {
                self.unspent.push(instance.clone());
            }
            generations.insert(instance, generation.clone());
        }
        // One that still answers is not draining, whatever the list says.
        self.draining = table.draining.clone();
        self.draining.retain(|i| !generations.contains_key(i));
        let paused = |route: &&Route| route.halt.pause.is_some_and(|p| !p.left().is_zero());
        let paused = table.routes.iter().filter(paused);
        self.unquiet = paused.map(|route| route.worker.clone()).collect();
        for (instance, generation) in &self.generations {
            let is_awaited =
                self.draining.contains(instance) || self.unquiet.contains(&instance.worker);
            generation.set_draining(is_awaited);
            if !generations.contains_key(instance) {
                generation.set_starting(None);
            }
        }
        let limiters = self.set_limiters(&table);
        self.remember(&table);
        let (serial, grace) = (table.serial, table.front.grace);
        let routes = table.routes.len();
        self.board.publish(Published {
            table,
            generations: generations.clone(),
            limiters,
            listeners: self.listeners.current().to_vec(),
            leaving: followed.leaving,
            tls: self.listeners.acceptor(),
        });
        self.generations.retain(|instance, generation| {
            generations.contains_key(instance)
                || self.draining.contains(instance)
                || generation.in_flight() > 0
        });
        debug!("serving {routes} routes by table {serial}");
        self.meet(front.clone(), grace);
        ToManager::Applied { serial, front }
    }

    /// How clients are met once it was `followed`.
    fn front_after(&self, followed: &Followed) -> FrontState {
        let current = self.listeners.current().iter();
        FrontState {
            listening: current.map(|listener| listener.listen.clone()).collect(),
            refused: followed.refused.clone(),
            problem: followed.problems(),
        }
    }

    /// Says how clients are met from now on, where that is news.
    fn meet(&mut self, front: FrontState, grace: Duration) {
        match &front.problem {
            Some(problem) if self.front.problem.as_ref() != Some(problem) => {
                warn!("{problem}; trying again, serving where it listens already");
            }
            None if self.front.problem.is_some() => {
                let places = front.listening.iter().map(ToString::to_string);
                let places: Vec<String> = places.collect();
                info!("listens wherever it should: {}", places.join(", "));
            }
            _ => {}
        }
        if let Some(serving) = &self.serving {
            let front = front.clone();
            serving.send_replace(Some(Serving { front, grace }));
        }
        self.front = front;
    }

    /// When there is something to [tend](Self::tend) to.
    fn due(&self) -> Instant {
        let listen = self.listen_at.map(|(at, _)| at);
        listen.unwrap_or(self.tickets_at).min(self.tickets_at)
    }

    /// Does what is due by itself, whatever the manager does, and says what the manager should know of it.
    fn tend(&mut self) -> Option<ToManager> {
        let now = Instant::now();
        if self.tickets_at <= now {
            self.listeners.keep_tickets(self.store.as_deref());
            // A machine that slept is not told of it: there is a look now and then.
            let next = self.listeners.tickets_turn_in().max(TICKETS_PAUSE);
            self.tickets_at = now + next.min(TICKETS_EVERY);
        }
        let (_, tries) = self.listen_at.take_if(|(at, _)| *at <= now)?;
        let published = self.board.published();
        let table = &published.table;
        let followed = self.listeners.follow(&table.front, self.store.as_deref());
        let front = self.front_after(&followed);
        self.listen_at = front.problem.is_some().then(|| next_try(tries + 1));
        if front == self.front {
            return None;
        }
        if front.listening != self.front.listening {
            self.board.publish(Published {
                table: table.clone(),
                generations: published.generations.clone(),
                limiters: published.limiters.clone(),
                listeners: self.listeners.current().to_vec(),
                leaving: followed.leaving,
                tls: self.listeners.acceptor(),
            });
        }
        self.meet(front.clone(), table.front.grace);
        Some(ToManager::Front(front))
    }

    /// Sets the limiters of workers as the table says, and returns them.
    fn set_limiters(&mut self, table: &RouteTable) -> HashMap<WorkerName, Arc<Limiter>> {
        let mut limiters = HashMap::new();
        for route in table
            .routes
            .iter()
            .filter(|route| Rules::want_limiter(route))
        {
            let limiter = self.limiters.entry(route.worker.clone());
            let limiter = limiter.or_insert_with(|| Arc::new(Limiter::new()));
            limiter.set_most(route.flow.max_concurrency);
            limiters.insert(route.worker.clone(), limiter.clone());
        }
        self.limiters.retain(|worker, limiter| {
            limiters.contains_key(worker) || Arc::strong_count(limiter) > 1
        });
        limiters
    }

    /// Tells of generations that are drained or spent, and of paused workers that are quiet.
    async fn settle(&mut self, writer: &mut Writer<ToManager>) -> Result<(), WireError> {
        let generations = &self.generations;
        let known = |instance: &Instance| generations.get(instance);
        let (still, drained) = std::mem::take(&mut self.draining)
            .into_iter()
            .partition(|i| known(i).is_some_and(|g| g.in_flight() > 0));
        let (unspent, spent) = std::mem::take(&mut self.unspent)
            .into_iter()
            .partition(|i| !known(i).is_some_and(|g| g.is_spent()));
        let is_quiet = |worker: &WorkerName| {
            let mut of_it = generations.iter().filter(|(i, _)| i.worker == *worker);
            of_it.all(|(_, generation)| generation.in_flight() == 0)
        };
        let (quiet, unquiet) = std::mem::take(&mut self.unquiet)
            .into_iter()
            .partition(is_quiet);
        (self.draining, self.unspent, self.unquiet) = (still, unspent, unquiet);
        let quiet: Vec<WorkerName> = quiet;
        let spent: Vec<Instance> = spent;
        let drained: Vec<Instance> = drained;
        for instance in spent {
            writer.send(&ToManager::Spent(instance)).await?;
        }
        for worker in quiet {
            writer.send(&ToManager::Quiet(worker)).await?;
        }
        for instance in drained {
            self.generations.remove(&instance);
            writer.send(&ToManager::Drained(instance)).await?;
        }
        Ok(())
    }

    /// Connects to the manager, however long it takes.
    async fn reach(&mut self, path: &Path) -> UnixStream {
        let mut pauses = RECONNECT_PAUSES.iter();
        let mut pause = RECONNECT_PAUSES[0];
        let mut said = false;
        loop {
            match UnixStream::connect(path).await {
                Ok(stream) => {
                    if said {
                        info!("the manager is back");
                    }
                    return stream;
                }
                Err(error) => {
                    // The last pause: the manager is not just restarting.
                    if !said && pauses.len() == 0 {
                        said = true;
                        warn!(
                            "the manager can not be reached at {} ({error}), serving the last route table",
                            path.display()
                        );
                    }
                }
            }
            pause = *pauses.next().unwrap_or(&pause);
            // A socket that is not there, or refuses, gives no event to wait for.
            tokio::time::sleep(pause).await;
            if self.due() <= Instant::now() {
                self.tend();
            }
        }
    }
}

/// When to try to listen again after so many tries, and their number.
fn next_try(tries: usize) -> (Instant, usize) {
    let pause = LISTEN_PAUSES[tries.min(LISTEN_PAUSES.len() - 1)];
    (Instant::now() + pause, tries)
}
