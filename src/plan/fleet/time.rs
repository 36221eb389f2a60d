//! What is due without anything happening.

use std::time::Duration;

use super::{Fleet, Switch, instance};
use crate::names::{Instance, Pair};
use crate::plan::run::{Run, Stage};
use crate::plan::worker::{Candidate, Worker};
use crate::plan::{Action, Cause, Kind, Moment, Outcome, Reason, Severity, Source, Spec};
use crate::systemd::Activity;

/// How long a reload may wait for the proxy's word before it is told that the proxy is away.
const PROXY_PATIENCE: Duration = Duration::from_secs(30);

impl Fleet {
    /// When [`Event::Tick`](crate::plan::Event::Tick) is due, if nothing happens before.
    pub fn deadline(&self) -> Option<Moment> {
        let workers = || self.workers.values();
        let runs = workers()
            .flat_map(|worker| worker.runs.values())
            .filter_map(|run| run.due(&self.policy, self.linked));
        let retries = workers().filter_map(|worker| worker.retry_at);
        let pauses = workers().filter_map(|worker| Some(worker.restless.waits.as_ref()?.0));
        let suspects = workers().filter_map(|worker| Some(worker.restless.suspect.as_ref()?.0));
        let held_up = workers().filter_map(|worker| worker.held_up());
        let switches = self.switches.iter().map(|switch| switch.since);
        let switching = workers()
            .flat_map(|worker| worker.runs.values())
            .filter(|run| run.stage == Stage::Switching && !run.reloads.is_empty())
            .map(|run| run.since);
        let patience = held_up
            .chain(switches)
            .chain(switching)
            .map(|since| since + PROXY_PATIENCE);
        runs.chain(retries)
            .chain(pauses)
            .chain(suspects)
            .chain(patience)
            .chain(self.room_due())
            .chain(self.opening)
            .chain(self.end_by.filter(|_| !self.ended))
            .min()
    }

    pub(super) fn act_on_time(&mut self) {
        let (now, linked) = (self.now, self.linked);
        let mut due = Vec::new();
        for worker in self.workers.values() {
            for (number, run) in &worker.runs {
                if run.due(&self.policy, linked).is_some_and(|at| at <= now) {
                    let late = run.ready_by.is_some_and(|at| at <= now);
                    let probes = run.probes_due(now, linked);
                    due.push((instance(&worker.name, *number), run.stage, late, probes));
                }
            }
        }
        for pair in self.gone_pairs() {
            self.gone(&pair);
        }
        for (instance, stage, late, probes) in due {
            match stage {
                Stage::Draining => self.stop(&instance, None),
                Stage::Activating if late => self.too_late(&instance),
                _ => probes
                    .into_iter()
                    .for_each(|number| self.ask(instance.pair(number))),
            }
        }
        self.retry();
        self.end_pauses();
        self.give_up_written();
        self.give_up_on_the_proxy();
    }

    /// Processes of workers on ports that have ended and were not started again in time.
    fn gone_pairs(&self) -> Vec<Pair> {
        let now = self.now;
        let mut pairs = Vec::new();
        for worker in self.workers.values() {
            for (generation, run) in &worker.runs {
                let gone = run.members.iter().filter(|(_, member)| {
                    run.stage == Stage::Serving && member.gone_at.is_some_and(|at| at <= now)
                });
                let instance = instance(&worker.name, *generation);
                pairs.extend(gone.map(|(number, _)| instance.pair(*number)));
            }
        }
        pairs
    }

    fn too_late(&mut self, instance: &Instance) {
        let linked = self.linked;
        let Some(run) = self.run(instance) else {
            return;
        };
        let late = run.members.iter_mut().find(|(_, member)| !member.ready);
        let (number, answer) = late.map_or((1, None), |(number, member)| {
            (*number, member.last_answer.take())
        });
        let reason = match answer {
            _ if !linked => Reason::NoProxy,
            Some(answer @ (Reason::HttpStatus(_) | Reason::Broken(_) | Reason::Taken(_))) => {
                run.of(number, answer)
            }
            _ => run.of(
                number,
                Reason::NotReady(run.spec.settings.health.start_timeout),
            ),
        };
        self.fail(instance, reason);
    }

