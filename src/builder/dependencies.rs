//! What others have written and a program needs: the command that fetches it, of which files, into which directory, and whether it is there.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::json::{json, package_json};
use super::purpose::Purpose;
use super::stamp::{self, Origin, State};
use crate::types::Installer;
use crate::types::deno::CONFIGURATIONS;

/// What is fetched for one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dependencies {
    installer: Installer,
    purpose: Purpose,
    /// What fetches all of it.
    command: Vec<String>,
    /// The directory it is in, from the program's on.
    into: &'static str,
    /// What it is made of.
    origin: Origin,
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

/// What pip reads of a directory that is a requirement itself.
const PYTHON_PROJECT: [&str; 3] = ["pyproject.toml", "setup.cfg", "setup.py"];

impl Dependencies {
    /// What the program in `directory` needs; `None`: nothing.
    pub(super) fn of(installer: Installer, directory: &Path, purpose: Purpose) -> Option<Self> {
        let (command, origin) = match installer {
            Installer::JavaScript { usual } => modules(directory, purpose, usual)?,
            Installer::Deno => deno(directory, purpose)?,
            Installer::Pip => requirements(directory)?,
            Installer::Composer => packages(directory, purpose)?,
        };
        Some(Self {
            installer,
            purpose,
            command,
            into: installer.makes()[0],
            origin,
        })
    }

    /// The commands that fetch what is missing; none: all is there.
    pub(super) fn steps(&self, directory: &Path) -> Vec<Vec<String>> {
        let there = self.place(directory);
        let state = stamp::state(&there, &self.origin);
        match self.installer {
            Installer::Pip => self.environment(directory, state),
            Installer::JavaScript { .. } => self.modules(&there, state),
            // Both put each package where it is to be once all of it is there, and know which are.
            Installer::Deno | Installer::Composer => match state {
                State::Complete => Vec::new(),
                _ => vec![self.command.clone()],
            },
        }
    }

    fn environment(&self, directory: &Path, state: State) -> Vec<Vec<String>> {
        let has = |program: &str| directory.join(".venv/bin").join(program).exists();
        let has_python = has("python");
        if state == State::Complete && has_python {
            return Vec::new();
        }
        let is_link = directory.join(".venv/bin/python").is_symlink();
        let mut steps = Vec::new();
        if !has_python && is_link {
            // It led to an interpreter that is gone, as after an upgrade of the system.
            steps.push(words(&["python3", "-m", "venv", "--clear", ".venv"]));
        } else if !has_python || !has("pip") || state == State::Moved {
            steps.push(words(&["python3", "-m", "venv", ".venv"]));
        }
        let mut fill = self.command.clone();
        if matches!(state, State::Unfinished | State::Moved) {
            // What is there by half, or names another directory, seems to be installed.
            fill.insert(fill.len() - 2, "--ignore-installed".to_owned());
        }
        steps.push(fill);
        steps
    }

    fn modules(&self, there: &Path, state: State) -> Vec<Vec<String>> {
        let is_of_npm = self.command[..2] == ["npm", "ci"];
        match state {
            State::Complete => Vec::new(),
            State::Unfinished => {
                let clear = words(&["find", self.into, "-mindepth", "1", "-delete"]);
                vec![clear, self.command.clone()]
            }
            // `npm ci` would fetch all of it again. What npm has noted last says that it came to an end.
            State::Other
                if is_of_npm
                    && stamp::text(there).is_none()
                    && there.join(".package-lock.json").exists() =>
            {
                let mut complete = words(&["npm", "install", "--no-save"]);
                complete.extend_from_slice(&self.command[2..]);
                vec![complete]
            }
            State::Other | State::Moved => vec![self.command.clone()],
        }
    }

    /// What was noted last.
    pub(super) fn noted(&self, directory: &Path) -> Option<String> {
        stamp::text(&self.place(directory))
    }

    /// Notes that a step begins.
    pub(super) fn begin(&self, directory: &Path) -> io::Result<()> {
        let there = self.place(directory);
        // Deno keeps what it fetches elsewhere, unless it is told or finds the directory there.
        let is_elsewhere = self.installer == Installer::Deno && !there.exists();
        if is_elsewhere {
            return Ok(());
        }
        fs::create_dir_all(&there)?;
        stamp::begin(&there)
    }

    /// Notes what was noted before: what fetches it has failed by itself, and left what was there.
    pub(super) fn take_back(&self, directory: &Path, before: Option<&str>) {
        // If it cannot be noted, all is fetched anew.
        let _ = stamp::write(&self.place(directory), before);
    }

    /// Notes that all is there.
    pub(super) fn finish(&self, directory: &Path) -> io::Result<()> {
        let there = self.place(directory);
        if !there.exists() {
            return Ok(());
        }
        // Package managers write lock files. What somebody else has changed meanwhile was not fetched.
        let now = Self::of(self.installer, directory, self.purpose);
        let now = now.map(|now| now.origin);
        let now = now.filter(|now| now.has_all_of(&self.origin));
        stamp::complete(&there, now.as_ref().unwrap_or(&self.origin))
    }

    /// The directory of what is fetched.
    fn place(&self, directory: &Path) -> PathBuf {
        directory.join(self.into)
    }

    /// Where it is noted.
    pub(super) fn stamp(&self, directory: &Path) -> PathBuf {
        stamp::path(&self.place(directory))
    }
}

type Fetched = (Vec<String>, Origin);

