//! A client that hides nothing: each connection refused, reset or cut short is seen, and nothing is tried twice.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{LONG, lock};

/// Pause of each connection of a load between two requests, so that what is tested has a processor to run on.
const PACE: Duration = Duration::from_millis(4);

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn is(&self, body: &str) {
        assert_eq!((self.status, self.text().trim_end()), (200, body));
    }

    #[track_caller]
    pub fn has_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "the answer is {}", self.text());
        self
    }

    #[track_caller]
    pub fn leads_to(&self, location: &str) -> &Self {
        let found = (self.status, self.header("location"));
        assert_eq!(found, (308, Some(location)), "{}", self.text());
        self
    }

    #[track_caller]
    pub fn holds(&self, text: &str) -> &Self {
        assert!(
            self.text().contains(text),
            "'{text}' is not in the answer ({}):\n{}",
            self.status,
            self.text()
        );
        self
    }
}

/// A connection, made when it is first needed.
pub struct Client {
    address: SocketAddr,
    host: String,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            host: "house.test".to_owned(),
            connection: None,
        }
    }

    /// Asks for this host from now on.
    pub fn on(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send(path)?;
        self.receive()
    }

    /// Sends a request without waiting for its response.
    pub fn send(&mut self, path: &str) -> io::Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LONG))?;
                stream.set_write_timeout(Some(LONG))?;
                self.connection.insert(BufReader::new(stream))
            }
        };
        let host = &self.host;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let sent = connection.get_mut().write_all(request.as_bytes());
        if sent.is_err() {
            self.connection = None;
        }
        sent
    }

    pub fn receive(&mut self) -> io::Result<Answer> {
        let Some(mut connection) = self.connection.take() else {
            return Err(io::Error::other("nothing was sent"));
        };
        let answer = read(&mut connection)?;
        if answer
            .header("connection")
            .is_none_or(|value| !value.eq_ignore_ascii_case("close"))
        {
            self.connection = Some(connection);
        }
        Ok(answer)
    }
}

fn read(connection: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let line = |connection: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        match connection.read_line(&mut line)? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection was closed",
            )),
            _ => Ok(line.trim_end().to_owned()),
        }
    };
    let first = line(connection)?;
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| bad(format!("no status line: {first}")))?;
    let mut headers = Vec::new();
    loop {
        let header = line(connection)?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
    };
    if let Some(length) = answer.header("content-length") {
        let length = length
            .parse()
            .map_err(|_| bad(format!("content-length {length}")))?;
        answer.body.resize(length, 0);
        connection.read_exact(&mut answer.body)?;
    } else if answer.header("transfer-encoding").is_some() {
        loop {
            let size = line(connection)?;
            let size =
                usize::from_str_radix(&size, 16).map_err(|_| bad(format!("chunk size {size}")))?;
            let mut chunk = vec![0; size + 2];
            connection.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            answer.body.extend_from_slice(&chunk[..size]);
        }
    } else {
        connection.read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// How often each body came with status 200.
    pub bodies: BTreeMap<String, u64>,
    /// Everything else, in the order it came.
    pub failures: Vec<String>,
    /// Of those: connections that nobody accepted.
    pub refused: u64,
    /// The longest wait for a response.
    pub slowest: Duration,
}

impl Totals {
    pub fn answered(&self) -> u64 {
        self.bodies.values().sum()
    }

    /// Each request was answered well.
    #[track_caller]
    pub fn lost_nothing(&self) {
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed: {:#?}",
            self.failures.len(),
            self.failures.len() as u64 + self.answered(),
            &self.failures[..self.failures.len().min(10)],
        );
        assert!(self.answered() > 0, "nothing was asked");
    }

    /// Each request was answered well, and by one of these.
    #[track_caller]
    pub fn only(&self, bodies: &[&str]) {
        self.lost_nothing();
        for body in self.bodies.keys() {
            assert!(
                bodies.contains(&body.as_str()),
                "an answer was '{body}', not one of {bodies:?}"
            );
        }
    }
}

/// Keep-alive connections that ask for one path again and again.
pub struct Load {
    shared: Arc<Shared>,
    connections: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    totals: Mutex<Totals>,
    more: Condvar,
}

impl Load {
    pub fn start(address: SocketAddr, path: &str, connections: usize) -> Self {
        Self::begin(address, path, connections, false)
    }

    /// Connections that are used for one request each.
    pub fn start_anew(address: SocketAddr, path: &str, connections: usize) -> Self {
        Self::begin(address, path, connections, true)
    }

    fn begin(address: SocketAddr, path: &str, connections: usize, anew: bool) -> Self {
        let began = Instant::now();
        let shared = Arc::new(Shared::default());
        let connect = |_| {
            let (shared, path) = (Arc::clone(&shared), path.to_owned());
            std::thread::spawn(move || shared.ask_on(Client::new(address), &path, began, anew))
        };
        let load = Self {
            connections: (0..connections).map(connect).collect(),
            shared,
        };
        load.reaches(1);
        load
    }

    /// Waits for so many further responses.
    #[track_caller]
    pub fn reaches(&self, further: u64) {
        let all = |totals: &Totals| totals.answered() + totals.failures.len() as u64;
        let goal = all(&lock(&self.shared.totals)) + further;
        let totals = lock(&self.shared.totals);
        let waited = self
            .shared
            .more
            .wait_timeout_while(totals, LONG, |totals| all(totals) < goal);
        let (totals, timeout) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(
            !timeout.timed_out(),
            "only {} of {goal} responses came within {LONG:?}",
            all(&totals)
        );
    }

    /// Ends it and tells what came of it.
    pub fn stop(mut self) -> Totals {
        self.end();
        lock(&self.shared.totals).clone()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.connections
            .drain(..)
            .for_each(|connection| drop(connection.join()));
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn ask_on(&self, mut client: Client, path: &str, began: Instant, anew: bool) {
        while !self.stop.load(Ordering::Relaxed) {
            if anew {
                client.connection = None;
            }
            let asked = Instant::now();
            let answer = client.get(path);
            let mut totals = lock(&self.totals);
            let at = began.elapsed().as_millis();
            totals.slowest = totals.slowest.max(asked.elapsed());
            match answer {
                Ok(answer) if answer.status == 200 => {
                    *totals.bodies.entry(answer.text()).or_default() += 1
                }
                Ok(answer) => totals.failures.push(format!(
                    "at {at} ms: status {}: {}",
                    answer.status,
                    answer.text()
                )),
                Err(error) => {
                    totals.refused += u64::from(error.kind() == io::ErrorKind::ConnectionRefused);
                    totals.failures.push(format!(
                        "at {at} ms, after {} ms: {error}",
                        asked.elapsed().as_millis()
                    ));
                }
            }
            drop(totals);
            self.more.notify_all();
            std::thread::sleep(PACE);
        }
    }
}

/// Reads all there is to read, for what is no HTTP.
pub fn read_all(mut stream: impl Read) -> String {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}
