//! A generation of several instances: which of them answers.

use crate::house::{DEADLINE, GET, House, Talk, field, status};
use std::collections::BTreeMap;
use std::net::TcpStream;
use tqserver::route::{Address, RouteTable, Target};

const POST: &str = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\nx";

/// Makes the route's worker consist of the instances with these numbers, each behind the socket of its number.
fn instances(table: &mut RouteTable, house: &std::path::Path, numbers: &[u8]) {
    let Target::Serving(upstream) = &mut table.routes[0].target else {
        panic!("a generation serves");
    };
    let socket = |number: &u8| Address::Unix(house.join(format!("w{number}.sock")));
    let all: BTreeMap<_, _> = numbers
        .iter()
        .map(|number| (*number, socket(number)))
        .collect();
    upstream.address = all.values().next().unwrap().clone();
    upstream.instances = all;
}

fn house(numbers: &[u8], sticky: Option<&str>) -> House {
    let mut house = House::new();
    change(&mut house, numbers, sticky);
    house
}

fn change(house: &mut House, numbers: &[u8], sticky: Option<&str>) {
    let directory = house.directory.path().to_owned();
    house.publish(|table| {
        instances(table, &directory, numbers);
        table.routes[0].sticky = sticky.map(str::to_owned);
    });
}

/// The answer's head and its body, which is the name of who answered.
fn answer(client: &mut Talk<TcpStream>) -> (String, String) {
    let head = client.head();
    let body = client.content(&head);
    (head, String::from_utf8(body).unwrap())
}

fn ask(house: &House, cookie: Option<&str>) -> (String, String) {
    let cookie = cookie.map(|cookie| format!("cookie: {cookie}\r\n"));
    let cookie = cookie.unwrap_or_default();
    let mut client = house.ask(&format!("GET / HTTP/1.1\r\nhost: h\r\n{cookie}\r\n"));
    answer(&mut client)
}

/// `name=value` of the cookie that a head sets.
fn cookie(head: &str) -> String {
    let field = field(head, "set-cookie").expect("a cookie");
    field.split(';').next().unwrap().to_owned()
}

#[test]
fn single_requests_are_spread_over_all_instances() {
    let house = house(&[1, 2, 3], None);
    for (number, name) in [(1, "one"), (2, "two"), (3, "three")] {
        house.worker(number).echo(name);
    }
    let mut client = house.client();
    let mut answered: Vec<String> = (0..6)
        .map(|_| {
            client.send(GET);
            let (head, who) = answer(&mut client);
            assert_eq!(field(&head, "set-cookie"), None);
            who
        })
        .collect();
    answered.sort();
    assert_eq!(answered, ["one", "one", "three", "three", "two", "two"]);
}

#[test]
fn a_request_goes_to_the_instance_with_the_fewest_under_way() {
    let mut house = house(&[1, 2], None);
    let (slow, quick) = (house.worker(1), house.worker(2));
    // One of the two gets the first request and keeps it.
    let mut first = house.ask(GET);
    let mut kept = slow.accept();
    kept.head();
    quick.echo("quick");
    for _ in 0..4 {
        assert_eq!(ask(&house, None).1, "quick");
    }
    assert_eq!(house.count(1), (1, 5), "the generation counts for both");
    // A new table does not make it forget what is under way.
    change(&mut house, &[1, 2], None);
    for _ in 0..4 {
        assert_eq!(ask(&house, None).1, "quick");
    }
    kept.answer("slow");
    assert_eq!(answer(&mut first).1, "slow");
}

#[test]
fn a_body_that_is_still_being_read_counts() {
    let house = house(&[1, 2], None);
    let (slow, quick) = (house.worker(1), house.worker(2));
    let mut first = house.ask(GET);
    let mut kept = slow.accept();
    kept.head();
    kept.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha");
    first.head();
    quick.echo("quick");
    for _ in 0..3 {
        assert_eq!(ask(&house, None).1, "quick");
    }
    kept.send("lf");
    assert_eq!(first.bytes(4), b"half");
}

#[test]
fn an_instance_that_can_not_be_reached_is_passed_over_at_once() {
    let house = house(&[1, 2, 3], None);
    house.worker(2).echo("two");
    let began = std::time::Instant::now();
    for request in [GET, POST, GET, POST, GET] {
        let mut client = house.ask(request);
        let (head, who) = answer(&mut client);
        assert_eq!((status(&head), who.as_str()), (200, "two"));
    }
    assert!(began.elapsed() < DEADLINE / 4, "{:?}", began.elapsed());
}

