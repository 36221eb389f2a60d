//! The access log: what is written of a request, and when.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Condvar, Mutex, OnceLock};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::house::{DEADLINE, House, field, status};
use tqserver::messages;
use tqserver::route::{HostPattern, RouteTable, Target};

pub(crate) type Fields = BTreeMap<String, String>;

/// All that was written by the proxies of all tests of this process.
#[derive(Default)]
pub(crate) struct Written {
    lines: Mutex<Vec<Fields>>,
    more: Condvar,
}

struct Ear(&'static Written);

struct Read<'a>(&'a mut Fields);

impl Visit for Read<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl<S: Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Read(&mut fields));
        if fields.get("message_id").map(String::as_str) == Some(messages::ACCESS) {
            self.0.lines.lock().unwrap().push(fields);
            self.0.more.notify_all();
        }
    }
}

pub(crate) fn written() -> &'static Written {
    static WRITTEN: OnceLock<Written> = OnceLock::new();
    static EAR: OnceLock<()> = OnceLock::new();
    let written = WRITTEN.get_or_init(Written::default);
    EAR.get_or_init(|| {
        let registry = tracing_subscriber::registry().with(Ear(written));
        tracing::subscriber::set_global_default(registry).unwrap();
    });
    written
}

impl Written {
    /// The line about this path; tests choose each their own.
    pub(crate) fn about(&self, path: &str) -> Fields {
        let found = |lines: &[Fields]| lines.iter().find(|f| f["tq.path"] == path).cloned();
        let lines = self.lines.lock().unwrap();
        let absent = |lines: &mut Vec<Fields>| found(lines).is_none();
        let waited = self.more.wait_timeout_while(lines, DEADLINE, absent);
        let (lines, _) = waited.unwrap();
        found(&lines).unwrap_or_else(|| panic!("nothing was written of {path}"))
    }

    fn is_silent_about(&self, path: &str) -> bool {
        let lines = self.lines.lock().unwrap();
        !lines.iter().any(|fields| fields["tq.path"] == path)
    }
}

fn logged() -> House {
    logged_with(|_| {})
}

/// The same with a first table that is changed by `change`.
pub(crate) fn logged_with(change: impl FnOnce(&mut RouteTable)) -> House {
    written();
    House::with(|table| {
        table.routes[0].access_log = true;
        change(table);
    })
}

#[test]
fn a_request_is_written_with_all_that_is_known_of_it() {
    let house = logged();
    house.worker(1).echo("four");
    house.get(
        "/access/all?secret=1",
        "user-agent: me/1\r\nx-request-id: my-id\r\n",
    );
    let line = written().about("/access/all");
    for (field, value) in [
        ("tq.worker", "w"),
        ("tq.generation", "1"),
        ("tq.route", "/"),
        ("tq.request_id", "my-id"),
        ("tq.method", "GET"),
        ("tq.host", "h"),
        ("tq.status", "200"),
        ("tq.bytes", "4"),
        ("tq.client", "127.0.0.1"),
        ("tq.user_agent", "me/1"),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert!(line["tq.duration_usec"].parse::<u64>().unwrap() > 0);
    let message = &line["message"];
    assert!(message.starts_with("GET /access/all 200 4 B "), "{message}");
    assert!(message.ends_with(" ms 127.0.0.1"), "{message}");
    assert!(!format!("{line:?}").contains("secret"));
}

#[test]
fn what_a_stranger_writes_moves_no_cursor_in_any_field() {
    let mut house = logged();
    house.publish(|table| {
        table.routes[0].settings.hosts = vec![HostPattern::parse("*.a.example").unwrap()];
        table.routes[0].target = Target::Files;
    });
    let mut client = house.ask(
        "GET /access/odd/%1b%5b2J HTTP/1.1\r\nhost: x.a.example:1\r\nuser-agent: a\u{202e}\tb\r\n\r\n",
    );
    client.head();
    let line = written().about("/access/odd/%1b%5b2J");
    assert_eq!(line["tq.host"], "x.a.example:1");
    let message = &line["message"];
    let told = "GET x.a.example:1/access/odd/%1b%5b2J 404 ";
    assert!(message.starts_with(told), "{message}");
    for (field, value) in &line {
        assert!(
            value.chars().all(|c| !c.is_control() && c != '\u{202e}'),
            "{field}: {value:?}"
        );
    }
    // A host that no line should hold is refused before anything is written.
    let mut client = house.ask("GET /access/hostile HTTP/1.1\r\nhost: a\u{202e}b\r\n\r\n");
    assert_eq!(status(&client.head()), 400);
    assert!(written().is_silent_about("/access/hostile"));
}

#[test]
fn files_and_refusals_are_written_too() {
    let mut house = logged();
    house.file("access.txt", b"file!");
    let public = Some(house.public());
    house.publish(|table| table.routes[0].public = public);
    house.get("/access.txt", "");
    let line = written().about("/access.txt");
    assert_eq!((&*line["tq.status"], &*line["tq.bytes"]), ("200", "5"));
    house.publish(|table| {
        table.routes[0].target = Target::Unavailable {
            reason: "broken".to_owned(),
            retry_after: None,
            awaited: None,
        };
    });
    house.get("/access/refused", "");
    let line = written().about("/access/refused");
    assert_eq!(line["tq.status"], "503");
    assert!(!line.contains_key("tq.generation"));
}

#[test]
fn an_answer_that_breaks_off_is_written_when_it_does() {
    let house = logged();
    let worker = house.worker(1);
    let mut client = house.ask("GET /access/broken HTTP/1.1\r\nhost: h\r\n\r\n");
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    assert_eq!(status(&client.head()), 200);
    client.expect("half");
    assert!(written().is_silent_about("/access/broken"));
    drop(upstream);
    client.closes();
    let line = written().about("/access/broken");
    assert_eq!((&*line["tq.status"], &*line["tq.bytes"]), ("200", "4"));
    assert!(line["message"].ends_with(", broken off"), "{line:?}");
}

#[test]
fn a_compressed_answer_that_breaks_off_is_not_whole_either() {
    let mut house = logged();
    house.publish(|table| table.routes[0].compression = true);
    let worker = house.worker(1);
    let mut client =
        house.ask("GET /access/torn HTTP/1.1\r\nhost: h\r\naccept-encoding: gzip\r\n\r\n");
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    );
    drop(upstream);
    let head = client.head();
    assert_eq!(field(&head, "content-encoding"), Some("gzip"));
    let rest = client.rest().unwrap_or_default();
    assert!(
        !rest.is_empty() && !rest.ends_with(b"0\r\n\r\n"),
        "{rest:?}"
    );
    let line = written().about("/access/torn");
    assert!(line["message"].ends_with(", broken off"), "{line:?}");
}

