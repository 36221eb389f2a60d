//! The control plane: talks to systemd, decides, acts. It opens no network socket and never sees a request.
//!
//! One loop waits for whatever comes first (a unit changed, the proxy said something, an action ended, somebody asked, a deadline),
//! hands it to [`Fleet`], and gives each action that comes back to the one place that acts.

pub mod control;
mod journal;
mod link;
mod look;
mod perform;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Mode, Settings, project_directory};
use crate::deploy::snapshot::{SnapshotError, Store};
use crate::names::{Instance, WorkerName};
use crate::plan::{Action, Event, Fleet, Look, Note, Outcome, Severity, Spec};
use crate::systemd::{BusError, Systemd, UnitChange, Usage};
use crate::wire::{Count, ToManager, ToProxy};

use control::{GenerationStatus, Request, WorkerOutcome, WorkerStatus};
pub use journal::Journal;
pub use link::{Door, open_door};
use link::{LinkEvent, Outbox, Questions};
pub use look::LookError;
use look::Sight;
use perform::{Performer, Tasks, chain};

/// What the proxy said that may wait for the loop.
const LINK_EVENTS: usize = 1024;
/// How often files that stand in for a journal are looked after.
const TRIM_EVERY: Duration = Duration::from_secs(30);

/// What a manager is started with.
pub struct Options {
    /// The server's configuration, checked.
    pub settings: Settings,
    /// The port to listen on instead of the configured one, which every reload reads anew.
    pub port: Option<u16>,
    /// Development or production.
    pub mode: Mode,
    /// The bus systemd is on.
    pub bus: String,
    /// Where the proxy comes from.
    pub door: Door,
    /// Where the sockets of workers are made.
    pub runtime_directory: PathBuf,
    /// Production: where snapshots are kept.
    pub state_directory: Option<PathBuf>,
    /// Where the output of workers goes.
    pub journal: Journal,
    /// Group that may connect to workers' sockets; `None`: the manager's user alone.
    pub group: Option<String>,
}

/// Why a manager ended.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// systemd can not be reached.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The name on the bus could not be had.
    #[error(
        "another TQServer manages this systemd already; stop it, or start this one with --manager=private"
    )]
    Taken(#[source] zbus::Error),
    /// The store of snapshots can not be used.
    #[error(transparent)]
    Store(#[from] SnapshotError),
    /// The bus went away while the manager ran.
    #[error("the connection to systemd broke")]
    BusLost,
}

/// What a manager tells whoever started it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Every worker has been tried once and the proxy serves what came of it.
    pub settled: bool,
    /// Where the proxy listens.
    pub listening: Vec<std::net::SocketAddr>,
    /// What the proxy could not have.
    pub problem: Option<String>,
}

/// How a manager is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It goes and the workers stay: a restart.
    Leave,
    /// It stops the workers and goes.
    StopWorkers,
}

