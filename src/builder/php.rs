//! php-fpm: where it is, what it is told, and what it is configured with.
//!
//! Its configuration is made here and nowhere else: a worker sets PHP's own options in `.user.ini` files and by `ini_set`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::program::{Unavailable, executable};
use crate::config::Limits;
use crate::limits::cores;

/// The name of its configuration among what a worker is handed. No name of a secret begins with a dot.
pub const CONFIGURATION: &str = ".php-fpm.conf";

/// The variable by which php-fpm knows the socket that systemd has opened, file descriptor 3: by the name of the pool's socket. When it
/// exits it removes what has this name. That must be nothing, and there can be nothing below /dev/null.
pub const SOCKETS: (&str, &str) = ("FPM_SOCKETS", "/dev/null/worker=3");
const LISTEN: &str = "/dev/null/worker";

/// Where it is installed, beside the directories of the search path.
const DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
const NAME: &str = "php-fpm";

/// Processes for each core: most requests wait for a database and not for the processor.
const CHILDREN_PER_CORE: u64 = 8;
const FEWEST_CHILDREN: u64 = 8;
const MOST_CHILDREN: u64 = 256;
/// A process is taken to need that much memory when a worker has a limit.
const MEMORY_OF_A_CHILD: u64 = 24 << 20;

/// One worker's pool of processes.
#[derive(Debug)]
pub struct Pool<'a> {
    /// What they may use together.
    pub limits: &'a Limits,
    /// Whether their memory may be writable and executable.
    pub jit: bool,
    /// The worker's directory for what outlives its generations.
    pub state: &'a Path,
    /// How long requests may take to end at a stop.
    pub patience: Duration,
    /// They are root's.
    pub root: bool,
}

/// The php-fpm of the highest version; one without a version in its name only where there is no other.
pub(super) fn fpm(path: &OsStr) -> Result<String, Unavailable> {
    let directories: Vec<PathBuf> = std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .chain(DIRECTORIES.map(PathBuf::from))
        .collect();
    newest(&directories).ok_or_else(|| Unavailable::NoToolchain {
        program: NAME.to_owned(),
        install: "apt install php-fpm",
    })
}

fn newest(directories: &[PathBuf]) -> Option<String> {
    let mut best: Option<((u32, u32), String)> = None;
    for directory in directories {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries {
            let Some(version) = version(&entry.file_name()) else {
                continue;
            };
            // Of two of the same version the one that is found first.
            if best.as_ref().is_some_and(|(best, _)| *best >= version) {
                continue;
            }
            if let Ok(program) = executable(&entry.path(), NAME) {
                best = Some((version, program));
            }
        }
    }
    best.map(|(_, program)| program)
}

/// The version in the name of a php-fpm: 8.2 of `php-fpm8.2`, 0.0 of `php-fpm`.
fn version(name: &OsString) -> Option<(u32, u32)> {
    let rest = name.to_str()?.strip_prefix(NAME)?;
    if rest.is_empty() {
        return Some((0, 0));
    }
    let (major, minor) = rest.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The arguments of php-fpm, whose configuration is the file that `configuration` names.
pub fn arguments(configuration: &str, root: bool) -> Vec<String> {
    let mut arguments = vec![
        "--nodaemonize".to_owned(),
        // Else its log goes to the file its configuration names, unless standard error is a terminal.
        "--force-stderr".to_owned(),
        "--fpm-config".to_owned(),
        configuration.to_owned(),
    ];
    if root {
        arguments.push("--allow-to-run-as-root".to_owned());
    }
    arguments
}

impl Pool<'_> {
    /// Most processes, each of which answers one request: more requests wait in the socket.
    fn children(&self) -> u64 {
        let cores = match self.limits.gomaxprocs {
            Some(quota) => u64::from(quota.cores),
            None => cores() as u64,
        };
        let children = (cores * CHILDREN_PER_CORE).clamp(FEWEST_CHILDREN, MOST_CHILDREN);
        let memory = self.limits.gomemlimit.map(|memory| memory.0);
        let fit = memory.map_or(children, |memory| memory / MEMORY_OF_A_CHILD);
        // One is the master.
        let allowed = self
            .limits
            .tasks_max
            .map_or(children, |tasks| tasks.saturating_sub(1));
        children.min(fit).min(allowed).max(1)
    }
}

