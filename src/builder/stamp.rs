//! Whether a directory of fetched code is complete, and of what it was fetched: a file in it, which goes when it goes.
//!
//! The times of files do not tell: a directory is new as soon as the first package is in it, and git gives old files new times.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fnv::Fnv;

/// The file, in the directory of what was fetched.
const STAMP: &str = ".tqserver-build";
/// Its first line once all is there ...
const COMPLETE: &str = "complete";
/// ... and before.
const BEGUN: &str = "begun";
/// As much is read of a file that something is made of, and of a stamp; a large lock file has some MiB.
const MOST: u64 = 64 << 20;
/// The part of an [`Origin`] that says how.
const COMMAND: &str = "(command)";
/// The part of an [`Origin`] that says where.
const PLACE: &str = "(place)";

/// What something is made of, and how: each part by its name, with a hash of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin(BTreeMap<String, String>);

/// How far what lies in a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// All is there, and of the same origin.
    Complete,
    /// Nobody knows, or it is of another origin.
    Other,
    /// All is there, and it was made for another directory.
    Moved,
    /// What made it was killed.
    Unfinished,
}

impl Origin {
    /// Made by this command.
    pub(super) fn of_command(command: &[String]) -> Self {
        let words = command.iter();
        let hash = words.fold(Fnv::new(), |hash, word| {
            hash.with(word.as_bytes()).with(&[0])
        });
        Self(BTreeMap::from([(COMMAND.to_owned(), hash.to_string())]))
    }

    /// Good for this directory alone.
    pub(super) fn at(mut self, directory: &Path) -> Self {
        let place = directory.canonicalize();
        let place = place.unwrap_or_else(|_| directory.to_owned());
        let hash = Fnv::new().with(place.as_os_str().as_bytes());
        self.0.insert(PLACE.to_owned(), hash.to_string());
        self
    }

    /// Made of this text.
    pub(super) fn text(&mut self, name: &str, text: &[u8]) {
        let hash = Fnv::new().with(text);
        self.0.insert(name.to_owned(), hash.to_string());
    }

    /// Made of the file `name` in `directory`, if it is there.
    pub(super) fn file(&mut self, directory: &Path, name: &str) {
        match read(&directory.join(name)) {
            Ok(text) => self.text(name, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // What reads it next says so.
            Err(error) => self.text(name, error.to_string().as_bytes()),
        }
    }

    /// Whether all files that were there before are the same.
    pub(super) fn has_all_of(&self, before: &Self) -> bool {
        let mut parts = before.0.iter().filter(|(name, _)| *name != COMMAND);
        parts.all(|(name, hash)| self.0.get(name) == Some(hash))
    }

    fn is_moved(&self, other: &Self) -> bool {
        let but_place = |origin: &Self| {
            let parts = origin.0.iter().filter(|(name, _)| *name != PLACE);
            parts
                .map(|(name, hash)| (name.clone(), hash.clone()))
                .collect::<Vec<_>>()
        };
        self != other && but_place(self) == but_place(other)
    }
}

/// How far what lies in `directory` is, if it is to be of `wanted`.
pub(super) fn state(directory: &Path, wanted: &Origin) -> State {
    let Some(text) = text(directory) else {
        return State::Other;
    };
    let mut lines = text.lines();
    if lines.next() != Some(COMPLETE) {
        return State::Unfinished;
    }
    let parts = lines.filter_map(|line| line.rsplit_once(' '));
    let origin = Origin(
        parts
            .map(|(name, hash)| (name.to_owned(), hash.to_owned()))
            .collect(),
    );
    match origin == *wanted {
        true => State::Complete,
        false if wanted.is_moved(&origin) => State::Moved,
        false => State::Other,
    }
}

/// What the stamp in `directory` says, if there is one.
pub(super) fn text(directory: &Path) -> Option<String> {
    let text = read(&directory.join(STAMP)).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Notes that something is being put into `directory`.
pub(super) fn begin(directory: &Path) -> io::Result<()> {
    write(directory, Some(&format!("{BEGUN}\n")))
}

/// Notes that all of `origin` is in `directory`.
pub(super) fn complete(directory: &Path, origin: &Origin) -> io::Result<()> {
    let parts = origin.0.iter();
    let parts: String = parts
        .map(|(name, hash)| format!("{name} {hash}\n"))
        .collect();
    write(directory, Some(&format!("{COMPLETE}\n{parts}")))
}

/// Puts back what the stamp said.
pub(super) fn write(directory: &Path, text: Option<&str>) -> io::Result<()> {
    let path = path(directory);
    match text {
        Some(text) => fs::write(path, text),
        None => fs::remove_file(path),
    }
}

/// Where the stamp of what is in `directory` is.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(STAMP)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}
