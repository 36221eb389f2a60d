//! Long and large: upgrades, event streams, bodies that do not fit into memory.

use std::io::{ErrorKind, Write};
use std::thread;

use crate::house::{GET, House, SHORT, Stream, Talk, field, status};

/// More than any socket buffers, and more than the proxy may hold.
const BIG: usize = 64 << 20;

/// What may be under way between two ends that are stuck: the kernel's buffers and ours.
const UNDER_WAY: usize = 24 << 20;

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let mut house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(
        "GET /chat HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, Upgrade\r\nupgrade: any/1\r\n\r\nearly",
    );
    let mut upstream = worker.accept();
    let head = upstream.head();
    assert_eq!(field(&head, "upgrade"), Some("any/1"));
    assert_eq!(field(&head, "connection"), Some("upgrade"));
    upstream.send(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: any/1\r\n\r\nhi",
    );
    let head = client.head();
    assert_eq!(
        (status(&head), field(&head, "upgrade")),
        (101, Some("any/1"))
    );
    client.expect("hi");
    upstream.expect("early");
    client.send("\0\u{1}ping");
    upstream.expect("\0\u{1}ping");
    upstream.send("pong");
    client.expect("pong");
    assert_eq!(house.count(1), (1, 1), "a tunnel is in flight");
    client.stream.half_close();
    assert_eq!(upstream.rest().unwrap(), b"");
    upstream.stream.write_all(b"last").unwrap();
    drop(upstream);
    assert_eq!(client.rest().unwrap(), b"last");
}

#[test]
fn an_upgrade_the_worker_declines_is_a_plain_answer() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client =
        house.ask("GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n");
    let mut upstream = worker.accept();
    upstream.head();
    upstream.answer("no");
    let head = client.head();
    assert_eq!(
        (status(&head), client.content(&head)),
        (200, b"no".to_vec())
    );
    client.send(GET);
    upstream.head();
    upstream.answer("yes");
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn an_upgrade_nobody_asked_for_is_an_error() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
    assert_eq!(status(&client.head()), 502);
}

#[test]
fn a_silent_tunnel_is_closed() {
    let house = House::with(|table| table.routes[0].timeouts.idle = SHORT);
    let worker = house.worker(1);
    let mut client =
        house.ask("GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
    client.head();
    client.closes();
    upstream.closes();
}

#[test]
fn events_arrive_one_by_one_and_silence_between_them_is_allowed() {
    // The limit for other silences is over long before the second event.
    let house = House::with(|table| table.routes[0].timeouts.read = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    client.head();
    upstream.send("9\r\ndata: 1\n\n\r\n");
    client.expect("9\r\ndata: 1\n\n\r\n");
    // Another request meets the limit, so it has passed.
    let mut other = house.ask(GET);
    let mut waiting = worker.accept();
    waiting.head();
    assert_eq!(status(&other.head()), 504);
    upstream.send("9\r\ndata: 2\n\n\r\n");
    client.expect("9\r\ndata: 2\n\n\r\n");
}

/// Writes until nothing is taken any more; returns how much was.
fn fill<S: Stream>(stream: &mut S) -> usize {
    let piece = vec![b'x'; 64 << 10];
    let mut written = 0;
    while written < BIG {
        match stream.write(&piece[..piece.len().min(BIG - written)]) {
            Ok(more) => written += more,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    written
}

fn drain<S: Stream + Send + 'static>(
    mut talk: Talk<S>,
    length: usize,
) -> thread::JoinHandle<Talk<S>> {
    thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        let mut left = length;
        while left > 0 {
            let piece = buffer.len().min(left);
            let read = talk.stream.read(&mut buffer[..piece]).unwrap();
            assert!(read > 0, "closed with {left} bytes left");
            assert!(buffer[..read].iter().all(|&byte| byte == b'x'));
            left -= read;
        }
        talk
    })
}

#[test]
fn a_client_that_does_not_read_stops_the_worker_and_not_the_memory() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n"));
    client.head();
    upstream.stream.set_write_timeout(Some(SHORT * 3)).unwrap();
    let written = fill(&mut upstream.stream);
    assert!(written < UNDER_WAY, "{written} bytes were taken");
    let client = drain(client, BIG);
    upstream.stream.set_deadline();
    upstream
        .stream
        .write_all(&vec![b'x'; BIG - written])
        .unwrap();
    client.join().unwrap();
}

#[test]
fn a_worker_that_does_not_read_stops_the_client_and_not_the_memory() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(&format!(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {BIG}\r\n\r\n"
    ));
    let mut upstream = worker.accept();
    upstream.head();
    client.stream.set_write_timeout(Some(SHORT * 3)).unwrap();
    let written = fill(&mut client.stream);
    assert!(written < UNDER_WAY, "{written} bytes were taken");
    let upstream = drain(upstream, BIG);
    client.stream.set_deadline();
    client.stream.write_all(&vec![b'x'; BIG - written]).unwrap();
    upstream.join().unwrap().answer("all");
    let head = client.head();
    assert_eq!(client.content(&head), b"all");
}

#[test]
fn a_client_that_does_not_read_yet_can_go_on_sending() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(&format!(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {BIG}\r\n\r\n"
    ));
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n"));
    client.head();
    upstream.stream.set_write_timeout(Some(SHORT * 3)).unwrap();
    let written = fill(&mut upstream.stream);
    assert!(written < UNDER_WAY, "{written} bytes were taken");
    upstream.stream.set_deadline();
    let upstream = drain(upstream, BIG);
    client.stream.write_all(&vec![b'x'; BIG]).unwrap();
    let mut upstream = upstream.join().unwrap();
    let client = drain(client, BIG);
    let rest = vec![b'x'; BIG - written];
    upstream.stream.write_all(&rest).unwrap();
    let mut client = client.join().unwrap();
    // Both have said all they had to say: the connection is used again.
    client.send(GET);
    upstream.head();
}

#[test]
fn a_connection_on_which_a_head_is_still_on_its_way_is_not_used_again() {
    let house = House::with(|table| table.front.max_header_bytes = BIG);
    let worker = house.worker(1);
    let long = "x".repeat(1 << 20);
    let request = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {long}\r\n\r\n");
    let mut client = house.ask(&request);
    let mut upstream = worker.accept();
    // It has seen enough.
    upstream.send("HTTP/1.1 431 Too Large\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
    client.head();
    client.expect("1\r\nx\r\n");
    upstream.send("0\r\n\r\n");
    client.expect("0\r\n\r\n");
    client.send(GET);
    worker.accept().head();
}
