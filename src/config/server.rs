//! `server.yaml`, the administrator's file: read, laid over the defaults, checked.

mod directories;
mod front;
mod instead;
mod kept;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{Content, Document, Node};
use super::grants::Grants;
use super::limits::{Caps, Limits, LimitsPatch};
use super::patch::TIMEOUT;
use super::problem::{Place, Problem, Problems};
use super::section::Section;
use super::settings::{BuildLimits, Exposure, Settings, SnapshotLimits};
use super::source::{self, Owner};
use crate::limits::{ByteSize, cores};
use crate::route::{Front, Listen, RoutePath};
pub use instead::Instead;

use directories::directories;
use front::PORT;

/// Ports of workers unless set.
const WORKER_PORTS: RangeInclusive<u16> = 9000..=9999;
/// Bytes of a request's head: less than the first and the HTTP library could not read at all, more is a burden for each connection.
const HEADER_BYTES: RangeInclusive<ByteSize> = ByteSize(8 << 10)..=ByteSize(1 << 20);
/// Highest rate in bytes per second that can be asked of a client. It is about those who do harm, not about those with a slow line.
const MOST_RATE: u64 = 1 << 20;
/// Longest fixed wait in milliseconds that can be set: ten minutes.
const LONGEST_DELAY: u64 = 600_000;
/// Longest grace in milliseconds that can be set: an hour.
const LONGEST_GRACE: u64 = 3_600_000;
/// Longest time in milliseconds for which file events can be gathered, and between two looks at files: a minute.
const LONGEST_DEBOUNCE: u64 = 60_000;
/// Shortest time in milliseconds between two looks at files: a look at many takes about as long.
const SHORTEST_POLL: u64 = 50;
/// Longest time in seconds for which a page can wait for what is on its way.
const LONGEST_HOLD: u64 = 600;
/// Longest time in seconds that a build can be given: a day.
const LONGEST_BUILD: u64 = 86_400;
/// What a build can be limited to: with less no compiler begins.
const BUILD_MEMORY: RangeInclusive<ByteSize> = ByteSize(16 << 20)..=ByteSize(1 << 44);
/// What a snapshot can be limited to.
const SNAPSHOT_SIZE: RangeInclusive<ByteSize> = ByteSize(1 << 20)..=ByteSize(1 << 50);
const SNAPSHOT_FILES: RangeInclusive<u64> = 10..=1_000_000_000;
/// How many generations are kept to go back to unless set, and the most that can be set.
const KEEP_GENERATIONS: usize = 2;
const MOST_KEPT: u64 = 100;
/// How long a removed worker's snapshots are kept unless set, and the longest that can be set, in days.
const KEEP_REMOVED: u64 = 30;
const LONGEST_KEPT: u64 = 3650;
/// Seconds of a day.
const DAY: u64 = 86_400;

/// How many instances can be started at the same time.
const CONCURRENT_STARTS: RangeInclusive<u64> = 1..=256;

