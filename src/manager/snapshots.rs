//! What is done with the snapshots of workers: one piece of work at a time for each, so that making one and clearing away old ones do not
//! mix.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::disk::{Disk, DiskError, STALLED};
use super::explain::explain;
use super::turns::Turns;
use crate::config::{Limits, SnapshotLimits};
use crate::deploy::{Manifest, SnapshotError, Store};
use crate::effort::Effort;
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::{Reason, Source, Spec};

/// The snapshots of all workers.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    store: Store,
    state_directory: PathBuf,
    disk: Disk,
    turns: Arc<Turns>,
}

impl Snapshots {
    /// Those of `store`, which lies in `state_directory`.
    pub(super) fn new(store: Store, state_directory: PathBuf, disk: Disk) -> Self {
        Self {
            store,
            state_directory,
            disk,
            turns: Arc::default(),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The generations of each of these workers that can be rolled back to, the newest first: accepted, kept, different from each other,
    /// and not the one that serves, which is named beside the worker; `keep` of them at most.
    pub(super) async fn to_roll_back_to(
        &self,
        workers: Vec<(WorkerName, Option<Generation>)>,
        keep: usize,
    ) -> Result<Vec<(WorkerName, Vec<Generation>)>, DiskError> {
        let store = self.store.clone();
        let what = || format!("read the snapshots in {}", self.state_directory.display());
        let found = self.disk.run(STALLED, what, move |effort| {
            let kept = |(worker, serving)| {
                effort.step();
                // What cannot be read cannot be rolled back to.
                let mut kept = store.worth_keeping(&worker, keep + 1).unwrap_or_default();
                kept.retain(|generation| Some(*generation) != serving);
                (worker, kept)
            };
            workers.into_iter().map(kept).collect()
        });
        found.await
    }

    /// Where the generation's files and assets are: a snapshot made now, or its own that was kept.
    pub(super) async fn files(
        &self,
        instance: &Instance,
        spec: &Spec,
        source: Source,
        limits: SnapshotLimits,
    ) -> Result<(PathBuf, Option<PathBuf>), Reason> {
        let store = self.store.clone();
        let (instance, spec) = (instance.clone(), spec.clone());
        let worker = instance.worker.clone();
        let state = self.state_directory.join(worker.as_str());
        self.in_turn(&worker, "make a snapshot", move |effort| {
            let store = store.with(limits, effort);
            let files = match source {
                Source::Directory => {
                    let files = store.create(&instance, &spec.directory, spec.settings.kind)?;
                    store.persist(&instance, &spec.settings.persisted, &state)?;
                    files
                }
                Source::Own(_) if store.files(&instance).is_dir() => store.files(&instance),
                Source::Own(_) => return Err(SnapshotError::NoSnapshot(instance.clone())),
                Source::SameAs(earlier) => {
                    store.clone_of(&Instance::new(instance.worker.clone(), earlier), &instance)?
                }
            };
            Ok((files, store.latest_assets(&instance)))
        })
        .await
    }

    /// Makes a snapshot one to start from after a reboot.
    pub(super) async fn accept(&self, instance: &Instance, spec: Spec) -> Result<(), Reason> {
        let (store, instance) = (self.store.clone(), instance.clone());
        let worker = instance.worker.clone();
        let manifest = Manifest {
            program: spec.fingerprint.program,
            assets: spec.fingerprint.assets,
            config: spec.fingerprint.config,
            file: spec.fingerprint.file,
            settings: spec.settings,
            passed_over: spec.passed_over,
        };
        self.in_turn(&worker, "accept a snapshot", move |effort| {
            let store = store.with(SnapshotLimits::NONE, effort);
            store.write_manifest(&instance, &manifest)
        })
        .await
    }

    /// Bounds what a generation may use after the next boot.
    pub(super) async fn limit(&self, instance: &Instance, limits: Limits) -> Result<(), Reason> {
        let (store, its) = (self.store.clone(), instance.clone());
        self.in_turn(
            &instance.worker,
            "lower the limits of a snapshot",
            move |effort| {
                let store = store.with(SnapshotLimits::NONE, effort);
                if let Some(mut manifest) = store.manifest(&its)? {
                    manifest.settings.limits = limits;
                    store.write_manifest(&its, &manifest)?;
                }
                Ok(())
            },
        )
        .await
    }

    /// Copies a generation's changed assets; returns where they are.
    pub(super) async fn add_assets(
        &self,
        instance: &Instance,
        spec: &Spec,
        limits: SnapshotLimits,
    ) -> Result<PathBuf, Reason> {
        let store = self.store.clone();
        let (instance, directory) = (instance.clone(), spec.directory.clone());
        let fingerprint = spec.fingerprint.assets.clone();
        let worker = instance.worker.clone();
        self.in_turn(&worker, "copy the assets", move |effort| {
            let store = store.with(limits, effort);
            store.add_assets(&instance, &directory, &fingerprint)
        })
        .await
    }

    /// What was about to be written down as accepted, when it ended, is not to be started from.
    pub(super) async fn withdraw(&self, instance: &Instance) -> Result<(), Reason> {
        let (store, instance) = (self.store.clone(), instance.clone());
        let worker = instance.worker.clone();
        self.in_turn(&worker, "take back a snapshot", move |_| {
            store.withdraw_manifest(&instance)
        })
        .await
    }

    /// Forgets snapshots up to `last` other than those that run, the newest that was accepted, and `keep` to go back to.
    pub(super) async fn prune(
        self,
        worker: WorkerName,
        live: Vec<Generation>,
        last: Generation,
        keep: usize,
    ) {
        let (store, name) = (self.store.clone(), worker.clone());
        let pruned = self.in_turn(&worker, "remove old snapshots", move |effort| {
            let store = store.with(SnapshotLimits::NONE, effort);
            let newest = store.worth_keeping(&name, keep + 1)?;
            let keep: Vec<Generation> = newest.into_iter().chain(live).collect();
            store.prune(&name, &keep, last)
        });
        if let Err(reason) = pruned.await {
            tracing::warn!(tq.worker = %worker, "{reason}; it is tried again with the next reload");
        }
    }

    /// Notes that a worker is gone; what is kept of it goes when it has been gone for longer than `keep`.
    pub(super) async fn expire(self, newest: Instance, keep: Option<Duration>) {
        let store = self.store.clone();
        let Instance { worker, generation } = newest;
        let name = worker.clone();
        let expired = self.in_turn(&worker, "look after the snapshots", move |effort| {
            let store = store.with(SnapshotLimits::NONE, effort);
            store.expire(&name, generation, keep, SystemTime::now())
        });
        match expired.await {
            Ok(true) => tracing::info!(
                tq.worker = %worker,
                "worker '{worker}' has been gone for longer than 'snapshots.keep_removed_days': its snapshots are removed"
            ),
            Ok(false) => {}
            Err(reason) => {
                tracing::warn!(tq.worker = %worker, "{reason}; it is tried again with the next reload");
            }
        }
    }

    /// A worker that was noted as gone is there again.
    pub(super) async fn came_back(self, worker: WorkerName) {
        let (store, name) = (self.store.clone(), worker.clone());
        let noted = self.in_turn(&worker, "look after the snapshots", move |_| {
            store.came_back(&name)
        });
        if let Err(reason) = noted.await {
            tracing::warn!(tq.worker = %worker, "{reason}; it is tried again with the next reload");
        }
    }

    /// Works on a worker's snapshots when it is its turn, which work that hangs keeps.
    async fn in_turn<T: Send + 'static>(
        &self,
        worker: &WorkerName,
        what: &'static str,
        work: impl FnOnce(&Effort) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, Reason> {
        let place = self.state_directory.display();
        let what = || format!("{what} of worker '{worker}' in {place}");
        let turn = self.disk.turn(STALLED, what, self.turns.of(worker)).await;
        let turn = turn.map_err(|error| Reason::Refused(explain(&error)))?;
        let done = self.disk.run(STALLED, what, move |effort| {
            let _turn = turn;
            work(effort)
        });
        let done = done
            .await
            .map_err(|error| Reason::Refused(explain(&error)))?;
        done.map_err(|error| Reason::Refused(explain(&error)))
    }
}
