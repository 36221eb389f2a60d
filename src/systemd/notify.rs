//! What a service says to the systemd that started it (sd_notify(3)), and what it is handed by it (sd_listen_fds(3)).

use std::net::TcpListener;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use libsystemd::activation::{self, IsType};
use sd_notify::NotifyState;

/// The name under which the proxy's listeners lie in the FD store.
const LISTENER: &str = "http";

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

/// Tells systemd that the service reads its configuration anew; [`ready`] ends that. Newer systemds want to know since when.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => drop(sd_notify::notify(&[NotifyState::Reloading, now])),
        Err(_) => drop(sd_notify::notify(&[NotifyState::Reloading])),
    }
}

/// Asks systemd for so much more time, counted from now, for the start, reload or stop under way.
pub fn extend_timeout(more: Duration) {
    let more = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
    let _ = sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(more)]);
}

/// How often to call [`watchdog`], if systemd wants to hear it: twice in the time after which it would take the service for dead.
pub fn watchdog_interval() -> Option<Duration> {
    let limit = sd_notify::watchdog_enabled()?;
    (!limit.is_zero()).then_some(limit / 2)
}

/// Tells systemd that the service is alive.
pub fn watchdog() {
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}

/// Leaves a listener with systemd, which hands it to the next proxy: connections queue in it meanwhile.
pub fn keep(listener: &TcpListener) {
    let message = [NotifyState::FdStore, NotifyState::FdName(LISTENER)];
    if let Err(error) = sd_notify::notify_with_fds(&message, &[listener.as_fd()]) {
        tracing::warn!(
            "systemd does not keep the listener ({error}); a restart of the proxy refuses connections for a moment"
        );
    }
}

/// The listeners that systemd kept or opened for us. To be called once, before anything else opens descriptors.
pub fn inherited() -> Vec<TcpListener> {
    let Ok(descriptors) = activation::receive_descriptors(false) else {
        return Vec::new();
    };
    let sockets = descriptors.into_iter().filter(IsType::is_inet);
    sockets
        .map(|descriptor| TcpListener::from(own(descriptor)))
        .collect()
}

#[allow(
    unsafe_code,
    reason = "sd_listen_fds(3) hands over these descriptors, and nobody else takes them"
)]
fn own(descriptor: activation::FileDescriptor) -> OwnedFd {
    unsafe { OwnedFd::from_raw_fd(descriptor.into_raw_fd()) }
}
