//! What lies on disk, in the plan's words.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::explain::explain;
use super::{certificates, pair};
use crate::config::{Files, Instead, Mode, Problems, Settings, printable};
use crate::deploy::{Accepted, Manifest, Store};
use crate::ignored::{self, Developed};
use crate::inventory::{self, Status, Stray, Written};
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::{Forbidden, Reason, Ruling, Spec};
use crate::route::Claim;
use crate::watcher::Watched;

/// Most that is told of what lies among workers and is none.
const LEFT_OUT_MOST: usize = 20;

/// Accepted generations and what they were made of.
pub(super) type AcceptedGenerations = BTreeMap<WorkerName, (Generation, Spec)>;

/// The server's settings and the workers as they lie on disk at one moment.
#[derive(Clone, Debug)]
pub(super) struct Scan {
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
    /// What lies among workers and is none, each in a sentence with what to do.
    pub(super) left_out: Vec<String>,
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
    pub(super) accepted: AcceptedGenerations,
    /// Whether nothing at all was ever accepted.
    pub(super) is_fresh: bool,
    /// All, by worker.
    pub(super) generations: BTreeMap<WorkerName, Vec<Generation>>,
}

impl Scan {
    /// Adds those of the workers in `known`, by directory, that may well be in a place that was out of reach: nothing is stopped for that.
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

    /// Whether this worker may well be in a place that was out of reach: then it is not gone.
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

    /// The files whose events are worth another scan.
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
                .refused_to_administrators(&of.name, &of.on_route.hosts)?,
            false => {
                let all = self.workers.keys();
                self.settings
                    .grants
                    .refused(&of.name, &of.route, &of.on_route.hosts, all)?
            }
        };
        let server = self.settings.file.display();
        let why = format!(
            "{refused}; if it is to have that, add to {server}: {}",
            refused.cure
        );
        Some((of.route.clone(), of.on_route.hosts.clone(), why))
    }
}

/// Why nothing could be scanned.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ScanError {
    /// server.yaml is wrong.
    #[error("{0}")]
    Settings(Problems),
    /// The workers' directory cannot be read.
    #[error("{0}")]
    Workers(String),
}

/// Reads server.yaml (or keeps the settings of `before` where there is none) and the workers' directories; `instead` goes over what the file says, and `held`
/// are the routes that are served, `files` what workers' files said before, and `written` what programs write themselves. What nobody has asked for goes on with the settings there are when server.yaml is wrong: `strict` is
/// for the others. Blocks on the disk.
pub(super) fn scan(
    before: &Settings,
    mode: Mode,
    instead: Instead,
    held: &BTreeMap<Claim, WorkerName>,
    (files, written): (&Files, &Written),
    strict: bool,
) -> Result<Scan, ScanError> {
    let mut wrong = None;
    let mut settings = if before.file.exists() {
        match Settings::load(&before.file) {
            Ok(settings) => settings,
            Err(problems) if strict => return Err(ScanError::Settings(problems)),
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
        Err(problems) if strict => return Err(ScanError::Settings(problems)),
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
    let inventory = inventory::scan_beside(&settings, mode, held, files, written)
        .map_err(|error| ScanError::Workers(format!("{error}: {}", error.source)))?;
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
                passed_over: None,
            }),
        };
        Some((name, spec))
    });
    let workers = workers.collect();
    let all = inventory.strays.iter().chain(&inventory.unrecognised);
    let mut left_out: Vec<String> = all.clone().take(LEFT_OUT_MOST).map(sentence).collect();
    let more = all.count() - left_out.len();
    if more > 0 {
        left_out.push(format!(
            "{more} more are left out; `tqserver check` names them"
        ));
    }
    let strays = inventory.strays.iter();
    let strays = strays.map(|stray| (stray.directory.clone(), sentence(stray)));
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
    Ok(Scan {
        settings,
        workers,
        wrong,
        administrators,
        developed,
        out_of_reach,
        left_out,
        gone: Vec::new(),
        back: Vec::new(),
        directories,
        recalled: None,
        history: None,
    })
}

fn sentence(stray: &Stray) -> String {
    let directory = stray.directory.to_string_lossy();
    format!(
        "{} is left out: {}",
        printable(&directory),
        printable(&stray.reason)
    )
}

/// Accepted snapshots, the newest of each worker, with what they were made of; and whether nothing at all was ever accepted.
fn snapshots(store: &Store, scan: &Scan) -> (AcceptedGenerations, bool) {
    let (newest, problems) = store.newest_accepted();
    let is_fresh = newest.is_empty() && problems.is_empty();
    for problem in problems {
        tracing::warn!(
            "{}; the snapshot before it is used, if there is one",
            explain(&problem)
        );
    }
    let found = newest.into_iter().map(|(name, accepted)| {
        let spec = spec_of(accepted.manifest, accepted.assets.is_some(), scan, &name);
        (name, (accepted.generation, spec))
    });
    (found.collect(), is_fresh)
}

pub(super) fn spec_of(
    manifest: Manifest,
    has_assets: bool,
    scan: &Scan,
    name: &WorkerName,
) -> Spec {
    let directory = inventory::directory_of(&scan.settings, name);
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
        passed_over: manifest.passed_over,
        directory,
    }
}
