//! Development: what was saved becomes what serves, and what was on its way before that is given up.

use std::collections::BTreeSet;

use super::{Fleet, Looked, News, instance};
use crate::names::WorkerName;
use crate::plan::run::Stage;
use crate::plan::worker::Worker;
use crate::plan::{Action, Cause, Moment, Reason, Severity, Spec};

impl Fleet {
    /// Files were saved, the first of them at `at`; `looked` is what lies there now.
    pub(super) fn saved(&mut self, at: Moment, mut looked: Looked) {
        let known = self.workers.values().filter(|worker| !worker.removed);
        let known = known.map(|worker| &worker.name);
        let names: BTreeSet<WorkerName> = looked.keys().chain(known).cloned().collect();
        self.saving = Some(at);
        for name in names {
            match looked.remove(&name) {
                // Another worker's files were saved, or what does not work is as it was.
                Some(found)
                    if self
                        .workers
                        .get(&name)
                        .is_some_and(|worker| is_tried(worker, &found)) => {}
                Some(found) => self.want(&name, found, Vec::new(), false, Cause::Save),
                None => self.remove(&name, Vec::new()),
            }
        }
        self.saving = None;
    }

    /// Gives up what is on its way to serving, and hands over the reloads that wait for it.
    pub(super) fn supersede(&mut self, name: &WorkerName) -> Vec<u64> {
        let worker = self.worker(name);
        let Some(generation) = worker.candidate() else {
            return Vec::new();
        };
        let Some(run) = worker.runs.get_mut(&generation) else {
            return Vec::new();
        };
        let reloads = std::mem::take(&mut run.reloads);
        let instance = instance(name, generation);
        match run.stage {
            Stage::Building => {
                worker.runs.remove(&generation);
                self.actions.push(Action::Abandon(instance));
            }
            _ => self.fail(&instance, Reason::Superseded),
        }
        reloads
    }

    /// "index: built in 312 ms, live 341 ms after save (generation 7)"
    pub(super) fn tell_live(&mut self, news: News, reloads: Vec<u64>) {
        let News {
            instance,
            kind,
            saved,
            build_time,
        } = news;
        let built = build_time.map(|took| format!("built in {} ms, ", took.as_millis()));
        let text = format!(
            "{}: {}live {} ms after save (generation {})",
            instance.worker,
            built.unwrap_or_default(),
            (self.now - saved).as_millis(),
            instance.generation
        );
        self.note(&instance, Severity::Info, kind, reloads, text);
    }
}

/// Whether what was found is what was tried last, however that went, or is wrong in the way that was told.
fn is_tried(worker: &Worker, found: &Result<Spec, Reason>) -> bool {
    if worker.removed {
        return false;
    }
    match found {
        Ok(spec) => worker.tried.as_ref() == Some(spec),
        Err(reason) => {
            let since = worker.serving().map(|(_, run)| run.since);
            worker.last_failure.as_ref().is_some_and(|(failure, at)| {
                failure.reason == *reason && since.is_none_or(|since| *at >= since)
            })
        }
    }
}
