//! A proxy in this process, the manager's end of its link, and both ends of the conversations it carries.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tqserver::names::{Generation, Instance, WorkerName};
use tqserver::proxy::{self, Link, Options, ProxyError};
use tqserver::route::{
    Address, Flow, Front, Halt, Listen, Place, Protocol, Route, RoutePath, RouteTable, Target,
    Timeouts, Upstream,
};
use tqserver::wire::{Duplex, ToManager, ToProxy};

/// Longest wait for anything that is expected.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A limit that is the subject of a test and must pass.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

/// A running proxy with a route `/` to worker `w`, generation 1.
pub(crate) struct House {
    pub(crate) directory: TempDir,
    pub(crate) table: RouteTable,
    /// Where the proxy listens by TCP.
    pub(crate) listening: Vec<SocketAddr>,
    runtime: Runtime,
    manager: Duplex<ToManager, ToProxy>,
    shutdown: CancellationToken,
    run: Option<JoinHandle<Result<(), ProxyError>>>,
}

/// One end of a conversation in raw bytes.
pub(crate) struct Talk<S> {
    pub(crate) stream: S,
    heard: Vec<u8>,
}

/// A store that lives as long as the test.
#[derive(Clone, Default)]
pub(crate) struct Kept {
    pub(crate) listeners: Arc<Mutex<Vec<Place>>>,
    /// The keys of TLS sessions, as they were kept last.
    pub(crate) tickets: Arc<Mutex<Option<Vec<u8>>>>,
    /// All tables, the last one last.
    pub(crate) tables: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl proxy::Store for Kept {
    fn keep_listener(&self, place: &Place, _: BorrowedFd<'_>) {
        self.listeners.lock().unwrap().push(place.clone());
    }
    fn drop_listener(&self, place: &Place) {
        self.listeners.lock().unwrap().retain(|kept| kept != place);
    }
    fn keep_tickets(&self, keys: &[u8]) {
        *self.tickets.lock().unwrap() = Some(keys.to_vec());
    }
    fn keep_table(&self, table: &[u8]) {
        self.tables.lock().unwrap().push(table.to_vec());
    }
}

/// A worker played by the test.
pub(crate) struct Worker(UnixListener);

impl House {
    /// A proxy with generous limits.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A proxy whose first table is changed by `change`.
    pub(crate) fn with(change: impl FnOnce(&mut RouteTable)) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut house = Self::linked(Link::Stream(theirs), move || ours);
        house.publish(change);
        house
    }

    /// A proxy on `link`; `manager` gives the manager's end once the proxy runs.
    pub(crate) fn linked(link: Link, manager: impl FnOnce() -> UnixStream) -> Self {
        Self::threaded(1, link, manager)
    }

    /// The same with several threads. With one, which connections are reused is the test's to know.
    pub(crate) fn threaded(
        threads: usize,
        link: Link,
        manager: impl FnOnce() -> UnixStream,
    ) -> Self {
        Self::optioned(options(threads, link), manager)
    }

