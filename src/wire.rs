//! The link between the planes: what manager and proxy say to each other, and how it is framed.
//!
//! The manager listens on a unix socket, the proxy connects; in development a socket pair takes its place. Each message is a JSON
//! object behind a 32 bit big-endian length. The two are always of the same version (one binary), so the format needs no history;
//! a `Hello` of another version ends the connection with a clear word.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::Instance;
use crate::route::{Address, RouteTable};

/// Longest message, in bytes: a table of some ten thousand routes.
pub const FRAME_MAX: usize = 16 << 20;

/// What the proxy opens with.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Said by the manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToProxy {
    /// Serve by this table from now on. Answered by [`ToManager::Applied`], then, for each of its `draining`, once by
    /// [`ToManager::Drained`].
    Publish(RouteTable),
    /// Send one health request and answer with [`ToManager::Probed`] of the same `id`.
    Probe {
        /// Chosen by the manager.
        id: u64,
        /// The generation that is asked.
        address: Address,
        /// The path of the request.
        path: String,
        /// Deadline of the whole exchange.
        timeout: Duration,
    },
    /// Answer with [`ToManager::Counted`] of the same `id`.
    Count {
        /// Chosen by the manager.
        id: u64,
    },
}

/// Said by the proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToManager {
    /// First word on a connection.
    Hello {
        /// [`VERSION`] of the proxy.
        version: String,
    },
    /// The table of this serial is in force: no later request follows an older one. `problem` tells what of its front could not be
    /// had (an address in use); the routes are in force all the same.
    Applied {
        /// The table's serial.
        serial: u64,
        /// What could not be had.
        problem: Option<String>,
        /// Where the proxy listens, with the ports the kernel chose.
        listening: Vec<std::net::SocketAddr>,
    },
    /// No request is in flight in this generation, and none will be.
    Drained(Instance),
    /// How the health request `id` went.
    Probed {
        /// As asked.
        id: u64,
        /// What came back.
        outcome: ProbeOutcome,
    },
    /// This generation has answered its `max_requests`.
    Spent(Instance),
    /// The counters of all generations in the table and of those that drain.
    Counted {
        /// As asked.
        id: u64,
        /// One for each generation.
        counts: Vec<Count>,
    },
}

/// How a health request went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// A response with this status code came.
    Status(u16),
    /// None came within the timeout.
    TimedOut,
    /// The connection was refused, broke, or did not speak HTTP; the sentence says which.
    Broken(String),
}

impl ProbeOutcome {
    /// Whether the generation may get requests: it answered, and not with 5xx. A worker without a health page of its own answers
    /// 404 there, and is well.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Status(100..=499))
    }
}

/// What one generation has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Which.
    pub instance: Instance,
    /// Requests begun.
    pub requests: u64,
    /// Of those, not yet ended.
    pub in_flight: u64,
    /// How long ago the last one ended or began.
    pub idle: Duration,
}
