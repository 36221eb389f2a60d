//! The command line: one file a verb, and the only place that prints.

#[macro_use]
mod say;

mod build;
mod check;
mod client;
mod columns;
mod completions;
mod dev;
mod history;
mod journal;
mod logs;
mod maintenance;
mod measure;
mod new;
mod outcome;
mod package;
mod pause;
mod planes;
mod reload;
mod rollback;
mod status;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Mode, Problems, Settings};
use crate::systemd::{Kind, Place, keeper, start};

/// Exit codes, of sysexits.h where it has one.
mod exit {
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 64;
    pub(super) const UNAVAILABLE: u8 = 69;
    pub(super) const NOT_PERMITTED: u8 = 77;
    pub(super) const CONFIG: u8 = 78;
}

/// The configuration of a project: the one in the current directory.
const PROJECTS: &str = "config/server.yaml";
/// The configuration of the machine's own server.
const MACHINES: &str = "/etc/tqserver/server.yaml";

/// Put a directory under workers/, get a URL: small web programs as systemd units, reloaded without losing a request.
#[derive(Debug, Parser)]
#[command(name = "tqserver", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb understands.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// The server's configuration. Default: config/server.yaml, and where there is none, the machine's /etc/tqserver/server.yaml.
    #[arg(
        long,
        global = true,
        env = "TQ_CONFIG",
        default_value = PROJECTS,
        hide_default_value = true,
        value_name = "FILE"
    )]
    config: PathBuf,
    /// Which systemd runs the workers: system, user or private. Default: what is there, in the order user session, system (as root),
    /// private.
    #[arg(long, global = true, env = "TQ_MANAGER", value_name = "WHICH")]
    manager: Option<Kind>,
    /// development or production. Default: TQ_MODE, DEPLOYMENT_MODE, else what fits the verb.
    #[arg(long, global = true, value_parser = mode, value_name = "MODE")]
    mode: Option<Mode>,
    /// Say only what went wrong.
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run everything in the foreground: build the workers, start them, serve them.
    Dev(dev::Dev),
    /// Write a new worker that runs at once: a page, a health path and a test, in the language of the type.
    New(new::New),
    /// Build workers as `dev` does; with --release, for deployment. Exit 1 if one failed.
    Build(build::Build),
    /// Replace the workers that changed, without losing a request; exit 1 if one failed (the old one then serves on).
    Reload(reload::Reload),
    /// Show the workers: route, state, generation, process, memory, requests.
    Status(status::Status),
    /// Go back to an earlier generation's files, without losing a request; exit 1 if it failed (the present one then serves on).
    Rollback(rollback::Rollback),
    /// Hold a worker's requests for a while, as for a database migration, and wait until none is in flight; exit 1 if some still are.
    Pause(pause::Pause),
    /// Let the requests of a paused worker go on.
    Resume(pause::Resume),
    /// Answer 503 for a worker without asking it, until `--off`.
    Maintenance(maintenance::Maintenance),
    /// Show what a worker, or all of them and the server, wrote: journalctl with the right matches.
    Logs(logs::Logs),
    /// List what became of a worker's generations: when, why, with what result.
    History(history::History),
    /// Check the configuration and every worker's; exit 78 if something is wrong.
    Check(check::Check),
    /// Build a Debian package of a worker; installing it deploys the worker.
    Package(package::Package),
    /// Print the completions for a shell: bash, zsh or fish.
    Completions(completions::Completions),
    /// Run the control plane: talks to systemd, reloads workers. Usually started as tqserver.service.
    Manager(planes::Manager),
    /// Run the data plane: serves HTTP. Usually started as tqserver-proxy.service.
    Proxy(planes::Proxy),
    /// Run a private systemd in the foreground, for machines where none was booted.
    Systemd(systemd::Systemd),
    #[command(name = "end-proxy", hide = true)]
    EndProxy(planes::EndProxy),
    #[command(name = "end-workers", hide = true)]
    EndWorkers(planes::EndWorkers),
    #[command(name = "measure-state", hide = true)]
    MeasureState(measure::MeasureState),
    #[command(name = keeper::VERB, hide = true)]
    Keep,
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "development" | "dev" => Ok(Mode::Development),
        "production" | "prod" => Ok(Mode::Production),
        other => Err(format!("'{other}' is neither development nor production")),
    }
}

