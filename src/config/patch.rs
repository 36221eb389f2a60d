//! Limits as a file says them.

use std::path::Path;
use std::time::Duration;

use super::limits::{Caps, LimitsPatch};
use super::section::Section;
use crate::limits::ByteSize;
use crate::names::INSTANCES_MAX;

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
