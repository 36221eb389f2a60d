//! The one place that acts. Each action runs as a task of its own and comes back as an event.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::BuildWatch;
use super::disk::{Disk, DiskError, SMALL, STALLED};
use super::journal::Journal;
use super::look::{self, Record};
use super::pair;
use super::strays::Backoff;
use super::users::Users;
use crate::ansi;
use crate::builder::{self, BuildFailure, Built, Purpose, Runner, UnitRunner};
use crate::config::{BuildLimits, Mode, SnapshotLimits, WorkerType};
use crate::deploy::{Manifest, SnapshotError, Store};
use crate::effort::Effort;
use crate::names::{Generation, Instance, Pair, WorkerName};
use crate::plan::{Event, Reason, Source, Spec};
use crate::route::Address;
use crate::systemd::{BusError, Kind, Systemd};

/// Accepted snapshots that are kept, what runs included: there are two to go back to.
const KEEP: usize = 3;

/// What acting needs.
pub(super) struct Performer {
    pub(super) systemd: Systemd,
    /// Production: where snapshots are.
    pub(super) store: Option<Store>,
    /// Production: where snapshots and workers' own files are.
    pub(super) state_directory: Option<PathBuf>,
    pub(super) journal: Journal,
    /// Where its work on files goes.
    pub(super) disk: Disk,
    pub(super) mode: Mode,
    /// Where sockets are, and what is there for a moment.
    pub(super) runtime_directory: PathBuf,
    /// Our own units in our slice, whether or not they run.
    pub(super) own_units: Vec<String>,
    /// Those of them that stay when everything is stopped.
    pub(super) stays: Vec<String>,
    /// Names this run of the manager.
    pub(super) server: String,
    /// Which systemd.
    pub(super) kind: Kind,
    /// server.yaml.
    pub(super) file: PathBuf,
    /// Where relative paths of server.yaml start.
    pub(super) project: PathBuf,
    /// Group that may connect to workers' sockets: the proxy's.
    pub(super) group: Option<String>,
    /// This program: what starts a worker.
    pub(super) starter: PathBuf,
    /// Who works on a worker's snapshots has its turn: making one and clearing away old ones do not mix.
    pub(super) turns: Mutex<HashMap<WorkerName, Arc<tokio::sync::Mutex<()>>>>,
    /// Who runs as which user.
    pub(super) users: Mutex<Users>,
}

/// A generation that is to be built.
pub(super) struct Build {
    pub(super) instance: Instance,
    pub(super) spec: Spec,
    pub(super) limits: BuildLimits,
    /// Cancelled when nobody wants it any more: then all of its processes are killed.
    pub(super) abandoned: CancellationToken,
    /// Where it is told how far it is.
    pub(super) watch: BuildWatch,
}

/// A build that was begun while files were still being saved: the one that is wanted, if they stay as they are. Dropped, it is given up.
pub(super) struct Early {
    pub(super) spec: Spec,
    pub(super) since: Instant,
    built: oneshot::Receiver<Result<bool, Reason>>,
    _abandoned: DropGuard,
}

impl Early {
    async fn result(self, abandoned: &CancellationToken) -> Result<bool, Reason> {
        match abandoned.run_until_cancelled(self.built).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Reason::Refused("its build broke off".to_owned())),
            None => Err(Reason::Superseded),
        }
    }
}

/// A generation that is to be started.
pub(super) struct Launch {
    pub(super) instance: Instance,
    pub(super) spec: Spec,
    pub(super) source: Source,
    /// Where each of its pairs is to listen, in their order.
    pub(super) addresses: Vec<Address>,
    /// The directories of workers.
    pub(super) workers: Vec<PathBuf>,
    /// How large its snapshot may become.
    pub(super) snapshot: SnapshotLimits,
    /// The ports of workers.
    pub(super) ports: RangeInclusive<u16>,
    /// Whether it was accepted before.
    pub(super) accepted: bool,
    /// How long it may take to exit on SIGTERM.
    pub(super) stop_timeout: Duration,
}

/// A generation that is to be stopped.
pub(super) struct Stop {
    pub(super) instance: Instance,
    /// How many pairs of units it has.
    pub(super) pairs: u8,
    /// The pair whose last log lines are wanted, and what it was made of.
    pub(super) failed: Option<(u8, Spec)>,
    /// Whether it had passed its check.
    pub(super) accepted: bool,
    /// How long it may take to exit on SIGTERM.
    pub(super) timeout: Duration,
}

/// The tasks of all actions under way.
pub(super) type Tasks = JoinSet<Event>;

impl Performer {
    /// Builds a worker, or takes what was begun `early`.
    pub(super) fn build(self: &Arc<Self>, tasks: &mut Tasks, build: Build, early: Option<Early>) {
        let this = Arc::clone(self);
        tasks.spawn(async move {
            let result = match early {
                Some(early) => early.result(&build.abandoned).await,
                None => this.run_build(&build).await,
            };
            Event::Built(build.instance, result)
        });
    }

