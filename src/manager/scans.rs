//! Scans of the workers' directories: what triggers them, which wait, and the one under way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::disk::{Disk, DiskError};
use super::requests::{ReloadRequest, RollbackRequest};
use super::scan::{Recall, Scan, ScanError, scan};
use crate::config::{Files, Instead, Mode, Settings};
use crate::deploy::Store;
use crate::inventory::Written;
use crate::names::WorkerName;
use crate::plan::{Fleet, Stage, WorkerView};
use crate::route::Claim;

/// Wait before another try when the workers' directory was not there at the start (a file system that is mounted late).
const START_AGAIN: Duration = Duration::from_secs(2);
/// How often the manager looks for workers that are gone, when nothing else triggers a scan.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Longest time for one scan.
const SCAN_TIMEOUT: Duration = Duration::from_secs(120);
/// Scans that may be waited for; further requests wait on the bus.
const WAITING_MAX: usize = 64;

/// What triggers a scan.
pub(super) enum Trigger {
    Start,
    Retry(WorkerName),
    /// Workers may be gone for long enough for their snapshots to go.
    Cleanup,
    /// Files were saved, and more may come.
    Saving,
    /// Files were saved, the first of them then.
    Saved(Instant),
    Reload(ReloadRequest),
    Rollback(RollbackRequest),
}

/// The scan under way and those that wait.
pub(super) struct Scans {
    disk: Disk,
    store: Option<Store>,
    mode: Mode,
    /// What goes over server.yaml's word on where to listen.
    instead: Instead,
    /// What the files of workers said when they were read last.
    files: Arc<Files>,
    /// Development: the files of workers that their programs write themselves.
    written: Arc<Written>,
    /// One that hangs keeps it.
    turn: Arc<Mutex<()>>,
    /// One at a time, so that what is found later is newer.
    under_way: Option<(Trigger, JoinHandle<Result<Scan, ScanError>>)>,
    queue: VecDeque<Trigger>,
    clean_up_at: Instant,
    /// When the first one is tried again, if it failed.
    start_at: Option<Instant>,
}

impl Scans {
    pub(super) fn new(disk: Disk, store: Option<Store>, mode: Mode, instead: Instead) -> Self {
        Self {
            disk,
            store,
            mode,
            instead,
            files: Arc::default(),
            written: Arc::default(),
            turn: Arc::default(),
            under_way: None,
            queue: VecDeque::new(),
            clean_up_at: Instant::now() + CLEAN_UP_EVERY,
            start_at: None,
        }
    }

    /// Whether another one can be taken from outside.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < WAITING_MAX
    }

    /// Queues one. One scan is enough for files saved one after the other.
    pub(super) fn push(&mut self, trigger: Trigger) {
        let is_saved = |trigger: &Trigger| matches!(trigger, Trigger::Saved(_));
        if !is_saved(&trigger) || !self.queue.back().is_some_and(is_saved) {
            self.queue.push_back(trigger);
        }
    }

    /// From now on this file of a worker does not count. It is looked at once what that makes of it.
    pub(super) fn unwatch(&mut self, worker: WorkerName, file: String) {
        let written = Arc::make_mut(&mut self.written);
        written.entry(worker).or_default().insert(file);
        self.push(Trigger::Saved(Instant::now()));
    }

    /// The first one has failed: it is tried again later.
    pub(super) fn start_later(&mut self) {
        self.start_at = Some(Instant::now() + START_AGAIN);
    }

    /// The start is over.
    pub(super) fn started(&mut self) {
        self.start_at = None;
    }

    /// When one is due that waits for its time alone.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.start_at
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        if self.clean_up_at <= now {
            if self.store.is_some() && self.has_room() {
                self.queue.push_back(Trigger::Cleanup);
            }
            self.clean_up_at = now + CLEAN_UP_EVERY;
        }
        if self.start_at.take_if(|at| *at <= now).is_some() {
            self.queue.push_back(Trigger::Start);
        }
    }

    /// Begins the next one, if none is under way. `recall`: it is to say what was accepted, too.
    pub(super) fn begin_if_idle(&mut self, settings: &Settings, fleet: &Fleet, recall: bool) {
        if self.under_way.is_some() {
            return;
        }
        let Some(trigger) = self.queue.pop_front() else {
            return;
        };
        let held = held(fleet);
        let (settings, mode, instead) = (settings.clone(), self.mode, self.instead);
        let (files, written) = (Arc::clone(&self.files), Arc::clone(&self.written));
        let strict = matches!(trigger, Trigger::Reload(_) | Trigger::Rollback(_));
        let store = self.store.clone();
        let recall = Recall {
            all: recall,
            of: match &trigger {
                Trigger::Rollback(request) => Some(request.worker.clone()),
                _ => None,
            },
        };
        let (disk, turn) = (self.disk.clone(), Arc::clone(&self.turn));
        let found = async move {
            let what = || "read the directories of workers".to_owned();
            // One that hangs keeps its turn, so that it has one thread and no more.
            let turn = disk.turn(SCAN_TIMEOUT, what, turn.lock_owned()).await?;
            let scanned = disk.run(SCAN_TIMEOUT, what, move |_| {
                let _turn = turn;
                let mut scan = scan(&settings, mode, instead, &held, (&files, &written), strict)?;
                if let Some(store) = store {
                    scan.recall(&store, &recall);
                }
                Ok(scan)
            });
            scanned.await
        };
        let found = async {
            let found: Result<_, DiskError> = found.await;
            found.unwrap_or_else(|error| Err(ScanError::Workers(error.to_string())))
        };
        self.under_way = Some((trigger, tokio::spawn(found)));
    }

    /// The end of the one under way, with what it was for; never, if there is none.
    pub(super) async fn finished(
        &mut self,
    ) -> Result<(Trigger, Result<Scan, ScanError>), JoinError> {
        let found = match &mut self.under_way {
            Some((_, task)) => task.await,
            None => std::future::pending().await,
        };
        match self.under_way.take() {
            Some((trigger, _)) => Ok((trigger, found?)),
            None => std::future::pending().await,
        }
    }
}

/// The routes that are served, and by whom.
fn held(fleet: &Fleet) -> BTreeMap<Claim, WorkerName> {
    let serves = |worker: &WorkerView| {
        let mut stages = worker.generations.iter().map(|run| run.stage);
        stages.any(|stage| stage == Stage::Serving)
    };
    let view = fleet.view().into_iter();
    view.filter(serves)
        .flat_map(|worker| {
            let name = worker.name;
            let claims = worker.claims.into_iter();
            claims.map(move |claim| (claim, name.clone()))
        })
        .collect()
}
