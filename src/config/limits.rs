//! The limits of a worker: those that apply, those that a file sets, and those that no file may pass.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{ByteSize, CpuQuota};
use crate::route::{Flow, Timeouts};

/// What one worker may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Cores: `CPUQuota=` and `GOMAXPROCS`. `None` (0 in the file): all there are.
    pub gomaxprocs: Option<CpuQuota>,
    /// Memory: `MemoryMax=`, and `GOMEMLIMIT` at 90 % of it.
    pub gomemlimit: Option<ByteSize>,
    /// Processes and threads: `TasksMax=`.
    pub tasks_max: Option<u64>,
    /// Memory above which it is slowed down and made to give some back: `MemoryHigh=`.
    #[serde(default)]
    pub memory_high: Option<ByteSize>,
    /// What its state directory may take on the disk: `StateDirectoryQuota=` where systemd has it; everywhere it is measured and warned about.
    // Left out where there is none, so that what such workers are written down as stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_max: Option<ByteSize>,
    /// Its share of the CPU when all want it, 1 to 10000, 100 unless set: `CPUWeight=`.
    #[serde(default)]
    pub cpu_weight: Option<u64>,
    /// Its share of the disks when all want them, 1 to 10000, 100 unless set: `IOWeight=`.
    #[serde(default)]
    pub io_weight: Option<u64>,
    /// How many processes a generation consists of, 1 to 64, each behind a socket or port of its own and with limits of its own.
    // Left out where there is one, so that what other workers are written down as stays the same.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub instances: u8,
    /// Whether the proxy writes a line for each of its requests.
    #[serde(default)]
    pub access_log: bool,
    /// Whether the proxy compresses its answers for clients that take it.
    #[serde(default = "yes")]
    pub compression: bool,
    /// Requests after which a generation is replaced; 0: never.
    pub max_requests: u64,
    /// The proxy's patience with the worker.
    pub timeouts: Timeouts,
    /// How much it is asked at a time.
    // Left out where nothing was set, so that what such workers are written down as stays the same.
    #[serde(default, skip_serializing_if = "Flow::is_default")]
    pub flow: Flow,
    /// Where the worker's output goes instead of the journal: an absolute path with `{path}`, `{name}`, `{date}` to be filled in;
    /// empty: the journal.
    pub log_file: String,
}

/// What of [`Limits`] was so before it could be set.
fn yes() -> bool {
    true
}

fn one() -> u8 {
    1
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(instances: &u8) -> bool {
    *instances == 1
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            gomaxprocs: Some(CpuQuota { cores: 1 }),
            gomemlimit: None,
            tasks_max: None,
            memory_high: None,
            state_max: None,
            cpu_weight: None,
            io_weight: None,
            instances: 1,
            access_log: false,
            compression: true,
            max_requests: 0,
            timeouts: Timeouts {
                read: Duration::from_secs(30),
                write: Duration::from_secs(30),
                idle: Duration::from_secs(120),
            },
            flow: Flow::default(),
            log_file: String::new(),
        }
    }
}

impl Limits {
    /// These limits, with those that are set in `patch` instead.
    #[must_use]
    pub fn with(&self, patch: &LimitsPatch) -> Self {
        let quota = |cores| (cores > 0).then_some(CpuQuota { cores });
        Self {
            gomaxprocs: patch.gomaxprocs.map_or(self.gomaxprocs, quota),
            gomemlimit: patch.gomemlimit.unwrap_or(self.gomemlimit),
            tasks_max: patch.tasks_max.or(self.tasks_max),
            memory_high: patch.memory_high.unwrap_or(self.memory_high),
            state_max: patch.state_max.unwrap_or(self.state_max),
            cpu_weight: patch.cpu_weight.or(self.cpu_weight),
            io_weight: patch.io_weight.or(self.io_weight),
            instances: patch.instances.unwrap_or(self.instances),
            access_log: patch.access_log.unwrap_or(self.access_log),
            compression: patch.compression.unwrap_or(self.compression),
            max_requests: patch.max_requests.unwrap_or(self.max_requests),
            timeouts: Timeouts {
                read: patch.read_timeout.unwrap_or(self.timeouts.read),
                write: patch.write_timeout.unwrap_or(self.timeouts.write),
                idle: patch.idle_timeout.unwrap_or(self.timeouts.idle),
            },
            flow: self.flow_with(patch),
            log_file: patch.log_file.as_ref().unwrap_or(&self.log_file).clone(),
        }
    }

