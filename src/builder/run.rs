//! What runs a worker: the program of its type and the file it starts from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::json::package_json;
use super::php;
use super::program::{
    Unavailable, executable, inside, own_programs, program_paths, resolved, search_path, text, tool,
};
use crate::config::{Mode, WorkerSettings};
use crate::types::{self, Run, Script};

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
        return match own_program(command, directory) {
            Some(own) => Ok(std::iter::once(own)
                .chain(command[1..].iter().cloned())
                .collect()),
            None => resolved(command, directory, &path),
        };
    }
    let program = settings.name.program();
    match &types::of(settings.kind).run {
        Run::Program { built_by } => built_program(directory, program, built_by),
        Run::Script(script) => interpreted(script, directory, &path),
        Run::PhpFpm => Ok(vec![php::fpm(&path)?]),
        Run::Nothing => Err(Unavailable::Static),
    }
}

/// A plain word that is the name of a program of the worker's own packages.
fn own_program(command: &[String], directory: &Path) -> Option<String> {
    let program = command.first().filter(|program| !program.contains('/'))?;
    let mut places = own_programs(directory).into_iter();
    places.find_map(|programs| executable(&programs.join(program), program).ok())
}

/// An interpreter, and the file it runs.
fn interpreted(
    script: &Script,
    directory: &Path,
    path: &OsString,
) -> Result<Vec<String>, Unavailable> {
    let entry = match script.package_json {
        true => script_entry(directory, script.entries)?,
        false => first_file(directory, script.entries)?,
    };
    let own = script.own_interpreter.map(|own| (directory.join(own), own));
    let interpreter = match own.filter(|(there, _)| there.exists()) {
        Some((there, own)) => executable(&there, own)?,
        None => tool(script.interpreter, path)?,
    };
    let arguments = script.arguments.iter().map(|&word| word.to_owned());
    Ok(std::iter::once(interpreter)
        .chain(arguments)
        .chain([text(&entry)])
        .collect())
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
