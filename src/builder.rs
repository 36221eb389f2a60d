//! How each type of worker is built and run: the only place that knows Cargo, Go, Node.js, Python and PHP.
//!
//! It names programs and runs builds. It starts no worker (systemd does) and decides nothing about when to build.

pub mod php;
mod process;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;

use crate::config::{Mode, WorkerSettings, WorkerType};
use crate::names::WorkerName;
use process::{Run, Tail};

/// As much as is read of a package.json, of which one field is wanted.
const PACKAGE_JSON_MAX: u64 = 1 << 20;
/// Where interpreters are looked for: root's directories, whatever environment the server was started with.
const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where a Node.js program starts if its package.json does not say.
const NODE_ENTRIES: [&str; 4] = ["server.js", "index.js", "src/server.js", "src/index.js"];

/// Where a Python program starts.
const PYTHON_ENTRIES: [&str; 4] = ["main.py", "app.py", "src/main.py", "src/app.py"];

/// Builds of Rust workers share a target directory. Cargo would let them wait for each other anyhow; here the copy of the program
/// is inside the turn as well, so that of two programs with one name neither gets the other's.
static SHARED_TARGET: Mutex<()> = Mutex::const_new(());

/// Why a worker can not be built or run as it lies on disk. The text says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The program a build makes is not there.
    #[error("bin/{program} is missing; build it with {build}, or deploy it")]
    NotBuilt {
        /// Name of the program.
        program: String,
        /// What makes it.
        build: &'static str,
    },
    /// A program or an entry file is not there.
    #[error("{} is missing; {hint}", path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// None of the files the type starts from is there.
    #[error(
        "no file to start from: one of {candidates} is needed, or a command: in config/worker.yaml"
    )]
    NoEntry {
        /// The files looked for.
        candidates: String,
    },
    /// It is there, and is no regular file with an execute bit.
    #[error("{0} is not an executable file; run chmod +x {0}")]
    NotExecutable(String),
    /// A toolchain or an interpreter is not installed.
    #[error("{program} is not installed; run apt install {package}")]
    NoToolchain {
        /// What was looked for.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A plain word no directory of the search path has.
    #[error("'{program}' is in none of {path}; install it, or write its absolute path")]
    NotInPath {
        /// What was looked for.
        program: String,
        /// Where.
        path: String,
    },
    /// A relative path that goes out of the worker's directory.
    #[error(
        "'{0}' leaves the worker's directory; put the program inside, or write its absolute path"
    )]
    Outside(String),
    /// A `command:` or `build:` without a word.
    #[error("the command is empty; name a program, or leave the key out")]
    Empty,
    /// package.json is not what npm would take.
    #[error(
        "package.json can not be read ({0}); correct it, or set command: in config/worker.yaml"
    )]
    PackageJson(String),
    /// A worker of type static has no program.
    #[error("a static worker has no program; its files are served from public/")]
    Static,
}

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
    #[error("{}", ending(*.0))]
    Ended(ExitStatus),
    /// It took longer than it may, and was killed.
    #[error("still running after {} s, killed", .0.as_secs_f32())]
    Deadline(Duration),
    /// It ended well and left no program.
    #[error("it made no program named '{0}'; give the package a [[bin]] of the worker's name")]
    NoProgram(String),
    /// The program could not be put into `bin/`.
    #[error("the program can not be put at {} ({source})", path.display())]
    Install {
        /// Where it was to go.
        path: PathBuf,
        /// Why it could not. Part of the text already.
        source: io::Error,
    },
}

/// The program and arguments that run the worker whose files lie in `directory`: its own directory in development, a snapshot in
/// production. The program is an absolute path.
///
/// # Errors
/// When the worker can not be run as it lies there; the text says what to do.
pub fn run_command(
    settings: &WorkerSettings,
    directory: &Path,
    mode: Mode,
) -> Result<Vec<String>, Unavailable> {
    let path = search_path(mode);
    if let Some(command) = &settings.command {
        return resolved(command, directory, &path);
    }
    let program = settings.name.program();
    match settings.kind {
        WorkerType::Rust => built_program(directory, program, "cargo build --release"),
        WorkerType::Go => built_program(directory, program, "go build"),
        WorkerType::Exec => built_program(directory, program, "your own build"),
        WorkerType::Node => {
            let entry = node_entry(directory)?;
            Ok(vec![tool("node", &path)?, text(&entry)])
        }
        WorkerType::Python => {
            let entry = first_file(directory, &PYTHON_ENTRIES)?;
            let own = directory.join(".venv/bin/python");
            let interpreter = if own.exists() {
                executable(&own, ".venv/bin/python")?
            } else {
                tool("python3", &path)?
            };
            Ok(vec![interpreter, text(&entry)])
        }
        WorkerType::Php => Ok(vec![php::fpm(&path)?]),
        WorkerType::Static => Err(Unavailable::Static),
    }
}

