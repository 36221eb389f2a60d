//! A worker as it is to run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::program::{DocumentRoot, Health, KernelPart, Listen, Network, WorkerType};
use crate::names::WorkerName;
use crate::route::{Indexes, RoutePath, RouteSettings};

/// A worker as it is to run: its directory, its file and the limits that apply, all checked. Two equal values need no reload.
///
/// It is written into units and snapshots, which a later version reads: a new field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSettings {
    /// Its name.
    pub name: WorkerName,
    /// Its place in the URL space.
    pub route: RoutePath,
    /// What it says of that place.
    #[serde(flatten)]
    pub on_route: RouteSettings,
    /// How it is built and run.
    pub kind: WorkerType,
    /// Program and arguments, if given. Arguments may name variables (see [`super::expand`]).
    pub command: Option<Vec<String>>,
    /// Build program and arguments, if given.
    pub build: Option<Vec<String>>,
    /// How it gets its connections.
    pub listen: Listen,
    /// It is spoken to over HTTP/2 without TLS, by prior knowledge (RFC 9113, 3.3).
    #[serde(default)]
    pub h2c: bool,
    /// How its health is asked.
    pub health: Health,
    /// What is added to its environment. Values may name variables.
    pub env: BTreeMap<String, String>,
    /// Files in its directory with what is added to its environment, too: a later one over an earlier, `env` over all of them.
    // Left out where there are none, so that what other workers are written down as stays the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_files: Vec<String>,
    /// Variables whose values are among its secrets: the name of each, and that of the secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_from_credentials: BTreeMap<String, String>,
    /// What of the network it can reach.
    #[serde(default)]
    pub network: Network,
    /// Whether it makes machine code while it runs: its memory may then be writable and executable (`MemoryDenyWriteExecute=no`).
    #[serde(default)]
    pub jit: bool,
    /// What of the kernel is open to it that is closed otherwise, in order.
    // Left out where there is nothing, so that what other workers are written down as stays the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel: Vec<KernelPart>,
    /// Whether it has a directory for what it can make again (`CACHE_DIRECTORY`).
    #[serde(default)]
    pub cache: bool,
    /// The secrets it is handed in `CREDENTIALS_DIRECTORY`, by name.
    #[serde(default)]
    pub credentials: Vec<String>,
    /// Directories of its own whose content is in its state, and so outlives its generations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub persisted: Vec<String>,
    /// Whether it is started with the server instead of with its first request.
    #[serde(default)]
    pub autostart: bool,
    /// Where its PHP scripts are, if php-fpm is to run them.
    // Left out where there is none, so that what other workers are written down as stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_root: Option<DocumentRoot>,
    /// The script below it that answers whatever names no other, if it is not [`DocumentRoot::INDEX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_controller: Option<String>,
    /// In production: which directories below it have a [`DocumentRoot::INDEX`].
    #[serde(default, skip_serializing_if = "Indexes::is_empty")]
    pub indexes: Indexes,
    /// The name of the cookie by which a client stays with one instance, if it is to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<String>,
    /// What it may use.
    pub limits: Limits,
}

impl WorkerSettings {
    /// How many pairs of units a generation of it consists of.
    pub fn instances(&self) -> u8 {
        match self.kind {
            // It has no process, so that its one pair is never made either.
            WorkerType::Static => 1,
            _ => self.limits.instances,
        }
    }

    /// The script that answers whatever names no other, if php-fpm runs it.
    pub fn front_controller(&self) -> &str {
        self.front_controller
            .as_deref()
            .unwrap_or(DocumentRoot::INDEX)
    }

    /// Whether it is a worker of files that its own `build` makes.
    pub fn is_static_and_built(&self) -> bool {
        self.kind == WorkerType::Static && self.build.is_some()
    }
}
