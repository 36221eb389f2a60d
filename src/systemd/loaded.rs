//! What is loaded in systemd of generations, and what it says of that.

use std::collections::HashMap;

use zbus::{OwnedObjectPath, OwnedVariant, fdo};

use super::bus::{BusError, Systemd};
use super::interface::{SERVICE, is_gone};
use super::properties::text;
use super::state::{RawService, ServiceState};
use super::units::{RECORD, UNPROVEN};
use crate::names::{Pair, UnitKind};

/// The names that units of generations have.
pub(super) const PAIRS: &str = "tqserver-*@*";

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

impl Systemd {
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
            raw.update(&properties);
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

    /// All properties of a unit, of whatever kind.
    pub(super) async fn properties(
        &self,
        path: &OwnedObjectPath,
    ) -> zbus::Result<HashMap<String, OwnedVariant>> {
        let proxy = fdo::PropertiesProxy::builder(self.connection())
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
}