/// Installs a program's modules with the package manager that its lock file is of, its package.json names, or else the `usual` one.
fn modules(directory: &Path, purpose: Purpose, usual: &str) -> Option<Fetched> {
    let package = package_json(directory);
    let needed = match &package {
        Ok(None) => false,
        Ok(Some(package)) => needs(package, purpose),
        // One that can not be read is the package manager's to explain.
        Err(_) => true,
    };
    if !needed {
        return None;
    }
    let lock_of = |manager: &'static PackageManager| {
        let mut locks = manager.locks.iter();
        locks.find_map(|lock| directory.join(lock).exists().then_some((manager, *lock)))
    };
    let locked = PACKAGE_MANAGERS.iter().find_map(lock_of);
    let package = package.ok().flatten();
    let named = package
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
    let command = words(&command);
    let mut origin = Origin::of_command(&command);
    let kinds = ["dependencies", "optionalDependencies", "devDependencies"];
    parts(
        &mut origin,
        directory,
        "package.json",
        package.as_ref(),
        &kinds,
    );
    if let Some((_, lock)) = locked {
        origin.file(directory, lock);
    }
    Some((command, origin))
}

/// Adds what a file of JSON says of packages; the rest of it, as scripts, has nothing to do with them. All of one that cannot be read.
fn parts(
    origin: &mut Origin,
    directory: &Path,
    file: &str,
    read: Option<&serde_json::Value>,
    keys: &[&str],
) {
    match read {
        Some(value) => {
            let said = keys.iter().map(|key| format!("{key}: {}\n", value[*key]));
            origin.text(file, said.collect::<String>().as_bytes());
        }
        None => origin.file(directory, file),
    }
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
fn deno(directory: &Path, purpose: Purpose) -> Option<Fetched> {
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
    let lock = "deno.lock";
    let mut command = words(&["deno", "install"]);
    if purpose == Purpose::Release {
        command.extend(words(&["--node-modules-dir=auto", "--vendor=true"]));
        if directory.join(lock).exists() {
            command.push("--frozen".to_owned());
        }
    }
    let mut origin = Origin::of_command(&command);
    let files = CONFIGURATIONS.into_iter().chain(["package.json", lock]);
    files.for_each(|file| origin.file(directory, file));
    Some((command, origin))
}

/// Installs a PHP program's packages.
fn packages(directory: &Path, purpose: Purpose) -> Option<Fetched> {
    let (lock, file) = ("composer.lock", "composer.json");
    let there = |name| directory.join(name).exists();
    if !there(lock) && !there(file) {
        return None;
    }
    let project = json(&directory.join(file));
    let needed = match &project {
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
    if !needed {
        return None;
    }
    let mut command = words(&["composer", "install", "--no-interaction", "--no-progress"]);
    if purpose == Purpose::Release {
        command.extend(words(&["--no-dev", "--classmap-authoritative"]));
    }
    let mut origin = Origin::of_command(&command);
    let project = project.ok().flatten();
    let keys = ["require", "require-dev", "autoload", "autoload-dev"];
    parts(&mut origin, directory, file, project.as_ref(), &keys);
    origin.file(directory, lock);
    Some((command, origin))
}

/// Installs what a Python program requires into an environment of its own.
fn requirements(directory: &Path) -> Option<Fetched> {
    let file = "requirements.txt";
    let needed = match fs::read_to_string(directory.join(file)) {
        Ok(text) => said(&text).next().is_some(),
        // One that can not be read is pip's to explain.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    if !needed {
        return None;
    }
    let command = words(&[
        ".venv/bin/python",
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--requirement",
        file,
    ]);
    // Its programs name it.
    let mut origin = Origin::of_command(&command).at(directory);
    let mut seen = BTreeSet::new();
    let mut waiting = vec![file.to_owned()];
    while let Some(file) = waiting.pop() {
        if !seen.insert(file.clone()) {
            continue;
        }
        origin.file(directory, &file);
        let text = fs::read_to_string(directory.join(&file)).unwrap_or_default();
        for line in said(&text) {
            // As pip does, from the file that names it on.
            let beside = |named: &str| match Path::new(&file).parent() {
                Some(parent) => parent.join(named).to_string_lossy().into_owned(),
                None => named.to_owned(),
            };
            waiting.extend(included(line).map(beside));
            if line.split_whitespace().any(|word| word.starts_with('.')) {
                PYTHON_PROJECT
                    .iter()
                    .for_each(|file| origin.file(directory, file));
            }
        }
    }
    Some((command, origin))
}

/// The lines of a file of requirements that say something.
fn said(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The file that a line of a file of requirements names.
fn included(line: &str) -> Option<&str> {
    let options = ["-r", "--requirement", "-c", "--constraint"];
    let rest = options.iter().find_map(|option| {
        let rest = line.strip_prefix(option)?;
        let is_all = option.len() == 2 || rest.starts_with([' ', '\t', '=']);
        is_all.then_some(rest)
    })?;
    let rest = rest.trim_start_matches(['=', ' ', '\t']);
    let name = rest.split(" #").next().unwrap_or(rest).trim();
    (!name.is_empty() && !name.contains("://")).then_some(name)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_requirements_names_a_file_as_pip_reads_it() {
        for (line, file) in [
            ("-r base.txt", Some("base.txt")),
            ("-rbase.txt", Some("base.txt")),
            ("--requirement=a b.txt # all", Some("a b.txt")),
            ("--requirement  base.txt", Some("base.txt")),
            ("-c constraints.txt", Some("constraints.txt")),
            ("-r https://example.org/x.txt", None),
            ("--requirements-of x", None),
            ("flask -r", None),
            ("-e .", None),
        ] {
            assert_eq!(included(line), file, "{line}");
        }
    }
}
