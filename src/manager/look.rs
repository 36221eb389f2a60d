//! What lies on disk and what runs, in the plan's words.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::users::Users;
use super::{certificates, pair};
use crate::builder;
use crate::config::{Files, Instead, Mode, Problems, Settings, WorkerType};
use crate::deploy::{Accepted, Manifest, Store};
use crate::ignored::{self, Developed};
use crate::inventory::{self, Status};
use crate::names::{Generation, Instance, Pair, WorkerName};
use crate::plan::{Forbidden, Found, FoundPair, Policy, Reason, Ruling, Spec};
use crate::route::{Address, Claim, Development};
use crate::systemd::{Kind, Loaded};
use crate::watcher::Watched;

/// Accepted generations and what they were made of.
pub(super) type Snapshots = BTreeMap<WorkerName, (Generation, Spec)>;

/// What is written into a generation's units for the next manager.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) spec: Spec,
    pub(super) address: Address,
    pub(super) public: Option<PathBuf>,
    /// The user it runs as, if it gets one of its own.
    #[serde(default)]
    pub(super) user: Option<String>,
}

/// The server's settings and the workers as they lie on disk at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) settings: Settings,
    pub(super) workers: BTreeMap<WorkerName, Result<Spec, Reason>>,
    /// What is wrong with server.yaml, if it was passed over.
    pub(super) wrong: Option<Problems>,
    /// The workers that nobody but the administrator can have written.
    administrators: BTreeSet<WorkerName>,
    /// By what it is known which files count in development.
    developed: Vec<Developed>,
    /// Directories that could not be looked into, and why: what is known to be in them is not gone.
    out_of_reach: Vec<(PathBuf, String)>,
    /// Workers that have snapshots and no directory any more, with their newest generation.
    pub(super) gone: Vec<Instance>,
    /// Workers that were noted as gone, and are there.
    pub(super) back: Vec<WorkerName>,
    /// Where each worker lies, the disabled ones too.
    directories: BTreeMap<WorkerName, PathBuf>,
    /// What was accepted, if it was asked for.
    pub(super) recalled: Option<Box<Recalled>>,
    /// What one worker can go back to, if it was asked for.
    pub(super) history: Option<Vec<Accepted>>,
}

/// What is to be read of the snapshots, beside the workers' directories.
pub(super) struct Recall {
    /// What every worker starts with.
    pub(super) all: bool,
    /// What this one can go back to.
    pub(super) of: Option<WorkerName>,
}

/// What the snapshots say.
#[derive(Clone, Debug)]
pub(super) struct Recalled {
    /// The newest accepted ones.
    pub(super) accepted: Snapshots,
    /// Whether nothing at all was ever accepted.
    pub(super) is_fresh: bool,
    /// All, by worker.
    pub(super) generations: BTreeMap<WorkerName, Vec<Generation>>,
}

impl Sight {
    /// Adds those of the workers in `known`, by directory, that may well be where it could not be looked: nothing is stopped for that.
    pub(super) fn add_out_of_reach<'a>(
        &mut self,
        known: impl Iterator<Item = (&'a WorkerName, &'a Path)>,
    ) {
        for (name, directory) in known {
            let found = self
                .out_of_reach
                .iter()
                .find(|(place, _)| directory.starts_with(place));
            if let Some((_, reason)) = found {
                let unusable = || Err(Reason::Unusable(reason.clone()));
                self.workers.entry(name.clone()).or_insert_with(unusable);
            }
        }
    }
}

impl Sight {
    /// Adds what the snapshots say. Blocks on the disk.
    pub(super) fn recall(&mut self, store: &Store, what: &Recall) {
        for worker in store.workers() {
            if self.directories.contains_key(&worker) {
                if store.is_gone(&worker) {
                    self.back.push(worker);
                }
            } else if !self.may_be_out_of_reach(&worker) {
                let newest = store.generations(&worker).into_iter().max();
                let newest = newest.unwrap_or(Generation(0));
                self.gone.push(Instance::new(worker, newest));
            }
        }
        if what.all {
            let (accepted, is_fresh) = snapshots(store, self);
            let generations = store.workers().into_iter().map(|worker| {
                let generations = store.generations(&worker);
                (worker, generations)
            });
            self.recalled = Some(Box::new(Recalled {
                accepted,
                is_fresh,
                generations: generations.collect(),
            }));
        }
        if let Some(worker) = &what.of {
            self.history = Some(store.history(worker));
        }
    }

