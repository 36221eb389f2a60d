//! What builds a worker: the commands of its type, and what they leave.

use std::fs;
use std::path::Path;

use super::dependencies::Dependencies;
use super::purpose::Purpose;
use crate::config::WorkerSettings;
use crate::types::rust::MANIFESTS;
use crate::types::{self, Build, Compiler};

/// The commands that build a worker, one after the other, where its files are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) steps: Vec<Vec<String>>,
    pub(super) makes: Makes,
    /// What is fetched, if that is what it does.
    pub(super) fetched: Option<Dependencies>,
}

/// What a build leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Makes {
    /// A program where Cargo keeps it; its messages say where.
    CargoProgram,
    /// A program, under its new name beside the old one.
    Program,
    /// A directory of what others have written.
    Dependencies,
    /// Only the worker's own build command knows.
    Anything,
}

/// Cargo's messages on standard output, and its diagnostics for people on standard error all the same.
pub(super) const DIAGNOSTICS: &str = "json-render-diagnostics";

/// What builds the worker in `directory`; `None`: there is nothing to build now.
pub(super) fn recipe(
    settings: &WorkerSettings,
    directory: &Path,
    purpose: Purpose,
) -> Option<Recipe> {
    let made_by = |steps, makes| Recipe {
        steps,
        makes,
        fetched: None,
    };
    if let Some(own) = &settings.build {
        return Some(made_by(vec![own.clone()], Makes::Anything));
    }
    match types::of(settings.kind).build {
        Build::Program(Compiler::Cargo) => {
            let steps = vec![cargo(directory, purpose)?];
            Some(made_by(steps, Makes::CargoProgram))
        }
        Build::Program(Compiler::Go) => {
            let steps = vec![go(directory, settings.name.program(), purpose)];
            Some(made_by(steps, Makes::Program))
        }
        Build::Dependencies(installer) => {
            let fetched = Dependencies::of(installer, directory, purpose)?;
            let steps = fetched.steps(directory);
            let recipe = Recipe {
                fetched: Some(fetched),
                ..made_by(steps, Makes::Dependencies)
            };
            (!recipe.steps.is_empty()).then_some(recipe)
        }
        Build::Nothing => None,
    }
}

fn cargo(directory: &Path, purpose: Purpose) -> Option<Vec<String>> {
    let manifest = MANIFESTS
        .into_iter()
        .find(|manifest| directory.join(manifest).is_file())?;
    // Diagnostics on standard error for people; on standard output the path of the program, which is not always its default.
    let mut command = words(&[
        "cargo",
        "build",
        "--color",
        "always",
        "--message-format",
        DIAGNOSTICS,
        "--manifest-path",
        manifest,
    ]);
    if purpose == Purpose::Release {
        command.push("--release".to_owned());
    }
    Some(command)
}

fn go(directory: &Path, program: &str, purpose: Purpose) -> Vec<String> {
    let has_module = |directory: &Path| directory.join("go.mod").is_file();
    // For a release: no paths of this machine, and no tables for debuggers.
    let flags: &[&str] = match purpose {
        Purpose::Development => &[],
        Purpose::Release => &["-trimpath", "-ldflags", "-s -w"],
    };
    let source = directory.join("src");
    if has_module(&source) {
        // A module of its own below src/: Go wants to be run inside.
        let output = format!("../bin/.{program}.new");
        let mut command = words(&["go", "-C", "src", "build"]);
        command.extend(words(flags));
        command.extend(words(&["-o", &output, "."]));
        return command;
    }
    let output = format!("bin/.{program}.new");
    let mut command = words(&["go", "build"]);
    command.extend(words(flags));
    command.extend(words(&["-o", &output]));
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

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
