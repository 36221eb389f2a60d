//! A systemd of our own, where none was booted or none is to be touched.
//!
//! `systemd --user` runs as an ordinary child process below a keeper, in a cgroup of its own, with a bus of its own. The keeper
//! (module `keeper`) outlives a killed `tqserver` just long enough to take everything down. This side starts the keeper.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::interface::ManagerProxy;
use super::keeper;
use super::place::Place;

/// Longest wait for the private systemd to be up.
const UP: Duration = Duration::from_secs(30);
/// Longest wait for the keeper to have taken everything down.
const DOWN: Duration = Duration::from_secs(30);

/// Why there is no private systemd.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The keeper could not be started.
    #[error("start the keeper of the private systemd")]
    Spawn(#[source] io::Error),
    /// The keeper tells why it gave up.
    #[error("{0}")]
    Keeper(String),
}

/// A running private systemd. Dropping it has the keeper take it down, without waiting for the end.
pub struct Private {
    place: Place,
    keeper: tokio::process::Child,
    /// While this is open the keeper keeps. Apart from `keeper`, whose `wait` would close it.
    lifeline: Option<tokio::process::ChildStdin>,
    warning: Option<String>,
}

impl Private {
    /// Starts one at `place`; `units` is a directory of further unit files it may load. Returns when it is up.
    ///
    /// # Errors
    /// When another one runs there, or what it needs is missing: the message says what to install or do.
    pub async fn start(place: Place, units: Option<&Path>) -> Result<Self, PrivateError> {
        let mut command = Command::new("/proc/self/exe");
        // Neither its name nor its arguments say "tqserver": what kills all of those must not kill who tidies up after them.
        command
            .arg0("private-systemd")
            .arg(keeper::VERB)
            .env(keeper::PLACE, place.path());
        if let Some(units) = units {
            command.env(keeper::UNITS, units);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut keeper = tokio::process::Command::from(command)
            .spawn()
            .map_err(PrivateError::Spawn)?;
        let pid = keeper.id().unwrap_or(0);
        if let Some(refused) = scope(pid).await {
            return Err(PrivateError::Keeper(refused));
        }
        // The keeper waits for this byte: by now it is in the cgroup that it may divide.
        let mut lifeline = keeper.stdin.take();
        if let Some(lifeline) = lifeline.as_mut() {
            lifeline
                .write_all(b"g")
                .await
                .map_err(PrivateError::Spawn)?;
        }
        let answer = keeper.stdout.take().map(BufReader::new);
        let answer = tokio::time::timeout(UP, async {
            let mut line = String::new();
            if let Some(mut answer) = answer {
                let _ = answer.read_line(&mut line).await;
            }
            line
        });
        let answer = answer.await.unwrap_or_default();
        match answer.trim().strip_prefix("up") {
            Some(warning) => {
                let warning = Some(warning.trim().to_owned()).filter(|text| !text.is_empty());
                Ok(Self {
                    place,
                    keeper,
                    lifeline,
                    warning,
                })
            }
            None if answer.is_empty() => Err(PrivateError::Keeper(
                "the private systemd did not come up; is the package 'systemd' complete?"
                    .to_owned(),
            )),
            None => Err(PrivateError::Keeper(answer.trim().to_owned())),
        }
    }

    /// Where it lives.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What it can not do here, if anything.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Takes it down and returns when nothing of it is left.
    pub async fn stop(mut self) {
        drop(self.lifeline.take());
        let _ = tokio::time::timeout(DOWN, self.keeper.wait()).await;
    }

    /// Returns when the keeper has ended, which it does by itself only if its systemd did.
    pub async fn ended(&mut self) {
        let _ = self.keeper.wait().await;
    }
}

/// Where a systemd was booted, cgroups are its own: the keeper gets a scope with delegation from it (systemd.scope(5)). Returns
/// why not, or nothing.
async fn scope(pid: u32) -> Option<String> {
    if !sd_notify::booted().unwrap_or(false) {
        let root = rustix::process::geteuid().is_root();
        return (!root).then(|| {
            "no systemd was booted here, and only root can start a private one then; log in to a desktop or ssh session, or run as root"
                .to_owned()
        });
    }
    let bus = if rustix::process::geteuid().is_root() {
        zbus::connection::Builder::system()
    } else {
        zbus::connection::Builder::session()
    };
    let name = format!("tqserver-private-{pid}.scope");
    let delegate = async {
        let connection = bus.build().await?;
        let manager = ManagerProxy::new(&connection).await?;
        let mut jobs = manager.receive_job_removed().await?;
        manager.subscribe().await?;
        let properties = [
            ("PIDs", zbus::Variant::from(vec![pid])),
            ("Delegate", true.into()),
            ("CollectMode", "inactive-or-failed".into()),
        ];
        let job = manager
            .start_transient_unit(&name, "fail", &properties, &[])
            .await?;
        while let Some(ended) = futures_util::StreamExt::next(&mut jobs).await {
            if ended.args()?.job() == &job.as_ref() {
                break;
            }
        }
        Ok::<(), zbus::Error>(())
    };
    match tokio::time::timeout(UP, delegate).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!(
            "systemd gave no scope for the private systemd: {error}"
        )),
        Err(_) => Some("systemd gave no scope for the private systemd in time".to_owned()),
    }
}
