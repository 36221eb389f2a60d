//! Workers that speak FastCGI, played record by record.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;

use tqserver::names::Generation;
use tqserver::route::{
    Address, Indexes, Protocol, RoutePath, RouteTable, Scripts, Target, Upstream,
};
use tqserver::wire::{ProbeOutcome, ToManager, ToProxy};

use crate::house::{DEADLINE, GET, House, SHORT, Talk, field, status};

/// More than what all buffers on the way hold.
const BIG: usize = 24 << 20;

const BEGIN: u8 = 1;
const END: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// php-fpm, played by the test.
pub(crate) struct Fpm(Talk<UnixStream>);

impl Fpm {
    /// The next connection on which something is said. One that was opened for a body that takes its time is closed without a word.
    pub(crate) fn accept(worker: &crate::house::Worker) -> Self {
        loop {
            let mut talk = worker.accept();
            if !talk.is_closed() {
                return Self(talk);
            }
        }
    }

    /// The next record: its type and its content.
    fn record(&mut self) -> (u8, Vec<u8>) {
        let head = self.0.bytes(8);
        assert_eq!((head[0], &head[2..4]), (1, &[0, 1][..]), "{head:?}");
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let mut content = self.0.bytes(length + usize::from(head[6]));
        content.truncate(length);
        (head[1], content)
    }

    /// The records of one type up to the empty one.
    fn stream(&mut self, kind: u8) -> Vec<u8> {
        let mut whole = Vec::new();
        loop {
            let (found, content) = self.record();
            assert_eq!(found, kind);
            if content.is_empty() {
                return whole;
            }
            whole.extend(content);
        }
    }

    /// What is said before the body.
    pub(crate) fn params(&mut self) -> BTreeMap<String, String> {
        let (kind, content) = self.record();
        assert_eq!(
            (kind, &content[..3]),
            (BEGIN, &[0, 1, 0][..]),
            "a responder that closes"
        );
        let stream = self.stream(PARAMS);
        let mut rest = &stream[..];
        let mut params = BTreeMap::new();
        while !rest.is_empty() {
            let (name, value) = (length(&mut rest), length(&mut rest));
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            params.insert(text(&rest[..name]), text(&rest[name..name + value]));
            rest = &rest[name + value..];
        }
        params
    }

    /// A whole request: what is said of it, and its body.
    fn request(&mut self) -> (BTreeMap<String, String>, Vec<u8>) {
        (self.params(), self.stream(STDIN))
    }

    fn say(&mut self, kind: u8, content: &[u8]) {
        self.0.stream.write_all(&record(kind, content)).unwrap();
    }

    fn out(&mut self, text: &str) {
        self.say(STDOUT, text.as_bytes());
    }

    /// Whether nothing comes but the end of the connection. A body that is empty may be ended twice.
    fn is_closed(&mut self) -> bool {
        let rest = self.0.rest();
        rest.is_ok_and(|rest| rest.is_empty() || rest == [1, STDIN, 0, 1, 0, 0, 0, 0])
    }

    /// The record at the end. Who has all that was announced need not have waited for it.
    fn end(&mut self) {
        let _ = self.0.stream.write_all(&record(END, &[0; 8]));
    }
}

fn length(rest: &mut &[u8]) -> usize {
    let (size, bytes) = match rest[0] {
        short @ 0..=127 => (usize::from(short), 1),
        long => {
            let bytes = [long & 127, rest[1], rest[2], rest[3]];
            (u32::from_be_bytes(bytes) as usize, 4)
        }
    };
    *rest = &rest[bytes..];
    size
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    // Padding that says something would be noticed.
    let mut record = vec![1, kind, 0, 1, length[0], length[1], 3, 0];
    record.extend_from_slice(content);
    record.extend_from_slice(b"pad");
    record
}

fn scripts() -> Protocol {
    Protocol::FastCgi(Scripts {
        root: "/srv/w/public".into(),
        front_controller: "index.php".to_owned(),
        indexes: Some(Indexes::default()),
        route: RoutePath::root(),
    })
}

fn speaks(table: &mut RouteTable) {
    let Target::Serving(upstream) = &mut table.routes[0].target else {
        panic!("a worker serves");
    };
    upstream.protocol = scripts();
    table.routes[0].scripts = true;
}

