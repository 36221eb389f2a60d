//! Connections that have asked once and then say nothing: what each keeps in memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::contestants::{House, Kind};
use super::cores::Cores;
use super::scenario::Ask;

/// What is written after `--only`.
pub(crate) const NAME: &str = "idle";
/// How many.
pub(crate) const CONNECTIONS: usize = 10_000;

/// What is given back is given back by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a fresh proxy's memory (PSS) that each connection costs. The kernel's own, which are the same for all, are not in it.
pub(crate) fn bytes_a_connection(house: &House, kind: Kind, cores: &Cores) -> f64 {
    let contestant = house.start(kind, cores, None);
    let request = Ask::Small.request();
    // The first one pays for what is there once.
    let ask = || {
        let mut stream = TcpStream::connect(contestant.plain()).expect("the proxy listens");
        stream.write_all(&request).expect("the proxy reads");
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).expect("an answer");
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "no answer");
        stream
    };
    let first = ask();
    let before = contestant.processes().memory();
    let connections: Vec<TcpStream> = (0..CONNECTIONS).map(|_| ask()).collect();
    std::thread::sleep(PATIENCE);
    let after = contestant.processes().memory();
    drop((first, connections));
    contestant.stop();
    after.saturating_sub(before) as f64 / CONNECTIONS as f64
}
