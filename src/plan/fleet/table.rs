//! The proxy: the table it is handed, what it has applied, and the outcomes that hold from then on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::part::Part;
use super::{Fleet, News, Switch, instance};
use crate::names::{Instance, WorkerName};
use crate::plan::budget;
use crate::plan::run::{Run, Stage};
use crate::plan::worker::Worker;
use crate::plan::{Action, Cause, Outcome, Reason, Source};
use crate::route::{Route, RouteTable, Target};
use crate::types::DATA;

impl Fleet {
    /// The proxy that comes may be another process: it needs the table, and its answers to be asked again.
    pub(super) fn linked(&mut self) {
        let now = self.now;
        (self.linked, self.published, self.applied) = (true, None, None);
        // Who could only not be checked for want of a proxy need not wait longer.
        let was_unchecked =
            |worker: &Worker| worker.trouble == Some(Reason::NoProxy) && worker.retry_at.is_some();
        for worker in self.workers.select(was_unchecked) {
            worker.retry_at = Some(now);
        }
    }

    pub(super) fn unlinked(&mut self) {
        (self.linked, self.applied) = (false, None);
        self.probes.clear();
        let now = self.now;
        // Requests for health that were under way are asked again when the proxy is back.
        let is_asked = |run: &Run| run.members.values().any(|member| member.probe.is_some());
        let runs = self.select_runs(is_asked);
        for member in runs.flat_map(|run| run.members.values_mut()) {
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
        if self.follow_workers() || self.published.is_none() {
            let mut table = self.table();
            if self.published.as_ref() != Some(&table) {
                self.serial += 1;
                table.serial = self.serial;
                self.published = Some(table.clone());
                self.actions.push(Action::Publish(table));
            }
        }
        let serial = self.serial;
        let waits = |run: &Run| match run.stage {
            Stage::Draining => run.drain_serial.is_none(),
            Stage::Switching => run.switch_serial.is_none() || !run.exposed,
            _ => false,
        };
        for run in self.select_runs(waits) {
            match run.stage {
                Stage::Draining => run.drain_serial = Some(serial),
                _ => {
                    run.switch_serial.get_or_insert(serial);
                    run.exposed = true;
                }
            }
        }
        for switch in &mut self.switches {
            switch.serial.get_or_insert(serial);
        }
    }

    /// Brings the parts of the table up to date; says whether any of them, or what all go by, has changed.
    fn follow_workers(&mut self) -> bool {
        let published = self.published.as_ref();
        let mut has_changed = published.is_none_or(|table| {
            table.front != self.policy.front || table.development != self.policy.development
        });
        for name in self.workers.take_touched() {
            let part = self.workers.get(&name).map(|worker| self.part(worker));
            has_changed |= self.parts.get(&name) != part.as_ref();
            match part {
                Some(part) => self.parts.insert(name, part),
                None => self.parts.remove(&name),
            };
        }
        has_changed
    }

    /// What the table has of a worker.
    fn part(&self, worker: &Worker) -> Part {
        let development = self.policy.development.as_ref();
        let hold = development.map(|development| development.hold);
        let route = worker.route(self.policy.own_users).map(|route| Route {
            work: development.map(|_| worker.work()),
            halt: self.halts.get(&worker.name).cloned().unwrap_or_default(),
            state: self.state(worker, &route),
            target: held_for(route.target, hold),
            ..route
        });
        let draining = worker.runs.iter();
        let draining = draining.filter(|(_, run)| run.stage == Stage::Draining);
        Part {
            route: route.map(|route| match self.policy.build {
                true => route,
                false => keep_to_ourselves(route),
            }),
            draining: draining
                .map(|(number, _)| instance(&worker.name, *number))
                .collect(),
        }
    }

    /// Where the proxy finds what the worker of `route` stores for it to serve.
    fn state(&self, worker: &Worker, route: &Route) -> Option<PathBuf> {
        let (_, run) = worker
            .fronting()
            .filter(|_| !route.settings.files.is_empty())?;
        Some(match &self.policy.state {
            Some(state) => state.join(worker.name.as_str()),
            None => run.spec.directory.join(DATA),
        })
    }

    /// The next step publishes the table also if it has not changed.
    pub fn publish_again(&mut self) {
        self.published = None;
    }

    /// The serial of the table that has all that is known now: the one that was sent last, or the next.
    pub fn up_to_date(&self) -> u64 {
        match self.published.is_some() && self.opening.is_none() && self.linked {
            true => self.serial,
            false => self.serial + 1,
        }
    }

    /// Whether workers that were accepted are still to come back after a start. Until then a proxy serves by the table it has, or, after a
    /// boot, does not listen yet.
    fn is_opening(&mut self) -> bool {
        let returns = |worker: &Worker| {
            let waiting = worker.waiting.iter().map(|one| (one.cause, one.source));
            // One that is to be switched to waits for the table itself.
            let on_its_way = |run: &&Run| run.is_candidate() && !run.is_fronting();
            let candidates = || worker.runs.values().filter(on_its_way);
            let mut all = waiting.chain(candidates().map(|run| (run.cause, run.source)));
            // The last manager may have handed one the requests that it could not accept any more.
            candidates().any(|run| run.exposed)
                || all.any(|(cause, source)| cause == Cause::Start && source != Source::Directory)
        };
        let over = self.ending || self.started && !self.workers.values().any(returns);
        let now = self.now;
        self.opening.take_if(|until| over || *until <= now);
        self.opening.is_some()
    }

    /// The table of all parts.
    fn table(&self) -> RouteTable {
        let parts = self.parts.values();
        let mut routes: Vec<_> = parts.filter_map(|part| part.route.clone()).collect();
        // Two workers on one path can stand here for a moment, while one of them goes: who serves has it.
        routes.sort_by_key(|route| {
            let unavailable = matches!(route.target, Target::Unavailable { .. });
            (unavailable, route.path.clone())
        });
        bound_troubles(&mut routes);
        let mut taken = BTreeSet::new();
        routes.retain_mut(|route| route.claim(&mut taken));
        routes.sort_by(|a, b| a.path.cmp(&b.path));
        let draining = self.parts.values().flat_map(|part| &part.draining);
        RouteTable {
            serial: self.serial,
            front: self.policy.front.clone(),
            routes,
            draining: draining.cloned().collect(),
            development: self.policy.development.clone(),
        }
    }

    /// Bytes of the table.
    #[cfg(test)]
    pub(super) fn table_as_sent(&self) -> usize {
        serde_json::to_vec(&self.table()).unwrap().len()
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
        let waits = |worker: &Worker| {
            worker.runs.values().any(|run| match run.stage {
                Stage::Draining => run.drain_began.is_none() && in_force(run.drain_serial),
                stage => stage == Stage::Switching && in_force(run.switch_serial),
            })
        };
        let mut accept = Vec::new();
        for worker in self.workers.select(waits) {
            let name = &worker.name;
            for (number, run) in &mut worker.runs {
                match run.stage {
                    Stage::Draining if in_force(run.drain_serial) => {
                        run.drain_began.get_or_insert(now);
                    }
                    // Not before: what can not be served is not to be what the next boot starts from.
                    Stage::Switching if in_force(run.switch_serial) => {
                        run.enter(Stage::Accepting, now);
                        accept.push(Action::Accept(instance(name, *number), run.spec.clone()));
                    }
                    _ => {}
                }
            }
        }
        self.actions.extend(accept);
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

/// What went wrong is told as long as there is room for it.
fn bound_troubles(routes: &mut [Route]) {
    let mut left = budget::TROUBLES;
    let works = routes.iter_mut().filter_map(|route| route.work.as_mut());
    for trouble in works.filter_map(|work| work.trouble.as_mut()) {
        // Escaped, a character has up to six bytes.
        let lines = trouble.log.iter().chain([&trouble.reason]);
        let size: usize = lines.map(|line| 6 * line.len() + 4).sum();
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None => {
                "what went wrong is too long to be shown; `tqserver logs` has it"
                    .clone_into(&mut trouble.reason);
                trouble.log.clear();
            }
        }
    }
}

/// In development builds are waited for too: requests wait as long as pages do.
fn held_for(target: Target, hold: Option<Duration>) -> Target {
    match (target, hold) {
        (
            Target::Unavailable {
                reason,
                retry_after,
                awaited: Some(_),
            },
            Some(hold),
        ) => Target::Unavailable {
            reason,
            retry_after,
            awaited: Some(hold).filter(|hold| !hold.is_zero()),
        },
        (target, _) => target,
    }
}

/// In production clients are strangers: paths, configuration and the ends of processes are for the log.
fn keep_to_ourselves(mut route: Route) -> Route {
    if let Target::Unavailable { reason, .. } = &mut route.target {
        "the server's log says why".clone_into(reason);
    }
    route
}
