//! A connection that many share, as a load balancer's: a malformed request costs its own stream, and nobody else's.

use std::sync::{Arc, Mutex, mpsc};

use super::*;
use crate::house::Talk;

/// A house whose worker keeps requests for `/held` until the sender is dropped, says of each of them that it has come, and answers all
/// others with what their field `x` says.
fn holding() -> (House, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let house = House::with(|table| table.front.http2_cleartext = true);
    let (arrived, arrivals) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    house.worker(1).serve(move |talk| {
        while let Some(head) = talk.try_head() {
            if head.starts_with("GET /held ") {
                arrived.send(()).unwrap();
                // An error: the sender is gone.
                let _ = released.lock().unwrap().recv();
            }
            talk.answer(field(&head, "x").unwrap_or("nothing"));
        }
    });
    (house, arrivals, release)
}

/// The status and the body of a stream's answer.
fn answer(peer: &mut Peer, stream: u32) -> (u16, String) {
    let (mut status, mut body) = (0, Vec::new());
    let frames = peer.until(|frame| frame.stream == stream && frame.flags & END_STREAM != 0);
    for frame in frames.iter().filter(|frame| frame.stream == stream) {
        match frame.kind {
            HEADERS => status = status_of(&frame.payload),
            DATA => body.extend_from_slice(&frame.payload),
            kind => panic!("frame {kind} on stream {stream}"),
        }
    }
    (status, String::from_utf8(body).unwrap())
}

/// A field that is written out and remembered.
fn remembered(name: &str, value: &str) -> Vec<u8> {
    let mut field = literal(name, value);
    field[0] = 0x40;
    field
}

/// Fields that make a request malformed.
const BAD: [(&str, &[u8]); 12] = [
    ("x-a", b"a\x01b"),
    ("x-a", b"a\0b"),
    ("x-a", b"a\r\nb"),
    ("x-a", b"a\x7fb"),
    ("x-a", b" a"),
    ("X-A", b"1"),
    ("", b"1"),
    ("x\u{e4}", b"1"),
    (":test", b"1"),
    (":status", b"xyz"),
    ("connection", b"close"),
    ("content-length", b"four"),
];

#[test]
fn a_malformed_request_costs_its_own_stream_and_nothing_else() {
    let (house, arrivals, release) = holding();
    let mut peer = Peer::open(house.listening[0]);
    peer.get(1, "/held");
    arrivals.recv_timeout(DEADLINE).unwrap();
    let mut stream = 3;
    for (at, (name, value)) in BAD.iter().enumerate() {
        // What is remembered of a malformed request is remembered by both sides.
        let said = format!("number {at}");
        let mut block = request("GET", "/", &[]);
        block.extend(remembered("x", &said));
        let mut bad = literal(name, value);
        // Once written out, then remembered in this very state.
        bad[0] = if at % 2 == 0 { 0x40 } else { 0 };
        block.extend(bad);
        block.extend(remembered("y", "z"));
        // Whole, and in two pieces.
        let (first, second) = block.split_at(if at % 3 == 0 { block.len() - 2 } else { 0 });
        peer.send(HEADERS, END_STREAM, stream, first);
        peer.send(CONTINUATION, END_HEADERS, stream, second);
        assert_eq!(answer(&mut peer, stream).0, 400, "{name:?}: {value:?}");
        let mut block = request("GET", "/", &[]);
        block.push(if at % 2 == 0 { 0xc0 } else { 0xbf });
        peer.send(HEADERS, WHOLE, stream + 2, &block);
        let heard = answer(&mut peer, stream + 2);
        assert_eq!(heard, (200, said), "after {name:?}: {value:?}");
        stream += 4;
    }
    drop(release);
    assert_eq!(answer(&mut peer, 1), (200, "nothing".to_owned()));
}

#[test]
fn a_field_that_was_refused_is_refused_each_time_it_is_pointed_at() {
    let (house, ..) = holding();
    let mut peer = Peer::open(house.listening[0]);
    let mut bad = literal("x-a", b"a\x01b");
    bad[0] = 0x40;
    for stream in (1..20).step_by(4) {
        let mut block = request("GET", "/", &[]);
        match stream {
            1 => block.extend_from_slice(&bad),
            _ => block.push(0xbe),
        }
        peer.send(HEADERS, WHOLE, stream, &block);
        assert_eq!(answer(&mut peer, stream).0, 400);
        peer.get(stream + 2, "/");
        assert_eq!(answer(&mut peer, stream + 2).0, 200);
    }
}

