//! What is to be done: all that the plan asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::note::Note;
use super::reason::Failure;
use super::spec::{Source, Spec};
use crate::names::{Generation, Instance, Pair, WorkerName};
use crate::route::{Address, Protocol, RouteTable};

/// Something to do. Each is performed at once and beside the others.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Build the worker.
    Build(Instance, Spec),
    /// End this build, which nobody waits for any more.
    Abandon(Instance),
    /// Make the files of the generation and start its pairs of units.
    Launch {
        /// Which.
        instance: Instance,
        /// What of.
        spec: Spec,
        /// Its files.
        source: Source,
        /// Where each of its pairs is to listen, in their order.
        addresses: Vec<Address>,
        /// Whether it was accepted before.
        accepted: bool,
    },
    /// Ask for its health.
    Probe {
        /// Comes back in [`super::Event::Probed`].
        id: u64,
        /// Whose.
        pair: Pair,
        /// Where it listens.
        address: Address,
        /// What it speaks there.
        protocol: Protocol,
        /// The path of the request.
        path: String,
        /// Deadline.
        timeout: Duration,
    },
    /// Write down, where the next manager will find it, that it passed.
    Accept(Instance, Spec),
    /// Make its changed assets ready.
    Assets(Instance, Spec),
    /// Bound its units as its settings say now, and write that down for the next boot.
    Limit(Instance, Spec),
    /// Hand the proxy this table.
    Publish(RouteTable),
    /// Stop its pairs of units.
    Stop {
        /// Which.
        instance: Instance,
        /// How many pairs it has.
        pairs: u8,
        /// The pair whose last log lines are wanted, if it failed.
        failed: Option<u8>,
        /// Whether it had passed its check: what is kept of one that had not is not to be started from.
        accepted: bool,
    },
    /// Forget the snapshots of a worker but these, and those after the last: they were begun later.
    Prune {
        /// Whose.
        worker: WorkerName,
        /// Generations that run, or whose files others are made from.
        live: Vec<Generation>,
        /// The newest generation there has been.
        last: Generation,
    },
    /// Look at one worker's directory again; answered by [`super::Event::Looked`] with [`super::Look::Retry`].
    Look(WorkerName),
    /// This file of a worker, by its path in the worker's directory, is the program's own: do not count it any more, and look again.
    Unwatch(WorkerName, String),
    /// Tell who waits for these reloads, and the journal.
    Progress {
        /// The reloads it belongs to.
        reloads: Vec<u64>,
        /// What happened.
        note: Note,
    },
    /// This reload is over.
    Finish {
        /// Which.
        id: u64,
        /// How it went, worker by worker.
        outcomes: BTreeMap<WorkerName, Outcome>,
    },
    /// All units are stopped; the manager can end.
    End,
}

/// How a reload ended for one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing changed; this generation serves on.
    Unchanged(Generation),
    /// This generation was rolled back to, and nothing new was deployed since; it serves on.
    PassedOver(Generation),
    /// A new generation serves.
    Replaced {
        /// The one that served before.
        from: Option<Generation>,
        /// The one that serves now.
        to: Generation,
    },
    /// Only assets changed; they are live, the process is the same.
    Assets,
    /// Its directory is gone, or it is disabled; its route is gone too.
    Removed,
    /// The new generation was not accepted. What served before, if anything, serves on.
    Failed(Failure),
}