/// Runs until told to end by `ending`; `notes` gets every line for people that is also logged.
///
/// # Errors
/// When it can not start, or loses systemd.
pub async fn run(
    options: Options,
    mut ending: watch::Receiver<Option<Ending>>,
    progress: watch::Sender<Progress>,
    reload: &mut mpsc::Receiver<()>,
) -> Result<(), ManagerError> {
    let (systemd, mut units) = Systemd::connect(&options.bus).await?;
    let connection = systemd.connection().clone();
    let requests = control::publish(&connection, options.mode.to_string()).await;
    let mut requests = requests.map_err(ManagerError::Taken)?;
    let store = options.state_directory.map(Store::open).transpose()?;
    let loaded = systemd.loaded().await?;
    let policy = look::policy(&options.settings, options.mode, &options.runtime_directory);
    let performer = Arc::new(Performer {
        systemd,
        store,
        journal: options.journal,
        mode: options.mode,
        project: project_directory(&options.settings.file),
        group: options.group,
        stop_timeout: policy.grace,
    });
    let (link_sender, mut link_events) = mpsc::channel(LINK_EVENTS);
    let stop_link = CancellationToken::new();
    let _stop_link = stop_link.clone().drop_guard();
    let link = tokio::spawn(async move {
        tokio::select! {
            () = link::serve(options.door, link_sender) => {}
            () = stop_link.cancelled() => {}
        }
    });
    let mut manager = Manager {
        fleet: Fleet::new(policy),
        performer,
        connection,
        started: Instant::now(),
        settings: options.settings,
        port: options.port,
        mode: options.mode,
        runtime_directory: options.runtime_directory,
        tasks: Tasks::new(),
        telling: tokio::task::JoinSet::new(),
        proxy: None,
        questions: Questions::default(),
        looking: None,
        looks: VecDeque::new(),
        callers: HashMap::new(),
        specs: HashMap::new(),
        next_reload: 1,
        progress,
        trim_at: Instant::now() + TRIM_EVERY,
        first_look_done: false,
        ended: false,
    };
    manager.step(Event::Adopted(look::adopted(loaded)));
    manager.looks.push_back(Wanted::Start);
    loop {
        manager.look_if_idle();
        let deadline = manager.deadline();
        tokio::select! {
            change = units.recv() => match change {
                Some(UnitChange::Service(instance, state)) => manager.step(Event::Unit(instance, state)),
                Some(UnitChange::SocketDown(instance)) => manager.step(Event::SocketFailed(instance)),
                None => return Err(ManagerError::BusLost),
            },
            Some(event) = link_events.recv() => manager.hear(event),
            Some(Ok(event)) = manager.tasks.join_next() => manager.step(event),
            Some(_) = manager.telling.join_next() => {}
            seen = finished(&mut manager.looking) => {
                manager.seen(seen.unwrap_or_else(|error| Err(LookError::Workers(error.to_string()))));
            }
            Some(request) = requests.recv() => manager.asked(request),
            Some(()) = reload.recv() => manager.reload_from_signal(),
            Ok(()) = ending.changed() => {
                let end = *ending.borrow_and_update();
                match end {
                    Some(Ending::StopWorkers) => manager.step(Event::StopAll),
                    Some(Ending::Leave) => break,
                    None => {}
                }
            }
            () = tokio::time::sleep_until(deadline) => manager.tick(),
        }
        if manager.ended {
            break;
        }
    }
    link.abort();
    Ok(())
}

type Looking = Option<(Wanted, JoinHandle<Result<Sight, LookError>>)>;

/// The end of the look under way; never, if there is none.
async fn finished(
    looking: &mut Looking,
) -> Result<Result<Sight, LookError>, tokio::task::JoinError> {
    match looking {
        Some((_, task)) => task.await,
        None => std::future::pending().await,
    }
}

/// Why it is looked at the disk.
enum Wanted {
    Start,
    Retry(WorkerName),
    Reload {
        only: Vec<WorkerName>,
        force: bool,
        dry_run: bool,
        caller: Option<String>,
        reply: Option<oneshot::Sender<Result<Vec<WorkerOutcome>, LookError>>>,
    },
}

struct Caller {
    name: Option<String>,
    reply: Option<oneshot::Sender<Result<Vec<WorkerOutcome>, LookError>>>,
}

struct Manager {
    fleet: Fleet,
    performer: Arc<Performer>,
    connection: zbus::Connection,
    started: Instant,
    settings: Settings,
    port: Option<u16>,
    mode: Mode,
    runtime_directory: PathBuf,
    tasks: Tasks,
    telling: tokio::task::JoinSet<()>,
    proxy: Option<Outbox>,
    questions: Questions,
    /// The look at the disk under way. One at a time, so that what is seen later is newer.
    looking: Looking,
    looks: VecDeque<Wanted>,
    callers: HashMap<u64, Caller>,
    /// What the generations are made of whose log may be asked for.
    specs: HashMap<Instance, Spec>,
    next_reload: u64,
    progress: watch::Sender<Progress>,
    trim_at: Instant,
    first_look_done: bool,
    ended: bool,
}

impl Manager {
    fn deadline(&self) -> Instant {
        let fleet = self.fleet.deadline().map(|moment| self.started + moment);
        fleet.map_or(self.trim_at, |moment| moment.min(self.trim_at))
    }

    fn tick(&mut self) {
        if self.trim_at <= Instant::now() {
            self.performer.journal.trim();
            self.trim_at = Instant::now() + TRIM_EVERY;
        }
        self.step(Event::Tick);
    }

    fn step(&mut self, event: Event) {
        let actions = self.fleet.step(self.started.elapsed(), event);
        for action in actions {
            self.perform(action);
        }
        self.tell_settled();
    }

