//! What others learn of the fleet: outcomes of reloads, lines for people, what `status` and a dry run show.

use std::collections::{BTreeMap, BTreeSet};

use super::Fleet;
use super::look::no_such;
use crate::names::{Generation, Instance, Pair, WorkerName};
use crate::plan::reconcile::{Change, change, is_passed_over};
use crate::plan::worker::Worker;
use crate::plan::{
    Action, Kind, Note, Outcome, PairView, Reason, RunView, Severity, Spec, WorkerView,
};
use crate::route::{Address, Claim, Halt};

impl Fleet {
    /// All workers, as `tqserver status` shows them.
    pub fn view(&self) -> Vec<WorkerView> {
        let names = self.workers.keys();
        names.filter_map(|name| self.view_of(name)).collect()
    }

    /// All pairs of units that there are, or may be by now.
    pub fn pairs(&self) -> Vec<Pair> {
        let workers = self.workers.values();
        let runs = workers.flat_map(|worker| {
            let runs = worker.runs.iter();
            runs.map(|(generation, run)| (Instance::new(worker.name.clone(), *generation), run))
        });
        let pairs = runs.flat_map(|(instance, run)| {
            // Of one that was adopted all that it should have, found or not.
            let last = run.members.keys().next_back().copied().unwrap_or(0);
            (1..=run.pairs().max(last)).map(move |number| instance.pair(number))
        });
        pairs.collect()
    }

    /// One worker, as `tqserver status` shows it.
    pub fn view_of(&self, name: &WorkerName) -> Option<WorkerView> {
        let halt = self.halts.get(name).cloned();
        let worker = self.workers.get(name)?;
        Some(WorkerView {
            halt: halt.unwrap_or_default(),
            ..view(worker)
        })
    }

    /// How many of a reload's workers are over, and how many there are; `None`: it is over.
    pub fn reloaded(&self, id: u64) -> Option<(usize, usize)> {
        let reload = self.reloads.get(&id)?;
        let over = reload.outcomes.len();
        Some((over, over + reload.pending.len()))
    }

    /// The workers that there are.
    pub fn names(&self) -> impl Iterator<Item = &WorkerName> {
        self.workers.keys()
    }

    /// The generation of a worker that gets the requests.
    pub fn serving(&self, worker: &WorkerName) -> Option<Generation> {
        let (generation, _) = self.workers.get(worker)?.serving()?;
        Some(generation)
    }

    /// What the generation of a worker is made of that serves, and where the first of its instances listens.
    pub fn serving_spec(&self, worker: &WorkerName) -> Option<(Instance, &Spec, &Address)> {
        let (generation, run) = self.workers.get(worker)?.serving()?;
        let member = run.members.values().next()?;
        let instance = Instance::new(worker.clone(), generation);
        Some((instance, &run.spec, &member.address))
    }

    /// The workers that run, or are tried again, from something like this.
    pub fn made_of(&self, wanted: impl Fn(&Spec) -> bool) -> Vec<WorkerName> {
        let workers = self.workers.values().filter(|worker| {
            let runs = worker.runs.values().map(|run| &run.spec);
            let snapshot = worker.snapshot.iter().map(|(_, spec)| spec);
            let mut specs = runs.chain(snapshot).chain(&worker.tried);
            !worker.removed && specs.any(&wanted)
        });
        workers.map(|worker| worker.name.clone()).collect()
    }

    /// What a reload would do, without doing it.
    pub fn preview(
        &self,
        looked: &BTreeMap<WorkerName, Result<Spec, Reason>>,
        only: &[WorkerName],
        force: bool,
    ) -> BTreeMap<WorkerName, Outcome> {
        let known = self.workers.values().filter(|worker| !worker.removed);
        let all = looked.keys().chain(known.map(|worker| &worker.name));
        let names: BTreeSet<&WorkerName> = match only {
            [] => all.collect(),
            only => only.iter().collect(),
        };
        let outcome = |name: &WorkerName| {
            let worker = self.workers.get(name);
            match (looked.get(name), worker.and_then(Worker::serving)) {
                (Some(Err(reason)), _) => Outcome::Failed(reason.clone().into()),
                (None, _) if worker.is_none() => Outcome::Failed(no_such(name).into()),
                (None, _) => Outcome::Removed,
                (Some(Ok(_)), None) => Outcome::Replaced {
                    from: None,
                    to: Generation(0),
                },
                (Some(Ok(spec)), Some((generation, run))) => {
                    match change(&run.spec, spec, force || run.lacks().is_some()) {
                        Change::None if is_passed_over(&run.spec, spec) => {
                            Outcome::PassedOver(generation)
                        }
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
        let outcomes = names.into_iter().map(|name| (name.clone(), outcome(name)));
        outcomes.collect()
    }

    pub(super) fn resolve(&mut self, worker: &WorkerName, reloads: &[u64], outcome: &Outcome) {
        for id in reloads {
            if let Some(reload) = self.reloads.get_mut(id)
                && reload.pending.remove(worker)
            {
                reload.outcomes.insert(worker.clone(), outcome.clone());
            }
        }
    }

    pub(super) fn finish_reloads(&mut self) {
        let (over, under_way) = std::mem::take(&mut self.reloads)
            .into_iter()
            .partition(|(_, reload)| reload.pending.is_empty() || self.ending);
        self.reloads = under_way;
        for (id, mut reload) in over {
            for worker in reload.pending {
                let stopped = Reason::Refused("the server is being stopped".to_owned());
                reload
                    .outcomes
                    .insert(worker, Outcome::Failed(stopped.into()));
            }
            self.actions.push(Action::Finish {
                id,
                outcomes: reload.outcomes,
            });
        }
    }

    pub(super) fn note(
        &mut self,
        instance: &Instance,
        severity: Severity,
        kind: Kind,
        reloads: Vec<u64>,
        text: String,
    ) {
        let generation = Some(instance.generation);
        self.say(&instance.worker, generation, severity, kind, reloads, text);
    }

    pub(super) fn say(
        &mut self,
        worker: &WorkerName,
        generation: Option<Generation>,
        severity: Severity,
        kind: Kind,
        reloads: Vec<u64>,
        text: String,
    ) {
        let note = Note {
            severity,
            worker: worker.clone(),
            generation,
            text,
            kind,
        };
        self.actions.push(Action::Progress { reloads, note });
    }
}

fn view(worker: &Worker) -> WorkerView {
    let claims = worker.route(false).map_or_else(Vec::new, |route| {
        Claim::all(&route.settings.hosts, &route.path)
    });
    let generations = worker.runs.iter().rev().map(|(number, run)| {
        let instance = Instance::new(worker.name.clone(), *number);
        let pairs = run.members.iter().map(|(number, member)| PairView {
            pair: instance.pair(*number),
            state: member.state(),
            service: member.service.clone(),
        });
        RunView {
            stage: run.stage,
            since: run.since,
            pairs: pairs.collect(),
            instance,
        }
    });
    WorkerView {
        name: worker.name.clone(),
        claims,
        state: worker.state(),
        generations: generations.collect(),
        last_failure: worker.last_failure.clone(),
        retry_at: worker.retry_at,
        halt: Halt::default(),
        exposed: worker
            .serving()
            .is_some_and(|(_, run)| run.members.values().any(|member| member.open_to_all)),
    }
}
