//! What a measurement says: CPU time and memory of processes, and the figures made of them.

use std::fs;
use std::time::Duration;

use rustix::thread::Pid;

use super::load::Run;

/// A process and those it has started.
pub(crate) struct Processes(u32);

/// What one measurement found.
pub(crate) struct Figures {
    /// CPU time of the proxy's processes a request, in microseconds.
    pub(crate) cpu: f64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Microseconds until half of the answers were there.
    pub(crate) median: f64,
    /// The same for 99 of 100.
    pub(crate) p99: f64,
    /// Share of the memory, in MiB, with all connections open.
    pub(crate) memory: f64,
}

impl Processes {
    pub(crate) fn of(pid: u32) -> Self {
        Self(pid)
    }

    fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.0];
        let mut at = 0;
        while let Some(pid) = pids.get(at) {
            // The ones we measure start others from their first thread.
            let children = format!("/proc/{pid}/task/{pid}/children");
            let children = fs::read_to_string(children).unwrap_or_default();
            pids.extend(children.split_whitespace().flat_map(str::parse::<u32>));
            at += 1;
        }
        pids
    }

    pub(crate) fn threads(&self) -> impl Iterator<Item = Pid> {
        self.tasks()
            .into_iter()
            .filter_map(|(_, tid)| Pid::from_raw(i32::try_from(tid).ok()?))
    }

    fn tasks(&self) -> Vec<(u32, u32)> {
        let mut tasks = Vec::new();
        for pid in self.pids() {
            let directory = fs::read_dir(format!("/proc/{pid}/task"));
            let directory = directory.unwrap_or_else(|_| panic!("a contestant has ended: {pid}"));
            let names = directory.flatten().map(|entry| entry.file_name());
            let tids = names.filter_map(|name| name.to_str()?.parse().ok());
            tasks.extend(tids.map(|tid| (pid, tid)));
        }
        tasks
    }

    /// Time on a processor so far, in user space and in the kernel. All that runs must be asleep, or the last tick of it is not seen.
    pub(crate) fn cpu(&self) -> Duration {
        // utime and stime of proc_pid_stat(5) count ticks of 10 ms; the scheduler's own account is of nanoseconds.
        let run = |(pid, tid): (u32, u32)| {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"));
            let text = text.expect("a kernel with schedstat (CONFIG_SCHED_INFO)");
            text.split(' ')
                .next()
                .and_then(|word| word.parse::<u64>().ok())
        };
        let nanos: u64 = self.tasks().into_iter().filter_map(run).sum();
        Duration::from_nanos(nanos)
    }

    /// Proportional share of the memory (PSS), in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let share = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        self.pids().into_iter().filter_map(share).sum::<u64>() << 10
    }
}

impl Figures {
    /// Figures of a run that took `cpu` of the proxy, which then had `memory` bytes.
    pub(crate) fn of(run: Run, cpu: Duration, memory: u64) -> Self {
        let mut latencies = run.latencies;
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = ((latencies.len() - 1) as f64 * share) as usize;
            f64::from(latencies[index]) / 1000.0
        };
        let requests = latencies.len() as f64;
        Self {
            cpu: cpu.as_secs_f64() * 1e6 / requests,
            rate: requests / run.took.as_secs_f64(),
            median: at(0.5),
            p99: at(0.99),
            memory: memory as f64 / (1 << 20) as f64,
        }
    }
}

/// The middle one; of an even number the mean of the two.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() % 2 {
        0 => (figures[middle - 1] + figures[middle]) / 2.0,
        _ => figures[middle],
    }
}
