//! All workers together: events in, actions out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::reconcile::{Change, change};
use super::run::{Run, Stage};
use super::worker::{Candidate, Worker};
use super::{
    Action, Event, Failure, Found, Look, Moment, Note, Outcome, Policy, Reason, RunView, Severity,
    Source, Spec, WorkerView, loopback,
};
use crate::config::{Listen, WorkerType};
use crate::names::{Generation, Instance, WorkerName};
use crate::route::{Address, RouteTable};
use crate::systemd::{Activity, Ending, ServiceState};
use crate::wire::ProbeOutcome;

/// Most generations that are built, launched or checked at the same time.
const SIDE_BY_SIDE: usize = 64;
/// How long a switch may wait for the proxy's word before the reload is told that it is away.
const PROXY_PATIENCE: Duration = Duration::from_secs(30);

type Looked = BTreeMap<WorkerName, Result<Spec, Reason>>;

/// The state of all workers.
pub struct Fleet {
    policy: Policy,
    workers: BTreeMap<WorkerName, Worker>,
    reloads: BTreeMap<u64, Reload>,
    /// Outcomes that hold once the proxy serves by the table they led to.
    switches: Vec<Switch>,
    linked: bool,
    published: Option<RouteTable>,
    serial: u64,
    probes: BTreeMap<u64, Instance>,
    next_probe: u64,
    ending: bool,
    now: Moment,
    actions: Vec<Action>,
}

struct Reload {
    pending: BTreeSet<WorkerName>,
    outcomes: BTreeMap<WorkerName, Outcome>,
}

struct Switch {
    worker: WorkerName,
    reloads: Vec<u64>,
    outcome: Outcome,
    serial: Option<u64>,
    since: Moment,
}

