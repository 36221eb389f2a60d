//! New assets for a generation that serves: the process stays, the proxy gets another directory.

use std::path::PathBuf;

use super::{Fleet, instance};
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::run::{Assets, Stage};
use crate::plan::{Action, Cause, Kind, Outcome, Reason, Severity, Spec};

impl Fleet {
    /// One copy at a time, so that the answer is to the last question; what changes meanwhile comes next.
    pub(super) fn new_assets(
        &mut self,
        name: &WorkerName,
        generation: Generation,
        spec: Spec,
        reloads: Vec<u64>,
    ) {
        let instance = instance(name, generation);
        let Some(run) = self.run(&instance) else {
            return;
        };
        let mut new = Assets { spec, reloads };
        if run.assets.is_some() {
            let overtaken = run.next_assets.take();
            new.reloads
                .extend(overtaken.into_iter().flat_map(|assets| assets.reloads));
            run.next_assets = Some(new);
            return;
        }
        let action = Action::Assets(instance, new.spec.clone());
        run.assets = Some(new);
        self.actions.push(action);
    }

    /// These reloads want what is being copied, or comes next.
    pub(super) fn join_assets(
        &mut self,
        name: &WorkerName,
        generation: Generation,
        reloads: Vec<u64>,
    ) {
        let run = self.run(&instance(name, generation));
        let last = run.and_then(|run| run.next_assets.as_mut().or(run.assets.as_mut()));
        if let Some(assets) = last {
            assets.reloads.extend(reloads);
        }
    }

    pub(super) fn assets_ready(&mut self, instance: &Instance, result: Result<PathBuf, Reason>) {
        // What drains has handed over to its successor whoever waited.
        let Some(run) = self.run(instance).filter(|run| run.stage == Stage::Serving) else {
            return;
        };
        let (Some(done), next) = (run.assets.take(), run.next_assets.take()) else {
            return;
        };
        match result {
            Ok(public) => {
                (run.public, run.spec) = (Some(public), done.spec);
                let text = format!("the assets of '{}' are live", instance.worker);
                self.note(
                    instance,
                    Severity::Info,
                    Kind::Assets,
                    done.reloads.clone(),
                    text,
                );
                self.switch(&instance.worker, done.reloads, Outcome::Assets);
            }
            Err(reason) => {
                let (name, cause) = (&instance.worker, Some(Cause::Reload));
                self.failed_without_units(name, None, cause, reason, done.reloads);
            }
        }
        if let Some(next) = next {
            self.new_assets(
                &instance.worker,
                instance.generation,
                next.spec,
                next.reloads,
            );
        }
    }
}
