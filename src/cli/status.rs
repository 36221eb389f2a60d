//! `tqserver status`: the workers as they are.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::arguments::Common;
use super::client::{ANSWER, Client, left_out, plain};
use super::columns::columns;
use super::exit::{self, refused};
use super::say;
use crate::config::printable;
use crate::footprint::Footprint;
use crate::holders;
use crate::limits::ByteSize;
use crate::manager::control::ControlError;
use crate::manager::size_of_state;
use crate::manager::status::{GenerationStatus, InstanceStatus, ListenerStatus, WorkerStatus};
use crate::plan::EXPOSED;
use crate::systemd::Kind;

#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Only this worker, in detail.
    #[arg(value_name = "WORKER")]
    worker: Option<String>,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let client = Client::find(common).await?;
        let manager = client.manager().await?;
        let asked = async {
            let Some(name) = &self.worker else {
                return manager.list_workers().await;
            };
            match manager.get_workers(vec![name.clone()]).await {
                // A manager of a version before this call.
                Err(error) if is_unknown(&error) => manager.list_workers().await,
                Ok(found) if found.is_empty() => manager.list_workers().await,
                answer => answer,
            }
        };
        let answer = tokio::time::timeout(ANSWER, asked).await;
        let mut workers = answer
            .map_err(|_| {
                refused(
                    exit::UNAVAILABLE,
                    format!("the manager did not answer in {} s", ANSWER.as_secs()),
                    client.hint(),
                )
            })?
            .map_err(plain)?;
        if let Some(name) = &self.worker {
            let known: Vec<String> = workers.iter().map(|worker| worker.name.clone()).collect();
            workers.retain(|worker| worker.name == *name);
            if workers.is_empty() {
                let hint = format!("there are: {}", known.join(", "));
                return Err(refused(
                    exit::USAGE,
                    format!("there is no worker '{name}'"),
                    hint,
                ));
            }
        }
        if self.json {
            println!("{}", say::json(&serde_json::to_string_pretty(&workers)?));
        } else if self.worker.is_some() {
            let log = |worker| log_of(client.kind(), common, worker);
            workers
                .iter()
                .for_each(|worker| detail(worker, &log(&worker.name)));
        } else {
            table(&workers);
            let answer = tokio::time::timeout(ANSWER, manager.list_listeners()).await;
            if let Ok(Ok(listening)) = answer {
                listeners(&listening);
            }
            for sentence in left_out(&manager).await {
                println!("{sentence}");
            }
        }
        Ok(0)
    }
}

/// Where clients connect. The proxy may not see which process has what it wants; whoever asks may.
fn listeners(listening: &[ListenerStatus]) {
    let mut rows = vec![["LISTENER", "STATE"].map(str::to_owned)];
    for listener in listening {
        let state = match listener.reason.as_str() {
            "" => listener.state.clone(),
            reason => format!("NOT SERVED: {}{}", printable(reason), holder(listener)),
        };
        rows.push([listener.place.clone(), state]);
    }
    print!("\n{}", columns(&rows));
}

/// Which process it is, if that is known here and was not there.
fn holder(listener: &ListenerStatus) -> String {
    let place = listener.place.trim_end_matches(" (TLS)");
    let holder = match place.strip_prefix("unix:") {
        Some(path) => holders::of_unix(Path::new(path)),
        None => place.parse().ok().and_then(holders::of_tcp),
    };
    match holder {
        Some(holder) if holder.process.is_some() && !listener.reason.contains("(PID ") => {
            format!("; it is {holder}")
        }
        _ => String::new(),
    }
}

/// Whether the manager does not know the call, or what is asked for can be no worker's name.
fn is_unknown(error: &ControlError) -> bool {
    match error {
        ControlError::InvalidArgument(_) => true,
        ControlError::ZBus(zbus::Error::FDO(error)) => {
            matches!(**error, zbus::fdo::Error::UnknownMethod(_))
        }
        _ => false,
    }
}

const HEAD: [&str; 10] = [
    "WORKER", "ROUTE", "STATE", "GEN", "PID", "MEMORY", "CPU", "REQUESTS", "RESTARTS", "UP",
];

fn table(workers: &[WorkerStatus]) {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(workers.iter().map(row));
    print!("{}", columns(&rows));
    for worker in workers
        .iter()
        .filter(|worker| !worker.last_failure.is_empty())
    {
        println!("{}", failure(worker));
    }
    for worker in workers.iter().filter(|worker| worker.exposed) {
        println!("{}: {EXPOSED}", worker.name);
    }
}

fn row(worker: &WorkerStatus) -> [String; HEAD.len()] {
    let serving = worker
        .generations
        .iter()
        .find(|run| run.stage == "serving")
        .or(worker.generations.first());
    let (name, route, state) = (worker.name.clone(), worker.route.clone(), state(worker));
    match serving {
        None => [
            name,
            route,
            state,
            dash(),
            dash(),
            dash(),
            dash(),
            dash(),
            dash(),
            dash(),
        ],
        Some(run) => [
            name,
            route,
            state,
            generation(run),
            if run.pid == 0 {
                dash()
            } else {
                run.pid.to_string()
            },
            memory(run.memory),
            cpu(run.cpu_usec),
            run.requests.to_string(),
            run.restarts.to_string(),
            uptime(run.since),
        ],
    }
}

