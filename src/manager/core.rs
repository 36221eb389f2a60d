//! What the manager's loop holds between two events, and how each kind of event is taken.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::Progress;
use super::control::{Refused, Reply, Request, Which, WorkerOutcome};
use super::link::{LinkEvent, Outbox, Questions};
use super::look::{self, LookError, Sight};
use super::perform::{Launch, Performer, Tasks};
use super::report::told;
use crate::config::Settings;
use crate::deploy::snapshot::Store;
use crate::messages;
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::{Action, Event, Fleet, Found, Look, Outcome, Reason, Spec, Stage, WorkerView};
use crate::wire::{ToManager, ToProxy};

/// How long changes are gathered before they are told in a line.
const TELL_AFTER: Duration = Duration::from_millis(200);
/// How often files that stand in for a journal are looked after.
const TRIM_EVERY: Duration = Duration::from_secs(30);
/// Wait before the workers' directory is looked for again that was not there at the start (a file system that is mounted late).
const START_AGAIN: Duration = Duration::from_secs(2);
/// How long the proxy may take to say where it listens.
const PROXY_WORD: Duration = Duration::from_secs(10);
/// Looks at the disk that may be waited for; further requests wait on the bus.
const LOOKS: usize = 64;

/// A reload of which the proxy may still have something to say.
struct Unconfirmed {
    id: u64,
    outcomes: BTreeMap<WorkerName, Outcome>,
    /// The table that was published when it was over.
    serial: u64,
    until: Instant,
}

/// The look at the disk under way.
pub(super) type Looking = Option<(Wanted, JoinHandle<Result<Sight, LookError>>)>;

/// The end of the look under way; never, if there is none.
pub(super) async fn finished(
    looking: &mut Looking,
) -> Result<Result<Sight, LookError>, tokio::task::JoinError> {
    match looking {
        Some((_, task)) => task.await,
        None => std::future::pending().await,
    }
}

/// Why it is looked at the disk.
pub(super) enum Wanted {
    Start,
    Retry(WorkerName),
    Reload {
        only: Vec<Which>,
        force: bool,
        dry_run: bool,
        caller: Caller,
    },
    Rollback {
        worker: WorkerName,
        generation: Option<Generation>,
        caller: Caller,
    },
}

/// Who waits for the end of something.
#[derive(Default)]
pub(super) struct Caller {
    pub(super) name: Option<String>,
    pub(super) reply: Option<Reply>,
}

impl Caller {
    pub(super) fn answer(self, answer: Result<Vec<WorkerOutcome>, Refused>) {
        if let Some(reply) = self.reply {
            let _ = reply.send(answer);
        }
    }
}

pub(super) struct Core {
    pub(super) fleet: Fleet,
    pub(super) performer: Arc<Performer>,
    pub(super) connection: zbus::Connection,
    pub(super) started: Instant,
    settings: Settings,
    port: Option<u16>,
    runtime_directory: PathBuf,
    pub(super) tasks: Tasks,
    /// What nobody waits for: reports, progress, clearing away.
    pub(super) aside: JoinSet<()>,
    pub(super) proxy: Option<Outbox>,
    pub(super) questions: Questions,
    /// The look at the disk under way. One at a time, so that what is seen later is newer.
    pub(super) looking: Looking,
    looks: VecDeque<Wanted>,
    pub(super) callers: HashMap<u64, Caller>,
    /// Reloads that are over but for the proxy's word on where it listens.
    unconfirmed: Vec<Unconfirmed>,
    /// Generations of another version of this program: they go when ours serve.
    strangers: Vec<Instance>,
    /// What the generations are made of whose log may be asked for.
    specs: HashMap<Instance, Spec>,
    next_reload: u64,
    pub(super) progress: watch::Sender<Progress>,
    trim_at: Instant,
    /// When the changes since the last time are told in a line.
    tell_at: Option<Instant>,
    /// When the first look is tried again, if it could not be taken.
    start_at: Option<Instant>,
    first_look_done: bool,
    /// Serials of the route table that was sent last and of the one the proxy serves by.
    published: u64,
    applied: u64,
    /// The workers are being stopped.
    pub(super) ending: bool,
    /// Everything is stopped: the loop can end.
    pub(super) ended: bool,
}