impl Common {
    /// The configuration; a missing file at the default place is no error, everything has a default.
    fn settings(&self) -> Result<Settings, Problems> {
        let default = Path::new(PROJECTS);
        if self.config == default && !default.exists() {
            return Ok(Settings::defaults_at(
                &std::env::current_dir().unwrap_or_default(),
            ));
        }
        Settings::load(&self.config)
    }

    fn kind(&self) -> Kind {
        self.manager.unwrap_or_else(Kind::detect)
    }

    /// The mode by option, by environment, or this one.
    fn mode(&self, or: Mode) -> anyhow::Result<Mode> {
        match self.mode {
            Some(mode) => Ok(mode),
            None => Ok(Mode::from_environment(|name| std::env::var(name).ok())?.unwrap_or(or)),
        }
    }
}

/// Runs the command line and returns its exit code.
pub fn run() -> ExitCode {
    if let Some(code) = start::run(std::env::args_os()) {
        return ExitCode::from(code);
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    if let Verb::Keep = arguments.verb {
        return ExitCode::from(keeper::run());
    }
    crate::logging::start(arguments.common.quiet);
    let mut common = arguments.common;
    // These are for the project they stand in, and never for the machine's workers.
    if !matches!(arguments.verb, Verb::Dev(_) | Verb::New(_) | Verb::Build(_)) {
        let runs = |project: &Path| Place::of(project).is_up();
        common.config = meant(common.config, Path::exists, runs);
    }
    let result = match arguments.verb {
        Verb::Dev(verb) => wait_for(verb.run(&common)),
        Verb::New(verb) => verb.run(&common),
        Verb::Build(verb) => wait_for(verb.run(&common)),
        Verb::Reload(verb) => wait_for(verb.run(&common)),
        Verb::Status(verb) => wait_for(verb.run(&common)),
        Verb::Rollback(verb) => wait_for(verb.run(&common)),
        Verb::Pause(verb) => wait_for(verb.run(&common)),
        Verb::Resume(verb) => wait_for(verb.run(&common)),
        Verb::Maintenance(verb) => wait_for(verb.run(&common)),
        Verb::Logs(verb) => wait_for(verb.run(&common)),
        Verb::History(verb) => wait_for(verb.run(&common)),
        Verb::Check(verb) => verb.run(&common),
        Verb::Package(verb) => verb.run(&common),
        Verb::Completions(verb) => verb.run(),
        Verb::Manager(verb) => wait_for(verb.run(&common)),
        Verb::Proxy(verb) => wait_for(verb.run(&common)),
        Verb::MeasureState(verb) => verb.run(),
        Verb::EndProxy(_) => planes::EndProxy::run(&common),
        Verb::EndWorkers(verb) => wait_for(verb.run(&common)),
        Verb::Systemd(verb) => wait_for(verb.run(&common)),
        Verb::Keep => unreachable!("handled above"),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(explain(&error)),
    }
}

/// The configuration meant by who named none: the project's if `there` is one, or a private systemd `runs` for it (`tqserver dev`
/// needs no file), else the machine's if there is one.
fn meant(given: PathBuf, there: impl Fn(&Path) -> bool, runs: impl Fn(&Path) -> bool) -> PathBuf {
    let (project, machine) = (Path::new(PROJECTS), Path::new(MACHINES));
    if given == project && !there(project) && !runs(project) && there(machine) {
        machine.to_owned()
    } else {
        given
    }
}

fn wait_for(work: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(work);
    // A build or a copy that still runs must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Prints an error with its causes once, then the next command to type; returns the exit code.
fn explain(error: &anyhow::Error) -> u8 {
    if let Some(problems) = error.downcast_ref::<Problems>() {
        eprintln!("{problems}");
        return exit::CONFIG;
    }
    let refused = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Refused>());
    eprintln!("error: {}", crate::manager::explain(error.as_ref()));
    let (code, hint) = match refused {
        Some(refused) => (refused.code, refused.hint.clone()),
        None => guess(error),
    };
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    code
}

/// The exit code and hint that follow from what failed.
fn guess(error: &anyhow::Error) -> (u8, Option<String>) {
    use crate::manager::control::ControlError;
    use crate::manager::{LeftError, ManagerError};
    use crate::systemd::{BusError, PrivateError};
    // What the bus refuses is no I/O error, and wrapped in the error of who asked.
    let bus = match (
        error.downcast_ref::<ManagerError>(),
        error.downcast_ref::<ControlError>(),
    ) {
        (Some(ManagerError::Name(error)), _) | (_, Some(ControlError::ZBus(error))) => Some(error),
        (Some(ManagerError::Bus(BusError::Connect { source, .. })), _) => Some(&**source),
        _ => error.downcast_ref(),
    };
    let file = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
    });
    if file || bus.is_some_and(client::is_denied) {
        return (
            exit::NOT_PERMITTED,
            Some("run it as root, or as the user who owns the files".to_owned()),
        );
    }
    let no_systemd = error.chain().any(|cause| {
        cause.is::<PrivateError>()
            || matches!(cause.downcast_ref(), Some(LeftError::Bus(_)))
            || matches!(
                cause.downcast_ref::<ManagerError>(),
                Some(
                    ManagerError::Bus(_)
                        | ManagerError::BusLost
                        | ManagerError::Left(LeftError::Bus(_))
                )
            )
    });
    (
        if no_systemd {
            exit::UNAVAILABLE
        } else {
            exit::FAILED
        },
        None,
    )
}

