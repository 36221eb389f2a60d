//! A build: its commands one after the other, and what they made put in its place.

use std::fmt;
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::output::{Listener, Output, Tail};
use super::program::{Unavailable, program_paths, resolved, search_path};
use super::purpose::Purpose;
use super::recipe::{DIAGNOSTICS, Makes, Recipe, recipe};
use super::runner::{Command, Failure, Runner};
use crate::config::{Mode, WorkerSettings};
use crate::names::WorkerName;
use crate::systemd::{BusError, Ending};

/// Bytes of two programs that are compared at once.
const COMPARED: usize = 64 << 10;

/// Builds of Rust workers share a target directory. Cargo would let them wait for each other anyhow; here the copy of the program
/// is inside the turn as well, so that of two programs with one name neither gets the other's.
static SHARED_TARGET: Mutex<()> = Mutex::const_new(());

/// What a build did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Built {
    /// There is nothing to build for this worker, or it needs no build now.
    Nothing,
    /// The build ran, and the program is the one that was there.
    UpToDate,
    /// The build ran, and made or may have made a new program.
    Fresh,
}

/// A build that did not end well.
#[derive(Debug, thiserror::Error)]
#[error(
    "build worker '{worker}' with `{command}`: {failure}{}",
    indented(output)
)]
pub struct BuildError {
    /// Whose build.
    pub worker: WorkerName,
    /// What was run, as it would be typed.
    pub command: String,
    /// What went wrong.
    pub failure: BuildFailure,
    /// The end of what the build wrote, at most 64 KiB.
    pub output: String,
}

/// What went wrong in a build.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailure {
    /// The build's program is not there.
    #[error("{0}")]
    Unavailable(Unavailable),
    /// It could not be started.
    #[error("it can not be started ({0})")]
    Start(io::Error),
    /// It ended, and not with exit code 0.
    #[error("{0}")]
    Ended(Ending),
    /// systemd would not run it.
    #[error("systemd does not run it ({})", chain(.0))]
    Systemd(BusError),
    /// Nobody wants it any more, and it was killed.
    #[error("given up")]
    Abandoned,
    /// It took longer than it may, and was killed.
    #[error("still running after {} s, killed", .0.as_secs_f32())]
    Deadline(Duration),
    /// It ended well and left no program.
    #[error("it made no program named '{0}'; give the package a [[bin]] of the worker's name")]
    NoProgram(String),
    /// How far it is could not be noted.
    #[error("{} can not be written ({source})", path.display())]
    Note {
        /// Where it is noted.
        path: PathBuf,
        /// Why it could not. Part of the text already.
        source: io::Error,
    },
    /// The program could not be put into `bin/`.
    #[error("the program can not be put at {} ({source})", path.display())]
    Install {
        /// Where it was to go.
        path: PathBuf,
        /// Why it could not. Part of the text already.
        source: io::Error,
    },
}

/// What a build is told beside the worker it is for.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// Cargo's target directory of all Rust workers.
    pub shared_target: &'a Path,
    /// How long it may take.
    pub deadline: Duration,
    /// What it is for.
    pub purpose: Purpose,
    /// Who runs it.
    pub runner: Runner<'a>,
    /// Hears what it writes, while it runs.
    pub listener: Listener<'a>,
    /// Cancelled: the build is given up, and killed with all it has started.
    pub abandoned: &'a CancellationToken,
}

/// Cargo's target directory of all Rust workers of the project in `project`.
pub fn shared_target(project: &Path) -> PathBuf {
    project.join("target").join("workers")
}

/// The commands that build the worker in `directory` for development; none: there is nothing to build now. Cargo and Go leave the program
/// where [`build`] fetches it.
pub fn build_commands(settings: &WorkerSettings, directory: &Path) -> Vec<Vec<String>> {
    let recipe = recipe(settings, directory, Purpose::Development);
    recipe.map(|recipe| recipe.steps).unwrap_or_default()
}