    /// Builds a worker before anybody asks for it.
    pub(super) fn build_early(self: &Arc<Self>, aside: &mut JoinSet<()>, build: Build) -> Early {
        let this = Arc::clone(self);
        let (tell, built) = oneshot::channel();
        let early = Early {
            spec: build.spec.clone(),
            since: Instant::now(),
            built,
            _abandoned: build.abandoned.clone().drop_guard(),
        };
        aside.spawn(async move {
            let _ = tell.send(this.run_build(&build).await);
        });
        early
    }

    /// Whether there was anything to build.
    async fn run_build(&self, build: &Build) -> Result<bool, Reason> {
        let result = self.run_in_turn(build).await;
        build.watch.forget(&build.instance);
        result
    }

    /// One build of a worker at a time, so that two never write to the same file.
    async fn run_in_turn(&self, build: &Build) -> Result<bool, Reason> {
        let Build {
            instance,
            spec,
            limits,
            abandoned,
            watch,
        } = build;
        let Some(_turn) = abandoned
            .run_until_cancelled(self.turn(&instance.worker))
            .await
        else {
            return Err(Reason::Superseded);
        };
        watch.begin(instance);
        let target = builder::shared_target(&self.project);
        let listener = |line: &str| watch.hear(instance, &ansi::strip(line));
        let order = builder::Order {
            shared_target: &target,
            deadline: limits.timeout,
            purpose: Purpose::Development,
            runner: Runner::Unit(UnitRunner {
                systemd: &self.systemd,
                instance,
                memory_max: limits.memory_max,
                directory: &self.runtime_directory,
            }),
            listener: &listener,
            abandoned,
        };
        let built = builder::build(&spec.settings, &spec.directory, order).await;
        let built = built.map(|built| built != Built::Nothing);
        built.map_err(|error| match &error.failure {
            BuildFailure::Abandoned => Reason::Superseded,
            BuildFailure::Unavailable(unavailable) => Reason::Unusable(unavailable.to_string()),
            failure => {
                let output = error.output.lines().map(ansi::keep_colours).collect();
                Reason::Build(format!("`{}`: {failure}", error.command), output)
            }
        })
    }

    /// Kills the builds that are under way, those of a manager that is gone too.
    pub(super) async fn stop_builds(&self) {
        if let Err(error) = self.systemd.stop_builds().await {
            tracing::warn!("{}; going on without", chain(&error));
        }
    }

    pub(super) fn launch(self: &Arc<Self>, tasks: &mut Tasks, launch: Launch) {
        let this = Arc::clone(self);
        tasks.spawn(async move {
            let instance = launch.instance.clone();
            Event::Launched(instance, this.start(launch).await)
        });
    }

    async fn start(self: &Arc<Self>, launch: Launch) -> Result<Option<PathBuf>, Reason> {
        let Launch {
            instance,
            spec,
            source,
            addresses,
            workers,
            snapshot,
            ports,
            accepted,
            stop_timeout,
        } = launch;
        let (files, public) = self.files(&instance, &spec, source, snapshot).await?;
        if spec.settings.kind == WorkerType::Static {
            return Ok(public);
        }
        let user = self.user(&instance)?;
        let (this, name) = (Arc::clone(self), spec.settings.name.clone());
        let what = || format!("look at the files of worker '{name}'");
        let made = self.disk.run(SMALL, what, move |_| {
            let command = look::command(&spec, &files, this.mode)?;
            let ground = this.ground();
            ground.enforce_network(&spec.settings)?;
            let mut record = Record {
                spec,
                address: addresses[0].clone(),
                public,
                user: user.clone(),
            };
            let mut pairs = Vec::new();
            for (number, address) in (1..).zip(addresses) {
                record.address = address.clone();
                let record_text = serde_json::to_string(&record)
                    .map_err(|error| Reason::Refused(error.to_string()))?;
                let run = pair::Run {
                    pair: instance.pair(number),
                    address,
                    files: files.clone(),
                    command: command.clone(),
                    workers: workers.clone(),
                    ports: ports.clone(),
                    accepted,
                    stop_timeout,
                    user: user.clone(),
                    record: record_text,
                };
                let pair = ground.pair(&record.spec, run)?;
                ground.make_directories(&pair)?;
                pairs.push(pair);
            }
            Ok((pairs, record.public))
        });
        let (pairs, public) = made.await.map_err(|error| refused(&error))??;
        // Each call is waited for, also when another fails: what is stopped then must be there.
        let started = pairs.iter().map(|pair| self.systemd.start_pair(pair));
        let started = futures_util::future::join_all(started).await;
        let started = started.into_iter().collect::<Result<Vec<()>, _>>();
        started.map_err(|error| Reason::Refused(chain(&error)))?;
        Ok(public)
    }

