//! All workers together: events in, actions out.
//!
//! - `workers`: who they are, and which of them may have changed
//! - `adopt`: what was there when the manager started
//! - `look`: what lies on disk, and what a reload makes of it
//! - `ruling`: what the administrator does not allow any more
//! - `save`: what a file that was saved makes of it
//! - `written`: files that a program changes itself
//! - `queue`: which candidate may begin now
//! - `candidate`: a generation's way from the queue to its acceptance, or to its end
//! - `serving`: what happens to a generation that serves
//! - `assets`: new files for the same process
//! - `part`, `table`: what the proxy is handed, and what holds once it serves by that
//! - `time`: what is due without anything happening
//! - `tell`: what others learn of it

mod adopt;
mod assets;
mod candidate;
mod look;
mod part;
mod queue;
mod ruling;
mod save;
mod serving;
mod table;
mod tell;
#[cfg(test)]
mod tests;
mod time;
mod workers;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::part::Part;
use self::workers::Workers;
use super::run::{Run, Stage};
use super::worker::Worker;
use super::{Action, Event, Kind, Moment, Outcome, Policy, Reason, Spec};
use crate::names::{Generation, Instance, Pair, WorkerName};
use crate::route::{Halt, RouteTable};

/// What a stop of everything may take beyond the grace of workers: what is being started is stopped after that.
const END_EXTRA: Duration = Duration::from_secs(60);

type Looked = BTreeMap<WorkerName, Result<Spec, Reason>>;

/// The state of all workers.
pub struct Fleet {
    policy: Policy,
    workers: Workers,
    /// The highest numbers of workers that are gone: should they come again, their generations go on from there.
    numbers: BTreeMap<WorkerName, Generation>,
    reloads: BTreeMap<u64, Reload>,
    /// What operators have put before workers, also before those that are not there (any more).
    halts: BTreeMap<WorkerName, Halt>,
    /// Outcomes that hold once the proxy serves by the table they led to.
    switches: Vec<Switch>,
    linked: bool,
    /// Memory that is available, as far as that is known.
    memory: Option<u64>,
    /// After a start: until when no table is published, so that no client is told of a worker that is about to be back.
    opening: Option<Moment>,
    started: bool,
    /// Each worker's part of the table.
    parts: BTreeMap<WorkerName, Part>,
    published: Option<RouteTable>,
    serial: u64,
    /// The table by which the proxy serves, as far as it has said on this link.
    applied: Option<u64>,
    probes: BTreeMap<u64, Pair>,
    next_probe: u64,
    ending: bool,
    /// When it ends at the latest, whatever is left.
    end_by: Option<Moment>,
    ended: bool,
    /// Ports that somebody else was found to hold.
    shunned: BTreeSet<u16>,
    /// While what was saved is taken: when that was.
    saving: Option<Moment>,
    now: Moment,
    actions: Vec<Action>,
}

struct Reload {
    pending: BTreeSet<WorkerName>,
    outcomes: BTreeMap<WorkerName, Outcome>,
}

struct Switch {
    worker: WorkerName,
    reloads: Vec<u64>,
    outcome: Outcome,
    serial: Option<u64>,
    since: Moment,
    /// What is told then.
    news: Option<News>,
}

/// A generation of saved files is live.
struct News {
    instance: Instance,
    kind: Kind,
    saved: Moment,
    build_time: Option<Duration>,
}