    fn perform(&mut self, action: Action) {
        let (performer, tasks) = (&self.performer, &mut self.tasks);
        match action {
            Action::Build(instance, spec) => performer.build(tasks, instance, spec),
            Action::Launch {
                instance,
                spec,
                source,
                address,
            } => {
                self.specs.insert(instance.clone(), spec.clone());
                performer.launch(tasks, instance, spec, source, address);
            }
            Action::Accept(instance, spec) => performer.accept(tasks, instance, spec),
            Action::Assets(instance, spec) => performer.assets(tasks, instance, spec),
            Action::Stop { instance, failed } => {
                let spec = self.specs.remove(&instance);
                performer.stop(tasks, instance, spec, failed);
            }
            Action::Prune(worker, live) => performer.prune(&worker, &live),
            Action::Look(worker) => self.looks.push_back(Wanted::Retry(worker)),
            Action::Probe {
                id,
                address,
                path,
                timeout,
                ..
            } => self.say(ToProxy::Probe {
                id,
                address,
                path,
                timeout,
            }),
            Action::Publish(table) => self.say(ToProxy::Publish(table)),
            Action::Progress { reloads, note } => self.note(&reloads, note),
            Action::Finish { id, outcomes } => self.finish(id, outcomes),
            Action::End => self.ended = true,
        }
    }

    fn say(&self, message: ToProxy) {
        if let Some(proxy) = &self.proxy {
            proxy.say(message);
        }
    }

    // ---- the proxy ------------------------------------------------------------------------------------------------------------

