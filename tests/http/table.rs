//! Tables come and go; requests do not notice, and the manager hears what it waits for.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::house::{DEADLINE, GET, House, Kept, SHORT, Talk, instance, listen, options, status};
use tqserver::proxy::Link;
use tqserver::route::{Address, Listen, Place, Protocol, Target};
use tqserver::wire::{ProbeOutcome, ToManager, ToProxy};

/// Switches `house` from generation `from` to the next.
fn switch(house: &mut House, from: u64) {
    let next = house.serving(from + 1);
    house.publish(|table| {
        table.routes[0].target = next;
        table.draining = vec![instance(from)];
    });
}

#[test]
fn after_applied_no_request_goes_to_the_old_generation() {
    let mut house = House::new();
    let old = house.worker(1);
    house.worker(2).echo("new");
    let mut client = house.ask(GET);
    let mut upstream = old.accept();
    upstream.head();
    upstream.answer("old");
    let head = client.head();
    client.content(&head);
    switch(&mut house, 1);
    client.send(GET);
    let head = client.head();
    assert_eq!(client.content(&head), b"new");
    upstream.closes();
    assert!(old.is_alone());
    assert_eq!(house.hear(), ToManager::Drained(instance(1)));
}

#[test]
fn drained_comes_when_the_last_request_has_ended_and_not_before() {
    let mut house = House::new();
    let old = house.worker(1);
    house.worker(2).echo("new");
    let mut slow = house.ask(GET);
    let mut upstream = old.accept();
    upstream.head();
    switch(&mut house, 1);
    // Answers come in order: had it been said before, it would be heard here.
    assert_eq!(house.count(1), (1, 1));
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na");
    slow.head();
    assert_eq!(house.count(1), (1, 1), "the body has not ended");
    upstream.send("b");
    slow.expect("ab");
    assert_eq!(house.hear(), ToManager::Drained(instance(1)));
    upstream.closes();
}

#[test]
fn a_tunnel_holds_up_draining() {
    let mut house = House::new();
    let old = house.worker(1);
    let mut client =
        house.ask("GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
    let mut upstream = old.accept();
    upstream.head();
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
    client.head();
    switch(&mut house, 1);
    assert_eq!(house.count(1), (1, 1));
    client.send("x");
    upstream.expect("x");
    drop((client, upstream));
    assert_eq!(house.hear(), ToManager::Drained(instance(1)));
}

#[test]
fn a_generation_never_heard_of_is_drained() {
    let mut house = House::new();
    house.publish(|table| table.draining = vec![instance(7)]);
    assert_eq!(house.hear(), ToManager::Drained(instance(7)));
}

#[test]
fn a_generation_that_still_serves_is_not_drained() {
    let mut house = House::new();
    house.publish(|table| table.draining = vec![instance(1)]);
    assert_eq!(house.count(1), (0, 0));
}

#[test]
fn spent_is_said_once_and_again_with_a_new_table() {
    let mut house = House::with(|table| {
        if let Target::Serving(upstream) = &mut table.routes[0].target {
            upstream.max_requests = 2;
        }
    });
    house.worker(1).echo("x");
    house.get("/", "");
    assert_eq!(house.count(1), (0, 1));
    house.get("/", "");
    assert_eq!(house.hear(), ToManager::Spent(instance(1)));
    house.get("/", "");
    assert_eq!(house.count(1), (0, 3));
    house.publish(|_| {});
    assert_eq!(house.hear(), ToManager::Spent(instance(1)));
}

#[test]
fn switching_under_load_loses_nothing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut house = House::threaded(3, Link::Stream(theirs), move || ours);
    house.publish(|_| {});
    house.worker(1).echo("x");
    let stop = Arc::new(AtomicBool::new(false));
    let address = house.listening[0];
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut served = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Talk::new(TcpStream::connect(address).unwrap());
                    for _ in 0..20 {
                        client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\nx");
                        let head = client.head();
                        assert_eq!(status(&head), 200, "{head}");
                        client.content(&head);
                        served += 1;
                    }
                }
                served
            })
        })
        .collect();
    for generation in 1..40 {
        house.worker(generation + 1).echo("x");
        switch(&mut house, generation);
        assert_eq!(house.hear(), ToManager::Drained(instance(generation)));
        std::fs::remove_file(house.socket(generation)).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let served: u32 = clients.into_iter().map(|c| c.join().unwrap()).sum();
    assert!(served >= 160, "{served}");
}