#[test]
fn a_client_is_told_when_none_can_be_reached() {
    let house = house(&[1, 2], None);
    let mut client = house.ask(GET);
    assert_eq!(status(&client.head()), 503);
}

#[test]
fn drained_is_said_when_the_last_request_of_all_instances_has_ended() {
    use crate::house::instance;
    use tqserver::wire::ToManager;
    let mut house = house(&[1, 2], None);
    let workers = [house.worker(1), house.worker(2)];
    let mut talks = workers.iter().map(|worker| {
        let client = house.ask(GET);
        let mut upstream = worker.accept();
        upstream.head();
        (client, upstream)
    });
    let (mut first, mut second) = (talks.next().unwrap(), talks.next().unwrap());
    drop(talks);
    let next = house.serving(3);
    house.publish(|table| {
        table.routes[0].target = next;
        table.draining = vec![instance(1)];
    });
    first.1.answer("x");
    assert_eq!(answer(&mut first.0).1, "x");
    // Nothing else is said before.
    assert!(house.count(1).0 > 0);
    second.1.answer("y");
    assert_eq!(house.hear(), ToManager::Drained(instance(1)));
    assert_eq!(answer(&mut second.0).1, "y");
}

#[test]
fn a_client_stays_with_the_instance_its_cookie_names() {
    let house = house(&[1, 2, 3], Some("tqserver_w"));
    for (number, name) in [(1, "one"), (2, "two"), (3, "three")] {
        house.worker(number).echo(name);
    }
    let (head, who) = ask(&house, None);
    let attributes = field(&head, "set-cookie").unwrap();
    assert!(
        attributes.starts_with("tqserver_w=")
            && attributes.ends_with("; Path=/; HttpOnly; SameSite=Lax"),
        "{attributes}"
    );
    assert!(!attributes.contains("sock"), "{attributes}");
    let said = format!("a=b; {}; c=d", cookie(&head));
    for _ in 0..5 {
        let (head, again) = ask(&house, Some(&said));
        assert_eq!(
            (again.as_str(), field(&head, "set-cookie")),
            (who.as_str(), None)
        );
    }
}

#[test]
fn a_cookie_holds_over_a_reload_and_is_set_anew_when_its_instance_is_gone() {
    let mut house = house(&[1, 2], Some("sid"));
    house.worker(1).echo("one");
    house.worker(2).echo("two");
    let (head, who) = ask(&house, None);
    let said = cookie(&head);
    let directory = house.directory.path().to_owned();
    house.publish(|table| {
        instances(table, &directory, &[1, 2]);
        let Target::Serving(upstream) = &mut table.routes[0].target else {
            panic!("a generation serves");
        };
        upstream.generation = tqserver::names::Generation(2);
    });
    assert_eq!(ask(&house, Some(&said)).1, who);
    let left = if who == "one" { 2 } else { 1 };
    change(&mut house, &[left], Some("sid"));
    let (head, other) = ask(&house, Some(&said));
    assert_ne!(other, who);
    assert_ne!(cookie(&head), said);
}

#[test]
fn a_cookie_that_names_no_instance_is_ignored_and_the_worker_sees_it() {
    let house = house(&[1], Some("sid"));
    let worker = house.worker(1);
    for said in ["sid=", "sid=17", "sid=\"x\"", "sid", "other=1"] {
        let mut client = house.ask(&format!(
            "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncookie: {said}\r\n\r\n"
        ));
        let mut upstream = worker.accept();
        assert_eq!(field(&upstream.head(), "cookie"), Some(said));
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\nset-cookie: own=1\r\n\r\n");
        let head = client.head();
        assert_eq!(head.matches("set-cookie: ").count(), 2, "{head}");
    }
}

#[test]
fn the_cookie_of_a_client_with_tls_is_for_tls_alone() {
    let mut house = house(&[1, 2], Some("sid"));
    house.publish(|table| table.front.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]);
    for number in [1, 2] {
        house.worker(number).echo("one of them");
    }
    for (proto, secure) in [("https", true), ("http", false)] {
        let request = format!("GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-proto: {proto}\r\n\r\n");
        let (head, _) = answer(&mut house.ask(&request));
        let set = field(&head, "set-cookie").expect("a cookie");
        assert_eq!(set.ends_with("; Secure"), secure, "{set}");
    }
}
