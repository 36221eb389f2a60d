//! The proxy: the table it is handed, what it has applied, and the outcomes that hold from then on.

use std::collections::BTreeSet;

use super::{Fleet, News, Switch, instance};
use crate::names::{Instance, WorkerName};
use crate::plan::run::Stage;
use crate::plan::worker::Worker;
use crate::plan::{Action, Cause, Outcome, Reason, Source};
use crate::route::{Route, RouteTable, Target};

impl Fleet {
    /// The proxy that comes may be another process: it needs the table, and its answers to be asked again.
    pub(super) fn linked(&mut self) {
        let now = self.now;
        (self.linked, self.published, self.applied) = (true, None, None);
        // Who could only not be checked for want of a proxy need not wait longer.
        for worker in self.workers.values_mut() {
            if worker.trouble == Some(Reason::NoProxy) && worker.retry_at.is_some() {
                worker.retry_at = Some(now);
            }
        }
    }

    pub(super) fn unlinked(&mut self) {
        (self.linked, self.applied) = (false, None);
        self.probes.clear();
        let now = self.now;
        // Requests for health that were under way are asked again when the proxy is back.
        for member in self.runs_mut().flat_map(|run| run.members.values_mut()) {
            if member.probe.take().is_some() {
                member.probe_at = Some(now);
            }
        }
    }

    /// The proxy says so once it has applied a table that lists it; what it says before is about an earlier table.
    pub(super) fn drained(&mut self, instance: &Instance) {
        let run = self.run(instance);
        if let Some(run) = run.filter(|run| run.drain_began.is_some()) {
            run.drained = true;
        }
    }

    /// The table follows from the state. It is sent when it differs from what the proxy has.
    pub(super) fn publish(&mut self) {
        if self.is_opening() || !self.linked {
            return;
        }
        let mut table = self.table();
        if self.published.as_ref() != Some(&table) {
            self.serial += 1;
            table.serial = self.serial;
            self.published = Some(table.clone());
            self.actions.push(Action::Publish(table));
        }
        let serial = self.serial;
        for run in self.runs_mut().filter(|run| run.stage == Stage::Draining) {
            run.drain_serial.get_or_insert(serial);
        }
        for switch in &mut self.switches {
            switch.serial.get_or_insert(serial);
        }
    }

    /// The next step publishes the table also if it has not changed.
    pub fn publish_again(&mut self) {
        self.published = None;
    }

    /// Whether workers that were accepted are still to come back after a start. Until then a proxy serves by the table it has, or, after a
    /// boot, does not listen yet.
    fn is_opening(&mut self) -> bool {
        let returns = |worker: &Worker| {
            let waiting = worker.waiting.iter().map(|one| (one.cause, one.source));
            let candidates = worker.runs.values().filter(|run| run.is_candidate());
            waiting
                .chain(candidates.map(|run| (run.cause, run.source)))
                .any(|(cause, source)| cause == Cause::Start && source != Source::Directory)
        };
        let over = self.ending || self.started && !self.workers.values().any(returns);
        let now = self.now;
        self.opening.take_if(|until| over || *until <= now);
        self.opening.is_some()
    }

    fn table(&self) -> RouteTable {
        let development = self.policy.development.clone();
        let route = |worker: &Worker| {
            let work = development.as_ref().map(|_| worker.work());
            let halt = self.halts.get(&worker.name).cloned().unwrap_or_default();
            worker.route().map(|route| Route {
                work,
                halt,
                ..route
            })
        };
        let mut routes: Vec<_> = self.workers.values().filter_map(route).collect();
        if !self.policy.build {
            routes.iter_mut().for_each(keep_to_ourselves);
        }
        // Two workers on one path can stand here for a moment, while one of them goes: who serves has it.
        routes.sort_by_key(|route| {
            let unavailable = matches!(route.target, Target::Unavailable { .. });
            (unavailable, route.path.clone())
        });
        let mut taken = BTreeSet::new();
        routes.retain_mut(|route| route.claim(&mut taken));
        routes.sort_by(|a, b| a.path.cmp(&b.path));
        let draining = self.workers.values().flat_map(|worker| {
            let draining = worker
                .runs
                .iter()
                .filter(|(_, run)| run.stage == Stage::Draining);
            draining.map(|(number, _)| instance(&worker.name, *number))
        });
        RouteTable {
            serial: self.serial,
            front: self.policy.front.clone(),
            routes,
            draining: draining.collect(),
            development,
        }
    }

    /// An outcome that holds as soon as the proxy serves by the table that is about to be published.
    pub(super) fn switch(&mut self, worker: &WorkerName, reloads: Vec<u64>, outcome: Outcome) {
        self.switch_with(worker, reloads, outcome, None);
    }

    /// The same, with what is told then.
    pub(super) fn switch_with(
        &mut self,
        worker: &WorkerName,
        reloads: Vec<u64>,
        outcome: Outcome,
        news: Option<News>,
    ) {
        self.switches.push(Switch {
            worker: worker.clone(),
            reloads,
            outcome,
            serial: None,
            since: self.now,
            news,
        });
    }

    /// What holds now that the proxy serves by the table it has applied, which may have been the right one before it was asked for.
    pub(super) fn settle(&mut self) {
        let (now, Some(applied)) = (self.now, self.applied) else {
            return;
        };
        let in_force = |serial: Option<u64>| serial.is_some_and(|serial| serial <= applied);
        for run in self.runs_mut() {
            if run.stage == Stage::Draining && in_force(run.drain_serial) {
                run.drain_began.get_or_insert(now);
            }
        }
        let (holds, waits) = std::mem::take(&mut self.switches)
            .into_iter()
            .partition(|switch: &Switch| in_force(switch.serial));
        self.switches = waits;
        for switch in holds {
            if let Some(news) = switch.news {
                self.tell_live(news, switch.reloads.clone());
            }
            self.resolve(&switch.worker, &switch.reloads, &switch.outcome);
        }
    }
}

/// In production clients are strangers: paths, configuration and the ends of processes are for the log.
fn keep_to_ourselves(route: &mut Route) {
    if let Target::Unavailable { reason, .. } = &mut route.target {
        "the server's log says why".clone_into(reason);
    }
}
