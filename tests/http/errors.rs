//! What goes wrong has a status, a sentence, and leaves the connection in a state both sides agree on.

use std::os::unix::net::UnixListener;

use crate::house::{GET, House, field, status};
use tqserver::route::{RoutePath, Target};

#[test]
fn malformed_requests_are_refused() {
    let house = House::new();
    let worker = house.worker(1);
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost h\r\n\r\n", 400),
        ("GET /\u{1} HTTP/1.1\r\nhost: h\r\n\r\n", 400),
        ("GET /a/../b HTTP/1.1\r\nhost: h\r\n\r\n", 400),
        ("GET /a/%2e%2E/b HTTP/1.1\r\nhost: h\r\n\r\n", 400),
        ("GET /%00 HTTP/1.1\r\nhost: h\r\n\r\n", 400),
        ("GET ftp://h/ HTTP/1.1\r\nhost: h\r\n\r\n", 400),
        ("GET http://user@h/ HTTP/1.1\r\nhost: h\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nhost: h\r\n\r\n", 400),
        ("CONNECT h:443 HTTP/1.1\r\nhost: h\r\n\r\n", 501),
        (
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip\r\n\r\n",
            400,
        ),
    ] {
        let mut client = house.ask(request);
        assert_eq!(status(&client.head()), expected, "{request:?}");
        client.rest().unwrap();
        assert!(worker.is_alone(), "{request:?} reached the worker");
    }
}

#[test]
fn lengths_and_chunks_can_not_be_mixed_to_smuggle_a_request() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 40\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nhost: h\r\n\r\n",
    );
    let head = client.head();
    assert_eq!(status(&head), 400);
    client.content(&head);
    client.closes();
    assert!(worker.is_alone());
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let house = House::with(|table| table.front.max_header_bytes = 4096);
    let long = "x".repeat(5000);
    let mut client = house.ask(&format!("GET / HTTP/1.1\r\nhost: h\r\nx: {long}\r\n\r\n"));
    assert_eq!(status(&client.head()), 431);
    // One that never ends is refused as well.
    let house = House::with(|table| table.front.max_header_bytes = 4096);
    let mut client = house.ask(&format!(
        "GET / HTTP/1.1\r\nhost: h\r\nx: {}",
        "x".repeat(17000)
    ));
    assert_eq!(status(&client.head()), 431);
}

#[test]
fn too_many_fields_are_refused() {
    for allowed in [50, 100, 200] {
        let house = House::with(|table| table.front.max_headers = allowed);
        house.worker(1).echo("x");
        let fields = "x: 1\r\n".repeat(allowed - 1);
        assert_eq!(status(&house.get("/", &fields).0), 200, "{allowed}");
        let fields = "x: 1\r\n".repeat(allowed);
        assert_eq!(status(&house.get("/", &fields).0), 431, "{allowed}");
    }
}

#[test]
fn a_target_that_is_too_long_is_refused() {
    let house = House::with(|table| table.front.max_header_bytes = 256 << 10);
    let (head, _) = house.get(&format!("/{}", "x".repeat(66 << 10)), "");
    assert_eq!(status(&head), 414);
}

#[test]
fn a_worker_that_can_not_be_reached_is_unavailable() {
    let house = House::new();
    let (head, body) = house.get("/", "accept: application/json\r\n");
    assert_eq!(status(&head), 503);
    assert!(field(&head, "retry-after").is_some());
    let page: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(page["status"], 503);
    assert_eq!(page["error"], "Service Unavailable");
    assert_eq!(
        page["detail"],
        "This service is not available at the moment. Please try again later."
    );
    assert_eq!(page["request_id"], field(&head, "x-request-id").unwrap());
}

#[test]
fn a_worker_whose_socket_comes_a_moment_later_is_reached() {
    let house = House::new();
    let mut client = house.ask(GET);
    house.worker(1).echo("x");
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn a_worker_that_breaks_off_is_a_bad_gateway() {
    let house = House::new();
    let worker = house.worker(1);
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nconte",
        "nonsense\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
    ] {
        let mut client = house.ask(GET);
        let mut upstream = worker.accept();
        upstream.head();
        upstream.send(answer);
        drop(upstream);
        let head = client.head();
        assert_eq!(status(&head), 502, "{answer:?}");
        client.content(&head);
        client.send(GET);
        let mut upstream = worker.accept();
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(
            status(&client.head()),
            200,
            "the client's connection goes on"
        );
    }
}