#[test]
fn the_last_table_is_served_while_the_manager_is_away() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("manager.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let accept = |listener: &UnixListener| listener.accept().unwrap().0;
    let mut house = House::linked(Link::Path(path.clone()), || accept(&listener));
    house.publish(|_| {});
    house.worker(1).echo("x");
    house.worker(2).echo("y");
    assert_eq!(house.get("/", "").1, b"x");
    // The manager dies and its socket with it.
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    house.unlink();
    assert_eq!(house.get("/", "").1, b"x");
    let listener = UnixListener::bind(&path).unwrap();
    house.relink(accept(&listener));
    assert_eq!(house.get("/", "").1, b"x");
    switch(&mut house, 1);
    assert_eq!(house.hear(), ToManager::Drained(instance(1)));
    assert_eq!(house.get("/", "").1, b"y");
}

#[test]
fn a_changed_address_is_listened_at_and_the_old_one_left() {
    let mut house = House::new();
    house.worker(1).echo("x");
    let old = house.listening[0];
    let mut client = house.ask(GET);
    let head = client.head();
    client.content(&head);
    let v6: SocketAddr = "[::1]:0".parse().unwrap();
    assert_eq!(
        house.publish(|table| table.front.listen = vec![Listen::from(v6)]),
        None
    );
    assert!(house.listening[0].is_ipv6());
    assert_eq!(house.get("/", "").1, b"x");
    // Who was connected goes on.
    client.send(GET);
    assert_eq!(status(&client.head()), 200);
    let began = Instant::now();
    while TcpStream::connect(old).is_ok() {
        assert!(began.elapsed() < DEADLINE, "the old address is still open");
    }
}

#[test]
fn an_unchanged_address_is_kept_even_if_the_kernel_chose_its_port() {
    let mut house = House::new();
    let before = house.listening.clone();
    house.publish(|_| {});
    assert_eq!(house.listening, before);
}

#[test]
fn an_address_in_use_is_a_problem_with_a_name_and_the_old_ones_stay() {
    let mut house = House::new();
    house.worker(1).echo("x");
    let before = house.listening.clone();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let problem = house
        .publish(|table| table.front.listen = vec![Listen::from(taken.1)])
        .unwrap();
    assert!(
        problem.starts_with(&format!("address {} is in use by ", taken.1))
            && problem.contains(&format!("(PID {})", std::process::id())),
        "{problem}"
    );
    assert_eq!(house.listening, before);
    assert_eq!(house.get("/", "").1, b"x");
}

#[test]
fn a_place_that_was_taken_is_served_as_soon_as_it_is_free() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut house = House::threaded(1, Link::Stream(theirs), move || ours);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let problem = house.publish(|table| {
        table.front.listen = vec![listen("127.0.0.1:0"), Listen::from(address)];
    });
    assert!(problem.unwrap().contains(&address.to_string()));
    // At a start what can be had is served.
    assert_eq!(house.listening.len(), 1);
    house.worker(1).echo("x");
    assert_eq!(house.get("/", "").1, b"x");
    drop(taken);
    let ToManager::Front(front) = house.hear() else {
        panic!("expected word of the front");
    };
    assert_eq!((front.problem, front.refused), (None, Vec::new()));
    assert_eq!(front.listening[1], Listen::from(address));
    let mut client = Talk::new(TcpStream::connect(address).unwrap());
    client.send(GET);
    let head = client.head();
    assert_eq!(client.content(&head), b"x");
}