impl Fleet {
    /// A fleet without workers.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            workers: BTreeMap::new(),
            reloads: BTreeMap::new(),
            switches: Vec::new(),
            linked: false,
            published: None,
            serial: 0,
            probes: BTreeMap::new(),
            next_probe: 0,
            ending: false,
            now: Moment::ZERO,
            actions: Vec::new(),
        }
    }

    /// Takes one event and says what to do now.
    pub fn step(&mut self, now: Moment, event: Event) -> Vec<Action> {
        self.now = now;
        self.take(event);
        self.act_on_time();
        self.start_waiting();
        self.publish();
        self.finish_reloads();
        if self.ending && self.workers.values().all(|worker| worker.runs.is_empty()) {
            self.actions.push(Action::End);
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due, if nothing happens before.
    pub fn deadline(&self) -> Option<Moment> {
        let runs = self
            .workers
            .values()
            .flat_map(|worker| worker.runs.values())
            .filter_map(|run| {
                // A request that can not be sent is not due: the proxy's return is an event of its own.
                let probe = run.probe_at.filter(|_| self.linked);
                match run.stage {
                    Stage::Serving => probe,
                    Stage::Activating => run.ready_by.into_iter().chain(probe).min(),
                    _ => run.due(&self.policy),
                }
            });
        let retries = self.workers.values().filter_map(|worker| worker.retry_at);
        let switches = self
            .switches
            .iter()
            .map(|switch| switch.since + PROXY_PATIENCE);
        runs.chain(retries).chain(switches).min()
    }

    /// All workers, as `tqserver status` shows them.
    pub fn view(&self) -> Vec<WorkerView> {
        self.workers.values().map(view).collect()
    }

    /// What a reload would do, without doing it.
    pub fn preview(
        &self,
        looked: &BTreeMap<WorkerName, Result<Spec, Reason>>,
        only: &[WorkerName],
        force: bool,
    ) -> BTreeMap<WorkerName, Outcome> {
        let all = looked.keys().chain(self.workers.keys());
        let names: BTreeSet<&WorkerName> = if only.is_empty() {
            all.collect()
        } else {
            only.iter().collect()
        };
        let outcome = |name: &WorkerName| {
            let worker = self.workers.get(name);
            let serving = worker.and_then(Worker::serving);
            let failed = |reason: &Reason| {
                Outcome::Failed(Failure {
                    generation: None,
                    reason: reason.clone(),
                    log: Vec::new(),
                })
            };
            match (looked.get(name), serving) {
                (Some(Err(reason)), _) => failed(reason),
                (None, _) if worker.is_none() => failed(&no_such(name)),
                (None, _) => Outcome::Removed,
                (Some(Ok(_)), None) => Outcome::Replaced {
                    from: None,
                    to: Generation(0),
                },
                (Some(Ok(spec)), Some((generation, run))) => {
                    match change(&run.spec, spec, force || run.broken.is_some()) {
                        Change::None => Outcome::Unchanged(generation),
                        Change::Assets => Outcome::Assets,
                        Change::Generation => Outcome::Replaced {
                            from: Some(generation),
                            to: generation.next(),
                        },
                    }
                }
            }
        };
        names
            .into_iter()
            .map(|name| (name.clone(), outcome(name)))
            .collect()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Adopted(found) => found.into_iter().for_each(|found| self.adopt(found)),
            Event::Looked {
                look,
                workers,
                snapshots,
            } => self.looked(look, workers, snapshots),
            Event::Configured(policy) => self.policy = policy,
            Event::Built(instance, result) => self.built(&instance, result),
            Event::Launched(instance, result) => self.launched(&instance, result),
            Event::Unit(instance, state) => self.unit_changed(&instance, state),
            Event::SocketFailed(instance) => self.socket_failed(&instance),
            Event::Probed(id, outcome) => self.probed(id, &outcome),
            Event::Accepted(instance, result) => self.accepted(&instance, result),
            Event::AssetsReady(instance, result) => self.assets_ready(&instance, result),
            Event::Stopped(instance, log) => self.stopped(&instance, log),
            Event::Linked => {
                self.linked = true;
                // The proxy that comes back may be another process: it needs the table, and its answers to be asked again.
                self.published = None;
            }
            Event::Unlinked => self.unlinked(),
            Event::Applied(serial) => self.applied(serial),
            Event::Drained(instance) => {
                if let Some(run) = self
                    .run(&instance)
                    .filter(|run| run.stage == Stage::Draining)
                {
                    run.drained = true;
                }
            }
            Event::Spent(instance) => self.spent(&instance),
            Event::StopAll => self.stop_all(),
            Event::Tick => {}
        }
    }

    fn run(&mut self, instance: &Instance) -> Option<&mut Run> {
        self.workers
            .get_mut(&instance.worker)?
            .runs
            .get_mut(&instance.generation)
    }

    fn worker(&mut self, name: &WorkerName) -> &mut Worker {
        self.workers
            .entry(name.clone())
            .or_insert_with(|| Worker::new(name.clone()))
    }

    // ---- what was found -------------------------------------------------------------------------------------------------------

    fn adopt(&mut self, found: Found) {
        let now = self.now;
        let Instance {
            worker: name,
            generation,
        } = found.instance.clone();
        let (accepted, listening) = (found.accepted, found.listening);
        let mut run = Run::new(
            found.spec,
            Source::Directory,
            found.address,
            Stage::Activating,
            now,
        );
        run.public = found.public;
        run.ready_by = Some(now + run.spec.settings.health.start_timeout);
        run.probe_at = Some(now);
        if accepted {
            run.enter(Stage::Serving, now);
            run.probe_at = health_due(&run, now);
        }
        let failure = found.service.failure.clone().map(Reason::Ended);
        run.service = found.service;
        let worker = self.worker(&name);
        worker.newest = worker.newest.max(generation);
        worker.runs.insert(generation, run);
        // Of several that passed, the newest serves; it took over from the others.
        let accepted: Vec<_> = worker
            .runs
            .iter()
            .filter(|(_, run)| run.stage == Stage::Serving)
            .map(|(number, _)| *number)
            .collect();
        for older in accepted.iter().rev().skip(1) {
            if let Some(run) = worker.runs.get_mut(older) {
                run.enter(Stage::Draining, now);
            }
        }
        self.note(
            &found.instance,
            Severity::Info,
            Vec::new(),
            format!("adopted generation {generation}"),
        );
        if !listening {
            self.socket_broke(&found.instance, failure);
        }
    }

    fn looked(
        &mut self,
        look: Look,
        mut looked: Looked,
        snapshots: BTreeMap<WorkerName, (Generation, Spec)>,
    ) {
        match look {
            Look::Start => {
                for (name, (generation, spec)) in snapshots {
                    let worker = self.worker(&name);
                    worker.newest = worker.newest.max(generation);
                    looked.remove(&name);
                    if worker.runs.is_empty() {
                        worker.enqueue(Candidate {
                            spec,
                            source: Source::SameAs(generation),
                            build: false,
                            reloads: Vec::new(),
                        });
                    }
                }
                for (name, found) in looked {
                    if self.worker(&name).runs.is_empty() {
                        self.want(&name, found, Vec::new(), false);
                    }
                }
            }
            Look::Retry(name) => match looked.remove(&name) {
                Some(found) => self.want(&name, found, Vec::new(), true),
                None => self.remove(&name, Vec::new()),
            },
            Look::Reload { id, only, force } => self.reload(id, &only, force, looked),
        }
    }

    fn reload(&mut self, id: u64, only: &[WorkerName], force: bool, mut looked: Looked) {
        let names: BTreeSet<WorkerName> = if only.is_empty() {
            looked.keys().chain(self.workers.keys()).cloned().collect()
        } else {
            only.iter().cloned().collect()
        };
        self.reloads.insert(
            id,
            Reload {
                pending: names.clone(),
                outcomes: BTreeMap::new(),
            },
        );
        for name in names {
            match looked.remove(&name) {
                Some(found) => self.want(&name, found, vec![id], force),
                None => self.remove(&name, vec![id]),
            }
        }
    }

    /// Makes what lies on disk what serves.
    fn want(
        &mut self,
        name: &WorkerName,
        found: Result<Spec, Reason>,
        reloads: Vec<u64>,
        force: bool,
    ) {
        let build = self.policy.build;
        let worker = self.worker(name);
        worker.removed = false;
        let spec = match found {
            Ok(spec) => spec,
            Err(reason) => return self.failed_without_units(name, None, reason, reloads),
        };
        let running = match (
            &worker.waiting,
            worker
                .candidate()
                .and_then(|number| worker.runs.get(&number)),
        ) {
            (Some(waiting), _) => Some((waiting.spec.clone(), None)),
            (None, Some(candidate)) => Some((candidate.spec.clone(), None)),
            (None, None) => worker.serving().map(|(number, run)| {
                (
                    run.assets.as_ref().unwrap_or(&run.spec).clone(),
                    Some(number),
                )
            }),
        };
        // What is broken is replaced even if its files are the same.
        let force = force
            || worker
                .serving()
                .is_some_and(|(_, run)| run.broken.is_some());
        let candidate = |spec, reloads| Candidate {
            spec,
            source: Source::Directory,
            build,
            reloads,
        };
        match running {
            None => worker.enqueue(candidate(spec, reloads)),
            Some((old, serving)) => match (change(&old, &spec, force), serving) {
                (Change::None, Some(generation)) => {
                    self.resolve(name, &reloads, &Outcome::Unchanged(generation))
                }
                (Change::Assets, Some(generation)) => {
                    self.new_assets(name, generation, spec, reloads)
                }
                // The same is on its way already: this reload joins it.
                (Change::None, None) => match (
                    &mut worker.waiting,
                    worker.runs.values_mut().find(|run| run.is_candidate()),
                ) {
                    (Some(waiting), _) => waiting.reloads.extend(reloads),
                    (None, Some(run)) => run.reloads.extend(reloads),
                    (None, None) => worker.enqueue(candidate(spec, reloads)),
                },
                // Something else is on its way: this follows.
                (Change::Generation, _) | (Change::Assets, None) => {
                    worker.enqueue(candidate(spec, reloads))
                }
            },
        }
    }

    fn remove(&mut self, name: &WorkerName, reloads: Vec<u64>) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(name) else {
            let reason = no_such(name);
            return self.resolve(
                name,
                &reloads,
                &Outcome::Failed(Failure {
                    generation: None,
                    reason,
                    log: Vec::new(),
                }),
            );
        };
        worker.removed = true;
        (worker.retry_at, worker.retry_after, worker.replace) = (None, None, None);
        let waiting = worker
            .waiting
            .take()
            .map(|candidate| candidate.reloads)
            .unwrap_or_default();
        worker
            .runs
            .values_mut()
            .filter(|run| run.stage == Stage::Serving)
            .for_each(|run| run.enter(Stage::Draining, now));
        let candidate = worker.candidate();
        let superseded = Failure {
            generation: None,
            reason: Reason::Removed,
            log: Vec::new(),
        };
        self.resolve(name, &waiting, &Outcome::Failed(superseded));
        if let Some(generation) = candidate {
            self.fail(&Instance::new(name.clone(), generation), Reason::Removed);
        }
        self.switch(name, reloads, Outcome::Removed);
        let instance = Instance::new(name.clone(), Generation(0));
        self.say(
            &instance.worker,
            None,
            Severity::Info,
            Vec::new(),
            format!("worker '{name}' was removed"),
        );
    }

    // ---- a candidate's way ----------------------------------------------------------------------------------------------------

    fn start_waiting(&mut self) {
        if self.ending {
            return;
        }
        let mut under_way = self
            .workers
            .values()
            .filter(|worker| worker.candidate().is_some())
            .count();
        let names: Vec<WorkerName> = self
            .workers
            .values()
            .filter(|w| w.waiting.is_some() && w.candidate().is_none())
            .map(|w| w.name.clone())
            .collect();
        for name in names {
            if under_way >= SIDE_BY_SIDE {
                break;
            }
            self.begin(&name);
            under_way += 1;
        }
    }

    fn begin(&mut self, name: &WorkerName) {
        let now = self.now;
        let Some(candidate) = self
            .workers
            .get_mut(name)
            .and_then(|worker| worker.waiting.take())
        else {
            return;
        };
        let generation = self.worker(name).newest.next();
        let instance = Instance::new(name.clone(), generation);
        let address = match candidate.spec.settings.listen {
            Listen::Socket => Some(Address::Unix(
                self.policy
                    .sockets
                    .join(format!("{name}@{generation}.sock")),
            )),
            Listen::Port => self.free_port().map(loopback),
        };
        let Some(address) = address else {
            let (first, last) = (self.policy.ports.start(), self.policy.ports.end());
            let reason = Reason::Refused(format!(
                "no port from {first} to {last} is free; widen workers.port_range_start/_end"
            ));
            return self.failed_without_units(name, None, reason, candidate.reloads);
        };
        let build = candidate.build && candidate.spec.settings.kind != WorkerType::Static;
        let stage = if build {
            Stage::Building
        } else {
            Stage::Launching
        };
        let mut run = Run::new(candidate.spec, candidate.source, address, stage, now);
        run.reloads = candidate.reloads;
        self.actions.push(if build {
            Action::Build(instance.clone(), run.spec.clone())
        } else {
            launch(&instance, &run)
        });
        let worker = self.worker(name);
        worker.newest = generation;
        (worker.retry_at, worker.retry_after) = (None, None);
        worker.runs.insert(generation, run);
    }

    fn free_port(&self) -> Option<u16> {
        let taken: BTreeSet<u16> = self
            .workers
            .values()
            .flat_map(|worker| worker.runs.values())
            .filter_map(|run| match run.address {
                Address::Tcp(address) => Some(address.port()),
                Address::Unix(_) => None,
            })
            .collect();
        self.policy.ports.clone().find(|port| !taken.contains(port))
    }

    fn built(&mut self, instance: &Instance, result: Result<(), Reason>) {
        let now = self.now;
        let Some(run) = self
            .run(instance)
            .filter(|run| run.stage == Stage::Building)
        else {
            return;
        };
        match result {
            Ok(()) => {
                run.enter(Stage::Launching, now);
                let action = launch(instance, run);
                self.actions.push(action);
            }
            Err(reason) => self.drop_candidate(instance, reason),
        }
    }

    fn launched(
        &mut self,
        instance: &Instance,
        result: Result<Option<std::path::PathBuf>, Reason>,
    ) {
        let (now, delay) = (self.now, self.policy.startup_delay);
        let Some(run) = self
            .run(instance)
            .filter(|run| run.stage == Stage::Launching)
        else {
            return;
        };
        match result {
            Ok(public) => {
                run.public = public;
                if run.spec.settings.kind == WorkerType::Static {
                    run.enter(Stage::Accepting, now);
                    let spec = run.spec.clone();
                    return self.actions.push(Action::Accept(instance.clone(), spec));
                }
                run.enter(Stage::Activating, now);
                run.ready_by = Some(now + delay + run.spec.settings.health.start_timeout);
                run.probe_at = Some(now + delay);
                let reloads = run.reloads.clone();
                let text = format!(
                    "generation {} of '{}' is starting",
                    instance.generation, instance.worker
                );
                self.note(instance, Severity::Info, reloads, text);
            }
            Err(reason) => self.fail(instance, reason),
        }
    }

    fn unit_changed(&mut self, instance: &Instance, state: ServiceState) {
        let now = self.now;
        let Some(run) = self.run(instance) else {
            return;
        };
        let died = state
            .failure
            .clone()
            .filter(|_| state.activity != run.service.activity)
            .map(Reason::Ended);
        let ended = run.observe(state);
        if run.stage == Stage::Serving && run.probe_at.is_none() {
            run.probe_at = health_due(run, now);
        }
        let serving = run.stage == Stage::Serving;
        if let Some(reason) = ended {
            return self.fail(instance, reason);
        }
        if let Some(reason) = died.filter(|_| serving) {
            let failure = Failure {
                generation: Some(instance.generation),
                reason: reason.clone(),
                log: Vec::new(),
            };
            self.worker(&instance.worker).last_failure = Some((failure, now));
            let text = format!(
                "generation {} of '{}' ended: {reason}; systemd restarts it",
                instance.generation, instance.worker
            );
            self.note(instance, Severity::Warning, Vec::new(), text);
            // A worker on a port has no socket whose failure would tell that systemd has given up.
            let given_up = self.run(instance).is_some_and(|run| {
                matches!(run.address, Address::Tcp(_)) && run.service.activity == Activity::Failed
            });
            if given_up {
                self.socket_broke(instance, Some(reason));
            }
        }
    }

    fn socket_failed(&mut self, instance: &Instance) {
        let Some(run) = self.run(instance) else {
            return;
        };
        let reason = run.service.failure.clone().map(Reason::Ended);
        match run.stage {
            Stage::Activating => self.fail(
                instance,
                reason.unwrap_or_else(|| {
                    Reason::Ended(Ending::Other("its socket failed".to_owned()))
                }),
            ),
            _ => self.socket_broke(instance, reason),
        }
    }

    /// The serving generation can not be started by systemd any more: a new one of the same files is due.
    fn socket_broke(&mut self, instance: &Instance, reason: Option<Reason>) {
        let now = self.now;
        let Some(run) = self
            .run(instance)
            .filter(|run| run.stage == Stage::Serving && run.broken.is_none())
        else {
            return;
        };
        let known = self
            .workers
            .get(&instance.worker)
            .and_then(|worker| worker.last_failure.as_ref());
        let reason = reason
            .or_else(|| known.map(|(failure, _)| failure.reason.clone()))
            .unwrap_or_else(|| Reason::Ended(Ending::Other("start-limit-hit".to_owned())));
        let Some(run) = self.run(instance) else {
            return;
        };
        run.broken = Some(reason.clone());
        run.probe_at = None;
        let served = now - run.since;
        let worker = self.worker(&instance.worker);
        worker.replace = Some("it ended again and again".to_owned());
        worker.last_failure = Some((
            Failure {
                generation: Some(instance.generation),
                reason: reason.clone(),
                log: Vec::new(),
            },
            now,
        ));
        worker.schedule_retry(served, now);
        let text = format!(
            "'{}' does not serve: generation {} ended again and again: {reason}; it is tried again",
            instance.worker, instance.generation
        );
        self.note(instance, Severity::Error, Vec::new(), text);
    }

    fn probed(&mut self, id: u64, outcome: &ProbeOutcome) {
        let now = self.now;
        let Some(instance) = self.probes.remove(&id) else {
            return;
        };
        let Some(run) = self.run(&instance).filter(|run| run.probe == Some(id)) else {
            return;
        };
        match run.stage {
            Stage::Activating => match run.judge(outcome, now) {
                Ok(true) => {
                    run.enter(Stage::Accepting, now);
                    let spec = run.spec.clone();
                    self.actions.push(Action::Accept(instance, spec));
                }
                Ok(false) => {}
                Err(reason) => self.fail(&instance, reason),
            },
            Stage::Serving => self.checked(&instance, outcome),
            _ => {}
        }
    }

    /// A periodic health request was answered, or not.
    fn checked(&mut self, instance: &Instance, outcome: &ProbeOutcome) {
        let now = self.now;
        let Some(run) = self.run(instance) else {
            return;
        };
        run.probe = None;
        run.probe_at = health_due(run, now);
        if outcome.is_healthy() {
            run.unhealthy = 0;
            return;
        }
        run.unhealthy += 1;
        let (times, most) = (run.unhealthy, run.spec.settings.health.failures);
        let reason = match outcome {
            ProbeOutcome::Status(status) => Reason::HttpStatus(*status),
            ProbeOutcome::TimedOut => Reason::NotReady(run.spec.settings.health.timeout),
            ProbeOutcome::Broken(how) => Reason::Broken(how.clone()),
        };
        let served = now - run.since;
        let text = format!(
            "generation {} of '{}' failed {times} health requests in a row: {reason}",
            instance.generation, instance.worker
        );
        self.note(instance, Severity::Warning, Vec::new(), text);
        let worker = self.worker(&instance.worker);
        worker.last_failure = Some((
            Failure {
                generation: Some(instance.generation),
                reason,
                log: Vec::new(),
            },
            now,
        ));
        if times >= most && worker.replace.is_none() {
            worker.replace = Some(format!("it failed {times} health requests in a row"));
            worker.schedule_retry(served, now);
            worker.retry_at = Some(now);
        }
    }

    fn accepted(&mut self, instance: &Instance, result: Result<(), Reason>) {
        let now = self.now;
        let Some(run) = self
            .run(instance)
            .filter(|run| run.stage == Stage::Accepting)
        else {
            return;
        };
        if let Err(reason) = result {
            return self.fail(instance, reason);
        }
        run.enter(Stage::Serving, now);
        run.unhealthy = 0;
        run.probe_at = health_due(run, now);
        let reloads = std::mem::take(&mut run.reloads);
        let worker = self.worker(&instance.worker);
        (worker.trouble, worker.replace) = (None, None);
        (worker.retry_at, worker.retry_after) = (None, None);
        let mut from = None;
        for (number, older) in worker
            .runs
            .range_mut(..instance.generation)
            .filter(|(_, run)| run.stage == Stage::Serving)
        {
            older.enter(Stage::Draining, now);
            from = Some(*number);
        }
        let text = match from {
            Some(from) => format!(
                "generation {} of '{}' took over from generation {from}",
                instance.generation, instance.worker
            ),
            None => format!(
                "generation {} of '{}' serves",
                instance.generation, instance.worker
            ),
        };
        self.note(instance, Severity::Info, reloads.clone(), text);
        let to = instance.generation;
        self.switch(&instance.worker, reloads, Outcome::Replaced { from, to });
    }

    fn fail(&mut self, instance: &Instance, reason: Reason) {
        let now = self.now;
        let Some(run) = self.run(instance).filter(|run| run.is_candidate()) else {
            return;
        };
        match run.stage {
            Stage::Building => return self.drop_candidate(instance, reason),
            // The units are being made this moment: they can be stopped when that has ended.
            Stage::Launching if reason == Reason::Removed => return,
            _ => {}
        }
        run.enter(Stage::Stopping, now);
        run.failed = Some(reason);
        self.actions.push(Action::Stop {
            instance: instance.clone(),
            failed: true,
        });
    }

    fn drop_candidate(&mut self, instance: &Instance, reason: Reason) {
        let Some(run) = self
            .worker(&instance.worker)
            .runs
            .remove(&instance.generation)
        else {
            return;
        };
        self.failed_without_units(
            &instance.worker,
            Some(instance.generation),
            reason,
            run.reloads,
        );
    }

    fn failed_without_units(
        &mut self,
        name: &WorkerName,
        generation: Option<Generation>,
        reason: Reason,
        reloads: Vec<u64>,
    ) {
        let log = match &reason {
            Reason::Build(_, output) => output.clone(),
            _ => Vec::new(),
        };
        self.failed(
            name,
            Failure {
                generation,
                reason,
                log,
            },
            reloads,
        );
    }

    /// A candidate failed and nothing of it is left.
    fn failed(&mut self, name: &WorkerName, failure: Failure, reloads: Vec<u64>) {
        let now = self.now;
        let worker = self.worker(name);
        worker.last_failure = Some((failure.clone(), now));
        let serving = worker
            .serving()
            .filter(|(_, run)| run.broken.is_none())
            .map(|(number, _)| number);
        if serving.is_none() {
            worker.trouble = Some(failure.reason.clone());
        }
        if (serving.is_none() || worker.replace.is_some())
            && failure.reason.may_pass()
            && !worker.removed
        {
            worker.schedule_retry(Duration::ZERO, now);
        }
        let what = match failure.generation {
            Some(generation) => format!("generation {generation} of '{name}' failed"),
            None => format!("'{name}' can not be started"),
        };
        let (severity, then) = match serving {
            Some(number) => (Severity::Warning, format!(", keeping generation {number}")),
            None => (Severity::Error, String::new()),
        };
        self.say(
            name,
            failure.generation,
            severity,
            reloads.clone(),
            format!("{what}: {}{then}", failure.reason),
        );
        self.resolve(name, &reloads, &Outcome::Failed(failure));
    }

    fn stopped(&mut self, instance: &Instance, log: Vec<String>) {
        let Some(worker) = self.workers.get_mut(&instance.worker) else {
            return;
        };
        let Some(run) = worker.runs.remove(&instance.generation) else {
            return;
        };
        let (removed, last) = (
            worker.removed,
            worker.runs.is_empty() && worker.waiting.is_none(),
        );
        let kept: Vec<Generation> = worker.runs.keys().copied().collect();
        self.actions
            .push(Action::Prune(instance.worker.clone(), kept));
        match run.failed {
            Some(reason) => {
                self.failed(
                    &instance.worker,
                    Failure {
                        generation: Some(instance.generation),
                        reason,
                        log,
                    },
                    run.reloads,
                );
            }
            None => {
                let text = format!(
                    "generation {} of '{}' is stopped",
                    instance.generation, instance.worker
                );
                self.note(instance, Severity::Info, Vec::new(), text);
            }
        }
        if removed && last {
            self.workers.remove(&instance.worker);
        }
    }

    // ---- assets ---------------------------------------------------------------------------------------------------------------

    fn new_assets(
        &mut self,
        name: &WorkerName,
        generation: Generation,
        spec: Spec,
        reloads: Vec<u64>,
    ) {
        let instance = Instance::new(name.clone(), generation);
        let Some(run) = self.run(&instance) else {
            return;
        };
        run.reloads.extend(reloads);
        run.assets = Some(spec.clone());
        self.actions.push(Action::Assets(instance, spec));
    }

    fn assets_ready(&mut self, instance: &Instance, result: Result<std::path::PathBuf, Reason>) {
        let Some(run) = self.run(instance) else {
            return;
        };
        let reloads = std::mem::take(&mut run.reloads);
        match (result, run.assets.take()) {
            (Ok(public), Some(spec)) => {
                run.public = Some(public);
                run.spec = spec;
                self.note(
                    instance,
                    Severity::Info,
                    reloads.clone(),
                    format!("the assets of '{}' are live", instance.worker),
                );
                self.switch(&instance.worker, reloads, Outcome::Assets);
            }
            (Err(reason), _) => self.failed_without_units(&instance.worker, None, reason, reloads),
            (Ok(_), None) => {}
        }
    }

    // ---- the proxy ------------------------------------------------------------------------------------------------------------

    fn unlinked(&mut self) {
        self.linked = false;
        self.probes.clear();
        let now = self.now;
        // Requests for health that were under way are asked again when the proxy is back.
        for run in self
            .workers
            .values_mut()
            .flat_map(|worker| worker.runs.values_mut())
        {
            if run.probe.take().is_some() {
                run.probe_at = Some(now);
            }
        }
    }

    fn applied(&mut self, serial: u64) {
        let now = self.now;
        for run in self
            .workers
            .values_mut()
            .flat_map(|worker| worker.runs.values_mut())
        {
            if run.stage == Stage::Draining
                && run.drain_began.is_none()
                && run.drain_serial.is_some_and(|first| first <= serial)
            {
                run.drain_began = Some(now);
            }
        }
        let (done, waiting) = std::mem::take(&mut self.switches)
            .into_iter()
            .partition(|switch: &Switch| switch.serial.is_some_and(|s| s <= serial));
        self.switches = waiting;
        for switch in done {
            self.resolve(&switch.worker, &switch.reloads, &switch.outcome);
        }
    }

    fn spent(&mut self, instance: &Instance) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&instance.worker) else {
            return;
        };
        let serves = worker
            .serving()
            .is_some_and(|(number, _)| number == instance.generation);
        if serves && worker.replace.is_none() && worker.candidate().is_none() {
            worker.replace = Some("it has answered its max_requests".to_owned());
            worker.retry_at = Some(now);
        }
    }

    /// The table follows from the state. It is sent when it differs from what the proxy has.
    fn publish(&mut self) {
        if !self.linked {
            return;
        }
        let mut routes: Vec<_> = self.workers.values().filter_map(Worker::route).collect();
        // Two workers on one path can stand here for a moment, while one of them goes: who serves has it.
        routes.sort_by_key(|route| {
            (
                route.path.clone(),
                matches!(route.target, crate::route::Target::Unavailable { .. }),
            )
        });
        routes.dedup_by(|second, first| second.path == first.path);
        let draining: Vec<Instance> = self
            .workers
            .values()
            .flat_map(|worker| {
                worker
                    .runs
                    .iter()
                    .map(move |(number, run)| (&worker.name, *number, run))
            })
            .filter(|(_, _, run)| run.stage == Stage::Draining)
            .map(|(name, number, _)| Instance::new(name.clone(), number))
            .collect();
        let table = RouteTable {
            serial: self.serial,
            front: self.policy.front.clone(),
            routes,
            draining,
        };
        if self.published.as_ref() != Some(&table) {
            self.serial += 1;
            let table = RouteTable {
                serial: self.serial,
                ..table
            };
            self.published = Some(table.clone());
            self.actions.push(Action::Publish(table));
        }
        let serial = self.serial;
        for run in self
            .workers
            .values_mut()
            .flat_map(|worker| worker.runs.values_mut())
            .filter(|run| run.stage == Stage::Draining)
        {
            run.drain_serial.get_or_insert(serial);
        }
        for switch in &mut self.switches {
            switch.serial.get_or_insert(serial);
        }
    }

    // ---- time -----------------------------------------------------------------------------------------------------------------

    fn act_on_time(&mut self) {
        let now = self.now;
        let mut late = Vec::new();
        let mut ask = Vec::new();
        for worker in self.workers.values_mut() {
            for (number, run) in &mut worker.runs {
                let instance = || Instance::new(worker.name.clone(), *number);
                match run.stage {
                    Stage::Activating if run.ready_by.is_some_and(|at| at <= now) => {
                        late.push(instance())
                    }
                    Stage::Activating | Stage::Serving
                        if self.linked
                            && run.probe.is_none()
                            && run.probe_at.is_some_and(|at| at <= now) =>
                    {
                        ask.push(instance());
                    }
                    Stage::Draining if run.drain_over(&self.policy).is_some_and(|at| at <= now) => {
                        run.enter(Stage::Stopping, now);
                        self.actions.push(Action::Stop {
                            instance: instance(),
                            failed: false,
                        });
                    }
                    _ => {}
                }
            }
        }
        late.iter().for_each(|instance| self.too_late(instance));
        ask.into_iter().for_each(|instance| self.ask(instance));
        self.retry();
        let (late, waiting) = std::mem::take(&mut self.switches)
            .into_iter()
            .partition(|switch: &Switch| switch.since + PROXY_PATIENCE <= now);
        self.switches = waiting;
        for switch in late {
            let failure = Failure {
                generation: None,
                reason: Reason::NoProxy,
                log: Vec::new(),
            };
            self.resolve(&switch.worker, &switch.reloads, &Outcome::Failed(failure));
        }
    }

    fn too_late(&mut self, instance: &Instance) {
        let linked = self.linked;
        let Some(run) = self.run(instance) else {
            return;
        };
        let reason = match run.last_answer.take() {
            _ if !linked => Reason::NoProxy,
            Some(answer @ (Reason::HttpStatus(_) | Reason::Broken(_))) => answer,
            _ => Reason::NotReady(run.spec.settings.health.start_timeout),
        };
        self.fail(instance, reason);
    }

    fn ask(&mut self, instance: Instance) {
        let (now, id) = (self.now, self.next_probe);
        let Some(run) = self.run(&instance) else {
            return;
        };
        let health = &run.spec.settings.health;
        let timeout = match run.ready_by.filter(|_| run.stage == Stage::Activating) {
            Some(ready_by) => ready_by.saturating_sub(now),
            None => health.timeout,
        };
        // The worker that sleeps is well; asking would wake it.
        if run.stage == Stage::Serving && run.service.activity != Activity::Active {
            run.probe_at = health_due(run, now);
            return;
        }
        (run.probe, run.probe_at) = (Some(id), None);
        let (address, path) = (run.address.clone(), run.health_path());
        self.next_probe += 1;
        self.probes.insert(id, instance.clone());
        self.actions.push(Action::Probe {
            id,
            instance,
            address,
            path,
            timeout,
        });
    }

    fn retry(&mut self) {
        let (now, build) = (self.now, self.policy.build);
        let mut look = Vec::new();
        for worker in self
            .workers
            .values_mut()
            .filter(|worker| worker.retry_at.is_some_and(|at| at <= now))
        {
            worker.retry_at = None;
            if worker.candidate().is_some() || worker.waiting.is_some() || worker.removed {
                continue;
            }
            match worker
                .serving()
                .map(|(number, run)| (number, run.spec.clone()))
            {
                // In production only files that passed their check may follow themselves.
                Some((number, spec)) => {
                    let source = if build {
                        Source::Directory
                    } else {
                        Source::SameAs(number)
                    };
                    worker.enqueue(Candidate {
                        spec,
                        source,
                        build: false,
                        reloads: Vec::new(),
                    });
                }
                None => look.push(worker.name.clone()),
            }
        }
        self.actions.extend(look.into_iter().map(Action::Look));
    }

    fn stop_all(&mut self) {
        let now = self.now;
        self.ending = true;
        for worker in self.workers.values_mut() {
            worker.waiting = None;
            (worker.retry_at, worker.removed) = (None, true);
            worker.runs.retain(|_, run| run.stage != Stage::Building);
            for (number, run) in worker
                .runs
                .iter_mut()
                .filter(|(_, run)| run.stage != Stage::Stopping)
            {
                // What is being launched is stopped too; systemd queues the one behind the other.
                run.enter(Stage::Stopping, now);
                self.actions.push(Action::Stop {
                    instance: Instance::new(worker.name.clone(), *number),
                    failed: false,
                });
            }
        }
    }

    // ---- telling --------------------------------------------------------------------------------------------------------------

    /// An outcome that holds as soon as the proxy serves by the table that is about to be published.
    fn switch(&mut self, worker: &WorkerName, reloads: Vec<u64>, outcome: Outcome) {
        let since = self.now;
        self.switches.push(Switch {
            worker: worker.clone(),
            reloads,
            outcome,
            serial: None,
            since,
        });
    }

    fn resolve(&mut self, worker: &WorkerName, reloads: &[u64], outcome: &Outcome) {
        for id in reloads {
            if let Some(reload) = self.reloads.get_mut(id)
                && reload.pending.remove(worker)
            {
                reload.outcomes.insert(worker.clone(), outcome.clone());
            }
        }
    }

    fn finish_reloads(&mut self) {
        let ending = self.ending;
        let over = self
            .reloads
            .extract_if(.., |_, reload| reload.pending.is_empty() || ending);
        let finished = over.map(|(id, reload)| Action::Finish {
            id,
            outcomes: reload.outcomes,
        });
        self.actions.extend(finished);
    }

    fn note(&mut self, instance: &Instance, severity: Severity, reloads: Vec<u64>, text: String) {
        self.say(
            &instance.worker,
            Some(instance.generation),
            severity,
            reloads,
            text,
        );
    }

    fn say(
        &mut self,
        worker: &WorkerName,
        generation: Option<Generation>,
        severity: Severity,
        reloads: Vec<u64>,
        text: String,
    ) {
        let note = Note {
            severity,
            worker: worker.clone(),
            generation,
            text,
        };
        self.actions.push(Action::Progress { reloads, note });
    }
}

fn no_such(name: &WorkerName) -> Reason {
    Reason::Unusable(format!("there is no worker '{name}'"))
}

fn launch(instance: &Instance, run: &Run) -> Action {
    Action::Launch {
        instance: instance.clone(),
        spec: run.spec.clone(),
        source: run.source,
        address: run.address.clone(),
    }
}

fn health_due(run: &Run, now: Moment) -> Option<Moment> {
    let interval = run.spec.settings.health.interval;
    let asked =
        run.spec.settings.kind != WorkerType::Static && run.broken.is_none() && !interval.is_zero();
    asked.then(|| now + interval)
}

fn view(worker: &Worker) -> WorkerView {
    let route = worker
        .route()
        .map_or_else(String::new, |route| route.path.to_string());
    let generations = worker.runs.iter().rev().map(|(number, run)| RunView {
        instance: Instance::new(worker.name.clone(), *number),
        stage: run.stage,
        address: run.address.clone(),
        since: run.since,
        service: run.service.clone(),
    });
    WorkerView {
        name: worker.name.clone(),
        route,
        state: worker.state(),
        generations: generations.collect(),
        last_failure: worker.last_failure.clone(),
        retry_at: worker.retry_at,
    }
}
