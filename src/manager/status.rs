//! Workers, listeners and outcomes of reloads as they go over the bus.

use serde::{Deserialize, Serialize};

use crate::route::Listen;
use crate::wire::FrontState;

/// How a reload went for one worker: name, outcome (`unchanged`, `replaced`, `started`, `assets`, `removed`, `failed`; of a dry
/// run what would be done), generation before and after (0: none), reason and last log lines of a failure.
#[derive(Clone, Debug, Serialize, Deserialize, zbus::Type)]
pub struct WorkerOutcome {
    /// Its name.
    pub worker: String,
    /// In a word.
    pub outcome: String,
    /// Generation before; 0: none.
    pub from: u64,
    /// Generation after; 0: none.
    pub to: u64,
    /// Why it failed; empty: it did not.
    pub reason: String,
    /// Its last log lines, if it failed.
    pub log: Vec<String>,
}

/// A worker's name, and the generations that it can be rolled back to, the newest first.
pub type Rollbacks = (String, Vec<u64>);

/// A worker as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, zbus::Type)]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// Its places in the URL space, as `/api` or `example.org/api`, with `, ` between them; empty: it has none.
    pub route: String,
    /// `serving`, `starting`, `sleeping`, `files`, `new`, `failed`, `forbidden` (server.yaml has taken its route away) or `removed`.
    pub state: String,
    /// Its generations, newest first.
    pub generations: Vec<GenerationStatus>,
    /// What went wrong last; empty: nothing since the manager started.
    pub last_failure: String,
    /// Seconds since then.
    pub last_failure_ago: u64,
    /// Seconds until it is tried again; 0: no try is planned.
    pub retry_in: u64,
    /// Seconds for which its requests still wait; 0: it is not paused.
    pub paused_for: u64,
    /// Whether its requests are refused for maintenance.
    pub in_maintenance: bool,
    /// What clients are told of that; empty: a sentence of the server's own.
    pub maintenance: String,
    /// Whether its port can be reached from outside the machine.
    pub exposed: bool,
    /// What its state directory takes on the disk in bytes; 0: not measured yet, or it has none.
    pub state_size: u64,
    /// Whether it takes more than that: it was not counted to its end.
    pub state_is_more: bool,
    /// The most it is to take, `state_max` in the configuration; 0: any.
    pub state_max: u64,
}

/// A generation as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, zbus::Type)]
pub struct GenerationStatus {
    /// Its number.
    pub generation: u64,
    /// Its service unit, the first if it has several; empty: it has none.
    pub unit: String,
    /// `building`, `launching`, `activating`, `accepting`, `serving`, `draining` or `stopping`.
    pub stage: String,
    /// Its main process, the first that runs of several; 0: none.
    pub pid: u32,
    /// Memory in bytes, of all of its instances; 0: none, or not accounted.
    pub memory: u64,
    /// CPU time in microseconds, of all of its instances.
    pub cpu_usec: u64,
    /// Requests begun.
    pub requests: u64,
    /// Of those, not yet ended.
    pub in_flight: u64,
    /// How often systemd has restarted its instances.
    pub restarts: u32,
    /// Start of the process `pid`, in seconds since 1970; 0: it has none.
    pub since: u64,
    /// Its instances, in their order.
    pub instances: Vec<InstanceStatus>,
}

/// One instance of a generation as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, zbus::Type)]
pub struct InstanceStatus {
    /// Its service unit.
    pub unit: String,
    /// `running`, `starting`, `sleeping`, `restarting`, `stopping` or `failed`.
    pub state: String,
    /// Its main process; 0: none.
    pub pid: u32,
    /// Memory in bytes; 0: none, or not accounted.
    pub memory: u64,
    /// CPU time in microseconds.
    pub cpu_usec: u64,
    /// How often systemd has restarted it.
    pub restarts: u32,
    /// Start of its process, in seconds since 1970; 0: it has none.
    pub since: u64,
}

/// A place where clients connect, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, zbus::Type)]
pub struct ListenerStatus {
    /// As in `0.0.0.0:443 (TLS)` or `unix:/run/tqserver-proxy/web.sock`.
    pub place: String,
    /// `serving` or `refused`.
    pub state: String,
    /// Why it is refused, in a sentence; empty: it is not.
    pub reason: String,
}

impl ListenerStatus {
    /// The places of `front`.
    pub(super) fn all(front: &FrontState) -> Vec<Self> {
        let status = |listen: &Listen, state: &str, reason: &str| Self {
            place: listen.to_string(),
            state: state.to_owned(),
            reason: reason.to_owned(),
        };
        let serving = front.listening.iter().map(|l| status(l, "serving", ""));
        let refused = front.refused.iter();
        let refused = refused.map(|one| status(&one.listen, "refused", &one.reason));
        serving.chain(refused).collect()
    }
}