    /// The user for a generation, where workers get users of their own.
    fn user(&self, instance: &Instance) -> Result<Option<String>, Reason> {
        if !self.ground().has_sandbox() {
            return Ok(None);
        }
        let user = self.users().take(instance);
        user.map(Some).map_err(|other| {
            Reason::Unusable(format!(
                "it would run as the same user as worker '{other}'; give its directory another name"
            ))
        })
    }

    fn users(&self) -> std::sync::MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is the same for all pairs.
    pub(super) fn ground(&self) -> pair::Ground<'_> {
        pair::Ground {
            kind: self.kind,
            mode: self.mode,
            file: &self.file,
            project: &self.project,
            state: self.state_directory.as_deref(),
            group: self.group.as_deref(),
            journal: &self.journal,
            starter: &self.starter,
        }
    }

    /// Where the generation's files and assets are: the worker's directory, or a snapshot made now.
    async fn files(
        &self,
        instance: &Instance,
        spec: &Spec,
        source: Source,
        limits: SnapshotLimits,
    ) -> Result<(PathBuf, Option<PathBuf>), Reason> {
        let Some(store) = self.store.clone() else {
            return Ok((spec.directory.clone(), spec.public.clone()));
        };
        let (instance, spec) = (instance.clone(), spec.clone());
        let worker = instance.worker.clone();
        self.in_turn(&worker, "make a snapshot", move |effort| {
            let store = store.with(limits, effort);
            let files = match source {
                Source::Directory => {
                    store.create(&instance, &spec.directory, spec.settings.kind, &spec.nested)?
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

    /// Writes down that a generation has passed its check. In development nothing is started from that, and nobody waits for it.
    pub(super) fn accept(
        self: &Arc<Self>,
        tasks: &mut Tasks,
        aside: &mut JoinSet<()>,
        instance: Instance,
        spec: Spec,
    ) {
        let this = Arc::clone(self);
        if self.mode == Mode::Development {
            let accepted = Event::Accepted(instance.clone(), Ok(()));
            tasks.spawn(std::future::ready(accepted));
            aside.spawn(async move {
                // It may have been replaced already, and be gone.
                let _ = this.write_down(&instance, spec).await;
            });
            return;
        }
        tasks.spawn(async move {
            let result = this.write_down(&instance, spec).await;
            Event::Accepted(instance, result)
        });
    }

    /// The manifest makes a snapshot one to start from after a reboot; the mark in systemd tells the next manager.
    async fn write_down(&self, instance: &Instance, spec: Spec) -> Result<(), Reason> {
        let is_static = spec.settings.kind == WorkerType::Static;
        let pairs = spec.settings.instances();
        if let Some(store) = self.store.clone() {
            let instance = instance.clone();
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
            .await?;
        }
        if is_static {
            return Ok(());
        }
        // The first one last: it speaks for all.
        for number in (1..=pairs).rev() {
            let marked = self.systemd.mark_accepted(&instance.pair(number)).await;
            marked.map_err(|error| Reason::Refused(chain(&error)))?;
        }
        Ok(())
    }

    /// Bounds what a generation uses as `spec` says, while it runs and after the next boot.
    pub(super) async fn limit(&self, instance: Instance, spec: Spec) {
        let went_on = |what: String| {
            tracing::warn!(tq.worker = %instance.worker, tq.generation = %instance.generation, "{what}; the next reload tries it again");
        };
        let limits = spec.settings.limits.clone();
        if spec.settings.kind != WorkerType::Static {
            for number in 1..=spec.settings.instances() {
                if let Err(error) = self.systemd.limit(&instance.pair(number), &limits).await {
                    went_on(chain(&error));
                }
            }
        }
        let Some(store) = self.store.clone() else {
            return;
        };
        let its = instance.clone();
        let written = self.in_turn(
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
        );
        if let Err(reason) = written.await {
            went_on(reason.to_string());
        }
    }

    pub(super) fn assets(
        self: &Arc<Self>,
        tasks: &mut Tasks,
        instance: Instance,
        spec: Spec,
        limits: SnapshotLimits,
    ) {
        let this = Arc::clone(self);
        tasks.spawn(async move {
            let result = this.copy_assets(&instance, &spec, limits).await;
            Event::AssetsReady(instance, result)
        });
    }

    async fn copy_assets(
        &self,
        instance: &Instance,
        spec: &Spec,
        limits: SnapshotLimits,
    ) -> Result<PathBuf, Reason> {
        let public = spec.public.clone();
        let Some(store) = self.store.clone() else {
            return public.ok_or_else(|| Reason::Unusable("public/ is gone".to_owned()));
        };
        let (instance, directory) = (instance.clone(), spec.directory.clone());
        let fingerprint = spec.fingerprint.assets.clone();
        let worker = instance.worker.clone();
        self.in_turn(&worker, "copy the assets", move |effort| {
            let store = store.with(limits, effort);
            store.add_assets(&instance, &directory, &fingerprint)
        })
        .await
    }

    pub(super) fn stop(self: &Arc<Self>, tasks: &mut Tasks, stop: Stop) {
        let this = Arc::clone(self);
        tasks.spawn(async move {
            let Stop { instance, pairs, failed, accepted, timeout } = stop;
            let went_on = |what: String| {
                tracing::warn!(tq.worker = %instance.worker, tq.generation = %instance.generation, "{what}; going on without");
            };
            let pairs: Vec<Pair> = (1..=pairs).map(|number| instance.pair(number)).collect();
            // What systemd has not confirmed is not stopped, and nobody is told that it is.
            let (mut left, mut again) = (pairs.clone(), Backoff::default());
            loop {
                let stopping = left.iter().map(|pair| this.systemd.stop_pair(pair, timeout));
                let stopped = futures_util::future::join_all(stopping).await;
                let mut failed = left.into_iter().zip(stopped);
                let failed = failed.by_ref().filter_map(|(pair, stopped)| Some((pair, stopped.err()?)));
                let failed: Vec<(Pair, BusError)> = failed.collect();
                let Some((_, error)) = failed.first() else {
                    break;
                };
                let text = chain(error);
                tracing::warn!(tq.worker = %instance.worker, tq.generation = %instance.generation, "{text}; it is tried again");
                left = failed.into_iter().map(|(pair, _)| pair).collect();
                again.wait().await;
            }
            if !accepted && let Err(reason) = this.withdraw(&instance).await {
                went_on(reason.to_string());
            }
            let mut log = Vec::new();
            if let Some((number, spec)) = failed {
                let pair = instance.pair(number);
                let output = this.journal.output(&pair, &spec.settings, &this.project);
                log = this.journal.tail(&this.disk, &pair, output).await;
            }
            let at = Arc::clone(&this);
            let forgotten = this.disk.run(SMALL, || "remove what is left".to_owned(), move |_| {
                for pair in &pairs {
                    at.journal.forget(pair);
                    at.ground().forget(pair);
                }
            });
            if let Err(error) = forgotten.await {
                went_on(chain(&error));
            }
            this.users().gone(&instance);
            Event::Stopped(instance, log)
        });
    }

    /// What was about to be written down as accepted, when it ended, is not to be started from.
    async fn withdraw(&self, instance: &Instance) -> Result<(), Reason> {
        let Some(store) = self.store.clone() else {
            return Ok(());
        };
        let (instance, worker) = (instance.clone(), instance.worker.clone());
        self.in_turn(&worker, "take back a snapshot", move |_| {
            store.withdraw_manifest(&instance)
        })
        .await
    }

    /// Forgets snapshots up to `last` other than those that run and the newest that were accepted.
    pub(super) async fn prune(&self, worker: WorkerName, live: Vec<Generation>, last: Generation) {
        let Some(store) = self.store.clone() else {
            return;
        };
        let name = worker.clone();
        let pruned = self.in_turn(&worker, "remove old snapshots", move |effort| {
            let store = store.with(SnapshotLimits::NONE, effort);
            let newest = store.worth_keeping(&name, KEEP)?;
            let keep: Vec<Generation> = newest.into_iter().chain(live).collect();
            store.prune(&name, &keep, last)
        });
        if let Err(reason) = pruned.await {
            tracing::warn!(tq.worker = %worker, "{reason}; it is tried again with the next reload");
        }
    }

    /// Notes that a worker is gone; what is kept of it goes when it has been gone for longer than `keep`.
    pub(super) async fn expire(&self, newest: Instance, keep: Option<Duration>) {
        let Some(store) = self.store.clone() else {
            return;
        };
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
    pub(super) async fn came_back(&self, worker: WorkerName) {
        let Some(store) = self.store.clone() else {
            return;
        };
        let name = worker.clone();
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
        let state = self.state_directory.clone().unwrap_or_default();
        let what = || format!("{what} of worker '{worker}' in {}", state.display());
        let turn = self.disk.turn(STALLED, what, self.turn(worker)).await;
        let turn = turn.map_err(|error| refused(&error))?;
        let done = self.disk.run(STALLED, what, move |effort| {
            let _turn = turn;
            work(effort)
        });
        let done = done.await.map_err(|error| refused(&error))?;
        done.map_err(|error| Reason::Refused(chain(&error)))
    }

    async fn turn(&self, worker: &WorkerName) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(worker.clone()).or_default())
        };
        turn.lock_owned().await
    }
}

fn refused(error: &DiskError) -> Reason {
    Reason::Refused(chain(error))
}

/// An error and its causes, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
