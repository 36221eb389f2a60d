//! systemd's signals: ends of jobs for the callers that wait for them, changes of our units for the manager.
//!
//! All of them come through one stream, which is always read: a reader that stalls would stall the whole connection.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};
use zbus::{MessageStream, ObjectPath, OwnedObjectPath, OwnedVariant};

use super::bus::STATE_UNIT;
use super::state::{RawService, ServiceState};
use crate::names::{Instance, Pair, UnitKind};

/// Ends of jobs kept for callers that have not asked yet.
const ENDS: usize = 4096;

/// A unit of ours changed.
#[derive(Clone, Debug, PartialEq)]
pub enum UnitChange {
    /// The service is in this state now.
    Service(Pair, ServiceState),
    /// The socket does not listen (any more).
    SocketDown(Pair),
}

/// What the calls of this connection and the reader of its signals have to know of each other.
#[derive(Default)]
pub(super) struct Jobs {
    /// Pairs that are being made: their sockets are "inactive" on the way up.
    pub(super) starting: HashSet<Pair>,
    pub(super) waiting: HashMap<OwnedObjectPath, oneshot::Sender<String>>,
    /// Jobs that ended before their caller knew their name.
    pub(super) ended: Vec<(OwnedObjectPath, String)>,
}

pub(super) fn lock(jobs: &Mutex<Jobs>) -> std::sync::MutexGuard<'_, Jobs> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
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
                if let Ok((_, job, unit, result)) =
                    body.deserialize::<(u32, ObjectPath<'_>, &str, &str)>()
                    && (Pair::from_unit(unit).is_some()
                        || Instance::from_build_unit(unit).is_some()
                        || unit == STATE_UNIT)
                {
                    job_ended(&jobs, job.into(), result);
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

fn job_ended(jobs: &Mutex<Jobs>, job: OwnedObjectPath, result: &str) {
    let mut jobs = lock(jobs);
    match jobs.waiting.remove(&job) {
        Some(caller) => {
            let _ = caller.send(result.to_owned());
        }
        None => {
            // Somebody else's (an administrator's `systemctl stop`), or of a caller that is about to ask.
            if jobs.ended.len() >= ENDS {
                jobs.ended.remove(0);
            }
            jobs.ended.push((job, result.to_owned()));
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
            update(raw, &properties);
            let state = raw.state();
            if whole && state.activity == super::state::Activity::Inactive {
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

pub(super) fn update(raw: &mut RawService, properties: &HashMap<String, OwnedVariant>) {
    let int = |name: &str| {
        properties
            .get(name)
            .and_then(|value| i32::try_from(value).ok())
    };
    let count = |name: &str| number(properties, name).and_then(|value| u32::try_from(value).ok());
    if let Some(state) = text(properties, "ActiveState") {
        raw.active_state = state;
    }
    if let Some(state) = text(properties, "SubState") {
        raw.sub_state = state;
    }
    if let Some(result) = text(properties, "Result") {
        raw.result = result;
    }
    raw.main_pid = count("MainPID").unwrap_or(raw.main_pid);
    raw.restarts = count("NRestarts").unwrap_or(raw.restarts);
    raw.started = number(properties, "ExecMainStartTimestamp").unwrap_or(raw.started);
    raw.main_code = int("ExecMainCode").unwrap_or(raw.main_code);
    raw.main_status = int("ExecMainStatus").unwrap_or(raw.main_status);
    if let Some(user) = count("UID") {
        // (uid_t) -1 is none.
        raw.user = Some(user).filter(|user| *user != u32::MAX);
    }
    raw.remember();
}

pub(super) fn text(properties: &HashMap<String, OwnedVariant>, name: &str) -> Option<String> {
    properties
        .get(name)
        .and_then(|value| <&str>::try_from(value).ok())
        .map(str::to_owned)
}

pub(super) fn number(properties: &HashMap<String, OwnedVariant>, name: &str) -> Option<u64> {
    let value = properties.get(name)?;
    u64::try_from(value)
        .ok()
        .or_else(|| u32::try_from(value).ok().map(u64::from))
}

/// Undoes the escaping of unit names in object paths: `_` and two hexadecimal digits stand for any byte but letters and digits.
fn unescape(label: &str) -> String {
    let mut bytes = Vec::with_capacity(label.len());
    let mut rest = label.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'_').then(|| tail.get(..2)).flatten();
        match code
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A unit's name as the last part of its object path.
pub(super) fn escape(unit: &str) -> String {
    let mut label = String::with_capacity(unit.len());
    for (index, byte) in unit.bytes().enumerate() {
        match byte {
            b'0'..=b'9' if index > 0 => label.push(char::from(byte)),
            b'a'..=b'z' | b'A'..=b'Z' => label.push(char::from(byte)),
            _ => label.push_str(&format!("_{byte:02x}")),
        }
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_read_from_object_paths() {
        assert_eq!(
            unescape("tqserver_2dapi_2eusers_4012_2eservice"),
            "tqserver-api.users@12.service"
        );
        assert_eq!(unescape("a_zz_"), "a_zz_");
        assert_eq!(
            escape("tqserver-a\\x2db.slice"),
            "tqserver_2da_5cx2db_2eslice"
        );
        for unit in ["tqserver-api.users@12.2.socket", "7.slice", "ü.service"] {
            assert_eq!(unescape(&escape(unit)), unit);
        }
    }
}
