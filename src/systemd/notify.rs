//! What a service says to the systemd that started it (sd_notify(3)).

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

/// Tells systemd that the service reads its configuration anew; [`ready`] ends that. Newer systemds want to know since when.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => drop(sd_notify::notify(&[NotifyState::Reloading, now])),
        Err(_) => drop(sd_notify::notify(&[NotifyState::Reloading])),
    }
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

/// Tells systemd that the service is alive.
pub fn watchdog() {
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}