fn house() -> House {
    House::with(speaks)
}

/// The body of an answer in chunks.
fn chunks(client: &mut Talk<std::net::TcpStream>) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(client.bytes(1));
        }
        let text = std::str::from_utf8(&line).unwrap().trim_end();
        let size = usize::from_str_radix(text, 16).unwrap();
        body.extend(client.bytes(size));
        client.expect("\r\n");
        if size == 0 {
            return body;
        }
    }
}

#[test]
fn a_request_is_told_in_cgis_words_and_the_answer_is_https() {
    let mut house = house();
    let worker = house.worker(1);
    let mut client = house.ask(
        "POST /a.php/b?c=d HTTP/1.1\r\nhost: example.org\r\nproxy: evil\r\ncontent-type: text/x\r\ncontent-length: 5\r\n\r\nhello",
    );
    let mut fpm = Fpm::accept(&worker);
    let (params, body) = fpm.request();
    assert_eq!(body, b"hello");
    for (name, value) in [
        ("SCRIPT_FILENAME", "/srv/w/public/a.php"),
        ("PATH_INFO", "/b"),
        ("QUERY_STRING", "c=d"),
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/a.php/b?c=d"),
        ("CONTENT_TYPE", "text/x"),
        ("CONTENT_LENGTH", "5"),
        ("SERVER_NAME", "example.org"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("HTTP_X_FORWARDED_PROTO", "http"),
    ] {
        assert_eq!(params.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!params.contains_key("HTTP_PROXY"));
    assert!(params.contains_key("HTTP_X_REQUEST_ID"));
    fpm.out("Status: 404 Not Here\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 3\r\nConnection: x\r\n\r\nabc");
    fpm.end();
    let head = client.head();
    assert_eq!(status(&head), 404);
    assert_eq!(head.matches("set-cookie: ").count(), 2, "{head}");
    assert_eq!(client.content(&head), b"abc");
    assert_eq!(
        field(&head, "connection"),
        None,
        "the client's connection stays: {head}"
    );
    assert!(
        fpm.is_closed(),
        "php-fpm waits for the end of the connection"
    );
    assert_eq!(house.count(1), (0, 1));
    // The next request comes over a connection of its own.
    client.send(GET);
    let mut fpm = Fpm::accept(&worker);
    let (params, _) = fpm.request();
    assert!(!params.contains_key("CONTENT_LENGTH"));
    fpm.out("Location: /elsewhere\r\n\r\n");
    fpm.end();
    let head = client.head();
    assert_eq!(
        (status(&head), field(&head, "location")),
        (302, Some("/elsewhere"))
    );
}

#[test]
fn an_answer_comes_piece_by_piece_and_a_head_may_come_in_pieces() {
    let house = house();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut fpm = Fpm::accept(&worker);
    fpm.request();
    for piece in ["Content-", "Type: text/plain\r", "\n\r", "\none"] {
        fpm.out(piece);
    }
    let head = client.head();
    assert_eq!(field(&head, "content-type"), Some("text/plain"));
    client.expect("3\r\none\r\n");
    fpm.out("two");
    client.expect("3\r\ntwo\r\n");
    fpm.say(STDOUT, b"");
    fpm.end();
    client.expect("0\r\n\r\n");
}

#[test]
fn a_large_body_and_a_large_answer_pass_each_other() {
    let house = house();
    let worker = house.worker(1);
    let mut client = house.ask(&format!(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {BIG}\r\n\r\n"
    ));
    client.stream.write_all(&vec![b'x'; BIG]).unwrap();
    let mut fpm = Fpm::accept(&worker);
    assert_eq!(fpm.params()["CONTENT_LENGTH"], BIG.to_string());
    let mut writer = Fpm(Talk::new(fpm.0.stream.try_clone().unwrap()));
    // It begins to answer before it has heard anything of the body, and says all of it before it has heard all.
    fpm.out("Content-Type: x/y\r\n\r\n");
    let head = client.head();
    assert_eq!(status(&head), 200);
    let reader = thread::spawn(move || fpm.stream(STDIN));
    let answer = thread::spawn(move || {
        let piece = vec![b'y'; 0xffff];
        for _ in 0..BIG / piece.len() {
            writer.say(STDOUT, &piece);
        }
        writer
    });
    let wanted = BIG / 0xffff * 0xffff;
    let receiver = thread::spawn(move || chunks(&mut client));
    let mut writer = answer.join().unwrap();
    let body = reader.join().unwrap();
    assert!(body.len() == BIG && body.iter().all(|byte| *byte == b'x'));
    writer.end();
    let body = receiver.join().unwrap();
    assert_eq!(body.len(), wanted);
    assert!(body.iter().all(|byte| *byte == b'y'));
}

#[test]
fn an_answer_need_not_wait_for_a_body_nobody_reads() {
    let house = house();
    let worker = house.worker(1);
    for length in [100, 4 << 20] {
        let mut client = house.ask(&format!(
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n"
        ));
        client.stream.write_all(&vec![b'x'; length]).unwrap();
        let mut fpm = Fpm::accept(&worker);
        fpm.params();
        fpm.out("Status: 403 No\r\nContent-Length: 2\r\n\r\nno");
        fpm.end();
        drop(fpm);
        let head = client.head();
        assert_eq!(
            (status(&head), client.content(&head)),
            (403, b"no".to_vec())
        );
    }
}

#[test]
fn a_client_that_is_refused_while_it_still_sends_hears_the_answer() {
    let house = house();
    let worker = house.worker(1);
    let long = "x".repeat(60_000);
    let mut client = house.ask(&format!(
        "POST / HTTP/1.1\r\nhost: h\r\ncookie: {long}\r\nx-more: {}\r\ncontent-length: {BIG}\r\n\r\n",
        &long[..5000]
    ));
    let mut sender = client.stream.try_clone().unwrap();
    // The connection may be closed when the answer is out.
    let upload = thread::spawn(move || sender.write_all(&vec![b'x'; BIG]).is_ok());
    let head = client.head();
    assert_eq!(status(&head), 431);
    assert!(chunks(&mut client).starts_with(b"PHP takes"));
    drop(client);
    upload.join().unwrap();
    assert!(worker.accept().is_closed(), "php-fpm hears nothing of it");
}

#[test]
fn a_client_that_asks_before_it_sends_is_told_to() {
    let house = house();
    let worker = house.worker(1);
    let mut client = house
        .ask("POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body");
    let mut fpm = Fpm::accept(&worker);
    let (params, body) = fpm.request();
    assert!(!params.contains_key("HTTP_EXPECT"));
    assert_eq!(body, b"body");
    fpm.out("A: b\r\n\r\n");
    fpm.end();
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn a_body_of_unknown_length_is_counted_first() {
    let house = house();
    let worker = house.worker(1);
    let long = 3 << 20;
    for (chunks, length) in [
        ("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_owned(), 5),
        ("0\r\n\r\n".to_owned(), 0),
        (
            format!("{long:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(long)),
            long,
        ),
    ] {
        let mut client =
            house.ask("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
        client.send(&chunks);
        let mut fpm = Fpm::accept(&worker);
        let (params, body) = fpm.request();
        let announced = params.get("CONTENT_LENGTH").map_or("0", String::as_str);
        assert_eq!((announced, body.len()), (&*length.to_string(), length));
        fpm.out("A: b\r\n\r\n");
        fpm.end();
        assert_eq!(status(&client.head()), 200);
    }
}

#[test]
fn php_hears_nothing_of_an_upload_that_broke_off() {
    let house = house();
    let worker = house.worker(1);
    for (framing, begin, sent) in [
        ("content-length: 40000", "", 10_000),
        ("content-length: 3000000", "", 700_000),
        ("transfer-encoding: chunked", "9c40\r\n", 10_000),
        ("transfer-encoding: chunked", "2dc6c0\r\n", 700_000),
    ] {
        let mut client = house.ask(&format!(
            "PUT /broken HTTP/1.1\r\nhost: h\r\n{framing}\r\n\r\n{begin}"
        ));
        client.send(&"x".repeat(sent));
        let mut upstream = worker.accept();
        drop(client);
        assert!(upstream.is_closed(), "{framing}: {sent} bytes");
    }
    let mut client = house.ask("PUT /whole HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nab");
    let mut fpm = Fpm::accept(&worker);
    let (params, body) = fpm.request();
    assert_eq!(
        (params["REQUEST_URI"].as_str(), &body[..]),
        ("/whole", &b"ab"[..])
    );
    fpm.out("A: b\r\n\r\n");
    fpm.end();
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn a_slow_upload_keeps_no_process_of_php_fpm_from_others() {
    let mut house = house();
    let worker = house.worker(1);
    let mut slow = house.ask("PUT /slow HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\na");
    assert!(worker.accept().is_closed());
    assert_eq!(house.count(1), (1, 1), "it is under way all the same");
    slow.send("b");
    let mut fpm = Fpm::accept(&worker);
    assert_eq!(fpm.request().1, b"ab");
    fpm.out("A: b\r\n\r\n");
    fpm.end();
    assert_eq!(status(&slow.head()), 200);
    // And where there is nobody any more when it is whole, that is what is said.
    let mut slow = house.ask("PUT /slow HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\na");
    assert!(worker.accept().is_closed());
    std::fs::remove_file(house.socket(1)).unwrap();
    drop(worker);
    slow.send("b");
    let head = slow.head();
    assert_eq!(
        (status(&head), field(&head, "retry-after")),
        (503, Some("1"))
    );
}

#[test]
fn what_is_said_of_a_request_fits_into_one_record_or_is_refused() {
    let house = house();
    let worker = house.worker(1);
    for (length, expected) in [(30_000, 200), (34_000, 431)] {
        let long = "x".repeat(length);
        let target = &long[..length / 2];
        let mut client = house.ask(&format!(
            "GET /?{target} HTTP/1.1\r\nhost: h\r\ncookie: {long}\r\n\r\n"
        ));
        let mut upstream = worker.accept();
        if expected == 200 {
            let mut fpm = Fpm(upstream);
            let (params, _) = fpm.request();
            assert_eq!(params["HTTP_COOKIE"], long);
            assert_eq!(params["QUERY_STRING"], target);
            fpm.out("A: b\r\n\r\n");
            fpm.end();
        } else {
            assert!(upstream.is_closed(), "php-fpm hears nothing of it");
        }
        assert_eq!(status(&client.head()), expected);
    }
}

#[test]
fn a_torn_answer_does_not_look_whole() {
    let mut house = house();
    let worker = house.worker(1);
    for (answer, heard) in [
        (record(STDOUT, b"A: b\r\n\r\nabc"), Some("3\r\nabc\r\n")),
        (
            [record(STDOUT, b"A: b\r\n\r\nabc"), record(STDOUT, b"")].concat(),
            Some("3\r\nabc\r\n"),
        ),
        (
            [record(STDOUT, b"A: b\r\n\r\nabc"), vec![1, 3, 0]].concat(),
            Some("3\r\nabc\r\n"),
        ),
        (record(STDOUT, b"A: b\r\nC: d"), None),
        (Vec::new(), None),
        (vec![1], None),
    ] {
        let mut client = house.ask(GET);
        let mut fpm = Fpm::accept(&worker);
        fpm.request();
        fpm.0.stream.write_all(&answer).unwrap();
        drop(fpm);
        let head = client.head();
        match heard {
            None => assert_eq!(status(&head), 502, "{answer:?}"),
            Some(heard) => {
                assert_eq!(status(&head), 200);
                client.expect(heard);
                client.closes();
            }
        }
        assert_eq!(house.count(1).0, 0, "none is in flight any more");
    }
}

#[test]
fn a_length_that_is_not_kept_does_not_look_whole() {
    let house = house();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut fpm = Fpm::accept(&worker);
    fpm.request();
    fpm.out("Content-Length: 10\r\n\r\nabc");
    fpm.end();
    client.head();
    client.expect("abc");
    client.closes();
}

#[test]
fn what_is_no_answer_is_a_bad_gateway() {
    let house = house();
    let worker = house.worker(1);
    let mut other_request = record(STDOUT, b"A: b\r\n\r\n");
    other_request[3] = 2;
    let mut other_version = record(STDOUT, b"A: b\r\n\r\n");
    other_version[0] = 2;
    for answer in [
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        vec![0; 64],
        vec![255; 64],
        other_request,
        other_version,
        record(11, &[0; 8]),
        record(BEGIN, &[0; 8]),
        // Ends of too few bytes, and ends that refuse: cannot multiplex, overloaded, unknown role, unknown.
        record(END, &[0; 7]),
        record(END, b""),
        record(END, &[0, 0, 0, 0, 1, 0, 0, 0]),
        record(END, &[0, 0, 0, 0, 2, 0, 0, 0]),
        record(END, &[0, 0, 0, 0, 3, 0, 0, 0]),
        record(END, &[0, 0, 0, 0, 9, 0, 0, 0]),
        record(END, &[0; 8]),
        [record(STDOUT, b"no head\r\n\r\n"), record(END, &[0; 8])].concat(),
        [
            record(STDOUT, b"Status: 101 x\r\n\r\n"),
            record(END, &[0; 8]),
        ]
        .concat(),
        [
            record(STDOUT, b"Status: \xff\r\n\r\n"),
            record(END, &[0; 8]),
        ]
        .concat(),
        [record(STDOUT, b"A: b\0\r\n\r\n"), record(END, &[0; 8])].concat(),
    ] {
        let mut client = house.ask(GET);
        let mut fpm = Fpm::accept(&worker);
        fpm.request();
        fpm.0.stream.write_all(&answer).unwrap();
        assert_eq!(status(&client.head()), 502, "{answer:?}");
    }
}

#[test]
fn a_head_has_a_bound() {
    let house = house();
    let worker = house.worker(1);
    for (lines, expected) in [(700, 200), (750, 502)] {
        let mut client = house.ask(GET);
        let mut fpm = Fpm::accept(&worker);
        fpm.request();
        let value = "v".repeat(lines);
        let text = format!("N: {value}\r\n").repeat(90) + "\r\n";
        for piece in text.as_bytes().chunks(1000) {
            // What is more than the bound may not be taken any more.
            let _ = fpm.0.stream.write_all(&record(STDOUT, piece));
        }
        fpm.end();
        assert_eq!(status(&client.head()), expected, "{} bytes", text.len());
    }
}

#[test]
fn a_head_alone_is_answered_when_the_script_has_come_to_its_end() {
    let house = house();
    let worker = house.worker(1);
    let mut client = house.ask("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n");
    let mut fpm = Fpm::accept(&worker);
    let (params, _) = fpm.request();
    assert_eq!(params["REQUEST_METHOD"], "HEAD");
    fpm.out("Content-Length: 7\r\n\r\n");
    fpm.out("ignored");
    fpm.end();
    let head = client.head();
    assert_eq!(
        (status(&head), field(&head, "content-length")),
        (200, Some("7"))
    );
    // Nothing came after it: the next answer is the next thing.
    client.send(GET);
    let mut fpm = Fpm::accept(&worker);
    fpm.request();
    fpm.out("Status: 204 No Content\r\n\r\n");
    fpm.end();
    assert_eq!(status(&client.head()), 204);
}

#[test]
fn standard_error_is_no_part_of_the_answer() {
    let house = house();
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut fpm = Fpm::accept(&worker);
    fpm.request();
    fpm.say(STDERR, b"PHP Warning: \x1b[31m before the head");
    fpm.out("Content-Length: 6\r\n\r\nabc");
    fpm.say(STDERR, &[b'e'; 0xffff]);
    fpm.out("def");
    fpm.end();
    let head = client.head();
    assert_eq!(client.content(&head), b"abcdef");
}

#[test]
fn a_silent_script_meets_the_deadline_of_every_worker() {
    let house = House::with(|table| {
        speaks(table);
        table.routes[0].timeouts.read = SHORT;
    });
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut fpm = Fpm::accept(&worker);
    fpm.request();
    assert_eq!(status(&client.head()), 504);
    assert!(fpm.is_closed(), "nobody waits for it any more");
}

#[test]
fn a_client_that_leaves_calls_its_request_off() {
    let mut house = house();
    let worker = house.worker(1);
    let client = house.ask(GET);
    let mut fpm = Fpm::accept(&worker);
    fpm.request();
    drop(client);
    assert!(fpm.is_closed());
    assert_eq!(house.count(1), (0, 1));
}

#[test]
fn nobody_there_is_unavailable() {
    let house = House::with(|table| {
        speaks(table);
        table.routes[0].timeouts.write = SHORT;
    });
    assert_eq!(status(&house.ask(GET).head()), 503);
}

#[test]
fn a_probe_speaks_fastcgi_too() {
    let mut house = house();
    let worker = house.worker(1);
    let probe = |id, address| ToProxy::Probe {
        id,
        address,
        protocol: scripts(),
        path: "/up?x".to_owned(),
        timeout: DEADLINE,
    };
    house.say(probe(1, Address::Unix(house.socket(1))));
    let mut fpm = Fpm::accept(&worker);
    let (params, _) = fpm.request();
    assert_eq!(params["REQUEST_URI"], "/up?x");
    assert_eq!(params["SCRIPT_FILENAME"], "/srv/w/public/index.php");
    fpm.out("Status: 500 Oh\r\n\r\n");
    fpm.end();
    assert_eq!(house.hear(), probed(1, ProbeOutcome::Status(500)));
    house.say(probe(2, Address::Unix(house.socket(1))));
    Fpm::accept(&worker).request();
    match house.hear() {
        ToManager::Probed {
            id: 2,
            outcome: ProbeOutcome::Broken(how),
        } => {
            // It may have left before it had read the end of the request.
            let known = ["in the middle of its answer", "reset by peer"];
            assert!(known.iter().any(|known| how.contains(known)), "{how}");
        }
        other => panic!("{other:?}"),
    }
}

fn probed(id: u64, outcome: ProbeOutcome) -> ToManager {
    ToManager::Probed { id, outcome }
}

#[test]
fn no_script_is_sent_as_a_file() {
    let mut house = house();
    let worker = house.worker(1);
    for name in [
        "a.php",
        "b.PHP",
        "c.phtml",
        "d.phar",
        "e.php~",
        "f.php.bak",
        "style.css",
        "x/index.html",
    ] {
        house.file(name, b"<?php secret");
    }
    house.publish(|table| table.routes[0].public = Some(table_public(table)));
    for path in [
        "/a.php",
        "/%61.php",
        "/a%2ephp",
        "/b.PHP",
        "/c.phtml",
        "/d.phar",
        "/e.php~",
        "/f.php.bak",
        "/a.php/",
        "/a.php/style.css",
        "/",
        "/x",
        "/none",
    ] {
        let mut client = house.ask(&format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n"));
        let mut fpm = Fpm::accept(&worker);
        fpm.request();
        fpm.out("Content-Length: 3\r\n\r\nran");
        fpm.end();
        let head = client.head();
        assert_eq!(client.content(&head), b"ran", "{path}");
    }
    for path in ["/style.css", "/x/"] {
        let (head, body) = house.get(path, "");
        assert_eq!(
            (status(&head), &body[..]),
            (200, &b"<?php secret"[..]),
            "{path}"
        );
    }
    // Also while there is nobody who would run it.
    house.publish(|table| {
        table.routes[0].target = Target::Unavailable {
            reason: "it ended".to_owned(),
            retry_after: None,
            awaited: None,
        };
    });
    assert_eq!(status(&house.get("/a.php", "").0), 503);
    assert_eq!(status(&house.get("/style.css", "").0), 200);
}

/// A worker of scripts below `/shop`, of which these directories have an index.
fn shop(indexes: &[&str]) -> (House, crate::house::Worker) {
    let mut house = house();
    let worker = house.worker(1);
    let indexes = indexes.iter().map(|one| (*one).to_owned());
    let indexes = Indexes::new(indexes).unwrap();
    house.publish(|table| {
        let route = RoutePath::parse("/shop").unwrap();
        table.routes[0].path = route.clone();
        let Target::Serving(upstream) = &mut table.routes[0].target else {
            panic!("a worker serves");
        };
        let Protocol::FastCgi(scripts) = &mut upstream.protocol else {
            panic!("it speaks FastCGI");
        };
        (scripts.route, scripts.indexes) = (route, Some(indexes));
    });
    (house, worker)
}

#[test]
fn a_directory_with_an_index_is_that_script_and_has_a_slash_at_its_end() {
    let (house, worker) = shop(&["", "admin", "admin/users"]);
    for (asked, script, rest) in [
        ("GET /shop/", "/shop/index.php", ""),
        ("GET /shop/admin/", "/shop/admin/index.php", ""),
        (
            "GET /shop/admin/users/?q",
            "/shop/admin/users/index.php",
            "",
        ),
        ("GET /shop/admin/other/", "/shop/index.php", ""),
        ("GET /shop/a", "/shop/index.php", ""),
        ("GET /shop/other.php", "/shop/other.php", ""),
        ("GET /shop/index.php/foo/bar", "/shop/index.php", "/foo/bar"),
        // What carries something stays where it was sent.
        ("POST /shop", "/shop/index.php", ""),
        ("POST /shop/admin", "/shop/admin/index.php", ""),
    ] {
        let mut client = house.ask(&format!(
            "{asked} HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"
        ));
        let mut fpm = Fpm::accept(&worker);
        let (params, _) = fpm.request();
        fpm.out("Content-Length: 0\r\n\r\n");
        fpm.end();
        assert_eq!(status(&client.head()), 200, "{asked}");
        assert_eq!(params["SCRIPT_NAME"], script, "{asked}");
        let found = params.get("PATH_INFO").map_or("", |path| path);
        assert_eq!(found, rest, "{asked}");
    }
    for (path, location) in [
        ("/shop", "/shop/"),
        ("/shop?a=b", "/shop/?a=b"),
        ("/shop/admin", "/shop/admin/"),
        ("/shop/%61dmin/users?q", "/shop/%61dmin/users/?q"),
    ] {
        for method in ["GET", "HEAD"] {
            let mut client = house.ask(&format!("{method} {path} HTTP/1.1\r\nhost: h\r\n\r\n"));
            let head = client.head();
            assert_eq!(
                (status(&head), field(&head, "location")),
                (308, Some(location)),
                "{method} {path}"
            );
        }
    }
    assert!(worker.is_alone());
}

fn table_public(table: &RouteTable) -> std::path::PathBuf {
    let Target::Serving(Upstream {
        address: Address::Unix(socket),
        ..
    }) = &table.routes[0].target
    else {
        panic!("a worker serves");
    };
    socket.with_file_name("public")
}

#[test]
fn a_table_without_protocols_is_one_of_http() {
    let house = House::new();
    let mut table = serde_json::to_value(&house.table).unwrap();
    let upstream = &mut table["routes"][0]["target"]["serving"];
    assert!(
        upstream
            .as_object_mut()
            .unwrap()
            .remove("protocol")
            .is_some()
    );
    let read: RouteTable = serde_json::from_value(table).unwrap();
    assert_eq!(read, house.table);
    assert_eq!(
        house.serving(1),
        Target::Serving(Upstream {
            generation: Generation(1),
            address: Address::Unix(house.socket(1)),
            instances: BTreeMap::new(),
            protocol: Protocol::Http,
            max_requests: 0,
            starting: None,
        })
    );
}

#[test]
fn variables_come_from_what_the_proxy_knows_and_not_from_fields() {
    let house = House::with(|table| {
        speaks(table);
        table.front.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let worker = house.worker(1);
    let port = house.listening[0].port().to_string();
    for (fields, known) in [
        (
            "",
            [
                ("REMOTE_ADDR", Some("127.0.0.1")),
                ("REMOTE_HOST", Some("127.0.0.1")),
                ("SERVER_PORT", Some(&*port)),
                ("REQUEST_SCHEME", Some("http")),
                ("HTTPS", None),
            ],
        ),
        (
            "x-forwarded-for: 1' OR 1=1 -- <script>, 203.0.113.9:4711\r\nx-forwarded-proto: https\r\n",
            [
                ("REMOTE_ADDR", Some("203.0.113.9")),
                ("REMOTE_HOST", Some("203.0.113.9")),
                ("SERVER_PORT", Some("443")),
                ("REQUEST_SCHEME", Some("https")),
                ("HTTPS", Some("on")),
            ],
        ),
    ] {
        let client = house.ask(&format!(
            "GET / HTTP/1.1\r\nhost: example.org:81\r\nremote_addr: 6.6.6.6\r\nhttps: on\r\n{fields}\r\n"
        ));
        let (params, _) = Fpm::accept(&worker).request();
        for (name, value) in known {
            assert_eq!(params.get(name).map(String::as_str), value, "{name}");
        }
        assert_eq!(params["SERVER_NAME"], "example.org");
        assert_eq!(params["SERVER_ADDR"], "127.0.0.1");
        let peer = client.stream.local_addr().unwrap().port().to_string();
        let port = if fields.is_empty() { &*peer } else { "4711" };
        assert_eq!(params["REMOTE_PORT"], port);
    }
}
