//! More clients than there may be: who leaves, who stays, and who is turned away.

use std::net::TcpStream;

use crate::house::{GET, House, Talk, status};

/// As few as can be configured.
const MOST: usize = 16;

fn house() -> House {
    House::with(|table| table.front.max_connections = MOST)
}

/// Whether a client was served, on a connection that stays.
fn is_served(client: &mut Talk<TcpStream>) -> bool {
    client.send(GET);
    let Some(head) = client.try_head() else {
        return false;
    };
    client.content(&head);
    status(&head) == 200
}

#[test]
fn who_idles_longest_makes_room_for_a_new_client() {
    let house = house();
    house.worker(1).echo("x");
    let mut clients: Vec<_> = (0..MOST).map(|_| house.client()).collect();
    for client in &mut clients {
        assert!(is_served(client));
    }
    assert!(is_served(&mut house.client()));
    clients[0].closes();
    assert!(is_served(&mut clients[MOST - 1]));
}

#[test]
fn clients_beyond_the_most_do_not_pile_up() {
    let house = house();
    house.worker(1).echo("x");
    let mut clients: Vec<_> = (0..MOST * 20).map(|_| house.client()).collect();
    let last = clients.split_off(MOST * 19);
    // All but the last few are closed, each without another one that would have to come for that.
    for mut client in clients {
        client.closes();
    }
    drop(last);
}

#[test]
fn a_request_on_its_way_is_not_given_up_for_a_new_client() {
    let house = house();
    let worker = house.worker(1);
    let mut busy: Vec<_> = (0..MOST).map(|_| house.ask(GET)).collect();
    let mut upstreams: Vec<_> = (0..MOST).map(|_| worker.accept()).collect();
    for upstream in &mut upstreams {
        upstream.head();
    }
    house.client().closes();
    for upstream in &mut upstreams {
        upstream.answer("x");
    }
    for client in &mut busy {
        assert_eq!(status(&client.head()), 200);
    }
}

#[test]
fn heads_that_do_not_end_keep_nobody_out() {
    let house = house();
    house.worker(1).echo("x");
    let heads: Vec<_> = (0..MOST * 4)
        .map(|_| house.ask(&format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(30_000))))
        .collect();
    for _ in 0..MOST {
        assert!(is_served(&mut house.client()));
    }
    drop(heads);
}

#[test]
fn who_has_too_many_connections_drives_nobody_out() {
    let house = House::with(|table| {
        table.front.max_connections = MOST;
        table.front.max_connections_per_address = MOST;
    });
    house.worker(1).echo("x");
    let mut clients: Vec<_> = (0..MOST).map(|_| house.client()).collect();
    for client in &mut clients {
        assert!(is_served(client));
    }
    for _ in 0..MOST {
        house.client().closes();
    }
    for client in &mut clients {
        assert!(is_served(client), "it had a place, and the others none");
    }
}
