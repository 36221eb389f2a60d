//! What must hold at every step, and what at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::disk::Behaviour;
use super::systemd::Unit;
use super::{GRACE, Happening, Moment, World};
use crate::config::WorkerType;
use crate::names::{Instance, Pair, WorkerName};
use crate::plan::reconcile::is_passed_over;
use crate::plan::run::Stage;
use crate::plan::{Action, Event, Outcome, Reason, Spec};

/// Longest time any reload may take.
const RELOAD: Duration = Duration::from_secs(90);
/// Longest time a reload of one good worker takes with nothing of that worker in its way, whatever others do.
const GOOD_RELOAD: Duration = Duration::from_secs(8);

/// A reload that somebody waits for.
#[derive(Debug)]
pub(super) struct Asked {
    at: Moment,
    workers: BTreeMap<WorkerName, Option<Result<Spec, Reason>>>,
    /// What served, and was well.
    before: BTreeMap<WorkerName, Spec>,
    /// Whether nothing of these workers was under way.
    free: bool,
    /// Something else happened to one of its workers, or the link: how it ends is then not certain.
    disturbed: bool,
}

impl Asked {
    pub(super) fn new(
        world: &mut World,
        seen: &BTreeMap<WorkerName, Result<Spec, Reason>>,
        only: &[WorkerName],
        force: bool,
    ) -> Self {
        let known = world.fleet.workers();
        let all = known.values().filter(|worker| !worker.removed);
        let names: BTreeSet<WorkerName> = match only {
            [] => seen.keys().chain(all.map(|w| &w.name)).cloned().collect(),
            only => only.iter().cloned().collect(),
        };
        let serving = |name: &WorkerName| {
            let (_, run) = known.get(name)?.serving()?;
            (run.broken.is_none()).then(|| (name.clone(), run.spec.clone()))
        };
        let before = names.iter().filter_map(serving).collect();
        let free = names
            .iter()
            .filter_map(|name| known.get(name))
            .all(|worker| {
                worker.waiting.is_none() && !worker.is_full() && worker.replace.is_none()
            });
        let mut disturbed = world.proxy.link.is_none() || force && !free;
        for other in world.asked.values_mut() {
            if other.workers.keys().any(|name| names.contains(name)) {
                (other.disturbed, disturbed) = (true, true);
            }
        }
        Self {
            at: world.now,
            workers: names
                .into_iter()
                .map(|name| (name.clone(), seen.get(&name).cloned()))
                .collect(),
            before,
            free,
            disturbed,
        }
    }
}

impl Asked {
    /// A rollback: how it ends depends on what it goes back to.
    pub(super) fn rollback(world: &World, worker: &WorkerName) -> Self {
        Self {
            at: world.now,
            workers: BTreeMap::from([(worker.clone(), None)]),
            before: BTreeMap::new(),
            free: false,
            disturbed: true,
        }
    }
}

impl World {
    /// Something happens to a worker, or to all.
    pub(super) fn disturb(&mut self, worker: Option<&WorkerName>) {
        for asked in self.asked.values_mut() {
            asked.disturbed |= worker.is_none_or(|name| asked.workers.contains_key(name));
        }
    }

    /// The manager hears of a mishap that has nothing to do with what a version is like.
    pub(super) fn disturb_by(&mut self, event: &Event) {
        let worker = match event {
            Event::Built(instance, Err(Reason::Refused(_)))
            | Event::Launched(instance, Err(_))
            | Event::Accepted(instance, Err(_))
            | Event::AssetsReady(instance, Err(_)) => &instance.worker,
            Event::Unit(pair, _) | Event::SocketFailed(pair) => {
                let harmed = |unit: &Unit| unit.harmed;
                if !self.units.get(pair).is_some_and(harmed) {
                    return;
                }
                &pair.instance.worker
            }
            _ => return,
        };
        self.disturb(Some(worker));
    }

    pub(super) fn check_action(&mut self, action: &Action) {
        match action {
            Action::Launch { instance, .. } => {
                assert!(
                    self.begun.insert(instance.clone()),
                    "{instance} launched twice"
                );
                assert!(
                    !self.abandoned.contains(instance),
                    "{instance} was given up, and comes back"
                );
                let of_worker = |known: &&Instance| known.worker == instance.worker;
                let loaded = self.units.keys().map(|pair| &pair.instance);
                let newest = loaded.chain(&self.begun).filter(of_worker).max();
                assert_eq!(newest, Some(instance), "numbers only grow");
            }
            Action::Stop { instance, .. } => {
                assert!(
                    self.stopped.insert(instance.clone()),
                    "{instance} stopped twice"
                );
                if !self.stopping {
                    self.check_stop(instance);
                }
            }
            Action::Accept(instance, spec) => {
                let shown = self.proxy.shown.contains(instance);
                assert!(
                    shown || spec.settings.kind == WorkerType::Static,
                    "{instance} is accepted before the proxy serves by a table with it"
                );
            }
            _ => {}
        }
    }

