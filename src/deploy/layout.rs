//! Where things lie in the store, what their names mean, and who may look in.
//!
//! ```text
//! STATE/.snapshots/           0700
//! STATE/.snapshots/NAME/GEN/       the files of the worker; those of its public/ are links to the first of its assets
//! STATE/.snapshots/NAME/GEN.json   what they were made of: the manifest
//! STATE/.snapshots/NAME/.gone      its time says since when the worker is gone
//! STATE/.public/              0750, of the proxy's group; 0700 without one
//! STATE/.public/NAME/GEN-K/        its public/, K growing as assets are deployed without a new program
//! .../NAME/.new-*                  being made; removed by the next prune if nobody finished it
//! ```
//!
//! What is inside may be read by everybody, and the two directories at the top say who gets there: a worker has a user of its own, who
//! is not known before it runs, and sees its files through a mount that systemd makes. No worker's name starts with a dot, so the
//! workers' own directories lie beside these two.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, fchmod, fchown, fstat, openat};

use super::failure::SnapshotError;
use crate::names::{Generation, Instance, WorkerName};

/// The start of the name of something that is being made.
const NEW: &str = ".new-";

/// Below the state directory: the programs of all snapshots.
pub const SNAPSHOTS: &str = ".snapshots";
/// Below the state directory: their assets, which the proxy reads.
pub const PUBLIC: &str = ".public";

/// The two directories everything is in.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) programs: PathBuf,
    pub(super) public: PathBuf,
}

impl Layout {
    /// Makes the directories, or gives them the modes they should have.
    pub(super) fn make(state: &Path, group: Option<u32>) -> Result<Self, SnapshotError> {
        // A file system that is frozen does not even say that a directory is there already.
        if !state.is_dir() {
            let made = fs::DirBuilder::new()
                // It names the workers, and each of them comes through it to its own.
                .mode(0o711)
                .recursive(true)
                .create(state);
            made.map_err(|source| failed("create", state, source))?;
        }
        let layout = Self {
            programs: state.join(SNAPSHOTS),
            public: state.join(PUBLIC),
        };
        make_directory(&layout.programs, 0o700, None)?;
        let mode = if group.is_some() { 0o750 } else { 0o700 };
        make_directory(&layout.public, mode, group)?;
        Ok(layout)
    }

    /// The directory of a worker's programs.
    pub(super) fn programs_of(&self, worker: &WorkerName) -> PathBuf {
        self.programs.join(worker.as_str())
    }

    /// The note that a worker is gone.
    pub(super) fn gone(&self, worker: &WorkerName) -> PathBuf {
        self.programs_of(worker).join(".gone")
    }

    /// The directory of a worker's assets.
    pub(super) fn public_of(&self, worker: &WorkerName) -> PathBuf {
        self.public.join(worker.as_str())
    }

    pub(super) fn files(&self, instance: &Instance) -> PathBuf {
        self.programs.join(instance.snapshot())
    }

    pub(super) fn manifest(&self, instance: &Instance) -> PathBuf {
        self.programs_of(&instance.worker)
            .join(manifest_name(instance.generation))
    }

    pub(super) fn assets(&self, instance: &Instance, number: u64) -> PathBuf {
        self.public_of(&instance.worker)
            .join(assets_name(instance.generation, number))
    }
}

/// What a name in one of the two directories of a worker means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Files(Generation),
    Manifest(Generation),
    Assets(Generation, u64),
    New,
}

impl Entry {
    pub(super) fn of(name: &str) -> Option<Self> {
        if name.starts_with(NEW) {
            return Some(Self::New);
        }
        if let Some(generation) = name.strip_suffix(".json") {
            return Some(Self::Manifest(Generation(number(generation)?)));
        }
        Some(match name.split_once('-') {
            Some((generation, k)) => Self::Assets(Generation(number(generation)?), number(k)?),
            None => Self::Files(Generation(number(name)?)),
        })
    }
}

/// A number the way we write it: `7`, but not `+7` or `07`, which would be another file.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn manifest_name(generation: Generation) -> String {
    format!("{generation}.json")
}

fn assets_name(generation: Generation, number: u64) -> String {
    format!("{generation}-{number}")
}

/// Where something is made that takes the place `path` when it is whole.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{NEW}{name}"))
}

/// Makes a directory, or gives one that is there the mode, and the group if there is one to give. The umask has no say.
pub(super) fn make_directory(
    path: &Path,
    mode: u32,
    group: Option<u32>,
) -> Result<(), SnapshotError> {
    if path.symlink_metadata().is_err() {
        match fs::DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("create", path, error));
            }
            _ => {}
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, path, flags, Mode::empty());
    let opened = opened.map_err(|errno| failed("open", path, errno.into()))?;
    let found = fstat(&opened).map_err(|errno| failed("examine", path, errno.into()))?;
    if found.st_uid != rustix::process::geteuid().as_raw() {
        let whose = format!(
            "it belongs to user {}, who could change what workers run; remove it, or move it away",
            found.st_uid
        );
        return Err(failed("use", path, io::Error::other(whose)));
    }
    if let Some(group) = group.filter(|group| *group != found.st_gid) {
        // The owner of a file may do that for a group of its own; no capability is needed.
        fchown(&opened, None, Some(Gid::from_raw(group)))
            .map_err(|errno| failed("give to the proxy's group", path, errno.into()))?;
    }
    if found.st_mode & 0o7777 != mode {
        fchmod(&opened, Mode::from_raw_mode(mode))
            .map_err(|errno| failed("set the mode of", path, errno.into()))?;
    }
    Ok(())
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::io(what, path, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_were_written_as_and_others_mean_nothing() {
        let seven = Generation(7);
        assert_eq!(Entry::of(&seven.to_string()), Some(Entry::Files(seven)));
        assert_eq!(
            Entry::of(&manifest_name(seven)),
            Some(Entry::Manifest(seven))
        );
        assert_eq!(
            Entry::of(&assets_name(seven, 2)),
            Some(Entry::Assets(seven, 2))
        );
        assert_eq!(Entry::of(".new-7.json"), Some(Entry::New));
        for other in ["", "07", "+7", "7-", "7-02", "7.json.bak", "lost+found"] {
            assert_eq!(Entry::of(other), None, "{other}");
        }
    }
}
