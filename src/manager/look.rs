//! What lies on disk and what runs, in the plan's words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pair;
use crate::builder;
use crate::config::{Mode, Problems, Settings, WorkerType};
use crate::deploy::snapshot::{Manifest, Store};
use crate::inventory::{self, Status};
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::{Found, Policy, Reason, Spec};
use crate::route::Address;
use crate::systemd::Loaded;

/// What is written into a generation's units for the next manager.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) spec: Spec,
    pub(super) address: Address,
    pub(super) public: Option<PathBuf>,
}

/// The server's settings and the workers as they lie on disk at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) settings: Settings,
    pub(super) workers: BTreeMap<WorkerName, Result<Spec, Reason>>,
}

/// Why nothing could be seen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LookError {
    /// server.yaml is wrong.
    #[error("{0}")]
    Settings(Problems),
    /// The workers' directory can not be read.
    #[error("{0}")]
    Workers(String),
}

/// Reads server.yaml (or keeps the defaults where there is none) and the workers' directories; `port` goes over the file's, and `held`
/// are the routes that are served. Blocks on the disk.
pub(super) fn look(
    settings: &Settings,
    mode: Mode,
    port: Option<u16>,
    held: &BTreeMap<String, WorkerName>,
) -> Result<Sight, LookError> {
    let mut settings = if settings.file.exists() {
        Settings::load(&settings.file).map_err(LookError::Settings)?
    } else {
        settings.clone()
    };
    if let Some(port) = port {
        settings.front.listen_on(port);
    }
    let inventory = inventory::scan_beside(&settings, mode, held)
        .map_err(|error| LookError::Workers(format!("{error}: {}", error.source)))?;
    for stray in &inventory.strays {
        tracing::warn!(
            "{} is left out: {}",
            stray.directory.display(),
            stray.reason
        );
    }
    let workers = inventory.workers.into_iter().filter_map(|(name, found)| {
        let spec = match found.status {
            Status::Disabled => return None,
            Status::Refused(problems) => Err(Reason::Unusable(problems.to_string())),
            Status::Enabled(worker) => Ok(Spec {
                fingerprint: found
                    .fingerprint
                    .with_secrets(&pair::credential_files(&settings.file, &worker)),
                settings: *worker,
                directory: found.directory,
                public: found.public,
                nested: found.nested,
            }),
        };
        Some((name, spec))
    });
    let workers = workers.collect();
    Ok(Sight { settings, workers })
}

/// Accepted snapshots, the newest of each worker, with what they were made of.
pub(super) fn snapshots(store: &Store, sight: &Sight) -> BTreeMap<WorkerName, (Generation, Spec)> {
    let newest = |name: &WorkerName| {
        store
            .generations(name)
            .into_iter()
            .rev()
            .find_map(|generation| {
                let instance = Instance::new(name.clone(), generation);
                let manifest = store.manifest(&instance).ok().flatten()?;
                Some((
                    generation,
                    spec_of(
                        manifest,
                        store.latest_assets(&instance).is_some(),
                        sight,
                        name,
                    ),
                ))
            })
    };
    store
        .workers()
        .into_iter()
        .filter_map(|name| newest(&name).map(|found| (name, found)))
        .collect()
}

fn spec_of(manifest: Manifest, has_assets: bool, sight: &Sight, name: &WorkerName) -> Spec {
    let directory = sight.settings.workers_directory.join(name.directory());
    Spec {
        settings: manifest.settings,
        fingerprint: inventory::Fingerprint {
            program: manifest.program,
            assets: manifest.assets,
            config: manifest.config,
        },
        public: has_assets.then(|| directory.join("public")),
        nested: Vec::new(),
        directory,
    }
}

/// Generations found in systemd, in the plan's words; one whose record can not be read is not ours.
pub(super) fn adopted(loaded: Vec<Loaded>, store: Option<&Store>) -> Vec<Found> {
    loaded
        .into_iter()
        .filter_map(|unit| found(unit, store))
        .collect()
}

fn found(unit: Loaded, store: Option<&Store>) -> Option<Found> {
    let mut record: Record = match serde_json::from_str(&unit.record) {
        Ok(record) => record,
        Err(error) => {
            tracing::warn!(
                "{} was made by another version of TQServer and is left alone ({error}); stop it when it is not needed any more",
                unit.instance.service_unit()
            );
            return None;
        }
    };
    // Assets may have been replaced since the units were made.
    if let Some(store) = store
        && let Ok(Some(manifest)) = store.manifest(&unit.instance)
    {
        record.spec.fingerprint.assets = manifest.assets;
        record.public = store.latest_assets(&unit.instance);
    }
    let listening = match record.address {
        Address::Unix(_) => unit.listening == Some(true),
        Address::Tcp(_) => unit.service.activity != crate::systemd::Activity::Failed,
    };
    Some(Found {
        instance: unit.instance,
        spec: record.spec,
        address: record.address,
        public: record.public,
        accepted: unit.accepted,
        listening,
        service: unit.service,
    })
}

/// The directory of a generation that is of none of our workers, if there is one.
pub(super) fn foreign(found: &[Found], settings: &Settings) -> Option<PathBuf> {
    let ours = |found: &&Found| {
        found
            .spec
            .directory
            .starts_with(&settings.workers_directory)
    };
    found
        .iter()
        .find(|found| !ours(found))
        .map(|found| found.spec.directory.clone())
}

/// What the fleet goes by, from the settings.
pub(super) fn policy(settings: &Settings, mode: Mode, runtime_directory: &Path) -> Policy {
    Policy {
        front: settings.front.clone(),
        grace: settings.shutdown_grace,
        startup_delay: settings.startup_delay,
        restart_delay: settings.restart_delay,
        ports: settings.ports.clone(),
        build: mode == Mode::Development,
        sockets: runtime_directory.to_owned(),
    }
}

/// The program a generation runs.
pub(super) fn command(spec: &Spec, files: &Path, mode: Mode) -> Result<Vec<String>, Reason> {
    if spec.settings.kind == WorkerType::Static {
        return Ok(Vec::new());
    }
    builder::run_command(&spec.settings, files, mode)
        .map_err(|error| Reason::Unusable(error.to_string()))
}
