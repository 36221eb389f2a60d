//! What is told: reports of what the plan, systemd and the proxy know, how reloads go and end, lines for the journal.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::control::{self, GenerationStatus, WorkerOutcome, WorkerStatus};
use super::core::Core;
use crate::names::{Instance, WorkerName};
use crate::plan::{Note, Outcome, Severity};
use crate::systemd::Usage;
use crate::wire::Count;

impl Core {
    /// Answers with the workers as they are: the plan's view, systemd's accounts and the proxy's counters.
    pub(super) fn report(&mut self, reply: oneshot::Sender<Vec<WorkerStatus>>) {
        let view = self.fleet.view();
        let now = self.started.elapsed();
        let counts = self.questions.ask(self.proxy.as_ref());
        let performer = Arc::clone(&self.performer);
        self.aside.spawn(async move {
            // A proxy that does not answer costs its numbers, not the report.
            let counts = tokio::time::timeout(Duration::from_secs(2), counts).await;
            let counts: HashMap<Instance, Count> = counts
                .into_iter()
                .flatten()
                .flatten()
                .map(|count| (count.instance.clone(), count))
                .collect();
            let mut report = Vec::new();
            for worker in view {
                let mut generations = Vec::new();
                for run in worker.generations {
                    let usage = performer.systemd.usage(&run.instance).await;
                    generations.push(generation_status(&run, usage, counts.get(&run.instance)));
                }
                let (failure, ago) = match worker.last_failure {
                    Some((failure, at)) => (failure.reason.to_string(), now.saturating_sub(at)),
                    None => (String::new(), Duration::ZERO),
                };
                report.push(WorkerStatus {
                    name: worker.name.to_string(),
                    route: worker.route,
                    state: worker.state.to_owned(),
                    generations,
                    last_failure: failure,
                    last_failure_ago: ago.as_secs(),
                    retry_in: worker
                        .retry_at
                        .map_or(0, |at| at.saturating_sub(now).as_secs().max(1)),
                });
            }
            let _ = reply.send(report);
        });
    }

    /// Answers whoever asked for a reload.
    pub(super) fn finish(&mut self, id: u64, outcomes: BTreeMap<WorkerName, Outcome>) {
        let failed = outcomes
            .values()
            .filter(|outcome| matches!(outcome, Outcome::Failed(_)))
            .count();
        let changed = outcomes
            .values()
            .filter(|outcome| !matches!(outcome, Outcome::Unchanged(_) | Outcome::Failed(_)))
            .count();
        let unchanged = outcomes.len() - failed - changed;
        if failed > 0 {
            tracing::error!(
                "reload over: {changed} changed, {unchanged} unchanged, {failed} failed"
            );
        } else {
            tracing::info!("reload over: {changed} changed, {unchanged} unchanged");
        }
        if let Some(reply) = self.callers.remove(&id).and_then(|caller| caller.reply) {
            let outcomes = outcomes
                .iter()
                .map(|(worker, outcome)| told(worker, outcome, false));
            let _ = reply.send(Ok(outcomes.collect()));
        }
    }

    /// Tells a line to the journal and to those who wait for these reloads.
    pub(super) fn note(&mut self, reloads: &[u64], note: Note) {
        let generation = note.generation.map_or(0, |generation| generation.0);
        let unit = note.generation.map_or_else(String::new, |generation| {
            Instance::new(note.worker.clone(), generation).service_unit()
        });
        let (worker, text) = (note.worker.as_str(), note.text.as_str());
        // The journal shows the line among the worker's own when asked for the worker's unit (systemd.journal-fields(7)): with the
        // first field for the machine's units, which it believes root alone, with the second for a user's.
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    tq.worker = worker,
                    tq.generation = generation,
                    object_systemd_unit = unit,
                    object_systemd_user_unit = unit,
                    "{text}"
                )
            };
        }
        match note.severity {
            Severity::Info => log!(info),
            Severity::Warning => log!(warn),
            Severity::Error => log!(error),
        }
        for caller in reloads
            .iter()
            .filter_map(|id| self.callers.get(id)?.name.clone())
        {
            let (connection, note) = (self.connection.clone(), note.clone());
            self.aside.spawn(async move {
                let _ = control::tell(&connection, &caller, &note).await;
            });
        }
    }
}

fn generation_status(
    run: &crate::plan::RunView,
    usage: Usage,
    count: Option<&Count>,
) -> GenerationStatus {
    GenerationStatus {
        generation: run.instance.generation.0,
        unit: run.instance.service_unit(),
        stage: run.stage.to_string(),
        pid: usage.pid,
        memory: usage.memory.unwrap_or(0),
        cpu_usec: usage
            .cpu
            .map_or(0, |cpu| u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX)),
        requests: count.map_or(0, |count| count.requests),
        in_flight: count.map_or(0, |count| count.in_flight),
        restarts: usage.restarts,
        since: if usage.pid == 0 {
            0
        } else {
            usage.active_since.unwrap_or(0)
        },
    }
}

/// An outcome as it goes over the bus.
pub(super) fn told(worker: &WorkerName, outcome: &Outcome, dry_run: bool) -> WorkerOutcome {
    let (word, from, to, reason, log) = match outcome {
        Outcome::Unchanged(generation) => (
            "unchanged",
            generation.0,
            generation.0,
            String::new(),
            Vec::new(),
        ),
        Outcome::Replaced { from: None, to } => ("started", 0, to.0, String::new(), Vec::new()),
        Outcome::Replaced {
            from: Some(from),
            to,
        } => ("replaced", from.0, to.0, String::new(), Vec::new()),
        Outcome::Assets => ("assets", 0, 0, String::new(), Vec::new()),
        Outcome::Removed => ("removed", 0, 0, String::new(), Vec::new()),
        Outcome::Failed(failure) => {
            let to = failure.generation.map_or(0, |generation| generation.0);
            (
                "failed",
                0,
                to,
                failure.reason.to_string(),
                failure.log.clone(),
            )
        }
    };
    let outcome = match word {
        "replaced" if dry_run => "would be replaced",
        "started" if dry_run => "would be started",
        "assets" if dry_run => "would get new assets",
        "removed" if dry_run => "would be removed",
        word => word,
    };
    WorkerOutcome {
        worker: worker.to_string(),
        outcome: outcome.to_owned(),
        from,
        to,
        reason,
        log,
    }
}