    fn ask(&mut self, pair: Pair) {
        let (now, id, own_users) = (self.now, self.next_probe, self.policy.own_users);
        let Some(run) = self.run(&pair.instance) else {
            return;
        };
        let again = run.health_due(now);
        let health = &run.spec.settings.health;
        let timeout = match run.ready_by.filter(|_| run.stage == Stage::Activating) {
            Some(ready_by) => ready_by.saturating_sub(now),
            None => run.start_left(pair.number, now).unwrap_or(health.timeout),
        };
        let (stage, path) = (run.stage, run.health_path());
        let protocol = run.protocol.for_one(&path);
        let Some(member) = run.members.get_mut(&pair.number) else {
            return;
        };
        // The worker that sleeps is well; asking would wake it.
        if stage == Stage::Serving && member.service.activity != Activity::Active {
            member.probe_at = again;
            return;
        }
        (member.probe, member.probe_at) = (Some(id), None);
        let address = member.target(own_users);
        self.next_probe += 1;
        self.probes.insert(id, pair.clone());
        self.actions.push(Action::Probe {
            id,
            pair,
            address,
            protocol,
            path,
            timeout,
        });
    }

    /// Tries again what is not well. In production only files that passed their check may follow themselves.
    fn retry(&mut self) {
        let (now, build) = (self.now, self.policy.build);
        let mut replaced = Vec::new();
        let is_due = |worker: &Worker| worker.retry_at.is_some_and(|at| at <= now);
        for worker in self.workers.select(is_due) {
            worker.retry_at = None;
            if worker.candidate().is_some() || worker.waiting.is_some() || worker.removed {
                continue;
            }
            let serving = worker.serving();
            if let (Some((number, _)), Some(why)) = (serving, &worker.replace) {
                let text = format!(
                    "generation {number} of '{}' is replaced: {why}",
                    worker.name
                );
                replaced.push((instance(&worker.name, number), text));
            }
            let cause = match serving {
                Some(_) => Cause::Replacement,
                None => Cause::Retry,
            };
            let serving = serving.map(|(number, run)| (number, run.spec.clone()));
            match serving.or_else(|| worker.snapshot.clone()) {
                Some((number, spec)) => {
                    let source = match build {
                        true => Source::Directory,
                        false => Source::SameAs(number),
                    };
                    worker.enqueue(again(spec, source, cause, now));
                }
                None => self.actions.push(Action::Look(worker.name.clone())),
            }
        }
        for (instance, text) in replaced {
            self.note(&instance, Severity::Info, Kind::Progress, Vec::new(), text);
        }
    }

    fn give_up_on_the_proxy(&mut self) {
        let now = self.now;
        let late = |since: Moment| since + PROXY_PATIENCE <= now;
        let (over, waiting) = std::mem::take(&mut self.switches)
            .into_iter()
            .partition(|switch: &Switch| late(switch.since));
        self.switches = waiting;
        for switch in over {
            let failed = Outcome::Failed(Reason::NoProxy.into());
            self.resolve(&switch.worker, &switch.reloads, &failed);
        }
        // What the proxy may serve by is not stopped: it is accepted as soon as the proxy says so.
        let is_late =
            |run: &Run| run.stage == Stage::Switching && !run.reloads.is_empty() && late(run.since);
        let has_late = |worker: &Worker| worker.runs.values().any(is_late);
        let switching = self.workers.select(has_late).flat_map(|worker| {
            let runs = worker.runs.values_mut();
            let late = runs.filter(|run| is_late(run));
            let name = &worker.name;
            late.map(move |run| (name.clone(), std::mem::take(&mut run.reloads)))
        });
        for (name, reloads) in switching.collect::<Vec<_>>() {
            self.resolve(&name, &reloads, &Outcome::Failed(Reason::NoProxy.into()));
        }
        let is_held_up = |worker: &Worker| worker.held_up().is_some_and(late);
        let held_up = self
            .workers
            .select(is_held_up)
            .filter_map(|worker| Some((worker.name.clone(), worker.waiting.take()?.reloads)));
        for (name, reloads) in held_up.collect::<Vec<_>>() {
            self.failed_without_units(&name, None, None, Reason::NoProxy, reloads);
        }
    }
}

/// The same as before, without another build: its files did not change.
fn again(spec: Spec, source: Source, cause: Cause, now: Moment) -> Candidate {
    Candidate {
        spec,
        source,
        cause,
        build: false,
        reloads: Vec::new(),
        saved: None,
        since: now,
    }
}
