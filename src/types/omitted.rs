//! What no snapshot has, of whatever type its worker is: the one list of it. What a type leaves out besides is its `omits`.
//!
//! All else is copied, hidden directories too: they may be what a build has made (`.next`, `.output`), or what it needs (`.yarn`).

use std::ffi::OsStr;

/// What a worker keeps in development: at the top of its directory, also where that is a part of another worker's.
pub const DATA: &str = "data";

/// By name, on any level.
const NAMES: [&str; 28] = [
    // Version control.
    ".git",
    ".hg",
    ".jj",
    ".svn",
    // What editors keep.
    ".idea",
    ".vs",
    ".vscode",
    ".zed",
    // What is no program's, where it is somebody's home.
    ".gnupg",
    ".npm",
    ".ssh",
    // What programs, builds and tests can make again.
    "__pycache__",
    ".angular",
    ".cache",
    ".direnv",
    ".gradle",
    ".hypothesis",
    ".ipynb_checkpoints",
    ".mypy_cache",
    ".nox",
    ".nyc_output",
    ".parcel-cache",
    ".phpunit.cache",
    ".pnpm-store",
    ".pytest_cache",
    ".ruff_cache",
    ".tox",
    ".turbo",
];

/// Whether no snapshot has what is called `name`; `beside` says whether there is something at a path from the directory it is in.
pub fn is_omitted(name: &OsStr, beside: impl Fn(&str) -> bool) -> bool {
    match name.to_str() {
        Some(name) if NAMES.contains(&name) => true,
        // Other tools keep there what is to run.
        Some("target") => beside("Cargo.toml"),
        Some(DATA) => beside("config/worker.yaml"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_anything_is_known_by_what_lies_beside_it() {
        let beside = |name: &str, is_there: &str| {
            let there = |path: &str| path == is_there;
            is_omitted(OsStr::new(name), there)
        };
        assert!(beside("target", "Cargo.toml") && !beside("target", "pom.xml"));
        assert!(beside("data", "config/worker.yaml") && !beside("data", "package.json"));
        assert!(beside(".git", "") && !beside(".next", "") && !beside(".env", ""));
    }
}
