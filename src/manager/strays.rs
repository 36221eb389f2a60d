//! What runs in our slice and no record knows: it is found and stopped, or nobody would ever see it.
//!
//! It is looked for at the start, after each reload, and at a stop until nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::backoff::Backoff;
use super::explain::explain;
use crate::config::Mode;
use crate::names::{Instance, Pair, SLICE, is_exec_unit, worker_slice};
use crate::plan::Fleet;
use crate::systemd::{BusError, Known, Systemd};

/// Our own planes. They are in the slice, too.
pub(super) const PLANES: [&str; 2] = ["tqserver.service", "tqserver-proxy.service"];
/// What the end of what is left at a stop may take beyond the grace of workers.
const LAST_EXTRA: Duration = Duration::from_secs(30);

/// Why it is not known that everything was stopped.
#[derive(Debug, thiserror::Error)]
pub enum LeftError {
    /// These units were to be stopped, and systemd has not confirmed that they are.
    #[error("not stopped in time: {}; `systemctl kill --signal=KILL UNIT` ends one, `systemctl status tqserver.slice` shows them", .0.join(", "))]
    Left(Vec<String>),
    /// systemd does not say.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// What came of looking.
pub(super) enum Swept {
    /// These are not known to have a record.
    Found(Result<Vec<String>, BusError>),
    /// This one is gone.
    Stopped(String),
}

/// Looking for strays: once at a time.
pub(super) struct Sweeps {
    systemd: Arc<Systemd>,
    /// Our own units in our slice, whether or not they run.
    own_units: Vec<String>,
    mode: Mode,
    /// Looks, and stops of what they found.
    tasks: JoinSet<Swept>,
    under_way: bool,
    /// Something happened meanwhile that is worth another look.
    again: bool,
    /// These are being stopped.
    stopping: BTreeSet<String>,
    /// Generations of another version of this program: they go when ours serve, and are no strays.
    strangers: Vec<Pair>,
}

impl Sweeps {
    pub(super) fn new(systemd: Arc<Systemd>, own_units: Vec<String>, mode: Mode) -> Self {
        Self {
            systemd,
            own_units,
            mode,
            tasks: JoinSet::new(),
            under_way: false,
            again: false,
            stopping: BTreeSet::new(),
            strangers: Vec::new(),
        }
    }

    /// Leaves these generations of another version of this program alone, until ours serve.
    pub(super) fn leave(&mut self, strangers: Vec<Pair>) {
        self.strangers = strangers;
    }

    /// The generations that were left alone and how many pairs of units each has, once: they are to be stopped now.
    pub(super) fn take_strangers(&mut self) -> BTreeMap<Instance, u8> {
        let mut pairs = BTreeMap::new();
        for Pair { instance, number } in std::mem::take(&mut self.strangers) {
            let most = pairs.entry(instance).or_insert(number);
            *most = number.max(*most);
        }
        pairs
    }

    /// Looks for what the `fleet` does not know; `everywhere`: also for what has a name of its own in the slices of workers that are
    /// known, which takes a call for each worker.
    pub(super) fn begin(&mut self, fleet: &Fleet, everywhere: bool) {
        if std::mem::replace(&mut self.under_way, true) {
            self.again = true;
            return;
        }
        let mut known = self.known(fleet);
        if everywhere {
            known.slices.clear();
        }
        let systemd = Arc::clone(&self.systemd);
        self.tasks
            .spawn(async move { Swept::Found(systemd.strays(&known).await) });
    }

    fn known(&self, fleet: &Fleet) -> Known {
        let strangers = self.strangers.iter().cloned();
        let pairs = fleet.pairs().into_iter().chain(strangers);
        let mut known = Known::default();
        known.units.extend(self.own_units.iter().cloned());
        for pair in pairs {
            known
                .units
                .extend([pair.socket_unit(), pair.service_unit()]);
        }
        known.slices.extend(fleet.names().map(worker_slice));
        known
    }

    /// What came of the next look or stop; `None`: none is under way.
    pub(super) async fn next(&mut self) -> Option<Result<Swept, JoinError>> {
        self.tasks.join_next().await
    }

    /// Takes what came of one. What was found is stopped within `grace`, unless all is about to be stopped anyway (`None`).
    pub(super) fn swept(&mut self, swept: Swept, fleet: &Fleet, grace: Option<Duration>) {
        let found = match swept {
            Swept::Stopped(unit) => {
                self.stopping.remove(&unit);
                return;
            }
            Swept::Found(found) => found,
        };
        self.under_way = false;
        match (found, grace) {
            (Ok(found), Some(grace)) => self.stop(found, fleet, grace),
            (Ok(_), None) => {}
            (Err(error), _) => tracing::warn!(
                "what runs in {SLICE} is not known: {}; it is looked for again after the next reload",
                explain(&error)
            ),
        }
        if std::mem::take(&mut self.again) && grace.is_some() {
            self.begin(fleet, false);
        }
    }

    fn stop(&mut self, found: Vec<String>, fleet: &Fleet, grace: Duration) {
        // What has been begun since they were listed is known by now.
        let known = self.known(fleet);
        let development = self.mode == Mode::Development;
        for unit in found {
            // Builds come and go by themselves, each with a deadline.
            let is_build = development && Instance::from_build_unit(&unit).is_some();
            // Commands that people run end by themselves, or with the server.
            if is_build
                || is_exec_unit(&unit)
                || known.units.contains(&unit)
                || !self.stopping.insert(unit.clone())
            {
                continue;
            }
            tracing::warn!("unit '{unit}' runs in {SLICE} and no record knows it; it is stopped");
            let systemd = Arc::clone(&self.systemd);
            self.tasks.spawn(async move {
                stop_stray(&systemd, &unit, grace).await;
                Swept::Stopped(unit)
            });
        }
    }
}

async fn stop_stray(systemd: &Systemd, unit: &str, grace: Duration) {
    if let Err(error) = systemd.stop(unit, grace).await {
        let text = explain(&error);
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
) -> Result<(), LeftError> {
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
            Ok(left) if is_over => return Err(LeftError::Left(left)),
            Err(error) if is_over => return Err(LeftError::Bus(error)),
            Ok(left) => {
                tracing::warn!("still there, and stopped now: {}", left.join(", "));
                let stopping = left.iter().map(|unit| stop_stray(systemd, unit, grace));
                let stopping = futures_util::future::join_all(stopping);
                let _ = timeout_at(deadline, stopping).await;
            }
            Err(error) => tracing::warn!("{}; asked again", explain(&error)),
        }
        let _ = timeout_at(deadline, again.wait()).await;
    }
}
