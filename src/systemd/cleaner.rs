//! Somebody who stops our units in a systemd that is not ours to end, should `tqserver dev` be killed.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::choice::Kind;
use super::keeper;

/// Environment variables that make a keeper a cleaner: which systemd is to be cleaned, and of which runtime directory.
pub(super) const CLEAN: &str = "KEEPER_CLEAN";
const DIRECTORY: &str = "KEEPER_DIRECTORY";

/// The process that cleans. It ends when we do, however that is.
#[derive(Debug)]
pub struct Cleaner(Child);

impl Cleaner {
    /// Starts it. It stops all units in our slice and removes `runtime_directory`, so nobody else's may be there.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn start(kind: Kind, runtime_directory: &Path) -> std::io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("unit-cleaner")
            .arg(keeper::VERB)
            .env(CLEAN, kind.to_string())
            .env(DIRECTORY, runtime_directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        command.spawn().map(Self)
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Waits until the other end of standard input is closed and stops everything in our slice.
pub(super) fn run(kind: &str) -> u8 {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"unit-cleaner");
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    let mut systemctl = Command::new("systemctl");
    if kind == Kind::User.to_string() {
        systemctl.arg("--user");
    }
    // Units in a slice require it: stopping it stops them.
    let stopped = systemctl
        .args(["stop", "tqserver.slice"])
        .stderr(Stdio::null())
        .status();
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let _ = std::fs::remove_dir_all(directory);
    }
    u8::from(!stopped.is_ok_and(|status| status.success()))
}
