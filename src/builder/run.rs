//! What runs a worker: the program of its type and the file it starts from.

use std::path::{Path, PathBuf};

use super::json::package_json;
use super::php;
use super::program::{
    Unavailable, executable, inside, program_paths, resolved, search_path, text, tool,
};
use crate::config::{Mode, WorkerSettings, WorkerType};

/// Where a Node.js program starts if its package.json does not say.
pub(super) const NODE_ENTRIES: [&str; 4] =
    ["server.js", "index.js", "src/server.js", "src/index.js"];

/// Where a program for Bun starts if its package.json does not say.
pub(super) const BUN_ENTRIES: [&str; 8] = [
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
pub(super) const DENO_ENTRIES: [&str; 6] = [
    "main.ts",
    "server.ts",
    "src/main.ts",
    "src/server.ts",
    "main.js",
    "src/main.js",
];

/// Where a Python program starts.
const PYTHON_ENTRIES: [&str; 4] = ["main.py", "app.py", "src/main.py", "src/app.py"];

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

pub(super) fn first_file(directory: &Path, candidates: &[&str]) -> Result<PathBuf, Unavailable> {
    let found = candidates
        .iter()
        .map(|name| directory.join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| Unavailable::NoEntry {
        candidates: candidates.join(", "),
    })
}

/// Where a program starts that package.json may say it of, or one of `usual` is.
pub(super) fn script_entry(directory: &Path, usual: &[&str]) -> Result<PathBuf, Unavailable> {
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
