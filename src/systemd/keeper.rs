//! The keeper of a private systemd: a process between `tqserver` and that systemd.
//!
//! It prepares what `systemd --user` needs where none was booted (a mount name space with an empty /run/systemd, a cgroup of its
//! own in each hierarchy), starts it, says "up" on its standard output, and waits. Its standard input is the lifeline: when the
//! other end closes, for whatever reason, `kill -9` included, everything is taken down: processes, cgroups, files. The mount name
//! space ends with the last process in it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::cgroup::Cgroups;

/// The hidden verb of the command line that runs a keeper.
pub const VERB: &str = "keep";
/// Environment variables that tell it where to work, and of which directory of unit files systemd may load.
pub(super) const PLACE: &str = "KEEPER_PLACE";
pub(super) const UNITS: &str = "KEEPER_UNITS";

/// Longest wait for `READY=1` of the private systemd.
const READY: Duration = Duration::from_secs(20);
/// How long processes may take to end on SIGTERM before they get SIGKILL.
const TERM: Duration = Duration::from_secs(3);

/// What the private systemd sees a version of its own of: where none was booted it would miss the first, and leave files in the second.
const HIDDEN: [&str; 2] = ["/run/systemd", "/run/user"];

const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
const DBUS_DAEMON: &str = "/usr/bin/dbus-daemon";

/// Unit files the private systemd needs: its bus, and the targets that default dependencies name.
const UNIT_FILES: [(&str, &str); 6] = [
    (
        "tqserver-private.target",
        "[Unit]\nRequires=dbus.socket basic.target\nAfter=dbus.socket basic.target\n",
    ),
    // systemd says READY=1 when this one is reached, so the bus has to be before it.
    (
        "basic.target",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n",
    ),
    ("sockets.target", "[Unit]\nDefaultDependencies=no\n"),
    ("shutdown.target", "[Unit]\nDefaultDependencies=no\n"),
    (
        "dbus.socket",
        "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=%t/bus\n",
    ),
    (
        "dbus.service",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\n\
         ExecStart=/usr/bin/dbus-daemon --config-file=%t/dbus.conf --address=systemd: --nofork --nopidfile --systemd-activation\n",
    ),
];

/// A bus for one user's processes, without service activation: nothing of a desktop is started by it. The address is required
/// by the format and overridden on the command line. A connection may wait for no more replies than on a machine's
/// bus, so that what would fail there fails in development.
const DBUS_CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:tmpdir=/tmp</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
  <limit name="max_replies_per_connection">128</limit>
</busconfig>
"#;

/// Runs the keeper until its lifeline is cut, and returns its exit code.
pub fn run() -> u8 {
    let mut go = [0u8];
    // The other side says go when we are in the cgroup we may divide; if it is gone instead, so are we.
    if !matches!(io::stdin().read(&mut go), Ok(1)) {
        return 1;
    }
    match keep() {
        Ok(()) => 0,
        Err(sentence) => {
            let _ = writeln!(io::stdout(), "{sentence}");
            1
        }
    }
}

fn keep() -> Result<(), String> {
    let place = PathBuf::from(std::env::var_os(PLACE).ok_or("the keeper was not told its place")?);
    // Ctrl-C in the terminal is for the server alone, and the orphans of systemd are ours.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"private-systemd");
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("become a subreaper: {error}"))?;
    let systemd = SYSTEMD.iter().find(|path| Path::new(path).exists());
    let systemd = systemd.ok_or("systemd is not installed; apt install systemd")?;
    if !Path::new(DBUS_DAEMON).exists() {
        return Err("dbus-daemon is not installed; apt install dbus-daemon".to_owned());
    }
    let _lock = occupy(&place)?;
    let left_over = Cgroups::left_over(&place);
    take_down(&left_over);
    left_over.remove();
    empty(&place);
    let result = keep_at(&place, systemd);
    leave(&place);
    result
}

/// A directory for its owner alone; one that somebody else made there first is refused.
fn make(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => return result,
    }
    let found = fs::symlink_metadata(path)?;
    if found.is_dir()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o077 == 0
    {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it exists and is not a directory of yours alone",
        ))
    }
}

/// Removes everything in the place.
fn empty(place: &Path) {
    // What systemd shows in place of things that are not to be had has no permissions at all, not even for its owner to remove it.
    let barred = place.join("systemd/inaccessible");
    for directory in [&barred, &barred.join("dir")] {
        let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    }
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let _ = if is_directory {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
    }
}

/// As far as systemd needs it, with a /run/systemd of its own.
fn keep_at(place: &Path, systemd: &str) -> Result<(), String> {
    if !sd_notify::booted().unwrap_or(false) {
        hide_run_systemd(place)?;
    }
    keep_in_cgroups(place, systemd)
}

