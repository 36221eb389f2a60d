//! From the reload call to the first response of the new generation, beside the bare cost of starting such a pair of units.
//!
//! `cargo bench --bench reload` brings up a private systemd, runs `tqserver dev` with one small native worker in it, and prints medians
//! over 50 rounds. The peer of each round is measured in the same round: one `StartTransientUnit` call for a socket and a service, and one
//! request. The worker is this very program, started with a socket. `-- --tqserver FILE` measures another build.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::FromRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tqserver::config::{Limits, Mode};
use tqserver::limits::{ByteSize, CpuQuota};
use tqserver::manager::control::Manager1Proxy;
use tqserver::names::{Generation, Instance, WorkerName};
use tqserver::route::{Address, RoutePath};
use tqserver::systemd::{Place, Systemd, UnitPair};

const ROUNDS: usize = 50;
/// How often a bare pair is started anew.
const TRIES: usize = 10;

fn main() {
    if std::env::var_os("LISTEN_FDS").is_some() {
        return worker();
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let house = House::open(directory.path(), tqserver());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let mut rows = runtime.expect("a runtime").block_on(rounds(&house));
    drop(house);
    let mut median = |pick: fn(&Row) -> Duration| {
        rows.sort_by_key(pick);
        pick(&rows[rows.len() / 2])
    };
    let (bare, first, done) = (
        median(|row| row.bare),
        median(|row| row.first),
        median(|row| row.done),
    );
    println!("medians of {ROUNDS} rounds");
    println!(
        "  bare pair of units, call to first response     {:6.1} ms",
        millis(bare)
    );
    println!(
        "  reload call to first response of the new one   {:6.1} ms ({:.1}x)",
        millis(first),
        millis(first) / millis(bare)
    );
    println!(
        "  reload call to its return                      {:6.1} ms ({:.1}x)",
        millis(done),
        millis(done) / millis(bare)
    );
    println!(
        "  the reload's own share                         {:6.1} ms",
        millis(first) - millis(bare)
    );
}

/// The program that is measured.
fn tqserver() -> PathBuf {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    match (words.next().as_deref(), words.next(), words.next()) {
        (None, ..) => env!("CARGO_BIN_EXE_tqserver").into(),
        (Some("--tqserver"), Some(file), None) => file.into(),
        _ => {
            eprintln!("reload: its one option is --tqserver FILE, the program to measure");
            std::process::exit(64);
        }
    }
}

struct Row {
    bare: Duration,
    first: Duration,
    done: Duration,
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

async fn rounds(house: &House) -> Vec<Row> {
    let place = Place::of(&house.config);
    let bus = place.bus_address();
    let (systemd, mut changes) = Systemd::connect(&bus).await.expect("the private systemd");
    let reader = tokio::spawn(async move { while changes.recv().await.is_some() {} });
    let connection = zbus::connection::Builder::address(bus.as_str())
        .build()
        .await
        .expect("the bus");
    let manager = Manager1Proxy::new(&connection).await.expect("the manager");
    let mut rows = Vec::new();
    for round in 1..=ROUNDS {
        let bare = bare(&systemd, house, round).await;
        house.says(round);
        let started = Instant::now();
        let first = house.until_it_says(round);
        let outcomes = manager
            .reload(Vec::new(), false, false)
            .await
            .expect("a reload");
        let done = started.elapsed();
        assert_eq!(outcomes[0].outcome, "replaced", "{outcomes:?}");
        let first = first.join().expect("the client") - started;
        rows.push(Row { bare, first, done });
    }
    reader.abort();
    rows
}

/// One call, one request: the least that a new generation can cost.
async fn bare(systemd: &Systemd, house: &House, round: usize) -> Duration {
    // After a reload the server stops what it does not know, as this pair.
    for _ in 0..TRIES {
        if let Ok(took) = pair(systemd, house, round).await {
            return took;
        }
    }
    panic!("the server stops the bare pair again and again");
}

/// A pair of units from its start to its first response, or how it broke.
async fn pair(systemd: &Systemd, house: &House, round: usize) -> io::Result<Duration> {
    let path = house.directory.join(format!("bare{round}.sock"));
    let second = Duration::from_secs(1);
    let pair = UnitPair {
        number: 1,
        instance: Instance::new(
            WorkerName::parse("bare").expect("a name"),
            Generation(round as u64),
        ),
        route: RoutePath::root(),
        mode: Mode::Development,
        address: Address::Unix(path.clone()),
        socket_group: None,
        directory: house.directory.join("workers/index"),
        data: house.directory.join("workers/index"),
        cache: None,
        stored: Vec::new(),
        persisted: Vec::new(),
        starter: house.tqserver.clone(),
        command: vec![
            house
                .directory
                .join("workers/index/bin/index")
                .display()
                .to_string(),
        ],
        env: std::collections::BTreeMap::new(),
        limits: Limits {
            gomaxprocs: Some(CpuQuota { cores: 1 }),
            gomemlimit: Some(ByteSize(64 << 20)),
            ..Limits::default()
        },
        sandbox: None,
        credentials: Vec::new(),
        secret_env: std::collections::BTreeMap::new(),
        written: None,
        stop_signal: None,
        accepted: false,
        output: None,
        stop_timeout: second,
        record: "{}".to_owned(),
    };
    let started = Instant::now();
    systemd.start_pair(&pair).await.expect("a pair of units");
    let asked = UnixStream::connect(&path).and_then(|mut stream| ask(&mut stream));
    let took = started.elapsed();
    systemd
        .stop_pair(&pair.name(), second)
        .await
        .expect("the end of the pair");
    asked.map(|_| took)
}

struct House {
    tqserver: PathBuf,
    directory: PathBuf,
    config: PathBuf,
    port: u16,
    server: Child,
}

impl House {
    fn open(directory: &Path, tqserver: PathBuf) -> Self {
        let worker = directory.join("workers/index");
        fs::create_dir_all(worker.join("bin")).expect("a worker");
        fs::create_dir_all(directory.join("config")).expect("a configuration");
        let program = worker.join("bin/index");
        fs::copy(std::env::current_exe().expect("this program"), &program).expect("a copy");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
        fs::write(worker.join("says"), "0").expect("its first word");
        let config = directory.join("config/server.yaml");
        fs::write(
            &config,
            "workers:\n    default:\n        gomemlimit: 64MiB\n",
        )
        .expect("the configuration");
        let mut server = Command::new(&tqserver);
        server
            .args(["dev", "--manager=private", "--port=0", "--config"])
            .arg(&config);
        let mut server = server.stderr(Stdio::piped()).spawn().expect("the server");
        let mut lines = BufReader::new(server.stderr.take().expect("piped")).lines();
        let line = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| line.contains("listens on"));
        let line = line.expect("the server came up");
        std::thread::spawn(move || lines.for_each(drop));
        let port = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split(':').nth(1));
        let port = port
            .and_then(|rest| rest.split('/').next())
            .and_then(|port| port.parse().ok());
        Self {
            tqserver,
            directory: directory.to_owned(),
            config,
            port: port.expect("a port"),
            server,
        }
    }

    fn says(&self, round: usize) {
        fs::write(self.directory.join("workers/index/says"), round.to_string()).expect("its word");
    }

    /// Asks over and over on one connection; ends with the moment of the first new answer.
    fn until_it_says(&self, round: usize) -> std::thread::JoinHandle<Instant> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server");
        stream.set_nodelay(true).expect("an option");
        std::thread::spawn(move || {
            loop {
                let body = ask(&mut stream).expect("an answer");
                let now = Instant::now();
                if body == round.to_string() {
                    return now;
                }
            }
        })
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.server);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.server.wait();
    }
}

fn ask(stream: &mut (impl Read + Write)) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let length = head.lines().find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            });
            if length.is_some_and(|length: usize| body.len() >= length) {
                return Ok(body.to_owned());
            }
        }
    }
}

/// The worker: one thread a connection, one word for every request.
fn worker() {
    let word = fs::read_to_string("says").unwrap_or_default();
    // SAFETY: systemd hands over descriptor 3, and nobody else takes it.
    #[allow(unsafe_code, reason = "sd_listen_fds(3)")]
    let listener = unsafe { UnixListener::from_raw_fd(3) };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{word}",
        word.len()
    );
    for stream in listener.incoming().flatten() {
        let answer = answer.clone();
        std::thread::spawn(move || {
            let mut writer = stream.try_clone()?;
            let lines = BufReader::new(stream).lines();
            for line in lines {
                if line?.is_empty() {
                    writer.write_all(answer.as_bytes())?;
                }
            }
            Ok::<(), io::Error>(())
        });
    }
}
