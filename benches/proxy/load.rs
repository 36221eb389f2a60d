//! The load: some connections, each of which asks again as soon as it has its answer. One thread, and little work: it shares its core with
//! the worker.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustls::ClientConfig;

use super::http1::Http1;
use super::http2::Http2;
use super::pipe::{self, Pipe};
use super::scenario::{Scenario, Speech};
use super::talk::{Goal, Talk};

/// An answer that takes longer never comes.
const LONG: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};
/// Read at once: a large body in some pieces.
const BUFFER: usize = 256 << 10;

/// What came of it.
pub(crate) struct Run {
    /// Of each answer, in nanoseconds.
    pub(crate) latencies: Vec<u32>,
    pub(crate) took: Duration,
}

/// The connections of one scenario to one proxy.
pub(crate) struct Load {
    address: SocketAddr,
    speech: Speech,
    tls: Option<Arc<ClientConfig>>,
    request: Request,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

struct Request {
    ask: super::scenario::Ask,
    bytes: Rc<[u8]>,
}

struct Connection {
    pipe: Pipe,
    talk: Box<dyn Talk>,
}

impl Load {
    /// Connects to a proxy.
    pub(crate) fn open(scenario: &Scenario, address: SocketAddr) -> Self {
        let mut load = Self {
            address,
            speech: scenario.speech,
            tls: pipe::tls(scenario.speech),
            request: Request {
                ask: scenario.ask,
                bytes: scenario.ask.request().into(),
            },
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll"),
            connections: Vec::new(),
            buffer: vec![0; BUFFER],
        };
        for number in 0..scenario.connections {
            let connection = load.connect(number);
            load.connections.push(connection);
        }
        load
    }

    fn connect(&self, number: usize) -> Connection {
        let pipe = Pipe::connect(self.address, self.tls.as_ref());
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, pipe.stream(), data, flags).expect("a socket to watch");
        let talk: Box<dyn Talk> = match self.speech {
            Speech::Http2(streams) => Box::new(Http2::new(self.request.ask, streams)),
            _ => Box::new(Http1::new(&self.request.bytes)),
        };
        Connection { pipe, talk }
    }

    /// Asks on all connections until the goal is reached and all have their answers.
    ///
    /// # Panics
    /// When an answer is not the one expected, or does not come.
    pub(crate) fn run(&mut self, goal: Goal) -> Run {
        let began = Instant::now();
        let mut latencies = Vec::new();
        let mut buffer = std::mem::take(&mut self.buffer);
        for number in 0..self.connections.len() {
            if self.speech.is_fresh() {
                self.connections[number] = self.connect(number);
            }
            self.connections[number].talk.ask(Instant::now());
            self.connections[number].send();
        }
        let mut asking = self.connections.len();
        let mut resumed = 0;
        let mut events = Vec::with_capacity(256);
        while asking > 0 {
            events.clear();
            let count = rustix::buffer::spare_capacity(&mut events);
            let count = epoll::wait(&self.epoll, count, Some(&LONG)).expect("events");
            assert!(count > 0, "{asking} connections wait for an answer");
            for event in &events {
                let number = event.data.u64() as usize;
                let connection = &mut self.connections[number];
                if connection.talk.is_quiet() {
                    continue;
                }
                // A connection of its own for each request does not ask twice.
                let once = Goal::answers(0);
                let fresh = self.speech.is_fresh();
                let next = if fresh { &once } else { &goal };
                connection.send();
                connection.receive(&mut buffer, next, &mut latencies);
                connection.send();
                if !connection.talk.is_quiet() {
                    continue;
                }
                resumed += usize::from(connection.pipe.is_resumed());
                let now = Instant::now();
                if fresh && !goal.is_reached(latencies.len(), now) {
                    let mut connection = self.connect(number);
                    connection.talk.ask(now);
                    connection.send();
                    self.connections[number] = connection;
                } else {
                    asking -= 1;
                }
            }
        }
        let expected = match self.speech {
            // The first connections have no ticket yet.
            Speech::TlsResumed => latencies.len().saturating_sub(2 * self.connections.len()),
            _ => 0,
        };
        assert!(resumed >= expected, "{resumed} handshakes by ticket");
        self.buffer = buffer;
        Run {
            took: began.elapsed(),
            latencies,
        }
    }
}

impl Connection {
    fn send(&mut self) {
        while !self.talk.unsent().is_empty() {
            match self.pipe.write(self.talk.unsent()) {
                Ok(written) => self.talk.sent(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => panic!("a request can not be sent: {error}"),
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8], goal: &Goal, latencies: &mut Vec<u32>) {
        loop {
            match self.pipe.read(buffer) {
                Ok(0) => panic!("the proxy closes a connection it is asked on"),
                Ok(read) => {
                    self.talk.hear(&buffer[..read], goal, latencies);
                    // The next byte is an event of its own.
                    if read < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => panic!("an answer breaks off: {error}"),
            }
        }
    }
}