/// From the first cgroup to the last.
fn keep_in_cgroups(place: &Path, systemd: &str) -> Result<(), String> {
    let cgroups = Cgroups::make(place)?;
    let started = write_files(place)
        .map_err(|error| format!("write into {}: {error}", place.display()))
        .and_then(|()| start(systemd, place, &cgroups));
    let result = started.map(|mut systemd| {
        let _ = writeln!(io::stdout(), "up {}", cgroups.warning().unwrap_or_default());
        wait(&mut systemd);
        // It must not start anything again while the rest is taken down. The rest gets time to end by itself.
        let _ = systemd.kill();
        let _ = systemd.wait();
    });
    take_down(&cgroups);
    cgroups.remove();
    result
}

/// Makes the directory ours, or says whose it is.
fn occupy(place: &Path) -> Result<fs::File, String> {
    let failed = |error: io::Error| format!("make {}: {error}", place.display());
    let _others_wait = alone(place).map_err(failed)?;
    place.parent().map_or(Ok(()), make).map_err(failed)?;
    make(place).map_err(failed)?;
    let directory = fs::File::open(place).map_err(failed)?;
    flock(&directory, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        "TQServer runs already for this configuration (or is just being taken down); use `tqserver reload` or `tqserver status`, or stop the other one".to_owned()
    })?;
    Ok(directory)
}

/// Removes the place and, if no other place is beside it, their parent and the directories that were made for their sake.
fn leave(place: &Path) {
    let _others_wait = alone(place);
    empty(place);
    let _ = fs::remove_dir(place);
    let Some(parent) = place.parent() else { return };
    let made = HIDDEN.map(|path| (path, parent.join(mark(path))));
    let others = fs::read_dir(parent).into_iter().flatten().flatten();
    let last = others
        .into_iter()
        .all(|entry| made.iter().any(|(_, mark)| *mark == entry.path()));
    for (path, mark) in made.iter().filter(|(_, mark)| last && mark.exists()) {
        let _ = rustix::mount::unmount(*path, rustix::mount::UnmountFlags::DETACH);
        // Not if somebody else uses it by now.
        let _ = fs::remove_dir(path);
        let _ = fs::remove_file(mark);
    }
    let _ = fs::remove_dir(parent);
}

/// The name of the file beside the places that says: this directory was made by us.
fn mark(path: &str) -> String {
    format!("made{}", path.replace('/', "-"))
}

/// While this is held no other keeper comes or goes: what is shared by all places is made and removed by one at a time.
fn alone(place: &Path) -> io::Result<fs::File> {
    let above = place
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("/"));
    let directory = fs::File::open(above)?;
    flock(&directory, FlockOperation::LockExclusive)?;
    Ok(directory)
}

/// systemd refuses to run as a user's where /run/systemd/system is missing, so we show it one in a mount name space of our own.
fn hide_run_systemd(place: &Path) -> Result<(), String> {
    let _others_wait = alone(place).map_err(|error| format!("lock the place: {error}"))?;
    let failed = |error| format!("make a mount name space for the private systemd: {error}");
    unshare_mounts().map_err(failed)?;
    for path in HIDDEN {
        if let (Ok(()), Some(parent)) = (fs::create_dir(path), place.parent()) {
            let _ = fs::write(parent.join(mark(path)), "");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below = containing_mount(&mounts, Path::new(path)).ok_or(
            "/run is on no mount that can be seen from here; in a chroot, mount a tmpfs on its /run first",
        )?;
        cover(path, below).map_err(failed)?;
    }
    fs::create_dir("/run/systemd/system")
        .map_err(|error| format!("make /run/systemd/system: {error}"))
}

/// Mounts an empty file system on `path`, which lies on the mount `below`, so that it can not be seen outside.
fn cover(path: &str, below: &str) -> rustix::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    mount_change(below, MountPropagationFlags::PRIVATE)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", path, "tmpfs", flags, Some(c"mode=0755"))
}

/// The mount point in `mountinfo` (proc_pid_mountinfo(5)) that `path` lies on. In a chroot `/` need not be one.
fn containing_mount<'a>(mountinfo: &'a str, path: &Path) -> Option<&'a str> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| path.starts_with(point))
        .max_by_key(|point| point.len())
}

#[allow(
    unsafe_code,
    reason = "unsafe for CLONE_FILES alone, which could close another thread's descriptors; this is CLONE_NEWNS"
)]
fn unshare_mounts() -> rustix::io::Result<()> {
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
}

fn write_files(place: &Path) -> io::Result<()> {
    let units = place.join("units");
    fs::create_dir_all(&units)?;
    fs::create_dir_all(place.join("tqserver"))?;
    fs::write(place.join("dbus.conf"), DBUS_CONFIG)?;
    UNIT_FILES
        .iter()
        .try_for_each(|(name, text)| fs::write(units.join(name), text))
}

