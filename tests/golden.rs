//! Directory trees in, what is made of them out: each directory below `tests/golden/` holds `config/` and `workers/` like a real
//! project, and `expected.txt`. `TQ_GOLDEN=write cargo test --test golden` writes the expectations anew; read the difference before
//! committing it. A file `mode` with the word `development` chooses that mode.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tqserver::config::{Limits, LimitsPatch, Mode, Settings, WorkerSettings};
use tqserver::inventory::{Found, Status, scan};
use tqserver::route::Claim;

#[test]
fn every_tree_gives_what_is_expected_of_it() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(&golden)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no case in {}", golden.display());
    let write = std::env::var("TQ_GOLDEN").is_ok_and(|value| value == "write");
    let mut differences = String::new();
    for case in cases {
        let found = told(&case);
        let file = case.join("expected.txt");
        if write {
            fs::write(&file, &found).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if expected != found {
            let name = case.file_name().unwrap().to_string_lossy();
            let _ = write!(
                differences,
                "--- {name}, expected:\n{expected}--- {name}, found:\n{found}\n"
            );
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

/// All there is to say of a tree, without what differs from machine to machine.
fn told(case: &Path) -> String {
    let mode = match fs::read_to_string(case.join("mode")) {
        Ok(word) if word.trim() == "development" => Mode::Development,
        _ => Mode::Production,
    };
    let text = match Settings::load(&case.join("config/server.yaml")) {
        Err(problems) => format!("refused:\n{problems}\n"),
        Ok(settings) => server(&settings) + &workers(&settings, mode),
    };
    let here = case.display().to_string();
    text.replace(&format!("{here}/"), "").replace(&here, ".")
}

fn server(settings: &Settings) -> String {
    let front = &settings.front;
    let mut text = format!(
        "server\n  listen {:?}\n  read {:?} write {:?} idle {:?}\n  health {} head {} bytes, {} fields\n",
        front.listen,
        front.read_timeout,
        front.write_timeout,
        front.idle_timeout,
        front.health_path,
        front.max_header_bytes,
        front.max_headers,
    );
    let _ = write!(
        text,
        "workers in {}\n  ports {:?}\n  startup {:?} restart {:?} grace {:?} debounce {:?}\n",
        settings
            .workers_directories
            .iter()
            .map(|directory| directory.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
        settings.ports,
        settings.startup_delay,
        settings.restart_delay,
        settings.shutdown_grace,
        settings.debounce,
    );
    let _ = writeln!(text, "  default: {}", limits(&settings.default));
    for (
        route,
        LimitsPatch {
            gomaxprocs,
            gomemlimit,
            max_requests,
            ..
        },
    ) in &settings.paths
    {
        let _ = writeln!(
            text,
            "  {route}: cores {gomaxprocs:?} memory {gomemlimit:?} requests {max_requests:?} ..."
        );
    }
    if settings.default.instances > 1 {
        let _ = writeln!(text, "  default: {} instances", settings.default.instances);
    }
    let max = &settings.max;
    let _ = writeln!(
        text,
        "  max: cores {:?} memory {:?} tasks {:?} high {:?} cpu {:?} io {:?} body {:?} concurrency {:?} queue {:?}\nsecurity\n  exposure {}",
        max.gomaxprocs,
        max.gomemlimit,
        max.tasks_max,
        max.memory_high,
        max.cpu_weight,
        max.io_weight,
        max.max_body_size,
        max.max_concurrency,
        max.queue_size,
        settings.max_exposure,
    );
    if let Some(most) = max.state_max {
        let _ = writeln!(text, "max state {most}");
    }
    if let Some(most) = max.instances {
        let _ = writeln!(text, "max instances {most}");
    }
    text
}

fn workers(settings: &Settings, mode: Mode) -> String {
    let inventory = match scan(settings, mode) {
        Ok(inventory) => inventory,
        Err(error) => return format!("can not {error}\n"),
    };
    let mut text = String::new();
    for found in inventory.workers.values() {
        text += &worker(found);
    }
    for hidden in inventory.hidden {
        let _ = writeln!(text, "hidden {}", hidden.display());
    }
    for stray in inventory.strays {
        let _ = writeln!(text, "stray {stray}");
    }
    for unrecognised in inventory.unrecognised {
        let _ = writeln!(text, "unrecognised {unrecognised}");
    }
    text
}

fn worker(found: &Found) -> String {
    let mut text = format!("worker {} in {}", found.name, found.directory.display());
    if let Some(public) = &found.public {
        let _ = write!(text, ", assets in {}", public.display());
    }
    match &found.status {
        Status::Enabled(settings) => text + "\n" + &effective(settings) + &several(settings),
        Status::Disabled => text + "\n  disabled\n",
        Status::Refused(problems) => format!("{text}\n  refused:\n{problems}\n"),
    }
}

/// What most workers do not have.
fn several(settings: &WorkerSettings) -> String {
    match (settings.instances(), &settings.sticky) {
        (1, None) => String::new(),
        (instances, sticky) => format!("  {instances} instances, sticky {sticky:?}\n"),
    }
}

fn effective(settings: &WorkerSettings) -> String {
    told_of(settings) + &routing(settings)
}

/// What is seldom set: nothing where it is not.
fn routing(settings: &WorkerSettings) -> String {
    let mut text = String::new();
    if !settings.env_files.is_empty() {
        let _ = writeln!(text, "  env from {:?}", settings.env_files);
    }
    if !settings.env_from_credentials.is_empty() {
        let secrets = &settings.env_from_credentials;
        let _ = writeln!(text, "  env from credentials {secrets:?}");
    }
    for claim in Claim::all(&settings.on_route.hosts, &settings.route) {
        if claim.host.is_some() {
            let _ = writeln!(text, "  on {claim}");
        }
    }
    if settings.on_route.strip_prefix {
        text += "  without its prefix\n";
    }
    if settings.on_route.underscores_in_headers {
        text += "  with underscores in headers\n";
    }
    for redirect in &settings.on_route.redirects {
        let _ = writeln!(text, "  {redirect:?}");
    }
    for (errors, file) in &settings.on_route.error_pages {
        let _ = writeln!(text, "  error {errors}: {file}");
    }
    text
}

fn told_of(settings: &WorkerSettings) -> String {
    let health = &settings.health;
    format!(
        "  route {} type {} listen {:?} network {:?} jit {} cache {} autostart {}\n  \
         command {:?} build {:?} env {:?} credentials {:?}\n  \
         health {:?}, timeout {:?} interval {:?} start {:?} failures {}\n  {}\n",
        settings.route,
        settings.kind,
        settings.listen,
        settings.network,
        settings.jit,
        settings.cache,
        settings.autostart,
        settings.command,
        settings.build,
        settings.env,
        settings.credentials,
        health.path,
        health.timeout,
        health.interval,
        health.start_timeout,
        health.failures,
        limits(&settings.limits),
    )
}

fn limits(limits: &Limits) -> String {
    let or_none = |value: Option<String>| value.unwrap_or("none".to_owned());
    format!(
        "cores {} memory {} high {} tasks {} cpu {} io {} requests {} read {:?} write {:?} idle {:?} log {:?} access {}\n  \
         body {} concurrency {} queue {} for {:?} retries {} total {:?}{}",
        or_none(limits.gomaxprocs.map(|quota| quota.cores.to_string())),
        or_none(limits.gomemlimit.map(|size| size.to_string())),
        or_none(limits.memory_high.map(|size| size.to_string())),
        or_none(limits.tasks_max.map(|tasks| tasks.to_string())),
        or_none(limits.cpu_weight.map(|weight| weight.to_string())),
        or_none(limits.io_weight.map(|weight| weight.to_string())),
        limits.max_requests,
        limits.timeouts.read,
        limits.timeouts.write,
        limits.timeouts.idle,
        limits.log_file,
        limits.access_log,
        or_none(limits.flow.max_body.map(|bytes| bytes.to_string())),
        limits.flow.max_concurrency,
        limits.flow.queue_size,
        limits.flow.queue_timeout,
        limits.flow.retries,
        limits.flow.request_timeout,
        limits
            .state_max
            .map_or(String::new(), |size| format!(" state {size}")),
    )
}
