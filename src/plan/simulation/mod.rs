//! A small world around [`Fleet`](super::Fleet), driven by a seed through orders of events and failures that no real machine would
//! show in years: what it is asked to do takes time or gets lost, its proxy comes and goes, and it is killed at any instant.
//!
//! - `disk`: workers, their versions, their snapshots
//! - `systemd`: units and the processes in them
//! - `proxy`: the table it has applied, requests in flight, what it says
//! - `manager`: performs actions, looks at the disk, dies
//! - `check`: what must hold at every step, and what at the end
//!
//! A seed that fails is run again with its trace.

mod check;
pub(super) mod disk;
mod manager;
mod proxy;
mod systemd;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Event, Fleet, Found, Look, Moment, Policy};
use crate::names::{Instance, Pair, WorkerName};
use crate::route::RouteTable;
use check::Asked;
use disk::{Disk, Snapshots};
use manager::Effect;
use proxy::Proxy;
use systemd::Unit;

/// How many worlds are run: some seconds in a debug build. `TQSERVER_SEEDS=100000` hunts longer.
const SEEDS: u64 = 600;
/// How long things go wrong in each.
const TROUBLE: Duration = Duration::from_secs(90);
/// How long it may take then until all is as it should be: the longest wait between two tries, and a start.
const CALM: Duration = Duration::from_secs(160);
const GRACE: Duration = Duration::from_secs(10);
const START: Duration = Duration::from_secs(5);

/// What comes about at some moment.
#[derive(Clone, Debug)]
enum Happening {
    /// The manager of this incarnation hears of it.
    Hear(u64, Event),
    /// The same, of something the proxy said on this link.
    Said(u64, Event),
    /// What the manager of this incarnation began takes effect.
    Effect(u64, Box<Effect>),
    /// The manager of this incarnation has looked at the disk.
    Look(u64, Look),
    /// A table arrives at the proxy on this link.
    Table(u64, Box<RouteTable>),
    /// A health request arrives there.
    Probe(u64, u64, Pair, Duration),
    /// The proxy connects.
    Connect,
    /// Somebody makes a request on each route.
    Requests,
    /// A request ends.
    Answered(Pair, u64),
    /// systemd starts a process again.
    Restart(Pair),
    /// systemd has stopped a pair.
    Gone(Pair),
    /// Something goes wrong, or somebody wants something.
    Trouble,
    /// Somebody asks for a reload of all.
    Ask,
    /// Development: somebody saves a file, and so many more soon after.
    Save(u8),
    /// The same, all files.
    SaveAll,
    /// What waited for something outside gets it.
    Calm,
}

struct World {
    random: fastrand::Rng,
    now: Moment,
    told: bool,
    policy: Policy,
    fleet: Fleet,
    incarnation: u64,
    agenda: BTreeMap<(Moment, u64), Happening>,
    next: u64,
    /// Messages of one kind arrive in the order they were sent: no earlier than the one before.
    lanes: BTreeMap<&'static str, Moment>,
    disk: BTreeMap<WorkerName, Disk>,
    version: u32,
    /// What is available, as the manager is told.
    memory: Option<u64>,
    snapshots: Snapshots,
    units: BTreeMap<Pair, Unit>,
    /// Instances that ended by themselves so that nothing starts them again.
    broken: BTreeSet<Pair>,
    proxy: Proxy,
    /// Nothing goes wrong any more.
    quiet: bool,
    /// What waited for something to come back has it.
    calm: bool,
    stopping: bool,
    ended: bool,
    asked: BTreeMap<u64, Asked>,
    next_reload: u64,
    begun: BTreeSet<Instance>,
    /// Generations that were given up before they were built.
    abandoned: BTreeSet<Instance>,
    stopped: BTreeSet<Instance>,
    ticks: u32,
}

impl World {
    fn new(seed: u64, told: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let policy = Policy {
            concurrent_starts: random.usize(1..=8),
            ..disk::policy(random.bool())
        };
        let mut world = Self {
            now: Moment::ZERO,
            told,
            fleet: Fleet::new(policy.clone()),
            policy,
            incarnation: 0,
            agenda: BTreeMap::new(),
            next: 0,
            lanes: BTreeMap::new(),
            disk: BTreeMap::new(),
            version: 0,
            memory: None,
            snapshots: Snapshots::default(),
            units: BTreeMap::new(),
            broken: BTreeSet::new(),
            proxy: Proxy::default(),
            quiet: false,
            calm: false,
            stopping: false,
            ended: false,
            asked: BTreeMap::new(),
            next_reload: 1,
            begun: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            stopped: BTreeSet::new(),
            ticks: 0,
            random,
        };
        for _ in 0..world.random.usize(1..4) {
            world.change_disk();
        }
        world.start_manager();
        world.soon(500, Happening::Connect);
        world.soon(100, Happening::Requests);
        world.soon(3000, Happening::Trouble);
        world
    }

