//! How a worker's program is built, run, reached and watched.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mode::Mode;
use crate::names::WorkerName;
pub use crate::types::WorkerType;
use crate::types::{self, php};

/// The types as a file spells them.
pub(super) static TYPES: LazyLock<Vec<(&str, WorkerType)>> =
    LazyLock::new(|| types::ALL.map(|kind| (kind.name, kind.kind)).to_vec());

/// How a worker gets its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Listen {
    /// The listening socket as file descriptor 3 (sd_listen_fds(3)).
    #[default]
    Socket,
    /// The worker listens on `PORT` itself.
    Port,
}

/// What of the network a worker can reach. Its own socket is not concerned: it is handed over open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Nothing: a network name space of its own (`PrivateNetwork=`).
    None,
    /// This machine's loopback addresses (`IPAddressDeny=any`, `IPAddressAllow=localhost`).
    Loopback,
    /// All.
    #[default]
    Full,
}

/// A part of the kernel that few programs need, and that is closed to all that do not name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelPart {
    /// Queues of calls that the kernel makes for the program (io_uring(7)).
    IoUring,
    /// The kernel's store of keys (keyrings(7)).
    Keyrings,
}

impl fmt::Display for KernelPart {
    /// As a file spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Keyrings => "keyrings",
        })
    }
}

/// In which modes a worker is there at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enabled {
    /// In both.
    #[default]
    Always,
    /// In neither.
    Never,
    /// In development only.
    Development,
}

impl Enabled {
    /// Whether the worker is there in `mode`.
    pub fn in_mode(self, mode: Mode) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Development => mode == Mode::Development,
        }
    }
}

/// How a generation's health is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The full path of the request; default: the worker's route.
    pub path: Option<String>,
    /// Deadline of one periodic request.
    pub timeout: Duration,
    /// Time between two periodic requests; zero: none are made.
    pub interval: Duration,
    /// Deadline of the first answer of a new generation.
    pub start_timeout: Duration,
    /// Failures in a row after which a generation is replaced.
    pub failures: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: None,
            timeout: Duration::from_secs(5),
            interval: Duration::from_secs(10),
            start_timeout: Duration::from_secs(30),
            failures: 3,
        }
    }
}

/// Whether a client stays with one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sticky {
    /// No.
    #[default]
    No,
    /// By the cookie `tqserver_NAME`.
    Yes,
    /// By a cookie of this name.
    By(String),
}

impl Sticky {
    /// The name of the cookie, if there is one.
    pub(super) fn cookie_of(&self, worker: &WorkerName) -> Option<String> {
        match self {
            Self::No => None,
            Self::Yes => Some(format!("tqserver_{worker}")),
            Self::By(name) => Some(name.clone()),
        }
    }
}

/// The directory of a worker's PHP scripts: the first of these that has an `index.php`, or the front controller that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentRoot {
    /// `public/`, beside other files that browsers get.
    Public,
    /// The worker's directory itself.
    Worker,
    /// `src/`.
    Src,
}

impl DocumentRoot {
    /// The script that answers a path which names its directory.
    pub const INDEX: &'static str = php::INDEX;

    /// All of them, in the order in which they are looked for.
    pub const ALL: [Self; 3] = [Self::Public, Self::Worker, Self::Src];

    /// The directory, for a worker whose files are in `files`.
    pub fn below(self, files: &Path) -> PathBuf {
        match self {
            Self::Public => files.join("public"),
            Self::Worker => files.to_owned(),
            Self::Src => files.join("src"),
        }
    }
}
