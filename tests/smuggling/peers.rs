//! The same requests, asked of nginx and haproxy, and a table of what each answers and lets through.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::corpus::{Case, escape, read};
use crate::house::DEADLINE;
use crate::recorder::{Arrival, Record};
use crate::requests::{Answers, open, run};

/// Nothing more is expected of a peer after such a silence. It is the one thing that can be asked of a program that may be waiting for more.
const SILENCE: Duration = Duration::from_millis(300);

/// As close to ours as its words allow: connections to the worker are kept, the host is passed, and the route is named.
const NGINX: &str = r"
daemon off; master_process off; pid DIR/nginx.pid; error_log DIR/nginx.log crit;
events { }
http {
    access_log off;
    client_body_temp_path DIR/t1; proxy_temp_path DIR/t2; fastcgi_temp_path DIR/t3; uwsgi_temp_path DIR/t4; scgi_temp_path DIR/t5;
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    proxy_set_header Host $http_host;
    upstream worker { server unix:DIR/worker; keepalive 4; }
    server {
        listen unix:DIR/peer;
        location / { proxy_set_header Connection ''; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Prefix /; proxy_pass http://worker; }
        location /api { proxy_set_header Connection ''; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Prefix /api; proxy_pass http://worker; }
    }
}
";

const HAPROXY: &str = r"
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend peer
    bind unix@DIR/peer
    http-request set-header X-Forwarded-Prefix /
    http-request set-header X-Forwarded-Prefix /api if { path -m beg /api }
    default_backend worker
backend worker
    http-reuse always
    server worker unix@DIR/worker
";

/// A running peer; it ends with this.
struct Peer {
    child: Child,
    directory: TempDir,
    record: Record,
    version: String,
}

impl Peer {
    fn start(program: &str, configuration: &str, arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let place = directory.path().to_str().unwrap();
        let file = directory.path().join("configuration");
        fs::write(&file, configuration.replace("DIR", place)).unwrap();
        let record = Record::default();
        record.listen(UnixListener::bind(directory.path().join("worker")).unwrap());
        let program = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"]
            .iter()
            .map(|place| Path::new(place).join(program))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("{program} is not installed"));
        let version = Command::new(&program).arg("-v").output().unwrap();
        let version = [version.stdout, version.stderr].concat();
        let version = String::from_utf8_lossy(&version)
            .lines()
            .next()
            .unwrap()
            .to_owned();
        let child = Command::new(&program)
            .args(arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let peer = Self {
            child,
            directory,
            record,
            version,
        };
        let began = Instant::now();
        while UnixStream::connect(peer.socket()).is_err() {
            assert!(
                began.elapsed() < DEADLINE,
                "{} does not listen",
                program.display()
            );
            std::thread::yield_now();
        }
        peer
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("peer")
    }

    /// What it answers, and what arrives.
    fn ask(&self, case: &Case) -> (String, String) {
        self.record.take();
        let mut client = UnixStream::connect(self.socket()).unwrap();
        client.set_read_timeout(Some(SILENCE)).unwrap();
        client.set_write_timeout(Some(SILENCE)).unwrap();
        let _ = client.write_all(&case.bytes);
        let mut answers = Answers::default();
        let mut statuses = Vec::new();
        while let Some(status) = answers.next(&mut client) {
            statuses.push(status);
        }
        let _ = client.shutdown(Shutdown::Both);
        (line(&statuses), arrived(&self.record.take()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(statuses: &[u16]) -> String {
    let words: Vec<String> = statuses.iter().map(u16::to_string).collect();
    match words.is_empty() {
        true => "-".to_owned(),
        false => words.join(" "),
    }
}

/// Arrivals in one field of the table.
fn arrived(arrivals: &[Arrival]) -> String {
    let words = arrivals.iter().map(|arrival| {
        let text = arrival.to_string();
        let short: String = text.chars().take(160).collect();
        escape(short.as_bytes()).replace("\\\\", "\\")
    });
    let words: Vec<String> = words.collect();
    match words.is_empty() {
        true => "-".to_owned(),
        false => words.join(" + "),
    }
}

#[test]
#[ignore = "it needs nginx and haproxy, and writes into the source tree"]
fn peers_are_asked_the_same() {
    let nginx = Peer::start("nginx", NGINX, &["-c"]);
    let haproxy = Peer::start("haproxy", HAPROXY, &["-db", "-f"]);
    let (house, record) = open();
    let mut table = format!(
        "# tqserver {}, {}, {}\n\
         case\ttqserver\tarrives\tnginx\tarrives\thaproxy\tarrives\n",
        env!("CARGO_PKG_VERSION"),
        nginx.version,
        haproxy.version
    );
    for case in read("requests") {
        let ours = run(&case, &house, &record);
        let (ours, arrives) = (line(&ours.statuses), arrived(&ours.arrivals));
        write!(table, "{}\t{ours}\t{arrives}", case.name).unwrap();
        for peer in [&nginx, &haproxy] {
            let (answers, arrives) = peer.ask(&case);
            write!(table, "\t{answers}\t{arrives}").unwrap();
        }
        table.push('\n');
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smuggling/peers.tsv");
    fs::write(file, table).unwrap();
}
