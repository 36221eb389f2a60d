//! What a house leaves on the machine: processes, cgroups, mounts, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::House;
use super::process::is_alive;

/// What was there of a house while it stood.
pub struct Traces {
    place: PathBuf,
    processes: Vec<u32>,
    cgroups: Vec<PathBuf>,
    mounts: BTreeSet<String>,
}

impl House {
    /// What there is of it now. The mounts are those of a moment before it was opened.
    pub fn traces(&self, mounts: BTreeSet<String>) -> Traces {
        let place = self.place();
        let list = fs::read_to_string(place.join("cgroups")).expect("the place lists its cgroups");
        let cgroups: Vec<PathBuf> = list.lines().map(PathBuf::from).collect();
        let mut processes = Vec::new();
        cgroups
            .iter()
            .for_each(|cgroup| members(cgroup, &mut processes));
        processes.push(self.server().pid());
        processes.sort_unstable();
        processes.dedup();
        assert!(
            processes.len() > 3 && !cgroups.is_empty(),
            "a house without processes or cgroups: {processes:?} {cgroups:?}"
        );
        Traces {
            place,
            processes,
            cgroups,
            mounts,
        }
    }
}

impl Traces {
    /// The process of the private systemd.
    pub fn systemd(&self) -> u32 {
        let systemd = self
            .processes
            .iter()
            .find(|pid| name(**pid).contains("/systemd --user"));
        *systemd.expect("a systemd among the processes")
    }

    /// None of it is there any more, or soon.
    #[track_caller]
    pub fn are_gone(&self) {
        super::until_or(
            || self.left().is_empty(),
            |waited| format!("left behind {waited:?} later: {:#?}", self.left()),
        );
    }

    /// None of it is there any more, now.
    #[track_caller]
    pub fn are_gone_already(&self) {
        assert!(self.left().is_empty(), "left behind: {:#?}", self.left());
    }

    fn left(&self) -> Vec<String> {
        let processes = self
            .processes
            .iter()
            .filter(|pid| is_alive(**pid))
            .map(|pid| format!("process {pid} {}", name(*pid)));
        let files = self
            .cgroups
            .iter()
            .chain([&self.place])
            .filter(|path| path.exists());
        let files = files.map(|path| path.display().to_string());
        let mounts = mounts();
        let mounts = mounts
            .difference(&self.mounts)
            .filter(|line| line.contains("systemd") || line.contains("tqserver"));
        processes.chain(files).chain(mounts.cloned()).collect()
    }
}

/// The mounts of this machine.
pub fn mounts() -> BTreeSet<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    mounts.lines().map(str::to_owned).collect()
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .unwrap_or_default()
        .replace('\0', " ")
}

fn members(cgroup: &Path, found: &mut Vec<u32>) {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    found.extend(own.lines().filter_map(|pid| pid.parse::<u32>().ok()));
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members(&entry.path(), found);
        }
    }
}

/// The cgroup directory of a process in the hierarchy of this controller, v1 or v2.
pub fn cgroup_of(pid: u32, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let line = |wanted: &str| {
        let mut lines = text.lines().map(|line| line.splitn(3, ':').skip(1));
        lines.find_map(|mut fields| {
            let controllers = fields.next()?;
            controllers
                .split(',')
                .any(|found| found == wanted)
                .then(|| fields.next().map(str::to_owned))?
        })
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let mut system = system.split(' ');
            let found = system.next()? == kind
                && (option.is_empty() || system.nth(1)?.split(',').any(|found| found == option));
            found.then(|| {
                mount
                    .split(' ')
                    .skip(3)
                    .take(2)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
        })
    };
    let (mount, path) = match line(controller) {
        Some(path) => (mounted("cgroup", controller), path),
        None => (
            mounted("cgroup2", ""),
            line("").expect("a process is in a cgroup"),
        ),
    };
    let mount = mount.expect("the hierarchy is mounted");
    let path = path.strip_prefix(&mount[0]).unwrap_or(&path);
    Path::new(&mount[1]).join(path.trim_start_matches('/'))
}
