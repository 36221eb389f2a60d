//! The proxies: how each is started, where it listens, and that it ends.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;

use super::cores::Cores;
use super::manager::{self, Linked, Manager};
use super::measure::Processes;
use super::scenario::{Ask, Scenario};

/// Longest wait for a proxy to listen. Under valgrind all takes its time.
const LONG: Duration = Duration::from_secs(60);
/// A proxy that was told to end is told again after this.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of the file that is served.
const FILE: usize = 10 << 10;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Nginx,
    Haproxy,
    Tqserver,
    /// Another build of it.
    Other,
}

/// What all contestants have in common: a directory with the worker's socket, a file to serve, and a certificate.
pub(crate) struct House {
    directory: TempDir,
    worker: PathBuf,
    tqserver: PathBuf,
    other: Option<PathBuf>,
    started: AtomicUsize,
}

/// A proxy that runs.
pub(crate) struct Contestant {
    kind: Kind,
    child: Child,
    processes: Processes,
    plain: SocketAddr,
    /// `None`: it does not speak TLS.
    tls: Option<SocketAddr>,
    link: Option<Linked>,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Tqserver => "tqserver",
            Self::Other => "tqserver-other",
        }
    }
}

impl House {
    /// Makes what they need; `tqserver` is the program that is measured, `other` another build of it.
    ///
    /// # Panics
    /// With what to install, if a program is missing.
    pub(crate) fn new(tqserver: &Path, other: Option<&Path>) -> Self {
        need("openssl", "version");
        allow_files();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        fs::create_dir(path.join("static")).expect("a directory");
        fs::write(path.join("static/10k.txt"), vec![b'f'; FILE]).expect("a file to serve");
        let made = Command::new("openssl")
            .current_dir(path)
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"])
            .args(["-subj", "/CN=bench.test"])
            .args(["-addext", "subjectAltName=DNS:bench.test"])
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "no certificate: {made:?}");
        let read = |name: &str| fs::read_to_string(path.join(name)).expect("what openssl made");
        let bundle = read("certificate.pem") + &read("key.pem");
        fs::write(path.join("bundle.pem"), bundle).expect("a file");
        Self {
            worker: path.join("worker.sock"),
            tqserver: tqserver.to_owned(),
            other: other.map(Path::to_owned),
            started: AtomicUsize::new(0),
            directory,
        }
    }

    /// The worker's socket.
    pub(crate) fn worker(&self) -> &Path {
        &self.worker
    }

    /// The socket of the worker that speaks FastCGI.
    pub(crate) fn scripts(&self) -> PathBuf {
        self.directory.path().join(manager::SCRIPTS)
    }

    /// Who takes part; nginx, to whom all are compared, comes first.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds = vec![Kind::Nginx, Kind::Haproxy, Kind::Tqserver];
        kinds.extend(self.other.as_ref().map(|_| Kind::Other));
        kinds
    }

    /// Starts one of each, on the proxies' core.
    pub(crate) fn start_all(&self, cores: &Cores) -> Vec<Contestant> {
        let start = |kind| self.start(kind, cores, None);
        self.kinds().into_iter().map(start).collect()
    }

    /// Starts a proxy on the proxies' core: by `valgrind`, if it is given.
    pub(crate) fn start(
        &self,
        kind: Kind,
        cores: &Cores,
        valgrind: Option<&[String]>,
    ) -> Contestant {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let place = self
            .directory
            .path()
            .join(format!("{}{number}", kind.name()));
        fs::create_dir(&place).expect("a directory");
        let tqserver = |kind, file| self.tqserver(kind, file, &place, valgrind);
        cores.started(|| match kind {
            Kind::Nginx => self.nginx(&place, valgrind),
            Kind::Haproxy => self.haproxy(&place, valgrind),
            Kind::Tqserver => tqserver(kind, &self.tqserver),
            Kind::Other => tqserver(kind, self.other.as_ref().expect("it was asked for")),
        })
    }

    fn nginx(&self, place: &Path, valgrind: Option<&[String]>) -> Contestant {
        let (plain, tls) = (free(), free());
        let mut text = self.filled(include_str!("nginx.conf"), place, plain, tls);
        if valgrind.is_some() {
            text = text.replace("#SINGLE ", "");
        }
        let file = place.join("nginx.conf");
        fs::write(&file, text).expect("a configuration");
        let mut command = program(Path::new("nginx"), valgrind);
        command.arg("-p").arg(place).arg("-c").arg(file);
        command.args(["-e", "stderr"]);
        Contestant::new(Kind::Nginx, command, place, plain, Some(tls))
    }

    fn haproxy(&self, place: &Path, valgrind: Option<&[String]>) -> Contestant {
        let (plain, tls) = (free(), free());
        let text = self.filled(include_str!("haproxy.cfg"), place, plain, tls);
        let file = place.join("haproxy.cfg");
        fs::write(&file, text).expect("a configuration");
        let mut command = program(Path::new("haproxy"), valgrind);
        command.args(["-db", "-f"]).arg(file);
        Contestant::new(Kind::Haproxy, command, place, plain, Some(tls))
    }

    fn tqserver(
        &self,
        kind: Kind,
        file: &Path,
        place: &Path,
        valgrind: Option<&[String]>,
    ) -> Contestant {
        let link = place.join("link.sock");
        let manager = Manager::listen(&link);
        let mut command = program(file, valgrind);
        // It serves with a thread for each core it may use, which is one.
        command.arg("proxy").arg("--link").arg(&link);
        let child = spawned(command, place);
        let (linked, [plain, tls]) = manager.publish(&self.worker, self.directory.path());
        Contestant {
            kind,
            processes: Processes::of(child.id()),
            child,
            plain,
            tls: Some(tls),
            link: Some(linked),
        }
    }

    fn filled(&self, template: &str, place: &Path, plain: SocketAddr, tls: SocketAddr) -> String {
        let path = self.directory.path();
        let owner = fs::metadata(path).expect("our directory").uid();
        // The master may be root; the worker process must then not be somebody who can not see our files.
        let user = if owner == 0 { "user root;" } else { "" };
        template
            .replace("user @USER@;", user)
            .replace("@FILES@", &open_files().to_string())
            .replace("@FILES_ROOT@", &path.display().to_string())
            .replace("@PLACE@", &place.display().to_string())
            .replace("@WORKER@", &self.worker.display().to_string())
            .replace("@PLAIN@", &plain.to_string())
            .replace("@TLS@", &tls.to_string())
            .replace(
                "@CERTIFICATE@",
                &path.join("certificate.pem").display().to_string(),
            )
            .replace("@KEY@", &path.join("key.pem").display().to_string())
            .replace("@BUNDLE@", &path.join("bundle.pem").display().to_string())
    }
}

