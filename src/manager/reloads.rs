//! The reloads and rollbacks under way: who waits for them, is told how far they are, and how they ended.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use zbus::Connection;

use super::control;
use super::report::{FRONT, front_refused, worker_outcome};
use super::requests::Caller;
use crate::messages;
use crate::names::WorkerName;
use crate::plan::{Fleet, Note, Outcome};

/// Who reloads fewer workers than these sees them all anyway.
const MANY: usize = 10;
/// How often the progress of a reload is reported.
const HOW_FAR_EVERY: Duration = Duration::from_secs(1);

/// Reloads and rollbacks by number.
pub(super) struct Reloads {
    connection: Connection,
    next: u64,
    waiting: HashMap<u64, Waiting>,
}

/// Who waits for one.
struct Waiting {
    caller: Caller,
    /// When the progress was reported last.
    reported_at: Option<Instant>,
}

impl Reloads {
    /// Callers are told of the progress by `connection`.
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            next: 1,
            waiting: HashMap::new(),
        }
    }

    /// Another one begins; returns its number.
    pub(super) fn begin(&mut self, caller: Caller) -> u64 {
        let id = self.next;
        self.next += 1;
        let reported_at = None;
        self.waiting.insert(
            id,
            Waiting {
                caller,
                reported_at,
            },
        );
        id
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.waiting.len()
    }

    /// How far the largest of many workers is: how many are over, and how many there are.
    pub(super) fn largest(&self, fleet: &Fleet) -> Option<(usize, usize)> {
        let reloaded = self.waiting.keys().filter_map(|id| fleet.reloaded(*id));
        let reloaded = reloaded.max_by_key(|(_, all)| *all);
        reloaded.filter(|(_, all)| *all >= MANY)
    }

    /// Tells those who wait for a reload of many workers how far it is, now and then.
    pub(super) fn report_how_far(&mut self, fleet: &Fleet, aside: &mut JoinSet<()>) {
        let now = Instant::now();
        for (
            id,
            Waiting {
                caller,
                reported_at,
            },
        ) in &mut self.waiting
        {
            let Some(((over, all), name)) = fleet.reloaded(*id).zip(caller.name.clone()) else {
                continue;
            };
            let is_early = reported_at.is_some_and(|at| now < at + HOW_FAR_EVERY);
            if all < MANY || over == 0 || over == all || is_early {
                continue;
            }
            *reported_at = Some(now);
            let connection = self.connection.clone();
            aside.spawn(async move {
                let text = format!("{over} of {all}");
                let _ = control::report_how_far(&connection, &name, &text).await;
            });
        }
    }

    /// Tells a line to those who wait for the reloads with these numbers.
    pub(super) fn report(&self, ids: &[u64], note: &Note, aside: &mut JoinSet<()>) {
        let callers = ids
            .iter()
            .filter_map(|id| self.waiting.get(id)?.caller.name.clone());
        for caller in callers {
            let (connection, note) = (self.connection.clone(), note.clone());
            aside.spawn(async move {
                let _ = control::report(&connection, &caller, &note).await;
            });
        }
    }

    /// One is over: the journal and whoever asked for it are told. `refused`: what the proxy could not have, or has not done in time.
    pub(super) fn finish(
        &mut self,
        id: u64,
        outcomes: &BTreeMap<WorkerName, Outcome>,
        refused: Option<String>,
    ) {
        let failed: Vec<&str> = outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
            .map(|(worker, _)| worker.as_str())
            .collect();
        let is_unchanged =
            |outcome: &&Outcome| matches!(outcome, Outcome::Unchanged(_) | Outcome::PassedOver(_));
        let unchanged = outcomes.values().filter(is_unchanged).count();
        let changed = outcomes.len() - failed.len() - unchanged;
        let message_id = messages::RELOAD_FINISHED;
        if failed.is_empty() && refused.is_none() {
            tracing::info!(
                message_id,
                "reload over: {changed} changed, {unchanged} unchanged"
            );
        } else {
            let front = refused.iter().map(|_| FRONT);
            let failed: Vec<&str> = failed.into_iter().chain(front).collect();
            let names = failed.join(", ");
            tracing::error!(
                message_id,
                "reload over: {changed} changed, {unchanged} unchanged, {} failed ({names})",
                failed.len()
            );
        }
        if let Some(Waiting { caller, .. }) = self.waiting.remove(&id) {
            let outcomes = outcomes
                .iter()
                .map(|(worker, outcome)| worker_outcome(worker, outcome, false));
            let front = refused.map(|reason| front_refused(&reason));
            caller.answer(Ok(outcomes.chain(front).collect()));
        }
    }
}