    fn flow_with(&self, patch: &LimitsPatch) -> Flow {
        let flow = self.flow;
        let count = |asked: Option<u64>, or: u32| {
            asked.map_or(or, |asked| u32::try_from(asked).unwrap_or(u32::MAX))
        };
        Flow {
            max_body: match patch.max_body_size {
                Some(size) => size.map(|size| size.0),
                None => flow.max_body,
            },
            max_concurrency: count(patch.max_concurrency, flow.max_concurrency),
            queue_size: count(patch.queue_size, flow.queue_size),
            queue_timeout: patch.queue_timeout.unwrap_or(flow.queue_timeout),
            retries: patch.retries.map_or(flow.retries, |retries| {
                u8::try_from(retries).unwrap_or(u8::MAX)
            }),
            request_timeout: patch.request_timeout.unwrap_or(flow.request_timeout),
        }
    }

    /// `memory_high` and `gomemlimit`, if the first is above the second: the worker would be killed before it is slowed down.
    pub(super) fn high_above_most(&self) -> Option<(ByteSize, ByteSize)> {
        let (high, most) = (self.memory_high?, self.gomemlimit?);
        (high > most).then_some((high, most))
    }
}

/// Limits of which only some are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsPatch {
    /// Cores; 0: no quota.
    pub gomaxprocs: Option<u32>,
    /// Memory; the inner `None` is the empty string: no limit.
    pub gomemlimit: Option<Option<ByteSize>>,
    /// Processes and threads.
    pub tasks_max: Option<u64>,
    /// See [`Limits::memory_high`]; the inner `None` is the empty string: no such limit.
    pub memory_high: Option<Option<ByteSize>>,
    /// See [`Limits::state_max`]; the inner `None` is the empty string: no limit.
    pub state_max: Option<Option<ByteSize>>,
    /// See [`Limits::cpu_weight`].
    pub cpu_weight: Option<u64>,
    /// See [`Limits::io_weight`].
    pub io_weight: Option<u64>,
    /// See [`Limits::instances`].
    pub instances: Option<u8>,
    /// See [`Limits::access_log`].
    pub access_log: Option<bool>,
    /// See [`Limits::compression`].
    pub compression: Option<bool>,
    /// Requests after which a generation is replaced.
    pub max_requests: Option<u64>,
    /// See [`Timeouts::read`].
    pub read_timeout: Option<Duration>,
    /// See [`Timeouts::write`].
    pub write_timeout: Option<Duration>,
    /// See [`Timeouts::idle`].
    pub idle_timeout: Option<Duration>,
    /// See [`Flow::max_body`]; the inner `None` is the empty string: no limit.
    pub max_body_size: Option<Option<ByteSize>>,
    /// See [`Flow::max_concurrency`].
    pub max_concurrency: Option<u64>,
    /// See [`Flow::queue_size`].
    pub queue_size: Option<u64>,
    /// See [`Flow::queue_timeout`].
    pub queue_timeout: Option<Duration>,
    /// See [`Flow::retries`].
    pub retries: Option<u64>,
    /// See [`Flow::request_timeout`].
    pub request_timeout: Option<Duration>,
    /// See [`Limits::log_file`].
    pub log_file: Option<String>,
}

/// Upper bounds for what a worker.yaml may ask for; `None`: any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Most cores.
    pub gomaxprocs: Option<u32>,
    /// Most memory.
    pub gomemlimit: Option<ByteSize>,
    /// Most tasks.
    pub tasks_max: Option<u64>,
    /// Most memory before it is slowed down.
    pub memory_high: Option<ByteSize>,
    /// Most state.
    pub state_max: Option<ByteSize>,
    /// Largest share of the CPU.
    pub cpu_weight: Option<u64>,
    /// Largest share of the disks.
    pub io_weight: Option<u64>,
    /// Largest body of a request.
    pub max_body_size: Option<ByteSize>,
    /// Most requests at a time.
    pub max_concurrency: Option<u64>,
    /// Most requests that wait.
    pub queue_size: Option<u64>,
    /// Most instances.
    pub instances: Option<u8>,
}