/// Builds the worker in `directory`, with the process's own environment. The program a running worker was started from is never
/// written to: a new one takes its name, and only if it differs. Past its deadline, the build is killed with all its children.
///
/// # Errors
/// When the build can not be run, fails, takes too long, or is given up.
pub async fn build(
    settings: &WorkerSettings,
    directory: &Path,
    order: Order<'_>,
) -> Result<Built, BuildError> {
    let Some(Recipe {
        steps,
        makes,
        fetched,
    }) = recipe(settings, directory, order.purpose)
    else {
        return Ok(Built::Nothing);
    };
    let end = Instant::now() + order.deadline;
    let mut output = Output {
        said: Tail::default(),
        messages: Tail::default(),
        listener: order.listener,
    };
    let mut command = String::new();
    let made = async {
        let (place, fresh) = program_paths(directory, settings.name.program());
        if makes == Makes::Program {
            let made = fs::create_dir_all(directory.join("bin"));
            made.map_err(|source| install_failure(&place, source))?;
        }
        let _turn = match makes {
            Makes::CargoProgram => {
                let turn = order.abandoned.run_until_cancelled(SHARED_TARGET.lock());
                Some(turn.await.ok_or(BuildFailure::Abandoned)?)
            }
            _ => None,
        };
        let before = fetched
            .as_ref()
            .and_then(|fetched| fetched.noted(directory));
        for step in &steps {
            command = shown(step);
            let words = resolved(step, directory, &search_path(Mode::Development))
                .map_err(BuildFailure::Unavailable)?;
            let run = Command {
                words: &words,
                directory,
                cargo_target: (makes == Makes::CargoProgram).then_some(order.shared_target),
                deadline: end.saturating_duration_since(Instant::now()),
            };
            if let Some(fetched) = &fetched {
                let noted = fetched.begin(directory);
                noted.map_err(|source| note_failure(fetched.stamp(directory), source))?;
            }
            let ended = order.runner.run(&run, &mut output, order.abandoned).await;
            if let (Some(fetched), Err(Failure::Ended(Ending::ExitCode(_)))) = (&fetched, &ended) {
                fetched.take_back(directory, before.as_deref());
            }
            ended.map_err(|failure| BuildFailure::of(failure, order.deadline))?;
        }
        let made = match makes {
            Makes::CargoProgram => {
                let program = settings.name.program();
                let made = cargo_executable(&output.messages.text(), program);
                Made::Elsewhere(made.ok_or_else(|| BuildFailure::NoProgram(program.to_owned()))?)
            }
            Makes::Program => Made::Beside,
            Makes::Dependencies | Makes::Anything => {
                if let Some(fetched) = &fetched {
                    let noted = fetched.finish(directory);
                    noted.map_err(|source| note_failure(fetched.stamp(directory), source))?;
                }
                return Ok(Built::Fresh);
            }
        };
        let at = place.clone();
        // Programs are large, and the rest of this process has requests to answer.
        let installed = tokio::task::spawn_blocking(move || made.install(&fresh, &at)).await;
        let installed = installed.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        installed.map_err(|source| install_failure(&place, source))
    };
    made.await.map_err(|failure| BuildError {
        worker: settings.name.clone(),
        command,
        failure,
        output: output.said.text(),
    })
}

/// A command as it would be typed: without the words by which Cargo's output becomes ours to read.
fn shown(step: &[String]) -> String {
    if !step.iter().any(|word| word == DIAGNOSTICS) {
        return step.join(" ");
    }
    let ours = ["--color", "always", "--message-format", DIAGNOSTICS];
    let typed = step.iter().map(String::as_str);
    typed
        .filter(|word| !ours.contains(word))
        .collect::<Vec<_>>()
        .join(" ")
}

impl BuildFailure {
    fn of(failure: Failure, deadline: Duration) -> Self {
        match failure {
            Failure::Start(error) => Self::Start(error),
            Failure::Systemd(error) => Self::Systemd(error),
            Failure::Ended(ending) => Self::Ended(ending),
            Failure::Deadline => Self::Deadline(deadline),
            Failure::Abandoned => Self::Abandoned,
        }
    }
}

/// Where a build left what it made.
enum Made {
    /// The program, where Cargo keeps it.
    Elsewhere(PathBuf),
    /// The program, under its new name beside the old one.
    Beside,
}

impl Made {
    fn install(self, fresh: &Path, place: &Path) -> io::Result<Built> {
        match self {
            // A program that stays is one whose worker need not be replaced.
            Self::Elsewhere(made) if same_content(&made, place)? => Ok(Built::UpToDate),
            Self::Elsewhere(made) => {
                copy(&made, fresh)?;
                fs::rename(fresh, place).map(|()| Built::Fresh)
            }
            Self::Beside if same_content(fresh, place)? => remove(fresh).map(|()| Built::UpToDate),
            Self::Beside => fs::rename(fresh, place).map(|()| Built::Fresh),
        }
    }
}

/// The executable named `program` in Cargo's messages, or the only one there is.
fn cargo_executable(messages: &str, program: &str) -> Option<PathBuf> {
    let made: Vec<PathBuf> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect();
    let named = made
        .iter()
        .find(|path| path.file_name().is_some_and(|name| name == program));
    match (named, made.as_slice()) {
        (Some(named), _) => Some(named.clone()),
        (None, [only]) => Some(only.clone()),
        _ => None,
    }
}

/// Copies a program to where it can take the place of another: a new file, of which no process runs.
fn copy(made: &Path, fresh: &Path) -> io::Result<()> {
    if let Some(bin) = fresh.parent() {
        fs::create_dir_all(bin)?;
    }
    remove(fresh)?;
    fs::copy(made, fresh).map(drop)
}

/// Whether two programs are the same. Two that are not differ early: their beginning has a hash of the rest.
fn same_content(made: &Path, place: &Path) -> io::Result<bool> {
    let old = match fs::File::open(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let new = fs::File::open(made)?;
    if old.metadata()?.len() != new.metadata()?.len() {
        return Ok(false);
    }
    let [mut old, mut new] = [old, new].map(|file| io::BufReader::with_capacity(COMPARED, file));
    loop {
        let (one, other) = (old.fill_buf()?, new.fill_buf()?);
        let both = one.len().min(other.len());
        if both == 0 || one[..both] != other[..both] {
            return Ok(one == other);
        }
        old.consume(both);
        new.consume(both);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn note_failure(path: PathBuf, source: io::Error) -> BuildFailure {
    BuildFailure::Note { path, source }
}

fn install_failure(place: &Path, source: io::Error) -> BuildFailure {
    BuildFailure::Install {
        path: place.to_owned(),
        source,
    }
}

/// A build's output below the sentence that says it failed.
fn indented(output: &str) -> impl fmt::Display {
    let lines = output.trim_end().lines();
    lines
        .map(|line| format!("\n    {line}"))
        .collect::<String>()
}

/// An error of the bus with its cause.
fn chain(error: &BusError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