    fn check_stop(&self, instance: &Instance) {
        let mut pairs = self.proxy.pairs().into_iter();
        let serves = pairs.any(|pair| pair.instance == *instance && !self.broken.contains(&pair));
        assert!(!serves, "{instance} is stopped while it serves");
        let in_flight = self.proxy.in_flight.get(instance);
        if in_flight.is_some_and(|in_flight| !in_flight.is_empty()) {
            let left = self.proxy.left.get(instance).copied();
            let over = left.is_some_and(|left| left + GRACE <= self.now);
            assert!(over, "{instance} is stopped with a request in flight");
        }
    }

    pub(super) fn check_step(&self) {
        for worker in self.fleet.workers().values() {
            let live = worker.runs.values().filter(|run| run.is_live()).count();
            assert!(live <= 2, "{live} live generations of '{}'", worker.name);
            let serving = worker
                .runs
                .values()
                .filter(|run| run.stage == Stage::Serving);
            assert!(serving.count() <= 1, "two serving of '{}'", worker.name);
        }
        self.check_starts();
    }

    /// No more instances are being started than is allowed, with those that have been at it for long.
    fn check_starts(&self) {
        let workers = self.fleet.workers().values();
        let runs = workers.flat_map(|worker| worker.runs.values());
        let starting = runs.filter(|run| {
            let begins = matches!(
                run.stage,
                Stage::Building | Stage::Launching | Stage::Activating
            );
            begins && run.is_candidate() && run.starts()
        });
        let (mut generations, mut instances) = (0, 0);
        for run in starting {
            generations += 1;
            instances += usize::from(run.pairs());
        }
        let most = 4 * self.policy.concurrent_starts;
        assert!(
            generations <= 1 || instances <= most,
            "{instances} instances are being started, and {most} are the most"
        );
    }

    /// Limits are lowered of what runs, and of nothing else.
    pub(super) fn check_limit(&self, instance: &Instance) {
        let worker = self.fleet.workers().get(&instance.worker);
        let is_known = worker.is_some_and(|worker| worker.runs.contains_key(&instance.generation));
        assert!(is_known, "{instance} is not there");
    }

    /// A request arrives at an instance: it must be there, unless it has ended by itself.
    pub(super) fn check_reachable(&self, pair: &Pair) {
        if self.stopping {
            return;
        }
        let unit = self.units.get(pair);
        let there = unit.is_some_and(|unit| !unit.stopping) || self.broken.contains(pair);
        assert!(there, "a request to {pair} is lost");
    }

    pub(super) fn check_finish(&mut self, id: u64, outcomes: &BTreeMap<WorkerName, Outcome>) {
        let Some(asked) = self.asked.remove(&id) else {
            panic!("reload {id} ended twice, or was never asked for");
        };
        let told = outcomes.keys().eq(asked.workers.keys());
        assert!(told || self.stopping, "reload {id}: {outcomes:?}");
        let took = self.now - asked.at;
        assert!(took <= RELOAD, "reload {id} took {took:?}");
        if asked.disturbed || self.stopping {
            return;
        }
        for (name, outcome) in outcomes {
            self.check_outcome(&asked, name, outcome);
        }
        let mut good = asked.workers.values().flatten().flatten();
        // Others that never get ready, or memory that never comes, may be waited for.
        let is_roomy = self.policy.concurrent_starts == 8 && self.memory.is_none();
        let quick = is_roomy && asked.free && good.all(|spec| Behaviour::of(spec).works());
        assert!(
            !quick || took <= GOOD_RELOAD,
            "good reload {id} took {took:?}"
        );
    }

