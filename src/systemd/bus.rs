//! systemd over D-Bus: the few calls that are needed, and its signals.
//!
//! Every call has a deadline, every job is waited for by its `JobRemoved` signal (never by polling `ActiveState`), and all signals
//! run through one stream which is always read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use zbus::{
    Connection, MatchRule, MessageStream, ObjectPath, OwnedObjectPath, OwnedVariant, Variant,
    connection, fdo, message,
};

use super::gate::Gate;
use super::signals::{Jobs, UnitChange, follow, lock, text, update};
use super::state::{Ending, RawService, ServiceState};
use super::units::{Properties, QUOTA_SINCE, RECORD, UNPROVEN, UnitPair, limit_properties};
use crate::config::Limits;
use crate::names::{Pair, UnitKind};

/// Longest wait for the answer to one method call.
const CALL: Duration = Duration::from_secs(25);
/// Longest wait for a job that starts something.
pub(super) const START: Duration = Duration::from_secs(60);
/// What a stop may take beyond the unit's own `TimeoutStopSec=`.
const STOP_EXTRA: Duration = Duration::from_secs(30);
/// Signals that may wait for the manager's loop: some of each of thousands of units. None is dropped; a reader that has no room for more
/// waits, and the bus keeps what follows.
const CHANGES: usize = 1 << 16;

/// The service that measures what workers keep, where the manager cannot look itself.
pub const STATE_UNIT: &str = "tqserver-state.service";
/// The names that units of generations have.
pub(super) const PAIRS: &str = "tqserver-*@*";
const SERVICE: &str = "org.freedesktop.systemd1";
const ROOT: &str = "/org/freedesktop/systemd1";