#[test]
fn many_malformed_requests_do_not_wear_a_connection_out() {
    let (house, arrivals, release) = holding();
    let mut peer = Peer::open(house.listening[0]);
    peer.get(1, "/held");
    arrivals.recv_timeout(DEADLINE).unwrap();
    for stream in (3..2203).step_by(2) {
        let block = request("GET", "/", &[("connection", "close")]);
        peer.send(HEADERS, WHOLE, stream, &block);
        let (status, page) = answer(&mut peer, stream);
        assert_eq!(status, 400);
        peer.window(0, page.len() as u32);
    }
    drop(release);
    assert_eq!(answer(&mut peer, 1).0, 200);
}

#[test]
fn fields_beyond_all_bounds_cost_their_stream_alone() {
    let (house, arrivals, release) = holding();
    let mut peer = Peer::open(house.listening[0]);
    peer.get(1, "/held");
    arrivals.recv_timeout(DEADLINE).unwrap();
    // One of 4000 bytes, and then a byte for each time it is meant: 40 MB.
    let mut block = request("GET", "/", &[]);
    block.extend(remembered("x", &"y".repeat(4000)));
    block.extend([0xbe; 10_000]);
    peer.send(HEADERS, WHOLE, 3, &block);
    assert_eq!(answer(&mut peer, 3).0, 431);
    peer.get(5, "/");
    assert_eq!(answer(&mut peer, 5).0, 200);
    drop(release);
    assert_eq!(answer(&mut peer, 1).0, 200);
}

#[test]
fn a_head_request_that_is_malformed_is_answered_without_a_body() {
    let (house, ..) = holding();
    let mut peer = Peer::open(house.listening[0]);
    let block = request("HEAD", "/", &[("x", "a\x01b")]);
    peer.send(HEADERS, WHOLE, 1, &block);
    assert_eq!(answer(&mut peer, 1), (400, String::new()));
}

#[test]
fn a_malformed_request_says_what_is_wrong_with_it() {
    let (house, ..) = holding();
    let mut peer = Peer::open(house.listening[0]);
    // And its body, if it has one, is nobody's.
    let block = request("POST", "/", &[("X-A", "1")]);
    peer.send(HEADERS, END_HEADERS, 1, &block);
    peer.send(DATA, 0, 1, b"test");
    let (status, body) = answer(&mut peer, 1);
    assert_eq!(status, 400);
    assert!(body.contains("not one in lower case"), "{body}");
    peer.get(3, "/");
    assert_eq!(answer(&mut peer, 3).0, 200);
}

/// haproxy in front of `house`, which sends what it gets on over one connection with HTTP/2; `None` where it is not installed.
fn haproxy(house: &House) -> Option<(std::process::Child, SocketAddr)> {
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let file = house.directory.path().join("haproxy.cfg");
    let configuration = format!(
        "global\n  nbthread 1\n\
         defaults\n  mode http\n  timeout client 20s\n  timeout server 20s\n  timeout connect 20s\n\
         frontend clients\n  bind fd@{}\n  default_backend servers\n\
         backend servers\n  http-reuse always\n  server one {} proto h2\n",
        listener.as_raw_fd(),
        house.listening[0],
    );
    std::fs::write(&file, configuration).unwrap();
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let started = Command::new("haproxy")
        .env("PATH", path)
        .args(["-db", "-q", "-f"])
        .arg(&file)
        .stdin(Stdio::null())
        .spawn();
    match started {
        Ok(child) => Some((child, listener.local_addr().unwrap())),
        Err(error) => {
            let missing = format!("haproxy cannot be started ({error})");
            crate::untested::not_tested(&missing, "apt install haproxy");
            None
        }
    }
}

#[test]
fn behind_a_balancer_a_stranger_costs_nobody_their_response() {
    let (house, arrivals, release) = holding();
    let Some((mut balancer, address)) = haproxy(&house) else {
        return;
    };
    let ask = |path: &str, fields: &str| {
        let mut client = Talk::new(TcpStream::connect(address).unwrap());
        client.send(&format!("GET {path} HTTP/1.1\r\nhost: h\r\n{fields}\r\n"));
        client
    };
    let mut clients: Vec<_> = (0..8).map(|_| ask("/held", "")).collect();
    for _ in &clients {
        arrivals.recv_timeout(DEADLINE).unwrap();
    }
    let strange = ["x-a: a\x01b\r\n", "x-a: a\x7fb\r\n", "x-a: a\x08\r\n"];
    let strangers = strange.map(|fields| crate::house::status(&ask("/", fields).head()));
    drop(release);
    let heard = clients
        .iter_mut()
        .map(|client| crate::house::status(&client.head()));
    let heard: Vec<_> = heard.collect();
    balancer.kill().unwrap();
    balancer.wait().unwrap();
    assert_eq!(heard, [200; 8]);
    assert_eq!(strangers, [400; 3]);
}
