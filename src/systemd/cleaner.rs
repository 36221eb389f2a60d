//! Somebody who stops our units in a systemd that is not ours to end, should `tqserver dev` be killed.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::choice::Kind;

/// The hidden verb of the command line that runs a cleaner.
pub const VERB: &str = "clean-units";
/// The environment variable with the runtime directory that goes at the end. No argument, for it has "tqserver" in its name.
const DIRECTORY: &str = "CLEANER_DIRECTORY";

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
            // Neither its name nor its arguments say "tqserver": what kills all of those must not kill who tidies up after them.
            .arg0("unit-cleaner")
            .args([VERB, "--manager", &kind.to_string()])
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

/// Runs the cleaner: waits until the other end of standard input is closed, stops everything in our slice and returns the exit code.
pub fn run(kind: Kind) -> u8 {
    // Nobody's to type: it stops all workers.
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return 1;
    };
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"unit-cleaner");
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    let mut systemctl = Command::new("systemctl");
    if kind == Kind::User {
        systemctl.arg("--user");
    }
    // Units in a slice require it: stopping it stops them.
    let stopped = systemctl
        .args(["stop", "tqserver.slice"])
        .stderr(Stdio::null())
        .status();
    let _ = std::fs::remove_dir_all(directory);
    u8::from(!stopped.is_ok_and(|status| status.success()))
}
