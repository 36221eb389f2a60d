//! What lies on disk, and what a reload makes of it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fleet, Looked, Reload, instance};
use crate::names::{Generation, WorkerName};
use crate::plan::reconcile::{Change, change};
use crate::plan::run::Stage;
use crate::plan::worker::{Candidate, Worker};
use crate::plan::{Failure, Look, Outcome, Reason, Severity, Source, Spec};

impl Fleet {
    pub(super) fn looked(
        &mut self,
        look: Look,
        mut looked: Looked,
        snapshots: BTreeMap<WorkerName, (Generation, Spec)>,
    ) {
        match look {
            Look::Start if !self.ending => self.start(looked, snapshots),
            Look::Reload { id, only, force } => self.reload(id, &only, force, looked),
            Look::Retry(name) if !self.ending => {
                // What came in the meantime was asked for by somebody; a try of our own gives way to it.
                let waits = |worker: &Worker| !worker.removed && worker.is_idle();
                if self.workers.get(&name).is_some_and(waits) {
                    match looked.remove(&name) {
                        Some(found) => self.want(&name, found, Vec::new(), false),
                        None => self.remove(&name, Vec::new()),
                    }
                }
            }
            Look::Start | Look::Retry(_) => {}
        }
    }

    fn start(&mut self, mut looked: Looked, snapshots: BTreeMap<WorkerName, (Generation, Spec)>) {
        for (name, (generation, spec)) in snapshots {
            let on_disk = looked.remove(&name).is_some();
            if !on_disk && !self.workers.contains_key(&name) {
                // Removed, but its snapshots are kept: its next generation must not take the number of one of them.
                self.numbers.insert(name, generation);
                continue;
            }
            let candidate = self.candidate_of(spec.clone(), Vec::new());
            let worker = self.worker(&name);
            worker.newest = worker.newest.max(generation);
            if worker.is_idle() && on_disk {
                worker.snapshot = Some((generation, spec));
                worker.enqueue(Candidate {
                    source: Source::SameAs(generation),
                    build: false,
                    ..candidate
                });
            }
        }
        for (name, found) in looked {
            if self.worker(&name).is_idle() {
                self.want(&name, found, Vec::new(), false);
            }
        }
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
        let worker = self.worker(name);
        worker.removed = false;
        let spec = match found {
            Ok(spec) => spec,
            Err(reason) => return self.failed_without_units(name, None, reason, reloads),
        };
        if worker.waiting.is_some() || worker.candidate().is_some() {
            return self.join_or_follow(name, spec, reloads, force);
        }
        let Some((generation, run)) = worker.serving() else {
            return self.enqueue(name, spec, reloads);
        };
        // What is broken is replaced even if its files are the same.
        match change(run.latest(), &spec, force || run.broken.is_some()) {
            Change::None if run.assets.is_some() => {
                self.join_assets(name, generation, reloads);
            }
            Change::None => self.resolve(name, &reloads, &Outcome::Unchanged(generation)),
            Change::Assets => self.new_assets(name, generation, spec, reloads),
            Change::Generation => self.enqueue(name, spec, reloads),
        }
    }

    /// Something is on its way already. A reload of the same joins it, one of anything else follows.
    fn join_or_follow(&mut self, name: &WorkerName, spec: Spec, reloads: Vec<u64>, force: bool) {
        let worker = self.worker(name);
        let candidate = worker.runs.values_mut().find(|run| run.is_candidate());
        let under_way = match (&mut worker.waiting, candidate) {
            (Some(waiting), _) => Some((&waiting.spec, &mut waiting.reloads)),
            (None, Some(run)) => Some((&run.spec, &mut run.reloads)),
            (None, None) => None,
        };
        match under_way {
            Some((same, joined)) if change(same, &spec, force) == Change::None => {
                joined.extend(reloads);
            }
            _ => self.enqueue(name, spec, reloads),
        }
    }

    fn enqueue(&mut self, name: &WorkerName, spec: Spec, reloads: Vec<u64>) {
        let candidate = self.candidate_of(spec, reloads);
        self.worker(name).enqueue(candidate);
    }

    fn candidate_of(&self, spec: Spec, reloads: Vec<u64>) -> Candidate {
        Candidate {
            spec,
            source: Source::Directory,
            build: self.policy.build,
            reloads,
            since: self.now,
        }
    }

    /// Its directory is gone: what is on its way is stopped, what serves drains.
    fn remove(&mut self, name: &WorkerName, mut reloads: Vec<u64>) {
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
            self.say(name, None, Severity::Info, Vec::new(), text);
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