#[test]
fn a_client_that_leaves_before_its_answer_is_written() {
    let house = logged();
    let worker = house.worker(1);
    let client = house.ask("GET /access/left HTTP/1.1\r\nhost: h\r\n\r\n");
    let mut upstream = worker.accept();
    upstream.head();
    drop(client);
    let line = written().about("/access/left");
    assert_eq!(line["tq.status"], "0");
    assert!(
        line["message"].starts_with("GET /access/left - 0 B "),
        "{line:?}"
    );
}

#[test]
fn a_tunnel_is_written_when_it_ends() {
    let house = logged();
    let worker = house.worker(1);
    let mut client = house.ask(
        "GET /access/tunnel HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: any/1\r\n\r\n",
    );
    let mut upstream = worker.accept();
    upstream.head();
    upstream
        .send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: any/1\r\n\r\n");
    assert_eq!(status(&client.head()), 101);
    upstream.send("hello");
    client.expect("hello");
    assert!(written().is_silent_about("/access/tunnel"));
    drop(client);
    drop(upstream);
    let line = written().about("/access/tunnel");
    assert_eq!((&*line["tq.status"], &*line["tq.bytes"]), ("101", "5"));
}

#[test]
fn the_answer_to_head_is_whole() {
    let house = logged();
    house.worker(1).serve(|talk| {
        talk.head();
        talk.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
    });
    let mut client = house.ask("HEAD /access/head HTTP/1.1\r\nhost: h\r\n\r\n");
    client.head();
    let line = written().about("/access/head");
    assert!(line["message"].starts_with("HEAD /access/head 200 0 B "));
    assert!(line["message"].ends_with("127.0.0.1"), "{line:?}");
}

#[test]
fn routes_without_an_access_log_are_not_written() {
    let mut house = logged();
    house.worker(1).echo("x");
    house.publish(|table| table.routes[0].access_log = false);
    house.get("/access/quiet", "");
    house.publish(|table| table.routes[0].access_log = true);
    house.get("/access/loud", "");
    written().about("/access/loud");
    assert!(written().is_silent_about("/access/quiet"));
}

#[test]
fn the_last_lines_are_written_before_the_proxy_ends() {
    let mut house = logged();
    house.worker(1).echo("x");
    house.get("/access/last", "");
    house.shut_down();
    house.ended();
    assert!(!written().is_silent_about("/access/last"));
}
