//! Development: what was saved becomes what serves, and what was on its way before that is given up.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Fleet, Looked, News, instance};
use crate::names::{Instance, WorkerName};
use crate::plan::reconcile::{Change, change, is_same_program};
use crate::plan::run::Stage;
use crate::plan::worker::Worker;
use crate::plan::{Action, Cause, Kind, Moment, Reason, Severity, Spec};
use crate::types;

/// A change that comes so shortly after a build or a start may be its own: events are gathered for a while.
pub(super) const AFTERMATH: Duration = Duration::from_secs(1);
/// So many builds in a row may be begun by a change that came while the one before ran: somebody saves as he types.
const IN_A_ROW: u32 = 5;
/// Before each further one there is a pause.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

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
                Some(Ok(spec))
                    if self.seems_restless(&name, &spec, at)
                        || self.seems_self_written(&name, &spec, at) => {}
                Some(found) => self.want(&name, found, Vec::new(), false, Cause::Save),
                None => self.remove(&name, Vec::new()),
            }
        }
        self.saving = None;
    }

    /// Whether `spec`, which was saved at `at`, seems to be one more that a build has made of its own source. Then it waits for a while: it
    /// may be a person's after all.
    fn seems_restless(&mut self, name: &WorkerName, spec: &Spec, at: Moment) -> bool {
        if spec.settings.build.is_none() {
            return false;
        }
        let now = self.now;
        let worker = self.worker(name);
        // New assets begin no build.
        if worker
            .latest()
            .is_some_and(|latest| is_same_program(latest, spec))
        {
            return false;
        }
        let builds = worker.runs.values().any(|run| run.stage == Stage::Building);
        let restless = &mut worker.restless;
        if !builds && restless.ended.is_none_or(|ended| at > ended + AFTERMATH) {
            (restless.in_a_row, restless.waits) = (0, None);
            return false;
        }
        restless.in_a_row += 1;
        if restless.in_a_row <= IN_A_ROW {
            return false;
        }
        let until = restless.waits.as_ref().map_or(now + PAUSE, |(at, _)| *at);
        restless.waits = Some((until, spec.clone()));
        if restless.in_a_row == IN_A_ROW + 1 {
            let instance = instance(name, worker.newest);
            let text = format!(
                "the build of '{name}' seems to change files that are watched: it was begun {IN_A_ROW} times in a row by a change that came \
                 while it ran; name what it makes in config/worker.yaml, as in `watch: {{ignore: [dist/]}}`. Until then there are {} s \
                 between two builds",
                PAUSE.as_secs()
            );
            self.note(
                &instance,
                Severity::Warning,
                Kind::Progress,
                Vec::new(),
                text,
            );
        }
        true
    }

    /// Builds what has waited for long enough.
    pub(super) fn end_pauses(&mut self) {
        let now = self.now;
        let is_due = |worker: &Worker| {
            worker
                .restless
                .waits
                .as_ref()
                .is_some_and(|(at, _)| *at <= now)
        };
        let due = self.workers.select(is_due).filter_map(|worker| {
            let (_, spec) = worker.restless.waits.take_if(|(at, _)| *at <= now)?;
            Some((worker.name.clone(), spec))
        });
        for (name, spec) in due.collect::<Vec<_>>() {
            if !self.ending && !self.worker(&name).removed {
                self.saving = Some(now);
                self.want(&name, Ok(spec), Vec::new(), false, Cause::Save);
                self.saving = None;
            }
        }
    }

    /// Whether there are workers whose programs are built.
    pub fn builds_programs(&self) -> bool {
        let mut workers = self.workers.values();
        workers.any(|worker| worker.tried.as_ref().is_some_and(is_program))
    }

    /// The generation that would be built if `spec` was saved and stayed as it is; `None`: none, or what is on its way comes first.
    /// Only of what a toolchain builds: nobody knows whether a worker's own command may be begun for nothing.
    pub fn would_build(&self, name: &WorkerName, spec: &Spec) -> Option<Instance> {
        let worker = self.workers.get(name)?;
        let (_, serving) = worker.serving()?;
        let is_wanted = is_program(spec)
            && self.policy.build
            && !self.ending
            && worker.waiting.is_none()
            && worker.candidate().is_none()
            && worker.tried.as_ref() != Some(spec)
            && change(serving.latest(), spec, false) == Change::Generation;
        is_wanted.then(|| instance(name, worker.newest.next()))
    }

    /// The build of this generation began at `at`, before it was asked for.
    pub fn was_begun(&mut self, instance: &Instance, at: Moment) {
        if let Some(run) = self
            .run(instance)
            .filter(|run| run.stage == Stage::Building)
        {
            run.since = at;
        }
    }

    /// Gives up what is on its way to serving, and hands over the reloads that wait for it.
    pub(super) fn supersede(&mut self, name: &WorkerName) -> Vec<u64> {
        let now = self.now;
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
                worker.restless.ended = Some(now);
                worker.runs.remove(&generation);
                self.actions.push(Action::Abandon(instance));
            }
            // It gets the requests already: what was saved follows it.
            Stage::Switching | Stage::Accepting => {}
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

/// Whether a toolchain builds it.
fn is_program(spec: &Spec) -> bool {
    spec.settings.build.is_none() && types::of(spec.settings.kind).is_compiled()
}

/// Whether what was found is what was tried last, however that went, or is wrong in the way that was told.
fn is_tried(worker: &Worker, found: &Result<Spec, Reason>) -> bool {
    if worker.removed {
        return false;
    }
    match found {
        Ok(spec) => worker.tried.as_ref().is_some_and(|tried| {
            // A build that has failed may have left something where assets are.
            let is_left = spec.is_built_site() && is_same_program(tried, spec);
            tried == spec || (is_left && worker.has_failed_to_build())
        }),
        Err(reason) => {
            let since = worker.serving().map(|(_, run)| run.since);
            worker.last_failure.as_ref().is_some_and(|(failure, at)| {
                failure.reason == *reason && since.is_none_or(|since| *at >= since)
            })
        }
    }
}
