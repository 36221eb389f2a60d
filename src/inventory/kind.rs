//! What a directory is, by the names in it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{DocumentRoot, WorkerType};

/// Files that only a program of its own has: a directory with one is a worker.
const PROJECT: [&str; 9] = [
    "Cargo.toml",
    "bunfig.toml",
    "deno.json",
    "deno.jsonc",
    "go.mod",
    "main.go",
    "package.json",
    "pyproject.toml",
    "requirements.txt",
];
/// Files that make a Python program, or in a package (a directory with `__init__.py`) below another worker a part of that one.
const PYTHON: [&str; 2] = ["main.py", "app.py"];
/// Files that make a PHP program, or below another worker rather a part of that one (`lib/composer.json`).
const PHP: [&str; 2] = ["composer.json", DocumentRoot::INDEX];
/// Files that make a Node.js program, or below another worker rather a part of that one (`lib/index.js`).
const NODE: [&str; 2] = ["server.js", "index.js"];

/// Where a directory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Around {
    /// In no worker.
    Nothing,
    /// In another worker.
    Worker,
    /// In one of PHP scripts, which bring directories of all kinds along (plugins, themes, packages): what is to be a worker there has to
    /// say so.
    Scripts,
}

/// The names in a directory.
#[derive(Debug)]
pub(super) struct Listing {
    directory: PathBuf,
    /// Real directories.
    pub(super) directories: BTreeSet<OsString>,
    /// Symbolic links, to whatever.
    pub(super) links: BTreeSet<OsString>,
    /// Everything else.
    files: BTreeSet<OsString>,
}

/// Why the type of a worker is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum KindError {
    /// There are signs of several.
    #[error("it could be of more than one type: {0}")]
    Several(String),
    /// There is a `bin/`, without the program we know by name.
    #[error("'bin/' has no program '{0}', and nothing else says what type it is")]
    NoProgram(String),
    /// There is no sign of any.
    #[error("nothing in it says what type it is")]
    Unknown,
}

