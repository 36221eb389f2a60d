//! What there is to know of a type of worker.

use serde::{Deserialize, Serialize};

use super::template::Template;

/// How a worker's program is built and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerType {
    /// A Cargo package.
    Rust,
    /// A Go module, or `src/*.go`.
    Go,
    /// A Node.js program.
    Node,
    /// A Python program.
    Python,
    /// PHP scripts, run by php-fpm.
    Php,
    /// A program for Bun.
    Bun,
    /// A program for Deno.
    Deno,
    /// Any program: `bin/NAME` or `command`.
    Exec,
    /// No program: the files in `public/`.
    Static,
}

/// What is known of one type.
#[derive(Debug)]
pub struct Type {
    /// Which one it is.
    pub kind: WorkerType,
    /// As worker.yaml spells it, and all messages.
    pub name: &'static str,
    /// By which files a worker is known to be of it.
    pub signs: Signs,
    /// What runs it, unless its worker.yaml has a `command`.
    pub run: Run,
    /// What builds it, unless its worker.yaml has a `build`.
    pub build: Build,
    /// Programs that build or run it and that a machine may lack, each with the command that installs it.
    pub tools: &'static [(&'static str, &'static str)],
    /// Whether it makes machine code while it runs, unless its worker.yaml says so or not (`jit`): its memory must then be writable and
    /// executable.
    pub jit: bool,
    /// Directories of the worker that its program does not run from: no snapshot has them, and a change in them needs no new generation.
    pub omits: &'static [&'static str],
    /// The package of Debian that runs it. `None`: it needs none, or no package of Debian has what it needs.
    pub package: Option<&'static str>,
    /// What `tqserver new` makes of it, if it does.
    pub template: Option<Template>,
}

impl Type {
    /// Whether a toolchain makes its program.
    pub fn is_compiled(&self) -> bool {
        matches!(self.build, Build::Program(_))
    }

    /// Whether some of what is in `public/` may be run.
    pub fn runs_from_public(&self) -> bool {
        matches!(self.run, Run::PhpFpm)
    }
}

/// By which files a worker is known to be of a type.
#[derive(Debug)]
pub struct Signs {
    /// In its directory, in the order in which they are looked for; the first that is there is the one that is told.
    pub here: &'static [Sign],
    /// In `src/`.
    pub in_source: &'static [&'static str],
    /// What any file in `src/` ends with, without the dot.
    pub source_extension: Option<&'static str>,
    /// By their paths from its directory.
    pub below: &'static [&'static str],
    /// A file beside which [`Sign::Project`] of this type is of tools only; a [`Sign::Program`] still counts.
    pub tools_beside: Option<&'static str>,
    /// Types that are not meant where there is a sign of this one, which reads their files as well.
    pub over: &'static [WorkerType],
}

impl Signs {
    /// No file is a sign.
    pub const NONE: Self = Self {
        here: &[],
        in_source: &[],
        source_extension: None,
        below: &[],
        tools_beside: None,
        over: &[],
    };
}

/// A file that says of what type a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It says what a project is made of.
    Project(&'static str),
    /// It is what runs.
    Program(&'static str),
}

impl Sign {
    /// The file's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Project(name) | Self::Program(name) => name,
        }
    }
}

/// What runs a worker.
#[derive(Debug)]
pub enum Run {
    /// The program `bin/NAME`.
    Program {
        /// What makes it, for who has not done so.
        built_by: &'static str,
    },
    /// An interpreter, on the file the program starts from.
    Script(Script),
    /// php-fpm.
    PhpFpm,
    /// Nothing: it has no process.
    Nothing,
}

/// How an interpreter runs a program.
#[derive(Debug)]
pub struct Script {
    /// Its name, as it is looked for among the machine's programs.
    pub interpreter: &'static str,
    /// The worker's own, which goes before the machine's if it is there: its path from the worker's directory.
    pub own_interpreter: Option<&'static str>,
    /// What stands before the file.
    pub arguments: &'static [&'static str],
    /// Where the program starts: the first of these that is there.
    pub entries: &'static [&'static str],
    /// Whether `main` in a package.json goes before `entries`.
    pub package_json: bool,
}

/// What builds a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// A toolchain makes its program.
    Program(Compiler),
    /// What others have written, and it needs, is fetched.
    Dependencies(Installer),
    /// Nothing.
    Nothing,
}

/// A toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// `cargo build`.
    Cargo,
    /// `go build`.
    Go,
}

/// What fetches the code of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installer {
    /// The package manager of JavaScript that the worker's files name; `usual`, if they name none.
    JavaScript {
        /// Its program.
        usual: &'static str,
    },
    /// `deno install`.
    Deno,
    /// `pip install`, into an environment of its own.
    Pip,
    /// `composer install`.
    Composer,
}

impl Installer {
    /// The directories of what it fetches, from the worker's on; it notes in the first of them how far it is. None of them is a source.
    pub const fn makes(self) -> &'static [&'static str] {
        match self {
            Self::JavaScript { .. } => &["node_modules"],
            Self::Deno => &["node_modules", "vendor"],
            Self::Pip => &[".venv"],
            Self::Composer => &["vendor"],
        }
    }

    /// The files that say what is to be fetched: where none of them is, nothing is.
    pub const fn reads(self) -> &'static [&'static str] {
        match self {
            Self::JavaScript { .. } => &["package.json"],
            Self::Deno => &["deno.json", "deno.jsonc", "package.json"],
            Self::Pip => &["requirements.txt"],
            Self::Composer => &["composer.json", "composer.lock"],
        }
    }
}