    fn hear(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(outbox) => {
                self.proxy = Some(outbox);
                self.step(Event::Linked);
            }
            LinkEvent::Down => {
                self.proxy = None;
                self.questions.forget();
                self.step(Event::Unlinked);
            }
            LinkEvent::Said(message) => match message {
                ToManager::Hello { .. } => {}
                ToManager::Applied {
                    serial,
                    problem,
                    listening,
                } => self.applied(serial, problem, listening),
                ToManager::Drained(instance) => self.step(Event::Drained(instance)),
                ToManager::Probed { id, outcome } => self.step(Event::Probed(id, outcome)),
                ToManager::Spent(instance) => self.step(Event::Spent(instance)),
                ToManager::Counted { id, counts } => self.questions.answer(id, counts),
            },
        }
    }

    fn applied(
        &mut self,
        serial: u64,
        problem: Option<String>,
        listening: Vec<std::net::SocketAddr>,
    ) {
        self.step(Event::Applied(serial));
        let before = self.progress.borrow().clone();
        if let Some(problem) = problem
            .as_ref()
            .filter(|problem| before.problem.as_ref() != Some(problem))
        {
            tracing::error!("{problem}");
        }
        if before.problem != problem || before.listening != listening {
            self.progress.send_modify(|progress| {
                (progress.problem, progress.listening) = (problem, listening)
            });
        }
    }

    /// The start is over when nothing is on its way any more and the proxy serves.
    fn tell_settled(&mut self) {
        if !self.first_look_done
            || self.progress.borrow().settled
            || self.progress.borrow().listening.is_empty()
        {
            return;
        }
        if self
            .fleet
            .view()
            .iter()
            .all(|worker| worker.state != "starting")
        {
            self.progress
                .send_modify(|progress| progress.settled = true);
        }
    }

    // ---- looking at the disk --------------------------------------------------------------------------------------------------

    fn look_if_idle(&mut self) {
        if self.looking.is_none()
            && let Some(wanted) = self.looks.pop_front()
        {
            let (settings, mode, port) = (self.settings.clone(), self.mode, self.port);
            self.looking = Some((
                wanted,
                tokio::task::spawn_blocking(move || look::look(&settings, mode, port)),
            ));
        }
    }

    fn seen(&mut self, seen: Result<Sight, LookError>) {
        let Some((wanted, _)) = self.looking.take() else {
            return;
        };
        let sight = match (seen, wanted) {
            (Ok(sight), wanted) => (sight, wanted),
            (Err(error), Wanted::Reload { reply, .. }) => {
                tracing::error!("reload refused, the running configuration stays:\n{error}");
                if let Some(reply) = reply {
                    let _ = reply.send(Err(error));
                }
                return;
            }
            (Err(error), Wanted::Start) => {
                tracing::error!("the workers can not be read; mend it and reload:\n{error}");
                self.first_look_done = true;
                return self.tell_settled();
            }
            (Err(error), Wanted::Retry(name)) => {
                tracing::warn!("'{name}' can not be tried again: {error}; the next reload does");
                return;
            }
        };
        match sight {
            (sight, Wanted::Start) => self.start(sight),
            (sight, Wanted::Retry(name)) => {
                let look = Look::Retry(name);
                self.step(Event::Looked {
                    look,
                    workers: sight.workers,
                    snapshots: BTreeMap::new(),
                });
            }
            (
                sight,
                Wanted::Reload {
                    only,
                    force,
                    dry_run: true,
                    reply,
                    ..
                },
            ) => {
                let preview = self.fleet.preview(&sight.workers, &only, force);
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(preview
                        .into_iter()
                        .map(|(worker, outcome)| told(&worker, &outcome, true))
                        .collect()));
                }
            }
            (
                sight,
                Wanted::Reload {
                    only,
                    force,
                    caller,
                    reply,
                    ..
                },
            ) => self.reload(
                sight,
                only,
                force,
                Caller {
                    name: caller,
                    reply,
                },
            ),
        }
    }

    fn start(&mut self, sight: Sight) {
        let snapshots = match &self.performer.store {
            Some(store) => {
                // What was never accepted is of no use to anybody.
                for worker in store.workers() {
                    let live: Vec<_> = self
                        .specs
                        .keys()
                        .filter(|i| i.worker == worker)
                        .map(|i| i.generation)
                        .collect();
                    let running = self
                        .fleet
                        .view()
                        .into_iter()
                        .filter(|view| view.name == worker);
                    let running = running
                        .flat_map(|view| view.generations)
                        .map(|run| run.instance.generation);
                    let live: Vec<_> = running.chain(live).collect();
                    self.performer.prune(&worker, &live);
                }
                look::snapshots(store, &sight)
            }
            None => BTreeMap::new(),
        };
        self.first_look_done = true;
        self.step(Event::Looked {
            look: Look::Start,
            workers: sight.workers,
            snapshots,
        });
    }

    // ---- requests -------------------------------------------------------------------------------------------------------------

    fn asked(&mut self, request: Request) {
        match request {
            Request::Reload {
                only,
                force,
                dry_run,
                caller,
                reply,
            } => {
                self.looks.push_back(Wanted::Reload {
                    only,
                    force,
                    dry_run,
                    caller,
                    reply: Some(reply),
                });
            }
            Request::Status { reply } => self.status(reply),
        }
    }

    fn reload_from_signal(&mut self) {
        tracing::info!("reload asked for by SIGHUP");
        self.looks.push_back(Wanted::Reload {
            only: Vec::new(),
            force: false,
            dry_run: false,
            caller: None,
            reply: None,
        });
    }

    fn reload(&mut self, sight: Sight, only: Vec<WorkerName>, force: bool, caller: Caller) {
        let id = self.next_reload;
        self.next_reload += 1;
        self.callers.insert(id, caller);
        self.settings = sight.settings;
        let policy = look::policy(&self.settings, self.mode, &self.runtime_directory);
        self.step(Event::Configured(policy));
        let look = Look::Reload { id, only, force };
        self.step(Event::Looked {
            look,
            workers: sight.workers,
            snapshots: BTreeMap::new(),
        });
    }

    fn finish(&mut self, id: u64, outcomes: BTreeMap<WorkerName, Outcome>) {
        let failed = outcomes
            .values()
            .filter(|outcome| matches!(outcome, Outcome::Failed(_)))
            .count();
        let changed = outcomes
            .values()
            .filter(|outcome| !matches!(outcome, Outcome::Unchanged(_) | Outcome::Failed(_)))
            .count();
        let unchanged = outcomes.len() - failed - changed;
        if failed > 0 {
            tracing::error!(
                "reload over: {changed} changed, {unchanged} unchanged, {failed} failed"
            );
        } else {
            tracing::info!("reload over: {changed} changed, {unchanged} unchanged");
        }
        if let Some(reply) = self.callers.remove(&id).and_then(|caller| caller.reply) {
            let outcomes = outcomes
                .iter()
                .map(|(worker, outcome)| told(worker, outcome, false));
            let _ = reply.send(Ok(outcomes.collect()));
        }
    }

    fn note(&mut self, reloads: &[u64], note: Note) {
        let generation = note.generation.map_or(0, |generation| generation.0);
        let unit = note.generation.map_or_else(String::new, |generation| {
            Instance::new(note.worker.clone(), generation).service_unit()
        });
        let (worker, text) = (note.worker.as_str(), note.text.as_str());
        // The journal shows the line among the worker's own when asked for the worker's unit (systemd.journal-fields(7)).
        match note.severity {
            Severity::Info => tracing::info!(
                tq.worker = worker,
                tq.generation = generation,
                object_systemd_unit = unit,
                "{text}"
            ),
            Severity::Warning => tracing::warn!(
                tq.worker = worker,
                tq.generation = generation,
                object_systemd_unit = unit,
                "{text}"
            ),
            Severity::Error => tracing::error!(
                tq.worker = worker,
                tq.generation = generation,
                object_systemd_unit = unit,
                "{text}"
            ),
        }
        for caller in reloads
            .iter()
            .filter_map(|id| self.callers.get(id)?.name.clone())
        {
            let (connection, note) = (self.connection.clone(), note.clone());
            self.telling.spawn(async move {
                let _ = control::tell(&connection, &caller, &note).await;
            });
        }
    }

    fn status(&mut self, reply: oneshot::Sender<Vec<WorkerStatus>>) {
        let view = self.fleet.view();
        let now = self.started.elapsed();
        let counts = self.questions.ask(self.proxy.as_ref());
        let performer = Arc::clone(&self.performer);
        self.telling.spawn(async move {
            // A proxy that does not answer costs its numbers, not the report.
            let counts = tokio::time::timeout(Duration::from_secs(2), counts).await;
            let counts: HashMap<Instance, Count> = counts
                .into_iter()
                .flatten()
                .flatten()
                .map(|count| (count.instance.clone(), count))
                .collect();
            let mut report = Vec::new();
            for worker in view {
                let mut generations = Vec::new();
                for run in worker.generations {
                    let usage = performer.systemd.usage(&run.instance).await;
                    generations.push(generation_status(&run, usage, counts.get(&run.instance)));
                }
                let (failure, ago) = match worker.last_failure {
                    Some((failure, at)) => (failure.reason.to_string(), now.saturating_sub(at)),
                    None => (String::new(), Duration::ZERO),
                };
                report.push(WorkerStatus {
                    name: worker.name.to_string(),
                    route: worker.route,
                    state: worker.state.to_owned(),
                    generations,
                    last_failure: failure,
                    last_failure_ago: ago.as_secs(),
                    retry_in: worker
                        .retry_at
                        .map_or(0, |at| at.saturating_sub(now).as_secs().max(1)),
                });
            }
            let _ = reply.send(report);
        });
    }
}

