//! What a service says to the systemd that started it (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// Tells systemd that the service is up. Without a systemd that asked, nothing happens; so with all of these.
pub fn ready(status: &str) {
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    let _ = sd_notify::notify(&[NotifyState::Status(status)]);
}

/// Tells systemd that the service is going down.
pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Asks systemd for so much more time, counted from now, for the start, reload or stop under way.
pub fn extend_timeout(more: Duration) {
    // The crate's own word for it ends at an hour and a little.
    let message = format!("EXTEND_TIMEOUT_USEC={}", more.as_micros());
    let _ = sd_notify::notify(&[NotifyState::Custom(&message)]);
}

/// How often to call [`watchdog`], if systemd wants to hear it: twice in the time after which it would take the service for dead.
pub fn watchdog_interval() -> Option<Duration> {
    let limit = sd_notify::watchdog_enabled()?;
    (!limit.is_zero()).then_some(limit / 2)
}

/// The way to the watchdog, opened once: the descriptors may all be in use when it matters.
#[derive(Debug)]
pub struct Watchdog {
    socket: UnixDatagram,
    limit: Duration,
}

impl Watchdog {
    /// If systemd wants to hear from us.
    pub fn open() -> Option<Self> {
        let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())?;
        let path = std::env::var_os("NOTIFY_SOCKET")?;
        let socket = UnixDatagram::unbound().ok()?;
        let address = match path.as_bytes().split_first()? {
            (b'@', name) => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(&path),
        };
        socket.connect_addr(&address.ok()?).ok()?;
        // A systemd that does not read for now is not waited for.
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, limit })
    }

    /// How often to [`beat`](Self::beat): one that comes late, or not at all, does no harm.
    pub fn interval(&self) -> Duration {
        self.limit / 5
    }

    /// Tells systemd that the service is alive.
    pub fn beat(&self) {
        let _ = self.socket.send(b"WATCHDOG=1");
    }

    /// Has systemd do at once what it does when it hears nothing any more.
    pub fn trigger(&self, status: &str) {
        let status = status.replace('\n', " ");
        let _ = (self.socket).send(format!("STATUS={status}\nWATCHDOG=trigger").as_bytes());
    }
}

/// Tells systemd that the service is alive.
pub fn watchdog() {
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}