/// A manager that ends each link at once, as one that cannot read what is said to it, is not asked without a pause.
#[test]
fn a_link_that_does_not_last_is_made_again_with_pauses() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("link");
    let listener = UnixListener::bind(&path).unwrap();
    let mut house = House::linked(Link::Path(path), || listener.accept().unwrap().0);
    house.unlink();
    listener.set_nonblocking(true).unwrap();
    let (began, mut links) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(1) {
        match listener.accept() {
            Ok(_) => links += 1,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    assert!((1..10).contains(&links), "{links} links in a second");
}

#[test]
fn a_wildcard_gives_way_to_an_address_of_its_port_and_no_connection_is_refused() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut house = House::threaded(2, Link::Stream(theirs), move || ours);
    house.publish(|table| table.front.listen = vec![listen("0.0.0.0:0")]);
    house.worker(1).echo("x");
    let port = house.listening[0].port();
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let elsewhere: SocketAddr = format!("127.0.0.2:{port}").parse().unwrap();
    drop(TcpStream::connect(elsewhere).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Talk::new(TcpStream::connect(address).unwrap());
                    client.send("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
                    assert_eq!(status(&client.head()), 200);
                }
            })
        })
        .collect();
    let narrow = vec![Listen::from(address)];
    assert_eq!(house.publish(|table| table.front.listen = narrow), None);
    let began = Instant::now();
    while TcpStream::connect(elsewhere).is_ok() {
        assert!(began.elapsed() < DEADLINE, "the wildcard is still open");
    }
    stop.store(true, Ordering::Relaxed);
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    let wide = vec![listen(&format!("0.0.0.0:{port}"))];
    assert_eq!(house.publish(|table| table.front.listen = wide), None);
    drop(TcpStream::connect(elsewhere).unwrap());
}

#[test]
fn a_wildcard_of_the_last_proxy_is_narrowed_and_who_waits_there_is_answered() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let inherited = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = inherited.local_addr().unwrap().port();
    let mut early = Talk::new(TcpStream::connect(("127.0.0.2", port)).unwrap());
    early.send(GET);
    // systemd has it too, and would let clients in for as long.
    let kept = inherited.try_clone().unwrap();
    let mut options = options(2, Link::Stream(theirs));
    options.inherited = vec![inherited.into()];
    let mut house = House::optioned(options, move || ours);
    house.worker(1).echo("x");
    let narrow = vec![listen(&format!("127.0.0.1:{port}"))];
    assert_eq!(house.publish(|table| table.front.listen = narrow), None);
    assert_eq!(status(&early.head()), 200);
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.2", port)).is_ok() {
        assert!(began.elapsed() < DEADLINE, "the wildcard is still open");
    }
    assert_eq!(house.get("/", "").1, b"x");
    drop(kept);
}

#[test]
fn probes_say_how_the_worker_is() {
    let mut house = House::new();
    let worker = house.worker(1);
    let unix = Address::Unix(house.socket(1));
    let probe = |id, address: &Address, timeout| ToProxy::Probe {
        id,
        address: address.clone(),
        protocol: Protocol::Http,
        path: "/health?x".to_owned(),
        timeout,
    };
    house.say(probe(1, &unix, DEADLINE));
    let mut upstream = worker.accept();
    let head = upstream.head();
    assert!(head.starts_with("GET /health?x HTTP/1.1\r\n"), "{head}");
    for field in [
        "host: localhost",
        "connection: close",
        "user-agent: tqserver-health/",
    ] {
        assert!(head.contains(field), "{head}");
    }
    upstream.send("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n");
    let outcome = ProbeOutcome::Status(302);
    assert_eq!(house.hear(), ToManager::Probed { id: 1, outcome });

    house.say(probe(2, &unix, SHORT));
    let outcome = ProbeOutcome::TimedOut;
    assert_eq!(house.hear(), ToManager::Probed { id: 2, outcome });

    let nowhere = Address::Unix(house.socket(9));
    house.say(probe(3, &nowhere, DEADLINE));
    let ToManager::Probed {
        id: 3,
        outcome: ProbeOutcome::Broken(why),
    } = house.hear()
    else {
        panic!("not broken");
    };
    assert!(why.contains("can not connect to"), "{why}");
}

#[test]
fn a_probe_is_not_in_the_way_of_a_table() {
    let mut house = House::new();
    let _silent = house.worker(1);
    house.say(ToProxy::Probe {
        id: 1,
        address: Address::Unix(house.socket(1)),
        protocol: Protocol::Http,
        path: "/".to_owned(),
        timeout: DEADLINE * 10,
    });
    house.publish(|_| {});
}

#[test]
fn shutdown_ends_requests_in_flight_and_takes_no_new_ones() {
    let mut house = House::new();
    let worker = house.worker(1);
    let mut idle = house.client();
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    house.shut_down();
    idle.closes();
    upstream.answer("last");
    let head = client.head();
    assert_eq!(client.content(&head), b"last");
    client.closes();
    house.ended();
    assert!(TcpStream::connect(house.listening[0]).is_err());
}

