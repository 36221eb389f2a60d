//! What builds a worker: the commands of its type, and what they leave.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::json::{json, package_json};
use crate::config::WorkerSettings;
use crate::types::deno::CONFIGURATIONS;
use crate::types::rust::MANIFESTS;
use crate::types::{self, Build, Compiler, Installer};

/// What a build is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To be seen soon.
    #[default]
    Development,
    /// To be deployed: optimised, and without what only developers need.
    Release,
}

/// The commands that build a worker, one after the other, where its files are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) steps: Vec<Vec<String>>,
    pub(super) makes: Makes,
}

/// What a build leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Makes {
    /// A program where Cargo keeps it; its messages say where.
    CargoProgram,
    /// A program, under its new name beside the old one.
    Program,
    /// A directory of what others have written.
    Dependencies(&'static str),
    /// Only the worker's own build command knows.
    Anything,
}

/// A package manager of JavaScript, and how it installs.
struct PackageManager {
    program: &'static str,
    /// Its lock files.
    locks: &'static [&'static str],
    /// Installs what the lock file says and nothing else; what may be added to that in a release.
    locked: (&'static [&'static str], &'static [&'static str]),
    /// Without a lock file.
    unlocked: &'static [&'static str],
}

/// In the order in which their lock files are looked for: who has several has the others' by accident, and npm's most often by intent.
const PACKAGE_MANAGERS: [PackageManager; 4] = [
    PackageManager {
        program: "npm",
        locks: &["package-lock.json", "npm-shrinkwrap.json"],
        locked: (&["ci", "--no-audit", "--no-fund"], &["--omit=dev"]),
        unlocked: &["install", "--no-audit", "--no-fund"],
    },
    PackageManager {
        program: "pnpm",
        locks: &["pnpm-lock.yaml"],
        // Without CI=true it asks before it removes modules that another one has installed.
        locked: (
            &[
                "install",
                "--frozen-lockfile",
                "--config.confirm-modules-purge=false",
            ],
            &["--prod"],
        ),
        unlocked: &["install", "--config.confirm-modules-purge=false"],
    },
    PackageManager {
        program: "yarn",
        locks: &["yarn.lock"],
        // Understood by yarn 1 and by its successors, which have no word for leaving out what only developers need.
        locked: (&["install", "--frozen-lockfile"], &[]),
        unlocked: &["install"],
    },
    PackageManager {
        program: "bun",
        locks: &["bun.lock", "bun.lockb"],
        locked: (&["install", "--frozen-lockfile"], &["--production"]),
        unlocked: &["install"],
    },
];

/// Cargo's messages on standard output, and its diagnostics for people on standard error all the same.
pub(super) const DIAGNOSTICS: &str = "json-render-diagnostics";

/// What builds the worker in `directory`; `None`: there is nothing to build now.
pub(super) fn recipe(
    settings: &WorkerSettings,
    directory: &Path,
    purpose: Purpose,
) -> Option<Recipe> {
    if let Some(own) = &settings.build {
        return Some(Recipe {
            steps: vec![own.clone()],
            makes: Makes::Anything,
        });
    }
    let (steps, makes) = match types::of(settings.kind).build {
        Build::Program(Compiler::Cargo) => (vec![cargo(directory, purpose)?], Makes::CargoProgram),
        Build::Program(Compiler::Go) => (
            vec![go(directory, settings.name.program(), purpose)],
            Makes::Program,
        ),
        Build::Dependencies(Installer::JavaScript { usual }) => modules(directory, purpose, usual)?,
        Build::Dependencies(Installer::Deno) => deno(directory, purpose)?,
        Build::Dependencies(Installer::Pip) => environment(directory)?,
        Build::Dependencies(Installer::Composer) => packages(directory, purpose)?,
        Build::Nothing => return None,
    };
    Some(Recipe { steps, makes })
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

type Steps = (Vec<Vec<String>>, Makes);

/// Installs a program's modules with the package manager that its lock file is of, its package.json names, or else the `usual` one.
fn modules(directory: &Path, purpose: Purpose, usual: &str) -> Option<Steps> {
    let package = package_json(directory);
    let needed = match &package {
        Ok(None) => false,
        Ok(Some(package)) => needs(package, purpose),
        // One that can not be read is the package manager's to explain.
        Err(_) => true,
    };
    let lock_of = |manager: &'static PackageManager| {
        let mut locks = manager.locks.iter();
        locks.find_map(|lock| Some((manager, modified(directory, lock)?)))
    };
    let locked = PACKAGE_MANAGERS.iter().find_map(lock_of);
    let wanted = locked
        .map(|(_, lock)| lock)
        .or_else(|| modified(directory, "package.json"));
    if !needed || modified(directory, "node_modules") >= wanted {
        return None;
    }
    let named = package.ok().flatten();
    let named = named
        .as_ref()
        .and_then(|package| package["packageManager"].as_str());
    let named = named
        .and_then(|named| named.split('@').next())
        .unwrap_or(usual);
    let mut command = Vec::new();
    match locked {
        Some((manager, _)) => {
            command.push(manager.program);
            command.extend(manager.locked.0);
            if purpose == Purpose::Release {
                command.extend(manager.locked.1);
            }
        }
        None => {
            let manager = PACKAGE_MANAGERS
                .iter()
                .find(|manager| manager.program == named);
            let manager = manager.unwrap_or(&PACKAGE_MANAGERS[0]);
            command.push(manager.program);
            command.extend(manager.unlocked);
        }
    }
    Some((vec![words(&command)], Makes::Dependencies("node_modules")))
}

