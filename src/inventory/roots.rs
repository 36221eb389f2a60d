//! Where workers are looked for: several directories, of which an earlier one hides the names of a later one.

use std::io;
use std::path::{Path, PathBuf};

use super::kind::Listing;
use crate::config::Settings;
use crate::names::WorkerName;

/// A directory of workers could not be read, or none is there. This is not the same as "no workers": nothing may be stopped because
/// of it.
#[derive(Debug, thiserror::Error)]
#[error("read the directory of workers {}", quoted(directories))]
pub struct ScanError {
    /// The directory, or all if none is there.
    pub directories: Vec<PathBuf>,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// The directories of workers that are there, in their order, and what is in them. One that is not there is no error as long as
/// another is: packages bring the second of them only with the first worker. Where there is no configuration none need be there.
pub(super) fn roots(settings: &Settings) -> Result<Vec<(&Path, Listing)>, ScanError> {
    let directories = &settings.workers_directories;
    let mut roots = Vec::new();
    let mut missing = None;
    for directory in directories {
        match Listing::of(directory) {
            Ok(listing) => roots.push((directory.as_path(), listing)),
            Err(error) if is_missing(directory, &error) => missing = Some(error),
            Err(source) => {
                return Err(ScanError {
                    directories: vec![directory.clone()],
                    source,
                });
            }
        }
    }
    match missing {
        Some(source) if roots.is_empty() && !settings.unwritten => Err(ScanError {
            directories: directories.clone(),
            source,
        }),
        _ => Ok(roots),
    }
}

/// Where the directory of the worker `name` is: in the first directory of workers that has it, else where it would be in the first of
/// all.
pub fn directory_of(settings: &Settings, name: &WorkerName) -> PathBuf {
    let relative = name.directory();
    let directories = &settings.workers_directories;
    let place = directories
        .iter()
        .find(|root| root.join(&relative).is_dir())
        .or(directories.first());
    place.map_or(relative.clone(), |root| root.join(&relative))
}

/// A link that leads nowhere is there: what it leads to may be on a disk that is not mounted.
fn is_missing(directory: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound && directory.symlink_metadata().is_err()
}

fn quoted(directories: &[PathBuf]) -> String {
    let quoted: Vec<String> = directories
        .iter()
        .map(|directory| format!("'{}'", directory.display()))
        .collect();
    quoted.join(", ")
}
