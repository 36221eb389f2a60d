//! systemd's interface on the bus, as far as it is needed (org.freedesktop.systemd1(5)).

use std::time::Duration;

use zbus::{Connection, ObjectPath, OwnedObjectPath, Variant, fdo};

use super::units::Properties;

/// Longest wait for the answer to one method call. A systemd that is starting hundreds of units on a busy machine has let one wait for more
/// than the 25 s that are usual on the bus, and then healthy generations were given up. This is what it gives a unit to start.
pub(super) const CALL: Duration = Duration::from_secs(90);
pub(super) const SERVICE: &str = "org.freedesktop.systemd1";
pub(super) const ROOT: &str = "/org/freedesktop/systemd1";

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
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
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
