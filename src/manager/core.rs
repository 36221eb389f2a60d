//! What the manager's loop holds between two events, and how events and the actions they lead to are taken. What somebody asks for is taken in
//! `wishes`, what is told in `report`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::disk::SMALL;
use super::halts::{Halts, Waiting, Written};
use super::link::{LinkEvent, Outbox, Questions};
use super::perform::{Build, Early, Launch, Performer, Stop, Tasks};
use super::report::answering;
use super::state::{Measured, States};
use super::strays::{Sweeps, Swept};
use super::wishes::{Caller, Looking, Wanted};
use super::{BuildWatch, Progress};
use crate::config::{Files, Instead, Settings};
use crate::effort::Effort;
use crate::names::{Instance, Pair, WorkerName};
use crate::plan::{Action, Event, Fleet, Found, Outcome, Spec, WorkerView};
use crate::systemd::available_memory;
use crate::wire::{FrontState, ToManager, ToProxy};

/// In the state directory: the server.yaml that was taken over last.
pub const KEPT: &str = ".server.yaml";
/// How long changes are gathered before they are told in a line.
const TELL_AFTER: Duration = Duration::from_millis(200);
/// How often it is looked at most how much memory there is.
const MEMORY_EVERY: Duration = Duration::from_millis(200);
/// How often files that stand in for a journal are looked after.
const TRIM_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked for workers that are gone, when nothing else makes the manager look.
const SWEEP_EVERY: Duration = Duration::from_secs(6 * 3600);
/// How long the proxy may take to say where it listens.
pub(super) const PROXY_WORD: Duration = Duration::from_secs(10);

/// A reload of which the proxy may still have something to say.
struct Unconfirmed {
    id: u64,
    outcomes: BTreeMap<WorkerName, Outcome>,
    /// The table that was published when it was over.
    serial: u64,
    until: Instant,
}