    /// Whether this worker may well be where it could not be looked: then it is not gone.
    fn may_be_out_of_reach(&self, worker: &WorkerName) -> bool {
        let roots = self.settings.workers_directories.iter();
        roots.map(|root| root.join(worker.directory())).any(|its| {
            let mut places = self.out_of_reach.iter();
            places.any(|(place, _)| its.starts_with(place))
        })
    }

    /// Whether the directory of this worker is below `directory`.
    pub(super) fn lies_below(&self, worker: &WorkerName, directory: &Path) -> bool {
        let its = self.directories.get(worker);
        its.is_some_and(|its| its.starts_with(directory))
    }

    /// The files whose events are worth another look.
    pub(super) fn watched(&self) -> Watched {
        let settings = &self.settings;
        let specs = self.workers.values().flatten();
        let secrets = specs.flat_map(|spec| pair::credential_files(&settings.file, &spec.settings));
        let absolute = std::path::absolute(&settings.file);
        let mut files = vec![absolute.unwrap_or_else(|_| settings.file.clone())];
        files.extend(secrets);
        files.extend(certificates::files(settings).map(Path::to_owned));
        // What lies above the workers can say which of their files count.
        let workers = settings.workers_directories.iter();
        files.extend(workers.flat_map(|workers| ignored::above(workers)));
        Watched {
            directories: settings.workers_directories.clone(),
            files,
            workers: self.developed.clone(),
            debounce: settings.debounce,
            poll: settings.poll,
        }
    }
}

impl Sight {
    /// What server.yaml does not allow of what runs, and of what is about to.
    pub(super) fn ruling<'a>(
        &self,
        runs: impl Iterator<Item = (&'a Instance, &'a Spec)>,
        others: impl Iterator<Item = &'a Spec>,
        reloads: Vec<u64>,
    ) -> Ruling {
        let mut ruling = Ruling {
            reloads,
            ..Ruling::default()
        };
        let mut specs: Vec<&Spec> = others.collect();
        for (instance, spec) in runs {
            let of = &spec.settings;
            let (limits, words) = self.settings.lowered(&of.route, &of.limits);
            if !words.is_empty() {
                ruling.limits.push((instance.clone(), limits, words));
            }
            specs.push(spec);
        }
        for spec in specs {
            if let Some(forbidden) = self.forbidden(spec) {
                let places = ruling.forbidden.entry(spec.settings.name.clone());
                places.or_default().push(forbidden);
            }
        }
        ruling
    }

    /// Why its worker may not be where it wants to be.
    pub(super) fn forbidden(&self, spec: &Spec) -> Option<Forbidden> {
        let of = &spec.settings;
        let refused = match self.administrators.contains(&of.name) {
            true => self
                .settings
                .grants
                .refused_to_administrators(&of.name, &of.hosts)?,
            false => {
                let all = self.workers.keys();
                self.settings
                    .grants
                    .refused(&of.name, &of.route, &of.hosts, all)?
            }
        };
        let server = self.settings.file.display();
        let why = format!(
            "{refused}; if it is to have that, add to {server}: {}",
            refused.cure
        );
        Some((of.route.clone(), of.hosts.clone(), why))
    }
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