/// Whether a package.json names modules. What only a developer needs may well be what a developer runs.
fn needs(package: &serde_json::Value, purpose: Purpose) -> bool {
    let kinds: &[&str] = match purpose {
        Purpose::Development => &["dependencies", "optionalDependencies", "devDependencies"],
        Purpose::Release => &["dependencies", "optionalDependencies"],
    };
    kinds.iter().any(|kind| {
        package[*kind]
            .as_object()
            .is_some_and(|names| !names.is_empty())
    })
}

/// Fetches what a Deno program imports. In a release it lies with the program afterwards: a worker in its sandbox can not write it where
/// Deno keeps what all programs share.
fn deno(directory: &Path, purpose: Purpose) -> Option<Steps> {
    let lock = modified(directory, "deno.lock");
    let wanted = CONFIGURATIONS
        .into_iter()
        .chain(["package.json"])
        .filter_map(|file| modified(directory, file))
        .chain(lock)
        .max()?;
    // What is imported by its address in the program itself comes with its first start.
    let names_any = |file| {
        let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
        text.contains("\"imports\"") || text.contains("\"importMap\"")
    };
    let package = package_json(directory).ok().flatten();
    if !CONFIGURATIONS.into_iter().any(names_any)
        && !package.is_some_and(|package| needs(&package, purpose))
    {
        return None;
    }
    let mut command = words(&["deno", "install"]);
    if purpose == Purpose::Release {
        command.extend(words(&["--node-modules-dir=auto", "--vendor=true"]));
        if lock.is_some() {
            command.push("--frozen".to_owned());
        }
    }
    let there = ["node_modules", "vendor"]
        .into_iter()
        .filter_map(|made| modified(directory, made))
        .min();
    if there.is_some_and(|there| there >= wanted) {
        return None;
    }
    Some((vec![command], Makes::Dependencies("node_modules")))
}

/// Installs a PHP program's packages.
fn packages(directory: &Path, purpose: Purpose) -> Option<Steps> {
    let lock = modified(directory, "composer.lock");
    let wanted = lock.or_else(|| modified(directory, "composer.json"))?;
    let needed = match json(&directory.join("composer.json")) {
        Ok(Some(project)) => {
            let kinds: &[&str] = match purpose {
                Purpose::Development => &["require", "require-dev"],
                Purpose::Release => &["require"],
            };
            // PHP itself and its extensions (`php`, `ext-mbstring`) have no '/': they are the distribution's. Composer also makes what loads
            // the program's own classes.
            let packages = kinds.iter().filter_map(|kind| project[*kind].as_object());
            packages.flatten().any(|(name, _)| name.contains('/')) || !project["autoload"].is_null()
        }
        // One that is not there, or can not be read, is Composer's to explain.
        Ok(None) | Err(_) => true,
    };
    if !needed || modified(directory, "vendor").is_some_and(|vendor| vendor >= wanted) {
        return None;
    }
    let mut command = words(&["composer", "install", "--no-interaction", "--no-progress"]);
    if purpose == Purpose::Release {
        command.extend(words(&["--no-dev", "--classmap-authoritative"]));
    }
    Some((vec![command], Makes::Dependencies("vendor")))
}

/// An environment of its own for a Python program with requirements, made anew when these have changed.
fn environment(directory: &Path) -> Option<Steps> {
    let requirements = fs::read_to_string(directory.join("requirements.txt"));
    let names_any = |text: String| {
        text.lines().any(|line| {
            let line = line.trim_start();
            !line.is_empty() && !line.starts_with('#')
        })
    };
    // One that can not be read is pip's to explain.
    let needed = match requirements {
        Ok(text) => names_any(text),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if !needed || modified(directory, ".venv") >= modified(directory, "requirements.txt") {
        return None;
    }
    let make = words(&["python3", "-m", "venv", ".venv"]);
    let fill = words(&[
        ".venv/bin/python",
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--requirement",
        "requirements.txt",
    ]);
    let has_one = directory.join(".venv/bin/python").exists();
    let steps = if has_one {
        vec![fill]
    } else {
        vec![make, fill]
    };
    Some((steps, Makes::Dependencies(".venv")))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn modified(directory: &Path, name: &str) -> Option<SystemTime> {
    let found = fs::metadata(directory.join(name));
    found.and_then(|found| found.modified()).ok()
}
