//! What stands between a request and its worker: a largest body, so many at a time, a total time, a pause, maintenance.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use tqserver::route::{Flow, Halt, Maintenance, Pause, Route};
use tqserver::wire::ToManager;

use crate::house::{DEADLINE, GET, House, SHORT, Worker, field, instance, options, status};

const POST: &str = "POST / HTTP/1.1\r\nhost: h\r\n";

/// A proxy whose route is changed by `change`.
fn house(change: impl FnOnce(&mut Route)) -> House {
    House::with(|table| change(&mut table.routes[0]))
}

fn flow(change: impl FnOnce(&mut Flow)) -> House {
    house(|route| change(&mut route.flow))
}

/// Answers the next request on a connection of its own.
fn answer(worker: &Worker, body: &str) {
    let mut upstream = worker.accept();
    upstream.head();
    upstream.answer(body);
}

/// A request that the proxy has taken: it answers another on the same thread after it.
fn taken(house: &House) {
    assert_eq!(status(&house.get("/health", "").0), 200);
}

fn paused(max: Duration) -> Halt {
    Halt {
        pause: Some(Pause::begin(max)),
        maintenance: None,
    }
}

// ---- bodies -------------------------------------------------------------------------------------------------------------------

#[test]
fn a_body_that_says_it_is_too_long_is_refused_without_the_worker() {
    let house = flow(|flow| flow.max_body = Some(4));
    let worker = house.worker(1);
    let mut client = house.ask(&format!(
        "{POST}content-length: 5\r\nexpect: 100-continue\r\n\r\n"
    ));
    let head = client.head();
    assert_eq!(status(&head), 413);
    assert_eq!(field(&head, "connection"), Some("close"));
    client.content(&head);
    client.closes();
    assert!(worker.is_alone());
}

#[test]
fn a_body_of_the_largest_size_passes() {
    let house = flow(|flow| flow.max_body = Some(4));
    let worker = house.worker(1);
    for (head, body) in [
        ("content-length: 4", "four"),
        ("transfer-encoding: chunked", "4\r\nfour\r\n0\r\n\r\n"),
    ] {
        let mut client = house.ask(&format!("{POST}{head}\r\n\r\n{body}"));
        let mut upstream = worker.accept();
        upstream.head();
        upstream.expect(body);
        upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(status(&client.head()), 200);
    }
}

#[test]
fn a_body_that_becomes_too_long_is_broken_off() {
    let house = flow(|flow| flow.max_body = Some(4));
    let worker = house.worker(1);
    let mut client = house.ask(&format!(
        "{POST}transfer-encoding: chunked\r\n\r\n4\r\nfour\r\n"
    ));
    let mut upstream = worker.accept();
    upstream.head();
    upstream.expect("4\r\nfour\r\n");
    client.send("1\r\nx\r\n");
    let head = client.head();
    assert_eq!(status(&head), 413);
    assert_eq!(field(&head, "connection"), Some("close"));
    upstream.closes();
}

#[test]
fn an_answer_that_has_begun_is_broken_off_with_the_body() {
    let house = flow(|flow| flow.max_body = Some(4));
    let worker = house.worker(1);
    let mut client = house.ask(&format!(
        "{POST}transfer-encoding: chunked\r\n\r\n4\r\nfour\r\n"
    ));
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    assert_eq!(status(&client.head()), 200);
    client.expect("half");
    client.send("1\r\nx\r\n");
    client.closes();
}

// ---- so many at a time --------------------------------------------------------------------------------------------------------

#[test]
fn what_is_beyond_the_concurrency_waits_in_the_order_it_came() {
    let house = flow(|flow| flow.max_concurrency = 1);
    let worker = house.worker(1);
    let mut first = house.ask("GET /1 HTTP/1.1\r\nhost: h\r\n\r\n");
    let mut upstream = worker.accept();
    upstream.head();
    let mut second = house.ask("GET /2 HTTP/1.1\r\nhost: h\r\n\r\n");
    taken(&house);
    let mut third = house.ask("GET /3 HTTP/1.1\r\nhost: h\r\n\r\n");
    taken(&house);
    assert!(worker.is_alone());
    for (client, next) in [(&mut first, "GET /2"), (&mut second, "GET /3")] {
        upstream.answer("x");
        assert_eq!(status(&client.head()), 200);
        assert!(upstream.head().starts_with(next));
    }
    upstream.answer("x");
    assert_eq!(status(&third.head()), 200);
    assert!(worker.is_alone());
}