fn generation_status(
    run: &crate::plan::RunView,
    usage: Usage,
    count: Option<&Count>,
) -> GenerationStatus {
    GenerationStatus {
        generation: run.instance.generation.0,
        unit: run.instance.service_unit(),
        stage: run.stage.to_string(),
        pid: usage.pid,
        memory: usage.memory.unwrap_or(0),
        cpu_usec: usage
            .cpu
            .map_or(0, |cpu| u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX)),
        requests: count.map_or(0, |count| count.requests),
        in_flight: count.map_or(0, |count| count.in_flight),
        restarts: usage.restarts,
        since: if usage.pid == 0 {
            0
        } else {
            usage.active_since.unwrap_or(0)
        },
    }
}

/// An outcome as it goes over the bus.
fn told(worker: &WorkerName, outcome: &Outcome, dry_run: bool) -> WorkerOutcome {
    let (word, from, to, reason, log) = match outcome {
        Outcome::Unchanged(generation) => (
            "unchanged",
            generation.0,
            generation.0,
            String::new(),
            Vec::new(),
        ),
        Outcome::Replaced { from: None, to } => ("started", 0, to.0, String::new(), Vec::new()),
        Outcome::Replaced {
            from: Some(from),
            to,
        } => ("replaced", from.0, to.0, String::new(), Vec::new()),
        Outcome::Assets => ("assets", 0, 0, String::new(), Vec::new()),
        Outcome::Removed => ("removed", 0, 0, String::new(), Vec::new()),
        Outcome::Failed(failure) => {
            let to = failure.generation.map_or(0, |generation| generation.0);
            (
                "failed",
                0,
                to,
                failure.reason.to_string(),
                failure.log.clone(),
            )
        }
    };
    let outcome = match word {
        "replaced" if dry_run => "would be replaced",
        "started" if dry_run => "would be started",
        "assets" if dry_run => "would get new assets",
        "removed" if dry_run => "would be removed",
        word => word,
    };
    WorkerOutcome {
        worker: worker.to_string(),
        outcome: outcome.to_owned(),
        from,
        to,
        reason,
        log,
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("mode", &self.mode)
            .field("bus", &self.bus)
            .finish_non_exhaustive()
    }
}

/// Errors as sentences, causes included.
pub fn explain(error: &dyn std::error::Error) -> String {
    chain(error)
}