/// The program and arguments that build the worker in `directory`, where they are to be run; `None`: there is nothing to build now.
/// Cargo and Go leave the program where [`build`] fetches it.
pub fn build_command(settings: &WorkerSettings, directory: &Path) -> Option<Vec<String>> {
    if settings.build.is_some() {
        return settings.build.clone();
    }
    match settings.kind {
        WorkerType::Rust => cargo_command(directory),
        WorkerType::Go => Some(go_command(directory, settings.name.program())),
        WorkerType::Node => npm_command(directory),
        WorkerType::Python | WorkerType::Php | WorkerType::Exec | WorkerType::Static => None,
    }
}

/// Builds the worker in `directory`, with the process's own environment. The program a running worker was started from is never
/// written to: a new one takes its name, and only if it differs. Dropped or past its deadline, the build is killed with all its
/// children.
///
/// # Errors
/// When the build can not be run, fails, or takes longer than `deadline`.
pub async fn build(
    settings: &WorkerSettings,
    directory: &Path,
    shared_target: &Path,
    deadline: Duration,
) -> Result<Built, BuildError> {
    let Some(command) = build_command(settings, directory) else {
        return Ok(Built::Nothing);
    };
    let failed = |failure, output: String| BuildError {
        worker: settings.name.clone(),
        command: command.join(" "),
        failure,
        output,
    };
    let by_type = settings.build.is_none().then_some(settings.kind);
    let words = resolved(&command, directory, &search_path(Mode::Development))
        .map_err(|unavailable| failed(BuildFailure::Unavailable(unavailable), String::new()))?;

    let program = settings.name.program();
    let (place, fresh) = program_paths(directory, program);
    if by_type == Some(WorkerType::Go) {
        let made = fs::create_dir_all(directory.join("bin"));
        made.map_err(|source| failed(install_failure(&place, source), String::new()))?;
    }

    let _turn = match by_type {
        Some(WorkerType::Rust) => Some(SHARED_TARGET.lock().await),
        _ => None,
    };
    let mut output = Tail::default();
    let mut messages = Tail::default();
    let run = Run {
        words: &words,
        directory,
        cargo_target: (by_type == Some(WorkerType::Rust)).then_some(shared_target),
    };
    let ended = match tokio::time::timeout(deadline, run.to_end(&mut output, &mut messages)).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(BuildFailure::Ended(status)),
        Ok(Err(error)) => Err(BuildFailure::Start(error)),
        Err(_) => Err(BuildFailure::Deadline(deadline)),
    };
    ended.map_err(|failure| failed(failure, output.text()))?;

    let made = match by_type {
        Some(WorkerType::Rust) => match cargo_executable(&messages.text(), program) {
            Some(made) => Made::Elsewhere(made),
            None => {
                let none = BuildFailure::NoProgram(program.to_owned());
                return Err(failed(none, output.text()));
            }
        },
        Some(WorkerType::Go) => Made::Beside,
        Some(WorkerType::Node) => Made::Modules(directory.join("node_modules")),
        _ => return Ok(Built::Fresh),
    };
    let at = place.clone();
    // Programs are large, and the rest of this process has requests to answer.
    let installed = tokio::task::spawn_blocking(move || made.install(&fresh, &at)).await;
    let installed = installed.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    installed.map_err(|source| failed(install_failure(&place, source), output.text()))
}

/// Where a build left what it made.
enum Made {
    /// The program, where Cargo keeps it.
    Elsewhere(PathBuf),
    /// The program, under its new name beside the old one.
    Beside,
    /// The directory of a Node.js program's modules.
    Modules(PathBuf),
}

impl Made {
    fn install(self, fresh: &Path, place: &Path) -> io::Result<Built> {
        match self {
            Self::Elsewhere(made) => {
                copy(&made, fresh)?;
                install(fresh, place)
            }
            Self::Beside => install(fresh, place),
            Self::Modules(modules) => touch(&modules).map(|()| Built::Fresh),
        }
    }
}

