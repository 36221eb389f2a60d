//! The client that does no harm: it asks at a steady rate, and wants its answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::house::House;

/// Connections that are kept, and the pause of each between an answer and the next request.
const CONNECTIONS: usize = 20;
const PAUSE: Duration = Duration::from_millis(20);
/// A client has lost its patience after this.
const PATIENCE: Duration = Duration::from_secs(10);
const REQUEST: &[u8] =
    b"GET /normal HTTP/1.1\r\nhost: localhost\r\nuser-agent: normal\r\naccept: */*\r\n\r\n";

/// How long answers took.
#[derive(Default)]
pub(crate) struct Figures {
    /// From the shortest to the longest; a request that failed has taken until then.
    pub(crate) times: Vec<Duration>,
    /// Requests that got no answer, even after one further try on a new connection where an old one was closed under way.
    pub(crate) failed: usize,
}

impl Figures {
    /// The time within which this share of answers came.
    pub(crate) fn at(&self, share: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        let at = (last as f64 * share) as usize;
        self.times.get(at).copied().unwrap_or_default()
    }
}

/// Asks for so long.
pub(crate) fn run(house: &House, length: Duration) -> Figures {
    let ready = Barrier::new(CONNECTIONS);
    let address = house.plain;
    let mut all = Figures::default();
    thread::scope(|scope| {
        let client = || {
            scope.spawn(|| {
                ready.wait();
                one(address, length)
            })
        };
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| client()).collect();
        for client in clients {
            let figures = client.join().expect("a client");
            all.times.extend(figures.times);
            all.failed += figures.failed;
        }
    });
    all.times.sort_unstable();
    all
}

fn one(address: SocketAddr, length: Duration) -> Figures {
    let began = Instant::now();
    let mut figures = Figures::default();
    let mut kept = None;
    while began.elapsed() < length {
        let asked = Instant::now();
        let mut answered = kept.take().map_or_else(|| fresh(address), ask);
        if answered.is_err() {
            // As any client does whose connection was closed while it was unused.
            answered = fresh(address);
        }
        figures.times.push(asked.elapsed());
        match answered {
            Ok(stream) => kept = Some(stream),
            Err(_) => figures.failed += 1,
        }
        thread::sleep(PAUSE);
    }
    figures
}

fn fresh(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    ask(stream)
}

fn ask(mut stream: TcpStream) -> io::Result<TcpStream> {
    stream.write_all(REQUEST)?;
    let mut heard = [0; 4096];
    let mut length = 0;
    while !heard[..length].ends_with(b"dddddddddddddddd") {
        match stream.read(&mut heard[length..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => length += read,
        }
    }
    match heard.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(stream),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}
