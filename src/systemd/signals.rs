//! systemd's signals: ends of jobs for the callers that wait for them, changes of our units for the manager.
//!
//! All of them come through one stream, which is always read: a reader that stalls would stall the whole connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use tokio::sync::mpsc;
use zbus::{MessageStream, ObjectPath, OwnedVariant};

use super::jobs::{Jobs, lock};
use super::object_path::unescape;
use super::properties::text;
use super::state::{Activity, RawService, ServiceState};
use crate::names::{Pair, UnitKind};

/// A unit of ours changed.
#[derive(Clone, Debug, PartialEq)]
pub enum UnitChange {
    /// The service is in this state now.
    Service(Pair, ServiceState),
    /// The socket does not listen (any more).
    SocketDown(Pair),
}

/// Reads systemd's signals until the bus is gone or nobody listens.
pub(super) async fn follow(
    mut stream: MessageStream,
    jobs: Arc<Mutex<Jobs>>,
    changes: mpsc::Sender<UnitChange>,
) {
    let mut services: HashMap<Pair, RawService> = HashMap::new();
    while let Some(Ok(message)) = stream.next().await {
        let header = message.header();
        let change = match header.member().map(|member| member.as_str()) {
            Some("JobRemoved") => {
                let body = message.body();
                if let Ok((_, job, _, result)) =
                    body.deserialize::<(u32, ObjectPath<'_>, &str, &str)>()
                {
                    lock(&jobs).end(job.into(), result);
                }
                None
            }
            Some("PropertiesChanged") => header
                .path()
                .and_then(|path| changed(path, &message, &mut services))
                .filter(|change| !matches!(change, UnitChange::SocketDown(pair) if lock(&jobs).starting.contains(pair))),
            _ => None,
        };
        if let Some(change) = change
            && changes.send(change).await.is_err()
        {
            return;
        }
    }
}

fn changed(
    path: &ObjectPath<'_>,
    message: &zbus::Message,
    services: &mut HashMap<Pair, RawService>,
) -> Option<UnitChange> {
    let unit = unescape(
        path.as_str()
            .strip_prefix("/org/freedesktop/systemd1/unit/")?,
    );
    let (pair, kind) = Pair::from_unit(&unit)?;
    let body = message.body();
    let (interface, properties, _): (String, HashMap<String, OwnedVariant>, Vec<String>) =
        body.deserialize().ok()?;
    // systemd sends the properties of the kind first, then those of the unit: with the second the picture is whole.
    let whole = interface == "org.freedesktop.systemd1.Unit";
    match kind {
        UnitKind::Service => {
            let raw = services.entry(pair.clone()).or_default();
            raw.update(&properties);
            let state = raw.state();
            if whole && state.activity == Activity::Inactive {
                services.remove(&pair);
            }
            whole.then_some(UnitChange::Service(pair, state))
        }
        UnitKind::Socket => {
            let state = text(&properties, "ActiveState")?;
            matches!(state.as_str(), "failed" | "inactive").then_some(UnitChange::SocketDown(pair))
        }
    }
}