/// The directories programs are looked for in. A developer's own toolchain (rustup, nvm, pyenv) comes first in development; in
/// production the environment of the server has no say in what a worker runs.
fn search_path(mode: Mode) -> OsString {
    let mut path = OsString::new();
    if let (Mode::Development, Some(own)) = (mode, std::env::var_os("PATH")) {
        path.push(own);
        path.push(":");
    }
    path.push(SYSTEM_PATH);
    path
}

/// A command with its first word made absolute.
fn resolved(
    command: &[String],
    directory: &Path,
    path: &OsString,
) -> Result<Vec<String>, Unavailable> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Unavailable::Empty);
    };
    let program = if program.is_empty() {
        return Err(Unavailable::Empty);
    } else if Path::new(program).is_absolute() {
        executable(Path::new(program), program)?
    } else if program.contains('/') {
        executable(&inside(directory, program)?, program)?
    } else {
        tool(program, path)?
    };
    Ok(std::iter::once(program)
        .chain(arguments.iter().cloned())
        .collect())
}

/// `relative` below `directory`.
fn inside(directory: &Path, relative: &str) -> Result<PathBuf, Unavailable> {
    let mut path = directory.to_owned();
    for component in Path::new(relative).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(Unavailable::Outside(relative.to_owned())),
        }
    }
    Ok(path)
}

/// `path`, if it can be executed. Called `name` where it can not.
fn executable(path: &Path, name: &str) -> Result<String, Unavailable> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Ok(text(path)),
        Ok(_) => Err(Unavailable::NotExecutable(name.to_owned())),
        Err(_) => Err(Unavailable::Missing {
            path: PathBuf::from(name),
            hint: "build it, deploy it, or correct the command in config/worker.yaml",
        }),
    }
}

fn built_program(
    directory: &Path,
    program: &str,
    build: &'static str,
) -> Result<Vec<String>, Unavailable> {
    let (place, _) = program_paths(directory, program);
    match executable(&place, &format!("bin/{program}")) {
        Ok(found) => Ok(vec![found]),
        Err(Unavailable::Missing { .. }) => Err(Unavailable::NotBuilt {
            program: program.to_owned(),
            build,
        }),
        Err(other) => Err(other),
    }
}

/// A program by its name alone.
fn tool(program: &str, path: &OsString) -> Result<String, Unavailable> {
    std::env::split_paths(path)
        // A relative directory in PATH would be a different one for the worker.
        .filter(|directory| directory.is_absolute())
        .find_map(|directory| executable(&directory.join(program), program).ok())
        .ok_or_else(|| match package_of(program) {
            Some(package) => Unavailable::NoToolchain {
                program: program.to_owned(),
                package,
            },
            None => Unavailable::NotInPath {
                program: program.to_owned(),
                path: path.to_string_lossy().into_owned(),
            },
        })
}

/// The Debian package that has a toolchain's program.
fn package_of(program: &str) -> Option<&'static str> {
    Some(match program {
        "cargo" => "cargo",
        "go" => "golang-go",
        "node" => "nodejs",
        "npm" => "npm",
        "python3" => "python3",
        _ => return None,
    })
}

fn first_file(directory: &Path, candidates: &[&str]) -> Result<PathBuf, Unavailable> {
    let found = candidates
        .iter()
        .map(|name| directory.join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| Unavailable::NoEntry {
        candidates: candidates.join(", "),
    })
}

/// package.json, if there is one.
fn package_json(directory: &Path) -> Result<Option<serde_json::Value>, Unavailable> {
    let refused = |why: String| Unavailable::PackageJson(why);
    let read = || {
        let mut bytes = Vec::new();
        let file = fs::File::open(directory.join("package.json"))?;
        io::Read::read_to_end(&mut io::Read::take(file, PACKAGE_JSON_MAX + 1), &mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > PACKAGE_JSON_MAX => Err(refused(format!(
            "it is larger than {} KiB",
            PACKAGE_JSON_MAX >> 10
        ))),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| refused(e.to_string())),
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused(error.to_string())),
    }
}

fn node_entry(directory: &Path) -> Result<PathBuf, Unavailable> {
    let package = package_json(directory)?;
    let Some(main) = package
        .as_ref()
        .and_then(|package| package["main"].as_str())
    else {
        return first_file(directory, &NODE_ENTRIES);
    };
    let path = inside(directory, main)?;
    // As `require` would find it.
    let spellings = [
        path.clone(),
        inside(directory, &format!("{main}.js"))?,
        path.join("index.js"),
    ];
    spellings
        .into_iter()
        .find(|path| path.is_file())
        .ok_or(Unavailable::Missing {
            path: PathBuf::from(main),
            hint: "package.json names it as \"main\"; correct that, or build it",
        })
}