impl fmt::Display for Pool<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[global]")?;
        // Nothing is written to it, and it is opened all the same: its default is in /var/log.
        writeln!(f, "error_log = /dev/null")?;
        writeln!(f, "log_limit = 8192")?;
        writeln!(
            f,
            "process_control_timeout = {}s",
            self.patience.as_secs().max(1)
        )?;
        writeln!(f, "[worker]")?;
        if self.root {
            writeln!(f, "user = root\ngroup = root")?;
        }
        writeln!(f, "listen = {LISTEN}")?;
        writeln!(f, "pm = ondemand")?;
        writeln!(f, "pm.max_children = {}", self.children())?;
        writeln!(f, "pm.process_idle_timeout = 30s")?;
        writeln!(f, "catch_workers_output = yes")?;
        writeln!(f, "decorate_workers_output = no")?;
        writeln!(f, "clear_env = no")?;
        writeln!(f, "security.limit_extensions = .php")?;
        // What PHP has to say belongs into the worker's log and not into the web server's.
        writeln!(f, "php_admin_value[fastcgi.logging] = 0")?;
        // The distribution's place is its own user's, and swept by a job of its own; sessions outlive a generation.
        writeln!(
            f,
            "php_value[session.save_path] = \"{}\"",
            self.state.display()
        )?;
        writeln!(f, "php_value[session.gc_probability] = 1")?;
        if !self.jit {
            writeln!(f, "php_admin_value[pcre.jit] = 0")?;
            writeln!(f, "php_admin_value[opcache.jit] = disable")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Settings;
    use crate::limits::{ByteSize, CpuQuota};

    fn limits() -> Limits {
        Settings::defaults_at(Path::new("/srv")).default.clone()
    }

    fn children(change: impl FnOnce(&mut Limits)) -> u64 {
        let mut limits = limits();
        limits.gomaxprocs = Some(CpuQuota { cores: 4 });
        limits.gomemlimit = None;
        limits.tasks_max = None;
        change(&mut limits);
        let pool = Pool {
            limits: &limits,
            jit: true,
            state: Path::new("/var/lib/x"),
            patience: Duration::ZERO,
            root: false,
        };
        pool.children()
    }

    #[test]
    fn there_are_as_many_processes_as_the_limits_allow_and_never_none() {
        assert_eq!(children(|_| {}), 32);
        assert_eq!(
            children(|of| of.gomaxprocs = Some(CpuQuota { cores: 1 })),
            8
        );
        assert_eq!(children(|of| of.gomemlimit = Some(ByteSize(240 << 20))), 10);
        assert_eq!(children(|of| of.tasks_max = Some(5)), 4);
        assert_eq!(children(|of| of.tasks_max = Some(1)), 1);
        assert_eq!(children(|of| of.gomemlimit = Some(ByteSize(1))), 1);
    }

    #[test]
    fn the_php_fpm_of_the_highest_version_runs() {
        let directory = tempfile::tempdir().unwrap();
        let add = |name: &str, mode| {
            let path = directory.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let found = || {
            let found = newest(&[directory.path().to_owned()])?;
            Some(Path::new(&found).file_name()?.to_str()?.to_owned())
        };
        assert_eq!(found(), None);
        add("php-fpm", 0o755);
        assert_eq!(found().as_deref(), Some("php-fpm"));
        add("php-fpm8.9", 0o755);
        add("php-fpm8.10", 0o755);
        add("php-fpm9.0", 0o644);
        add("php-fpm8.11.bak", 0o755);
        add("php-fpmx", 0o755);
        assert_eq!(found().as_deref(), Some("php-fpm8.10"));
    }
}
