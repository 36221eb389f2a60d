//! What a manager reports, while it runs, to whoever started it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::names::{Instance, WorkerName};
use crate::route::Claim;
use crate::watcher::Watched;
use crate::wire::FrontState;

/// What a manager tells whoever started it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Reloads and rollbacks under way.
    pub reloading: usize,
    /// Of a reload of many workers: how many are over, and how many there are.
    pub reloaded: Option<(usize, usize)>,
    /// What runs, in a line.
    pub summary: String,
    /// Every worker has been tried once and the proxy serves what came of it.
    pub settled: bool,
    /// Where the proxy listens, and where it could not.
    pub front: FrontState,
    /// How long the last requests may take at a stop.
    pub grace: Duration,
    /// Development: which files are to be watched, as of the last look at them.
    pub watched: Option<Arc<Watched>>,
    /// The workers that answer, and where.
    pub routes: BTreeMap<WorkerName, Vec<Claim>>,
    /// Development: the builds under way.
    pub builds: BTreeMap<Instance, Building>,
}

/// How far a build is.
#[derive(Clone, Debug)]
pub struct Building {
    /// When it began.
    pub since: Instant,
    /// What it wrote last.
    pub line: String,
}

impl Progress {
    /// Whether the proxy has said where it listens.
    pub fn is_met(&self) -> bool {
        !self.front.listening.is_empty() || self.front.problem.is_some()
    }

    /// What runs, in a line, and before that what is not served.
    pub fn status(&self) -> String {
        match self.front.trouble() {
            trouble if trouble.is_empty() => self.summary.clone(),
            trouble => format!("{trouble}; {}", self.summary),
        }
    }
}

/// Keeps a [`Progress`] up to date.
#[derive(Clone)]
pub(super) struct Reporter(watch::Sender<Progress>);

impl Reporter {
    pub(super) fn new(progress: watch::Sender<Progress>) -> Self {
        Self(progress)
    }

    /// Where the proxy listens, as it was reported last.
    pub(super) fn front(&self) -> FrontState {
        self.0.borrow().front.clone()
    }

    /// Whether the proxy has said where it listens, and nothing was settled before.
    pub(super) fn may_settle(&self) -> bool {
        let progress = self.0.borrow();
        !progress.settled && progress.is_met()
    }

    /// The proxy meets clients like this.
    pub(super) fn report_front(&self, front: FrontState) {
        let front = front.tidied();
        let before = self.front();
        match &front.problem {
            Some(problem) if before.problem.as_ref() != Some(problem) => {
                tracing::error!("{problem}; trying again");
            }
            None if before.problem.is_some() => {
                tracing::info!("the proxy listens wherever it should");
            }
            _ => {}
        }
        if before != front {
            self.0.send_modify(|progress| progress.front = front);
        }
    }

    pub(super) fn report_grace(&self, grace: Duration) {
        self.0
            .send_if_modified(|progress| std::mem::replace(&mut progress.grace, grace) != grace);
    }

    /// The start is over: these answer.
    pub(super) fn report_settled(&self, routes: BTreeMap<WorkerName, Vec<Claim>>) {
        self.0
            .send_modify(|progress| (progress.settled, progress.routes) = (true, routes));
    }

    /// What runs, and how far the largest reload is.
    pub(super) fn report_summary(
        &self,
        summary: String,
        routes: BTreeMap<WorkerName, Vec<Claim>>,
        reloaded: Option<(usize, usize)>,
    ) {
        self.0.send_if_modified(|progress| {
            let changed = progress.summary != summary
                || progress.routes != routes
                || progress.reloaded != reloaded;
            (progress.summary, progress.routes) = (summary, routes);
            progress.reloaded = reloaded;
            changed
        });
    }

    /// How many reloads are under way.
    pub(super) fn report_reloading(&self, reloading: usize) {
        self.0.send_if_modified(|progress| {
            std::mem::replace(&mut progress.reloading, reloading) != reloading
        });
    }

    /// Which files are to be watched.
    pub(super) fn report_watched(&self, watched: Watched) {
        let watched = Some(Arc::new(watched));
        self.0.send_if_modified(|progress| {
            let changed = progress.watched != watched;
            progress.watched = watched;
            changed
        });
    }

    pub(super) fn begin_build(&self, instance: &Instance) {
        let building = Building {
            since: Instant::now(),
            line: String::new(),
        };
        self.0.send_modify(|progress| {
            progress.builds.insert(instance.clone(), building);
        });
    }

    /// A build wrote this.
    pub(super) fn report_build(&self, instance: &Instance, line: &str) {
        self.0.send_modify(|progress| {
            if let Some(building) = progress.builds.get_mut(instance) {
                line.clone_into(&mut building.line);
            }
        });
    }

    pub(super) fn end_build(&self, instance: &Instance) {
        self.0
            .send_if_modified(|progress| progress.builds.remove(instance).is_some());
    }
}
