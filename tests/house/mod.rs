//! A house: a project directory with workers, a server that runs them by a systemd of its own, and what one can do and see there.
//!
//! A test is a few sentences about a house. Nothing in it is a stand-in: the built binary, a real systemd, real workers, TCP. When a
//! test fails, the house tells what its server said before it is pulled down.

pub mod http;
pub mod planes;
pub mod process;
pub mod traces;
pub mod worker;

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tqserver::manager::status::WorkerStatus;
use tqserver::systemd::Place;

use http::{Answer, Client, Load};
use process::{Ran, Running, Server, tqserver};
use worker::Worker;

/// Longest wait for anything: a loaded machine must not reach it, a hanging server must.
pub const LONG: Duration = Duration::from_secs(30);
/// Houses that stand at the same time; each runs a systemd, a bus, a server and its workers.
const HOUSES: usize = 4;
/// The head of a house's server.yaml. Rebuilds by file events are not what is tested here: a test says itself when it reloads.
pub const HEAD: &str =
    "server: {address: \"127.0.0.1\", port: 0}\nfile_watcher: {debounce_ms: 60000}\n";

/// A project directory and a server.
pub struct House {
    directory: TempDir,
    mode: Option<&'static str>,
    port: Option<&'static str>,
    planes: bool,
    server: Option<Server>,
    address: Option<SocketAddr>,
    _permit: Permit,
}

impl House {
    /// A project directory; nothing runs yet.
    pub fn new() -> Self {
        let permit = Permit::take();
        let directory = TempDir::with_prefix_in("house-", env!("CARGO_TARGET_TMPDIR"))
            .expect("make a directory");
        fs::create_dir_all(directory.path().join("workers")).expect("make workers/");
        let house = Self {
            directory,
            mode: None,
            port: None,
            planes: false,
            server: None,
            address: None,
            _permit: permit,
        };
        house.workers_section("    shutdown_grace_period_ms: 5000\n")
    }

    /// With a worker in it.
    pub fn worker(self, name: &str, worker: Worker) -> Self {
        worker.put(&self.worker_directory(name));
        self
    }

    /// With these lines below `workers:` in its server.yaml.
    pub fn workers_section(self, lines: &str) -> Self {
        self.server_yaml(&format!("{HEAD}workers:\n{lines}"))
    }

    /// With this server.yaml.
    pub fn server_yaml(self, text: &str) -> Self {
        self.write_server_yaml(text);
        self
    }

    /// In production mode.
    pub fn production(mut self) -> Self {
        self.mode = Some("--mode=production");
        self
    }

    /// With `--port`.
    pub fn on_port(mut self, option: &'static str) -> Self {
        self.port = Some(option);
        self
    }

    /// With manager and proxy as two services, from the unit files that are shipped.
    pub fn planes(mut self) -> Self {
        self.planes = true;
        self
    }

    /// Starts the server and waits until it listens and every worker has been tried.
    #[track_caller]
    pub fn open(mut self) -> Self {
        if self.planes {
            self.open_planes();
        } else {
            self.open_dev();
        }
        self
    }

    /// Starts the server and waits only until it says this.
    #[track_caller]
    pub fn open_until_it_says(mut self, text: &str) -> Self {
        let server = Server::start(&mut Self::dev(&self.config(), self.mode, self.port));
        self.server
            .insert(server)
            .said(text)
            .unwrap_or_else(|error| panic!("{error}"));
        self
    }

    #[track_caller]
    fn open_dev(&mut self) {
        let server = self.server.insert(Server::start(&mut Self::dev(
            &self.config(),
            self.mode,
            self.port,
        )));
        // It listens when its workers have been tried, and some have to be built first: on a busy machine, for minutes.
        let line = server
            .said_within("TQServer listens on ", 10 * LONG)
            .unwrap_or_else(|error| panic!("the server did not start: {error}"));
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        self.address = address.and_then(|address| address.parse().ok());
        assert!(self.address.is_some(), "no address in '{line}'");
    }

    fn dev(config: &Path, mode: Option<&str>, port: Option<&str>) -> std::process::Command {
        let config = format!("--config={}", config.display());
        let options = ["--manager=private", &config]
            .into_iter()
            .chain(mode)
            .chain(port);
        let mut command = tqserver(["dev"].into_iter().chain(options));
        // No worker may see these.
        command
            .env("TQ_CANARY", "seen")
            .env("KEEPER_CANARY", "seen");
        command
    }

    /// Runs `tqserver dev`, which is to end by itself.
    #[track_caller]
    pub fn does_not_open(&self) -> Ran {
        Ran::of(&mut Self::dev(&self.config(), self.mode, self.port))
    }

    // ---- what lies in it ------------------------------------------------------------------------------------------------------