/// Where the program is, and where a new one is put before it takes that place.
fn program_paths(directory: &Path, program: &str) -> (PathBuf, PathBuf) {
    let bin = directory.join("bin");
    (bin.join(program), bin.join(format!(".{program}.new")))
}

fn cargo_command(directory: &Path) -> Option<Vec<String>> {
    let manifest = ["Cargo.toml", "src/Cargo.toml"]
        .into_iter()
        .find(|manifest| directory.join(manifest).is_file())?;
    // Diagnostics on standard error for people; on standard output the path of the program, which is not always its default.
    let format = "json-render-diagnostics";
    Some(words(&[
        "cargo",
        "build",
        "--color",
        "always",
        "--message-format",
        format,
        "--manifest-path",
        manifest,
    ]))
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

fn go_command(directory: &Path, program: &str) -> Vec<String> {
    let has_module = |directory: &Path| directory.join("go.mod").is_file();
    let source = directory.join("src");
    if has_module(&source) {
        // A module of its own below src/: Go wants to be run inside.
        let output = format!("../bin/.{program}.new");
        return words(&["go", "-C", "src", "build", "-o", &output, "."]);
    }
    let output = format!("bin/.{program}.new");
    let mut command = words(&["go", "build", "-o", &output]);
    let in_source = go_files(&source);
    if in_source.is_empty() {
        command.push(".".to_owned());
    } else if directory.ancestors().any(has_module) {
        command.push("./src".to_owned());
    } else {
        // Without a module Go takes files, not directories.
        command.extend(in_source.iter().map(|file| format!("src/{file}")));
    }
    command
}

/// The names of the Go files in `directory`, tests left out.
fn go_files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".go") && !name.ends_with("_test.go"))
        .collect();
    names.sort();
    names
}

fn npm_command(directory: &Path) -> Option<Vec<String>> {
    // A package.json that can not be read is npm's to explain.
    let needed = match package_json(directory) {
        Ok(None) => false,
        Ok(Some(package)) => ["dependencies", "optionalDependencies"].iter().any(|key| {
            package[*key]
                .as_object()
                .is_some_and(|names| !names.is_empty())
        }),
        Err(_) => true,
    };
    let modified = |name: &str| {
        fs::metadata(directory.join(name))
            .and_then(|m| m.modified())
            .ok()
    };
    let lock = modified("package-lock.json");
    let wanted = lock.or_else(|| modified("package.json"));
    let up_to_date = modified("node_modules") >= wanted;
    if !needed || up_to_date {
        return None;
    }
    let verb = if lock.is_some() { "ci" } else { "install" };
    Some(words(&["npm", verb, "--no-audit", "--no-fund"]))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Copies a program to where it can take the place of another: a new file, of which no process runs.
fn copy(made: &Path, fresh: &Path) -> io::Result<()> {
    if let Some(bin) = fresh.parent() {
        fs::create_dir_all(bin)?;
    }
    remove(fresh)?;
    fs::copy(made, fresh).map(drop)
}

/// Lets `fresh` take the place of `place`, unless they are the same: a program that stays is one whose worker need not be reloaded.
fn install(fresh: &Path, place: &Path) -> io::Result<Built> {
    if same_content(fresh, place)? {
        remove(fresh)?;
        return Ok(Built::UpToDate);
    }
    fs::rename(fresh, place)?;
    Ok(Built::Fresh)
}

fn same_content(fresh: &Path, place: &Path) -> io::Result<bool> {
    let old = match fs::metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    Ok(old.len() == fs::metadata(fresh)?.len() && fs::read(fresh)? == fs::read(place)?)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// npm may write its lock file last; the modules are newer than it, whatever the clock said.
fn touch(directory: &Path) -> io::Result<()> {
    match fs::File::open(directory) {
        Ok(opened) => opened.set_modified(SystemTime::now()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn install_failure(place: &Path, source: io::Error) -> BuildFailure {
    BuildFailure::Install {
        path: place.to_owned(),
        source,
    }
}

/// How a process ended: `exit code 1`, `signal 9`.
fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// A build's output below the sentence that says it failed.
fn indented(output: &str) -> impl fmt::Display {
    let lines = output.trim_end().lines();
    lines
        .map(|line| format!("\n    {line}"))
        .collect::<String>()
}

#[cfg(test)]
mod tests;
