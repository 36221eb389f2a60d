//! What a profile is made of: the program does for a while what users do with it, by itself. How long that takes does not matter, and what
//! counts is which of its code runs often.

mod scripts;

use std::io::{Read, Write};
use std::net::TcpStream;

use super::contestants::{Contestant, House, Kind};
use super::cores::Cores;
use super::load::Load;
use super::scenario::{ALL, Ask, IN_TRAINING, Scenario};
use super::talk::Goal;

/// Requests of each scenario, in pieces between which all workers are replaced.
const REQUESTS: usize = 4000;
/// Of those that move a lot, or shake hands.
const HEAVY: usize = 400;
const PIECES: usize = 4;
/// Messages in a tunnel, and the bytes of each.
const MESSAGES: [(usize, usize); 2] = [(4000, 60), (200, 16 << 10)];

/// Lets it do all of it, and ends.
pub(crate) fn run(house: &House, cores: &Cores) {
    scripts::start(&house.scripts());
    let mut trained = house.start(Kind::Tqserver, cores, None);
    for scenario in ALL.iter().chain(&IN_TRAINING) {
        cores.place(scenario.place, trained.processes());
        ask(&mut trained, scenario);
        eprintln!("{}", scenario.name);
    }
    tunnel(&trained);
    eprintln!("tunnel");
    trained.stop();
}

fn ask(trained: &mut Contestant, scenario: &Scenario) {
    let address = trained.door(scenario).expect("it does all of them");
    let heavy =
        scenario.speech.is_fresh() || matches!(scenario.ask, Ask::Large | Ask::Upload | Ask::Page);
    let requests = if heavy { HEAVY } else { REQUESTS };
    let mut load = Load::open(scenario, address);
    for _ in 0..PIECES {
        load.run(Goal::answers(requests / PIECES));
        trained.reload();
    }
}

/// A WebSocket, or what the proxy sees of one.
fn tunnel(trained: &Contestant) {
    let mut stream = TcpStream::connect(trained.plain()).expect("the proxy listens");
    stream.set_nodelay(true).expect("an option");
    stream
        .write_all(
            b"GET /app07/echo HTTP/1.1\r\nHost: bench.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("the proxy reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    for (count, length) in MESSAGES {
        let (sent, mut back) = (vec![b'm'; length], vec![0; length]);
        for _ in 0..count {
            stream.write_all(&sent).expect("the tunnel is open");
            stream.read_exact(&mut back).expect("a message comes back");
        }
    }
}
