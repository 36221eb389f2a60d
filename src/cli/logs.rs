//! `tqserver logs`: what workers and the server wrote. journalctl(1) shows it; here it is only told which entries are meant.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::arguments::Common;
use super::exit::{self, refused};
use super::journal::{self, Entries};
use crate::config::Mode;
use crate::inventory::{self, Inventory};
use crate::names::{Instance, Pair, WorkerName, worker_slice};
use crate::systemd::Kind;

/// A worker has at most so many generations at once.
const LIVE: usize = 2;

#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    /// Of these workers, with what the server said of them. Default: of all, and the server itself.
    #[arg(value_name = "WORKER", value_parser = WorkerName::parse)]
    workers: Vec<WorkerName>,
    /// Show the last lines, then new ones as they come.
    #[arg(long, short)]
    follow: bool,
    /// Show so many lines, the last ones. Default: all, with --follow 10.
    #[arg(long, short = 'n', value_name = "LINES", value_parser = lines)]
    lines: Option<String>,
    /// Nothing older than this, as in "1 hour ago", "today", "2026-01-31 12:00" (systemd.time(7)).
    #[arg(long, short = 'S', value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Nothing newer than this.
    #[arg(long, short = 'U', value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// How to show it: short-iso, json, cat, verbose and so on (journalctl(1)).
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<String>,
    /// With explanations of the server's messages.
    #[arg(long, short = 'x')]
    catalog: bool,
}

fn lines(text: &str) -> Result<String, String> {
    match text {
        "all" => Ok("all".to_owned()),
        number => match number.parse::<u32>() {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err("it is neither a number nor 'all'".to_owned()),
        },
    }
}

impl Logs {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let kind = journal::kind(common).await;
        let mut command = match Entries::of(kind) {
            Some(entries) => self.journalctl(entries, common)?,
            None => self.tail(common)?,
        };
        // It takes this process's place: terminal, pager, signals and exit code are all its own.
        let error = command.exec();
        let program = command.get_program().display().to_string();
        Err(error).with_context(|| format!("run {program}"))
    }

    fn journalctl(&self, entries: Entries, common: &Common) -> anyhow::Result<Command> {
        let mut command = Command::new("journalctl");
        let option = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("--{name}={value}"))
        };
        command
            .args(common.quiet.then_some("--quiet"))
            .args(self.follow.then_some("--follow"))
            .args(self.catalog.then_some("--catalog"))
            .args(option("lines", &self.lines))
            .args(option("since", &self.since))
            .args(option("until", &self.until))
            .args(option("output", &self.output));
        let mut slices = slices_with_entries(entries);
        let settings = common.settings().ok();
        let there = settings.and_then(|settings| inventory::scan(&settings, Mode::Production).ok());
        if self.workers.is_empty() {
            let later = there.filter(|_| self.follow);
            let later = later.iter().flat_map(|there| there.workers.keys());
            slices.extend(later.map(worker_slice));
            command.args(entries.of_all(slices.iter().map(String::as_str)));
        } else if let Some(there) = &there {
            self.are_known(there, &slices)?;
        }
        for (number, worker) in self.workers.iter().enumerate() {
            command.args((number > 0).then_some("+"));
            command.args(entries.of_worker(worker));
        }
        Ok(command)
    }

    /// Whether each worker is there, or was: a name that is mistyped has no entries either.
    fn are_known(&self, there: &Inventory, slices: &BTreeSet<String>) -> anyhow::Result<()> {
        let mut unknown = self.workers.iter().filter(|worker| {
            !there.workers.contains_key(*worker) && !slices.contains(&worker_slice(worker))
        });
        let Some(worker) = unknown.next() else {
            return Ok(());
        };
        let known: Vec<&str> = there.workers.keys().map(WorkerName::as_str).collect();
        let sentence =
            format!("there is no worker '{worker}', and the journal has no entries of one");
        let hint = match known.as_slice() {
            [] => "there are no workers".to_owned(),
            known => format!("there are: {}", known.join(", ")),
        };
        Err(refused(exit::USAGE, sentence, hint))
    }

    /// A private systemd has no journal: what its workers write are files.
    fn tail(&self, common: &Common) -> anyhow::Result<Command> {
        let given = [
            ("--since", self.since.is_some()),
            ("--until", self.until.is_some()),
            ("--output", self.output.is_some()),
            ("--catalog", self.catalog),
        ];
        if let Some((option, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(refused(
                exit::USAGE,
                format!("{option} takes a journal, and a private systemd has none"),
                "leave it out; its workers' output is kept as lines without a time".to_owned(),
            ));
        }
        let directory = Kind::Private.runtime_directory(&common.config).join("log");
        let files = self.files(&directory);
        if files.is_empty() {
            let names: Vec<&str> = self.workers.iter().map(WorkerName::as_str).collect();
            let of = match names.as_slice() {
                [] => String::new(),
                names => format!(" of {}", names.join(", ")),
            };
            let sentence = format!("there is no output{of} in {}", directory.display());
            let hint = "it is there while `tqserver dev` runs; `tqserver status` lists the workers";
            return Err(refused(exit::FAILED, sentence, hint.to_owned()));
        }
        if !common.quiet {
            let later = if self.follow {
                ", and the output of generations that begin later is not followed"
            } else {
                ""
            };
            eprintln!("a private systemd has no journal: no times are kept{later}");
        }
        let lines = match &self.lines {
            Some(lines) if lines != "all" => lines.as_str(),
            None if self.follow => "10",
            _ => "+1",
        };
        let mut command = Command::new("tail");
        command.args(["-n", lines]);
        command.args(self.follow.then_some("-F"));
        command.arg("--").args(files);
        Ok(command)
    }

    /// The files of the newest generations, the newest last.
    fn files(&self, directory: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut found: Vec<(Pair, PathBuf)> = entries
            .filter_map(|entry| {
                let pair = Pair::from_file_name(entry.file_name().to_str()?, "log")?;
                Some((pair, entry.path()))
            })
            .filter(|(pair, _)| {
                self.workers.is_empty() || self.workers.contains(&pair.instance.worker)
            })
            .collect();
        found.sort();
        let generations: BTreeSet<Instance> = found
            .iter()
            .map(|(pair, _)| pair.instance.clone())
            .collect();
        let is_new = |pair: &Pair| {
            let later = generations.range(&pair.instance..);
            let of_worker = later.filter(|other| other.worker == pair.instance.worker);
            of_worker.count() <= LIVE
        };
        let found = found.into_iter().filter(|(pair, _)| is_new(pair));
        found.map(|(_, path)| path).collect()
    }
}

/// The slices of all workers that ever wrote something. journalctl takes no patterns here, and the units it would take them for are
/// those it knows when it starts: a generation that comes later would not be followed.
fn slices_with_entries(entries: Entries) -> BTreeSet<String> {
    let mut known = Command::new("journalctl");
    known.arg(format!("--field={}", entries.slice_field()));
    // What it may not read it tells when it is asked for the entries.
    known.stdin(Stdio::null()).stderr(Stdio::null());
    let known = known.output().map(|output| output.stdout);
    String::from_utf8_lossy(&known.unwrap_or_default())
        .lines()
        .filter(|slice| slice.starts_with("tqserver-") && slice.ends_with(".slice"))
        .map(str::to_owned)
        .collect()
}
