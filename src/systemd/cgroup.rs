//! The cgroups of a private systemd: one in the unified hierarchy, or one in each hierarchy of cgroup v1 (cgroups(7)).

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The controllers our limits need.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// Hierarchies of cgroup v1 that are divided; `systemd` and `unified` are where it counts its processes.
const HIERARCHIES: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "name=systemd", ""];
/// In the place: which cgroups are ours, for a successor that finds them left over.
const LIST: &str = "cgroups";

/// A directory in each hierarchy.
pub(super) struct Cgroups {
    /// For systemd and all below it.
    ours: Vec<PathBuf>,
    /// Where the keeper itself belongs, hierarchy by hierarchy.
    home: Vec<PathBuf>,
    warning: Option<String>,
}

/// A mounted hierarchy and where in it this process is.
struct Hierarchy {
    /// `cpu`, `name=systemd`; empty: the unified one.
    controllers: Vec<String>,
    mount: PathBuf,
    own: PathBuf,
}

/// Whether systemd can filter the addresses a unit reaches: with a program in the kernel that belongs to a cgroup of the unified
/// hierarchy (systemd.resource-control(5), `IPAddressAllow=`). Where it can not it starts the unit all the same, unfiltered.
pub fn filters_addresses() -> bool {
    /// CGROUP2_SUPER_MAGIC of statfs(2).
    const UNIFIED: i128 = 0x6367_7270;
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|found| i128::from(found.f_type) == UNIFIED)
}

impl Cgroups {
    /// Makes them, below the cgroup this process is in. Their paths go into a file in `place`.
    pub(super) fn make(place: &Path) -> Result<Self, String> {
        let hierarchies =
            hierarchies().map_err(|error| format!("read /proc/self/cgroup: {error}"))?;
        let name = place.file_name().map_or_else(String::new, |name| {
            format!("tqserver-{}", name.to_string_lossy())
        });
        let cgroups = if hierarchies
            .iter()
            .all(|hierarchy| hierarchy.controllers.iter().all(String::is_empty))
        {
            Self::unified(&hierarchies, &name)
        } else {
            Self::legacy(&hierarchies, &name)
        };
        let cgroups =
            cgroups.map_err(|error| format!("make a cgroup for the private systemd: {error}"))?;
        let list: String = cgroups
            .ours
            .iter()
            .map(|path| format!("{}\n", path.display()))
            .collect();
        fs::write(place.join(LIST), list)
            .map_err(|error| format!("write into {}: {error}", place.display()))?;
        Ok(cgroups)
    }

    fn unified(hierarchies: &[Hierarchy], name: &str) -> io::Result<Self> {
        let hierarchy = hierarchies
            .first()
            .ok_or_else(|| io::Error::other("no cgroup file system is mounted"))?;
        let (own, ours) = (hierarchy.own.clone(), hierarchy.own.join(name));
        fs::create_dir_all(&ours)?;
        // A cgroup that hands on controllers holds no processes itself (the root excepted): in a scope of our own we step aside.
        let aside = own.join("keeper");
        let home = if own.extension().is_some_and(|kind| kind == "scope") {
            fs::create_dir_all(&aside)?;
            fs::write(aside.join("cgroup.procs"), std::process::id().to_string())?;
            aside
        } else {
            own.clone()
        };
        for controller in NEEDED {
            let _ = fs::write(own.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        let there = fs::read_to_string(ours.join("cgroup.controllers")).unwrap_or_default();
        let warning =
            missing(|controller| there.split_whitespace().any(|found| found == controller));
        Ok(Self {
            ours: vec![ours],
            home: vec![home],
            warning,
        })
    }

    fn legacy(hierarchies: &[Hierarchy], name: &str) -> io::Result<Self> {
        // systemd looks for itself by one path in all hierarchies: the one it has where it counts processes.
        let counts = hierarchies
            .iter()
            .find(|hierarchy| hierarchy.has("name=systemd"))
            .or_else(|| hierarchies.iter().find(|h| h.has("")));
        let counts =
            counts.ok_or_else(|| io::Error::other("no hierarchy 'name=systemd' is mounted"))?;
        let path = counts
            .own
            .strip_prefix(&counts.mount)
            .unwrap_or(Path::new(""))
            .join(name);
        let mut cgroups = Self {
            ours: Vec::new(),
            home: Vec::new(),
            warning: None,
        };
        let mut divided = Vec::new();
        for hierarchy in hierarchies
            .iter()
            .filter(|hierarchy| HIERARCHIES.iter().any(|wanted| hierarchy.has(wanted)))
            // What lies outside our cgroup name space can be left, and not be entered again.
            .filter(|hierarchy| {
                !hierarchy
                    .own
                    .components()
                    .any(|part| part == Component::ParentDir)
            })
        {
            let ours = hierarchy.mount.join(&path);
            match fs::create_dir_all(&ours) {
                // A user gets the hierarchies in which systemd counts, and none that limits.
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied
                        && !hierarchy.has("name=systemd")
                        && !hierarchy.has("") =>
                {
                    continue;
                }
                made => made?,
            }
            cgroups.ours.push(ours);
            cgroups.home.push(hierarchy.own.clone());
            divided.push(hierarchy);
        }
        cgroups.warning =
            missing(|controller| divided.iter().any(|hierarchy| hierarchy.has(controller)));
        Ok(cgroups)
    }

    /// What can not be limited here.
    pub(super) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Does something, a fork for example, as a member of these cgroups.
    pub(super) fn inside<T>(&self, what: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.ours.iter().try_for_each(|path| enter(path))?;
        let result = what();
        self.home.iter().try_for_each(|path| enter(path))?;
        result
    }

    /// All processes in them but this one.
    pub(super) fn processes(&self) -> Vec<u32> {
        processes(&self.ours)
    }

    /// Removes them; no other process may be in them.
    pub(super) fn remove(&self) {
        // systemd gathers what is in its cgroup into its init.scope when it starts, and may have caught us on our way out.
        for path in &self.home {
            let _ = enter(path);
        }
        remove(&self.ours);
        // What is left of a scope is the user's systemd's to remove.
    }

    /// Those of a keeper that worked in `place` and was killed itself.
    pub(super) fn left_over(place: &Path) -> Self {
        let list = fs::read_to_string(place.join(LIST)).unwrap_or_default();
        Self {
            ours: list.lines().map(PathBuf::from).collect(),
            home: Vec::new(),
            warning: None,
        }
    }
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|found| found == controller)
    }
}