#[test]
fn a_worker_on_a_port_is_reached() {
    let mut house = House::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    house.publish(|table| {
        if let Target::Serving(upstream) = &mut table.routes[0].target {
            upstream.address = Address::Tcp(address);
        }
    });
    let mut client = house.ask(GET);
    let mut upstream = Talk::new(listener.accept().unwrap().0);
    upstream.head();
    upstream.answer("tcp");
    let head = client.head();
    assert_eq!(client.content(&head), b"tcp");
}

/// A house whose worker listens on a port that is to be held by this user.
fn held_by(user: u32) -> (House, TcpListener) {
    let mut house = House::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    house.publish(|table| {
        if let Target::Serving(upstream) = &mut table.routes[0].target {
            upstream.address = Address::Held { at, by: user };
        }
    });
    (house, listener)
}

#[test]
fn a_worker_on_a_port_of_its_own_user_is_reached() {
    let (house, listener) = held_by(rustix::process::geteuid().as_raw());
    let mut client = house.ask(GET);
    let mut upstream = Talk::new(listener.accept().unwrap().0);
    upstream.head();
    upstream.answer("ours");
    let head = client.head();
    assert_eq!(client.content(&head), b"ours");
}

#[test]
fn what_another_user_listens_for_gets_no_byte_of_a_request() {
    let (house, listener) = held_by(rustix::process::geteuid().as_raw() + 1);
    let mut client = house.ask("GET / HTTP/1.1\r\nhost: h\r\ncookie: secret\r\n\r\n");
    assert_eq!(status(&client.head()), 503);
    let mut stolen = listener.accept().unwrap().0;
    let mut bytes = Vec::new();
    // A reset is as good.
    let _ = std::io::Read::read_to_end(&mut stolen, &mut bytes);
    assert_eq!(bytes, b"");
}

#[test]
fn a_health_request_tells_that_a_port_is_somebody_elses_or_open_to_all() {
    let mut house = House::new();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let user = rustix::process::geteuid().as_raw();
    let probe = |id, by| ToProxy::Probe {
        id,
        address: Address::Held { at, by },
        protocol: Protocol::Http,
        path: "/".to_owned(),
        timeout: DEADLINE,
    };
    house.say(probe(1, user + 1));
    match house.hear() {
        ToManager::Probed {
            id: 1,
            outcome: ProbeOutcome::Taken(how),
        } => {
            let said = format!("port {port} is held by another user: {user}, and not");
            assert!(how.starts_with(&said), "{how}");
        }
        other => panic!("{other:?}"),
    }
    let answers = thread::spawn(move || {
        // The first is the one that was given up.
        drop(listener.accept());
        let mut upstream = Talk::new(listener.accept().unwrap().0);
        upstream.head();
        upstream.answer("well");
    });
    house.say(probe(2, user));
    assert_eq!(house.hear(), ToManager::Exposed { id: 2 });
    let outcome = ProbeOutcome::Status(200);
    assert_eq!(house.hear(), ToManager::Probed { id: 2, outcome });
    answers.join().unwrap();
}

#[test]
fn a_socket_left_by_an_earlier_proxy_is_used_and_new_ones_are_left_for_the_next() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let inherited = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = inherited.local_addr().unwrap();
    // Connected before the proxy runs: as while it is restarted.
    let mut early = Talk::new(TcpStream::connect(address).unwrap());
    early.send(GET);
    let (serving, watched) = tokio::sync::watch::channel(None);
    let store = Kept::default();
    let mut options = options(2, Link::Stream(theirs));
    options.inherited = vec![inherited.into()];
    options.serving = Some(serving);
    options.store = Some(Box::new(store.clone()));
    let mut house = House::optioned(options, move || ours);
    house.worker(1).echo("x");
    assert_eq!(*watched.borrow(), None);
    house.publish(|table| table.front.listen = vec![Listen::from(address), listen("127.0.0.2:0")]);
    assert_eq!(status(&early.head()), 200);
    assert_eq!(house.listening[0], address);
    assert_eq!(
        *store.listeners.lock().unwrap(),
        [Place::Tcp(house.listening[1])]
    );
    assert_eq!(
        watched.borrow().as_ref().unwrap().front.listening,
        house
            .listening
            .iter()
            .copied()
            .map(Listen::from)
            .collect::<Vec<_>>()
    );
}
