//! Requests and responses arrive as they were sent.

use crate::house::{GET, House, field, instance, status};
use tqserver::wire::ToManager;

#[test]
fn connections_are_reused_on_both_sides() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    for turn in ["one", "two", "three"] {
        upstream.head();
        upstream.answer(turn);
        let head = client.head();
        client.content(&head);
        client.send(GET);
    }
    upstream.head();
    assert!(worker.is_alone());
}

#[test]
fn a_connection_to_the_worker_serves_one_client_after_the_other() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    for _ in 0..3 {
        upstream.head();
        upstream.answer("x");
        let head = client.head();
        client.content(&head);
        client = house.ask(GET);
    }
    upstream.head();
    assert!(worker.is_alone());
}

#[test]
fn a_body_with_a_length_goes_both_ways() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask("POST /p?q=1 HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello");
    let mut upstream = worker.accept();
    let head = upstream.head();
    assert!(head.starts_with("POST /p?q=1 HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "content-length"), Some("5"));
    upstream.expect("hello");
    upstream.answer("world");
    let head = client.head();
    assert_eq!(field(&head, "content-length"), Some("5"));
    client.expect("world");
}

#[test]
fn a_chunked_body_goes_both_ways_piece_by_piece() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client =
        house.ask("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let mut upstream = worker.accept();
    let head = upstream.head();
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    upstream.expect("3\r\nabc\r\n");
    client.send("2\r\nde\r\n0\r\n\r\n");
    upstream.expect("2\r\nde\r\n0\r\n\r\n");
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
    let head = client.head();
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    client.expect("1\r\nx\r\n");
    upstream.send("0\r\n\r\n");
    client.expect("0\r\n\r\n");
}

#[test]
fn a_head_request_gets_the_length_and_no_body() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n");
    let mut upstream = worker.accept();
    assert!(upstream.head().starts_with("HEAD / "));
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n");
    let head = client.head();
    assert_eq!(field(&head, "content-length"), Some("1234"));
    client.send("HEAD /chunked HTTP/1.1\r\nhost: h\r\n\r\n");
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let head = client.head();
    assert_eq!(field(&head, "content-length"), None);
    client.send(GET);
    upstream.head();
    upstream.answer("next");
    let head = client.head();
    assert_eq!(client.content(&head), b"next");
}

#[test]
fn no_content_and_not_modified_have_no_body() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(status(&client.head()), 204);
    client.send(GET);
    upstream.head();
    upstream.send("HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n");
    let head = client.head();
    assert_eq!((status(&head), field(&head, "etag")), (304, Some("\"x\"")));
    client.send(GET);
    upstream.head();
}

#[test]
fn continue_comes_from_the_worker_and_not_before() {
    let house = House::new();
    let worker = house.worker(1);
    let expecting =
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
    let mut client = house.ask(expecting);
    let mut upstream = worker.accept();
    assert_eq!(field(&upstream.head(), "expect"), Some("100-continue"));
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(status(&client.head()), 100);
    client.send("body");
    upstream.expect("body");
    upstream.answer("done");
    let head = client.head();
    assert_eq!(
        (status(&head), client.content(&head)),
        (200, b"done".to_vec())
    );

    let mut client = house.ask(expecting);
    upstream.head();
    upstream.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(status(&client.head()), 413, "the body was asked for");
}

#[test]
fn a_worker_that_never_says_continue_gets_the_body_all_the_same() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house
        .ask("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    let mut upstream = worker.accept();
    upstream.head();
    assert_eq!(status(&client.head()), 100);
    client.send("body");
    upstream.expect("body");
}

#[test]
fn trailers_go_both_ways() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(
        "POST / HTTP/1.1\r\nhost: h\r\nte: trailers\r\nconnection: te\r\ntrailer: x-sum\r\n\
         transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\n\r\n",
    );
    let mut upstream = worker.accept();
    assert_eq!(field(&upstream.head(), "te"), Some("trailers"));
    upstream.expect("1\r\na\r\n0\r\nx-sum: 1\r\n\r\n");
    upstream.send(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n1\r\nb\r\n0\r\nx-sum: 2\r\n\r\n",
    );
    assert_eq!(field(&client.head(), "trailer"), Some("x-sum"));
    client.expect("1\r\nb\r\n0\r\nx-sum: 2\r\n\r\n");
    client.send(GET);
    upstream.head();
}

#[test]
fn an_old_client_gets_a_body_that_ends_with_the_connection() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask("GET / HTTP/1.0\r\n\r\n");
    let mut upstream = worker.accept();
    assert!(upstream.head().starts_with("GET / HTTP/1.1\r\n"));
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    assert_eq!(field(&head, "transfer-encoding"), None);
    assert_eq!(client.rest().unwrap(), b"ok");
}

#[test]
fn an_old_client_may_keep_its_connection() {
    let house = House::new();
    house.worker(1).echo("x");
    let mut client = house.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
        let head = client.head();
        assert_eq!(field(&head, "connection"), Some("keep-alive"));
        client.content(&head);
    }
}

#[test]
fn an_old_worker_answers_until_it_closes() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.0 200 OK\r\n\r\nold");
    drop(upstream);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    client.expect("3\r\nold\r\n0\r\n\r\n");
    client.send(GET);
    worker.accept().head();
}

#[test]
fn requests_in_one_packet_are_answered_in_order() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(&format!("{GET}{}", GET.replace("GET / ", "GET /2 ")));
    let mut upstream = worker.accept();
    for answer in ["1", "2"] {
        upstream.head();
        upstream.answer(answer);
        let head = client.head();
        assert_eq!(client.content(&head), answer.as_bytes());
    }
}

#[test]
fn a_body_is_not_waited_for_before_the_answer() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nhalf");
    let mut upstream = worker.accept();
    upstream.head();
    upstream.expect("half");
    upstream.answer("enough");
    let head = client.head();
    assert_eq!(client.content(&head), b"enough");
    upstream.closes();
}

#[test]
fn a_client_that_vanishes_takes_its_request_back() {
    let mut house = House::new();
    let worker = house.worker(1);
    let client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    drop(client);
    upstream.closes();

    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
    client.head();
    drop(client);
    upstream.closes();

    let client = house.ask("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nhalf");
    let mut upstream = worker.accept();
    upstream.head();
    upstream.expect("half");
    drop(client);
    upstream.closes();
    house.publish(|table| {
        table.routes.clear();
        table.draining = vec![instance(1)];
    });
    assert_eq!(house.hear(), ToManager::Drained(instance(1)));
}
