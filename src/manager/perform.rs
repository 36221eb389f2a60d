//! The one place that acts. Each action runs as a task of its own and comes back as an event.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::adoption::Record;
use super::backoff::Backoff;
use super::disk::{Disk, SMALL};
use super::explain::explain;
use super::journal::Journal;
use super::pair;
use super::snapshots::Snapshots;
use super::users::Users;
use crate::builder;
use crate::config::{Mode, SnapshotLimits, WorkerType, read_env_files};
use crate::names::{Instance, Pair};
use crate::plan::{Event, Reason, Source, Spec};
use crate::route::Address;
use crate::systemd::{BusError, Kind, Systemd};

/// What acting needs.
pub(super) struct Performer {
    pub(super) systemd: Arc<Systemd>,
    /// Production: what is done with snapshots.
    pub(super) snapshots: Option<Snapshots>,
    /// Production: where snapshots and workers' own files are.
    pub(super) state_directory: Option<PathBuf>,
    pub(super) journal: Journal,
    /// Where its work on files goes.
    pub(super) disk: Disk,
    pub(super) mode: Mode,
    /// Where sockets are, and what is there for a moment.
    pub(super) runtime_directory: PathBuf,
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
    /// Who runs as which user.
    pub(super) users: Mutex<Users>,
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
    /// Kills the builds that are under way, those of a manager that is gone too.
    pub(super) async fn stop_builds(&self) {
        if let Err(error) = self.systemd.stop_builds().await {
            tracing::warn!("{}; going on without", explain(&error));
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
            let command = command(&spec, &files, this.mode)?;
            let programs = builder::own_programs(&files);
            let ground = this.ground();
            ground.enforce_network(&spec.settings)?;
            // Of the files that it runs from: what was deployed since, or before a rollback, is another generation's.
            let from_files = read_env_files(&files, &spec.settings.env_files)
                .map_err(|error| Reason::Unusable(error.to_string()))?;
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
                    programs: programs.clone(),
                    workers: workers.clone(),
                    ports: ports.clone(),
                    accepted,
                    stop_timeout,
                    user: user.clone(),
                    from_files: from_files.clone(),
                    one_off: None,
                    record: record_text,
                };
                let pair = ground.pair(&record.spec, run)?;
                ground.make_directories(&pair)?;
                pairs.push(pair);
            }
            Ok((pairs, record.public))
        });
        let (pairs, public) = made
            .await
            .map_err(|error| Reason::Refused(explain(&error)))??;
        // Each call is waited for, also when another fails: what is stopped then must be there.
        let started = pairs.iter().map(|pair| self.systemd.start_pair(pair));
        let started = futures_util::future::join_all(started).await;
        let started = started.into_iter().collect::<Result<Vec<()>, _>>();
        started.map_err(|error| Reason::Refused(explain(&error)))?;
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

    /// The user of a worker of which a generation runs.
    pub(super) fn user_of(&self, instance: &Instance) -> Option<String> {
        let users = self.users();
        users
            .of(&instance.worker)
            .filter(|_| self.ground().has_sandbox())
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
        match &self.snapshots {
            Some(snapshots) => snapshots.files(instance, spec, source, limits).await,
            None => Ok((spec.directory.clone(), spec.public.clone())),
        }
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
        if let Some(snapshots) = &self.snapshots {
            snapshots.accept(instance, spec).await?;
        }
        if is_static {
            return Ok(());
        }
        // The first one last: it speaks for all.
        for number in (1..=pairs).rev() {
            let marked = self.systemd.mark_accepted(&instance.pair(number)).await;
            marked.map_err(|error| Reason::Refused(explain(&error)))?;
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
                    went_on(explain(&error));
                }
            }
        }
        if let Some(snapshots) = &self.snapshots
            && let Err(reason) = snapshots.limit(&instance, limits).await
        {
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
        match &self.snapshots {
            Some(snapshots) => snapshots.add_assets(instance, spec, limits).await,
            None => spec
                .public
                .clone()
                .ok_or_else(|| Reason::Unusable("public/ is gone".to_owned())),
        }
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
                let text = explain(error);
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
                went_on(explain(&error));
            }
            this.users().gone(&instance);
            Event::Stopped(instance, log)
        });
    }

    /// What was about to be written down as accepted, when it ended, is not to be started from.
    async fn withdraw(&self, instance: &Instance) -> Result<(), Reason> {
        match &self.snapshots {
            Some(snapshots) => snapshots.withdraw(instance).await,
            None => Ok(()),
        }
    }
}

/// The program a generation runs.
fn command(spec: &Spec, files: &Path, mode: Mode) -> Result<Vec<String>, Reason> {
    if spec.settings.kind == WorkerType::Static {
        return Ok(Vec::new());
    }
    builder::run_command(&spec.settings, files, mode)
        .map_err(|error| Reason::Unusable(error.to_string()))
}
