//! Who answers on a route: a generation and where it listens, or what is there instead.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::indexes::Indexes;
use super::path::RoutePath;
use crate::names::Generation;

/// Who answers on a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A generation of the worker.
    Serving(Upstream),
    /// Nobody but the files in `public`: anything else is 404.
    Files,
    /// Nobody for now: 503 with this reason.
    Unavailable {
        /// A sentence for people.
        reason: String,
        /// When it is worth trying again, if that is known.
        retry_after: Option<Duration>,
        /// Its first generation is on its way, and nothing is known to be wrong with it: how long requests may wait for that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        awaited: Option<Duration>,
    },
}

/// A generation that answers requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Which generation.
    pub generation: Generation,
    /// Where it listens, or the first of its instances that can.
    pub address: Address,
    /// Of a worker with several instances: where each that can be reached listens, by its number. Empty: there is but one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instances: BTreeMap<u8, Address>,
    /// What it speaks there.
    #[serde(default)]
    pub protocol: Protocol,
    /// After that many requests the manager wants to hear "spent"; 0: never.
    pub max_requests: u64,
    /// A process of it is on its way up: how long a request may wait for it. `None`: all that should run do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting: Option<Duration>,
}

/// What a generation speaks on its socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2 without TLS, from the first byte on (RFC 9113, 3.3).
    Http2,
    /// FastCGI, as php-fpm does; it is told which script is to answer.
    FastCgi(Scripts),
}

impl Protocol {
    /// As much of it as a request for `path` needs to know.
    #[must_use]
    pub fn for_one(&self, path: &str) -> Self {
        match self {
            Self::FastCgi(scripts) => Self::FastCgi(Scripts {
                indexes: scripts.indexes.as_ref().map(|all| all.on_the_way_to(path)),
                ..scripts.clone()
            }),
            Self::Http | Self::Http2 => self.clone(),
        }
    }
}

/// The scripts of a worker that speaks FastCGI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripts {
    /// The document root: an absolute path in the directory the worker runs from. It is a name for the worker, and the proxy may not be
    /// able to look there.
    pub root: PathBuf,
    /// The script in it that answers whatever names no other.
    // As an earlier version has called it, in whose last table it is.
    #[serde(alias = "index")]
    pub front_controller: String,
    /// The place in the URL space that stands for `root`.
    pub route: RoutePath,
    /// Which directories have an index. `None` where people work in them: then they come and go, and the proxy can look there.
    #[serde(default)]
    pub indexes: Option<Indexes>,
}

/// Where a generation listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// A unix stream socket.
    Unix(PathBuf),
    /// A TCP port, for workers that can not take a socket.
    Tcp(SocketAddr),
    /// The same, of a worker with a user of its own: whatever is sent goes to that user's process, or nowhere. Anybody on the machine
    /// can listen on a port.
    Held {
        /// Where.
        at: SocketAddr,
        /// Whose it has to be; [`u32::MAX`]: nobody's yet.
        by: u32,
    },
}

impl Address {
    /// Of a worker that listens on `port` itself.
    pub fn loopback(port: u16) -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) | Self::Held { at: address, .. } => address.fmt(f),
        }
    }
}
