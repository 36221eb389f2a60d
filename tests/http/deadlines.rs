//! Every wait ends. The limit under test is short; all others are far away, so what happens is that limit's doing.

use std::io::{ErrorKind, Write};

use crate::house::{GET, House, SHORT, status};

#[test]
fn a_worker_that_does_not_answer_is_a_gateway_timeout() {
    let house = House::with(|table| table.routes[0].timeouts.read = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    let head = client.head();
    assert_eq!(status(&head), 504);
    upstream.closes();
    client.content(&head);
    client.send(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.answer("now");
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn a_long_upload_is_not_the_workers_silence() {
    let house = House::with(|table| table.routes[0].timeouts.read = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\na");
    let mut upstream = worker.accept();
    upstream.head();
    // Another request meets the limit, so it has passed for this one too.
    let mut other = house.ask(GET);
    let mut waiting = worker.accept();
    waiting.head();
    assert_eq!(status(&other.head()), 504);
    client.send("b");
    upstream.expect("ab");
    upstream.answer("x");
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn a_worker_that_falls_silent_in_its_body_is_cut_off() {
    let house = House::with(|table| table.routes[0].timeouts.read = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    client.head();
    client.expect("half");
    client.closes();
    upstream.closes();
}

#[test]
fn a_worker_that_does_not_take_a_body_is_a_gateway_timeout() {
    let house = House::with(|table| table.routes[0].timeouts.write = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999\r\n\r\n");
    let mut upstream = worker.accept();
    upstream.head();
    let piece = vec![b'x'; 64 << 10];
    client.stream.set_write_timeout(Some(SHORT * 3)).unwrap();
    // Until the buffers on the way are full, or the proxy has given up and hung up.
    while client.stream.write(&piece).is_ok_and(|sent| sent > 0) {}
    assert_eq!(status(&client.head()), 504);
    assert!(upstream.rest().unwrap().len() < 99_999_999);
}

#[test]
fn a_head_that_does_not_end_is_a_request_timeout() {
    let house = House::with(|table| table.front.read_timeout = SHORT);
    house.worker(1).echo("x");
    let mut client = house.ask("GET / HTTP/1.1\r\nhost:");
    assert_eq!(status(&client.head()), 408);
    client.closes();
    // The second request of a connection, too.
    let mut client = house.ask(GET);
    let head = client.head();
    client.content(&head);
    client.send("GET / HT");
    assert_eq!(status(&client.head()), 408);
    client.closes();
}

#[test]
fn drops_in_time_do_not_make_a_slow_head_fast() {
    let house = House::with(|table| table.front.read_timeout = SHORT);
    let mut client = house.ask("GET / HTTP/1.1\r\n");
    client.stream.set_nonblocking(true).unwrap();
    let began = std::time::Instant::now();
    // A byte whenever there is nothing to read: the clock is for the whole head.
    let refused = loop {
        let mut buffer = [0; 128];
        match std::io::Read::read(&mut client.stream, &mut buffer) {
            Ok(read) => break String::from_utf8_lossy(&buffer[..read]).into_owned(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = client.stream.write(b"x: 1\r\n");
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
        assert!(began.elapsed() < crate::house::DEADLINE);
    };
    let status = refused.split(' ').nth(1).unwrap();
    assert!(status == "408" || status == "431", "{refused}");
}

#[test]
fn a_body_that_stops_coming_is_a_request_timeout() {
    let house = House::with(|table| table.front.read_timeout = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nhalf");
    let mut upstream = worker.accept();
    upstream.head();
    assert_eq!(status(&client.head()), 408);
    upstream.expect("half");
    upstream.closes();
    client.rest().unwrap();
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    let house = House::with(|table| table.front.write_timeout = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n");
    client.head();
    let piece = vec![b'x'; 64 << 10];
    let error = loop {
        if let Err(error) = upstream.stream.write(&piece) {
            break error;
        }
    };
    assert!(matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    ));
}

#[test]
fn an_unused_connection_of_a_client_is_closed_without_a_word() {
    let house = House::with(|table| table.front.idle_timeout = SHORT);
    house.worker(1).echo("x");
    let mut client = house.ask(GET);
    let head = client.head();
    client.content(&head);
    client.closes();
    // Also after an answer that needed no worker.
    let mut client = house.ask("GET /health HTTP/1.1\r\nhost: h\r\n\r\n");
    let head = client.head();
    client.content(&head);
    client.closes();
}

#[test]
fn an_unused_connection_to_a_worker_is_closed() {
    let house = House::with(|table| table.routes[0].timeouts.idle = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.answer("x");
    client.head();
    upstream.closes();
}

#[test]
fn a_client_that_never_asks_is_closed_without_a_word() {
    let house = House::with(|table| table.front.read_timeout = SHORT);
    let mut client = house.client();
    client.closes();
}

/// Writes a byte of a body whenever there is nothing to read, until there is or `enough` says so. No pause is as long as a limit.
fn drip(client: &mut crate::house::Talk<std::net::TcpStream>, mut enough: impl FnMut() -> bool) {
    client.stream.set_nonblocking(true).unwrap();
    let began = std::time::Instant::now();
    let mut buffer = [0; 1];
    while !enough() {
        match client.stream.peek(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = client.stream.write(b"x");
                std::thread::yield_now();
            }
            Ok(_) | Err(_) => break,
        }
        assert!(began.elapsed() < crate::house::DEADLINE);
    }
    client.stream.set_nonblocking(false).unwrap();
}

/// The head of a body that needs more bytes than anybody can drip.
const LONG_BODY: &str = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 999999999999\r\n\r\n";

#[test]
fn drops_in_time_do_not_make_a_slow_body_fast() {
    let house = House::with(|table| {
        table.front.read_timeout = SHORT;
        table.front.min_read_rate = u32::MAX;
    });
    house.worker(1).serve(|talk| {
        talk.head();
        let _ = talk.rest();
    });
    let mut client = house.ask(LONG_BODY);
    drip(&mut client, || false);
    assert_eq!(status(&client.head()), 408);
}

#[test]
fn a_body_that_keeps_its_pace_may_take_longer_than_the_timeout() {
    let house = House::with(|table| {
        table.front.read_timeout = SHORT;
        table.front.min_read_rate = 1;
    });
    let worker = house.worker(1);
    worker.serve(|talk| {
        talk.head();
        while talk.bytes(1) != b"z" {}
        talk.answer("x");
    });
    let mut client = house.ask("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
    let began = std::time::Instant::now();
    client.send("ffffffff\r\n");
    drip(&mut client, || began.elapsed() > SHORT * 3);
    client.send("z");
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn sips_in_time_do_not_make_a_slow_reader_fast() {
    let house = House::with(|table| {
        table.front.write_timeout = SHORT;
        table.front.min_write_rate = u32::MAX;
    });
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n");
    client.head();
    let (done, is_done) = std::sync::mpsc::channel();
    let sips = std::thread::spawn(move || {
        let mut sip = [0; 1];
        while is_done.try_recv().is_err() {
            if std::io::Read::read_exact(&mut client.stream, &mut sip).is_err() {
                break;
            }
        }
    });
    let piece = vec![b'x'; 64 << 10];
    while upstream.stream.write(&piece).is_ok() {}
    let _ = done.send(());
    sips.join().unwrap();
}
