//! What is used and what is left, read from the kernel's own files: one call to systemd for all workers, and not some for each.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bus::Systemd;
use super::cgroup::filters_addresses as is_unified;
use super::interface::property;
use super::object_path::escape;
use crate::names::{Pair, SLICE};

/// Where control groups are mounted (cgroups(7), file-hierarchy(7)).
const MOUNT: &str = "/sys/fs/cgroup";
/// Where the memory of each part of the machine is told, also where /proc has processes alone (`ProcSubset=pid`).
const NODES: &str = "/sys/devices/system/node";

/// What a service uses, as far as the kernel accounts for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// CPU time used since it started.
    pub cpu: Option<Duration>,
}

/// The control group of our slice, by its path in each hierarchy.
#[derive(Clone, Debug)]
pub struct Group {
    path: String,
    unified: bool,
}

impl Systemd {
    /// The control group of our slice; `None`: there is none yet.
    pub async fn group(&self) -> Option<Group> {
        if self.cgroup.get().is_none() {
            const INTERFACE: &str = "org.freedesktop.systemd1.Slice";
            let path = format!("/org/freedesktop/systemd1/unit/{}", escape(SLICE));
            let path = path.try_into().ok()?;
            let ask = || property::<String>(self.connection(), &path, INTERFACE, "ControlGroup");
            let found = self.gate.pass(ask).await.ok()?;
            if found.len() > 1 {
                let _ = self.cgroup.set(found);
            }
        }
        self.known_group()
    }

    /// The same, as far as it was asked for.
    pub fn known_group(&self) -> Option<Group> {
        let path = self.cgroup.get()?.clone();
        let unified = is_unified();
        Some(Group { path, unified })
    }
}

impl Group {
    /// What the service of a pair uses now; nothing when it has no process. Blocks for some microseconds.
    pub fn usage(&self, pair: &Pair) -> Usage {
        let below = format!("{}/{}/{}", self.path, pair.slice(), pair.service_unit());
        if self.unified {
            let group = beneath(MOUNT, &below);
            let usec = keyed(&group.join("cpu.stat"), "usage_usec");
            return Usage {
                memory: number(&group.join("memory.current")),
                cpu: usec.map(Duration::from_micros),
            };
        }
        let memory = beneath("/sys/fs/cgroup/memory", &below);
        let cpu = beneath("/sys/fs/cgroup/cpuacct", &below);
        Usage {
            memory: number(&memory.join("memory.usage_in_bytes")),
            cpu: number(&cpu.join("cpuacct.usage")).map(Duration::from_nanos),
        }
    }

    /// What is left of the limits of our slice, and of those above it, in bytes; `None`: there are none.
    fn left(&self) -> Option<u64> {
        let (mount, most, now) = match self.unified {
            true => (MOUNT, "memory.max", "memory.current"),
            false => (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ),
        };
        let slice = beneath(mount, &self.path);
        let groups = slice.ancestors().take_while(|path| path.starts_with(mount));
        let left = groups.filter_map(|group| {
            let (most, now) = (number(&group.join(most))?, number(&group.join(now))?);
            // What was read from disk long ago is given back when something else wants it.
            let cache = keyed(&group.join("memory.stat"), "inactive_file").unwrap_or(0);
            Some(most.saturating_sub(now.saturating_sub(cache)))
        });
        left.min()
    }
}

/// Memory that can be had, by the machine and by the limits of our slice, in bytes; `None`: that is not known.
pub fn available_memory(group: Option<&Group>) -> Option<u64> {
    let limit = group.and_then(Group::left);
    machine().into_iter().chain(limit).min()
}

/// `MemAvailable` of proc(5), or, where that can not be read, about the same.
fn machine() -> Option<u64> {
    keyed(Path::new("/proc/meminfo"), "MemAvailable:")
        .map(kibibytes)
        .or_else(|| {
            let nodes = fs::read_dir(NODES).ok()?.flatten();
            let files = nodes.map(|node| node.path().join("meminfo"));
            files
                .filter_map(|file| node_memory(&fs::read_to_string(file).ok()?))
                .reduce(u64::saturating_add)
        })
}

/// What can be had of one part of the machine: `Node 0 MemFree: 123 kB`. Of the files that are cached some are always in use.
fn node_memory(text: &str) -> Option<u64> {
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.split_once(key));
        line.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
    };
    let cached = of("Active(file):").unwrap_or(0) / 2 + of("Inactive(file):").unwrap_or(0);
    let slab = of("SReclaimable:").unwrap_or(0) / 2;
    of("MemFree:").map(|free: u64| kibibytes(free + cached + slab))
}

fn kibibytes(number: u64) -> u64 {
    number.saturating_mul(1024)
}

fn beneath(mount: &str, path: &str) -> PathBuf {
    Path::new(mount).join(path.trim_start_matches('/'))
}

/// A file with a number; `None` also for `max`.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number behind `key` at the beginning of a line.
fn keyed(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| match words.next() {
        Some(word) if word == key => words.next()?.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found_where_proc_has_processes_alone() {
        let text = "Node 0 MemTotal: 1000 kB\nNode 0 MemFree: 100 kB\nNode 0 Active(file): 20 kB\n\
                    Node 0 Inactive(file): 30 kB\nNode 0 SReclaimable: 8 kB\n";
        assert_eq!(node_memory(text), Some((100 + 10 + 30 + 4) * 1024));
        assert_eq!(node_memory(""), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available_memory(None).is_some_and(|bytes| bytes > 1 << 20));
    }
}
