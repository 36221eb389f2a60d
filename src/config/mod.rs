//! Configuration in three stages, three types: what a file says, merged over the defaults, checked.
//!
//! This module holds the last stage, which the rest of the program sees. The rooms below it:
//! `source` opens files, `files` knows what those of workers said, `document` parses them, `section` reads keys, `patch` limits; `server` and `worker` are the two files, `hosts` what both
//! name, `merge` lays one over the other, and `problem` is how all of them say what is wrong.

mod document;
mod files;
mod grants;
mod hosts;
mod lowered;
mod merge;
mod mode;
mod patch;
pub mod problem;
mod section;
mod server;
mod source;
mod words;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ignored::Pattern;
use crate::limits::{ByteSize, CpuQuota};
use crate::names::WorkerName;
use crate::route::{ErrorPages, Flow, Front, HostPattern, Redirect, RoutePath, Timeouts};

pub use files::Files;
pub use grants::{Grant, Refused};
pub use mode::ModeError;
pub use problem::{Place, Problem, Problems, printable};
pub use server::{Instead, project_directory};

/// Whether workers run from their directories and are built (development) or from snapshots (production).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The worker's directory itself is run, after a build.
    Development,
    /// A snapshot of the worker's directory is run, as it was deployed.
    Production,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Development => "development",
            Self::Production => "production",
        })
    }
}

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
    /// Development: how long a page may wait for what is on its way; zero: it does not.
    pub hold: Duration,
    /// Development: what one build may use.
    pub build: BuildLimits,
    /// Production: how large one snapshot may become.
    pub snapshots: SnapshotLimits,
    /// Production: how long a removed worker's snapshots are kept; `None`: for ever.
    pub keep_removed: Option<Duration>,
    /// Limits of all workers unless overridden.
    pub default: Limits,
    /// What overrides them on a route: only the keys that are set.
    pub paths: BTreeMap<RoutePath, LimitsPatch>,
    /// What no worker.yaml may pass.
    pub max: Caps,
    /// The hosts that a worker.yaml may name; `None`: any if the administrator wrote it, none if a deployer did.
    pub hosts: Option<Vec<HostPattern>>,
    /// Hosts that are left to one worker, besides, with all their paths.
    pub own_hosts: BTreeMap<WorkerName, Vec<HostPattern>>,
    /// Paths that are left to a deployer's worker beside those below its directory's.
    pub routes: BTreeMap<WorkerName, Vec<Grant>>,
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

/// Upper bounds for what a worker.yaml may ask for; `None`: any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Most cores.
    pub gomaxprocs: Option<u32>,
    /// Most memory.
    pub gomemlimit: Option<ByteSize>,
    /// Most tasks.
    pub tasks_max: Option<u64>,
    /// Most memory before it is slowed down.
    pub memory_high: Option<ByteSize>,
    /// Most state.
    pub state_max: Option<ByteSize>,
    /// Largest share of the CPU.
    pub cpu_weight: Option<u64>,
    /// Largest share of the disks.
    pub io_weight: Option<u64>,
    /// Largest body of a request.
    pub max_body_size: Option<ByteSize>,
    /// Most requests at a time.
    pub max_concurrency: Option<u64>,
    /// Most requests that wait.
    pub queue_size: Option<u64>,
    /// Most instances.
    pub instances: Option<u8>,
}