fn missing(has: impl Fn(&str) -> bool) -> Option<String> {
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|controller| !has(controller))
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "limits are not enforced here: no cgroup controller {}",
            missing.join(", ")
        )
    })
}

/// The hierarchies this process sees, from /proc/self/mountinfo and /proc/self/cgroup.
fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let mut found = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let controllers: Vec<String> = controllers.split(',').map(str::to_owned).collect();
        if let Some((root, mount)) = mounts
            .lines()
            .find_map(|mount| mounted(mount, &controllers))
        {
            let path = Path::new(path)
                .strip_prefix(&root)
                .unwrap_or(Path::new(path));
            let own = mount.join(path.strip_prefix("/").unwrap_or(path));
            found.push(Hierarchy {
                controllers,
                mount,
                own,
            });
        }
    }
    Ok(found)
}

/// Root and mount point, when this line of mountinfo (proc_pid_mountinfo(5)) is the hierarchy of these controllers.
fn mounted(line: &str, controllers: &[String]) -> Option<(PathBuf, PathBuf)> {
    let (mount, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    let (kind, options) = (system.next()?, system.nth(1)?);
    let matches = match controllers {
        [unified] if unified.is_empty() => kind == "cgroup2",
        _ => {
            kind == "cgroup"
                && controllers
                    .iter()
                    .all(|wanted| options.split(',').any(|option| option == wanted))
        }
    };
    let mut fields = mount.split(' ').skip(3);
    matches.then_some(())?;
    Some((PathBuf::from(fields.next()?), PathBuf::from(fields.next()?)))
}

fn enter(cgroup: &Path) -> io::Result<()> {
    let file = cgroup.join("cgroup.procs");
    fs::write(&file, std::process::id().to_string())
        .map_err(|error| io::Error::new(error.kind(), format!("enter {}: {error}", file.display())))
}

fn processes(cgroups: &[PathBuf]) -> Vec<u32> {
    let trees = cgroups
        .iter()
        .flat_map(|root| walkdir::WalkDir::new(root).into_iter().flatten());
    let files = trees
        .filter(|entry| entry.file_type().is_dir())
        .map(|entry| entry.path().join("cgroup.procs"));
    let texts = files.filter_map(|file| fs::read_to_string(file).ok());
    let mut pids: Vec<u32> = texts
        .flat_map(|text| {
            text.lines()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids.retain(|pid| *pid != std::process::id());
    pids
}

fn remove(cgroups: &[PathBuf]) {
    for root in cgroups {
        for entry in walkdir::WalkDir::new(root)
            .contents_first(true)
            .into_iter()
            .flatten()
        {
            if entry.file_type().is_dir() {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_among_the_mounts() {
        let v1 = "35 24 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct";
        let v2 = "30 23 0:26 /user.slice /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        let names = |list: &[&str]| {
            list.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            mounted(v1, &names(&["cpu", "cpuacct"])),
            Some(("/".into(), "/sys/fs/cgroup/cpu,cpuacct".into()))
        );
        assert_eq!(mounted(v1, &names(&["memory"])), None);
        assert_eq!(mounted(v1, &names(&[""])), None);
        assert_eq!(
            mounted(v2, &names(&[""])),
            Some(("/user.slice".into(), "/sys/fs/cgroup".into()))
        );
    }

    #[test]
    fn missing_controllers_are_named() {
        assert_eq!(missing(|_| true), None);
        assert!(
            missing(|controller| controller != "memory")
                .unwrap()
                .ends_with("memory")
        );
    }
}
