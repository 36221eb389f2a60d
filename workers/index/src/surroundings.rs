//! What a worker can learn about the place it runs in, without asking anyone.

use std::env;
use std::fs;
use std::time::Instant;

/// What does not change while the process lives. `None`: there is no such thing, or it can not be seen from here.
pub struct Surroundings {
    /// The unit this process is in, such as `tqserver-index@42.service`.
    pub unit: Option<String>,
    /// The number in the unit's name.
    pub generation: Option<String>,
    /// The worker's name.
    pub worker: String,
    /// Its place in the URL space.
    pub route: String,
    /// `development` or `production`.
    pub mode: String,
    /// The most memory it may use.
    pub memory_limit: Option<String>,
    /// When it started.
    pub started: Instant,
}

impl Surroundings {
    /// Looks at the environment and the process's control group.
    pub fn look_around() -> Self {
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let unit = unit_of(&cgroup).map(str::to_owned);
        let variable =
            |name, otherwise: &str| env::var(name).unwrap_or_else(|_| otherwise.to_owned());
        Self {
            generation: unit.as_deref().and_then(generation_of).map(str::to_owned),
            unit,
            worker: variable("WORKER_NAME", "index"),
            route: variable("WORKER_ROUTE", "/"),
            mode: variable("WORKER_MODE", "development"),
            memory_limit: memory_limit(&cgroup),
            started: Instant::now(),
        }
    }
}

/// The path in the unified hierarchy (cgroups(7)): the line that starts with `0::`.
fn path_of(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

fn unit_of(cgroup: &str) -> Option<&str> {
    let mut parts = path_of(cgroup)?.rsplit('/');
    parts.find(|part| part.ends_with(".service"))
}

fn generation_of(unit: &str) -> Option<&str> {
    let (_, instance) = unit.strip_suffix(".service")?.split_once('@')?;
    Some(instance)
}

/// The limit its unit has, in the unified hierarchy or in that of cgroup v1; a sandbox may hide both.
fn memory_limit(cgroup: &str) -> Option<String> {
    let unified = path_of(cgroup).map(|path| format!("/sys/fs/cgroup{path}/memory.max"));
    let legacy = cgroup
        .lines()
        .find_map(|line| line.split_once(":memory:"))
        .map(|(_, path)| format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"));
    let files = [unified, legacy].into_iter().flatten();
    let limit = files.flat_map(fs::read_to_string).next()?;
    limit.trim().parse().ok().map(readable)
}

fn readable(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_and_the_generation_are_in_the_control_group() {
        let cgroup =
            "1:name=systemd:/\n0::/tqserver.slice/tqserver-index.slice/tqserver-index@42.service\n";
        assert_eq!(unit_of(cgroup), Some("tqserver-index@42.service"));
        assert_eq!(generation_of("tqserver-index@42.service"), Some("42"));
    }

    #[test]
    fn a_process_outside_of_a_unit_has_none() {
        assert_eq!(unit_of("0::/user.slice/run-1.scope\n"), None);
        assert_eq!(unit_of(""), None);
        assert_eq!(generation_of("ssh.service"), None);
    }

    #[test]
    fn limits_are_readable() {
        assert_eq!(readable(64 << 20), "64 MiB");
        assert_eq!(readable(4096), "4 KiB");
    }
}