/// Starts systemd in its cgroup and waits for its `READY=1`.
fn start(systemd: &str, place: &Path, cgroups: &Cgroups) -> Result<Child, String> {
    let failed = |error: io::Error| format!("start the private systemd: {error}");
    let notify = place.join("notify");
    let _ = fs::remove_file(&notify);
    let ready = UnixDatagram::bind(&notify).map_err(failed)?;
    let log = place.join("systemd.log");
    let output = fs::File::create(&log).map_err(failed)?;
    let mut path = format!("{0}/units:{0}/systemd/transient", place.display());
    if let Some(units) = std::env::var_os(UNITS) {
        path = format!("{}:{path}", Path::new(&units).display());
    }
    let mut command = Command::new(systemd);
    command
        .args([
            "--user",
            "--unit=tqserver-private.target",
            "--log-target=console",
        ])
        .env_clear();
    for name in ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command
        .env("XDG_RUNTIME_DIR", place)
        .env(
            "DBUS_SESSION_BUS_ADDRESS",
            format!("unix:path={}/bus", place.display()),
        )
        // Given, it replaces the whole search path; transient units must be in it to survive a daemon-reload.
        .env("SYSTEMD_UNIT_PATH", path)
        .env("NOTIFY_SOCKET", &notify)
        // From 256 on systemd wants to be told that cgroup v1 is meant.
        .env("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE", "1")
        .env(
            "SYSTEMD_PROC_CMDLINE",
            "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
        )
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output);
    let mut child = cgroups.inside(|| command.spawn()).map_err(failed)?;
    match until_ready(&ready, &child) {
        Ok(()) => Ok(child),
        Err(why) => {
            let _ = child.kill();
            let _ = child.wait();
            let said = fs::read_to_string(&log).unwrap_or_default();
            Err(format!(
                "the private systemd {why}. {}",
                said.lines().last().unwrap_or_default()
            ))
        }
    }
}

fn until_ready(ready: &UnixDatagram, systemd: &Child) -> Result<(), String> {
    let ended = pidfd(systemd.id()).map_err(|error| format!("could not be watched: {error}"))?;
    let deadline = Instant::now() + READY;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [
            PollFd::new(ready, PollFlags::IN),
            PollFd::new(&ended, PollFlags::IN),
        ];
        let _ = poll(&mut fds, Some(&timespec(left)));
        if fds[0].revents().contains(PollFlags::IN) {
            let mut message = [0u8; 4096];
            let length = ready.recv(&mut message).unwrap_or(0);
            if String::from_utf8_lossy(&message[..length])
                .lines()
                .any(|line| line == "READY=1")
            {
                return Ok(());
            }
        } else if fds[1].revents().contains(PollFlags::IN) {
            return Err("ended at once".to_owned());
        } else if left.is_zero() {
            return Err(format!("was not ready after {} s", READY.as_secs()));
        }
    }
}

/// Until the lifeline is cut or systemd ends.
fn wait(systemd: &mut Child) {
    let Ok(ended) = pidfd(systemd.id()) else {
        return;
    };
    let lifeline = io::stdin();
    loop {
        let mut fds = [
            PollFd::new(&lifeline, PollFlags::IN),
            PollFd::new(&ended, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if fds[1].revents().contains(PollFlags::IN) => return,
            Ok(_) => {}
        }
        let mut byte = [0u8];
        match rustix::io::read(lifeline.as_fd(), &mut byte) {
            Ok(1) | Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Ends every process in the cgroups: first with the request to finish, then without.
fn take_down(cgroups: &Cgroups) {
    let mut asked = Vec::new();
    for pid in cgroups.processes() {
        if let (Ok(fd), Some(pid)) = (pidfd(pid), Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::TERM);
            asked.push(fd);
        }
    }
    let deadline = Instant::now() + TERM;
    for process in &asked {
        let left = deadline.saturating_duration_since(Instant::now());
        let _ = poll(
            &mut [PollFd::new(process, PollFlags::IN)],
            Some(&timespec(left)),
        );
    }
    // What forks while it is killed needs more than one round; a round kills all that is there, so there is an end to it.
    for _ in 0..1000 {
        let left = cgroups.processes();
        if left.is_empty() {
            break;
        }
        for pid in left {
            let Ok(process) = pidfd(pid) else { continue };
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = poll(
                &mut [PollFd::new(&process, PollFlags::IN)],
                Some(&timespec(Duration::from_secs(1))),
            );
        }
    }
    // They are our children now that systemd is gone.
    while matches!(
        rustix::process::wait(rustix::process::WaitOptions::NOHANG),
        Ok(Some(_))
    ) {}
}

fn pidfd(pid: u32) -> rustix::io::Result<rustix::fd::OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(rustix::io::Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}

fn timespec(duration: Duration) -> rustix::event::Timespec {
    rustix::event::Timespec {
        tv_sec: duration.as_secs().cast_signed(),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_a_path_lies_on_is_the_longest_that_leads_to_it() {
        let mounts = "21 1 8:1 / / rw - ext4 /dev/a rw\n22 21 0:5 / /run rw - tmpfs tmpfs rw\n23 21 0:6 / /run/sys rw - tmpfs t rw\n";
        assert_eq!(
            containing_mount(mounts, Path::new("/run/systemd")),
            Some("/run")
        );
        assert_eq!(containing_mount(mounts, Path::new("/var")), Some("/"));
        assert_eq!(containing_mount("", Path::new("/run/systemd")), None);
    }
}
