//! Looks at the disk: what they are for, which wait, and the one under way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::disk::{Disk, DiskError};
use super::look::{self, LookError, Sight};
use super::requests::{ReloadRequest, RollbackRequest};
use crate::config::{Files, Instead, Mode, Settings};
use crate::deploy::snapshot::Store;
use crate::names::WorkerName;
use crate::plan::{Fleet, Stage, WorkerView};
use crate::route::Claim;

/// Wait before the workers' directory is looked for again that was not there at the start (a file system that is mounted late).
const START_AGAIN: Duration = Duration::from_secs(2);
/// How often it is looked for workers that are gone, when nothing else makes the manager look.
const SWEEP_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Longest time for one look at the disk.
const LOOK: Duration = Duration::from_secs(120);
/// Looks at the disk that may be waited for; further requests wait on the bus.
const LOOKS: usize = 64;

/// Why it is looked at the disk.
pub(super) enum Wanted {
    Start,
    Retry(WorkerName),
    /// Workers may be gone for long enough for their snapshots to go.
    Sweep,
    /// Files were saved, and more may come.
    Saving,
    /// Files were saved, the first of them then.
    Saved(Instant),
    Reload(ReloadRequest),
    Rollback(RollbackRequest),
}

/// The look under way and those that wait.
pub(super) struct Looks {
    disk: Disk,
    store: Option<Store>,
    mode: Mode,
    /// What goes over server.yaml's word on where to listen.
    instead: Instead,
    /// What the files of workers said when they were read last.
    files: Arc<Files>,
    /// One that hangs keeps it.
    turn: Arc<Mutex<()>>,
    /// One at a time, so that what is seen later is newer.
    under_way: Option<(Wanted, JoinHandle<Result<Sight, LookError>>)>,
    queue: VecDeque<Wanted>,
    sweep_at: Instant,
    /// When the first look is tried again, if it could not be taken.
    start_at: Option<Instant>,
}

impl Looks {
    pub(super) fn new(disk: Disk, store: Option<Store>, mode: Mode, instead: Instead) -> Self {
        Self {
            disk,
            store,
            mode,
            instead,
            files: Arc::default(),
            turn: Arc::default(),
            under_way: None,
            queue: VecDeque::new(),
            sweep_at: Instant::now() + SWEEP_EVERY,
            start_at: None,
        }
    }

    /// Whether another one can be taken from outside.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < LOOKS
    }

    /// What waits for the same files that were saved is looked at once.
    pub(super) fn want(&mut self, wanted: Wanted) {
        let is_saved = |wanted: &Wanted| matches!(wanted, Wanted::Saved(_));
        if !is_saved(&wanted) || !self.queue.back().is_some_and(is_saved) {
            self.queue.push_back(wanted);
        }
    }

    /// The first one could not be taken: it is tried again later.
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
        if self.sweep_at <= now {
            if self.store.is_some() && self.has_room() {
                self.queue.push_back(Wanted::Sweep);
            }
            self.sweep_at = now + SWEEP_EVERY;
        }
        if self.start_at.take_if(|at| *at <= now).is_some() {
            self.queue.push_back(Wanted::Start);
        }
    }

    /// Begins the next one, if none is under way. `recall`: it is to say what was accepted, too.
    pub(super) fn begin_if_idle(&mut self, settings: &Settings, fleet: &Fleet, recall: bool) {
        if self.under_way.is_some() {
            return;
        }
        let Some(wanted) = self.queue.pop_front() else {
            return;
        };
        let held = held(fleet);
        let (settings, mode, instead) = (settings.clone(), self.mode, self.instead);
        let files = Arc::clone(&self.files);
        let strict = matches!(wanted, Wanted::Reload(_) | Wanted::Rollback(_));
        let store = self.store.clone();
        let recall = look::Recall {
            all: recall,
            of: match &wanted {
                Wanted::Rollback(request) => Some(request.worker.clone()),
                _ => None,
            },
        };
        let (disk, turn) = (self.disk.clone(), Arc::clone(&self.turn));
        let look = async move {
            let what = || "read the directories of workers".to_owned();
            // One that hangs keeps its turn, so that it has one thread and no more.
            let turn = disk.turn(LOOK, what, turn.lock_owned()).await?;
            let seen = disk.run(LOOK, what, move |_| {
                let _turn = turn;
                let mut sight = look::look(&settings, mode, instead, &held, &files, strict)?;
                if let Some(store) = store {
                    sight.recall(&store, &recall);
                }
                Ok(sight)
            });
            seen.await
        };
        let look = async {
            let seen: Result<_, DiskError> = look.await;
            seen.unwrap_or_else(|error| Err(LookError::Workers(error.to_string())))
        };
        self.under_way = Some((wanted, tokio::spawn(look)));
    }

    /// The end of the one under way, with what it was for; never, if there is none.
    pub(super) async fn finished(
        &mut self,
    ) -> Result<(Wanted, Result<Sight, LookError>), JoinError> {
        let seen = match &mut self.under_way {
            Some((_, task)) => task.await,
            None => std::future::pending().await,
        };
        match self.under_way.take() {
            Some((wanted, _)) => Ok((wanted, seen?)),
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
