//! How each type of worker is built and run: the only place that knows Cargo, Go, Node.js, Python, PHP and their like.
//!
//! It names programs and runs builds. It starts no worker (systemd does) and decides nothing about when to build.

mod output;
pub mod php;
mod recipe;
mod runner;
mod work;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use crate::config::{Mode, WorkerSettings, WorkerType};

pub use output::Listener;
pub use recipe::Purpose;
pub use runner::{Runner, UnitRunner};
pub use work::{BuildError, BuildFailure, Built, Order, build, build_commands, shared_target};

/// As much as is read of a package.json or composer.json, of which a few fields are wanted.
const JSON_MAX: u64 = 1 << 20;
/// Where interpreters are looked for: root's directories, whatever environment the server was started with.
const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where a Node.js program starts if its package.json does not say.
const NODE_ENTRIES: [&str; 4] = ["server.js", "index.js", "src/server.js", "src/index.js"];

/// Where a program for Bun starts if its package.json does not say.
const BUN_ENTRIES: [&str; 8] = [
    "server.ts",
    "index.ts",
    "src/server.ts",
    "src/index.ts",
    "server.js",
    "index.js",
    "src/server.js",
    "src/index.js",
];

/// Where a program for Deno starts.
const DENO_ENTRIES: [&str; 6] = [
    "main.ts",
    "server.ts",
    "src/main.ts",
    "src/server.ts",
    "main.js",
    "src/main.js",
];

/// Where a Python program starts.
const PYTHON_ENTRIES: [&str; 4] = ["main.py", "app.py", "src/main.py", "src/app.py"];

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
    #[error("{program} is not installed; run {install}")]
    NoToolchain {
        /// What was looked for.
        program: String,
        /// The command that installs it.
        install: &'static str,
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
        WorkerType::Rust => built_program(directory, program, "tqserver build --release"),
        WorkerType::Go => built_program(directory, program, "tqserver build --release"),
        WorkerType::Exec => built_program(directory, program, "your own build"),
        WorkerType::Node => {
            let entry = script_entry(directory, &NODE_ENTRIES)?;
            Ok(vec![tool("node", &path)?, text(&entry)])
        }
        WorkerType::Bun => {
            let entry = script_entry(directory, &BUN_ENTRIES)?;
            Ok(vec![tool("bun", &path)?, "run".to_owned(), text(&entry)])
        }
        WorkerType::Deno => {
            let entry = first_file(directory, &DENO_ENTRIES)?;
            // What a worker may do is systemd's to say, and there is nobody to be asked.
            let words = ["run", "--allow-all", "--no-prompt"].map(str::to_owned);
            let words = std::iter::once(tool("deno", &path)?).chain(words);
            Ok(words.chain([text(&entry)]).collect())
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

/// Whether a toolchain's program, named alone, is found in development.
pub fn is_installed(program: &str) -> bool {
    tool(program, &search_path(Mode::Development)).is_ok()
}

/// A program by its name alone.
fn tool(program: &str, path: &OsString) -> Result<String, Unavailable> {
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
    Some(match program {
        "cargo" => "apt install cargo",
        "go" => "apt install golang-go",
        "node" => "apt install nodejs",
        "npm" => "apt install npm",
        "python3" => "apt install python3",
        "pnpm" => "npm install --global pnpm",
        "yarn" => "npm install --global yarn",
        "bun" => "npm install --global bun",
        "composer" => "apt install composer",
        "deno" => "npm install --global deno",
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
    json(&directory.join("package.json")).map_err(Unavailable::PackageJson)
}

/// A file of JSON, if there is one.
fn json(path: &Path) -> Result<Option<serde_json::Value>, String> {
    let read = || {
        let mut bytes = Vec::new();
        let file = fs::File::open(path)?;
        io::Read::read_to_end(&mut io::Read::take(file, JSON_MAX + 1), &mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > JSON_MAX => {
            Err(format!("it is larger than {} KiB", JSON_MAX >> 10))
        }
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| error.to_string()),
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Where a program starts that package.json may say it of, or one of `usual` is.
fn script_entry(directory: &Path, usual: &[&str]) -> Result<PathBuf, Unavailable> {
    let package = package_json(directory)?;
    let Some(main) = package
        .as_ref()
        .and_then(|package| package["main"].as_str())
    else {
        return first_file(directory, usual);
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

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
