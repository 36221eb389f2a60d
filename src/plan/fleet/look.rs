//! What lies on disk, and what a reload makes of it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fleet, Looked, Reload, instance};
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::reconcile::{Change, change, is_passed_over, is_same_program};
use crate::plan::run::Stage;
use crate::plan::worker::{Candidate, Worker};
use crate::plan::{Cause, Failure, Kind, Look, Outcome, Reason, Severity, Source, Spec};

impl Fleet {
    pub(super) fn looked(
        &mut self,
        look: Look,
        looked: Looked,
        snapshots: BTreeMap<WorkerName, (Generation, Spec)>,
    ) {
        match look {
            Look::Start { untried } if !self.ending => self.start(looked, snapshots, untried),
            Look::Reload { id, only, force } => self.reload(id, &only, force, looked),
            Look::Saved(at) if !self.ending => self.saved(at, looked),
            Look::Retry(name) if !self.ending => self.retried(&name, looked),
            Look::Start { .. } | Look::Saved(_) | Look::Retry(_) => {}
        }
    }

    /// Tries a worker again of which nothing was accepted.
    fn retried(&mut self, name: &WorkerName, mut looked: Looked) {
        let production = !self.policy.build;
        // What came in the meantime was asked for by somebody; a try of our own gives way to it.
        let waits = |worker: &&mut Worker| !worker.removed && worker.is_idle();
        let Some(worker) = self.workers.get_mut(name).filter(waits) else {
            return;
        };
        match looked.remove(name) {
            None => self.remove(name, Vec::new()),
            // In production the same files may be tried again, and no others: those may be half deployed.
            Some(Ok(spec)) if production && worker.tried.as_ref() != Some(&spec) => {
                // Why what was tried did not work is still worth knowing.
                worker.trouble.get_or_insert(Reason::Untried);
            }
            Some(found) => self.want(name, found, Vec::new(), false, Cause::Retry),
        }
    }

    fn start(
        &mut self,
        mut looked: Looked,
        snapshots: BTreeMap<WorkerName, (Generation, Spec)>,
        untried: bool,
    ) {
        self.started = true;
        for (name, (generation, spec)) in snapshots {
            let on_disk = looked.remove(&name).is_some();
            if !on_disk && !self.workers.contains_key(&name) {
                // Removed, but its snapshots are kept: its next generation must not take the number of one of them.
                let number = self.numbers.entry(name).or_insert(generation);
                *number = generation.max(*number);
                continue;
            }
            let candidate = self.candidate_of(spec.clone(), Vec::new(), Cause::Start);
            let worker = self.worker(&name);
            // Its units may still be there, on their way down.
            let source = match worker.newest < generation {
                true => Source::Own(generation),
                false => Source::SameAs(generation),
            };
            worker.newest = worker.newest.max(generation);
            if on_disk && worker.serving().is_none() {
                // Also for when what is on its way fails: that was made of it, or after it.
                worker.snapshot = Some((generation, spec));
            }
            if worker.is_idle() && on_disk {
                worker.enqueue(Candidate {
                    source,
                    build: false,
                    ..candidate
                });
            }
        }
        for (name, found) in looked {
            if !self.worker(&name).is_idle() {
                continue;
            }
            match found {
                Ok(_) if !untried => self.worker(&name).trouble = Some(Reason::Untried),
                found => self.want(&name, found, Vec::new(), false, Cause::Start),
            }
        }
    }

    /// Makes a generation of the files of an earlier one. What lies in the worker's directory now is not taken by the next reload.
    pub(super) fn roll_back(&mut self, id: u64, instance: &Instance, spec: Spec) {
        let name = &instance.worker;
        let pending = BTreeSet::from([name.clone()]);
        let outcomes = BTreeMap::new();
        self.reloads.insert(id, Reload { pending, outcomes });
        if self.ending {
            return;
        }
        if self.workers.get(name).is_none_or(|worker| worker.removed) {
            return self.resolve(name, &[id], &Outcome::Failed(no_such(name).into()));
        }
        let candidate = self.candidate_of(spec, vec![id], Cause::Rollback);
        self.overtake(name, Cause::Rollback);
        self.worker(name).enqueue(Candidate {
            source: Source::SameAs(instance.generation),
            build: false,
            ..candidate
        });
    }

    fn reload(&mut self, id: u64, only: &[WorkerName], force: bool, mut looked: Looked) {
        let known = self.workers.values().filter(|worker| !worker.removed);
        let known = known.map(|worker| &worker.name);
        let names: BTreeSet<WorkerName> = match only {
            _ if self.ending => BTreeSet::new(),
            [] => looked.keys().chain(known).cloned().collect(),
            only => only.iter().cloned().collect(),
        };
        let reload = Reload {
            pending: names.clone(),
            outcomes: BTreeMap::new(),
        };
        self.reloads.insert(id, reload);
        for name in names {
            match looked.remove(&name) {
                Some(found) => self.want(&name, found, vec![id], force, Cause::Reload),
                None => self.remove(&name, vec![id]),
            }
        }
    }

