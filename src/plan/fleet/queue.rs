//! The queue of all candidates: which may begin now.
//!
//! Starting a process costs processor and memory, so only some are started at the same time
//! ([`Policy::concurrent_starts`]), and only one where another would not fit into the memory that
//! is left. What needs no process does not wait for those that do. Nobody waits for what may have
//! no end: a start has its deadline, and the end of a drain is waited for so long and no longer.
//!
//! [`Policy::concurrent_starts`]: crate::plan::Policy::concurrent_starts

use std::cmp::Reverse;
use std::time::Duration;

use super::Fleet;
use crate::config::WorkerType;
use crate::plan::run::{Run, Stage};
use crate::plan::worker::Candidate;
use crate::plan::{Moment, Source, Spec};

/// Most generations on their way that start no process: files, and sockets of accepted ones that
/// the first request wakes.
const SIDE_BY_SIDE: usize = 64;
/// Most instances that are asked for their first health: the proxy asks so many at a time and some more.
const INSTANCES_SIDE_BY_SIDE: usize = 512;
/// What has been in a stage for longer than this waits for something rather than works, or never
/// becomes ready: it does not keep others from being started.
const SLOW: Duration = Duration::from_secs(10);
/// How long an old generation's last requests are waited for, so that its memory is free: one that
/// may take an hour for them must not keep a failed worker from coming back for so long.
const DRAIN: Duration = Duration::from_secs(30);
/// With those there may be so many times as many under way.
const WITH_SLOW: usize = 4;
/// What an instance is taken to need that has no limit.
const NEED: u64 = 64 << 20;

/// What is under way, or waits.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Instances that are being started.
    fresh: usize,
    /// The same, with those that have been at it for long.
    all: usize,
    /// Memory they may need, in bytes.
    memory: u64,
    /// Generations that start no process.
    quiet: usize,
    /// There is an old generation that ends its requests and then makes room, or is about to.
    frees: bool,
}

impl Fleet {
    /// Begins what waits, as far as there is room: first what somebody waits for, then what has
    /// waited longest, so that no number of broken workers that are tried again keeps the others
    /// out.
    pub(super) fn start_waiting(&mut self) {
        if self.ending {
            return;
        }
        let mut ready: Vec<_> = self
            .workers
            .values()
            .filter(|worker| !worker.is_full())
            .filter_map(|worker| {
                let waiting = worker.waiting.as_ref()?;
                let wanted = !waiting.reloads.is_empty();
                let needs = starts(waiting).then(|| needs(&waiting.spec));
                Some((Reverse(wanted), waiting.since, worker.name.clone(), needs))
            })
            .collect();
        if ready.is_empty() {
            return;
        }
        ready.sort();
        let mut load = self.load();
        // Nobody behind one that does not fit goes before it, or it would wait for ever.
        let (mut starts, mut quiet) = (true, true);
        for (_, _, name, needs) in ready {
            match needs {
                Some((instances, memory)) => {
                    starts &= self.has_room(&load, instances, memory);
                    if !starts {
                        continue;
                    }
                    load.fresh += instances;
                    load.all += instances;
                    load.memory = load.memory.saturating_add(memory);
                }
                None => {
                    quiet &= load.quiet < SIDE_BY_SIDE;
                    if !quiet {
                        continue;
                    }
                    load.quiet += 1;
                }
            }
            self.begin(&name);
        }
    }

    /// Whether so many more instances can be started, which may need so much memory. One that comes
    /// alone always can: whoever waits for others gets its turn when they are over, which each is
    /// in time.
    fn has_room(&self, load: &Load, instances: usize, memory: u64) -> bool {
        if load.all == 0 && !load.frees {
            return true;
        }
        let fits = |available: u64| available.saturating_sub(load.memory) >= memory;
        let has_memory = self.memory.is_none_or(fits);
        if load.all == 0 {
            return has_memory;
        }
        let most = self.policy.concurrent_starts;
        let all = load.all + instances;
        load.fresh + instances <= most
            && all <= (WITH_SLOW * most).min(INSTANCES_SIDE_BY_SIDE)
            && has_memory
    }

    fn load(&self) -> Load {
        let runs = self
            .workers
            .values()
            .flat_map(|worker| worker.runs.values());
        let mut load = Load::default();
        for run in runs {
            // What is ready makes an old generation drain in a moment.
            let frees = matches!(
                run.stage,
                Stage::Switching | Stage::Accepting | Stage::Draining
            );
            load.frees |= frees && run.since + DRAIN > self.now;
            if !run.is_candidate() {
                continue;
            }
            if !run.starts() {
                load.quiet += 1;
                continue;
            }
            // What it waits for now is the proxy's word, or the disk's.
            if run.stage >= Stage::Switching {
                continue;
            }
            let (instances, memory) = needs(&run.spec);
            if run.since + SLOW > self.now {
                load.fresh += instances;
            }
            load.all += instances;
            load.memory = load.memory.saturating_add(memory);
        }
        load
    }

    /// When one that is under way counts as slow, or is not waited for any longer, if something
    /// waits for that.
    pub(super) fn room_due(&self) -> Option<Moment> {
        let workers = || self.workers.values();
        if !workers().any(|worker| worker.waiting.is_some() && !worker.is_full()) {
            return None;
        }
        let runs = workers().flat_map(|worker| worker.runs.values());
        let patience = runs.filter_map(|run| match run.stage {
            Stage::Building | Stage::Launching | Stage::Activating => Some(run.since + SLOW),
            Stage::Switching | Stage::Accepting | Stage::Draining => Some(run.since + DRAIN),
            Stage::Serving | Stage::Stopping => None,
        });
        patience.filter(|at| *at > self.now).min()
    }
}

impl Run {
    /// Whether a process is started on its way. What was accepted before and has a socket is woken
    /// by a request.
    pub(in crate::plan) fn starts(&self) -> bool {
        starts_process(&self.spec, self.source, self.stage == Stage::Building)
    }
}

fn starts(candidate: &Candidate) -> bool {
    starts_process(&candidate.spec, candidate.source, candidate.build)
}

fn starts_process(spec: &Spec, source: Source, build: bool) -> bool {
    let sleeps = matches!(source, Source::Own(_)) && !spec.starts_at_once();
    match spec.settings.kind {
        WorkerType::Static => build && spec.settings.is_static_and_built(),
        _ => build || !sleeps,
    }
}

/// Instances, and the memory they may use in all.
fn needs(spec: &Spec) -> (usize, u64) {
    let instances = spec.settings.instances();
    let each = spec.settings.limits.gomemlimit.map_or(NEED, |most| most.0);
    (
        usize::from(instances),
        each.saturating_mul(instances.into()),
    )
}
