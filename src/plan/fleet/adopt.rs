//! Generations that were there when the manager started: what the manager before it had got to with each.

use std::collections::BTreeMap;

use super::Fleet;
use crate::names::{Generation, WorkerName};
use crate::plan::run::{Run, Stage};
use crate::plan::{Found, Reason, Severity, Source};
use crate::route::Address;
use crate::systemd::{Activity, Ending};

impl Fleet {
    pub(super) fn adopt(&mut self, found: Vec<Found>) {
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
    /// newer was begun; else it had failed.
    fn adopt_worker(&mut self, name: &WorkerName, found: BTreeMap<Generation, Found>) {
        let Some(newest) = found.keys().next_back().copied() else {
            return;
        };
        self.worker(name).newest = newest;
        let serving = found.values().rev().find(|found| found.accepted);
        let serves = serving.is_some_and(can_start);
        let serving = serving.map(|found| found.instance.generation);
        // A generation beside one that serves is begun only when the ones before are being stopped, so these have drained.
        let drained = serves && serving < Some(newest);
        for (generation, found) in found {
            let stage = match found.accepted {
                true if Some(generation) == serving => Stage::Serving,
                true if drained => Stage::Stopping,
                true => Stage::Draining,
                false if generation == newest => Stage::Activating,
                false => Stage::Stopping,
            };
            self.adopt_run(found, stage);
        }
    }

    fn adopt_run(&mut self, found: Found, stage: Stage) {
        let now = self.now;
        let can_start = can_start(&found);
        let (instance, known) = (found.instance, found.service.failure.clone());
        let mut run = Run::new(
            found.spec,
            Source::Directory,
            found.address,
            Stage::Activating,
            now,
        );
        (run.public, run.service) = (found.public, found.service);
        let text = format!(
            "adopted generation {} of '{}'",
            instance.generation, instance.worker
        );
        if stage == Stage::Activating {
            run.ready_by = Some(now + run.spec.settings.health.start_timeout);
            run.probe_at = Some(now);
        } else {
            run.enter(stage, now);
        }
        let dying = matches!(
            run.service.activity,
            Activity::Restarting | Activity::Failed
        );
        let failed = (stage == Stage::Activating && (dying || !can_start)).then(|| run.end());
        match stage {
            Stage::Serving => run.probe_at = run.health_due(now),
            Stage::Draining if !can_start => run.broken = Some(run.end()),
            _ => {}
        }
        let worker = self.worker(&instance.worker);
        worker.runs.insert(instance.generation, run);
        self.note(&instance, Severity::Info, Vec::new(), text);
        match (stage, failed) {
            (Stage::Stopping, _) => self.stop(&instance, None),
            (_, Some(reason)) => self.fail(&instance, reason),
            (Stage::Serving, None) if !can_start => {
                let reason =
                    known.unwrap_or_else(|| Ending::Other("its socket is gone".to_owned()));
                self.socket_broke(&instance, Some(Reason::Ended(reason)));
            }
            _ => {}
        }
    }
}

/// Whether it runs or a request would start it: without a socket, nothing starts what has ended.
fn can_start(found: &Found) -> bool {
    let ended = found.service.activity == Activity::Inactive;
    found.listening && !(ended && matches!(found.address, Address::Tcp(_)))
}
