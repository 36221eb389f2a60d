//! The worker behind all proxies: one thread that answers with bytes made beforehand, as fast as the kernel lets it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::thread::{Pid, gettid};

/// Read at once.
const BUFFER: usize = 256 << 10;
/// Most header fields of a request, what proxies add included.
const FIELDS: usize = 64;
/// The listener among the numbers of connections.
const LISTENER: u64 = 0;

/// A connection from a proxy.
struct Connection {
    stream: UnixStream,
    /// What has come of a request's head.
    head: Vec<u8>,
    /// How much of a request's body is to come; the answer waits for it.
    body: usize,
    answer: &'static [u8],
    sent: usize,
    /// It is no HTTP any more: what comes is sent back.
    echoes: bool,
}

/// The answers, heads included.
struct Answers {
    small: &'static [u8],
    medium: &'static [u8],
    large: &'static [u8],
    page: &'static [u8],
    upgraded: &'static [u8],
}

/// Listens at `path` and answers until the program ends. Returns the thread that does.
pub(crate) fn start(path: &Path) -> Pid {
    let listener = UnixListener::bind(path).expect("a socket for the worker");
    listener.set_nonblocking(true).expect("an option");
    let (said, hear) = mpsc::channel();
    thread::spawn(move || {
        said.send(gettid()).expect("somebody waits");
        serve(&listener);
    });
    hear.recv().expect("a thread")
}

fn serve(listener: &UnixListener) {
    let answers = Answers::new();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
    watch(&epoll, listener, LISTENER, epoll::EventFlags::IN);
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut next = LISTENER + 1;
    let mut buffer = vec![0; BUFFER];
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        let room = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&epoll, room, None) {
            // A signal; what there is will be told again.
            Err(Errno::INTR) => continue,
            told => drop(told.expect("events")),
        }
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).expect("an option");
                    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
                    watch(&epoll, &stream, next, flags | epoll::EventFlags::ET);
                    connections.insert(next, Connection::new(stream));
                    next += 1;
                }
            } else if let Some(connection) = connections.get_mut(&number)
                && connection.advance(&mut buffer, &answers).is_err()
            {
                // The proxy has closed it, or does not speak as it should, which the load will notice.
                connections.remove(&number);
            }
        }
    }
}

fn watch(epoll: &OwnedFd, source: impl AsFd, number: u64, flags: epoll::EventFlags) {
    epoll::add(epoll, source, epoll::EventData::new_u64(number), flags).expect("a socket to watch");
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            head: Vec::new(),
            body: 0,
            answer: &[],
            sent: 0,
            echoes: false,
        }
    }

    /// Does what can be done without waiting.
    fn advance(&mut self, buffer: &mut [u8], answers: &Answers) -> io::Result<()> {
        self.send()?;
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if self.echoes {
                self.echo(&buffer[..read])?;
            } else {
                self.take(&buffer[..read], answers)?;
                self.send()?;
            }
            // The next byte is an event of its own.
            if read < buffer.len() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, bytes: &[u8], answers: &Answers) -> io::Result<()> {
        if self.body > 0 {
            self.body = self.body.saturating_sub(bytes.len());
            return Ok(());
        }
        if self.head.is_empty() {
            if !self.begin(bytes, answers)? {
                self.head.extend_from_slice(bytes);
            }
            return Ok(());
        }
        let mut head = std::mem::take(&mut self.head);
        head.extend_from_slice(bytes);
        if !self.begin(&head, answers)? {
            self.head = head;
        }
        Ok(())
    }

    /// Reads a request's head; `false` if it is not whole.
    fn begin(&mut self, bytes: &[u8], answers: &Answers) -> io::Result<bool> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(head) = request.parse(bytes).map_err(io::Error::other)?
        else {
            return Ok(false);
        };
        let mut fields = request.headers.iter();
        let length = fields.find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|field| str::from_utf8(field.value).ok()?.parse().ok());
        self.body = length.unwrap_or(0_usize).saturating_sub(bytes.len() - head);
        self.answer = answers.to(request.path.unwrap_or_default());
        self.sent = 0;
        self.echoes = self.answer == answers.upgraded;
        Ok(true)
    }

    /// Sends bytes back, all at once: who sent them reads before it sends more.
    fn echo(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        while self.body == 0 && self.sent < self.answer.len() {
            match self.stream.write(&self.answer[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Answers {
    fn new() -> Self {
        let answer = |length: usize| {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
            );
            let mut answer = head.into_bytes();
            answer.resize(answer.len() + length, b'd');
            &*answer.leak()
        };
        Self {
            small: answer(16),
            medium: answer(10 << 10),
            large: answer(1 << 20),
            page: page(),
            upgraded: b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        }
    }

    fn to(&self, path: &str) -> &'static [u8] {
        match path {
            _ if path.ends_with("/10k") => self.medium,
            _ if path.ends_with("/1m") => self.large,
            _ if path.ends_with("/page") => self.page,
            _ if path.ends_with("/echo") => self.upgraded,
            _ => self.small,
        }
    }
}

/// A page that is worth compressing: its lines are alike, and each is another.
fn page() -> &'static [u8] {
    let row = |number: usize| {
        let sum = number * 7919 % 10_007;
        format!(
            "<tr><td>{number}</td><td>customer {sum}</td><td>{}.{:02}</td></tr>\n",
            sum / 3,
            sum % 100
        )
    };
    let rows: String = (0..400).map(row).collect();
    let body = format!("<!doctype html><title>Customers</title><table>\n{rows}</table>\n");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes().leak()
}