impl Fleet {
    /// A fleet without workers.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            workers: Workers::default(),
            numbers: BTreeMap::new(),
            reloads: BTreeMap::new(),
            halts: BTreeMap::new(),
            switches: Vec::new(),
            linked: false,
            memory: None,
            opening: None,
            started: false,
            parts: BTreeMap::new(),
            published: None,
            serial: 0,
            applied: None,
            probes: BTreeMap::new(),
            next_probe: 0,
            ending: false,
            end_by: None,
            ended: false,
            shunned: BTreeSet::new(),
            saving: None,
            now: Moment::ZERO,
            actions: Vec::new(),
        }
    }

    /// Takes one event and says what to do now.
    pub fn step(&mut self, now: Moment, event: Event) -> Vec<Action> {
        self.now = now;
        self.take(event);
        self.act_on_time();
        self.start_waiting();
        self.forget_removed();
        self.publish();
        self.settle();
        self.finish_reloads();
        let is_over = self.workers.values().all(|worker| worker.runs.is_empty())
            || self.end_by.is_some_and(|at| at <= now);
        if self.ending && !self.ended && is_over {
            self.ended = true;
            self.actions.push(Action::End);
        }
        std::mem::take(&mut self.actions)
    }

    /// Whom the simulation looks at.
    #[cfg(test)]
    pub(super) fn workers(&self) -> &BTreeMap<WorkerName, Worker> {
        &self.workers
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Adopted(found) => self.adopt(found),
            Event::Looked {
                look,
                workers,
                snapshots,
            } => self.looked(look, workers, snapshots),
            Event::Strangers(strangers) => self.make_room_for(&strangers),
            Event::Rollback { id, instance, spec } => self.roll_back(id, &instance, *spec),
            Event::Ruled(ruling) => self.ruled(*ruling),
            Event::Memory(available) => self.memory = available,
            Event::Configured(policy) => {
                self.policy = *policy;
                self.workers.touch_all();
            }
            Event::Halted(halts) => {
                self.halts = halts;
                self.workers.touch_all();
            }
            Event::Built(instance, result) => self.built(&instance, result),
            Event::Launched(instance, result) => self.launched(&instance, result),
            Event::Unit(pair, state) => self.unit_changed(&pair, state),
            Event::SocketFailed(pair) => self.socket_failed(&pair),
            Event::Probed(id, outcome) => self.probed(id, &outcome),
            Event::Exposed(id) => self.exposed(id),
            Event::Accepted(instance, result) => self.accepted(&instance, result),
            Event::AssetsReady(instance, result) => self.assets_ready(&instance, result),
            Event::Stopped(instance, log) => self.stopped(&instance, log),
            Event::Linked => self.linked(),
            Event::Unlinked => self.unlinked(),
            Event::Applied(serial) => self.applied = Some(serial),
            Event::Drained(instance) => self.drained(&instance),
            Event::Spent(instance) => self.spent(&instance),
            Event::StopAll => self.stop_all(),
            Event::Tick => {}
        }
    }

    fn run(&mut self, instance: &Instance) -> Option<&mut Run> {
        self.workers
            .get_mut(&instance.worker)?
            .runs
            .get_mut(&instance.generation)
    }

    fn worker(&mut self, name: &WorkerName) -> &mut Worker {
        let numbers = &mut self.numbers;
        self.workers.get_or_insert_with(name, || {
            let mut worker = Worker::new(name.clone());
            worker.newest = numbers.remove(name).unwrap_or(worker.newest);
            worker
        })
    }

    /// The generations of which something is true, to be changed.
    fn select_runs(&mut self, is_meant: fn(&Run) -> bool) -> impl Iterator<Item = &mut Run> {
        let has_one = move |worker: &Worker| worker.runs.values().any(is_meant);
        let workers = self.workers.select(has_one);
        let runs = workers.flat_map(|worker| worker.runs.values_mut());
        runs.filter(move |run| is_meant(run))
    }

    /// Stops a generation's units; `failed`: why, if not because its time has come.
    fn stop(&mut self, instance: &Instance, failed: Option<Reason>) {
        let now = self.now;
        let Some(run) = self.run(instance) else {
            return;
        };
        run.enter(Stage::Stopping, now);
        run.failed = failed.or(run.failed.take());
        // Of what was removed nobody wants to know how it ended.
        let wanted = run.failed.as_ref().filter(|why| !why.is_unwanted());
        let failed_pair = wanted.map(|why| match why {
            Reason::Instance(number, _) => *number,
            _ => 1,
        });
        let (pairs, accepted) = (run.pairs(), run.accepted);
        self.actions.push(Action::Stop {
            instance: instance.clone(),
            pairs,
            failed: failed_pair,
            accepted,
        });
    }

    fn stop_all(&mut self) {
        self.ending = true;
        self.end_by = Some(self.now + self.policy.grace + END_EXTRA);
        let mut stop = Vec::new();
        for worker in self.workers.select(|_| true) {
            (worker.waiting, worker.retry_at, worker.retry_after) = (None, None, None);
            worker.trouble = Some(Reason::Refused("the server is being stopped".to_owned()));
            worker.runs.retain(|_, run| run.stage != Stage::Building);
            for (number, run) in &mut worker.runs {
                match run.stage {
                    Stage::Stopping => {}
                    // Its units are being made this moment: they can be stopped when that has ended.
                    Stage::Launching => run.failed = Some(Reason::Removed),
                    _ => stop.push(instance(&worker.name, *number)),
                }
            }
        }
        for instance in stop {
            self.stop(&instance, None);
        }
    }

    /// What was removed and has nothing left is forgotten, but for its number.
    fn forget_removed(&mut self) {
        let is_gone =
            |worker: &&Worker| worker.removed && worker.runs.is_empty() && worker.waiting.is_none();
        let gone = self.workers.values().filter(is_gone);
        let gone: Vec<WorkerName> = gone.map(|worker| worker.name.clone()).collect();
        for name in gone {
            if let Some(worker) = self.workers.remove(&name) {
                self.numbers.insert(name, worker.newest);
            }
        }
    }
}

fn instance(name: &WorkerName, generation: Generation) -> Instance {
    Instance::new(name.clone(), generation)
}
