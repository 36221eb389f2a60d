//! What runs in our slice and no record knows: it is found and stopped, or nobody would ever see it.
//!
//! It is looked for at the start, after each reload, and at a stop until nothing is left.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::ManagerError;
use super::core::Core;
use super::perform::chain;
use crate::config::Mode;
use crate::names::{Instance, SLICE, worker_slice};
use crate::systemd::{BusError, Known, Systemd};

/// Our own planes. They are in the slice, too.
pub(super) const PLANES: [&str; 2] = ["tqserver.service", "tqserver-proxy.service"];
/// What the end of what is left at a stop may take beyond the grace of workers.
const LAST_EXTRA: Duration = Duration::from_secs(30);
/// First and longest wait before a stop that was not confirmed is tried again.
const AGAIN_FIRST: Duration = Duration::from_millis(500);
const AGAIN_MOST: Duration = Duration::from_secs(30);

/// What came of looking.
pub(super) enum Swept {
    /// These are not known to have a record.
    Found(Result<Vec<String>, BusError>),
    /// This one is gone.
    Stopped(String),
}

/// Looking for strays: once at a time.
#[derive(Default)]
pub(super) struct Sweeps {
    under_way: bool,
    /// Something happened meanwhile that is worth another look.
    again: bool,
    /// These are being stopped.
    stopping: BTreeSet<String>,
}

impl Core {
    /// Looks for strays; `everywhere`: also for those with names of their own in the slices of workers that are known, which takes a call
    /// for each worker.
    pub(super) fn sweep(&mut self, everywhere: bool) {
        if self.ending {
            return;
        }
        if std::mem::replace(&mut self.sweeps.under_way, true) {
            self.sweeps.again = true;
            return;
        }
        let mut known = self.known();
        if everywhere {
            known.slices.clear();
        }
        let performer = Arc::clone(&self.performer);
        self.swept
            .spawn(async move { Swept::Found(performer.systemd.strays(&known).await) });
    }

    fn known(&self) -> Known {
        let strangers = self.strangers.iter().cloned();
        let pairs = self.fleet.pairs().into_iter().chain(strangers);
        let mut known = Known::default();
        known.units.extend(self.performer.own_units.iter().cloned());
        for pair in pairs {
            known
                .units
                .extend([pair.socket_unit(), pair.service_unit()]);
        }
        let workers = self.fleet.names();
        known.slices.extend(workers.map(worker_slice));
        known
    }

    pub(super) fn swept(&mut self, swept: Swept) {
        let found = match swept {
            Swept::Stopped(unit) => {
                self.sweeps.stopping.remove(&unit);
                return;
            }
            Swept::Found(found) => found,
        };
        self.sweeps.under_way = false;
        match found {
            Ok(found) => self.stop_strays(found),
            Err(error) => tracing::warn!(
                "what runs in {SLICE} is not known: {}; it is looked for again after the next reload",
                chain(&error)
            ),
        }
        if std::mem::take(&mut self.sweeps.again) {
            self.sweep(false);
        }
    }

    fn stop_strays(&mut self, found: Vec<String>) {
        if self.ending {
            return;
        }
        // What has been begun since they were listed is known by now.
        let known = self.known();
        let development = self.performer.mode == Mode::Development;
        for unit in found {
            // Builds come and go by themselves, each with a deadline.
            let is_build = development && Instance::from_build_unit(&unit).is_some();
            if is_build || known.units.contains(&unit) || !self.sweeps.stopping.insert(unit.clone())
            {
                continue;
            }
            tracing::warn!("unit '{unit}' runs in {SLICE} and no record knows it; it is stopped");
            let (performer, grace) = (Arc::clone(&self.performer), self.settings.shutdown_grace);
            self.swept.spawn(async move {
                stop_stray(&performer.systemd, &unit, grace).await;
                Swept::Stopped(unit)
            });
        }
    }
}

async fn stop_stray(systemd: &Systemd, unit: &str, grace: Duration) {
    if let Err(error) = systemd.stop(unit, grace).await {
        let text = chain(&error);
        tracing::warn!("{text}; it is looked for again after the next reload");
    }
}

/// Stops whatever is left in our slice but the units in `stays`, and again until nothing is.
///
/// # Errors
/// What is left when the time is over, or that nobody knows.
pub async fn stop_what_is_left(
    systemd: &Systemd,
    stays: &[String],
    grace: Duration,
) -> Result<(), ManagerError> {
    let known = Known {
        units: stays.iter().cloned().collect(),
        ..Known::default()
    };
    let deadline = Instant::now() + grace + LAST_EXTRA;
    let mut again = Backoff::default();
    loop {
        let left = systemd.strays(&known).await;
        let is_over = Instant::now() >= deadline;
        match left {
            Ok(left) if left.is_empty() => return Ok(()),
            Ok(left) if is_over => return Err(ManagerError::Left(left)),
            Err(error) if is_over => return Err(ManagerError::Bus(error)),
            Ok(left) => {
                tracing::warn!("still there, and stopped now: {}", left.join(", "));
                let stopping = left.iter().map(|unit| stop_stray(systemd, unit, grace));
                let stopping = futures_util::future::join_all(stopping);
                let _ = timeout_at(deadline, stopping).await;
            }
            Err(error) => tracing::warn!("{}; asked again", chain(&error)),
        }
        let _ = timeout_at(deadline, again.wait()).await;
    }
}

/// Waits that grow.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(AGAIN_FIRST)
    }
}

impl Backoff {
    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(AGAIN_MOST);
    }
}
