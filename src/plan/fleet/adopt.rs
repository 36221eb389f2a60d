//! Generations that were there when the manager started: what the manager before it had got to with each.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Fleet;
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::member::Member;
use crate::plan::run::{Run, Stage};
use crate::plan::worker::LIVE;
use crate::plan::{Cause, Found, FoundPair, Kind, Severity, Source};
use crate::route::Address;
use crate::systemd::Activity;

/// How long after a start clients may wait for all workers to be back.
const OPENING: Duration = Duration::from_secs(5);

impl Fleet {
    /// No generation of ours may take the number of a unit that is loaded.
    pub(super) fn make_room_for(&mut self, strangers: &[Instance]) {
        for stranger in strangers {
            let number = match self.workers.get_mut(&stranger.worker) {
                Some(worker) => &mut worker.newest,
                None => self
                    .numbers
                    .entry(stranger.worker.clone())
                    .or_insert(stranger.generation),
            };
            *number = stranger.generation.max(*number);
        }
    }

    pub(super) fn adopt(&mut self, found: Vec<Found>) {
        self.opening = Some(self.now + OPENING);
        let mut workers: BTreeMap<WorkerName, BTreeMap<Generation, Found>> = BTreeMap::new();
        for found in found {
            let worker = workers.entry(found.instance.worker.clone());
            worker.or_default().insert(found.instance.generation, found);
        }
        for (name, found) in workers {
            self.adopt_worker(&name, found);
        }
    }

    /// Of several that passed, the newest serves: it took over from the others. What did not pass is a candidate only if nothing
    /// newer was begun; else it had failed. No more than two lived at a time, so what is older than that was being stopped.
    fn adopt_worker(&mut self, name: &WorkerName, found: BTreeMap<Generation, Found>) {
        let Some(newest) = found.keys().next_back().copied() else {
            return;
        };
        self.worker(name).newest = newest;
        let (mut passed, mut live) = (false, 0);
        for (generation, found) in found.into_iter().rev() {
            let stage = match found.accepted {
                // Its stop has begun, or nothing can start it: whether the worker is to have another, the first look tells.
                true if !can_serve(&found) || live >= LIVE => Stage::Stopping,
                true if passed => Stage::Draining,
                true => Stage::Serving,
                false if generation == newest => Stage::Activating,
                false => Stage::Stopping,
            };
            passed |= found.accepted;
            live += usize::from(stage != Stage::Stopping && can_serve(&found));
            self.adopt_run(found, stage);
        }
    }

    fn adopt_run(&mut self, found: Found, stage: Stage) {
        let now = self.now;
        let instance = found.instance;
        let members = found.pairs.into_iter().map(|(number, pair)| {
            let mut member = Member::new(pair.address.clone());
            member.broken = !is_reachable(&pair);
            member.observe(pair.service);
            (number, member)
        });
        let mut run = Run::new(
            found.spec,
            Source::Directory,
            Cause::Start,
            members.collect(),
            Stage::Activating,
            now,
        );
        run.public = found.public;
        run.protocol = self.protocol(&instance, &run.spec);
        run.accepted = found.accepted;
        if stage == Stage::Activating {
            run.exposed = true;
            run.ready_by = Some(now + run.spec.settings.health.start_timeout);
            run.ask_at(Some(now));
        } else {
            run.enter(stage, now);
        }
        if stage == Stage::Serving {
            run.ask_at(run.health_due(now));
        }
        let dies = |member: &Member| {
            let activity = member.service.activity;
            matches!(activity, Activity::Restarting | Activity::Failed)
        };
        let mut members = run.members.iter();
        let dead = members.find(|(_, member)| dies(member));
        let dead = dead.map(|(number, _)| *number).or(run.lacks());
        let (lacks, end) = (run.lacks(), dead.map(|number| run.end(number)));
        let refused = self.make_room_in_table(&instance, &mut run).err();
        run.withheld = refused.is_some();
        let worker = self.worker(&instance.worker);
        worker.runs.insert(instance.generation, run);
        if let Some(reason) = refused {
            worker.trouble = Some(reason.clone());
            let text = format!(
                "generation {} of '{}' runs and gets no requests: {reason}",
                instance.generation, instance.worker
            );
            self.note(&instance, Severity::Error, Kind::Progress, Vec::new(), text);
        }
        let worker = self.worker(&instance.worker);
        if let (Stage::Serving, Some(number)) = (stage, lacks) {
            worker.replace = Some(format!("its instance {number} can not be started"));
            worker.schedule_retry(Duration::ZERO, now);
        }
        let text = format!(
            "adopted generation {} of '{}'",
            instance.generation, instance.worker
        );
        self.note(&instance, Severity::Info, Kind::Progress, Vec::new(), text);
        match (stage, end) {
            (Stage::Stopping, _) => self.stop(&instance, None),
            (Stage::Activating, Some(end)) => self.fail(&instance, end),
            _ => {}
        }
    }
}

/// Whether there is an instance for its requests to go to.
fn can_serve(found: &Found) -> bool {
    found.pairs.values().any(is_reachable)
}

/// Whether it runs or a request would start it, and nobody has begun to stop it.
fn is_reachable(found: &FoundPair) -> bool {
    match (&found.address, found.service.activity) {
        (_, Activity::Deactivating) => false,
        // Without a socket, nothing starts what has ended.
        (Address::Tcp(_), Activity::Inactive) => false,
        _ => found.listening,
    }
}