impl Contestant {
    fn new(
        kind: Kind,
        command: Command,
        place: &Path,
        plain: SocketAddr,
        tls: Option<SocketAddr>,
    ) -> Self {
        let child = spawned(command, place);
        let mut contestant = Self {
            kind,
            processes: Processes::of(child.id()),
            child,
            plain,
            tls,
            link: None,
        };
        let began = Instant::now();
        while TcpStream::connect(plain).is_err() {
            let ended = contestant.child.try_wait().expect("a child of ours");
            let in_time = ended.is_none() && began.elapsed() < LONG;
            let said = || fs::read_to_string(place.join("log")).unwrap_or_default();
            assert!(in_time, "{} does not listen: {}", kind.name(), said());
            std::thread::sleep(Duration::from_millis(10));
        }
        contestant
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// Where it listens in plain text.
    pub(crate) fn plain(&self) -> SocketAddr {
        self.plain
    }

    /// Gives it a route table in which all workers have a new generation, if it takes tables.
    pub(crate) fn reload(&mut self) {
        if let Some(link) = &mut self.link {
            link.reload();
        }
    }

    /// Where a scenario is to be asked; `None` if it can not be.
    pub(crate) fn door(&self, scenario: &Scenario) -> Option<SocketAddr> {
        if scenario.ask == Ask::File && self.kind == Kind::Haproxy {
            return None;
        }
        match scenario.speech.is_tls() {
            true => self.tls,
            false => Some(self.plain),
        }
    }

    /// Ends it and waits until it has.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let began = Instant::now();
        while began.elapsed() < LONG {
            // nginx's master takes its worker process along. Said again and again, for nginx without a master may be about to sleep, and
            // then does not look before something else wakes it.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            let said = Instant::now();
            while said.elapsed() < PATIENCE {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(name: &Path, valgrind: Option<&[String]>) -> Command {
    match valgrind {
        Some([valgrind, arguments @ ..]) => {
            let mut command = Command::new(valgrind);
            command.args(arguments).arg(name);
            command
        }
        _ => Command::new(name),
    }
}

fn spawned(mut command: Command, place: &Path) -> Child {
    let log = File::create(place.join("log")).expect("a log");
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("a proxy starts")
}

/// An address nobody has now: the peers can not be asked which port the kernel chose.
fn free() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its address")
}

/// Ends the bench if one of the others is not there.
pub(crate) fn need_peers() {
    need("nginx", "-v");
    need("haproxy", "-v");
}

/// Ends the bench if a program is not there.
pub(crate) fn need(program: &str, argument: &str) {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null());
    if command.output().is_err() {
        eprintln!("proxy: '{program}' is not installed\nhint: apt-get install {program}");
        std::process::exit(69);
    }
}

/// The proxies inherit it: ten thousand clients, and connections to the worker.
fn allow_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as many open files as may be");
}

fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}
