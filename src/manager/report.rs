//! What the plan, systemd and the proxy know, in the words of reports: for the bus, for a line.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::state::KnownState;
use super::status::{GenerationStatus, InstanceStatus, WorkerOutcome, WorkerStatus};
use crate::ansi;
use crate::names::{Instance, WorkerName};
use crate::plan::{Outcome, PairView, RunView, WorkerView};
use crate::route::{Claim, places};
use crate::systemd::{Group, Usage};
use crate::wire::Count;

/// Stands where a worker's name does; none can have a colon in it.
pub(super) const FRONT: &str = "server.yaml: server";

/// What runs in a line, as `systemctl status` shows it.
pub(super) fn summary(view: &[WorkerView]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for worker in view {
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
    let summary = match view.len() {
        0 => "no workers".to_owned(),
        1 => format!("1 worker: {}", states.join(", ")),
        workers => format!("{workers} workers: {}", states.join(", ")),
    };
    let mut failed = view.iter().filter(|worker| worker.state == "failed");
    let Some(worker) = failed.next() else {
        return summary;
    };
    let reason = worker.last_failure.as_ref().map(|(failure, _)| {
        let reason = failure.reason.to_string();
        reason.lines().next().unwrap_or_default().to_owned()
    });
    let more = if failed.next().is_some() { ", ..." } else { "" };
    format!(
        "{summary} ({}: {}{more})",
        worker.name,
        reason.unwrap_or_default()
    )
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
pub(super) fn front_refused(reason: &str) -> WorkerOutcome {
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
pub(super) fn statuses(
    view: Vec<WorkerView>,
    counts: &HashMap<Instance, Count>,
    states: &BTreeMap<WorkerName, KnownState>,
    group: Option<&Group>,
    now: Duration,
) -> Vec<WorkerStatus> {
    let status = |worker: WorkerView| {
        let KnownState { found, limit } = states.get(&worker.name).copied().unwrap_or_default();
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
            state_size: found.map_or(0, |state| state.bytes),
            state_is_more: found.is_some_and(|state| !state.is_all),
            state_max: limit.map_or(0, |limit| limit.0),
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
pub(super) fn worker_outcome(
    worker: &WorkerName,
    outcome: &Outcome,
    dry_run: bool,
) -> WorkerOutcome {
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
