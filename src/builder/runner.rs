//! Who runs a build's commands: this process, or systemd.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio_util::sync::CancellationToken;

use super::output::{Output, Pipes};
use crate::limits::ByteSize;
use crate::names::Instance;
use crate::systemd::{BuildUnit, BusError, Ending, Systemd};

/// What systemd tells this process about itself, and a build would take for its own.
const OURS: [&str; 7] = [
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Who runs a build's commands.
#[derive(Clone, Copy)]
pub enum Runner<'a> {
    /// This process, each in a process group of its own.
    Child,
    /// systemd, each as a unit with limits.
    Unit(UnitRunner<'a>),
}

/// What it takes to have systemd run them.
#[derive(Clone, Copy)]
pub struct UnitRunner<'a> {
    /// Which systemd.
    pub systemd: &'a Systemd,
    /// The generation that is to be made.
    pub instance: &'a Instance,
    /// Most memory; `None`: what systemd::build says.
    pub memory_max: Option<ByteSize>,
    /// A directory for the file that carries the environment.
    pub directory: &'a Path,
}

/// One command of a build.
pub(super) struct Command<'a> {
    /// Program (absolute) and arguments.
    pub(super) words: &'a [String],
    /// Where it runs.
    pub(super) directory: &'a Path,
    /// Cargo's target directory, if this is Cargo. Its standard output then is messages for us, not for people.
    pub(super) cargo_target: Option<&'a Path>,
    /// How long it may take.
    pub(super) deadline: Duration,
}

/// Why a command did not end well.
pub(super) enum Failure {
    /// It could not be run.
    Start(io::Error),
    /// systemd would not run it.
    Systemd(BusError),
    /// It ended this way.
    Ended(Ending),
    /// It took too long, and was killed.
    Deadline,
    /// Nobody wants it any more; it was killed.
    Abandoned,
}

impl Runner<'_> {
    /// Runs `command` to its end, and kills what it leaves running.
    pub(super) async fn run(
        &self,
        command: &Command<'_>,
        output: &mut Output<'_>,
        abandoned: &CancellationToken,
    ) -> Result<(), Failure> {
        match self {
            Self::Child => {
                let run = tokio::time::timeout(command.deadline, child(command, output));
                match abandoned.run_until_cancelled(run).await {
                    None => Err(Failure::Abandoned),
                    Some(Err(_)) => Err(Failure::Deadline),
                    Some(Ok(Err(error))) => Err(Failure::Start(error)),
                    Some(Ok(Ok(status))) => {
                        ending(status).map_or(Ok(()), |e| Err(Failure::Ended(e)))
                    }
                }
            }
            Self::Unit(runner) => runner.run(command, output, abandoned).await,
        }
    }
}

impl UnitRunner<'_> {
    async fn run(
        &self,
        command: &Command<'_>,
        output: &mut Output<'_>,
        abandoned: &CancellationToken,
    ) -> Result<(), Failure> {
        let environment = EnvironmentFile::write(self, command).map_err(Failure::Start)?;
        let unit = BuildUnit {
            instance: self.instance,
            words: command.words,
            directory: command.directory,
            environment: &environment.0,
            memory_max: self.memory_max,
            deadline: command.deadline,
        };
        let (pipes, ends) = Pipes::open(command.cargo_target.is_some()).map_err(Failure::Start)?;
        let run = self
            .systemd
            .run_build(&unit, ends.stdout.into(), ends.stderr.into());
        let run = abandoned.run_until_cancelled(run);
        match output.of(pipes, run).await.map_err(Failure::Start)? {
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(Ending::Timeout))) => Err(Failure::Deadline),
            // Somebody has stopped the unit.
            Some(Ok(Some(ending))) => Err(Failure::Ended(ending)),
            Some(Err(error)) => {
                // It may run though its end was not heard of.
                let _ = self.systemd.stop_build(self.instance).await;
                Err(Failure::Systemd(error))
            }
            None => {
                let stopped = self.systemd.stop_build(self.instance).await;
                stopped.map_err(Failure::Systemd)?;
                Err(Failure::Abandoned)
            }
        }
    }
}

/// The environment of a command, until it has ended.
struct EnvironmentFile(PathBuf);

impl EnvironmentFile {
    fn write(runner: &UnitRunner<'_>, command: &Command<'_>) -> io::Result<Self> {
        let path = runner.directory.join(runner.instance.file_name("build"));
        let text: String = environment(command.cargo_target)
            .filter_map(|(name, value)| assignment(name.to_str()?, value.to_str()?))
            .collect();
        // What a manager has left that was killed.
        let _ = fs::remove_file(&path);
        let file = Self(path);
        let mut options = OpenOptions::new();
        let mut opened = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file.0)?;
        opened.write_all(text.as_bytes())?;
        Ok(file)
    }
}

impl Drop for EnvironmentFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A line of an environment file (systemd.exec(5), `EnvironmentFile=`), of what systemd takes for a variable.
fn assignment(name: &str, value: &str) -> Option<String> {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_value = value
        .chars()
        .all(|c| !c.is_control() || c == '\t' || c == '\n');
    if !is_name || !is_value {
        return None;
    }
    let mut line = format!("{name}=\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '`' | '$') {
            line.push('\\');
        }
        line.push(c);
    }
    line.push_str("\"\n");
    Some(line)
}

/// The environment of all builds: this process's own.
fn environment(cargo_target: Option<&Path>) -> impl Iterator<Item = (OsString, OsString)> {
    let target = cargo_target.map(|target| ("CARGO_TARGET_DIR".into(), target.into()));
    let is_ours = |name: &OsStr| OURS.iter().any(|ours| name == *ours);
    // The last one counts.
    std::env::vars_os()
        .filter(move |(name, _)| !is_ours(name))
        .chain(target)
}

/// Runs a command as a child until it ends, and kills what it leaves. Dropped, it kills all of it.
async fn child(command: &Command<'_>, output: &mut Output<'_>) -> io::Result<ExitStatus> {
    let (pipes, ends) = Pipes::open(command.cargo_target.is_some())?;
    let mut child = tokio::process::Command::new(&command.words[0])
        .args(&command.words[1..])
        .current_dir(command.directory)
        .env_clear()
        .envs(environment(command.cargo_target))
        .stdin(Stdio::null())
        .stdout(ends.stdout)
        .stderr(ends.stderr)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let mut group = Group::of(&child);
    let ended = async {
        let status = child.wait().await;
        group.kill();
        status
    };
    output.of(pipes, ended).await?
}

/// How a child ended, if not well.
fn ending(status: ExitStatus) -> Option<Ending> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(Ending::ExitCode(code)),
        (None, Some(signal)) => Some(Ending::Signal(signal)),
        (None, None) => Some(Ending::Other(status.to_string())),
    }
}

/// The process group of a build. Killed when dropped, so that a build that is given up takes its children with it.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok());
        Self(leader.and_then(Pid::from_raw))
    }

    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // No such process: it is over, which is what we want.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