#[test]
fn a_place_is_free_when_the_answer_has_ended_and_not_before() {
    let house = flow(|flow| flow.max_concurrency = 1);
    let worker = house.worker(1);
    let mut first = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
    first.head();
    first.expect("half");
    let mut second = house.ask(GET);
    taken(&house);
    assert!(worker.is_alone());
    upstream.send("half");
    first.expect("half");
    upstream.head();
    upstream.answer("x");
    assert_eq!(status(&second.head()), 200);
}

#[test]
fn what_is_beyond_the_queue_is_told_to_come_back() {
    let house = flow(|flow| (flow.max_concurrency, flow.queue_size) = (1, 1));
    let worker = house.worker(1);
    let mut first = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    let mut second = house.ask(GET);
    taken(&house);
    let (head, _) = house.get("/", "");
    assert_eq!(status(&head), 503);
    assert_eq!(field(&head, "retry-after"), Some("1"));
    upstream.answer("x");
    assert_eq!(status(&first.head()), 200);
    upstream.head();
    upstream.answer("x");
    assert_eq!(status(&second.head()), 200);
}

#[test]
fn who_waits_for_too_long_is_told_to_come_back() {
    let house = flow(|flow| (flow.max_concurrency, flow.queue_timeout) = (1, SHORT));
    let worker = house.worker(1);
    let _first = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    let mut second = house.ask(GET);
    let head = second.head();
    assert_eq!(status(&head), 503);
    assert_eq!(field(&head, "retry-after"), Some("1"));
    assert!(worker.is_alone());
}

#[test]
fn a_client_that_goes_away_leaves_the_queue() {
    let mut house = flow(|flow| (flow.max_concurrency, flow.queue_size) = (1, 1));
    let worker = house.worker(1);
    let mut first = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    let second = house.ask("GET /gone HTTP/1.1\r\nhost: h\r\n\r\n");
    taken(&house);
    drop(second);
    // Its end is an event of the same loop, and comes before these.
    taken(&house);
    let mut third = house.ask("GET /3 HTTP/1.1\r\nhost: h\r\n\r\n");
    taken(&house);
    upstream.answer("x");
    assert_eq!(status(&first.head()), 200);
    assert!(upstream.head().starts_with("GET /3"));
    upstream.answer("x");
    let head = third.head();
    assert_eq!(status(&head), 200);
    third.content(&head);
    assert_eq!(house.count(1), (0, 2));
}

#[test]
fn who_waits_goes_to_the_generation_that_serves_then() {
    let mut house = flow(|flow| flow.max_concurrency = 1);
    let (old, new) = (house.worker(1), house.worker(2));
    let mut first = house.ask(GET);
    let mut upstream = old.accept();
    upstream.head();
    let mut second = house.ask(GET);
    taken(&house);
    let target = house.serving(2);
    house.publish(|table| {
        table.routes[0].target = target;
        table.draining = vec![instance(1)];
    });
    // All generations together have so many places.
    taken(&house);
    assert!(new.is_alone());
    upstream.answer("old");
    let head = first.head();
    assert_eq!(first.content(&head), b"old");
    assert_eq!(house.hear(), ToManager::Drained(instance(1)));
    answer(&new, "new");
    let head = second.head();
    assert_eq!(second.content(&head), b"new");
    assert!(old.is_alone());
}

#[test]
fn a_limit_that_is_lifted_lets_all_go() {
    let mut house = flow(|flow| flow.max_concurrency = 1);
    let worker = house.worker(1);
    let _first = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    let mut second = house.ask(GET);
    taken(&house);
    house.publish(|table| table.routes[0].flow.max_concurrency = 0);
    answer(&worker, "x");
    assert_eq!(status(&second.head()), 200);
}