    /// Makes what lies on disk what serves.
    pub(super) fn want(
        &mut self,
        name: &WorkerName,
        found: Result<Spec, Reason>,
        reloads: Vec<u64>,
        force: bool,
        cause: Cause,
    ) {
        let worker = self.worker(name);
        worker.removed = false;
        let spec = match found {
            Ok(spec) => spec,
            Err(reason) => {
                return self.failed_without_units(name, None, Some(cause), reason, reloads);
            }
        };
        if worker.waiting.is_some() || worker.candidate().is_some() {
            return self.join_or_follow(name, spec, reloads, force, cause);
        }
        let Some((generation, run)) = worker.serving() else {
            return self.enqueue(name, spec, reloads, cause);
        };
        // What is broken is replaced even if its files are the same.
        match change(run.latest(), &spec, force || run.lacks().is_some()) {
            Change::None if run.assets.is_some() => {
                self.join_assets(name, generation, reloads);
            }
            Change::None => {
                let outcome = match is_passed_over(run.latest(), &spec) {
                    true => Outcome::PassedOver(generation),
                    false => Outcome::Unchanged(generation),
                };
                self.resolve(name, &reloads, &outcome);
            }
            Change::Assets => self.new_assets(name, generation, spec, reloads),
            Change::Generation => self.enqueue(name, spec, reloads, cause),
        }
    }

    /// Something is on its way already. A reload of the same joins it, one of anything else follows.
    fn join_or_follow(
        &mut self,
        name: &WorkerName,
        spec: Spec,
        reloads: Vec<u64>,
        force: bool,
        cause: Cause,
    ) {
        let in_place = self.policy.build;
        let worker = self.worker(name);
        let candidate = worker.runs.values_mut().find(|run| run.is_candidate());
        let under_way = match (&mut worker.waiting, candidate) {
            (Some(waiting), _) => Some((&mut waiting.spec, &mut waiting.reloads, None)),
            (None, Some(run)) => Some((&mut run.spec, &mut run.reloads, Some(&mut run.public))),
            (None, None) => None,
        };
        match under_way {
            Some((same, joined, _)) if change(same, &spec, force) == Change::None => {
                joined.extend(reloads);
            }
            // Assets are served where they lie, and they may be what the build makes: it goes on.
            Some((same, joined, public)) if in_place && !force && is_same_program(same, &spec) => {
                joined.extend(reloads);
                if let Some(public) = public {
                    public.clone_from(&spec.public);
                }
                worker.tried = Some(spec.clone());
                *same = spec;
            }
            _ => {
                let mut reloads = reloads;
                if cause == Cause::Save {
                    reloads.extend(self.supersede(name));
                }
                self.enqueue(name, spec, reloads, cause);
            }
        }
    }

    fn enqueue(&mut self, name: &WorkerName, spec: Spec, reloads: Vec<u64>, cause: Cause) {
        let candidate = self.candidate_of(spec, reloads, cause);
        self.overtake(name, cause);
        self.worker(name).enqueue(candidate);
    }

    /// What waits and is of another kind than what takes its place, a reload and a rollback, will not come about: who asked is told.
    fn overtake(&mut self, name: &WorkerName, cause: Cause) {
        let rollback = |cause: Cause| cause == Cause::Rollback;
        let Some(waiting) = &mut self.worker(name).waiting else {
            return;
        };
        if rollback(waiting.cause) != rollback(cause) {
            let reloads = std::mem::take(&mut waiting.reloads);
            let reason = Reason::Refused(format!("overtaken by a {cause}"));
            self.resolve(name, &reloads, &Outcome::Failed(reason.into()));
        }
    }

    fn candidate_of(&self, spec: Spec, reloads: Vec<u64>, cause: Cause) -> Candidate {
        Candidate {
            spec,
            source: Source::Directory,
            cause,
            build: self.policy.build,
            reloads,
            saved: self.saving,
            since: self.now,
        }
    }

    /// Its directory is gone: what is on its way is stopped, what serves drains.
    pub(super) fn remove(&mut self, name: &WorkerName, mut reloads: Vec<u64>) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(name) else {
            return self.resolve(name, &reloads, &Outcome::Failed(no_such(name).into()));
        };
        if !std::mem::replace(&mut worker.removed, true) {
            (worker.retry_at, worker.retry_after) = (None, None);
            (worker.replace, worker.trouble, worker.snapshot) = (None, None, None);
            let waiting = worker.waiting.take();
            for run in worker.runs.values_mut() {
                if run.stage == Stage::Serving {
                    reloads.extend(run.retire(now));
                }
            }
            let candidate = worker.candidate();
            if let Some(waiting) = waiting {
                let superseded = Outcome::Failed(Reason::Removed.into());
                self.resolve(name, &waiting.reloads, &superseded);
            }
            if let Some(generation) = candidate {
                self.fail(&instance(name, generation), Reason::Removed);
            }
            let text = format!("worker '{name}' was removed");
            self.say(name, None, Severity::Info, Kind::Removed, Vec::new(), text);
        }
        self.switch(name, reloads, Outcome::Removed);
    }
}

pub(super) fn no_such(name: &WorkerName) -> Reason {
    Reason::Unusable(format!("there is no worker '{name}'"))
}

impl From<Reason> for Failure {
    /// A failure that came to no generation.
    fn from(reason: Reason) -> Self {
        Self {
            generation: None,
            reason,
            log: Vec::new(),
        }
    }
}