impl Settings {
    /// Reads `file`.
    ///
    /// # Errors
    /// All that is wrong in it, or that it is not there.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        match source::read(file, Owner::Root)? {
            Some(text) => Self::parse(file, &text),
            None => {
                let help =
                    "create it (an empty file gives the defaults), or name another with --config";
                let problem = Problem::new(Place::file(file), "there is no such file");
                Err(problem.help(help).into())
            }
        }
    }

    /// Reads `text`, which stands in `file`; nothing is looked up on disk.
    ///
    /// # Errors
    /// All that is wrong in it.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        let document = Document::parse(file, text);
        let project = project_directory(file);
        let mut settings = Self::defaults(file, &project);
        let mut root = Section::root(&document);
        settings.read_server(root.section("server"), &project);
        let directories = settings.read_workers(root.section("workers"), &project);
        settings.read_watcher(root.section("file_watcher"));
        let mut dev = root.section("dev");
        let hold = dev.seconds("hold_seconds", 0..=LONGEST_HOLD);
        settings.hold = hold.unwrap_or(settings.hold);
        let timeout = dev.seconds("build_timeout_seconds", 1..=LONGEST_BUILD);
        settings.build.timeout = timeout.unwrap_or(settings.build.timeout);
        settings.build.memory_max = dev.size("build_memory_max", BUILD_MEMORY);
        dev.finish(|_| None);
        settings.read_pages(root.section("pages"), directories, &project);
        settings.read_snapshots(root.section("snapshots"));
        settings.read_security(root.section("security"));
        root.finish(|key| {
            let parts = [
                ("server", "port"),
                ("server", "address"),
                ("workers", "directory"),
                ("workers", "default"),
                ("workers", "paths"),
                ("workers", "max"),
                ("workers", "hosts"),
                ("workers", "routes"),
                ("file_watcher", "debounce_ms"),
                ("file_watcher", "poll_ms"),
                ("dev", "hold_seconds"),
                ("dev", "build_timeout_seconds"),
                ("dev", "build_memory_max"),
                ("security", "max_exposure"),
                ("snapshots", "max_size"),
                ("snapshots", "max_files"),
                ("snapshots", "keep_generations"),
                ("snapshots", "keep_removed_days"),
            ];
            let (section, _) = parts.into_iter().find(|(_, part)| *part == key)?;
            let message = format!("'{key}' is a key of '{section}', not of the whole file");
            Some((message, format!("move it below '{section}:', indented")))
        });
        document.finish(settings)
    }

    /// The settings of a project without a `server.yaml`.
    pub fn defaults_at(directory: &Path) -> Self {
        let file = directory.join("config").join("server.yaml");
        Self::defaults(&file, &project_directory(&file))
    }

    /// The settings of a server of which nobody has written `file` yet, and nobody has to.
    pub fn unwritten(file: &Path) -> Self {
        Self {
            unwritten: true,
            ..Self::defaults(file, &project_directory(file))
        }
    }

    fn defaults(file: &Path, project: &Path) -> Self {
        Self {
            file: file.to_owned(),
            unwritten: false,
            addressed: false,
            front: Front {
                listen: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into()],
                ..Front::default()
            },
            certificates: Vec::new(),
            workers_directories: vec![project.join("workers")],
            ports: WORKER_PORTS,
            concurrent_starts: 2 * cores(),
            startup_delay: Duration::ZERO,
            restart_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(30),
            debounce: Duration::from_millis(50),
            poll: None,
            hold: Duration::from_secs(30),
            build: BuildLimits {
                timeout: Duration::from_secs(30 * 60),
                memory_max: None,
            },
            snapshots: SnapshotLimits::default(),
            keep_generations: KEEP_GENERATIONS,
            keep_removed: Some(Duration::from_secs(KEEP_REMOVED * DAY)),
            default: Limits::default(),
            paths: BTreeMap::new(),
            max: Caps::default(),
            grants: Grants::default(),
            max_exposure: Exposure(20),
        }
    }

    fn read_server(&mut self, mut server: Section<'_>, project: &Path) {
        self.addressed = ["address", "listen"]
            .into_iter()
            .any(|key| server.peek(key).is_some());
        let front = &mut self.front;
        front::read(&mut server, front, &mut self.certificates, project);
        let set = |key: &mut Duration, value: Option<Duration>| *key = value.unwrap_or(*key);
        set(
            &mut front.read_timeout,
            server.seconds("read_timeout_seconds", TIMEOUT),
        );
        set(
            &mut front.write_timeout,
            server.seconds("write_timeout_seconds", TIMEOUT),
        );
        set(
            &mut front.idle_timeout,
            server.seconds("idle_timeout_seconds", TIMEOUT),
        );
        let mut rate = |key| {
            let rate = server.number(
                key,
                0..=MOST_RATE,
                ", in bytes per second; 0 is no such rule",
            );
            rate.and_then(|rate| u32::try_from(rate).ok())
        };
        front.min_read_rate = rate("min_read_rate").unwrap_or(front.min_read_rate);
        front.min_write_rate = rate("min_write_rate").unwrap_or(front.min_write_rate);
        if let Some((path, item)) = server.text("health_path") {
            match RoutePath::parse(&path) {
                Ok(path) if path == RoutePath::root() => item.problem(
                    "'server.health_path' would hide the worker at '/'",
                    "write a path of its own, as in \"/health\"",
                ),
                Ok(path) => front.health_path = path,
                Err(error) => item.problem(
                    format!("'server.health_path': {error}"),
                    "write a path, as in \"/health\"",
                ),
            }
        }
        if let Some(size) = server.size("max_header_bytes", HEADER_BYTES) {
            front.max_header_bytes = usize::try_from(size.0).unwrap_or(front.max_header_bytes);
        }
        if let Some(most) = server.number("max_headers", 1..=4096, "") {
            front.max_headers = usize::try_from(most).unwrap_or(front.max_headers);
        }
        server.finish(|_| None);
    }

    /// Reads `workers`; returns the directories if they are set there.
    fn read_workers(&mut self, mut workers: Section<'_>, project: &Path) -> Option<Vec<PathBuf>> {
        let directories = directories(&mut workers, project);
        let mut port = |key, default: u16| {
            let port = workers.number(key, 1024..=65535, "; lower ports are closed to workers");
            port.and_then(|port| u16::try_from(port).ok())
                .unwrap_or(default)
        };
        let (start, end) = (*WORKER_PORTS.start(), *WORKER_PORTS.end());
        self.ports = port("port_range_start", start)..=port("port_range_end", end);
        self.check_ports(&workers);
        let starts = workers.number("concurrent_starts", CONCURRENT_STARTS, "");
        let starts = starts.and_then(|starts| usize::try_from(starts).ok());
        self.concurrent_starts = starts.unwrap_or(self.concurrent_starts);
        let set = |key: &mut Duration, value: Option<Duration>| *key = value.unwrap_or(*key);
        set(
            &mut self.startup_delay,
            workers.milliseconds("startup_delay_ms", LONGEST_DELAY),
        );
        set(
            &mut self.restart_delay,
            workers.milliseconds("restart_delay_ms", LONGEST_DELAY),
        );
        let grace = workers.milliseconds("shutdown_grace_period_ms", LONGEST_GRACE);
        set(&mut self.shutdown_grace, grace);
        self.front.grace = self.shutdown_grace;

        let mut default = workers.section("default");
        let patch = LimitsPatch::read_as_root(&mut default, project);
        self.default = self.default.with(&patch);
        check_memory(&default, &self.default);
        default.finish(|_| None);

        let mut max = workers.section("max");
        self.max = Caps::read(&mut max);
        max.finish(|_| None);

        self.grants = Grants::read(&mut workers);

        for (item, mut section) in workers.sections("paths") {
            let patch = LimitsPatch::read_as_root(&mut section, project);
            // Alone, without what others set: a worker.yaml may come between.
            check_memory(&section, &Limits::default().with(&patch));
            section.finish(|_| None);
            match RoutePath::parse(item.key()) {
                Ok(route) if self.paths.contains_key(&route) => item.key_problem(
                    format!("'{route}' is here a second time"),
                    "a slash at the end makes no difference; keep one of them",
                ),
                Ok(route) => {
                    self.paths.insert(route, patch);
                }
                Err(error) => item.key_problem(
                    format!("'workers.paths': {error}"),
                    "write a route, as in \"/api\"",
                ),
            }
        }
        workers.finish(|key| {
            let known = "default, paths and max";
            let limits = [
                "gomaxprocs",
                "gomemlimit",
                "max_requests",
                "tasks_max",
                "memory_high",
                "state_max",
                "cpu_weight",
                "io_weight",
                "max_body_size",
                "max_concurrency",
                "queue_size",
                "retries",
                "instances",
                "access_log",
                "compression",
                "log_file",
            ];
            limits.contains(&key).then(|| {
                let message = format!("'{key}' is a limit, not a key of 'workers'");
                (
                    message,
                    format!("limits stand in {known}; move it below 'default:'"),
                )
            })
        });
        directories
    }

    fn check_ports(&self, workers: &Section<'_>) {
        let (start, end) = (self.ports.start(), self.ports.end());
        let found = ["port_range_end", "port_range_start"]
            .into_iter()
            .find_map(|key| workers.peek(key));
        let Some(item) = found else {
            return;
        };
        if self.ports.is_empty() {
            item.problem(
                format!("the workers' ports would end ({end}) before they start ({start})"),
                "make 'port_range_end' at least 'port_range_start'",
            );
        } else if let Some(own) = self
            .front
            .listen
            .iter()
            .filter_map(Listen::address)
            .find(|own| self.ports.contains(&own.port()))
        {
            item.problem(
                format!(
                    "the workers' ports {start} to {end} hold the server's own, {}",
                    own.port()
                ),
                "choose a range without 'server.port'",
            );
        }
    }

    /// Reads `pages`, the old name of `workers.directory`.
    fn read_pages(
        &mut self,
        mut pages: Section<'_>,
        workers: Option<Vec<PathBuf>>,
        project: &Path,
    ) {
        let item = pages.peek("directory");
        let directories = directories(&mut pages, project);
        if let (Some(item), Some(_)) = (item, &workers) {
            item.problem(
                "'pages.directory' is another name of 'workers.directory', and both are set",
                "keep 'workers.directory'",
            );
        }
        if let Some(directories) = workers.or(directories) {
            self.workers_directories = directories;
        }
        pages.finish(|_| None);
    }

    fn read_watcher(&mut self, mut watcher: Section<'_>) {
        let debounce = watcher.milliseconds("debounce_ms", LONGEST_DEBOUNCE);
        self.debounce = debounce.unwrap_or(self.debounce);
        let poll = watcher.milliseconds("poll_ms", LONGEST_DEBOUNCE);
        self.poll = poll.filter(|poll| !poll.is_zero());
        let shortest = Duration::from_millis(SHORTEST_POLL);
        if self.poll.is_some_and(|poll| poll < shortest)
            && let Some(item) = watcher.peek("poll_ms")
        {
            item.problem(
                format!("'file_watcher.poll_ms' can not be {}", item.shown()),
                format!("write 0 for file events, or at least {SHORTEST_POLL}"),
            );
        }
        watcher.finish(|_| None);
    }

    fn read_snapshots(&mut self, mut snapshots: Section<'_>) {
        let limits = &mut self.snapshots;
        let size = snapshots.size("max_size", SNAPSHOT_SIZE);
        limits.max_size = size.unwrap_or(limits.max_size);
        let files = snapshots.number("max_files", SNAPSHOT_FILES, "");
        limits.max_files = files.unwrap_or(limits.max_files);
        let kept = snapshots.number(
            "keep_generations",
            0..=MOST_KEPT,
            "; 0 keeps none to go back to",
        );
        let kept = kept.and_then(|kept| usize::try_from(kept).ok());
        self.keep_generations = kept.unwrap_or(self.keep_generations);
        let kept = snapshots.number(
            "keep_removed_days",
            0..=LONGEST_KEPT,
            "; 0 keeps them until somebody removes them",
        );
        if let Some(days) = kept {
            self.keep_removed = (days > 0).then(|| Duration::from_secs(days * DAY));
        }
        snapshots.finish(|_| None);
    }

    fn read_security(&mut self, mut security: Section<'_>) {
        if let Some(item) = security.item("max_exposure") {
            match exposure(item.node()) {
                Some(exposure) => self.max_exposure = exposure,
                None => item.problem(
                    format!("'security.max_exposure' can not be {}", item.shown()),
                    "write a number from 0.0 to 10.0 with one decimal and without quotes, as systemd-analyze security prints it",
                ),
            }
        }
        security.finish(|_| None);
    }
}