/// Prints what a reader may have had enough of before its end, as `head` does.
fn print(text: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    // A script for a shell and the history: text of ours, and others' words in it.
    let text = crate::ansi::keep_colours(&String::from_utf8_lossy(text));
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// A sentence that ends the command with a certain exit code, and the next command to type.
#[derive(Debug)]
struct Refused {
    code: u8,
    sentence: String,
    hint: Option<String>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Refused {}

fn refused(
    code: u8,
    sentence: impl Into<String>,
    hint: impl Into<Option<String>>,
) -> anyhow::Error {
    anyhow::Error::new(Refused {
        code,
        sentence: sentence.into(),
        hint: hint.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_configuration_is_meant_where_there_is_no_project() {
        let (project, machine) = (Path::new(PROJECTS), Path::new(MACHINES));
        let meant = |given: &Path, there: &[&Path], runs: bool| {
            let found = meant(given.to_owned(), |path| there.contains(&path), |_| runs);
            found.display().to_string()
        };
        assert_eq!(meant(project, &[machine], false), MACHINES);
        assert_eq!(meant(project, &[project, machine], false), PROJECTS);
        assert_eq!(meant(project, &[machine], true), PROJECTS);
        assert_eq!(meant(project, &[], false), PROJECTS);
        assert_eq!(meant(Path::new("x"), &[machine], false), "x");
    }

    #[test]
    fn the_manual_has_every_verb_and_option() {
        let manual = include_str!("../../docs/man/tqserver.8").replace("\\-", "-");
        let has = |word: &str| {
            assert!(
                manual.contains(word),
                "docs/man/tqserver.8 does not have '{word}'"
            );
        };
        let command = <Arguments as clap::CommandFactory>::command();
        let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        for verb in verbs {
            has(verb.get_name());
            let options = verb.get_arguments().chain(command.get_arguments());
            for option in options.filter(|option| !option.is_hide_set()) {
                if let Some(long) = option.get_long() {
                    has(&format!("--{long}"));
                }
            }
        }
    }
}
