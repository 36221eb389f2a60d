//! systemd over D-Bus: the few calls that are needed, and its signals.
//!
//! Every call has a deadline, every job is waited for by its `JobRemoved` signal (never by polling `ActiveState`), and all signals
//! run through one stream which is always read.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, Variant, connection, message};

use super::gate::Gate;
use super::interface::{CALL, ListedUnit, ManagerProxy, ROOT, SERVICE, is_down, is_gone, property};
use super::jobs::{JobCall, Jobs, lock};
use super::signals::{UnitChange, follow};
use super::state::{Ending, RawService};
use super::units::{QUOTA_SINCE, UnitPair, limit_properties};
use crate::config::Limits;
use crate::names::Pair;

/// Longest wait for a job that starts something.
pub(super) const START: Duration = Duration::from_secs(60);
/// What a stop may take beyond the unit's own `TimeoutStopSec=`.
const STOP_EXTRA: Duration = Duration::from_secs(30);
/// Signals that may wait for the manager's loop: some of each of thousands of units. None is dropped; a reader that has no room for more
/// waits, and the bus keeps what follows.
const CHANGES: usize = 1 << 16;

/// The service that measures what workers keep, where the manager cannot look itself.
pub const STATE_UNIT: &str = "tqserver-state.service";

/// Why systemd did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The bus can not be reached.
    #[error("connect to {bus}")]
    Connect {
        /// Which bus.
        bus: String,
        /// Why.
        source: Box<zbus::Error>,
    },
    /// A call failed.
    #[error("{call} '{unit}'")]
    Call {
        /// What was asked.
        call: &'static str,
        /// Of which unit.
        unit: String,
        /// Why not.
        source: Box<zbus::Error>,
    },
    /// A job ended otherwise than with "done".
    #[error("{call} '{unit}': job ended '{result}'")]
    Job {
        /// What was asked.
        call: &'static str,
        /// Of which unit.
        unit: String,
        /// systemd's word for how the job ended.
        result: String,
    },
}

/// A connection to a systemd: the machine's, a user's, or a private one.
pub struct Systemd {
    connection: Connection,
    pub(super) manager: ManagerProxy<'static>,
    /// Every call passes it.
    pub(super) gate: Gate,
    /// The control group of our slice, once it is known.
    pub(super) cgroup: OnceLock<String>,
    /// The version of systemd, as in `257`; 0: it has not said.
    version: u32,
    jobs: Arc<Mutex<Jobs>>,
    signals: AbortHandle,
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.signals.abort();
    }
}

impl Systemd {
    /// Connects to the systemd behind the bus at `address` (D-Bus address syntax) and listens to its signals.
    ///
    /// # Errors
    /// When the bus can not be reached, or systemd is not on it.
    pub async fn connect(address: &str) -> Result<(Self, mpsc::Receiver<UnitChange>), BusError> {
        let connect = |source| BusError::Connect {
            bus: address.to_owned(),
            source: Box::new(source),
        };
        let connection = connection::Builder::address(address)
            .method_timeout(CALL)
            .build()
            .await
            .map_err(connect)?;
        let manager = ManagerProxy::new(&connection).await.map_err(connect)?;
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender(SERVICE)
            .path_namespace(ROOT)
            .build()
            .map_err(connect)?;
        let stream = MessageStream::for_match_rule(rule, &connection, None)
            .await
            .map_err(connect)?;
        manager.subscribe().await.map_err(connect)?;
        // What is asked of it depends on that here and there; without an answer it is taken for an old one.
        let version = manager.version().await.unwrap_or_default();
        let jobs = Arc::default();
        let (changes, receiver) = mpsc::channel(CHANGES);
        let signals = tokio::spawn(follow(stream, Arc::clone(&jobs), changes)).abort_handle();
        Ok((
            Self {
                connection,
                manager,
                gate: Gate::new(),
                cgroup: OnceLock::new(),
                version: version_number(&version),
                jobs,
                signals,
            },
            receiver,
        ))
    }

    /// The connection, for an object of our own on the same bus.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Whether this systemd has `StateDirectoryQuota=`.
    pub fn has_state_quota(&self) -> bool {
        self.version >= QUOTA_SINCE
    }

    /// Starts a pair of units: the socket listens (the service is started by the first connection), or, without a socket, the
    /// service runs.
    ///
    /// # Errors
    /// When systemd refuses a property or the unit exists, or the job fails.
    pub async fn start_pair(&self, pair: &UnitPair) -> Result<(), BusError> {
        let call = "start unit";
        let name = pair.name();
        let service = (name.service_unit(), pair.service_properties(self.version));
        let (unit, properties, aux) = match pair.has_socket() {
            true => (name.socket_unit(), pair.socket_properties(), vec![service]),
            false => (service.0, service.1, Vec::new()),
        };
        lock(&self.jobs).starting.insert(name.clone());
        let start = || {
            let manager = &self.manager;
            manager.start_transient_unit(&unit, "replace", &properties, &aux)
        };
        let result = self.job(call, &unit, self.gate.pass(start), START).await;
        // All that came before the job's end was read by now.
        lock(&self.jobs).starting.remove(&name);
        result
    }

    /// Runs [`STATE_UNIT`] to its end.
    ///
    /// # Errors
    /// When systemd can not be reached, has no such unit, or the unit fails or has not ended by `deadline`.
    pub async fn measure_state(&self, deadline: Duration) -> Result<(), BusError> {
        let unit = STATE_UNIT;
        let start = || self.manager.start_unit(unit, "replace");
        self.job("run", unit, self.gate.pass(start), deadline).await
    }

