//! What a worker says before its answer reaches the client before the answer.

use crate::house::{GET, House, status};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";

#[test]
fn early_hints_arrive_before_the_answer_is_there() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    for _ in 0..2 {
        upstream.head();
        upstream.send(HINTS);
        client.expect(HINTS);
        upstream.send(HINTS);
        client.expect(HINTS);
        upstream.send("HTTP/1.1 102 Processing\r\nconnection: x-own\r\nx-own: 1\r\n\r\n");
        client.expect("HTTP/1.1 102 Processing\r\n\r\n");
        upstream.answer("answer");
        let head = client.head();
        assert_eq!(status(&head), 200);
        assert_eq!(client.content(&head), b"answer");
        client.send(GET);
    }
}

#[test]
fn hints_in_one_packet_with_the_answer_come_before_it() {
    let house = House::new();
    let worker = house.worker(1);
    // The answer to the first request may still be on its way when the second's hints are there.
    let mut client = house.ask(&GET.repeat(3));
    let mut upstream = worker.accept();
    for answer in ["1", "2", "3"] {
        upstream.head();
        upstream.send(&format!(
            "{HINTS}{HINTS}HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{answer}"
        ));
    }
    for answer in ["1", "2", "3"] {
        client.expect(HINTS);
        client.expect(HINTS);
        let head = client.head();
        assert_eq!(status(&head), 200);
        client.expect(answer);
    }
}

#[test]
fn a_client_that_knows_none_gets_none() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask("GET / HTTP/1.0\r\n\r\n");
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send(HINTS);
    upstream.answer("answer");
    let head = client.head();
    assert_eq!(status(&head), 200);
    assert_eq!(client.content(&head), b"answer");
}

#[test]
fn hints_go_with_continue_and_with_an_upgrade() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house
        .ask("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send(HINTS);
    client.expect(HINTS);
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(status(&client.head()), 100);
    client.send("body");
    upstream.expect("body");
    upstream.send(HINTS);
    client.expect(HINTS);
    upstream.answer("done");
    let head = client.head();
    assert_eq!(client.content(&head), b"done");
    client.send("GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: any\r\n\r\n");
    upstream.head();
    upstream.send(HINTS);
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: any\r\n\r\nHTTP/1.1 103 x\r\n\r\n");
    client.expect(HINTS);
    assert_eq!(status(&client.head()), 101);
    client.expect("HTTP/1.1 103 x\r\n\r\n");
}

#[test]
fn an_error_after_hints_is_an_answer_like_any_other() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send(HINTS);
    drop(upstream);
    client.expect(HINTS);
    let head = client.head();
    assert_eq!(status(&head), 502);
}

#[test]
fn a_body_that_looks_like_hints_is_a_body() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    let length = HINTS.len();
    upstream.send(&format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"
    ));
    client.head();
    upstream.send(HINTS);
    client.expect(HINTS);
    client.send(GET);
    upstream.head();
    upstream.answer("next");
    assert_eq!(status(&client.head()), 200);
    client.expect("next");
}

#[test]
fn hints_wait_for_the_end_of_the_answer_before() {
    const LARGE: usize = 4 << 20;
    let house = House::new();
    house.worker(1).serve(|talk| {
        for _ in 0..2 {
            talk.head();
            let body = "x".repeat(LARGE);
            talk.send(&format!(
                "{HINTS}HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n{body}"
            ));
        }
    });
    // Nothing is read before both are asked for, so that the first answer fills all buffers on its way.
    let mut client = house.ask(&GET.repeat(2));
    for _ in 0..2 {
        client.expect(HINTS);
        assert_eq!(status(&client.head()), 200);
        assert!(client.bytes(LARGE).iter().all(|&byte| byte == b'x'));
    }
}
