//! The proxy's end of the link: hears what the manager wants, tells what happened. Serving does not depend on it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::flow::{Gate, Rules};
use super::generation::Generation;
use super::listener::Listeners;
use super::table::{Board, Published};
use super::{Link, Serving, Store, memory, probe};
use crate::names::{Instance, WorkerName};
use crate::route::{Listen, Route, RouteTable, Target};
use crate::wire::{Duplex, Mouth, ProbeOutcome, ToManager, ToProxy, VERSION, WireError};

/// Pauses between attempts to reach the manager; the last is repeated.
const RECONNECT_PAUSES: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// How long the table of the last proxy is held back when the manager can be reached: it is about to say what is in force now.
const RECALL_WAIT: Duration = Duration::from_millis(500);

/// Most health requests at a time; further ones wait on the link.
const PROBES_MAX: usize = 1024;

/// The one that puts tables in force and answers for them.
pub(super) struct Steward {
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
    gates: HashMap<WorkerName, Arc<Gate>>,
    news: Arc<Notify>,
    store: Option<Box<dyn Store>>,
    /// What lies in the store as the last table.
    stored: Vec<u8>,
    /// The last proxy's table, until there is one of our own.
    remembered: Option<RouteTable>,
    serving: Option<watch::Sender<Option<Serving>>>,
}

impl Steward {
    /// A steward of an empty table.
    pub(super) fn new(
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
            gates: HashMap::new(),
            news: Arc::default(),
            store,
            stored: Vec::new(),
            remembered: None,
            serving,
        }
    }

    /// Speaks with the manager for ever, and reaches for it when it is away. The last proxy's table, if it has left one, is served by
    /// when the manager is away at the start.
    pub(super) async fn run(mut self, link: Link, remembered: Option<Vec<u8>>) {
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
                std::future::pending().await
            }
            Link::Path(path) => loop {
                let stream = match UnixStream::connect(&path).await {
                    Ok(stream) => stream,
                    Err(_) => {
                        self.recall();
                        reach(&path).await
                    }
                };
                match self.converse(stream).await {
                    Ok(()) => info!("the manager closed the link, serving the last route table"),
                    Err(error) => warn!(
                        "the link to the manager broke ({error}), serving the last route table"
                    ),
                }
            },
        }
    }

    async fn speak(&mut self, stream: std::os::unix::net::UnixStream) -> Result<(), WireError> {
        stream.set_nonblocking(true)?;
        self.converse(UnixStream::from_std(stream)?).await
    }

    /// One connection, from hello to its end.
    async fn converse(&mut self, stream: UnixStream) -> Result<(), WireError> {
        let (mut ear, mut mouth) = Duplex::<ToProxy, ToManager>::new(stream).split();
        let version = VERSION.to_owned();
        mouth.send(&ToManager::Hello { version }).await?;
        // What another link asked for is not answered on this one; its first table tells what it wants to hear.
        self.draining.clear();
        self.unspent.clear();
        self.unquiet.clear();
        let mut recall = std::pin::pin!(tokio::time::sleep(RECALL_WAIT));
        // Probes belong to the connection they were asked on and end with it.
        let mut probes: JoinSet<(u64, ProbeOutcome)> = JoinSet::new();
        let news = self.news.clone();
        loop {
            tokio::select! {
                heard = ear.next(), if probes.len() < PROBES_MAX => match heard? {
                    None => return Ok(()),
                    Some(ToProxy::Publish(table)) => {
                        let last = self.remembered.take();
                        let applied = self.publish(self.completed(table, last));
                        mouth.send(&applied).await?;
                        self.settle(&mut mouth).await?;
                    }
                    Some(ToProxy::Probe { id, address, protocol, path, timeout }) => {
                        probes.spawn(async move { (id, probe::run(address, protocol, path, timeout).await) });
                    }
                    Some(ToProxy::Count { id }) => {
                        let counts = self.generations.values().map(|g| g.count()).collect();
                        mouth.send(&ToManager::Counted { id, counts }).await?;
                    }
                },
                Some(Ok((id, outcome))) = probes.join_next() => {
                    mouth.send(&ToManager::Probed { id, outcome }).await?;
                }
                () = &mut recall, if self.remembered.is_some() => self.recall(),
                () = news.notified() => self.settle(&mut mouth).await?,
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
        let problem = followed.err();
        let listeners = self.listeners.current().to_vec();
        let listening: Vec<Listen> = listeners.iter().map(|l| l.listen.clone()).collect();
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
        }
        let gates = self.set_gates(&table);
        self.remember(&table);
        let (serial, grace) = (table.serial, table.front.grace);
        let routes = table.routes.len();
        self.board.publish(Published {
            table,
            generations: generations.clone(),
            gates,
            listeners,
            tls: self.listeners.acceptor(),
        });
        self.generations.retain(|instance, generation| {
            generations.contains_key(instance)
                || self.draining.contains(instance)
                || generation.in_flight() > 0
        });
        match &problem {
            None => debug!("serving {routes} routes by table {serial}"),
            Some(problem) => {
                warn!(
                    "{problem}; serving {routes} routes by table {serial} where it listens already"
                )
            }
        }
        if let Some(serving) = &self.serving {
            serving.send_replace(Some(Serving {
                listening: listening.clone(),
                problem: problem.clone(),
                grace,
            }));
        }
        ToManager::Applied {
            serial,
            problem,
            listening,
        }
    }

    /// Sets the gates of workers as the table says, and returns them.
    fn set_gates(&mut self, table: &RouteTable) -> HashMap<WorkerName, Arc<Gate>> {
        let mut gates = HashMap::new();
        for route in table.routes.iter().filter(|route| Rules::want_gate(route)) {
            let gate = self.gates.entry(route.worker.clone());
            let gate = gate.or_insert_with(|| Arc::new(Gate::new()));
            gate.set_most(route.flow.max_concurrency);
            gates.insert(route.worker.clone(), gate.clone());
        }
        self.gates
            .retain(|worker, gate| gates.contains_key(worker) || Arc::strong_count(gate) > 1);
        gates
    }

    /// Tells of generations that are drained or spent, and of paused workers that are quiet.
    async fn settle(&mut self, mouth: &mut Mouth<ToManager>) -> Result<(), WireError> {
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
            mouth.send(&ToManager::Spent(instance)).await?;
        }
        for worker in quiet {
            mouth.send(&ToManager::Quiet(worker)).await?;
        }
        for instance in drained {
            self.generations.remove(&instance);
            mouth.send(&ToManager::Drained(instance)).await?;
        }
        Ok(())
    }
}

/// Connects to the manager, however long it takes.
async fn reach(path: &Path) -> UnixStream {
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
    }
}