    /// The same with all the caller can choose.
    pub(crate) fn optioned(options: Options, manager: impl FnOnce() -> UnixStream) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let run = runtime.spawn(proxy::run(options, shutdown.clone()));
        let directory = TempDir::new().unwrap();
        let table = table(directory.path());
        let manager = duplex(&runtime, manager());
        let mut house = Self {
            directory,
            table,
            listening: Vec::new(),
            runtime,
            manager,
            shutdown,
            run: Some(run),
        };
        assert!(
            matches!(house.hear(), ToManager::Hello { version } if version == *tqserver::wire::VERSION)
        );
        house
    }

    /// Closes the manager's end.
    pub(crate) fn unlink(&mut self) {
        let (nothing, _) = UnixStream::pair().unwrap();
        self.manager = duplex(&self.runtime, nothing);
    }

    /// Speaks over a new link.
    pub(crate) fn relink(&mut self, stream: UnixStream) {
        self.manager = duplex(&self.runtime, stream);
        assert!(matches!(self.hear(), ToManager::Hello { .. }));
    }

    /// Changes the table and puts it in force; returns what could not be had.
    pub(crate) fn publish(&mut self, change: impl FnOnce(&mut RouteTable)) -> Option<String> {
        self.table.serial += 1;
        change(&mut self.table);
        self.say(ToProxy::Publish(self.table.clone()));
        match self.hear() {
            ToManager::Applied { serial, front } if serial == self.table.serial => {
                self.listening = (front.listening.iter())
                    .filter_map(Listen::address)
                    .collect();
                front.problem
            }
            other => panic!("expected Applied, heard {other:?}"),
        }
    }

    pub(crate) fn say(&mut self, word: ToProxy) {
        self.runtime.block_on(self.manager.send(&word)).unwrap();
    }

    /// Waits for something that comes.
    pub(crate) fn until(&self, comes: impl Future<Output = ()>) {
        let comes = async { tokio::time::timeout(DEADLINE, comes).await };
        self.runtime.block_on(comes).expect("it does not come");
    }

    pub(crate) fn hear(&mut self) -> ToManager {
        let heard = async { tokio::time::timeout(DEADLINE, self.manager.next()).await };
        self.runtime
            .block_on(heard)
            .expect("the proxy says nothing")
            .unwrap()
            .expect("the proxy closed the link")
    }

    /// Requests in flight and requests begun of a generation, asked over the link. Fails if anything else is said before.
    pub(crate) fn count(&mut self, generation: u64) -> (u64, u64) {
        self.say(ToProxy::Count { id: generation });
        match self.hear() {
            ToManager::Counted { id, counts } if id == generation => counts
                .iter()
                .find(|count| count.instance == instance(generation))
                .map_or((0, 0), |count| (count.in_flight, count.requests)),
            other => panic!("expected Counted, heard {other:?}"),
        }
    }

    /// Waits until the counts of a generation are these: what a worker sees of a request's end may come before it is counted.
    pub(crate) fn counts(&mut self, generation: u64, expected: (u64, u64)) {
        let begun = Instant::now();
        loop {
            let counts = self.count(generation);
            if counts == expected {
                return;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "{counts:?} and not {expected:?}"
            );
        }
    }

    /// The worker of a generation of `w`. Its socket is there from now on.
    pub(crate) fn worker(&self, generation: u64) -> Worker {
        Worker(UnixListener::bind(self.socket(generation)).unwrap())
    }

    pub(crate) fn socket(&self, generation: u64) -> PathBuf {
        socket(self.directory.path(), generation)
    }

    /// What a table says of generation `generation` of `w`.
    pub(crate) fn serving(&self, generation: u64) -> Target {
        serving(self.directory.path(), generation)
    }

    /// A new client's connection.
    pub(crate) fn client(&self) -> Talk<TcpStream> {
        Talk::new(TcpStream::connect(self.listening[0]).unwrap())
    }

    /// A client that has sent `request`.
    pub(crate) fn ask(&self, request: &str) -> Talk<TcpStream> {
        let mut client = self.client();
        client.send(request);
        client
    }

    /// A GET on a connection of its own, without the worker's help: head and body.
    pub(crate) fn get(&self, path: &str, fields: &str) -> (String, Vec<u8>) {
        let mut client = self.ask(&format!("GET {path} HTTP/1.1\r\nhost: h\r\n{fields}\r\n"));
        let head = client.head();
        let body = client.content(&head);
        (head, body)
    }

    /// Puts a file into the public directory, which the route has from the next table on.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.public().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn public(&self) -> PathBuf {
        self.directory.path().join("public")
    }

    /// Tells the proxy to stop.
    pub(crate) fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Waits until it has.
    pub(crate) fn ended(&mut self) {
        let run = self.run.take().unwrap();
        let ended = async { tokio::time::timeout(DEADLINE, run).await };
        let ended = self.runtime.block_on(ended);
        ended.expect("the proxy does not stop").unwrap().unwrap();
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(run) = &self.run {
            run.abort();
        }
    }
}

/// Options without a history.
pub(crate) fn options(threads: usize, link: Link) -> Options {
    Options {
        link,
        inherited: Vec::new(),
        tickets: None,
        remembered: None,
        store: None,
        serving: None,
        threads,
        heart: None,
    }
}

fn duplex(runtime: &Runtime, stream: UnixStream) -> Duplex<ToManager, ToProxy> {
    let _context = runtime.enter();
    stream.set_nonblocking(true).unwrap();
    Duplex::new(tokio::net::UnixStream::from_std(stream).unwrap())
}

pub(crate) fn instance(generation: u64) -> Instance {
    Instance::new(WorkerName::parse("w").unwrap(), Generation(generation))
}

fn socket(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("w{generation}.sock"))
}

fn serving(directory: &Path, generation: u64) -> Target {
    Target::Serving(Upstream {
        generation: Generation(generation),
        address: Address::Unix(socket(directory, generation)),
        instances: BTreeMap::new(),
        protocol: Protocol::Http,
        max_requests: 0,
        starting: None,
    })
}

fn table(directory: &Path) -> RouteTable {
    RouteTable {
        serial: 0,
        front: Front {
            listen: vec![listen("127.0.0.1:0")],
            read_timeout: DEADLINE,
            write_timeout: DEADLINE,
            idle_timeout: DEADLINE,
            grace: DEADLINE,
            ..Front::default()
        },
        routes: vec![Route {
            path: RoutePath::root(),
            settings: Default::default(),
            worker: WorkerName::parse("w").unwrap(),
            public: None,
            state: None,
            target: serving(directory, 1),
            timeouts: Timeouts {
                read: DEADLINE,
                write: DEADLINE,
                idle: DEADLINE,
            },
            flow: Flow {
                retries: 0,
                ..Flow::default()
            },
            halt: Halt::default(),
            access_log: false,
            scripts: false,
            compression: false,
            sticky: None,
            work: None,
        }],
        draining: Vec::new(),
        development: None,
    }
}

