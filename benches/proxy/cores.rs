//! Who runs on which core.

use std::cell::Cell;

use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};

use super::measure::Processes;
use super::scenario::Place;

/// Two cores of those this process may use.
pub(crate) struct Cores {
    proxy: CpuSet,
    load: CpuSet,
    both: CpuSet,
    main: Pid,
    worker: Cell<Option<Pid>>,
}

impl Cores {
    /// Takes two cores, and puts the thread that calls, which is to make the load, on one of them.
    ///
    /// # Panics
    /// If there are no two.
    pub(crate) fn choose() -> Self {
        let allowed = sched_getaffinity(None).expect("the cores of this process");
        let mut numbers = (0..CpuSet::MAX_CPU).filter(|number| allowed.is_set(*number));
        let (Some(first), Some(second)) = (numbers.next(), numbers.next()) else {
            panic!("two cores are needed: one for the proxies, one for load and worker");
        };
        let set = |numbers: &[usize]| {
            let mut set = CpuSet::new();
            numbers.iter().for_each(|number| set.set(*number));
            set
        };
        let cores = Self {
            proxy: set(&[first]),
            load: set(&[second]),
            both: set(&[first, second]),
            main: gettid(),
            worker: Cell::new(None),
        };
        pin(cores.main, &cores.load);
        cores
    }

    /// The worker's thread, which has the load's core from its start.
    pub(crate) fn set_worker(&self, worker: Pid) {
        self.worker.set(Some(worker));
    }

    /// Starts something that is to run where the proxies do, and is to know from the start that there is no other core.
    pub(crate) fn started<T>(&self, start: impl FnOnce() -> T) -> T {
        pin(self.main, &self.proxy);
        let started = start();
        pin(self.main, &self.load);
        started
    }

    /// Moves load, worker and a proxy.
    pub(crate) fn place(&self, place: Place, proxy: &Processes) {
        let (ours, theirs) = match place {
            Place::Apart => (&self.load, &self.proxy),
            Place::Anywhere => (&self.both, &self.both),
        };
        pin(self.main, ours);
        self.worker.get().iter().for_each(|tid| pin(*tid, ours));
        proxy.threads().for_each(|tid| pin(tid, theirs));
    }
}

fn pin(tid: Pid, cores: &CpuSet) {
    sched_setaffinity(Some(tid), cores).expect("a thread of ours moves to a core of ours");
}
