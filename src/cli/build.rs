//! `tqserver build`: what `tqserver dev` does by itself, for who deploys.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::arguments::Common;
use super::exit::{self, refused};
use crate::builder::{self, BuildFailure, Built, Order, Purpose, Runner};
use crate::config::{Mode, WorkerSettings, project_directory};
use crate::dev::{Asked, Signals};
use crate::inventory::{self, Found, Inventory, Status};
use crate::names::WorkerName;
use crate::{ansi, terminal};

#[derive(Debug, clap::Args)]
pub(super) struct Build {
    /// Only these workers, or those in these directories.
    #[arg(value_name = "WORKER|DIRECTORY")]
    workers: Vec<String>,
    /// Optimise, and leave out what only developers need: for what is deployed.
    #[arg(long)]
    release: bool,
}

impl Build {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let settings = common.settings()?;
        let (purpose, usual) = match self.release {
            true => (Purpose::Release, Mode::Production),
            false => (Purpose::Development, Mode::Development),
        };
        let mode = common.mode(usual)?;
        let inventory = inventory::scan(&settings, mode)?;
        let target = builder::shared_target(&project_directory(&settings.file));
        let mut signals = Signals::open()?;
        let mut failed = 0;
        for found in self.meant(&inventory)? {
            let worker = match &found.status {
                Status::Enabled(worker) => worker,
                Status::Disabled => {
                    say(common, &format!("{}: disabled in {mode}", found.name));
                    continue;
                }
                Status::Refused(problems) => {
                    eprintln!("{problems}");
                    failed += 1;
                    continue;
                }
            };
            let abandoned = CancellationToken::new();
            let listener = |line: &str| match common.quiet {
                true => {}
                false => terminal::show(&format!("{}: {}", found.name, ansi::strip(line))),
            };
            let order = Order {
                shared_target: &target,
                deadline: settings.build.timeout,
                purpose,
                runner: Runner::Child,
                listener: &listener,
                abandoned: &abandoned,
            };
            let interrupted = async {
                while signals.next().await != Asked::End {}
                abandoned.cancel();
                std::future::pending::<()>().await
            };
            let built = tokio::select! {
                built = one(common, found, worker, order) => built,
                () = interrupted => unreachable!("it never ends"),
            };
            if abandoned.is_cancelled() {
                return Err(refused(exit::FAILED, "given up, as asked", None));
            }
            failed += usize::from(!built);
        }
        Ok(if failed == 0 { 0 } else { exit::FAILED })
    }

    /// The workers to build, in the order of their names.
    fn meant<'a>(&self, inventory: &'a Inventory) -> anyhow::Result<Vec<&'a Found>> {
        if self.workers.is_empty() {
            return Ok(inventory.workers.values().collect());
        }
        let mut meant: Vec<&Found> = Vec::new();
        for given in &self.workers {
            let found = by_name(inventory, given).or_else(|| by_directory(inventory, given));
            let found = found.ok_or_else(|| {
                let known: Vec<&str> = inventory.workers.keys().map(WorkerName::as_str).collect();
                let hint = match known.as_slice() {
                    [] => "there are no workers; make one with `tqserver new`".to_owned(),
                    known => format!("there are: {}", known.join(", ")),
                };
                refused(exit::USAGE, format!("there is no worker '{given}'"), hint)
            })?;
            if !meant.iter().any(|known| known.name == found.name) {
                meant.push(found);
            }
        }
        Ok(meant)
    }
}

fn by_name<'a>(inventory: &'a Inventory, given: &str) -> Option<&'a Found> {
    inventory.workers.get(&WorkerName::parse(given).ok()?)
}

/// The worker that `given` is the directory of, or is a path in.
fn by_directory<'a>(inventory: &'a Inventory, given: &str) -> Option<&'a Found> {
    let given: PathBuf = Path::new(given).canonicalize().ok()?;
    let holds = |found: &&Found| {
        let directory = found.directory.canonicalize();
        directory.is_ok_and(|directory| given.starts_with(directory))
    };
    // One inside another is the nearer.
    let all = inventory.workers.values().filter(holds);
    all.max_by_key(|found| found.directory.components().count())
}

/// Builds a worker and tells how that went; `false`: not well.
async fn one(common: &Common, found: &Found, worker: &WorkerSettings, order: Order<'_>) -> bool {
    let began = Instant::now();
    let built = builder::build(worker, &found.directory, order).await;
    terminal::show("");
    let took = began.elapsed().as_millis();
    let name = &found.name;
    match built {
        Ok(Built::Nothing) => say(common, &format!("{name}: nothing to build")),
        Ok(Built::UpToDate) => say(common, &format!("{name}: up to date")),
        Ok(Built::Fresh) => say(common, &format!("{name}: built in {took} ms")),
        Err(error) if matches!(error.failure, BuildFailure::Abandoned) => return false,
        Err(error) => {
            let text = error.to_string();
            let colours = terminal::takes_colours(&std::io::stderr());
            let lines = text.lines().map(|line| match colours {
                true => ansi::keep_colours(line),
                false => ansi::strip(line),
            });
            eprintln!("error: {}", lines.collect::<Vec<_>>().join("\n"));
            return false;
        }
    }
    true
}

fn say(common: &Common, line: &str) {
    if !common.quiet {
        // Who closes our output does not want it.
        let _ = terminal::print(line);
    }
}