    fn run(&mut self) {
        self.run_until(TROUBLE);
        if self.random.u8(..4) == 0 {
            self.stopping = true;
            self.quiet = true;
            self.tell(Event::StopAll);
            self.run_until(self.now + CALM);
            return self.check_end();
        }
        self.calm_down();
        self.run_until(self.now + CALM);
        self.check_rest();
    }

    fn run_until(&mut self, end: Moment) {
        while !self.ended {
            let next = self.agenda.first_key_value().map(|(key, _)| key.0);
            let tick = self.fleet.deadline().map(|at| at.max(self.now));
            let Some(at) = next.into_iter().chain(tick).min().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.ticks = if at > self.now { 0 } else { self.ticks };
            self.now = at;
            if next == Some(at)
                && let Some((_, happening)) = self.agenda.pop_first()
            {
                self.happen(happening);
            } else {
                self.ticks += 1;
                assert!(self.ticks < 4, "deadline() stays in the past");
                self.tell(Event::Tick);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Hear(incarnation, event) if incarnation == self.incarnation => {
                self.tell(event)
            }
            Happening::Said(link, event) if Some(link) == self.proxy.link => self.tell(event),
            Happening::Effect(incarnation, effect) => self.take_effect(incarnation, *effect),
            Happening::Look(incarnation, look) if incarnation == self.incarnation => {
                self.look(look)
            }
            Happening::Table(link, table) if Some(link) == self.proxy.link => self.apply(*table),
            Happening::Probe(link, id, pair, timeout) if Some(link) == self.proxy.link => {
                self.probe(id, &pair, timeout);
            }
            Happening::Connect => self.connect(),
            Happening::Requests => self.requests(),
            Happening::Answered(pair, request) => self.answered(&pair, request),
            Happening::Restart(pair) => self.restart(&pair),
            Happening::Gone(pair) => {
                self.units.remove(&pair);
            }
            Happening::Trouble => self.trouble(),
            Happening::Ask => self.reload(Vec::new(), false),
            Happening::Save(more) => self.save(more),
            Happening::SaveAll => self.save_all(),
            Happening::Calm => {
                self.disturb(None);
                self.calm = true;
            }
            // From or to somebody who is not there any more.
            Happening::Hear(..)
            | Happening::Said(..)
            | Happening::Look(..)
            | Happening::Table(..)
            | Happening::Probe(..) => {}
        }
    }

    /// One thing that goes wrong or is wanted, and then another.
    fn trouble(&mut self) {
        if self.quiet {
            return;
        }
        match self.random.u8(..24) {
            22 => self.change_memory(),
            23 => self.lower_limits(),
            20 => self.ask_for_rollback(),
            21 => self.reboot(),
            0 => self.kill_manager(),
            1 => self.unlink(),
            2 => self.restart_proxy(),
            3..6 if self.policy.build => {
                let more = self.random.u8(..4);
                self.save(more);
            }
            3..6 => self.change_disk(),
            6..9 => self.break_something(),
            9 => self.spend_something(),
            10..13 => {
                self.change_disk();
                self.ask_for_reload();
            }
            _ => self.ask_for_reload(),
        }
        self.soon(6000, Happening::Trouble);
    }

    /// Nothing goes wrong from here on, somebody asks for a reload of all or saves all files, and later what waited can work.
    fn calm_down(&mut self) {
        self.quiet = true;
        self.memory = None;
        self.tell(Event::Memory(None));
        for unit in self.units.values_mut() {
            unit.sick = false;
        }
        self.connect();
        // What was begun without a proxy has failed by then.
        let last = match self.policy.build && self.random.bool() {
            true => Happening::SaveAll,
            false => Happening::Ask,
        };
        self.at(self.now + Duration::from_secs(20), last);
        self.at(self.now + Duration::from_secs(60), Happening::Calm);
    }

    fn soon(&mut self, within_ms: u64, happening: Happening) {
        let at = self.now + Duration::from_millis(self.random.u64(1..=within_ms));
        self.at(at, happening);
    }

    fn at(&mut self, at: Moment, happening: Happening) {
        self.next += 1;
        self.agenda.insert((at, self.next), happening);
    }

    fn in_order(&mut self, lane: &'static str, within_ms: u64, happening: Happening) {
        let at = self.now + Duration::from_millis(self.random.u64(0..=within_ms));
        let at = at.max(self.lanes.get(lane).copied().unwrap_or_default());
        self.lanes.insert(lane, at);
        self.at(at, happening);
    }

    fn chance(&mut self, one_in: u8) -> bool {
        self.random.u8(..one_in) == 0
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.told {
            eprintln!("{:9.3} {}", self.now.as_secs_f64(), what());
        }
    }
}

#[test]
fn whatever_happens_no_request_is_lost_and_all_ends_well() {
    let asked = std::env::var("TQSERVER_SEEDS").ok();
    let seeds = asked.and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let worlds = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            let run = |told| World::new(seed, told).run();
            if catch_unwind(AssertUnwindSafe(|| run(false))).is_err() {
                eprintln!("seed {seed}, with its trace:");
                run(true);
            }
        }
    };
    // Worlds do not share anything, so each core has one of its own.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(worlds);
        }
    });
}
