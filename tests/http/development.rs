//! What developers are shown besides: pages that follow their worker, wait for what is on its way, and tell what went wrong.

use std::time::Duration;

use std::net::TcpStream;

use crate::house::{DEADLINE, GET, House, SHORT, Talk, Worker, field, status};
use tqserver::route::{Development, RouteTable, Target, Trouble, Work};

const PAGE: &str = "GET /page HTTP/1.1\r\nhost: h\r\nsec-fetch-dest: document\r\nif-none-match: \"1\"\r\n\
                    accept-encoding: gzip\r\n\r\n";
const SCRIPT: &str = "<script src=\"/.tqserver/client.js\"";

fn developed(table: &mut RouteTable) {
    table.development = Some(Development {
        server: "run".to_owned(),
        hold: DEADLINE,
    });
    table.routes[0].work = Some(Work::default());
}

fn work(table: &mut RouteTable) -> &mut Work {
    table.routes[0].work.as_mut().unwrap()
}

/// What `request` gets when the worker answers with `answer`, and the request as the worker got it.
fn exchange(
    house: &House,
    worker: &Worker,
    request: &str,
    answer: &str,
) -> (String, String, String) {
    let mut client = house.ask(request);
    let mut talk = worker.accept();
    let asked = talk.head();
    talk.send(answer);
    drop(talk);
    let head = client.head();
    let body = client.content(&head);
    (asked, head, String::from_utf8(body).unwrap())
}

/// Reads until `text` has come.
fn comes(client: &mut Talk<TcpStream>, text: &str) {
    let mut heard = Vec::new();
    while !heard.ends_with(text.as_bytes()) {
        heard.extend(client.bytes(1));
    }
}

#[test]
fn a_page_is_followed_by_the_script_and_comes_whole() {
    let house = House::with(developed);
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\netag: \"1\"\r\ncontent-length: 4\r\n\r\n<p>a";
    let (asked, head, body) = exchange(&house, &house.worker(1), PAGE, answer);
    assert!(
        !asked.contains("if-none-match") && !asked.contains("accept-encoding"),
        "{asked}"
    );
    assert!(body.starts_with("<p>a") && body.contains(SCRIPT), "{body}");
    assert!(body.contains("&quot;generation&quot;:1"), "{body}");
    assert_eq!(field(&head, "cache-control"), Some("no-store"));
    assert_eq!(field(&head, "etag"), None);
}

#[test]
fn what_is_no_page_is_left_alone() {
    let html = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<p>a";
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\ntrue";
    let house = House::with(developed);
    let worker = house.worker(1);
    assert_eq!(exchange(&house, &worker, GET, html).2, "<p>a");
    assert_eq!(exchange(&house, &worker, PAGE, json).2, "true");
    let production = House::new();
    let (asked, _, body) = exchange(&production, &production.worker(1), PAGE, html);
    assert_eq!(body, "<p>a");
    assert!(asked.contains("if-none-match"), "{asked}");
}

#[test]
fn a_page_that_comes_in_pieces_gets_one_more() {
    let house = House::with(developed);
    let worker = house.worker(1);
    let mut client = house.ask(PAGE);
    let mut talk = worker.accept();
    talk.head();
    talk.send("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n4\r\n<p>a\r\n");
    comes(&mut client, "<p>a\r\n");
    talk.send("0\r\n\r\n");
    comes(&mut client, SCRIPT);
    comes(&mut client, "0\r\n\r\n");
}

#[test]
fn events_tell_how_far_a_worker_is_until_the_proxy_stops() {
    let mut house = House::with(developed);
    let mut client = house.ask("GET /.tqserver/events?worker=w HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(
        field(&client.head(), "content-type"),
        Some("text/event-stream")
    );
    comes(&mut client, "\"generation\":1");
    let target = house.serving(2);
    house.publish(|table| table.routes[0].target = target);
    comes(&mut client, "\"generation\":2");
    house.publish(|table| work(table).styles = "other".to_owned());
    comes(&mut client, "\"styles\":\"other\"");
    house.shut_down();
    comes(&mut client, "0\r\n\r\n");
    house.ended();
}

#[test]
fn a_page_waits_for_what_is_on_its_way_and_nothing_else_does() {
    let mut house = House::with(developed);
    let worker = house.worker(1);
    house.publish(|table| work(table).pending = true);
    let mut page = house.ask(PAGE);
    let mut other = house.ask(GET);
    let mut talk = worker.accept();
    assert!(!talk.head().contains("/page"));
    talk.answer("other");
    comes(&mut other, "other");
    assert!(worker.is_alone());
    house.publish(|table| work(table).pending = false);
    assert!(talk.head().contains("/page"));
    talk.answer("new");
    comes(&mut page, "new");
}

#[test]
fn a_page_waits_no_longer_than_it_may() {
    for hold in [SHORT, Duration::ZERO] {
        let mut house = House::with(developed);
        house.publish(|table| {
            work(table).pending = true;
            table.development.as_mut().unwrap().hold = hold;
        });
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold";
        assert_eq!(exchange(&house, &house.worker(1), PAGE, answer).2, "old");
    }
}

fn in_trouble(table: &mut RouteTable) {
    developed(table);
    work(table).trouble = Some(Trouble {
        reason: "`cargo build`: exit code <101>".to_owned(),
        log: vec![
            "\u{1b}[31merror\u{1b}[0m: \u{1b}]8;;javascript:alert(1)\u{7}<script>alert(1)</script>"
                .to_owned(),
            "  --> src/main.rs:10:5".to_owned(),
        ],
    });
}

#[test]
fn what_went_wrong_is_shown_and_can_not_become_markup() {
    let house = House::with(in_trouble);
    let (head, body) = house.get("/.tqserver/trouble?worker=w", "");
    let body = String::from_utf8(body).unwrap();
    assert!(
        field(&head, "content-security-policy")
            .unwrap()
            .contains("sandbox")
    );
    assert!(
        !body.contains("<script") && !body.contains('\u{1b}') && !body.contains("<101>"),
        "{body}"
    );
    assert!(
        body.contains("&lt;script&gt;") && body.contains("src/main.rs:10:5"),
        "{body}"
    );
    assert!(body.contains("<span"), "its colours are gone: {body}");
}

#[test]
fn where_nothing_serves_the_page_says_why_and_follows() {
    let house = House::with(|table| {
        in_trouble(table);
        table.routes[0].target = Target::Unavailable {
            reason: "it could not be built".to_owned(),
            retry_after: None,
            awaited: None,
        };
    });
    let mut client = house.ask(PAGE);
    let head = client.head();
    assert_eq!(status(&head), 503);
    let body = String::from_utf8(client.content(&head)).unwrap();
    assert!(
        body.contains(SCRIPT) && body.contains("src/main.rs:10:5"),
        "{body}"
    );
    let (head, body) = house.get("/", "accept: application/json\r\n");
    assert_eq!(status(&head), 503);
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("it could not be built")
    );
}

#[test]
fn in_production_there_is_nothing_of_it() {
    let house = House::new();
    let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno";
    let request = "GET /.tqserver/client.js HTTP/1.1\r\nhost: h\r\n\r\n";
    assert_eq!(exchange(&house, &house.worker(1), request, answer).2, "no");
}
