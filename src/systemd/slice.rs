//! What is in our slice: units of generations, our planes, builds, and what nobody should have put there.

use std::collections::BTreeSet;

use zbus::OwnedObjectPath;

use super::bus::{BusError, Systemd};
use super::interface::{is_down, is_gone, property};
use super::loaded::PAIRS;
use super::object_path::escape;
use crate::names::{Pair, SLICE, UnitKind};

/// What need not be looked at.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// These units are known.
    pub units: BTreeSet<String>,
    /// These slices are of workers that are known. They are not asked for what is in them, one after another: what is called as our own
    /// units are is found there all the same.
    pub slices: BTreeSet<String>,
}

impl Systemd {
    /// The units in our slice and in those below it that are not `known` and have a process, listen, or are on their way up or down. A slice
    /// is none of them.
    ///
    /// # Errors
    /// When systemd can not be reached.
    pub async fn strays(&self, known: &Known) -> Result<Vec<String>, BusError> {
        // Now it is there, if it ever is.
        let _ = self.group().await;
        let mut found = BTreeSet::new();
        let mut slices = vec![SLICE.to_owned()];
        while !slices.is_empty() {
            let members = slices.iter().map(|slice| self.members(slice));
            let members = futures_util::future::try_join_all(members).await?;
            let (below, units): (Vec<String>, Vec<String>) = members
                .into_iter()
                .flatten()
                .partition(|unit| unit.ends_with(".slice"));
            found.extend(units);
            slices = below;
            slices.retain(|slice| !known.slices.contains(slice));
        }
        found.retain(|unit| !known.units.contains(unit));
        for unit in self.listed(PAIRS).await? {
            let new = !known.units.contains(&unit.0) && !found.contains(&unit.0);
            if let (true, Some((pair, kind))) = (new, Pair::from_unit(&unit.0))
                && self.is_in_slice(&unit.6, kind, &pair.slice()).await
            {
                found.insert(unit.0);
            }
        }
        self.not_down(&found).await
    }

    /// The units that are in this very slice.
    async fn members(&self, slice: &str) -> Result<Vec<String>, BusError> {
        const INTERFACE: &str = "org.freedesktop.systemd1.Unit";
        let asked = async {
            let path = format!("/org/freedesktop/systemd1/unit/{}", escape(slice));
            let path = OwnedObjectPath::try_from(path)?;
            let ask = || property(self.connection(), &path, INTERFACE, "SliceOf");
            self.gate.pass(ask).await
        };
        match asked.await {
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            asked => asked.map_err(|source| BusError::Call {
                call: "ask for what is in",
                unit: slice.to_owned(),
                source: Box::new(source),
            }),
        }
    }

    /// Whether a unit that is called as those of ours are is one: somebody else's is in another slice.
    async fn is_in_slice(&self, path: &OwnedObjectPath, kind: UnitKind, slice: &str) -> bool {
        let interface = match kind {
            UnitKind::Service => "org.freedesktop.systemd1.Service",
            UnitKind::Socket => "org.freedesktop.systemd1.Socket",
        };
        let ask = || property::<String>(self.connection(), path, interface, "Slice");
        let found = self.gate.pass(ask).await;
        found.is_ok_and(|found| found == slice)
    }

    async fn not_down(&self, units: &BTreeSet<String>) -> Result<Vec<String>, BusError> {
        let names: Vec<&str> = units.iter().map(String::as_str).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let list = || self.manager.list_units_by_names(&names);
        let listed = self.gate.pass(list).await;
        let listed = listed.map_err(|source| BusError::Call {
            call: "list units in",
            unit: SLICE.to_owned(),
            source: Box::new(source),
        })?;
        let up = listed.into_iter().filter(|unit| !is_down(&unit.3));
        Ok(up.map(|unit| unit.0).collect())
    }

    /// The unit this process is in; `None`: in none, or systemd does not say.
    pub async fn own_unit(&self) -> Option<String> {
        let ask = || self.manager.get_unit_by_pid(std::process::id());
        let path = self.gate.pass(ask).await.ok()?;
        let ask = || {
            property(
                self.connection(),
                &path,
                "org.freedesktop.systemd1.Unit",
                "Id",
            )
        };
        self.gate.pass(ask).await.ok()
    }
}