/// Reads server.yaml (or keeps the settings of `before` where there is none) and the workers' directories; `instead` goes over what the file says, and `held`
/// are the routes that are served. What nobody has asked for goes on with the settings there are when server.yaml is wrong: `strict` is
/// for the others. Blocks on the disk.
pub(super) fn look(
    before: &Settings,
    mode: Mode,
    instead: Instead,
    held: &BTreeMap<Claim, WorkerName>,
    files: &Files,
    strict: bool,
) -> Result<Sight, LookError> {
    let mut wrong = None;
    let mut settings = if before.file.exists() {
        match Settings::load(&before.file) {
            Ok(settings) => settings,
            Err(problems) if strict => return Err(LookError::Settings(problems)),
            Err(problems) => {
                wrong = Some(problems);
                before.clone()
            }
        }
    } else {
        before.clone()
    };
    instead.apply(&mut settings);
    let before = before.front.tls.as_ref();
    match certificates::load(&mut settings) {
        Ok(()) => {}
        Err(problems) if strict => return Err(LookError::Settings(problems)),
        Err(problems) => {
            // Those there are serve on.
            if let (Some(tls), Some(before)) = (&mut settings.front.tls, before) {
                tls.pairs.clone_from(&before.pairs);
            }
            wrong
                .get_or_insert_with(Problems::default)
                .0
                .extend(problems.0);
        }
    }
    let inventory = inventory::scan_beside(&settings, mode, held, files)
        .map_err(|error| LookError::Workers(format!("{error}: {}", error.source)))?;
    for hidden in &inventory.hidden {
        tracing::debug!(
            "{} is hidden by a worker of the same name in an earlier directory of workers",
            hidden.display()
        );
    }
    let developed = inventory.developed();
    let directories = inventory.workers.iter();
    let directories = directories.map(|(name, found)| (name.clone(), found.directory.clone()));
    let directories = directories.collect();
    let written = inventory.workers.values();
    let written = written.filter(|found| found.is_administrators);
    let administrators = written.map(|found| found.name.clone()).collect();
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
                passed_over: None,
            }),
        };
        Some((name, spec))
    });
    let workers = workers.collect();
    let strays = inventory.strays.into_iter();
    let strays = strays.map(|stray| {
        let reason = format!(
            "{} is left out: {}",
            stray.directory.display(),
            stray.reason
        );
        tracing::warn!("{reason}");
        (stray.directory, reason)
    });
    let missing = settings.workers_directories.iter();
    let missing = missing.filter(|directory| !directory.exists());
    let missing = missing.map(|directory| {
        let reason = format!(
            "the directory of workers {} is gone; put it back, empty if its workers are to go",
            directory.display()
        );
        (directory.clone(), reason)
    });
    let out_of_reach = strays.chain(missing).collect();
    Ok(Sight {
        settings,
        workers,
        wrong,
        administrators,
        developed,
        out_of_reach,
        gone: Vec::new(),
        back: Vec::new(),
        directories,
        recalled: None,
        history: None,
    })
}

/// Accepted snapshots, the newest of each worker, with what they were made of; and whether nothing at all was ever accepted.
fn snapshots(store: &Store, sight: &Sight) -> (Snapshots, bool) {
    let (newest, problems) = store.newest_accepted();
    let is_fresh = newest.is_empty() && problems.is_empty();
    for problem in problems {
        tracing::warn!(
            "{}; the snapshot before it is used, if there is one",
            super::explain(&problem)
        );
    }
    let found = newest.into_iter().map(|(name, accepted)| {
        let spec = spec_of(accepted.manifest, accepted.assets.is_some(), sight, &name);
        (name, (accepted.generation, spec))
    });
    (found.collect(), is_fresh)
}

/// The accepted generation to go back to: `wanted`, or else the newest before the one that serves, with what it was made of.
pub(super) fn to_roll_back_to(
    accepted: &[Accepted],
    sight: &Sight,
    worker: &WorkerName,
    serving: Option<Generation>,
    wanted: Option<Generation>,
) -> Result<(Generation, Spec), String> {
    let Some(on_disk) = sight.workers.get(worker) else {
        return Err(format!("there is no worker '{worker}'"));
    };
    let kept = || {
        let others = accepted.iter().map(|kept| kept.generation);
        let others = others.filter(|other| Some(*other) != serving);
        let numbers: Vec<String> = others.map(|number| number.to_string()).collect();
        match numbers.is_empty() {
            true => "no other that was accepted is kept".to_owned(),
            false => format!("accepted and kept: {}", numbers.join(", ")),
        }
    };
    let previous = || match serving {
        Some(serving) => Accepted::previous(accepted, serving),
        None => accepted.first(),
    };
    let numbered = |wanted| accepted.iter().find(|kept| kept.generation == wanted);
    let found = match wanted {
        Some(wanted) if Some(wanted) == serving => Err(format!(
            "generation {wanted} of '{worker}' serves already; {}",
            kept()
        )),
        Some(wanted) => numbered(wanted).ok_or_else(|| {
            format!(
                "there is no generation {wanted} of '{worker}' to go back to; {}",
                kept()
            )
        }),
        None => previous().ok_or_else(|| {
            format!(
                "there is nothing different to go back to of '{worker}'; {}",
                kept()
            )
        }),
    }?;
    let generation = found.generation;
    let mut spec = spec_of(
        found.manifest.clone(),
        found.assets.is_some(),
        sight,
        worker,
    );
    // Whoever rolls back does not want the next reload to bring back what lies there now.
    spec.passed_over = match on_disk {
        Ok(disk) if !disk.fingerprint.is_of_the_same_files(&spec.fingerprint) => {
            Some(disk.fingerprint.clone())
        }
        _ => None,
    };
    Ok((generation, spec))
}