/// What one worker may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Cores: `CPUQuota=` and `GOMAXPROCS`. `None` (0 in the file): all there are.
    pub gomaxprocs: Option<CpuQuota>,
    /// Memory: `MemoryMax=`, and `GOMEMLIMIT` at 90 % of it.
    pub gomemlimit: Option<ByteSize>,
    /// Processes and threads: `TasksMax=`.
    pub tasks_max: Option<u64>,
    /// Memory above which it is slowed down and made to give some back: `MemoryHigh=`.
    #[serde(default)]
    pub memory_high: Option<ByteSize>,
    /// What its state directory may take on the disk: `StateDirectoryQuota=` where systemd has it; everywhere it is measured and warned about.
    // Left out where there is none, so that what such workers are written down as stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_max: Option<ByteSize>,
    /// Its share of the CPU when all want it, 1 to 10000, 100 unless set: `CPUWeight=`.
    #[serde(default)]
    pub cpu_weight: Option<u64>,
    /// Its share of the disks when all want them, 1 to 10000, 100 unless set: `IOWeight=`.
    #[serde(default)]
    pub io_weight: Option<u64>,
    /// How many processes a generation consists of, 1 to 64, each behind a socket or port of its own and with limits of its own.
    // Left out where there is one, so that what other workers are written down as stays the same.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub instances: u8,
    /// Whether the proxy writes a line for each of its requests.
    #[serde(default)]
    pub access_log: bool,
    /// Whether the proxy compresses its answers for clients that take it.
    #[serde(default = "yes")]
    pub compression: bool,
    /// Requests after which a generation is replaced; 0: never.
    pub max_requests: u64,
    /// The proxy's patience with the worker.
    pub timeouts: Timeouts,
    /// How much it is asked at a time.
    // Left out where nothing was set, so that what such workers are written down as stays the same.
    #[serde(default, skip_serializing_if = "Flow::is_default")]
    pub flow: Flow,
    /// Where the worker's output goes instead of the journal: an absolute path with `{path}`, `{name}`, `{date}` to be filled in;
    /// empty: the journal.
    pub log_file: String,
}

/// What of [`Limits`] was so before it could be set.
fn yes() -> bool {
    true
}

fn one() -> u8 {
    1
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(instances: &u8) -> bool {
    *instances == 1
}

/// Limits of which only some are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsPatch {
    /// Cores; 0: no quota.
    pub gomaxprocs: Option<u32>,
    /// Memory; the inner `None` is the empty string: no limit.
    pub gomemlimit: Option<Option<ByteSize>>,
    /// Processes and threads.
    pub tasks_max: Option<u64>,
    /// See [`Limits::memory_high`]; the inner `None` is the empty string: no such limit.
    pub memory_high: Option<Option<ByteSize>>,
    /// See [`Limits::state_max`]; the inner `None` is the empty string: no limit.
    pub state_max: Option<Option<ByteSize>>,
    /// See [`Limits::cpu_weight`].
    pub cpu_weight: Option<u64>,
    /// See [`Limits::io_weight`].
    pub io_weight: Option<u64>,
    /// See [`Limits::instances`].
    pub instances: Option<u8>,
    /// See [`Limits::access_log`].
    pub access_log: Option<bool>,
    /// See [`Limits::compression`].
    pub compression: Option<bool>,
    /// Requests after which a generation is replaced.
    pub max_requests: Option<u64>,
    /// See [`Timeouts::read`].
    pub read_timeout: Option<Duration>,
    /// See [`Timeouts::write`].
    pub write_timeout: Option<Duration>,
    /// See [`Timeouts::idle`].
    pub idle_timeout: Option<Duration>,
    /// See [`Flow::max_body`]; the inner `None` is the empty string: no limit.
    pub max_body_size: Option<Option<ByteSize>>,
    /// See [`Flow::max_concurrency`].
    pub max_concurrency: Option<u64>,
    /// See [`Flow::queue_size`].
    pub queue_size: Option<u64>,
    /// See [`Flow::queue_timeout`].
    pub queue_timeout: Option<Duration>,
    /// See [`Flow::retries`].
    pub retries: Option<u64>,
    /// See [`Flow::request_timeout`].
    pub request_timeout: Option<Duration>,
    /// See [`Limits::log_file`].
    pub log_file: Option<String>,
}

/// How a worker's program is built and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerType {
    /// A Cargo package.
    Rust,
    /// A Go module, or `src/*.go`.
    Go,
    /// A Node.js program.
    Node,
    /// A Python program.
    Python,
    /// PHP scripts, run by php-fpm.
    Php,
    /// A program for Bun.
    Bun,
    /// A program for Deno.
    Deno,
    /// Any program: `bin/NAME` or `command`.
    Exec,
    /// No program: the files in `public/`.
    Static,
}