/// The properties of one unit on the bus, as `StartTransientUnit` takes auxiliary units.
type AuxiliaryUnit<'a> = (String, Properties);
pub(super) type ListedUnit = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        aux: &[AuxiliaryUnit<'_>],
    ) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn set_unit_properties(
        &self,
        name: &str,
        runtime: bool,
        properties: &[(&str, Variant<'_>)],
    ) -> zbus::Result<()>;
    fn list_units_by_patterns(
        &self,
        states: &[&str],
        patterns: &[&str],
    ) -> zbus::Result<Vec<ListedUnit>>;
    fn list_units_by_names(&self, names: &[&str]) -> zbus::Result<Vec<ListedUnit>>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(name = "GetUnitByPID")]
    fn get_unit_by_pid(&self, pid: u32) -> zbus::Result<OwnedObjectPath>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

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

/// A pair of units that is loaded in systemd.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Which.
    pub pair: Pair,
    /// Its process.
    pub service: ServiceState,
    /// Whether its socket listens; `None`: it has none.
    pub listening: Option<bool>,
    /// Whether it has passed its check.
    pub accepted: bool,
    /// What was written into it when it was made.
    pub record: String,
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
        let job = self.gate.pass(start).await;
        let result = self.job(call, &unit, job, START).await;
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
        let job = self.gate.pass(start).await;
        self.job("run", unit, job, deadline).await
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
        let stopped = match asked.await {
            Err(error) if is_gone(&error) => Ok(()),
            job => self.job("stop unit", unit, job, timeout + STOP_EXTRA).await,
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

    /// All pairs of units that are loaded and have a record.
    ///
    /// # Errors
    /// When systemd can not be reached, or does not tell of one of them: what is not known would run unseen.
    pub async fn loaded(&self) -> Result<Vec<Loaded>, BusError> {
        let listed = self.listed(PAIRS).await?;
        let states: HashMap<&str, &str> = listed
            .iter()
            .map(|unit| (unit.0.as_str(), unit.3.as_str()))
            .collect();
        let services = listed.iter().filter_map(|unit| {
            let (pair, kind) = Pair::from_unit(&unit.0)?;
            (kind == UnitKind::Service).then_some((pair, unit))
        });
        let services: Vec<_> = services.collect();
        let asked = services.iter().map(|(_, unit)| self.properties(&unit.6));
        let asked = futures_util::future::join_all(asked).await;
        let mut loaded = Vec::new();
        for ((pair, unit), asked) in services.into_iter().zip(asked) {
            let properties = match asked {
                Ok(properties) => properties,
                // It vanished between the list and the question.
                Err(error) if is_gone(&error) => continue,
                Err(source) => {
                    return Err(BusError::Call {
                        call: "ask for the properties of",
                        unit: unit.0.clone(),
                        source: Box::new(source),
                    });
                }
            };
            let mut raw = RawService::default();
            update(&mut raw, &properties);
            let record = match properties
                .get(RECORD)
                .map(|value| Vec::<u8>::try_from(value.clone()))
            {
                Some(Ok(bytes)) if !bytes.is_empty() => {
                    String::from_utf8_lossy(&bytes).into_owned()
                }
                _ => continue,
            };
            loaded.push(Loaded {
                service: raw.state(),
                listening: states
                    .get(pair.socket_unit().as_str())
                    .map(|state| *state == "active"),
                accepted: !text(&properties, "Description")
                    .is_some_and(|text| text.ends_with(UNPROVEN)),
                record,
                pair,
            });
        }
        Ok(loaded)
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
        update(&mut raw, &self.properties(&path).await.ok()?);
        raw.state().failure
    }

    /// All properties of a unit, of whatever kind.
    async fn properties(
        &self,
        path: &OwnedObjectPath,
    ) -> zbus::Result<HashMap<String, OwnedVariant>> {
        let proxy = fdo::PropertiesProxy::builder(&self.connection)
            .destination(SERVICE)
            .path(path)
            .build()
            .await?;
        let mut all = HashMap::new();
        for interface in [
            "org.freedesktop.systemd1.Unit",
            "org.freedesktop.systemd1.Service",
        ] {
            let interface = zbus::names::InterfaceName::try_from(interface)?;
            let ask = || proxy.get_all(interface.clone());
            all.extend(self.gate.pass(ask).await?);
        }
        Ok(all)
    }

    pub(super) async fn job(
        &self,
        call: &'static str,
        unit: &str,
        job: zbus::Result<OwnedObjectPath>,
        deadline: Duration,
    ) -> Result<(), BusError> {
        let unit = unit.to_owned();
        let job = match job {
            Ok(job) => job,
            Err(source) => {
                return Err(BusError::Call {
                    call,
                    unit,
                    source: Box::new(source),
                });
            }
        };
        let ended = self.ended(&job);
        let result = match tokio::time::timeout(deadline, ended).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => "lost: the bus is gone".to_owned(),
            Err(_) => {
                lock(&self.jobs).waiting.remove(&job);
                format!("not ended after {} s", deadline.as_secs())
            }
        };
        if result == "done" {
            Ok(())
        } else {
            Err(BusError::Job { call, unit, result })
        }
    }

    fn ended(&self, job: &OwnedObjectPath) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        let mut jobs = lock(&self.jobs);
        match jobs.ended.iter().position(|(ended, _)| ended == job) {
            Some(index) => {
                let (_, result) = jobs.ended.swap_remove(index);
                let _ = sender.send(result);
            }
            None => {
                jobs.waiting.insert(job.clone(), sender);
            }
        }
        receiver
    }
}

