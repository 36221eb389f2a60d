//! Limits as a file says them, and laid over others.

use std::path::Path;
use std::time::Duration;

use super::section::Section;
use super::{Caps, Limits, LimitsPatch};
use crate::limits::{ByteSize, CpuQuota};
use crate::names::INSTANCES_MAX;
use crate::route::{Flow, Timeouts};

/// Most cores that can be asked for; Linux itself ends at 8192.
const MAX_CORES: u64 = 8192;
/// Least and most memory in bytes: with less than the first no program starts, each start would end in an out-of-memory kill.
const MEMORY: (ByteSize, ByteSize) = (ByteSize(1 << 20), ByteSize(1 << 50));
/// Least and most state in bytes: an empty directory takes a block, and few programs are content with that.
const STATE: (ByteSize, ByteSize) = (ByteSize(1 << 20), ByteSize(1 << 50));
/// Most tasks: the kernel's largest number of process ids.
const MAX_TASKS: u64 = 4_194_304;
/// Most requests before a replacement; larger numbers lose precision on their way through other tools' numbers.
const MAX_REQUESTS: u64 = 1 << 53;
/// Weights of the CPU and the disks, as systemd.resource-control(5) has them.
const WEIGHT: std::ops::RangeInclusive<u64> = 1..=10_000;
/// Timeouts in seconds: up to a day.
pub(super) const TIMEOUT: std::ops::RangeInclusive<u64> = 1..=86_400;
/// Smallest and largest body of a request that can be set as the limit.
const BODY: (ByteSize, ByteSize) = (ByteSize(1), ByteSize(1 << 50));
/// Most requests at a time, and most that wait: each is a connection, and a process has no more than so many.
const REQUESTS: u64 = 1_000_000;
/// How long a request can wait in a queue, in seconds; who waited for longer is gone.
const QUEUE_TIMEOUT: std::ops::RangeInclusive<u64> = 1..=3600;
/// Most further tries of a request.
const MAX_RETRIES: u64 = 5;
/// What can be put into a log file's name.
const PLACEHOLDERS: [&str; 3] = ["{path}", "{name}", "{date}"];

impl LimitsPatch {
    /// The limits that may stand in any file.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            gomaxprocs: cores(section, 0),
            gomemlimit: memory_or_none(section, "gomemlimit"),
            tasks_max: section.number("tasks_max", 1..=MAX_TASKS, ""),
            memory_high: memory_or_none(section, "memory_high"),
            state_max: size_or_none(section, "state_max", STATE),
            cpu_weight: section.number("cpu_weight", WEIGHT, "; 100 is systemd's default"),
            io_weight: section.number("io_weight", WEIGHT, "; 100 is systemd's default"),
            instances: instances(section),
            access_log: section.flag("access_log"),
            compression: section.flag("compression"),
            max_requests: section.number("max_requests", 0..=MAX_REQUESTS, "; 0 is no limit"),
            read_timeout: section.seconds("read_timeout_seconds", TIMEOUT),
            write_timeout: section.seconds("write_timeout_seconds", TIMEOUT),
            idle_timeout: section.seconds("idle_timeout_seconds", TIMEOUT),
            max_body_size: size_or_none(section, "max_body_size", BODY),
            max_concurrency: section.number("max_concurrency", 0..=REQUESTS, "; 0 is no limit"),
            queue_size: section.number(
                "queue_size",
                0..=REQUESTS,
                "; with 0 no request waits for its turn",
            ),
            queue_timeout: section.seconds("queue_timeout_seconds", QUEUE_TIMEOUT),
            retries: section.number("retries", 0..=MAX_RETRIES, ""),
            request_timeout: section
                .number(
                    "request_timeout_seconds",
                    0..=*TIMEOUT.end(),
                    ", in seconds and without a unit; 0 is no limit",
                )
                .map(Duration::from_secs),
            log_file: None,
        }
    }

    /// The same with those that only the administrator sets. A relative log file lies below `project`.
    pub(super) fn read_as_root(section: &mut Section<'_>, project: &Path) -> Self {
        Self {
            log_file: log_file(section, project),
            ..Self::read(section)
        }
    }
}

impl Caps {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            gomaxprocs: cores(section, 1),
            gomemlimit: section.size("gomemlimit", MEMORY.0..=MEMORY.1),
            tasks_max: section.number("tasks_max", 1..=MAX_TASKS, ""),
            memory_high: section.size("memory_high", MEMORY.0..=MEMORY.1),
            state_max: section.size("state_max", STATE.0..=STATE.1),
            cpu_weight: section.number("cpu_weight", WEIGHT, ""),
            io_weight: section.number("io_weight", WEIGHT, ""),
            max_body_size: section.size("max_body_size", BODY.0..=BODY.1),
            max_concurrency: section.number("max_concurrency", 1..=REQUESTS, ""),
            queue_size: section.number("queue_size", 0..=REQUESTS, ""),
            instances: instances(section),
        }
    }
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

fn cores(section: &mut Section<'_>, least: u64) -> Option<u32> {
    let unit = if least == 0 {
        " cores; 0 is all there are"
    } else {
        " cores"
    };
    let cores = section.number("gomaxprocs", least..=MAX_CORES, unit)?;
    u32::try_from(cores).ok()
}

fn instances(section: &mut Section<'_>) -> Option<u8> {
    let instances = section.number("instances", 1..=u64::from(INSTANCES_MAX), "")?;
    u8::try_from(instances).ok()
}

/// A size, or the empty text for none.
fn memory_or_none(section: &mut Section<'_>, key: &'static str) -> Option<Option<ByteSize>> {
    size_or_none(section, key, MEMORY)
}

/// A size, or the empty text for none.
fn size_or_none(
    section: &mut Section<'_>,
    key: &'static str,
    (least, most): (ByteSize, ByteSize),
) -> Option<Option<ByteSize>> {
    let item = section.item(key)?;
    if item
        .node()
        .typed::<String>()
        .is_some_and(|text| text.is_empty())
    {
        return Some(None);
    }
    section.size(key, least..=most).map(Some)
}

/// The template of a log file's name as an absolute path; empty for the journal.
fn log_file(section: &mut Section<'_>, project: &Path) -> Option<String> {
    let (text, item) = section.text("log_file")?;
    let path = section.path_of("log_file");
    if text.is_empty() {
        return Some(text);
    }
    let mut rest = text.clone();
    for placeholder in PLACEHOLDERS {
        rest = rest.replace(placeholder, "");
    }
    if rest.contains(['{', '}']) {
        let message = format!("'{path}' has a placeholder that is none");
        item.problem(message, format!("known are {}", PLACEHOLDERS.join(", ")));
        return None;
    }
    let directories = text.ends_with('/') || text.split('/').any(|part| part == "..");
    if directories || text.chars().any(char::is_control) {
        let help = "as in \"logs/{name}_{date}.log\"; \"\" is the journal";
        item.problem(format!("'{path}' must name a file, without '..'"), help);
        return None;
    }
    Some(project.join(text).to_string_lossy().into_owned())
}