impl Core {
    pub(super) fn new(
        fleet: Fleet,
        performer: Arc<Performer>,
        connection: zbus::Connection,
        settings: Settings,
        port: Option<u16>,
        runtime_directory: PathBuf,
        progress: watch::Sender<Progress>,
    ) -> Self {
        Self {
            fleet,
            performer,
            connection,
            started: Instant::now(),
            settings,
            port,
            runtime_directory,
            tasks: Tasks::new(),
            aside: JoinSet::new(),
            proxy: None,
            questions: Questions::default(),
            looking: None,
            looks: VecDeque::new(),
            callers: HashMap::new(),
            unconfirmed: Vec::new(),
            strangers: Vec::new(),
            specs: HashMap::new(),
            next_reload: 1,
            progress,
            trim_at: Instant::now() + TRIM_EVERY,
            tell_at: None,
            start_at: None,
            first_look_done: false,
            published: 0,
            applied: 0,
            ending: false,
            ended: false,
        }
    }

    fn tell_grace(&mut self) {
        let grace = self.settings.shutdown_grace;
        self.progress
            .send_if_modified(|progress| std::mem::replace(&mut progress.grace, grace) != grace);
    }

    /// Takes over what runs and looks at what lies on disk.
    pub(super) fn begin(&mut self, found: Vec<Found>, strangers: Vec<Instance>) {
        self.specs = found
            .iter()
            .map(|found| (found.instance.clone(), found.spec.clone()))
            .collect();
        self.step(Event::Adopted(found));
        self.tell_grace();
        self.step(Event::Strangers(strangers.clone()));
        self.strangers = strangers;
        self.looks.push_back(Wanted::Start);
    }

    pub(super) fn deadline(&self) -> Instant {
        let fleet = self.fleet.deadline().map(|moment| self.started + moment);
        let unconfirmed = self.unconfirmed.iter().map(|reload| reload.until);
        let due = fleet.into_iter().chain(self.start_at).chain(self.tell_at);
        let due = due.chain(unconfirmed);
        due.fold(self.trim_at, Instant::min)
    }