fn spec_of(manifest: Manifest, has_assets: bool, sight: &Sight, name: &WorkerName) -> Spec {
    let directory = inventory::directory_of(&sight.settings, name);
    Spec {
        settings: manifest.settings,
        fingerprint: inventory::Fingerprint {
            program: manifest.program,
            assets: manifest.assets,
            config: manifest.config,
            file: manifest.file,
            ..inventory::Fingerprint::default()
        },
        public: has_assets.then(|| directory.join("public")),
        nested: Vec::new(),
        passed_over: manifest.passed_over,
        directory,
    }
}

/// Generations found in systemd, in the plan's words, and those of which a record can not be read: of another version of this program,
/// whose workers serve until ours do.
pub(super) fn adopted(
    loaded: Vec<Loaded>,
    store: Option<&Store>,
) -> (Vec<Found>, Vec<Pair>, Users) {
    let mut users = Users::default();
    let mut ours: BTreeMap<Instance, BTreeMap<u8, (Loaded, Record)>> = BTreeMap::new();
    let mut strangers = Vec::new();
    for unit in loaded {
        match serde_json::from_str::<Record>(&unit.record) {
            Ok(record) => {
                users.found(&unit.pair.instance, record.user.clone());
                let pairs = ours.entry(unit.pair.instance.clone()).or_default();
                pairs.insert(unit.pair.number, (unit, record));
            }
            Err(error) => {
                tracing::warn!(
                    "{} was made by another version of TQServer ({error}); it is stopped when the worker serves again",
                    unit.pair.service_unit()
                );
                users.found(&unit.pair.instance, None);
                strangers.push(unit.pair);
            }
        }
    }
    let ours = ours
        .into_iter()
        .filter_map(|(instance, pairs)| found(instance, pairs, store));
    (ours.collect(), strangers, users)
}

/// A generation of which these pairs are there.
fn found(
    instance: Instance,
    pairs: BTreeMap<u8, (Loaded, Record)>,
    store: Option<&Store>,
) -> Option<Found> {
    let (first, record) = pairs.values().next()?;
    let (mut spec, mut public) = (record.spec.clone(), record.public.clone());
    // The mark is set on the first one last: what has it was accepted as a whole.
    let accepted = first.accepted;
    // Assets may have been replaced since the units were made.
    if let Some(store) = store
        && let Ok(Some(manifest)) = store.manifest(&instance)
    {
        spec.fingerprint.assets = manifest.assets;
        public = store.latest_assets(&instance);
    }
    let pairs = pairs.into_iter().map(|(number, (unit, record))| {
        let listening = match record.address {
            Address::Unix(_) => unit.listening == Some(true),
            Address::Tcp(_) | Address::Held { .. } => {
                unit.service.activity != crate::systemd::Activity::Failed
            }
        };
        let pair = FoundPair {
            address: record.address,
            listening,
            service: unit.service,
        };
        (number, pair)
    });
    Some(Found {
        pairs: pairs.collect(),
        instance,
        spec,
        public,
        accepted,
    })
}

/// The directory of a generation that is of none of our workers, if there is one.
pub(super) fn foreign(found: &[Found], settings: &Settings) -> Option<PathBuf> {
    let ours = |found: &&Found| {
        let mut directories = settings.workers_directories.iter();
        directories.any(|directory| found.spec.directory.starts_with(directory))
    };
    found
        .iter()
        .find(|found| !ours(found))
        .map(|found| found.spec.directory.clone())
}

/// What the fleet goes by, from the settings; `server` names this run.
pub(super) fn policy(
    settings: &Settings,
    (kind, mode): (Kind, Mode),
    runtime_directory: &Path,
    snapshots: Option<&Path>,
    server: &str,
) -> Policy {
    let development = Development {
        server: server.to_owned(),
        hold: settings.hold,
    };
    Policy {
        front: settings.front.clone(),
        grace: settings.shutdown_grace,
        startup_delay: settings.startup_delay,
        restart_delay: settings.restart_delay,
        ports: settings.ports.clone(),
        own_users: pair::has_sandbox(kind, mode),
        concurrent_starts: settings.concurrent_starts,
        build: mode == Mode::Development,
        development: (mode == Mode::Development).then_some(development),
        sockets: runtime_directory.to_owned(),
        snapshots: snapshots.map(Path::to_owned),
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
