//! Where programs are found, and why one is not.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use crate::config::{Mode, printable};
use crate::types;

/// Where interpreters are looked for: root's directories, whatever environment the server was started with.
pub(super) const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where systemd's services find programs, unless they are told otherwise (systemd.exec(5)).
const SERVICES_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where package managers put the programs of what they fetch for a worker, from its directory on.
const OWN_PROGRAMS: [&str; 3] = [".venv/bin", "node_modules/.bin", "vendor/bin"];

/// Why a worker can not be built or run as it lies on disk. The text says what to do about it, in one line, whatever the worker's file
/// names.
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
    #[error("{} is missing; {hint}", printable(&path.to_string_lossy()))]
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
    #[error("{file} is not an executable file; run chmod +x {file}", file = printable(.0))]
    NotExecutable(String),
    /// A toolchain or an interpreter is not installed.
    #[error("{program} is not installed; run {install}")]
    NoToolchain {
        /// What was looked for.
        program: String,
        /// The command that installs it.
        install: &'static str,
    },
    /// A plain word no directory of the search path has.
    #[error(
        "'{}' is neither among the worker's packages ({}) nor in {path}; build the worker (`tqserver build`), install it, or write its absolute path",
        printable(program),
        OWN_PROGRAMS.join(", ")
    )]
    NotInPath {
        /// What was looked for.
        program: String,
        /// Where.
        path: String,
    },
    /// A relative path that goes out of the worker's directory.
    #[error(
        "'{}' leaves the worker's directory; put the program inside, or write its absolute path",
        printable(.0)
    )]
    Outside(String),
    /// A `command:` or `build:` without a word.
    #[error("the command is empty; name a program, or leave the key out")]
    Empty,
    /// package.json is not what npm would take.
    #[error(
        "package.json can not be read ({}); correct it, or set command: in config/worker.yaml",
        printable(.0)
    )]
    PackageJson(String),
    /// A worker of type static has no program.
    #[error("a static worker has no program; its files are served from public/")]
    Static,
}

/// The directories programs are looked for in. A developer's own toolchain (rustup, nvm, pyenv) comes first in development; in
/// production the environment of the server has no say in what a worker runs.
pub(super) fn search_path(mode: Mode) -> OsString {
    let mut path = OsString::new();
    if let (Mode::Development, Some(own)) = (mode, std::env::var_os("PATH")) {
        path.push(own);
        path.push(":");
    }
    path.push(SYSTEM_PATH);
    path
}

/// The directories of a worker's own programs that are there, which go before the system's.
pub fn own_programs(directory: &Path) -> Vec<PathBuf> {
    let own = OWN_PROGRAMS.iter().map(|programs| directory.join(programs));
    own.filter(|programs| programs.is_dir()).collect()
}

/// What a worker with programs of its own finds them by, as variables of its environment.
pub fn own_environment(programs: &[PathBuf], mode: Mode) -> Vec<(&'static str, String)> {
    let mut variables = Vec::new();
    let mut path: Vec<PathBuf> = programs.to_vec();
    let others = match mode {
        Mode::Development => search_path(mode),
        Mode::Production => SERVICES_PATH.into(),
    };
    path.extend(std::env::split_paths(&others));
    // None that holds the sign between two can be in it.
    path.retain(|directory| !directory.as_os_str().as_encoded_bytes().contains(&b':'));
    if let (false, Ok(path)) = (programs.is_empty(), std::env::join_paths(path)) {
        variables.push(("PATH", path.to_string_lossy().into_owned()));
    }
    let environment = programs
        .iter()
        .find(|programs| programs.ends_with(OWN_PROGRAMS[0]));
    if let Some(environment) = environment.and_then(|programs| programs.parent()) {
        variables.push(("VIRTUAL_ENV", text(environment)));
    }
    variables
}

/// A command with its first word made absolute.
pub(super) fn resolved(
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
pub(super) fn inside(directory: &Path, relative: &str) -> Result<PathBuf, Unavailable> {
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
pub(super) fn executable(path: &Path, name: &str) -> Result<String, Unavailable> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Ok(text(path)),
        Ok(_) => Err(Unavailable::NotExecutable(name.to_owned())),
        Err(_) => Err(Unavailable::Missing {
            path: PathBuf::from(name),
            hint: "build it, deploy it, or correct the command in config/worker.yaml",
        }),
    }
}

/// Whether a toolchain's program, named alone, is found in development.
pub fn is_installed(program: &str) -> bool {
    tool(program, &search_path(Mode::Development)).is_ok()
}

/// A program by its name alone.
pub(super) fn tool(program: &str, path: &OsString) -> Result<String, Unavailable> {
    std::env::split_paths(path)
        // A relative directory in PATH would be a different one for the worker.
        .filter(|directory| directory.is_absolute())
        .find_map(|directory| executable(&directory.join(program), program).ok())
        .ok_or_else(|| match installer(program) {
            Some(install) => Unavailable::NoToolchain {
                program: program.to_owned(),
                install,
            },
            None => Unavailable::NotInPath {
                program: program.to_owned(),
                path: path.to_string_lossy().into_owned(),
            },
        })
}

/// What installs a toolchain's program.
fn installer(program: &str) -> Option<&'static str> {
    let mut tools = types::ALL.iter().flat_map(|kind| kind.tools);
    tools
        .find(|(name, _)| *name == program)
        .map(|(_, command)| *command)
}

/// Where the program is, and where a new one is put before it takes that place.
pub(super) fn program_paths(directory: &Path, program: &str) -> (PathBuf, PathBuf) {
    let bin = directory.join("bin");
    (bin.join(program), bin.join(format!(".{program}.new")))
}

pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