    /// The project directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its server.yaml.
    pub fn config(&self) -> PathBuf {
        self.path().join("config/server.yaml")
    }

    pub fn write_server_yaml(&self, text: &str) {
        worker::write(&self.config(), text);
    }

    /// A worker's directory; a nested worker is named as in the route, `api/users`.
    pub fn worker_directory(&self, name: &str) -> PathBuf {
        self.path().join("workers").join(name)
    }

    /// Deploys other files of a worker, or a new worker. Nothing happens before a reload.
    pub fn replace(&self, name: &str, worker: Worker) {
        worker.put(&self.worker_directory(name));
    }

    /// Removes a worker's directory. Nothing happens before a reload.
    pub fn remove(&self, name: &str) {
        fs::remove_dir_all(self.worker_directory(name)).expect("remove a worker's directory");
    }

    /// Where its private systemd lives.
    pub fn place(&self) -> PathBuf {
        let runtime = Place::of(&self.config()).runtime_directory();
        runtime.parent().expect("it is in the place").to_owned()
    }

    // ---- its server -----------------------------------------------------------------------------------------------------------

    #[track_caller]
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the house is open")
    }

    /// Where clients connect.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.address.expect("the house is open")
    }

    /// Ends the server and returns its exit code.
    #[track_caller]
    pub fn close(&mut self, signal: Signal) -> Option<i32> {
        let server = self.server.take().expect("the house is open");
        server.signal(signal);
        Self::ended(server)
    }

    /// Waits for the server to end by itself and returns its exit code.
    #[track_caller]
    pub fn ends(&mut self) -> Option<i32> {
        Self::ended(self.server.take().expect("the house is open"))
    }

    #[track_caller]
    fn ended(mut server: Server) -> Option<i32> {
        let ended = server.end();
        assert!(
            ended.is_some(),
            "the server did not end: {}",
            server.all_it_said().join("\n")
        );
        ended.and_then(|status| status.code())
    }

    /// Waits until the server has said this.
    #[track_caller]
    pub fn server_says(&self, text: &str) {
        self.server()
            .said(text)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    // ---- its command line -----------------------------------------------------------------------------------------------------

    /// `tqserver` with these arguments, for this house.
    pub fn command<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> std::process::Command {
        let mut command = tqserver(arguments);
        command
            .arg("--config")
            .arg(self.config())
            .arg("--manager=private");
        command
    }

    #[track_caller]
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// `busctl call` of the manager's object, with this method and its arguments.
    #[track_caller]
    pub fn calls_the_manager<'a>(&self, call: impl IntoIterator<Item = &'a str>) -> Ran {
        let name = "org.tqserver.Manager1";
        let mut command = std::process::Command::new("busctl");
        command
            .arg(format!(
                "--address=unix:path={}/bus",
                self.place().display()
            ))
            .args(["call", name, "/org/tqserver/Manager1", name])
            .args(call);
        Ran::of(&mut command)
    }

    #[track_caller]
    pub fn reload(&self) -> Ran {
        self.run(["reload"])
    }

    /// A reload that runs beside what the test does next.
    #[track_caller]
    pub fn begin_reload<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Running {
        Running::start(&mut self.command(["reload"].into_iter().chain(arguments)))
    }

    /// All workers, as `tqserver status --json` tells; `None`: it does not.
    pub fn try_status(&self) -> Option<Vec<WorkerStatus>> {
        let ran = self.run(["status", "--json"]);
        (ran.code == Some(0))
            .then(|| serde_json::from_str(&ran.stdout).expect("status --json is JSON"))
    }

    /// One worker's.
    #[track_caller]
    pub fn status(&self, worker: &str) -> WorkerStatus {
        let all = self
            .try_status()
            .unwrap_or_else(|| panic!("no status: {}", self.run(["status"])));
        let found = all.iter().find(|status| status.name == worker);
        found
            .unwrap_or_else(|| panic!("no worker '{worker}' in {all:#?}"))
            .clone()
    }

    /// The process of a worker's serving generation.
    #[track_caller]
    pub fn pid(&self, worker: &str) -> u32 {
        let status = self.status(worker);
        let serving = status
            .generations
            .iter()
            .find(|run| run.stage == "serving" && run.pid != 0);
        serving
            .unwrap_or_else(|| panic!("'{worker}' has no process that serves: {status:#?}"))
            .pid
    }

    /// The generations of a worker.
    pub fn units<'a>(&'a self, worker: &'a str) -> Units<'a> {
        Units {
            house: self,
            worker,
        }
    }

    // ---- its workers, by HTTP -------------------------------------------------------------------------------------------------

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        let answer = Client::new(self.address()).get(path);
        answer.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// A connection of one's own.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// Keep-alive connections that ask for `path` until they are stopped.
    #[track_caller]
    pub fn load(&self, path: &str, connections: usize) -> Load {
        Load::start(self.address(), path, connections)
    }

    /// The same, with a new connection for each request.
    #[track_caller]
    pub fn load_anew(&self, path: &str, connections: usize) -> Load {
        Load::start_anew(self.address(), path, connections)
    }

    /// What there is to read for somebody who wonders why a test failed.
    fn tell(&self) {
        let server = self
            .server
            .as_ref()
            .map(Server::all_it_said)
            .unwrap_or_default();
        eprintln!(
            "---- what the server said\n{}",
            tail(&server.join("\n"), 60)
        );
        let place = self.place();
        let logs = [
            place.join("systemd.log"),
            self.path().join("manager.log"),
            self.path().join("proxy.log"),
        ];
        let workers = fs::read_dir(place.join("tqserver/log"))
            .into_iter()
            .flatten()
            .flatten();
        for file in logs.into_iter().chain(workers.map(|entry| entry.path())) {
            if let Ok(text) = fs::read_to_string(&file) {
                eprintln!("---- {}\n{}", file.display(), tail(&text, 40));
            }
        }
        if self.server.is_some() {
            eprintln!("---- status\n{}", self.run(["status"]));
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        // The server goes before the directory it works in, and takes all that is its own along.
        if let Some(server) = self.server.take() {
            drop(server);
            let place = self.place();
            assert!(
                std::thread::panicking() || !place.exists(),
                "the server left {} behind",
                place.display()
            );
        }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The generations of a worker.
pub struct Units<'a> {
    house: &'a House,
    worker: &'a str,
}

impl Units<'_> {
    /// They are, or soon will be, these: "generation 2 serving", the newest first; and systemd has units for no other.
    #[track_caller]
    pub fn are<const N: usize>(&self, expected: [&str; N]) {
        let mut last = Vec::new();
        until_or(
            || {
                last = self.found();
                last == expected
            },
            |waited| {
                format!(
                    "the generations of '{}' are not {expected:?} but {:?} after {waited:?}",
                    self.worker,
                    self.found()
                )
            },
        );
        let numbers: Vec<&str> = last
            .iter()
            .filter_map(|run| run.split(' ').nth(1))
            .collect();
        let loaded = || {
            let mut loaded = self
                .house
                .loaded(&format!("tqserver-{}@*.service", self.worker));
            loaded.reverse();
            loaded
        };
        let wanted: Vec<String> = numbers
            .iter()
            .map(|number| format!("tqserver-{}@{number}.service", self.worker))
            .collect();
        until_or(
            || loaded() == wanted,
            |waited| {
                format!(
                    "systemd has not {wanted:?} but {:?} after {waited:?}",
                    loaded()
                )
            },
        );
    }

    pub fn found(&self) -> Vec<String> {
        let all = self.house.try_status().unwrap_or_default();
        let worker = all.into_iter().find(|status| status.name == self.worker);
        let runs = worker.map(|status| status.generations).unwrap_or_default();
        runs.iter()
            .map(|run| format!("generation {} {}", run.generation, run.stage))
            .collect()
    }
}