impl Listing {
    /// The names in `directory`.
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let mut listing = Self {
            directory: directory.to_owned(),
            directories: BTreeSet::new(),
            links: BTreeSet::new(),
            files: BTreeSet::new(),
        };
        for entry in directory.read_dir()? {
            let entry = entry?;
            // An entry without a type has vanished since it was listed.
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let names = if kind.is_dir() {
                &mut listing.directories
            } else if kind.is_symlink() {
                &mut listing.links
            } else {
                &mut listing.files
            };
            names.insert(entry.file_name());
        }
        Ok(listing)
    }

    /// Whether the directory looks like a worker; inside another one it takes more than a file that could be a part of that.
    pub(super) fn is_worker(&self, around: Around) -> bool {
        let inside = around != Around::Nothing;
        let directory = ["src", "bin", "public"]
            .iter()
            .any(|name| self.directories.contains(OsStr::new(name)));
        let configuration = || self.directory.join("config/worker.yaml");
        let has = |names: &[&str]| names.iter().any(|name| self.has_file(name));
        let looks = directory
            || has(&PROJECT)
            || (has(&PYTHON) && !(inside && self.has_file("__init__.py")))
            || ((has(&NODE) || has(&PHP)) && !inside);
        (looks && around != Around::Scripts) || configuration().symlink_metadata().is_ok()
    }

    /// Where directories inside this one lie, if it is a worker.
    pub(super) fn around_what_is_inside(&self) -> Around {
        match self.has_scripts() {
            true => Around::Scripts,
            false => Around::Worker,
        }
    }

    /// Whether PHP scripts are in the directory.
    fn has_scripts(&self) -> bool {
        PHP.iter().any(|name| self.has_file(name)) || self.document_root().is_some()
    }

    /// Where PHP scripts start.
    pub(super) fn document_root(&self) -> Option<DocumentRoot> {
        let has_index = |root: &DocumentRoot| {
            let index = root.below(&self.directory).join(DocumentRoot::INDEX);
            index.is_file()
        };
        DocumentRoot::ALL.into_iter().find(has_index)
    }

    /// The type of the worker whose program is called `program`; `command`: its file says what to run.
    pub(super) fn kind(&self, program: &str, command: bool) -> Result<WorkerType, KindError> {
        let src = self.inner("src");
        let signs = [
            (
                WorkerType::Rust,
                self.sign(&src, &["Cargo.toml"], &["main.rs"]),
            ),
            (
                WorkerType::Go,
                self.sign(&src, &["go.mod", "main.go"], &[])
                    .or_else(|| go_source(&src)),
            ),
            (
                WorkerType::Node,
                self.sign(
                    &src,
                    &["package.json", "server.js", "index.js"],
                    &["server.js", "index.js"],
                ),
            ),
            (
                WorkerType::Python,
                self.sign(
                    &src,
                    &["main.py", "app.py", "requirements.txt", "pyproject.toml"],
                    &["main.py", "app.py"],
                ),
            ),
            (
                WorkerType::Php,
                self.sign(&src, &PHP, &[DocumentRoot::INDEX])
                    .or_else(|| self.public_index()),
            ),
        ];
        // Bun and Deno read package.json as well, and a file of their own only where they are meant. Beside PHP scripts it is of the tools
        // that make their stylesheets.
        let of_their_own = [
            (WorkerType::Bun, self.sign(&None, &["bunfig.toml"], &[])),
            (
                WorkerType::Deno,
                self.sign(&None, &["deno.json", "deno.jsonc"], &[]),
            ),
        ];
        let is_own = of_their_own.iter().any(|(_, sign)| sign.is_some());
        let of_tools =
            self.has_file("composer.json") && !NODE.iter().any(|name| self.has_file(name));
        let found: Vec<(WorkerType, String)> = signs
            .into_iter()
            .filter(|(kind, _)| !((is_own || of_tools) && *kind == WorkerType::Node))
            .chain(of_their_own)
            .filter_map(|(kind, sign)| Some((kind, sign?)))
            .collect();
        match found.as_slice() {
            [(kind, _)] => return Ok(*kind),
            [] => {}
            several => {
                let signs = several
                    .iter()
                    .map(|(kind, sign)| format!("{kind} ({sign})"));
                return Err(KindError::Several(signs.collect::<Vec<_>>().join(", ")));
            }
        }
        let bin = self.inner("bin");
        let has_program = bin
            .as_ref()
            .is_some_and(|bin| bin.has_file(program) || bin.has_link(program));
        if command || has_program {
            return Ok(WorkerType::Exec);
        }
        match (bin, src) {
            (Some(_), _) => Err(KindError::NoProgram(program.to_owned())),
            (None, None) if self.has_directory_or_link("public") => Ok(WorkerType::Static),
            _ => Err(KindError::Unknown),
        }
    }

    /// The first of `here` in this directory, or of `there` in `src`.
    fn sign(&self, src: &Option<Self>, here: &[&str], there: &[&str]) -> Option<String> {
        if let Some(name) = here.iter().find(|name| self.has_file(name)) {
            return Some((*name).to_owned());
        }
        let src = src.as_ref()?;
        let name = there.iter().find(|name| src.has_file(name))?;
        Some(format!("src/{name}"))
    }

    fn public_index(&self) -> Option<String> {
        let sign = format!("public/{}", DocumentRoot::INDEX);
        self.directory.join(&sign).is_file().then_some(sign)
    }

    fn inner(&self, name: &str) -> Option<Self> {
        let there = self.directories.contains(OsStr::new(name));
        there.then(|| Self::of(&self.directory.join(name)).ok())?
    }

    fn has_file(&self, name: &str) -> bool {
        self.files.contains(OsStr::new(name))
    }

    fn has_link(&self, name: &str) -> bool {
        self.links.contains(OsStr::new(name))
    }

    fn has_directory_or_link(&self, name: &str) -> bool {
        self.directories.contains(OsStr::new(name)) || self.has_link(name)
    }
}

fn go_source(src: &Option<Listing>) -> Option<String> {
    let mut files = src.as_ref()?.files.iter();
    let name = files.find(|name| Path::new(name).extension() == Some(OsStr::new("go")))?;
    Some(format!("src/{}", name.to_string_lossy()))
}
