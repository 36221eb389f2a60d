//! A proxy that stops, and the one that comes after it.

use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crate::house::{DEADLINE, GET, House, Kept, Talk, field, listen, options, status};
use tqserver::proxy::Link;
use tqserver::route::Target;

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: h\r\n\r\n";

/// One that was answered once and may ask again.
fn idle(house: &House) -> Talk<TcpStream> {
    let mut client = house.ask(HEALTH);
    let head = client.head();
    assert_eq!(field(&head, "connection"), None);
    client.content(&head);
    client
}

/// Asks until it is told that this was the last answer. The proxy's threads hear of the end each in their turn, so that may take more
/// than one; but none is lost.
fn asks_a_last_time(mut client: Talk<TcpStream>) {
    loop {
        client.send(HEALTH);
        let head = client.head();
        assert_eq!(status(&head), 200);
        client.content(&head);
        if field(&head, "connection") == Some("close") {
            return client.closes();
        }
    }
}

#[test]
fn the_next_request_on_an_idle_connection_is_answered_and_is_the_last() {
    let mut house = House::new();
    let clients = [idle(&house), idle(&house)];
    house.shut_down();
    clients.into_iter().for_each(asks_a_last_time);
    house.ended();
}

#[test]
fn a_connection_that_was_accepted_is_served_although_its_request_comes_later() {
    let mut house = House::new();
    let silent = house.client();
    // Accepted after the other: they queue in the order they came.
    let other = idle(&house);
    house.shut_down();
    asks_a_last_time(silent);
    drop(other);
    house.ended();
}

#[test]
fn a_connection_that_stays_silent_is_closed_soon() {
    let mut house = House::new();
    let mut clients = [house.client(), idle(&house)];
    let began = Instant::now();
    house.shut_down();
    clients.iter_mut().for_each(Talk::closes);
    house.ended();
    assert!(began.elapsed() < DEADLINE / 4, "{:?}", began.elapsed());
}

#[test]
fn an_answer_under_way_ends_and_the_next_on_its_connection_is_the_last() {
    let mut house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    // Its head is with the client before anybody thinks of stopping.
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nla");
    let head = client.head();
    client.expect("la");
    assert_eq!(field(&head, "connection"), None);
    house.shut_down();
    upstream.send("st");
    client.expect("st");
    asks_a_last_time(client);
    house.ended();
}

#[test]
fn an_answer_that_takes_long_lets_nobody_else_wait_for_the_next_proxy() {
    let (mut house, _) = with_a_store();
    house.publish(|_| {});
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    house.shut_down();
    // Refused by nobody, and served by this one while the long answer is still to come.
    for _ in 0..3 {
        let mut other = house.ask(HEALTH);
        let head = other.head();
        assert_eq!(status(&head), 200);
    }
    asks_a_last_time(house.client());
    upstream.answer("long");
    let head = client.head();
    assert_eq!(client.content(&head), b"long");
    assert_eq!(field(&head, "connection"), Some("close"));
    client.closes();
    house.ended();
}

#[test]
fn the_grace_of_the_table_bounds_it_all() {
    let mut house = House::with(|table| table.front.grace = Duration::from_millis(100));
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    house.shut_down();
    house.ended();
    client.closes();
}

/// What a proxy leaves that had a table with a route to generation 1 of `w`, reached at the socket of a house that goes on.
fn left_behind(house: &mut House, store: &Kept) -> Vec<u8> {
    house.publish(|table| table.front.listen = vec![listen("127.0.0.3:0")]);
    store.tables.lock().unwrap().last().unwrap().clone()
}

fn with_a_store() -> (House, Kept) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let store = Kept::default();
    let mut options = options(1, Link::Stream(theirs));
    options.store = Some(Box::new(store.clone()));
    (House::optioned(options, move || ours), store)
}

#[test]
fn a_table_is_left_to_the_next_proxy_once_for_each_change() {
    let (mut house, store) = with_a_store();
    house.publish(|_| {});
    house.publish(|_| {});
    assert_eq!(store.tables.lock().unwrap().len(), 1);
    house.publish(|table| table.routes.clear());
    assert_eq!(store.tables.lock().unwrap().len(), 2);
}

#[test]
fn the_last_table_is_served_by_while_the_manager_is_away_and_not_longer() {
    let (mut first, store) = with_a_store();
    first.worker(1).echo("remembered");
    let table = left_behind(&mut first, &store);
    let link = first.directory.path().join("link.sock");
    let (serving, mut watched) = tokio::sync::watch::channel(None);
    let mut options = options(1, Link::Path(link.clone()));
    options.remembered = Some(table);
    options.serving = Some(serving);
    let mut next = House::optioned(options, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let served = async { tokio::time::timeout(DEADLINE, watched.changed()).await };
        runtime.block_on(served).unwrap().unwrap();
        let address = watched.borrow().as_ref().unwrap().front.listening[0]
            .address()
            .unwrap();
        let mut client = Talk::new(TcpStream::connect(address).unwrap());
        client.send(GET);
        let head = client.head();
        assert_eq!(client.content(&head), b"remembered");
        // Now the manager comes.
        let manager = UnixListener::bind(link).unwrap();
        manager.accept().unwrap().0
    });
    // Nothing but what it is asked is said on its link.
    let problem = next.publish(|table| {
        table.routes[0].target = Target::Unavailable {
            reason: "new".to_owned(),
            retry_after: None,
            awaited: None,
        };
    });
    assert_eq!(problem, None);
    assert_eq!(status(&next.get("/", "").0), 503);
}

#[test]
fn a_manager_that_is_there_and_silent_is_not_waited_for_for_ever() {
    let (mut first, store) = with_a_store();
    first.worker(1).echo("remembered");
    let table = left_behind(&mut first, &store);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (serving, mut watched) = tokio::sync::watch::channel(None);
    let mut options = options(1, Link::Stream(theirs));
    options.remembered = Some(table);
    options.serving = Some(serving);
    let mut next = House::optioned(options, move || ours);
    next.until(async move { watched.changed().await.unwrap() });
    next.publish(|_| {});
}

#[test]
fn a_table_that_can_not_be_read_is_as_good_as_none() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut options = options(1, Link::Stream(theirs));
    options.remembered = Some(b"{\"format\": 0}".to_vec());
    let mut house = House::optioned(options, move || ours);
    house.worker(1).echo("x");
    house.publish(|_| {});
    assert_eq!(house.get("/", "").1, b"x");
}

#[test]
fn a_proxy_that_lives_says_so() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (beat, mut beats) = tokio::sync::mpsc::unbounded_channel();
    let mut options = options(2, Link::Stream(theirs));
    options.heart = Some(tqserver::proxy::Heart {
        every: Duration::from_millis(1),
        beat: Box::new(move || {
            let _ = beat.send(());
        }),
        hung: Box::new(|reason| panic!("{reason}")),
    });
    let house = House::optioned(options, move || ours);
    house.until(async move {
        for _ in 0..3 {
            beats.recv().await.unwrap();
        }
    });
}