/// Its state, or what stands between it and its clients.
fn state(worker: &WorkerStatus) -> String {
    match (worker.in_maintenance, worker.paused_for) {
        (true, _) => "maintenance".to_owned(),
        (_, 0) => worker.state.clone(),
        _ => "paused".to_owned(),
    }
}

fn detail(worker: &WorkerStatus, log: &str) {
    println!("{} on {}: {}", worker.name, worker.route, worker.state);
    for run in &worker.generations {
        let several = match run.instances.len() {
            0 | 1 => String::new(),
            instances => format!(", {instances} instances"),
        };
        println!(
            "  generation {} {} ({}){several}",
            run.generation, run.stage, run.unit
        );
        if run.instances.len() > 1 {
            run.instances.iter().for_each(instance);
        } else if run.pid != 0 {
            println!(
                "    process {} up {}, memory {}, CPU {}",
                run.pid,
                uptime(run.since),
                memory(run.memory),
                cpu(run.cpu_usec)
            );
        }
        println!(
            "    {} requests, {} in flight, {} restarts by systemd",
            run.requests, run.in_flight, run.restarts
        );
    }
    if let Some(state) = state_size(worker) {
        println!("  {state}");
    }
    if worker.in_maintenance {
        let message = match worker.maintenance.as_str() {
            "" => String::new(),
            message => format!(": {message}"),
        };
        println!("  in maintenance, clients get 503{message}");
    }
    if worker.paused_for > 0 {
        let left = seconds(Duration::from_secs(worker.paused_for));
        println!("  paused, its requests wait for at most {left} more");
    }
    if !worker.last_failure.is_empty() {
        println!("  {}", failure(worker));
    }
    if worker.exposed {
        println!("  {EXPOSED}");
    }
    println!("  log: {log}");
}

/// What it keeps on the disk, as in `state 1.2GiB of 2GiB`.
fn state_size(worker: &WorkerStatus) -> Option<String> {
    if worker.state_size == 0 {
        return None;
    }
    let found = Footprint {
        bytes: worker.state_size,
        is_all: !worker.state_is_more,
    };
    let most = match worker.state_max {
        0 => String::new(),
        most => format!(" of {}", ByteSize(most)),
    };
    Some(format!("state {}{most}", size_of_state(found)))
}

/// One of several instances.
fn instance(instance: &InstanceStatus) {
    print!("    {} {}", instance.unit, instance.state);
    if instance.pid != 0 {
        print!(
            ": process {} up {}, memory {}, CPU {}, {} restarts",
            instance.pid,
            uptime(instance.since),
            memory(instance.memory),
            cpu(instance.cpu_usec),
            instance.restarts
        );
    }
    println!();
}

/// The generation's number, and of how many instances it consists where there are several: `7 x3`, or `7 x2/3` where one of them failed.
fn generation(run: &GenerationStatus) -> String {
    let all = run.instances.len();
    let failed = |instance: &&InstanceStatus| instance.state == "failed";
    match run.instances.iter().filter(failed).count() {
        _ if all < 2 => run.generation.to_string(),
        0 => format!("{} x{all}", run.generation),
        failed => format!("{} x{}/{all}", run.generation, all - failed),
    }
}

/// How to read a worker's log, unless it has a `log_file`.
fn log_of(kind: Kind, common: &Common, worker: &str) -> String {
    match kind {
        Kind::System => format!("journalctl -u 'tqserver-{worker}@*'"),
        Kind::User => format!("journalctl --user -u 'tqserver-{worker}@*'"),
        Kind::Private => {
            let directory = kind.runtime_directory(&common.config).join("log");
            format!("tail {}/{worker}@*.log", directory.display())
        }
    }
}

fn failure(worker: &WorkerStatus) -> String {
    let retry = match worker.retry_in {
        0 => String::new(),
        seconds => format!("; tried again in {seconds} s"),
    };
    format!(
        "{}: last failure {} ago: {}{retry}",
        worker.name,
        ago(worker.last_failure_ago),
        worker.last_failure
    )
}

fn ago(seconds_ago: u64) -> String {
    if seconds_ago == 0 {
        "less than 1 s".to_owned()
    } else {
        seconds(Duration::from_secs(seconds_ago))
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn memory(bytes: u64) -> String {
    match bytes {
        0 => dash(),
        bytes if bytes < 10 << 20 => format!(
            "{:.1}MiB",
            f64::from(u32::try_from(bytes >> 10).unwrap_or(0)) / 1024.0
        ),
        bytes => ByteSize(bytes >> 20 << 20).to_string(),
    }
}

/// Where systemd does not account for CPU time, as on cgroup v1 with split hierarchies, there is none to show.
fn cpu(usec: u64) -> String {
    match usec {
        0 => dash(),
        usec => seconds(Duration::from_micros(usec)),
    }
}

fn uptime(since: u64) -> String {
    if since == 0 {
        return dash();
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    seconds(now.saturating_sub(Duration::from_secs(since)))
}

fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{:.1}s", duration.as_secs_f64()),
        total @ 60..3600 => format!("{}min {}s", total / 60, total % 60),
        total @ 3600..86_400 => format!("{}h {}min", total / 3600, total % 3600 / 60),
        total => format!("{}d {}h", total / 86_400, total % 86_400 / 3600),
    }
}
