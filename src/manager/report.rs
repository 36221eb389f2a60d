//! What is told: reports of what the plan, systemd and the proxy know, how reloads go and end, lines for the journal.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::control::{self, GenerationStatus, InstanceStatus, WorkerOutcome, WorkerStatus};
use super::core::Core;
use crate::ansi;
use crate::footprint::Footprint;
use crate::limits::ByteSize;
use crate::messages;
use crate::names::{Instance, WorkerName};
use crate::plan::{Kind, Note, Outcome, PairView, RunView, Severity, WorkerView};
use crate::route::{Claim, places};
use crate::systemd::{Group, Usage};
use crate::wire::Count;

/// Who reloads fewer workers than these sees them all anyway.
const MANY: usize = 10;
/// How often it is told how far a reload is.
const HOW_FAR_EVERY: Duration = Duration::from_secs(1);
/// Stands where a worker's name does; none can have a colon in it.
const FRONT: &str = "server.yaml: server";

impl Core {
    /// Answers with the workers as they are: the plan's view, the kernel's accounts and the proxy's counters. `only`: of these alone,
    /// as far as they are there.
    pub(super) fn report(
        &mut self,
        only: Option<Vec<WorkerName>>,
        reply: oneshot::Sender<Vec<WorkerStatus>>,
    ) {
        let view = match only {
            None => self.fleet.view(),
            Some(names) => {
                let views = names.iter().filter_map(|name| self.fleet.view_of(name));
                views.collect()
            }
        };
        let now = self.started.elapsed();
        let states = self.states();
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
            let group = performer.systemd.group().await;
            let made = tokio::task::spawn_blocking(move || {
                statuses(view, &counts, &states, group.as_ref(), now)
            });
            if let Ok(report) = made.await {
                let _ = reply.send(report);
            }
        });
    }

    /// Tells what runs in a line, as `systemctl status` shows it.
    pub(super) fn tell_summary(&mut self) {
        let view = self.fleet.view();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for worker in &view {
            *counts.entry(worker.state).or_default() += 1;
        }
        let words = [
            "serving",
            "files",
            "sleeping",
            "starting",
            "new",
            "failed",
            "forbidden",
        ];
        let states = words
            .iter()
            .filter_map(|word| Some(format!("{} {word}", counts.get(word)?)));
        let states: Vec<String> = states.collect();
        let mut summary = match view.len() {
            0 => "no workers".to_owned(),
            1 => format!("1 worker: {}", states.join(", ")),
            workers => format!("{workers} workers: {}", states.join(", ")),
        };
        let mut failed = view.iter().filter(|worker| worker.state == "failed");
        if let Some(worker) = failed.next() {
            let reason = worker.last_failure.as_ref().map(|(failure, _)| {
                let reason = failure.reason.to_string();
                reason.lines().next().unwrap_or_default().to_owned()
            });
            let more = if failed.next().is_some() { ", ..." } else { "" };
            summary = format!(
                "{summary} ({}: {}{more})",
                worker.name,
                reason.unwrap_or_default()
            );
        }
        let routes = answering(&view);
        let reloads = self.callers.keys();
        let reloaded = reloads.filter_map(|id| self.fleet.reloaded(*id));
        let reloaded = reloaded.max_by_key(|(_, all)| *all);
        let reloaded = reloaded.filter(|(_, all)| *all >= MANY);
        self.progress.send_if_modified(|progress| {
            let changed = progress.summary != summary
                || progress.routes != routes
                || progress.reloaded != reloaded;
            (progress.summary, progress.routes) = (summary, routes);
            progress.reloaded = reloaded;
            changed
        });
        self.tell_how_far();
    }

    /// Tells those who wait for a reload of many workers how far it is, now and then.
    fn tell_how_far(&mut self) {
        let now = Instant::now();
        for (id, caller) in &mut self.callers {
            let Some(((over, all), name)) = self.fleet.reloaded(*id).zip(caller.name.clone())
            else {
                continue;
            };
            let is_early = caller.told_at.is_some_and(|at| now < at + HOW_FAR_EVERY);
            if all < MANY || over == 0 || over == all || is_early {
                continue;
            }
            caller.told_at = Some(now);
            let connection = self.connection.clone();
            self.aside.spawn(async move {
                let text = format!("{over} of {all}");
                let _ = control::tell_how_far(&connection, &name, &text).await;
            });
        }
    }

    /// Tells how many reloads are under way.
    pub(super) fn tell_reloading(&mut self) {
        let reloading = self.callers.len();
        self.progress.send_if_modified(|progress| {
            std::mem::replace(&mut progress.reloading, reloading) != reloading
        });
    }

    /// Answers whoever asked for a reload.
    /// `late`: what the proxy has not done in time.
    pub(super) fn finish(
        &mut self,
        id: u64,
        outcomes: BTreeMap<WorkerName, Outcome>,
        late: Option<String>,
    ) {
        let failed: Vec<&str> = outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
            .map(|(worker, _)| worker.as_str())
            .collect();
        let is_unchanged =
            |outcome: &&Outcome| matches!(outcome, Outcome::Unchanged(_) | Outcome::PassedOver(_));
        let unchanged = outcomes.values().filter(is_unchanged).count();
        let changed = outcomes.len() - failed.len() - unchanged;
        let refused = late.or_else(|| self.progress.borrow().front.problem.clone());
        let message_id = messages::RELOAD_FINISHED;
        if failed.is_empty() && refused.is_none() {
            tracing::info!(
                message_id,
                "reload over: {changed} changed, {unchanged} unchanged"
            );
        } else {
            let front = refused.iter().map(|_| FRONT);
            let failed: Vec<&str> = failed.into_iter().chain(front).collect();
            let names = failed.join(", ");
            tracing::error!(
                message_id,
                "reload over: {changed} changed, {unchanged} unchanged, {} failed ({names})",
                failed.len()
            );
        }
        if let Some(caller) = self.callers.remove(&id) {
            let outcomes = outcomes
                .iter()
                .map(|(worker, outcome)| told(worker, outcome, false));
            let front = refused.map(|reason| front_refused(&reason));
            caller.answer(Ok(outcomes.chain(front).collect()));
        }
        self.tell_reloading();
        self.sweep(false);
        self.states.hurry();
    }

    /// Tells a line to the journal and to those who wait for these reloads.
    pub(super) fn note(&mut self, reloads: &[u64], note: Note) {
        log(&note);
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

/// A note as an entry of the journal. `tqserver history` reads these.
fn log(note: &Note) {
    let generation = note.generation.map(|generation| generation.0);
    let unit = note
        .generation
        .map(|generation| Instance::new(note.worker.clone(), generation).service_unit());
    let unit = unit.as_deref();
    let (worker, text) = (note.worker.as_str(), note.text.as_str());
    let (message_id, cause, reason, from) = match &note.kind {
        Kind::Progress => (None, None, None, None),
        Kind::Accepted { cause, from } => (
            Some(messages::GENERATION_ACCEPTED),
            Some(*cause),
            None,
            *from,
        ),
        Kind::Failed { cause, reason } => (
            Some(messages::GENERATION_FAILED),
            *cause,
            Some(reason),
            None,
        ),
        Kind::Ended { reason } => (Some(messages::GENERATION_ENDED), None, Some(reason), None),
        Kind::Assets => (Some(messages::ASSETS_ACCEPTED), None, None, None),
        Kind::Stopped => (Some(messages::GENERATION_STOPPED), None, None, None),
        Kind::Removed => (Some(messages::WORKER_REMOVED), None, None, None),
        Kind::Down { reason } => (Some(messages::WORKER_DOWN), None, Some(reason), None),
        Kind::Unhealthy { reason } => (Some(messages::HEALTH_FAILED), None, Some(reason), None),
    };
    let (cause, from) = (
        cause.map(|cause| cause.to_string()),
        from.map(|generation| generation.0),
    );
    // The journal shows the line among the worker's own when asked for the worker's unit (systemd.journal-fields(7)): with the first
    // field for the machine's units, which it believes root alone, with the second for a user's.
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                message_id,
                tq.worker = worker,
                tq.generation = generation,
                tq.cause = cause,
                tq.reason = reason,
                tq.from = from,
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
}

/// The workers that answer, and where.
pub(super) fn answering(view: &[WorkerView]) -> BTreeMap<WorkerName, Vec<Claim>> {
    let answer = |worker: &&WorkerView| matches!(worker.state, "serving" | "sleeping" | "files");
    view.iter()
        .filter(answer)
        .map(|worker| (worker.name.clone(), worker.claims.clone()))
        .collect()
}

/// The proxy could not have what server.yaml says of its side towards clients. It is told as a worker's failure is.
fn front_refused(reason: &str) -> WorkerOutcome {
    WorkerOutcome {
        worker: FRONT.to_owned(),
        outcome: "failed".to_owned(),
        from: 0,
        to: 0,
        reason: reason.to_owned(),
        log: Vec::new(),
    }
}

/// Seconds, none only if there is nothing left.
fn seconds(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

/// Reads what the services use.
fn statuses(
    view: Vec<WorkerView>,
    counts: &HashMap<Instance, Count>,
    states: &BTreeMap<WorkerName, (Option<Footprint>, Option<ByteSize>)>,
    group: Option<&Group>,
    now: Duration,
) -> Vec<WorkerStatus> {
    let status = |worker: WorkerView| {
        let (state, most) = states.get(&worker.name).copied().unwrap_or_default();
        let generations = worker.generations.iter().map(|run| {
            let instances = run.pairs.iter();
            let instances = instances.map(|one| instance_status(one, group));
            generation_status(run, instances.collect(), counts.get(&run.instance))
        });
        let generations = generations.collect();
        let (failure, ago) = match worker.last_failure {
            Some((failure, at)) => (failure.reason.to_string(), now.saturating_sub(at)),
            None => (String::new(), Duration::ZERO),
        };
        WorkerStatus {
            name: worker.name.to_string(),
            route: places(&worker.claims),
            state: worker.state.to_owned(),
            generations,
            last_failure: failure,
            last_failure_ago: ago.as_secs(),
            retry_in: worker
                .retry_at
                .map_or(0, |at| at.saturating_sub(now).as_secs().max(1)),
            paused_for: worker.halt.pause.map_or(0, |pause| seconds(pause.left())),
            exposed: worker.exposed,
            state_size: state.map_or(0, |state| state.bytes),
            state_is_more: state.is_some_and(|state| !state.is_all),
            state_max: most.map_or(0, |most| most.0),
            in_maintenance: worker.halt.maintenance.is_some(),
            maintenance: worker
                .halt
                .maintenance
                .and_then(|maintenance| maintenance.message)
                .unwrap_or_default(),
        }
    };
    view.into_iter().map(status).collect()
}

fn instance_status(one: &PairView, group: Option<&Group>) -> InstanceStatus {
    let service = &one.service;
    // What has no process uses nothing.
    let runs = group.filter(|_| service.pid != 0);
    let usage = runs.map_or_else(Usage::default, |group| group.usage(&one.pair));
    InstanceStatus {
        unit: one.pair.service_unit(),
        state: one.state.to_owned(),
        pid: service.pid,
        memory: usage.memory.unwrap_or(0),
        cpu_usec: usage
            .cpu
            .map_or(0, |cpu| u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX)),
        restarts: service.restarts,
        since: if service.pid == 0 { 0 } else { service.since },
    }
}

fn generation_status(
    run: &RunView,
    instances: Vec<InstanceStatus>,
    count: Option<&Count>,
) -> GenerationStatus {
    let running = instances.iter().find(|one| one.pid != 0);
    GenerationStatus {
        generation: run.instance.generation.0,
        unit: run.instance.service_unit(),
        stage: run.stage.to_string(),
        pid: running.map_or(0, |one| one.pid),
        memory: instances.iter().map(|one| one.memory).sum(),
        cpu_usec: instances.iter().map(|one| one.cpu_usec).sum(),
        requests: count.map_or(0, |count| count.requests),
        in_flight: count.map_or(0, |count| count.in_flight),
        restarts: instances.iter().map(|one| one.restarts).sum(),
        since: running.map_or(0, |one| one.since),
        instances,
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
        Outcome::PassedOver(generation) => (
            "unchanged",
            generation.0,
            generation.0,
            "it was rolled back to, and nothing new was deployed since; --force takes what lies there"
                .to_owned(),
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
                failure.log.iter().map(|line| ansi::strip(line)).collect(),
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
