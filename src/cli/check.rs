//! `tqserver check`: is everything right, and what units would be made?

use std::path::Path;
use std::time::SystemTime;

use super::arguments::Common;
use super::exit;
use crate::builder;
use crate::config::{
    Listen, Mode, Settings, WorkerSettings, WorkerType, printable, project_directory,
    read_env_files,
};
use crate::deploy::SNAPSHOTS;
use crate::holders::{self, Holder};
use crate::inventory::{self, Found, Status};
use crate::manager::Journal;
use crate::manager::certificates;
use crate::manager::pair::{Ground, Run};
use crate::names::{Generation, Instance, Pair};
use crate::plan::{Reason, Spec};
use crate::route::{Address, Place};
use crate::systemd::{Kind, UnitPair, is_booted, security};

/// Most names of a worker that are told.
const UNSERVED_MOST: usize = 5;

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Print the units that would be made, as unit files.
    #[arg(long)]
    show_units: bool,
}

impl Check {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<u8> {
        let mut settings = common.settings()?;
        let mode = common.mode(Mode::Production)?;
        let inventory = inventory::scan(&settings, mode)?;
        let mut wrong = 0;
        match certificates::load(&mut settings) {
            Ok(()) => {
                for doubt in certificates::doubts(&settings, SystemTime::now()) {
                    eprintln!("warning: {doubt}");
                }
            }
            Err(problems) => {
                eprintln!("{problems}");
                wrong += 1;
            }
        }
        let taken = taken(&settings);
        for taken in &taken {
            eprintln!("{taken}");
        }
        // Elsewhere the server may be meant for another machine.
        if common.kind() == Kind::System && mode == Mode::Production {
            wrong += taken.len();
        }
        let mut pairs = Vec::new();
        for stray in &inventory.strays {
            eprintln!("{stray}");
            wrong += 1;
        }
        for unrecognised in &inventory.unrecognised {
            eprintln!("warning: {unrecognised}");
        }
        for found in inventory.workers.values() {
            if let Some(worker) = found.settings().filter(|_| !common.quiet) {
                tell_unserved(found);
                if mode == Mode::Production {
                    tell_omitted(found, worker);
                }
            }
            match &found.status {
                Status::Disabled => eprintln!("{}: disabled in {mode}", found.name),
                Status::Refused(problems) => {
                    eprintln!("{problems}");
                    wrong += 1;
                }
                Status::Enabled(worker) if worker.kind == WorkerType::Static => {}
                Status::Enabled(worker) => match units(found, worker, &settings, mode, common) {
                    Ok(of_worker) => pairs.extend(of_worker),
                    Err(reason) => {
                        eprintln!("{}: {reason}", found.name);
                        wrong += 1;
                    }
                },
            }
        }
        if self.show_units {
            for pair in &pairs {
                println!("{}", pair.to_unit_files());
            }
        }
        // All instances of a worker reach as much as its first.
        pairs.retain(|pair| pair.sandbox.is_some() && pair.number == 1);
        wrong += exposed(&pairs, &settings, common.quiet);
        if wrong == 0 {
            let workers = match inventory.workers.len() {
                1 => "1 worker".to_owned(),
                number => format!("{number} workers"),
            };
            eprintln!("{}: {workers}, no problems", settings.file.display());
        }
        Ok(if wrong == 0 { 0 } else { exit::CONFIG })
    }
}

/// Tells which names in its `public/` are not served. There may be a reason for them to lie there.
fn tell_unserved(found: &Found) {
    let Some(public) = &found.public else {
        return;
    };
    let names = inventory::unserved(public, UNSERVED_MOST);
    let names: Vec<String> = names
        .iter()
        .map(|name| format!("public/{}", printable(&name.to_string_lossy())))
        .collect();
    if !names.is_empty() {
        eprintln!(
            "{}: not served, since names that begin with a dot are hidden: {}",
            found.name,
            names.join(", ")
        );
    }
}

/// Tells which files its configuration names that are not in its snapshots. What names one may be meant as something else.
fn tell_omitted(found: &Found, worker: &WorkerSettings) {
    let command = worker.command.iter().flatten();
    let command = command.map(|word| ("command".to_owned(), word));
    let variables = worker.env.iter();
    let variables = variables.map(|(name, value)| (format!("env: {name}"), value));
    for (key, word) in command.chain(variables) {
        // As in `--config=data/x.conf`.
        let path = word.rsplit('=').next().unwrap_or_default();
        if let Some(part) = inventory::omitted(&found.directory, worker.kind, Path::new(path)) {
            let [path, part] = [path, &part.to_string_lossy()].map(printable);
            eprintln!(
                "warning: {}: '{key}' names {path}, and in production the worker runs from a snapshot without {part}; put it elsewhere in its directory",
                found.name
            );
        }
    }
}