pub(super) struct Core {
    pub(super) fleet: Fleet,
    pub(super) performer: Arc<Performer>,
    pub(super) connection: zbus::Connection,
    pub(super) started: Instant,
    pub(super) settings: Settings,
    pub(super) instead: Instead,
    pub(super) runtime_directory: PathBuf,
    pub(super) tasks: Tasks,
    pub(super) halts: Halts,
    /// Who waits until what they put before a worker is in force.
    pub(super) halting: Vec<Waiting>,
    /// What is being written for that.
    pub(super) writing: JoinSet<Written>,
    /// What nobody waits for: reports, progress, clearing away.
    pub(super) aside: JoinSet<()>,
    /// Looks for what no record knows, and stops of it.
    pub(super) swept: JoinSet<Swept>,
    pub(super) sweeps: Sweeps,
    pub(super) states: States,
    pub(super) measuring: JoinSet<Measured>,
    pub(super) proxy: Option<Outbox>,
    pub(super) questions: Questions,
    /// The look at the disk under way. One at a time, so that what is seen later is newer.
    pub(super) looking: Looking,
    /// Of looks: one that hangs keeps it.
    pub(super) look_turn: Arc<Mutex<()>>,
    pub(super) looks: VecDeque<Wanted>,
    /// Of writing the copy of server.yaml.
    keep_turn: Arc<Mutex<()>>,
    /// What the files of workers said when they were read last.
    pub(super) files: Arc<Files>,
    pub(super) callers: HashMap<u64, Caller>,
    /// Reloads that are over but for the proxy's word on where it listens.
    unconfirmed: Vec<Unconfirmed>,
    /// Generations of another version of this program: they go when ours serve.
    pub(super) strangers: Vec<Pair>,
    /// What the generations are made of whose log may be asked for.
    pub(super) specs: HashMap<Instance, Spec>,
    pub(super) next_reload: u64,
    pub(super) progress: watch::Sender<Progress>,
    trim_at: Instant,
    sweep_at: Instant,
    /// When it was looked last how much memory there is.
    memory_at: Option<Instant>,
    /// When the changes since the last time are told in a line.
    tell_at: Option<Instant>,
    /// When the first look is tried again, if it could not be taken.
    pub(super) start_at: Option<Instant>,
    pub(super) first_look_done: bool,
    /// What was told of a server.yaml that is wrong, so that it is not told with each file that is saved.
    pub(super) told_wrong: Option<String>,
    /// Builds under way, and how to end them.
    builds: HashMap<Instance, CancellationToken>,
    /// Builds that nobody has asked for yet.
    pub(super) early: HashMap<WorkerName, Early>,
    /// Serials of the route table that was sent last and of the one the proxy serves by.
    pub(super) published: u64,
    pub(super) applied: u64,
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
        instead: Instead,
        halts: Halts,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let runtime_directory = performer.runtime_directory.clone();
        Self {
            fleet,
            performer,
            connection,
            started: Instant::now(),
            settings,
            instead,
            runtime_directory,
            tasks: Tasks::new(),
            halts,
            halting: Vec::new(),
            writing: JoinSet::new(),
            aside: JoinSet::new(),
            swept: JoinSet::new(),
            sweeps: Sweeps::default(),
            states: States::default(),
            measuring: JoinSet::new(),
            proxy: None,
            questions: Questions::default(),
            looking: None,
            look_turn: Arc::default(),
            keep_turn: Arc::default(),
            looks: VecDeque::new(),
            files: Arc::default(),
            callers: HashMap::new(),
            unconfirmed: Vec::new(),
            strangers: Vec::new(),
            specs: HashMap::new(),
            next_reload: 1,
            progress,
            trim_at: Instant::now() + TRIM_EVERY,
            sweep_at: Instant::now() + SWEEP_EVERY,
            memory_at: None,
            tell_at: None,
            start_at: None,
            first_look_done: false,
            told_wrong: None,
            builds: HashMap::new(),
            early: HashMap::new(),
            published: 0,
            applied: 0,
            ending: false,
            ended: false,
        }
    }

    pub(super) fn tell_grace(&mut self) {
        let grace = self.settings.shutdown_grace;
        self.progress
            .send_if_modified(|progress| std::mem::replace(&mut progress.grace, grace) != grace);
    }

    /// What was taken over is what the next manager starts with should server.yaml be wrong by then. Nobody waits for it.
    pub(super) fn keep_settings(&mut self) {
        let Some(state) = self.performer.state_directory.clone() else {
            return;
        };
        let settings = self.settings.clone();
        let (disk, turn) = (self.performer.disk.clone(), Arc::clone(&self.keep_turn));
        self.aside.spawn(async move {
            let copy = state.join(KEPT);
            let path = copy.clone();
            let what = || format!("write {}", path.display());
            let kept = async {
                let turn = disk.turn(SMALL, what, turn.lock_owned()).await?;
                let keep = move |_: &Effort| {
                    let _turn = turn;
                    settings.keep(&copy)
                };
                disk.run(SMALL, what, keep).await
            };
            let problem = match kept.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::warn!("no copy of server.yaml could be kept: {problem}");
        });
    }

    /// Takes over what runs and looks at what lies on disk.
    pub(super) fn begin(&mut self, found: Vec<Found>, strangers: Vec<Pair>) {
        self.specs = found
            .iter()
            .map(|found| (found.instance.clone(), found.spec.clone()))
            .collect();
        self.begin_halts();
        self.step(Event::Adopted(found));
        self.tell_grace();
        self.keep_settings();
        let taken = strangers.iter().map(|pair| pair.instance.clone());
        self.step(Event::Strangers(taken.collect()));
        self.strangers = strangers;
        self.sweep(true);
        self.looks.push_back(Wanted::Start);
    }

    pub(super) fn deadline(&self) -> Instant {
        let fleet = self.fleet.deadline().map(|moment| self.started + moment);
        let unconfirmed = self.unconfirmed.iter().map(|reload| reload.until);
        let due = fleet.into_iter().chain(self.start_at).chain(self.tell_at);
        let due = due.chain(unconfirmed).chain(self.halt_deadline());
        let due = due.chain(self.states.deadline().filter(|_| !self.ending));
        due.fold(self.trim_at, Instant::min)
    }

    pub(super) fn tick(&mut self) {
        if self.trim_at <= Instant::now() {
            self.trim();
            self.trim_at = Instant::now() + TRIM_EVERY;
        }
        if self.sweep_at <= Instant::now() {
            if self.performer.store.is_some() && self.has_room() {
                self.looks.push_back(Wanted::Sweep);
            }
            self.sweep_at = Instant::now() + SWEEP_EVERY;
        }
        if self.tell_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.tell_summary();
        }
        if self.start_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.looks.push_back(Wanted::Start);
        }
        self.measure_if_due();
        self.confirm();
        self.expire_halts();
        self.step(Event::Tick);
    }

    /// Nobody waits for it.
    fn trim(&mut self) {
        let performer = Arc::clone(&self.performer);
        if !performer.journal.is_trimmed() {
            return;
        }
        self.aside.spawn(async move {
            let (disk, journal) = (&performer.disk, performer.journal.clone());
            let what = || "look after the output of workers".to_owned();
            if let Err(error) = disk.run(SMALL, what, move |_| journal.trim()).await {
                tracing::warn!("{error}");
            }
        });
    }

    pub(super) fn step(&mut self, event: Event) {
        let by_itself = event == Event::Tick;
        if let Event::Built(instance, _) = &event {
            self.builds.remove(instance);
        }
        self.look_at_memory();
        let actions = self.fleet.step(self.started.elapsed(), event);
        // A moment in which nothing happened is no news.
        if !by_itself || !actions.is_empty() {
            self.tell_at.get_or_insert(Instant::now() + TELL_AFTER);
        }
        for action in actions {
            self.perform(action);
        }
        self.tell_settled();
    }

    /// What can be started depends on it. These are files of the kernel's: reading them takes microseconds.
    fn look_at_memory(&mut self) {
        let now = Instant::now();
        if self.memory_at.is_some_and(|at| now < at + MEMORY_EVERY) {
            return;
        }
        self.memory_at = Some(now);
        let group = self.performer.systemd.known_group();
        let memory = Event::Memory(available_memory(group.as_ref()));
        for action in self.fleet.step(self.started.elapsed(), memory) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        let (performer, tasks) = (&self.performer, &mut self.tasks);
        // How long a worker may take to exit on SIGTERM; a reload may have changed it.
        let grace = self.settings.shutdown_grace;
        match action {
            Action::Build(instance, spec) => {
                let build = self.build(instance.clone(), spec);
                self.builds
                    .insert(instance.clone(), build.abandoned.clone());
                let early = self.early.remove(&instance.worker);
                let early = early.filter(|early| early.spec == build.spec);
                if let Some(early) = &early {
                    self.fleet.was_begun(
                        &instance,
                        early.since.saturating_duration_since(self.started),
                    );
                }
                self.performer.build(&mut self.tasks, build, early);
            }
            Action::Abandon(instance) => {
                if let Some(build) = self.builds.remove(&instance) {
                    build.cancel();
                }
            }
            Action::Launch {
                instance,
                spec,
                source,
                addresses,
                accepted,
            } => {
                self.specs.insert(instance.clone(), spec.clone());
                let launch = Launch {
                    instance,
                    spec,
                    source,
                    addresses,
                    workers: self.settings.workers_directories.clone(),
                    snapshot: self.settings.snapshots,
                    ports: self.settings.ports.clone(),
                    accepted,
                    stop_timeout: grace,
                };
                performer.launch(tasks, launch);
            }
            Action::Accept(instance, spec) => {
                performer.accept(tasks, &mut self.aside, instance, spec)
            }
            Action::Assets(instance, spec) => {
                performer.assets(tasks, instance, spec, self.settings.snapshots);
            }
            Action::Stop {
                instance,
                pairs,
                failed,
                accepted,
            } => {
                let spec = self.specs.remove(&instance);
                let stop = Stop {
                    failed: failed.zip(spec),
                    instance,
                    pairs,
                    accepted,
                    timeout: grace,
                };
                performer.stop(tasks, stop);
            }
            Action::Prune { worker, live, last } => self.prune(worker, live, last),
            Action::Look(worker) => self.looks.push_back(Wanted::Retry(worker)),
            Action::Probe {
                id,
                address,
                protocol,
                path,
                timeout,
                ..
            } => self.say(ToProxy::Probe {
                id,
                address,
                protocol,
                path,
                timeout,
            }),
            Action::Limit(instance, spec) => {
                self.specs.insert(instance.clone(), spec.clone());
                let performer = Arc::clone(performer);
                self.aside
                    .spawn(async move { performer.limit(instance, spec).await });
            }
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

    pub(super) fn build(&self, instance: Instance, spec: Spec) -> Build {
        Build {
            instance,
            spec,
            limits: self.settings.build,
            abandoned: CancellationToken::new(),
            watch: BuildWatch(self.progress.clone()),
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
            let late = !away && reload.serial > applied;
            let late = late.then(|| {
                let waited = PROXY_WORD.as_secs();
                format!("the proxy did not take over the route table within {waited} s and goes on as before")
            });
            self.finish(reload.id, reload.outcomes, late);
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
                self.settle_halts();
                self.questions.forget();
                self.step(Event::Unlinked);
            }
            LinkEvent::Said(message) => match message {
                ToManager::Hello { .. } => {}
                ToManager::Applied { serial, front } => self.applied(serial, front),
                ToManager::Front(front) => self.met(front),
                ToManager::Drained(instance) => self.step(Event::Drained(instance)),
                ToManager::Probed { id, outcome } => self.step(Event::Probed(id, outcome)),
                ToManager::Exposed { id } => self.step(Event::Exposed(id)),
                ToManager::Quiet(worker) => self.quiet(&worker),
                ToManager::Spent(instance) => self.step(Event::Spent(instance)),
                ToManager::Counted { id, counts } => self.questions.answer(id, counts),
            },
        }
    }

    /// The proxy meets clients like this.
    fn met(&mut self, front: FrontState) {
        let front = front.tidied();
        let before = self.progress.borrow().front.clone();
        match &front.problem {
            Some(problem) if before.problem.as_ref() != Some(problem) => {
                tracing::error!("{problem}; trying again");
            }
            None if before.problem.is_some() => {
                tracing::info!("the proxy listens wherever it should");
            }
            _ => {}
        }
        if before != front {
            self.progress.send_modify(|progress| progress.front = front);
        }
    }

    fn applied(&mut self, serial: u64, front: FrontState) {
        self.applied = serial;
        self.step(Event::Applied(serial));
        self.met(front);
        self.confirm();
        self.settle_halts();
        self.tell_settled();
    }

    /// The start is over when nothing is on its way any more and the proxy serves what came of it.
    fn tell_settled(&mut self) {
        if !self.first_look_done
            || self.progress.borrow().settled
            || !self.progress.borrow().is_met()
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
        let view = self.fleet.view();
        if view.iter().all(is_tried) {
            self.progress.send_modify(|progress| {
                (progress.settled, progress.routes) = (true, answering(&view));
            });
            let grace = self.settings.shutdown_grace;
            let strangers = std::mem::take(&mut self.strangers);
            let mut pairs = BTreeMap::new();
            for Pair { instance, number } in strangers {
                let most = pairs.entry(instance).or_insert(number);
                *most = number.max(*most);
            }
            for (instance, pairs) in pairs {
                let stop = Stop {
                    instance,
                    pairs,
                    failed: None,
                    accepted: true,
                    timeout: grace,
                };
                self.performer.stop(&mut self.tasks, stop);
            }
        }
    }
}