impl Worker {
    /// The next connection from the proxy.
    pub(crate) fn accept(&self) -> Talk<UnixStream> {
        // A test that waits for a connection that never comes must end.
        self.0.set_nonblocking(true).unwrap();
        let began = std::time::Instant::now();
        loop {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Talk::new(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(began.elapsed() < DEADLINE, "the proxy does not connect");
                    wait_readable(&self.0);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Whether no connection waits to be accepted.
    pub(crate) fn is_alone(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        matches!(self.0.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Answers every request with `body`.
    pub(crate) fn echo(self, body: &'static str) {
        self.serve(move |talk| {
            while let Some(head) = talk.try_head() {
                talk.content(&head);
                talk.answer(body);
            }
        });
    }

    /// Serves each connection with `serve`, on a thread that ends with it.
    pub(crate) fn serve(self, serve: impl Fn(&mut Talk<UnixStream>) + Clone + Send + 'static) {
        self.0.set_nonblocking(false).unwrap();
        thread::spawn(move || {
            while let Ok((stream, _)) = self.0.accept() {
                let serve = serve.clone();
                thread::spawn(move || serve(&mut Talk::new(stream)));
            }
        });
    }
}

fn wait_readable(listener: &UnixListener) {
    let mut waited = [rustix::event::PollFd::new(
        listener,
        rustix::event::PollFlags::IN,
    )];
    let second = rustix::event::Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    let _ = rustix::event::poll(&mut waited, Some(&second));
}

/// What the two kinds of streams have in common.
pub(crate) trait Stream: Read + Write {
    fn set_deadline(&self);
    fn half_close(&self);
}

impl Stream for TcpStream {
    fn set_deadline(&self) {
        self.set_read_timeout(Some(DEADLINE)).unwrap();
        self.set_write_timeout(Some(DEADLINE)).unwrap();
    }
    fn half_close(&self) {
        self.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

impl Stream for UnixStream {
    fn set_deadline(&self) {
        self.set_read_timeout(Some(DEADLINE)).unwrap();
        self.set_write_timeout(Some(DEADLINE)).unwrap();
    }
    fn half_close(&self) {
        self.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

impl<S: Stream> Talk<S> {
    pub(crate) fn new(stream: S) -> Self {
        stream.set_deadline();
        Self {
            stream,
            heard: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// A complete response with a length.
    pub(crate) fn answer(&mut self, body: &str) {
        let length = body.len();
        self.send(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
    }

    /// The next message's head, with the empty line.
    pub(crate) fn head(&mut self) -> String {
        self.try_head().expect("the connection was closed instead")
    }

    /// The same; `None` if the connection ends before its first byte.
    pub(crate) fn try_head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.heard, b"\r\n\r\n") {
                let head = self.heard.drain(..at + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.listen() {
                assert!(
                    self.heard.is_empty(),
                    "closed within a head: {:?}",
                    String::from_utf8_lossy(&self.heard)
                );
                return None;
            }
        }
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.heard.len() < count {
            assert!(
                self.listen(),
                "closed within a body: {:?}",
                String::from_utf8_lossy(&self.heard)
            );
        }
        self.heard.drain(..count).collect()
    }

    /// Whether the other side has closed, without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.heard.is_empty() && !self.listen()
    }

    /// Expects exactly `text` next.
    pub(crate) fn expect(&mut self, text: &str) {
        let heard = self.bytes(text.len());
        assert_eq!(String::from_utf8_lossy(&heard), text);
    }

    /// The body that a response's `head` announces by its length.
    pub(crate) fn content(&mut self, head: &str) -> Vec<u8> {
        let length = field(head, "content-length").map_or(0, |length| length.parse().unwrap());
        self.bytes(length)
    }

    /// All that comes until the other side closes; an error if it is a reset.
    pub(crate) fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.heard);
        self.stream.read_to_end(&mut rest).map(|_| rest)
    }

    /// Expects that the other side closes, by whatever means, without another byte.
    pub(crate) fn closes(&mut self) {
        match self.rest() {
            Ok(rest) => assert_eq!(String::from_utf8_lossy(&rest), ""),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }

    fn listen(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.heard.extend_from_slice(&buffer[..read]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}

pub(crate) fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// A field's value in a head.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let same = |line: &&str| {
        let named = line.split(':').next().unwrap_or_default();
        named.eq_ignore_ascii_case(name)
    };
    let line = head.lines().skip(1).find(same)?;
    Some(line[name.len() + 1..].trim())
}

/// The status of a response's head.
pub(crate) fn status(head: &str) -> u16 {
    head[9..12].parse().unwrap()
}

/// A plain request for `/`.
pub(crate) const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";

/// A listener without TLS at an address as it is written.
pub(crate) fn listen(address: &str) -> Listen {
    Listen::from(address.parse::<SocketAddr>().unwrap())
}