/// How often a test does what it does: as this variable says, for a longer run, or so often.
pub fn count(variable: &str, otherwise: usize) -> usize {
    let given = std::env::var(variable).ok();
    given.map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Waits for what no event tells of.
#[track_caller]
pub fn until(what: &str, met: impl FnMut() -> bool) {
    until_or(met, |waited| format!("not within {waited:?}: {what}"));
}

#[track_caller]
pub fn until_or(mut met: impl FnMut() -> bool, otherwise: impl FnOnce(Duration) -> String) {
    let began = Instant::now();
    while !met() {
        let waited = began.elapsed();
        if waited > LONG {
            panic!("{}", otherwise(waited));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static STANDING: Mutex<usize> = Mutex::new(0);
static FREE: Condvar = Condvar::new();
thread_local! { static MINE: Cell<usize> = const { Cell::new(0) } }

/// The right to have houses. A test that has one may have a second one: waiting for it, two tests could wait for each other.
struct Permit;

impl Permit {
    fn take() -> Self {
        if MINE.get() == 0 {
            let standing = lock(&STANDING);
            let mut standing = FREE
                .wait_while(standing, |standing| *standing >= HOUSES)
                .unwrap_or_else(PoisonError::into_inner);
            *standing += 1;
        }
        MINE.set(MINE.get() + 1);
        Self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        MINE.set(MINE.get() - 1);
        if MINE.get() == 0 {
            *lock(&STANDING) -= 1;
            FREE.notify_one();
        }
    }
}
