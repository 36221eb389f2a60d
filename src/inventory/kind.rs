//! What a directory is, by the names in it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{DocumentRoot, WorkerType};
use crate::types::{self, Sign, Type};

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

    /// Whether the directory is a worker: it looks like one, or says so. `inside` another one it has to say so, for programs are made of
    /// all kinds of directories (packages, plugins, what a build has made).
    pub(super) fn is_worker(&self, inside: bool) -> bool {
        let has = |name: &&str| self.directories.contains(OsStr::new(name));
        let looks = || {
            let mut signs = types::ALL.iter().flat_map(|kind| kind.signs.here);
            ["src", "bin", "public"].iter().any(has) || signs.any(|sign| self.has_file(sign.name()))
        };
        let configuration = || self.directory.join("config/worker.yaml");
        !inside && looks() || configuration().symlink_metadata().is_ok()
    }

    /// Whether its configuration has a name that nobody looks for.
    pub(super) fn has_misspelt_configuration(&self) -> bool {
        let has = |file: &str| {
            let file = self.directory.join("config").join(file);
            file.symlink_metadata().is_ok()
        };
        self.directories.contains(OsStr::new("config")) && has("worker.yml") && !has("worker.yaml")
    }

    /// Whether it has files that nobody has hidden.
    pub(super) fn has_visible_files(&self) -> bool {
        let is_hidden = |name: &OsString| name.as_encoded_bytes().starts_with(b".");
        !self.files.iter().all(is_hidden)
    }

    /// Where PHP scripts start: the first place that has `script`.
    pub(super) fn document_root(&self, script: &str) -> Option<DocumentRoot> {
        let has_script = |root: &DocumentRoot| root.below(&self.directory).join(script).is_file();
        DocumentRoot::ALL.into_iter().find(has_script)
    }

    /// The type of the worker whose program is called `program`; `command`: its file says what to run.
    pub(super) fn kind(&self, program: &str, command: bool) -> Result<WorkerType, KindError> {
        let src = self.inner("src");
        let sign = |kind: &&'static Type| Some((*kind, self.sign(kind, &src)?));
        let mut found: Vec<(&Type, String)> = types::ALL.iter().filter_map(sign).collect();
        let over: Vec<WorkerType> = found
            .iter()
            .flat_map(|(kind, _)| kind.signs.over)
            .copied()
            .collect();
        found.retain(|(kind, _)| !over.contains(&kind.kind) && !self.is_of_tools(kind));
        match found.as_slice() {
            [(kind, _)] => return Ok(kind.kind),
            [] => {}
            several => {
                let signs = several
                    .iter()
                    .map(|(kind, sign)| format!("{} ({sign})", kind.name));
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

    /// The first sign of this type, by its path.
    fn sign(&self, kind: &Type, src: &Option<Self>) -> Option<String> {
        let signs = &kind.signs;
        let mut here = signs.here.iter().map(|sign| sign.name());
        if let Some(name) = here.find(|name| self.has_file(name)) {
            return Some(name.to_owned());
        }
        let in_source = src.as_ref().and_then(|src| {
            let mut names = signs.in_source.iter();
            let name = names.find(|name| src.has_file(name));
            let name = name.map(|name| (*name).to_owned());
            let name = name.or_else(|| src.file_with(signs.source_extension?))?;
            Some(format!("src/{name}"))
        });
        in_source.or_else(|| {
            let mut paths = signs.below.iter();
            let path = paths.find(|path| self.directory.join(path).is_file())?;
            Some((*path).to_owned())
        })
    }

    /// Whether the signs of this type are only of tools that a worker of another type brings along.
    fn is_of_tools(&self, kind: &Type) -> bool {
        let is_program = |sign: &Sign| matches!(sign, Sign::Program(name) if self.has_file(name));
        let beside = kind.signs.tools_beside;
        beside.is_some_and(|beside| self.has_file(beside))
            && !kind.signs.here.iter().any(is_program)
    }

    /// The first file with this extension.
    fn file_with(&self, extension: &str) -> Option<String> {
        let has_it = |name: &&OsString| Path::new(name).extension() == Some(OsStr::new(extension));
        let name = self.files.iter().find(has_it)?;
        Some(name.to_string_lossy().into_owned())
    }

    fn inner(&self, name: &str) -> Option<Self> {
        let there = self.directories.contains(OsStr::new(name));
        there.then(|| Self::of(&self.directory.join(name)).ok())?
    }

    pub(super) fn has_file(&self, name: &str) -> bool {
        self.files.contains(OsStr::new(name))
    }

    fn has_link(&self, name: &str) -> bool {
        self.links.contains(OsStr::new(name))
    }

    fn has_directory_or_link(&self, name: &str) -> bool {
        self.directories.contains(OsStr::new(name)) || self.has_link(name)
    }
}