#[test]
fn threads_count_together_and_wake_each_other() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let link = tqserver::proxy::Link::Stream(theirs);
    let mut house = House::optioned(options(4, link), move || ours);
    house.publish(|table| table.routes[0].flow.max_concurrency = 2);
    let worker = house.worker(1);
    let inside = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counted = inside.clone();
    worker.serve(move |talk| {
        while let Some(head) = talk.try_head() {
            let [inside, most] = &*counted;
            most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
            talk.content(&head);
            thread::yield_now();
            inside.fetch_sub(1, SeqCst);
            talk.answer("x");
        }
    });
    // On different threads, as many of them as the kernel pleases.
    let mut clients: Vec<_> = (0..16).map(|_| house.client()).collect();
    for _ in 0..20 {
        clients.iter_mut().for_each(|client| client.send(GET));
        for client in &mut clients {
            let head = client.head();
            assert_eq!(status(&head), 200);
            client.content(&head);
        }
    }
    assert!(inside[1].load(SeqCst) <= 2, "{inside:?}");
    assert_eq!(house.count(1), (0, 320));
}

// ---- a total time -------------------------------------------------------------------------------------------------------------

#[test]
fn a_request_that_takes_too_long_is_a_gateway_timeout() {
    let house = flow(|flow| flow.request_timeout = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    assert_eq!(status(&client.head()), 504);
    upstream.closes();
}

#[test]
fn a_body_that_takes_too_long_is_broken_off_although_it_comes() {
    let house = flow(|flow| flow.request_timeout = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx");
    client.head();
    client.expect("x");
    client.closes();
    upstream.closes();
}

#[test]
fn an_upload_counts_into_the_time_of_its_request() {
    let house = flow(|flow| flow.request_timeout = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask(&format!("{POST}content-length: 2\r\n\r\na"));
    let mut upstream = worker.accept();
    upstream.head();
    upstream.expect("a");
    assert_eq!(status(&client.head()), 504);
    upstream.closes();
}

#[test]
fn a_connection_made_for_a_short_request_is_not_hasty_with_the_next() {
    let mut house = flow(|flow| flow.request_timeout = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.answer("x");
    let head = client.head();
    client.content(&head);
    house.publish(|table| table.routes[0].flow.request_timeout = Duration::ZERO);
    // More than all buffers on the way hold, so the worker's time to take it counts.
    let length = 8 << 20;
    client.send(&format!("{POST}content-length: {length}\r\n\r\n"));
    upstream.head();
    let mut other = client.stream.try_clone().unwrap();
    let sending = thread::spawn(move || other.write_all(&vec![b'x'; length]));
    // Another connection's limit passes meanwhile.
    house.publish(|table| table.routes[0].flow.request_timeout = SHORT);
    let mut late = house.ask(GET);
    let mut silent = worker.accept();
    silent.head();
    assert_eq!(status(&late.head()), 504);
    upstream.bytes(length);
    upstream.answer("all");
    let head = client.head();
    assert_eq!(client.content(&head), b"all");
    sending.join().unwrap().unwrap();
}

#[test]
fn an_event_stream_has_no_total_time() {
    let house = flow(|flow| flow.request_timeout = SHORT);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    upstream
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 2\r\n\r\na");
    client.head();
    client.expect("a");
    // Another request meets the limit, so it has passed for this one too.
    let mut other = house.ask(GET);
    let mut silent = worker.accept();
    silent.head();
    assert_eq!(status(&other.head()), 504);
    upstream.send("b");
    client.expect("b");
}

// ---- a pause ------------------------------------------------------------------------------------------------------------------

#[test]
fn a_request_to_a_paused_worker_is_answered_when_it_goes_on() {
    let mut house = house(|route| route.halt = paused(DEADLINE * 10));
    assert_eq!(house.hear(), ToManager::Quiet(instance(1).worker));
    let worker = house.worker(1);
    let mut clients = [house.ask(GET), house.ask(GET)];
    taken(&house);
    assert!(worker.is_alone());
    house.publish(|table| table.routes[0].halt = Halt::default());
    worker.echo("on");
    for client in &mut clients {
        let head = client.head();
        assert_eq!(client.content(&head), b"on");
    }
}

#[test]
fn a_pause_ends_by_itself() {
    let house = house(|route| route.halt = paused(SHORT));
    house.worker(1).echo("on");
    assert_eq!(house.get("/", "").1, b"on");
}

#[test]
fn a_paused_worker_is_quiet_when_its_last_request_has_ended() {
    let mut house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut upstream = worker.accept();
    upstream.head();
    house.publish(|table| table.routes[0].halt = paused(DEADLINE * 10));
    let _waiting = house.ask(GET);
    taken(&house);
    assert_eq!(house.count(1).0, 1, "who waits is not in flight");
    upstream.answer("x");
    assert_eq!(house.hear(), ToManager::Quiet(instance(1).worker));
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn who_waits_out_a_pause_goes_to_the_generation_that_serves_then() {
    let mut house = house(|route| route.halt = paused(DEADLINE * 10));
    house.hear();
    let (old, new) = (house.worker(1), house.worker(2));
    let mut client = house.ask(GET);
    taken(&house);
    let target = house.serving(2);
    house.publish(|table| table.routes[0].target = target);
    house.hear();
    house.publish(|table| table.routes[0].halt = Halt::default());
    answer(&new, "new");
    let head = client.head();
    assert_eq!(client.content(&head), b"new");
    assert!(old.is_alone());
}

#[test]
fn a_pause_is_for_the_worker_and_not_for_its_files() {
    let house = house(|route| route.halt = paused(DEADLINE * 10));
    let mut house = house;
    house.hear();
    house.file("a.txt", b"a");
    let public = house.public();
    house.publish(|table| table.routes[0].public = Some(public));
    assert_eq!(house.get("/a.txt", "").1, b"a");
}

#[test]
fn who_waits_for_longer_than_the_proxy_may_take_to_stop_is_told_to_come_back() {
    let mut house = house(|route| route.halt = paused(DEADLINE * 10));
    house.hear();
    house.publish(|table| table.front.grace = SHORT * 4);
    let mut client = house.ask(GET);
    taken(&house);
    house.shut_down();
    let head = client.head();
    assert_eq!(status(&head), 503);
    assert_eq!(field(&head, "retry-after"), Some("1"));
}

#[test]
fn a_client_that_goes_away_leaves_those_who_are_held() {
    let mut house = house(|route| route.halt = paused(DEADLINE * 10));
    house.hear();
    let worker = house.worker(1);
    let gone = house.ask("GET /gone HTTP/1.1\r\nhost: h\r\n\r\n");
    taken(&house);
    drop(gone);
    let mut client = house.ask("GET /there HTTP/1.1\r\nhost: h\r\n\r\n");
    taken(&house);
    house.publish(|table| table.routes[0].halt = Halt::default());
    let mut upstream = worker.accept();
    assert!(upstream.head().starts_with("GET /there"));
    upstream.answer("x");
    let head = client.head();
    assert_eq!(status(&head), 200);
    client.content(&head);
    assert_eq!(house.count(1), (0, 1));
}

#[test]
fn the_total_time_of_a_request_runs_while_it_is_paused() {
    let house = house(|route| {
        route.halt = paused(DEADLINE * 10);
        route.flow.request_timeout = SHORT;
    });
    assert_eq!(status(&house.get("/", "").0), 504);
}

// ---- maintenance --------------------------------------------------------------------------------------------------------------

#[test]
fn in_maintenance_clients_are_told_so_and_the_worker_is_not_asked() {
    let mut house = house(|route| {
        route.halt.maintenance = Some(Maintenance {
            message: Some("Back at <noon>".to_owned()),
        });
    });
    let worker = house.worker(1);
    let (head, body) = house.get("/", "");
    assert_eq!(status(&head), 503);
    assert_eq!(field(&head, "retry-after"), Some("60"));
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains("Back at &lt;noon&gt;"), "{body}");
    let (_, body) = house.get("/", "accept: application/json\r\n");
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["detail"], "Back at <noon>");
    assert!(worker.is_alone());
    house.publish(|table| table.routes[0].halt = Halt::default());
    worker.echo("back");
    assert_eq!(house.get("/", "").1, b"back");
}

#[test]
fn who_waits_while_maintenance_begins_is_told_of_it() {
    let mut house = house(|route| route.halt = paused(DEADLINE * 10));
    house.hear();
    let mut client = house.ask(GET);
    taken(&house);
    house.publish(|table| {
        table.routes[0].halt = Halt {
            pause: None,
            maintenance: Some(Maintenance::default()),
        }
    });
    assert_eq!(status(&client.head()), 503);
}
