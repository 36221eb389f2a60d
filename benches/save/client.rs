//! Those who ask: one connection, or several at the same time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::kind::Kind;
use super::{LONG, PACE};

/// A keep-alive connection. Nothing on it is tried twice.
pub(crate) struct Client<S>(BufReader<S>);

impl Client<TcpStream> {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(LONG)).expect("an option");
        Self::on(stream)
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn on(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    /// Status and body of the answer to a plain request.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let first = self.line()?;
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let mut length = None;
        loop {
            let line = self.line()?.to_lowercase();
            if line.is_empty() {
                break;
            }
            let value = line.strip_prefix("content-length:");
            length = length.or(value.and_then(|value| value.trim().parse().ok()));
        }
        let (Some(status), Some(length)) = (status, length) else {
            return Err(io::Error::other(format!("'{first}', or no length")));
        };
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

/// Connections that ask one worker until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    connections: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr, kind: &'static Kind, connections: usize) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let connect = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || ask(address, kind, &stop))
        };
        Self {
            connections: (0..connections).map(connect).collect(),
            stop,
        }
    }

    /// How many requests were answered well, and what came of the others.
    pub(crate) fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self
            .connections
            .into_iter()
            .map(|one| one.join().expect("a client"));
        ended.fold((0, Vec::new()), |(answered, mut lost), (more, others)| {
            lost.extend(others);
            (answered + more, lost)
        })
    }
}

/// Each answer has to be the worker's, and none older than the one before it.
fn ask(address: SocketAddr, kind: &Kind, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut answered, mut lost, mut newest) = (0, Vec::new(), 0);
    let mut client = Client::connect(address);
    while !stop.load(Ordering::Relaxed) {
        match client.get(&kind.route()) {
            Ok((200, text)) => {
                let number = text
                    .rsplit(' ')
                    .next()
                    .and_then(|number| number.parse().ok());
                match number {
                    Some(number) if number >= newest && text == kind.text(number) => {
                        newest = number;
                        answered += 1;
                    }
                    _ => lost.push(format!("'{text}' was answered after number {newest}")),
                }
            }
            Ok((status, text)) => lost.push(format!("{status}: {text}")),
            Err(error) => {
                lost.push(error.to_string());
                client = Client::connect(address);
            }
        }
        std::thread::sleep(PACE);
    }
    (answered, lost)
}