/// The places to listen at that another process has, each in a sentence with what to do.
fn taken(settings: &Settings) -> Vec<String> {
    let mut taken = Vec::new();
    for listen in &settings.front.listen {
        let (holder, show) = match &listen.place {
            Place::Tcp(address) if address.port() == 0 => continue,
            Place::Tcp(address) => {
                let show = format!("ss -ltnp sport = :{}", address.port());
                (holders::of_tcp(*address), show)
            }
            Place::Unix(path) => {
                let show = format!("ss -lxp src {}", path.display());
                (holders::of_unix(path), show)
            }
        };
        let Some(holder) = holder.filter(|holder| !is_ours(holder)) else {
            continue;
        };
        taken.push(format!(
            "warning: {}: 'server' listens at {listen}, which is in use by {holder}\n  help: stop it ('{show}' shows it), or choose another",
            settings.file.display()
        ));
    }
    taken
}

/// Whether it is our own proxy: a process of this program, or what systemd keeps for the user it runs as.
fn is_ours(holder: &Holder) -> bool {
    let command = holder.process.as_ref().map(|(_, command)| command.as_str());
    command == Some("tqserver") || holder.user().as_deref() == Some("tqserver")
}

/// Tells how much of the machine the workers can reach; returns the number of those that reach too much. Where systemd can not be asked,
/// as on a machine that only builds, that is no problem of the workers.
fn exposed(pairs: &[UnitPair], settings: &Settings, quiet: bool) -> usize {
    let exposures = match security::exposures(pairs) {
        Ok(exposures) => exposures,
        Err(error) => {
            eprintln!("exposure not known: {}", crate::manager::explain(&error));
            return 0;
        }
    };
    let mut wrong = 0;
    for (instance, exposed) in &exposures {
        let worker = &instance.worker;
        if exposed.exposure > settings.max_exposure {
            wrong += 1;
            let most = security::Exposed {
                exposure: settings.max_exposure,
                heaviest: Vec::new(),
            };
            eprintln!("{worker}: exposure {exposed} is above 'max_exposure', {most}");
            eprintln!(
                "  help: what weighs most: {}; `network: none` in its worker.yaml takes most off, `network: loopback` some",
                exposed.weights()
            );
        } else if !quiet {
            eprintln!("{worker}: exposure {exposed}");
        }
    }
    wrong
}

/// The units of the worker's first generation.
fn units(
    found: &Found,
    worker: &WorkerSettings,
    settings: &Settings,
    mode: Mode,
    common: &Common,
) -> Result<Vec<UnitPair>, Reason> {
    let kind = common.kind();
    let instance = Instance::new(worker.name.clone(), Generation(1));
    let state = (mode == Mode::Production).then(|| kind.state_directory(&common.config));
    let starter = std::env::current_exe();
    let starter = starter.unwrap_or_else(|_| "/usr/bin/tqserver".into());
    let ground = Ground {
        kind,
        mode,
        file: &settings.file,
        project: &project_directory(&settings.file),
        state: state.as_deref(),
        group: None,
        journal: &Journal::Journald { user: false },
        starter: &starter,
    };
    // What another machine's systemd can do is not known here.
    if is_booted() {
        ground.enforce_network(worker)?;
    }
    let mut command = command(found, worker, mode)?;
    let mut programs = builder::own_programs(&found.directory);
    let mut files = found.directory.clone();
    if let (Some(state), true) = (&state, ground.has_sandbox()) {
        files = state.join(SNAPSHOTS).join(worker.name.as_str()).join("1");
        for word in &mut command {
            if let Ok(inside) = Path::new(&*word).strip_prefix(&found.directory) {
                *word = files.join(inside).display().to_string();
            }
        }
        for programs in &mut programs {
            if let Ok(inside) = programs.strip_prefix(&found.directory) {
                *programs = files.join(inside);
            }
        }
    }
    let from_files = read_env_files(&found.directory, &worker.env_files)
        .map_err(|error| Reason::Unusable(error.to_string()))?;
    let spec = Spec {
        settings: worker.clone(),
        fingerprint: found.fingerprint.clone(),
        directory: found.directory.clone(),
        public: found.public.clone(),
        passed_over: None,
    };
    let runtime = kind.runtime_directory(&common.config);
    let numbers = 1..=worker.instances();
    let run = |(pair, port): (Pair, u16)| Run {
        address: match worker.listen {
            Listen::Socket => Address::Unix(runtime.join(pair.file_name("sock"))),
            Listen::Port => Address::loopback(port),
        },
        pair,
        files: files.clone(),
        command: command.clone(),
        programs: programs.clone(),
        workers: settings.workers_directories.clone(),
        ports: settings.ports.clone(),
        accepted: false,
        stop_timeout: settings.shutdown_grace,
        user: None,
        from_files: from_files.clone(),
        one_off: None,
        record: String::new(),
    };
    let ports = *settings.ports.start()..;
    numbers
        .map(|number| instance.pair(number))
        .zip(ports)
        .map(|one| ground.pair(&spec, run(one)))
        .collect()
}

/// What it runs.
fn command(found: &Found, worker: &WorkerSettings, mode: Mode) -> Result<Vec<String>, Reason> {
    // Before the first build of a worker in development there may be nothing to run yet.
    let built_later =
        mode == Mode::Development && !builder::build_commands(worker, &found.directory).is_empty();
    match builder::run_command(worker, &found.directory, mode) {
        Ok(command) => Ok(command),
        Err(_) if built_later => {
            let program = found.directory.join("bin").join(worker.name.program());
            Ok(vec![program.display().to_string()])
        }
        Err(error) => Err(Reason::Unusable(error.to_string())),
    }
}