    fn check_outcome(&self, asked: &Asked, name: &WorkerName, outcome: &Outcome) {
        let failed = matches!(outcome, Outcome::Failed(_));
        let serves = self.fleet.workers().get(name);
        let serves = serves.and_then(|worker| worker.serving());
        let serves = serves.map(|(_, run)| run.spec.clone());
        match asked.workers.get(name).cloned().flatten() {
            None => assert!(
                failed || *outcome == Outcome::Removed,
                "{name}: {outcome:?}"
            ),
            Some(Ok(spec)) if self.works(&spec) => {
                assert!(!failed, "{name}: {outcome:?}");
                let passed_over = serves
                    .as_ref()
                    .is_some_and(|run| is_passed_over(run, &spec));
                if !passed_over {
                    assert_eq!(serves, Some(spec), "{name}: {outcome:?}");
                }
            }
            Some(bad) => {
                // What works by chance or was accepted by an earlier one is no failure; nor is what somebody has gone back from, even if
                // what serves in its place is just being replaced by another one of the same.
                let passed_over = bad.as_ref().ok().zip(serves.as_ref());
                let passed_over = passed_over.is_some_and(|(bad, run)| is_passed_over(run, bad));
                assert!(
                    failed
                        || bad.as_ref().ok() == serves.as_ref()
                        || passed_over
                        || matches!(outcome, Outcome::PassedOver(_)),
                    "{name}: {outcome:?}"
                );
                if let Some(before) = asked.before.get(name).filter(|_| failed) {
                    assert_eq!(serves.as_ref(), Some(before), "{name} did not keep serving");
                }
            }
        }
    }

    fn works(&self, spec: &Spec) -> bool {
        Behaviour::of(spec).works()
    }

    /// All is quiet: what can work works, and nothing is left of the rest.
    pub(super) fn check_rest(&self) {
        assert!(
            self.asked.is_empty(),
            "reloads never ended: {:?}",
            self.asked.keys()
        );
        let workers = self.fleet.workers();
        for (name, found) in &self.disk {
            let worker = workers.get(name).expect("a worker on disk is known");
            let serving = worker.serving().filter(|(_, run)| run.broken.is_none());
            match found.behaviour {
                Behaviour::Good | Behaviour::Slow => {
                    let spec = serving.map(|(_, run)| &run.spec);
                    let unwanted = |spec: &Spec| is_passed_over(spec, &found.spec);
                    if !spec.is_some_and(unwanted) {
                        assert_eq!(spec, Some(&found.spec), "'{name}' serves what is on disk");
                    }
                }
                Behaviour::Waits => assert!(serving.is_some(), "'{name}' came back"),
                Behaviour::BadBuild => {}
                // Production waits for somebody to mend it.
                Behaviour::BadConfig if !self.policy.build => {}
                _ if serving.is_none() => {
                    let tried = worker.retry_at.is_some()
                        || worker.candidate().is_some()
                        || worker.waiting.is_some();
                    let stops = worker.runs.values().any(|run| run.stage == Stage::Stopping);
                    let looks = |happening: &Happening| matches!(happening, Happening::Look(..));
                    let going = stops || self.agenda.values().any(looks);
                    assert!(tried || going, "'{name}' is tried again");
                }
                _ => {}
            }
            if serving.is_some() {
                assert_eq!(worker.runs.len(), 1, "'{name}' has only what serves");
            }
        }
        for name in workers.keys() {
            assert!(self.disk.contains_key(name), "'{name}' was removed");
        }
        for pair in self.units.keys() {
            let Instance { worker, generation } = &pair.instance;
            let known = workers.get(worker);
            let known = known.is_some_and(|worker| worker.runs.contains_key(generation));
            assert!(known, "{pair} is left over");
        }
        self.check_table();
    }

    fn check_table(&self) {
        let serving = self.fleet.workers().values().filter_map(|worker| {
            let (number, run) = worker.serving()?;
            let runs = run.broken.is_none() && run.spec.settings.kind != WorkerType::Static;
            runs.then(|| Instance::new(worker.name.clone(), number))
        });
        let in_table: BTreeSet<_> = self.proxy.serving().into_iter().collect();
        assert_eq!(in_table, serving.collect(), "the table is what serves");
        for pair in &self.proxy.pairs() {
            assert!(self.units.contains_key(pair), "{pair} has units");
        }
        for instance in &in_table {
            let run = &self.fleet.workers()[&instance.worker].runs[&instance.generation];
            let pairs = self.proxy.pairs();
            let pairs = pairs.iter().filter(|pair| pair.instance == *instance);
            let works = Behaviour::of(&run.spec).works();
            assert!(
                !works || pairs.count() == usize::from(run.pairs()),
                "{instance} has all of its instances"
            );
        }
    }

    /// The manager was told to stop all.
    pub(super) fn check_end(&self) {
        assert!(self.ended, "the manager did not end");
        assert!(self.asked.is_empty(), "a reload was left without an answer");
        assert!(self.units.is_empty(), "left over: {:?}", self.units.keys());
    }
}