    /// Stops a socket and its service and has systemd forget them. Units that are gone already are no error.
    ///
    /// # Errors
    /// When systemd has not confirmed that both are down: it can not be reached, or does not finish in `timeout` and some.
    pub async fn stop_pair(&self, pair: &Pair, timeout: Duration) -> Result<(), BusError> {
        let mut result = Ok(());
        for unit in [pair.socket_unit(), pair.service_unit()] {
            result = result.and(self.stop(&unit, timeout).await);
        }
        result
    }

    /// Stops a unit and has systemd forget it. One that is gone already is no error.
    ///
    /// # Errors
    /// When systemd has not confirmed that it is down: it can not be reached, or does not finish in `timeout` and some.
    pub async fn stop(&self, unit: &str, timeout: Duration) -> Result<(), BusError> {
        let asked = self.gate.pass(|| self.manager.stop_unit(unit, "replace"));
        let stopped = match self
            .job("stop unit", unit, asked, timeout + STOP_EXTRA)
            .await
        {
            Err(BusError::Call { source, .. }) if is_gone(&source) => Ok(()),
            stopped => stopped,
        };
        // However the job went, and whether or not its end was heard of, the unit's state counts.
        if let Err(error) = stopped
            && !self.is_down(unit).await
        {
            return Err(error);
        }
        // A unit that failed stays loaded until somebody resets it; one that did not is gone by now.
        let reset = || self.manager.reset_failed_unit(unit);
        let _ = self.gate.pass(reset).await;
        Ok(())
    }

    /// Whether systemd says that a unit is not there, or has no process and does not listen.
    async fn is_down(&self, unit: &str) -> bool {
        let interface = "org.freedesktop.systemd1.Unit";
        let path = match self.gate.pass(|| self.manager.get_unit(unit)).await {
            Ok(path) => path,
            Err(error) => return is_gone(&error),
        };
        let ask = || property::<String>(&self.connection, &path, interface, "ActiveState");
        let state = self.gate.pass(ask).await;
        state.is_ok_and(|state| is_down(&state))
    }

    /// Writes down that a pair is of a generation that has passed its check.
    ///
    /// # Errors
    /// When systemd can not be reached or the unit is gone.
    pub async fn mark_accepted(&self, pair: &Pair) -> Result<(), BusError> {
        let unit = pair.service_unit();
        let description = Variant::from(UnitPair::accepted_description(pair));
        let properties = [("Description", description)];
        let mark = || self.manager.set_unit_properties(&unit, true, &properties);
        let marked = self.gate.pass(mark).await;
        marked.map_err(|source| BusError::Call {
            call: "mark as accepted",
            unit: unit.clone(),
            source: Box::new(source),
        })
    }

    /// Bounds what a service may use from now on, whether it runs or not.
    ///
    /// # Errors
    /// When systemd can not be reached or the unit is gone.
    pub async fn limit(&self, pair: &Pair, limits: &Limits) -> Result<(), BusError> {
        let unit = pair.service_unit();
        let properties = limit_properties(limits);
        let set = || self.manager.set_unit_properties(&unit, true, &properties);
        let limited = self.gate.pass(set).await;
        limited.map_err(|source| BusError::Call {
            call: "limit",
            unit: unit.clone(),
            source: Box::new(source),
        })
    }

    pub(super) async fn listed(&self, pattern: &str) -> Result<Vec<ListedUnit>, BusError> {
        let patterns = [pattern];
        let list = || self.manager.list_units_by_patterns(&[], &patterns);
        let listed = self.gate.pass(list).await;
        listed.map_err(|source| BusError::Call {
            call: "list units",
            unit: pattern.to_owned(),
            source: Box::new(source),
        })
    }

    /// How the process of a unit ended that is still loaded, if it did not end well.
    pub(super) async fn ending_of(&self, unit: &str) -> Option<Ending> {
        let path = self.gate.pass(|| self.manager.get_unit(unit)).await.ok()?;
        let mut raw = RawService::default();
        raw.update(&self.properties(&path).await.ok()?);
        raw.state().failure
    }

    /// Makes a call that leads to a job, and waits for the end of that.
    pub(super) async fn job(
        &self,
        call: &'static str,
        unit: &str,
        asked: impl Future<Output = zbus::Result<OwnedObjectPath>>,
        deadline: Duration,
    ) -> Result<(), BusError> {
        let unit = unit.to_owned();
        let begun = JobCall::begin(&self.jobs);
        let job = match asked.await {
            Ok(job) => job,
            Err(source) => {
                return Err(BusError::Call {
                    call,
                    unit,
                    source: Box::new(source),
                });
            }
        };
        let ended = lock(&self.jobs).end_of(&job);
        drop(begun);
        let result = match tokio::time::timeout(deadline, ended).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => "lost: the bus is gone".to_owned(),
            Err(_) => {
                lock(&self.jobs).forget(&job);
                format!("not ended after {} s", deadline.as_secs())
            }
        };
        if result == "done" {
            Ok(())
        } else {
            Err(BusError::Job { call, unit, result })
        }
    }
}

/// The number in a version as in `257.13-1~deb13u1`, `v258` or `258~rc1`; 0: none.
fn version_number(text: &str) -> u32 {
    let text = text.trim_start_matches('v');
    let end = text.find(|c: char| !c.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_version_is_what_it_begins_with() {
        for (text, number) in [
            ("252.39-1~deb12u1", 252),
            ("257.13-1~deb13u1", 257),
            ("258", 258),
            ("v259-rc2", 259),
            ("258~rc1-2-gabcdef", 258),
            ("", 0),
            ("unknown", 0),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }
}
