//! The command: its verbs, and which code runs each.

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use super::arguments::{Common, Looks};
use super::{
    build, check, completions, dev, exec, history, logs, maintenance, measure, new, package, pause,
    planes, reload, rollback, status, systemd,
};
use super::{exit, failure};
use crate::systemd::{cleaner, keeper, start};

/// Put a directory under workers/, get a URL: small web programs as systemd units, reloaded without losing a request.
#[derive(Debug, Parser)]
#[command(name = "tqserver", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
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
    /// Run a command, or a shell, in the surroundings of a worker: its user, files, environment, secrets, sandbox and limits.
    Exec(exec::Exec),
    /// Show what a worker, or all of them and the server, wrote: journalctl with the right matches.
    Logs(logs::Logs),
    /// List what became of the generations of a worker, or of all: when, why, with what result, and which can be rolled back to.
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
    #[command(name = completions::LIST, hide = true)]
    ListWorkers(completions::ListWorkers),
    #[command(name = "end-proxy", hide = true)]
    EndProxy(planes::EndProxy),
    #[command(name = "end-workers", hide = true)]
    EndWorkers(planes::EndWorkers),
    #[command(name = "measure-state", hide = true)]
    MeasureState(measure::MeasureState),
    #[command(name = keeper::VERB, hide = true)]
    Keep,
    #[command(name = cleaner::VERB, hide = true)]
    Clean,
}

/// Runs the command line and returns its exit code.
pub fn run() -> ExitCode {
    if let Some(code) = start::run(std::env::args_os()) {
        return ExitCode::from(code);
    }
    let arguments = match parsed() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    // Before anything is logged or looked at: these outlive whoever started them.
    match arguments.verb {
        Verb::Keep => return ExitCode::from(keeper::run()),
        Verb::Clean => return ExitCode::from(cleaner::run(arguments.common.kind())),
        _ => {}
    }
    crate::logging::start(arguments.common.quiet);
    let mut common = arguments.common;
    common.look_around(match arguments.verb {
        Verb::Dev(_) => Looks::InTheProject,
        // A project needs no file.
        Verb::Build(_) if Path::new("workers").is_dir() => Looks::InTheProject,
        // Where there is nothing yet, a project begins.
        Verb::New(_) => Looks::InTheProjectOrAmongWorkers,
        _ => Looks::Everywhere,
    });
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
        Verb::Exec(verb) => wait_for(verb.run(&common)),
        Verb::Logs(verb) => wait_for(verb.run(&common)),
        Verb::History(verb) => wait_for(verb.run(&common)),
        Verb::Check(verb) => verb.run(&common),
        Verb::Package(verb) => verb.run(&common),
        Verb::Completions(verb) => verb.run(&Arguments::command()),
        Verb::ListWorkers(verb) => verb.run(&common),
        Verb::Manager(verb) => wait_for(verb.run(&common)),
        Verb::Proxy(verb) => wait_for(verb.run(&common)),
        Verb::MeasureState(verb) => verb.run(),
        Verb::EndProxy(_) => planes::EndProxy::run(&common),
        Verb::EndWorkers(verb) => wait_for(verb.run(&common)),
        Verb::Systemd(verb) => wait_for(verb.run(&common)),
        Verb::Keep | Verb::Clean => unreachable!("handled above"),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(failure::explain(&error)),
    }
}

fn parsed() -> Result<Arguments, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The command whose verbs understand the common options, and leave it to `tqserver --help` to explain them.
fn command() -> clap::Command {
    let command = Arguments::command();
    let common = command.get_arguments().filter(|one| one.is_global_set());
    let common: Vec<clap::Arg> = common.map(|one| one.clone().hide(true)).collect();
    let pointer =
        "Common options are --config, --manager, --mode and --quiet: see `tqserver --help`.";
    command.mut_subcommands(|verb| verb.args(common.clone()).after_help(pointer))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_verb_and_option() {
        let manual = include_str!("../../docs/man/tqserver.8").replace("\\-", "-");
        let has = |word: &str| {
            assert!(
                manual.contains(word),
                "docs/man/tqserver.8 does not have '{word}'"
            );
        };
        let command = Arguments::command();
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
