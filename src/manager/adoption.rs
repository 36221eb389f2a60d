//! What the last manager has left in systemd: read back from the record in each unit.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::users::Users;
use crate::config::Settings;
use crate::deploy::Store;
use crate::names::{Instance, Pair};
use crate::plan::{Found, FoundPair, Spec};
use crate::route::Address;
use crate::systemd::{Activity, Loaded};

/// What is written into a generation's units for the next manager.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) spec: Spec,
    pub(super) address: Address,
    pub(super) public: Option<PathBuf>,
    /// The user it runs as, if it gets one of its own.
    #[serde(default)]
    pub(super) user: Option<String>,
}

/// Generations found in systemd, in the plan's words, and those of which a record cannot be read: of another version of this program,
/// whose workers serve until ours do.
pub(super) fn adopted(
    loaded: Vec<Loaded>,
    store: Option<&Store>,
) -> (Vec<Found>, Vec<Pair>, Users) {
    let mut users = Users::default();
    let mut ours: BTreeMap<Instance, BTreeMap<u8, (Loaded, Record)>> = BTreeMap::new();
    let mut strangers = Vec::new();
    for unit in loaded {
        match serde_json::from_str::<Record>(&unit.record) {
            Ok(record) => {
                users.found(&unit.pair.instance, record.user.clone());
                let pairs = ours.entry(unit.pair.instance.clone()).or_default();
                pairs.insert(unit.pair.number, (unit, record));
            }
            Err(error) => {
                tracing::warn!(
                    "{} was made by another version of TQServer ({error}); it is stopped when the worker serves again",
                    unit.pair.service_unit()
                );
                users.found(&unit.pair.instance, None);
                strangers.push(unit.pair);
            }
        }
    }
    let ours = ours
        .into_iter()
        .filter_map(|(instance, pairs)| found(instance, pairs, store));
    (ours.collect(), strangers, users)
}

/// A generation of which these pairs are there.
fn found(
    instance: Instance,
    pairs: BTreeMap<u8, (Loaded, Record)>,
    store: Option<&Store>,
) -> Option<Found> {
    let (first, record) = pairs.values().next()?;
    let (mut spec, mut public) = (record.spec.clone(), record.public.clone());
    // The mark is set on the first one last: what has it was accepted as a whole.
    let accepted = first.accepted;
    // Assets may have been replaced since the units were made.
    if let Some(store) = store
        && let Ok(Some(manifest)) = store.manifest(&instance)
    {
        spec.fingerprint.assets = manifest.assets;
        public = store.latest_assets(&instance);
    }
    let pairs = pairs.into_iter().map(|(number, (unit, record))| {
        let listening = match record.address {
            Address::Unix(_) => unit.listening == Some(true),
            Address::Tcp(_) | Address::Held { .. } => unit.service.activity != Activity::Failed,
        };
        let pair = FoundPair {
            address: record.address,
            listening,
            service: unit.service,
        };
        (number, pair)
    });
    Some(Found {
        pairs: pairs.collect(),
        instance,
        spec,
        public,
        accepted,
    })
}

/// The directory of a generation that is of none of our workers, if there is one.
pub(super) fn foreign(found: &[Found], settings: &Settings) -> Option<PathBuf> {
    let ours = |found: &&Found| {
        let mut directories = settings.workers_directories.iter();
        directories.any(|directory| found.spec.directory.starts_with(directory))
    };
    found
        .iter()
        .find(|found| !ours(found))
        .map(|found| found.spec.directory.clone())
}