/// The number in a version as in `257.13-1~deb13u1`, `v258` or `258~rc1`; 0: none.
fn version_number(text: &str) -> u32 {
    let text = text.trim_start_matches('v');
    let end = text.find(|c: char| !c.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().unwrap_or(0)
}

/// The kind of job (`stop`, `restart`...) that systemd has under way for the unit this process is the main process of; `None`: it
/// is in no unit, or has no job.
pub async fn own_job(bus: &str) -> Option<String> {
    let ask = async {
        let connection = connection::Builder::address(bus)
            .method_timeout(CALL)
            .build()
            .await?;
        let manager = ManagerProxy::new(&connection).await?;
        let unit = manager.get_unit_by_pid(std::process::id()).await?;
        let job: (u32, OwnedObjectPath) =
            property(&connection, &unit, "org.freedesktop.systemd1.Unit", "Job").await?;
        if job.0 == 0 {
            return Ok(None);
        }
        let kind: String = property(
            &connection,
            &job.1,
            "org.freedesktop.systemd1.Job",
            "JobType",
        )
        .await?;
        Ok::<_, zbus::Error>(Some(kind))
    };
    ask.await.ok().flatten()
}

/// Whether this systemd is going down with all of its units: the machine is, or the user's session.
pub async fn is_going_down(bus: &str) -> bool {
    let ask = async {
        let connection = connection::Builder::address(bus)
            .method_timeout(CALL)
            .build()
            .await?;
        let root = OwnedObjectPath::try_from(ROOT)?;
        let interface = "org.freedesktop.systemd1.Manager";
        property::<String>(&connection, &root, interface, "SystemState").await
    };
    let state: zbus::Result<String> = ask.await;
    state.is_ok_and(|state| state == "stopping")
}

/// Stops a unit, which may be gone or on its way down already, and returns when it is down or `deadline` is over.
pub async fn stop_unit(bus: &str, unit: &str, deadline: Duration) {
    let stop = async {
        let connection = connection::Builder::address(bus)
            .method_timeout(CALL)
            .build()
            .await?;
        let manager = ManagerProxy::new(&connection).await?;
        let mut jobs = manager.receive_job_removed().await?;
        manager.subscribe().await?;
        let job = manager.stop_unit(unit, "replace").await?;
        while let Some(ended) = jobs.next().await {
            if ended.args()?.job() == &job.as_ref() {
                break;
            }
        }
        Ok::<_, zbus::Error>(())
    };
    match tokio::time::timeout(deadline, stop).await {
        Ok(Err(error)) if is_gone(&error) => {}
        Ok(Err(error)) => tracing::warn!("stop unit '{unit}': {error}; going on without"),
        Err(_) => tracing::warn!("unit '{unit}' did not stop in time; going on without"),
        Ok(Ok(())) => {}
    }
}

/// `ActiveState=` of a unit; `None`: it is not loaded, or there is no systemd on this bus.
pub async fn unit_state(connection: &Connection, unit: &str) -> Option<String> {
    let manager = ManagerProxy::new(connection).await.ok()?;
    let path = manager.get_unit(unit).await.ok()?;
    property(
        connection,
        &path,
        "org.freedesktop.systemd1.Unit",
        "ActiveState",
    )
    .await
    .ok()
}

pub(super) async fn property<T>(
    connection: &Connection,
    path: &OwnedObjectPath,
    interface: &str,
    name: &str,
) -> zbus::Result<T>
where
    T: serde::de::DeserializeOwned + zbus::Type,
{
    // Without a cache: that would take a match rule of the bus for each object, of which it has 512 for a connection.
    let proxy: zbus::Proxy<'_> = zbus::proxy::Builder::new(connection)
        .destination(SERVICE)
        .path(path)
        .interface(interface)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await?;
    proxy.get_property(name).await
}

/// Whether systemd has no such unit, or none any more.
pub(super) fn is_gone(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::MethodError(name, ..) => matches!(
            name.as_str(),
            "org.freedesktop.systemd1.NoSuchUnit" | "org.freedesktop.DBus.Error.UnknownObject"
        ),
        zbus::Error::FDO(error) => matches!(**error, fdo::Error::UnknownObject(_)),
        _ => false,
    }
}

/// Whether a unit in this `ActiveState=` has no process and does not listen.
pub(super) fn is_down(state: &str) -> bool {
    matches!(state, "inactive" | "failed")
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
