//! What is sent twice, and what never is.

use crate::house::{GET, House, SHORT, Talk, Worker, status};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

/// A client and a connection to the worker that was used once.
fn warm(house: &House, worker: &Worker) -> (Talk<TcpStream>, Talk<UnixStream>) {
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.answer("x");
    let head = client.head();
    client.content(&head);
    (client, upstream)
}

#[test]
fn a_get_on_a_connection_the_worker_just_closed_is_sent_again() {
    let house = House::new();
    let worker = house.worker(1);
    let (mut client, mut upstream) = warm(&house, &worker);
    client.send(GET);
    // It has read the request and dies of it: as far as the proxy knows, the two crossed.
    upstream.head();
    drop(upstream);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.answer("again");
    let head = client.head();
    assert_eq!(
        (status(&head), client.content(&head)),
        (200, b"again".to_vec())
    );
}

#[test]
fn it_is_sent_again_once() {
    let house = House::new();
    let worker = house.worker(1);
    let (mut client, mut upstream) = warm(&house, &worker);
    client.send(GET);
    upstream.head();
    drop(upstream);
    worker.accept().head();
    assert_eq!(status(&client.head()), 502);
    assert!(worker.is_alone());
}

#[test]
fn a_post_is_never_sent_again() {
    for body in ["", "body"] {
        let house = House::new();
        let worker = house.worker(1);
        let (mut client, mut upstream) = warm(&house, &worker);
        let length = body.len();
        client.send(&format!(
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        upstream.head();
        drop(upstream);
        assert_eq!(status(&client.head()), 502);
        assert!(worker.is_alone());
    }
}

#[test]
fn a_put_with_a_body_is_never_sent_again() {
    let house = House::new();
    let worker = house.worker(1);
    let (mut client, mut upstream) = warm(&house, &worker);
    client.send("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\nx");
    upstream.head();
    drop(upstream);
    assert_eq!(status(&client.head()), 502);
    assert!(worker.is_alone());
}

#[test]
fn what_was_answered_in_part_is_never_sent_again() {
    let house = House::new();
    let worker = house.worker(1);
    let (mut client, mut upstream) = warm(&house, &worker);
    client.send(GET);
    upstream.head();
    upstream.send("HTTP/1.1 2");
    drop(upstream);
    assert_eq!(status(&client.head()), 502);
    assert!(worker.is_alone());
}

#[test]
fn a_fresh_connection_that_breaks_is_not_tried_again() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    worker.accept().head();
    assert_eq!(status(&client.head()), 502);
    assert!(worker.is_alone());
}

#[test]
fn a_post_after_the_worker_closed_goes_to_a_fresh_connection() {
    let house = House::new();
    let worker = house.worker(1);
    let (mut client, upstream) = warm(&house, &worker);
    drop(upstream);
    // The proxy's thread hears of the close before it answers this: both are events of the same loop.
    house.get("/health", "");
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody");
    let mut upstream = worker.accept();
    upstream.head();
    upstream.expect("body");
    upstream.answer("ok");
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn a_fresh_connection_that_breaks_is_tried_again_as_often_as_the_route_says() {
    let house = House::with(|table| table.routes[0].flow.retries = 2);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    worker.accept().head();
    worker.accept().head();
    let mut upstream = worker.accept();
    upstream.head();
    upstream.answer("third");
    let head = client.head();
    assert_eq!(client.content(&head), b"third");
    let mut client = house.ask("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    // On the connection that is there, which costs no retry; then on three fresh ones.
    upstream.head();
    drop(upstream);
    for _ in 0..3 {
        worker.accept().head();
    }
    assert_eq!(status(&client.head()), 502);
    assert!(worker.is_alone());
}

#[test]
fn what_is_not_to_be_sent_again_is_not_however_many_retries_there_are() {
    for request in [
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\nx",
    ] {
        let house = House::with(|table| table.routes[0].flow.retries = 5);
        let worker = house.worker(1);
        let mut client = house.ask(request);
        worker.accept().head();
        assert_eq!(status(&client.head()), 502);
        assert!(worker.is_alone());
    }
    let house = House::with(|table| table.routes[0].flow.retries = 5);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 2");
    drop(upstream);
    assert_eq!(status(&client.head()), 502);
    assert!(worker.is_alone());
}

#[test]
fn all_tries_together_have_the_time_of_one() {
    let house = House::with(|table| {
        table.routes[0].flow.retries = 5;
        table.routes[0].timeouts.read = SHORT;
    });
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let began = std::time::Instant::now();
    worker.accept().head();
    // The second try is not answered either, and not broken off.
    let mut upstream = worker.accept();
    upstream.head();
    assert_eq!(status(&client.head()), 504);
    assert!(began.elapsed() >= SHORT);
    upstream.closes();
    assert!(worker.is_alone());
}

#[test]
fn a_connection_that_the_worker_closes_unused_is_closed_at_once() {
    let house = House::new();
    let worker = house.worker(1);
    let (_client, mut upstream) = warm(&house, &worker);
    upstream.stream.shutdown(Shutdown::Write).unwrap();
    upstream.closes();
}

#[test]
fn a_get_of_which_the_worker_took_a_part_is_sent_again_as_a_whole() {
    let house = House::with(|table| table.front.max_header_bytes = 4 << 20);
    let worker = house.worker(1);
    let (mut client, mut upstream) = warm(&house, &worker);
    let long = "x".repeat(1 << 20);
    client.send(&format!("GET / HTTP/1.1\r\nhost: h\r\nx: {long}\r\n\r\n"));
    upstream.bytes(1000);
    drop(upstream);
    let mut upstream = worker.accept();
    assert!(upstream.head().contains(&long));
    upstream.answer("again");
    assert_eq!(status(&client.head()), 200);
}