#[test]
fn a_body_that_is_not_whole_can_be_told_from_one_that_is() {
    let house = House::new();
    let worker = house.worker(1);
    for (version, fields, body) in [
        ("1.1", "content-length: 10", "half"),
        ("1.1", "transfer-encoding: chunked", "4\r\nhalf\r\n"),
        ("1.0", "transfer-encoding: chunked", "4\r\nhalf\r\n"),
    ] {
        let mut client = house.ask(&format!("GET / HTTP/{version}\r\nhost: h\r\n\r\n"));
        let mut upstream = worker.accept();
        upstream.head();
        upstream.send(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}"));
        let head = client.head();
        assert_eq!(status(&head), 200);
        if version == "1.0" {
            client.expect("half");
            drop(upstream);
            assert!(client.rest().is_err(), "a reset is the only way to say so");
        } else {
            client.expect(body);
            drop(upstream);
            assert_eq!(client.rest().unwrap(), b"");
        }
    }
}

#[test]
fn a_path_without_a_route_is_not_found() {
    let house = House::with(|table| table.routes[0].path = RoutePath::parse("/api").unwrap());
    let (head, body) = house.get("/apix", "");
    assert_eq!(status(&head), 404);
    assert_eq!(
        field(&head, "content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains(field(&head, "x-request-id").unwrap())
    );
}

#[test]
fn a_worker_that_is_unavailable_says_when_to_come_back() {
    let house = House::with(|table| {
        table.routes[0].target = Target::Unavailable {
            reason: "it exited with <1>".to_owned(),
            retry_after: Some(std::time::Duration::from_millis(2500)),
            awaited: None,
        }
    });
    let (head, body) = house.get("/", "");
    assert_eq!(
        (status(&head), field(&head, "retry-after")),
        (503, Some("3"))
    );
    let body = String::from_utf8(body).unwrap();
    assert!(
        body.contains(
            "<p>This service is not available at the moment. Please try again later.</p>"
        ),
        "{body}"
    );
}

#[test]
fn a_full_backlog_is_waited_for() {
    let house = House::new();
    let path = house.socket(1);
    let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = UnixListener::from(socket);
    let blocker = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut client = house.ask(GET);
    let (first, _) = listener.accept().unwrap();
    drop((first, blocker));
    let (second, _) = listener.accept().unwrap();
    let mut upstream = crate::house::Talk::new(second);
    upstream.head();
    upstream.answer("x");
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn an_answer_overtakes_a_body_nobody_reads() {
    // More than the socket buffers hold: who answers and hangs up would reset the connection, answer and all.
    let body = "x".repeat(3 << 20);
    let length = body.len();
    let request = format!("POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{body}");
    let narrow = |house: &House| {
        let client = house.client();
        rustix::net::sockopt::set_socket_send_buffer_size(&client.stream, 16 << 10).unwrap();
        client
    };
    let house = House::with(|table| table.routes[0].path = RoutePath::parse("/api").unwrap());
    let mut client = narrow(&house);
    client.send(&request);
    assert_eq!(status(&client.head()), 404);
    let house = House::new();
    let worker = house.worker(1);
    let answering = std::thread::spawn(move || {
        let mut upstream = worker.accept();
        upstream.head();
        upstream.send(
            "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        );
        upstream.rest().unwrap_or_default();
    });
    let mut client = narrow(&house);
    client.send(&request);
    assert_eq!(status(&client.head()), 413);
    answering.join().unwrap();
}

#[test]
fn what_came_before_a_break_is_passed_on() {
    let house = House::new();
    let worker = house.worker(1);
    for (fields, body) in [
        ("content-length: 10", "half"),
        ("transfer-encoding: chunked", "4\r\nhalf\r\n"),
    ] {
        let mut client = house.ask(GET);
        let mut upstream = worker.accept();
        upstream.head();
        upstream.send(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}"));
        drop(upstream);
        assert_eq!(status(&client.head()), 200);
        assert_eq!(client.rest().unwrap(), body.as_bytes());
    }
}
