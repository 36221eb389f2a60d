//! `tqserver check`: is everything right, and what units would be made?

use super::{Common, exit};
use crate::builder;
use crate::config::{Listen, Mode, Settings, WorkerSettings, project_directory};
use crate::inventory::{self, Found, Status};
use crate::manager::{Journal, data_directory};
use crate::names::{Generation, Instance};
use crate::plan::loopback;
use crate::route::Address;
use crate::systemd::UnitPair;

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Print the units that would be made, as unit files.
    #[arg(long)]
    show_units: bool,
}

impl Check {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<u8> {
        let settings = common.settings()?;
        let mode = common.mode(Mode::Production)?;
        let inventory = inventory::scan(&settings, mode)?;
        let mut wrong = 0;
        for stray in &inventory.strays {
            eprintln!("{}: {}", stray.directory.display(), stray.reason);
            wrong += 1;
        }
        for found in inventory.workers.values() {
            match &found.status {
                Status::Disabled => eprintln!("{}: disabled in {mode}", found.name),
                Status::Refused(problems) => {
                    eprintln!("{problems}");
                    wrong += 1;
                }
                Status::Enabled(worker) => {
                    wrong += self.one(found, worker, &settings, mode, common)
                }
            }
        }
        if wrong == 0 {
            eprintln!(
                "{}: {} workers, no problems",
                settings.file.display(),
                inventory.workers.len()
            );
        }
        Ok(if wrong == 0 { 0 } else { exit::CONFIG })
    }

    /// Looks at one worker; returns the number of problems.
    fn one(
        &self,
        found: &Found,
        worker: &WorkerSettings,
        settings: &Settings,
        mode: Mode,
        common: &Common,
    ) -> usize {
        if worker.kind == crate::config::WorkerType::Static {
            return 0;
        }
        // Before the first build of a worker in development there may be nothing to run yet.
        let built_later =
            mode == Mode::Development && builder::build_command(worker, &found.directory).is_some();
        let command = match builder::run_command(worker, &found.directory, mode) {
            Ok(command) => command,
            Err(_) if built_later => vec![
                found
                    .directory
                    .join("bin")
                    .join(worker.name.program())
                    .display()
                    .to_string(),
            ],
            Err(error) => {
                eprintln!("{}: {error}", worker.name);
                return 1;
            }
        };
        if self.show_units {
            print!(
                "{}",
                pair(found, worker, settings, mode, common, command).to_unit_files()
            );
            println!();
        }
        0
    }
}

/// The units of the worker's first generation.
fn pair(
    found: &Found,
    worker: &WorkerSettings,
    settings: &Settings,
    mode: Mode,
    common: &Common,
    command: Vec<String>,
) -> UnitPair {
    let instance = Instance::new(worker.name.clone(), Generation(1));
    let runtime = common.kind().runtime_directory(&common.config);
    let address = match worker.listen {
        Listen::Socket => Address::Unix(runtime.join(instance.file_name("sock"))),
        Listen::Port => loopback(*settings.ports.start()),
    };
    let state = (mode == Mode::Production).then(|| common.kind().state_directory(&common.config));
    let journal = Journal::Journald { user: false };
    let output = journal.output(&instance, worker, &project_directory(&settings.file));
    UnitPair {
        instance,
        route: worker.route.clone(),
        mode,
        address,
        socket_group: None,
        directory: found.directory.clone(),
        data: data_directory(state.as_deref(), &worker.name, &found.directory),
        command,
        env: worker.env.clone(),
        limits: worker.limits.clone(),
        sandbox: None,
        credentials: Vec::new(),
        accepted: false,
        output,
        stop_timeout: settings.shutdown_grace,
        record: String::new(),
    }
}