impl fmt::Display for WorkerType {
    /// As a file spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = worker::TYPES.iter().find(|(_, kind)| kind == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

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

/// `workers/NAME/config/worker.yaml`, checked; all of it is optional.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerFile {
    /// Route instead of the one the directory gives.
    pub path: Option<RoutePath>,
    /// See [`WorkerSettings::hosts`].
    pub hosts: Vec<HostPattern>,
    /// See [`WorkerSettings::strip_prefix`].
    pub strip_prefix: bool,
    /// See [`WorkerSettings::underscores_in_headers`].
    pub underscores_in_headers: bool,
    /// See [`WorkerSettings::redirects`], each with its place.
    pub redirects: Vec<(Redirect, Place)>,
    /// See [`WorkerSettings::error_pages`].
    pub error_pages: ErrorPages,
    /// Type instead of the one found.
    pub kind: Option<WorkerType>,
    /// Program and arguments instead of what the type runs. A relative program is taken from the worker's directory.
    pub command: Option<Vec<String>>,
    /// Program and arguments that build the worker instead of what the type does.
    pub build: Option<Vec<String>>,
    /// How it gets its connections.
    pub listen: Listen,
    /// It is spoken to over HTTP/2 without TLS, by prior knowledge (RFC 9113, 3.3).
    pub h2c: bool,
    /// How its health is asked.
    pub health: Health,
    /// What is added to its environment.
    pub env: BTreeMap<String, String>,
    /// In which modes it is there.
    pub enabled: Enabled,
    /// What of the network it can reach.
    pub network: Network,
    /// Whether it makes machine code while it runs; `None`: as its type does.
    pub jit: Option<bool>,
    /// See [`WorkerSettings::kernel`].
    pub kernel: Vec<KernelPart>,
    /// Whether it has a cache directory.
    pub cache: bool,
    /// The secrets it is handed, by name.
    pub credentials: Vec<String>,
    /// Whether it is started with the server instead of with its first request.
    pub autostart: bool,
    /// The cookie by which a client stays with one instance.
    pub sticky: Sticky,
    /// Which of its files do not count in development, beside those that are known.
    pub watch_ignore: Vec<Pattern>,
    /// The limits it asks for.
    pub limits: LimitsPatch,
    /// Where the keys stand that are judged later, together with server.yaml: limits, and what names a program.
    pub places: BTreeMap<&'static str, Place>,
}

/// A worker as it is to run: its directory, its file and the limits that apply, all checked. Two equal values need no reload.
///
/// It is written into units and snapshots, which a later version reads: a new field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSettings {
    /// Its name.
    pub name: WorkerName,
    /// Its place in the URL space.
    pub route: RoutePath,
    /// The hosts it is for; none: all.
    // These five are left out where they are not set, so that what other workers are written down as stays the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// Whether it is asked without its route at the beginning of paths.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip_prefix: bool,
    /// Whether it gets fields that have names with `_` and other signs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub underscores_in_headers: bool,
    /// Where requests are sent instead, the first that fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<Redirect>,
    /// Files in `public/` that are sent with the proxy's own errors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub error_pages: ErrorPages,
    /// How it is built and run.
    pub kind: WorkerType,
    /// Program and arguments, if given.
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
    /// What is added to its environment.
    pub env: BTreeMap<String, String>,
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
    /// Whether it is started with the server instead of with its first request.
    #[serde(default)]
    pub autostart: bool,
    /// Where its PHP scripts are, if php-fpm is to run them.
    // Left out where there is none, so that what other workers are written down as stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_root: Option<DocumentRoot>,
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

/// The directory of a worker's PHP scripts: the first of these that has an `index.php`.
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
    /// The script that answers whatever names no other.
    pub const INDEX: &'static str = "index.php";

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

/// How much of the machine a service can reach, as `systemd-analyze security` counts it: tenths, from 0 (nothing) to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exposure(pub u8);

impl fmt::Display for Exposure {
    /// As `systemd-analyze security` prints it: `2.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}