    pub(super) fn tick(&mut self) {
        if self.trim_at <= Instant::now() {
            self.performer.journal.trim();
            self.trim_at = Instant::now() + TRIM_EVERY;
        }
        if self.tell_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.tell_summary();
        }
        if self.start_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.looks.push_back(Wanted::Start);
        }
        self.confirm();
        self.step(Event::Tick);
    }

    /// Whether another request can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.looks.len() < LOOKS
    }

    pub(super) fn step(&mut self, event: Event) {
        let actions = self.fleet.step(self.started.elapsed(), event);
        for action in actions {
            self.perform(action);
        }
        self.tell_at.get_or_insert(Instant::now() + TELL_AFTER);
        self.tell_settled();
    }

    fn perform(&mut self, action: Action) {
        let (performer, tasks) = (&self.performer, &mut self.tasks);
        // How long a worker may take to exit on SIGTERM; a reload may have changed it.
        let grace = self.settings.shutdown_grace;
        match action {
            Action::Build(instance, spec) => performer.build(tasks, instance, spec),
            Action::Launch {
                instance,
                spec,
                source,
                address,
                accepted,
            } => {
                self.specs.insert(instance.clone(), spec.clone());
                let launch = Launch {
                    instance,
                    spec,
                    source,
                    address,
                    workers: self.settings.workers_directories.clone(),
                    accepted,
                    stop_timeout: grace,
                };
                performer.launch(tasks, launch);
            }
            Action::Accept(instance, spec) => performer.accept(tasks, instance, spec),
            Action::Assets(instance, spec) => performer.assets(tasks, instance, spec),
            Action::Stop { instance, failed } => {
                let spec = self.specs.remove(&instance);
                performer.stop(tasks, instance, spec, failed, grace);
            }
            Action::Prune { worker, live, last } => self.prune(worker, live, last),
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
            Action::Publish(table) => {
                self.published = table.serial;
                self.say(ToProxy::Publish(table));
            }
            Action::Progress { reloads, note } => self.note(&reloads, note),
            Action::Finish { id, outcomes } => {
                self.unconfirmed.push(Unconfirmed {
                    id,
                    outcomes,
                    serial: self.published,
                    until: Instant::now() + PROXY_WORD,
                });
                self.confirm();
            }
            Action::End => self.ended = true,
        }
    }

    /// Answers the reloads of which the proxy serves by the table they led to, or is not there to say so.
    fn confirm(&mut self) {
        let (now, away) = (Instant::now(), self.proxy.is_none() || self.ending);
        let applied = self.applied;
        let is_over =
            |reload: &Unconfirmed| away || reload.serial <= applied || reload.until <= now;
        let (over, waiting) = std::mem::take(&mut self.unconfirmed)
            .into_iter()
            .partition(is_over);
        self.unconfirmed = waiting;
        let over: Vec<Unconfirmed> = over;
        for reload in over {
            self.finish(reload.id, reload.outcomes);
        }
    }

    fn say(&mut self, message: ToProxy) {
        if self.proxy.as_ref().is_some_and(|proxy| !proxy.say(message)) {
            // It has not read for a long time. With this the link breaks, and begins anew.
            self.proxy = None;
        }
    }

    // ---- the proxy ------------------------------------------------------------------------------------------------------------

    pub(super) fn hear(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(outbox) => {
                self.proxy = Some(outbox);
                self.step(Event::Linked);
            }
            LinkEvent::Down => {
                self.proxy = None;
                self.confirm();
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
        self.applied = serial;
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
        self.confirm();
        self.tell_settled();
    }

    /// The start is over when nothing is on its way any more and the proxy serves what came of it.
    fn tell_settled(&mut self) {
        if !self.first_look_done
            || self.progress.borrow().settled
            || self.progress.borrow().listening.is_empty()
            || self.applied != self.published
        {
            return;
        }
        // What failed is told, with its log, once it has been stopped.
        let is_tried = |worker: &WorkerView| match worker.state {
            "starting" => false,
            "failed" => worker.generations.is_empty() || worker.last_failure.is_some(),
            _ => true,
        };
        if self.fleet.view().iter().all(is_tried) {
            self.progress
                .send_modify(|progress| progress.settled = true);
            let grace = self.settings.shutdown_grace;
            for stranger in std::mem::take(&mut self.strangers) {
                self.performer
                    .stop(&mut self.tasks, stranger, None, false, grace);
            }
        }
    }

    // ---- looking at the disk --------------------------------------------------------------------------------------------------

    /// The routes that are served, and by whom.
    fn held(&self) -> BTreeMap<String, WorkerName> {
        let serves = |worker: &WorkerView| {
            let mut stages = worker.generations.iter().map(|run| run.stage);
            stages.any(|stage| stage == Stage::Serving)
        };
        let view = self.fleet.view().into_iter();
        view.filter(serves)
            .map(|worker| (worker.route, worker.name))
            .collect()
    }

    pub(super) fn look_if_idle(&mut self) {
        if self.looking.is_none()
            && let Some(wanted) = self.looks.pop_front()
        {
            let held = self.held();
            let (settings, mode, port) = (self.settings.clone(), self.performer.mode, self.port);
            self.looking = Some((
                wanted,
                tokio::task::spawn_blocking(move || look::look(&settings, mode, port, &held)),
            ));
        }
    }

    pub(super) fn seen(&mut self, seen: Result<Sight, LookError>) {
        let Some((wanted, _)) = self.looking.take() else {
            return;
        };
        let sight = match seen {
            Ok(mut sight) => {
                let known = self.specs.iter();
                let known = known.map(|(instance, spec)| (&instance.worker, &*spec.directory));
                sight.add_out_of_reach(known);
                sight
            }
            Err(error) => return self.blind(wanted, error),
        };
        match wanted {
            Wanted::Start => self.start(sight),
            Wanted::Retry(name) => self.looked(Look::Retry(name), sight.workers),
            Wanted::Reload {
                only,
                force,
                dry_run: true,
                caller,
            } => {
                let only = self.expand(only, &sight);
                let preview = match &only {
                    Some(only) => self.fleet.preview(&sight.workers, only, force),
                    None => BTreeMap::new(),
                };
                let outcomes = preview.iter();
                caller.answer(Ok(outcomes
                    .map(|(worker, outcome)| told(worker, outcome, true))
                    .collect()));
            }
            Wanted::Reload {
                only,
                force,
                caller,
                ..
            } => self.reload(sight, only, force, caller),
            Wanted::Rollback {
                worker,
                generation,
                caller,
            } => self.roll_back(sight, worker, generation, caller),
        }
    }

    /// What lies on disk could not be looked at.
    fn blind(&mut self, wanted: Wanted, error: LookError) {
        match wanted {
            Wanted::Reload { caller, .. } | Wanted::Rollback { caller, .. } => {
                tracing::error!(
                    message_id = messages::RELOAD_REFUSED,
                    "reload refused, the running configuration stays:\n{error}"
                );
                caller.answer(Err(Refused::Look(error)));
            }
            Wanted::Start => {
                tracing::error!(
                    "the workers can not be read; tried again until they can:\n{error}"
                );
                self.start_at = Some(Instant::now() + START_AGAIN);
            }
            Wanted::Retry(name) => {
                // It stays to be tried, as if it alone were wrong.
                let reason = Reason::Refused(error.to_string());
                let workers = BTreeMap::from([(name.clone(), Err(reason))]);
                self.looked(Look::Retry(name), workers);
            }
        }
    }

    fn looked(&mut self, look: Look, workers: BTreeMap<WorkerName, Result<Spec, Reason>>) {
        self.step(Event::Looked {
            look,
            workers,
            snapshots: BTreeMap::new(),
        });
    }

    fn start(&mut self, sight: Sight) {
        let view = self.fleet.view();
        let store = self.performer.store.clone();
        let snapshots = match &store {
            Some(store) => {
                let snapshots = look::snapshots(store, &sight);
                self.make_room_for_unaccepted(store, &snapshots);
                // What was never accepted is of no use to anybody.
                for worker in store.workers() {
                    let view = view.iter().filter(|view| view.name == worker);
                    let runs = view.flat_map(|view| &view.generations);
                    let live: Vec<_> = runs.map(|run| run.instance.generation).collect();
                    let last = store
                        .generations(&worker)
                        .into_iter()
                        .chain(live.clone())
                        .max();
                    self.prune(worker, live, last.unwrap_or(Generation(0)));
                }
                snapshots
            }
            None => BTreeMap::new(),
        };
        self.first_look_done = true;
        // Where nothing was ever accepted there is nothing to protect, and who installs a server wants to see it work.
        let untried = store.is_none() || snapshots.is_empty();
        self.step(Event::Looked {
            look: Look::Start { untried },
            workers: sight.workers,
            snapshots,
        });
    }

    /// A manager that was killed may have left snapshots that were not accepted: until they are cleared away their numbers are taken.
    fn make_room_for_unaccepted(
        &mut self,
        store: &Store,
        accepted: &BTreeMap<WorkerName, (Generation, Spec)>,
    ) {
        let newest = |worker: WorkerName| {
            let last = store.generations(&worker).into_iter().max()?;
            let is_newer = accepted
                .get(&worker)
                .is_none_or(|(newest, _)| *newest < last);
            is_newer.then(|| Instance::new(worker, last))
        };
        let unaccepted = store.workers().into_iter().filter_map(newest).collect();
        self.step(Event::Strangers(unaccepted));
    }

    /// Nobody waits for it.
    fn prune(&mut self, worker: WorkerName, live: Vec<Generation>, last: Generation) {
        let performer = Arc::clone(&self.performer);
        self.aside
            .spawn(async move { performer.prune(worker, live, last).await });
    }

    // ---- requests -------------------------------------------------------------------------------------------------------------

    pub(super) fn asked(&mut self, request: Request) {
        let wanted = match request {
            Request::Status { reply } => return self.report(reply),
            // Without an answer the caller is told that the manager is about to end.
            _ if self.ending => return,
            Request::Reload {
                only,
                force,
                dry_run,
                caller: name,
                reply,
            } => Wanted::Reload {
                only,
                force,
                dry_run,
                caller: Caller {
                    name,
                    reply: Some(reply),
                },
            },
            Request::Rollback {
                worker,
                generation,
                caller: name,
                reply,
            } => Wanted::Rollback {
                worker,
                generation,
                caller: Caller {
                    name,
                    reply: Some(reply),
                },
            },
        };
        self.looks.push_back(wanted);
    }

    pub(super) fn reload_from_signal(&mut self) {
        tracing::info!("reload asked for by SIGHUP");
        self.looks.push_back(Wanted::Reload {
            only: Vec::new(),
            force: false,
            dry_run: false,
            caller: Caller::default(),
        });
    }

    /// The workers that are meant; `None`: none, and not all.
    fn expand(&self, only: Vec<Which>, sight: &Sight) -> Option<Vec<WorkerName>> {
        if only.is_empty() {
            return Some(Vec::new());
        }
        let mut names = BTreeSet::new();
        for which in only {
            match which {
                Which::Worker(name) => {
                    names.insert(name);
                }
                Which::Below(directory) => {
                    let lies = |spec: &Spec| spec.directory.starts_with(&directory);
                    let there = sight.workers.iter().filter(|(name, found)| match found {
                        Ok(spec) => lies(spec),
                        Err(_) => directory.join(name.directory()).is_dir(),
                    });
                    names.extend(there.map(|(name, _)| name.clone()));
                    let known = self.specs.iter().filter(|(_, spec)| lies(spec));
                    names.extend(known.map(|(instance, _)| instance.worker.clone()));
                }
            }
        }
        (!names.is_empty()).then(|| names.into_iter().collect())
    }

    /// Takes what a look for somebody who asked has brought: a number for the request, and the server's settings as they are now.
    fn take_over(&mut self, sight: &Sight, caller: Caller) -> u64 {
        if !self.first_look_done {
            // What was accepted comes first, whatever is deployed by now.
            self.start_at = None;
            self.start(sight.clone());
        }
        let id = self.next_reload;
        self.next_reload += 1;
        self.callers.insert(id, caller);
        self.tell_reloading();
        id
    }

    fn reload(&mut self, sight: Sight, only: Vec<Which>, force: bool, caller: Caller) {
        let Some(only) = self.expand(only, &sight) else {
            return caller.answer(Ok(Vec::new()));
        };
        let id = self.take_over(&sight, caller);
        self.settings = sight.settings;
        self.tell_grace();
        let policy = look::policy(&self.settings, self.performer.mode, &self.runtime_directory);
        if self.progress.borrow().problem.is_some() {
            // What could not be had may be free by now.
            self.fleet.publish_again();
        }
        self.step(Event::Configured(policy));
        self.looked(Look::Reload { id, only, force }, sight.workers);
    }

    fn roll_back(
        &mut self,
        sight: Sight,
        worker: WorkerName,
        generation: Option<Generation>,
        caller: Caller,
    ) {
        let serving = self.fleet.serving(&worker);
        let found = match &self.performer.store {
            Some(store) => look::to_roll_back_to(store, &sight, &worker, serving, generation),
            None => Err("in development nothing is kept to go back to".to_owned()),
        };
        let (generation, spec) = match found {
            Ok(found) => found,
            Err(sentence) => return caller.answer(Err(Refused::Argument(sentence))),
        };
        let id = self.take_over(&sight, caller);
        self.step(Event::Rollback {
            id,
            instance: Instance::new(worker, generation),
            spec: Box::new(spec),
        });
    }
}