/// The directory that relative paths in `file` start from: the one that holds `config/`, else the one the file is in.
pub fn project_directory(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let directory = file.parent().unwrap_or(Path::new("/"));
    match directory.parent() {
        Some(project) if directory.ends_with("config") => project.to_owned(),
        _ => directory.to_owned(),
    }
}

/// A number with at most one decimal, as it is written: `2` or `2.0`.
fn exposure(node: &Node) -> Option<Exposure> {
    let Content::Scalar(text, _) = &node.content else {
        return None;
    };
    node.typed::<f64>()?;
    let (whole, tenths) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(whole, 2) || !digits(tenths, 1) {
        return None;
    }
    let exposure = whole.parse::<u8>().ok()? * 10 + tenths.parse::<u8>().ok()?;
    (exposure <= 100).then_some(Exposure(exposure))
}

/// `limits` as `section` makes them: memory at which a worker is slowed down only makes sense below that at which it is killed.
fn check_memory(section: &Section<'_>, limits: &Limits) {
    let item = section
        .peek("memory_high")
        .or_else(|| section.peek("gomemlimit"));
    if let (Some(item), Some((high, most))) = (item, limits.high_above_most()) {
        let (key, other) = (
            section.path_of("memory_high"),
            section.path_of("gomemlimit"),
        );
        item.problem(
            format!("'{key}', {high}, is above '{other}', {most}, and would never be reached"),
            format!("set it to at most {most}, or \"\" for none"),
        );
    }
}

#[cfg(test)]
mod tests;
