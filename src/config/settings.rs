//! What `server.yaml` says, checked.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::grants::Grants;
use super::limits::{Caps, Limits, LimitsPatch};
use super::problem::Place;
use crate::limits::ByteSize;
use crate::route::{Front, RoutePath};

/// `server.yaml`, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The file it came from.
    pub file: PathBuf,
    /// Whether the file says at which addresses to listen.
    pub addressed: bool,
    /// The proxy's side towards clients. Certificates are not in it until they are read.
    pub front: Front,
    /// Where the certificates of `front` are.
    pub certificates: Vec<CertificateFiles>,
    /// Absolute paths of the directories of workers, at least one, none inside another. A worker in an earlier one hides one of the
    /// same name in a later one.
    pub workers_directories: Vec<PathBuf>,
    /// Ports for workers with `listen: port`.
    pub ports: RangeInclusive<u16>,
    /// Most instances that are started at the same time.
    pub concurrent_starts: usize,
    /// Fixed wait between starting a generation and its first health request; zero unless set.
    pub startup_delay: Duration,
    /// Fixed wait between the switch to a new generation and draining the old one; zero unless set.
    pub restart_delay: Duration,
    /// How long a draining generation's requests may take, and then how long its process may take to exit on SIGTERM.
    pub shutdown_grace: Duration,
    /// How long file events are gathered.
    pub debounce: Duration,
    /// How often files are looked at instead of waiting for events; `None`: events.
    pub poll: Option<Duration>,
    /// There is no file, and nothing that it would name has to be there yet: the directory of workers may be missing.
    pub unwritten: bool,
    /// Development: how long a page may wait for what is on its way; zero: it does not.
    pub hold: Duration,
    /// Development: what one build may use.
    pub build: BuildLimits,
    /// Production: how large one snapshot may become.
    pub snapshots: SnapshotLimits,
    /// Production: how many accepted generations of a worker that differ are kept to go back to, beside the one that serves.
    pub keep_generations: usize,
    /// Production: how long a removed worker's snapshots are kept; `None`: for ever.
    pub keep_removed: Option<Duration>,
    /// Limits of all workers unless overridden.
    pub default: Limits,
    /// What overrides them on a route: only the keys that are set.
    pub paths: BTreeMap<RoutePath, LimitsPatch>,
    /// What no worker.yaml may pass.
    pub max: Caps,
    /// What of the URL space workers may have.
    pub grants: Grants,
    /// Above which exposure `check` fails.
    pub max_exposure: Exposure,
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate and those that vouch for it.
    pub certificate: PemFile,
    /// Its key.
    pub key: PemFile,
    /// Where it says so.
    pub place: Place,
}

/// Where PEM text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PemFile {
    /// In a file that the manager reads.
    File(PathBuf),
    /// In a credential of the proxy's unit (systemd.exec(5)).
    Credential(String),
}

/// What one build may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildLimits {
    /// How long it may take.
    pub timeout: Duration,
    /// Most memory; `None`: three quarters of the machine's.
    pub memory_max: Option<ByteSize>,
}

/// How large one snapshot may become: a deployer decides what is in it, and all are on one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// Most bytes, by the lengths of its files: holes of sparse files count.
    pub max_size: ByteSize,
    /// Most files, links and directories.
    pub max_files: u64,
}

impl SnapshotLimits {
    /// No limits.
    pub const NONE: Self = Self {
        max_size: ByteSize(u64::MAX),
        max_files: u64::MAX,
    };
}

impl Default for SnapshotLimits {
    /// A Python environment with a machine learning library and a large `node_modules` fit.
    fn default() -> Self {
        Self {
            max_size: ByteSize(8 << 30),
            max_files: 250_000,
        }
    }
}

/// How much of the machine a service can reach, as `systemd-analyze security` counts it: tenths, from 0 (nothing) to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exposure(pub u8);

impl fmt::Display for Exposure {
    /// As `systemd-analyze security` prints it: `2.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}
