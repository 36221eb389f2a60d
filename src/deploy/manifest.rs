//! The manifest: what a snapshot was made of. A snapshot that has one was accepted, and can be started from after a power cut.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::failure::SnapshotError;
use super::layout::{self, make_directory};
use super::modes::DIRECTORY_MODE;
use super::store::Store;
use crate::config::WorkerSettings;
use crate::inventory::Fingerprint;
use crate::names::Instance;

/// What a snapshot was made of. Kept beside it, so that a manager that has just started can tell whether anything changed since.
///
/// Other versions of TQServer read it: a new field has a default, and one that is not known is passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Fingerprint of the worker's files.
    pub program: String,
    /// Fingerprint of `public/`.
    pub assets: String,
    /// Fingerprint of the worker's configuration.
    pub config: String,
    /// The settings the generation was accepted with.
    pub settings: WorkerSettings,
    /// Fingerprint of the worker's own configuration file.
    #[serde(default)]
    pub file: String,
    /// What lay in the worker's directory when it was rolled back to this generation: no reload is to take that.
    #[serde(default)]
    pub passed_over: Option<Fingerprint>,
}

impl Manifest {
    /// Whether both are of the same files and configuration: one generation follows the other because that ended, not because anything
    /// was deployed.
    pub(super) fn is_of_the_same(&self, other: &Self) -> bool {
        let made_of = |manifest: &Self| {
            let Self {
                program,
                assets,
                config,
                ..
            } = manifest;
            [program, assets, config].map(String::clone)
        };
        made_of(self) == made_of(other)
    }
}

impl Store {
    /// The manifest of a generation, if it has one.
    ///
    /// # Errors
    /// When it is there and can not be read.
    pub fn manifest(&self, instance: &Instance) -> Result<Option<Manifest>, SnapshotError> {
        let path = self.layout.manifest(instance);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| SnapshotError::Manifest { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SnapshotError::io("read", &path, error)),
        }
    }

    /// Takes back that a generation was accepted.
    ///
    /// # Errors
    /// When its manifest can not be removed; there need not be one.
    pub fn withdraw_manifest(&self, instance: &Instance) -> Result<(), SnapshotError> {
        let path = self.layout.manifest(instance);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SnapshotError::io("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Writes the manifest of a generation, whole or not at all. When this returns, a power cut takes neither it nor the files of the
    /// snapshot: all of the file system is written to disk first, in one call, for a snapshot may have thousands of files.
    ///
    /// # Errors
    /// When it, or the files, can not be written; the one before it stays then.
    pub fn write_manifest(
        &self,
        instance: &Instance,
        manifest: &Manifest,
    ) -> Result<(), SnapshotError> {
        self.put_manifest(instance, manifest)?;
        self.finished().inspect_err(|_| {
            // What nobody waited for was not accepted.
            let _ = self.withdraw_manifest(instance);
        })
    }

    /// The same, but that it counts only once the work is finished.
    pub(super) fn put_manifest(
        &self,
        instance: &Instance,
        manifest: &Manifest,
    ) -> Result<(), SnapshotError> {
        let directory = self.layout.programs_of(&instance.worker);
        let path = self.layout.manifest(instance);
        let new = layout::unfinished(&path);
        let failed = |what, at: &Path, error| self.io_failed(what, at, error);
        make_directory(&directory, DIRECTORY_MODE, None)?;
        let fill = || {
            let mut bytes = serde_json::to_vec_pretty(manifest)?;
            bytes.push(b'\n');
            fs::File::create(&new)?.write_all(&bytes)
        };
        let all = || {
            fill().map_err(|error| failed("write", &path, error))?;
            let opened =
                fs::File::open(&directory).map_err(|error| failed("open", &directory, error))?;
            // Without it a power cut could leave an accepted snapshot with empty files.
            rustix::fs::syncfs(&opened).map_err(|errno| {
                failed("write to disk the file system of", &directory, errno.into())
            })?;
            fs::rename(&new, &path).map_err(|error| failed("write", &path, error))?;
            opened
                .sync_all()
                .map_err(|error| failed("write to disk", &directory, error))
        };
        all().inspect_err(|_| {
            // What is wrong has been found; a second failure adds nothing.
            let _ = fs::remove_file(&new);
        })
    }
}
