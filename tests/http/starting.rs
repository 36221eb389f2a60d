//! A route whose first generation is on its way.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use crate::house::{DEADLINE, GET, House, SHORT, Talk, field, status};
use tqserver::route::{Maintenance, RouteTable, Target};

fn starts(awaited: Option<Duration>) -> impl FnOnce(&mut RouteTable) {
    move |table| {
        table.routes[0].target = Target::Unavailable {
            reason: "it is starting".to_owned(),
            retry_after: Some(Duration::from_secs(1)),
            awaited,
        };
    }
}

/// Whether nothing has come yet.
fn waits(client: &Talk<TcpStream>) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let looked = client.stream.peek(&mut [0]);
    client.stream.set_nonblocking(false).unwrap();
    matches!(looked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn every_client_waits_until_it_serves() {
    let mut house = House::with(starts(Some(DEADLINE)));
    let worker = house.worker(1);
    let mut clients = [
        GET,
        "HEAD /health-check HTTP/1.0\r\nuser-agent: ELB-HealthChecker/2.0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ]
    .map(|request| house.ask(request));
    // Whoever asks after them is answered: they have come.
    assert_eq!(status(&house.get("/health", "").0), 200);
    house.publish(|table| table.routes[0].access_log = false);
    assert!(clients.iter().all(waits));
    assert!(worker.is_alone());
    let target = house.serving(1);
    house.publish(|table| table.routes[0].target = target);
    for _ in 0..clients.len() {
        let mut talk = worker.accept();
        let head = talk.head();
        if head.starts_with("PUT") {
            // Nothing of the body was asked for while there was nobody to take it.
            talk.send("HTTP/1.1 100 Continue\r\n\r\n");
            clients[2].expect("HTTP/1.1 100 Continue\r\n\r\n");
            clients[2].send("body");
            talk.expect("body");
        }
        talk.send("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(status(&client.head()), 204);
    }
}

#[test]
fn nobody_waits_longer_than_it_may_take_or_a_request_may() {
    let house = House::with(starts(Some(SHORT)));
    let (head, _) = house.get("/", "");
    assert_eq!(
        (status(&head), field(&head, "retry-after")),
        (503, Some("1"))
    );
    let house = House::with(|table| {
        starts(Some(DEADLINE))(table);
        table.routes[0].flow.request_timeout = SHORT;
    });
    assert_eq!(status(&house.get("/", "").0), 503);
}

#[test]
fn nobody_waits_for_what_has_failed_or_is_in_maintenance() {
    let mut house = House::with(starts(Some(DEADLINE)));
    let mut waiting = house.ask(GET);
    assert_eq!(status(&house.get("/health", "").0), 200);
    assert!(waits(&waiting));
    house.publish(starts(None));
    assert_eq!(status(&waiting.head()), 503, "it hears of it at once");
    assert_eq!(status(&house.get("/", "").0), 503);
    house.publish(|table| {
        starts(Some(DEADLINE))(table);
        table.routes[0].halt.maintenance = Some(Maintenance::default());
    });
    assert_eq!(status(&house.get("/", "").0), 503);
}

#[test]
fn a_proxy_that_stops_does_not_wait_for_it_for_ever() {
    let mut house = House::with(|table| {
        starts(Some(DEADLINE))(table);
        table.front.grace = SHORT;
    });
    let mut waiting = house.ask(GET);
    assert_eq!(status(&house.get("/health", "").0), 200);
    house.shut_down();
    assert_eq!(status(&waiting.head()), 503);
    house.ended();
}
