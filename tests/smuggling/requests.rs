//! Requests that are refused, or pass and mean one thing.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixListener;

use tqserver::route::{Route, RoutePath};

use crate::corpus::{Case, escape, read};
use crate::house::{House, field, find, status};
use crate::recorder::{Arrival, Record};

/// Sent where the connection should still be open: it must be read as what it is.
const SENTINEL: &[u8] = b"GET /sentinel HTTP/1.1\r\nhost: h\r\n\r\n";

/// Statuses after which nothing more is read from the connection.
const CLOSING: [u16; 8] = [400, 408, 413, 414, 417, 431, 501, 505];

/// A proxy in front of a worker that takes down what it gets, on `/`, on `/api` and on `/pub`, which has files.
pub(crate) fn open() -> (House, Record) {
    let mut house = House::new();
    let record = Record::default();
    record.listen(UnixListener::bind(house.socket(1)).unwrap());
    house.file("hello.txt", b"hello");
    house.file(".hidden", b"hidden");
    house.file("sub/page.html", b"page");
    std::fs::write(house.directory.path().join("secret"), "secret").unwrap();
    let public = house.public();
    house.publish(|table| {
        let root = table.routes[0].clone();
        for (path, public) in [("/api", None), ("/pub", Some(public))] {
            table.routes.push(Route {
                path: RoutePath::parse(path).unwrap(),
                public,
                ..root.clone()
            });
        }
    });
    (house, record)
}

/// What a case led to.
pub(crate) struct Outcome {
    pub(crate) statuses: Vec<u16>,
    pub(crate) arrivals: Vec<Arrival>,
    /// What is wrong with it, whatever the case expects.
    pub(crate) problems: Vec<String>,
}

/// Sends what a case says, and reads as many answers as it expects.
pub(crate) fn run(case: &Case, house: &House, record: &Record) -> Outcome {
    record.take();
    let expected: Vec<&str> = case
        .expected
        .iter()
        .filter(|(mark, _)| *mark == '<')
        .flat_map(|(_, text)| text.split(' '))
        .collect();
    let mut client = house.client();
    // Who refuses the first half does not wait for the second.
    let _ = client.stream.write_all(&case.bytes);
    let mut answers = Answers::default();
    let mut statuses = Vec::new();
    let mut problems = Vec::new();
    while statuses.len() < expected.iter().filter(|word| **word != "close").count() {
        match answers.next(&mut client.stream) {
            Some(status) => statuses.push(status),
            None => break,
        }
        if statuses
            .last()
            .is_some_and(|status| CLOSING.contains(status))
        {
            break;
        }
    }
    let last = statuses.last().copied().unwrap_or_default();
    let closes = CLOSING.contains(&last) || expected.last() == Some(&"close");
    let mut arrivals = record.take();
    if closes || last == 0 {
        while let Some(status) = answers.next(&mut client.stream) {
            problems.push(format!("another answer: {status}"));
        }
    } else {
        let _ = client.stream.write_all(SENTINEL);
        let answered = answers.next(&mut client.stream);
        let sentinel: Vec<String> = record.take().iter().map(Arrival::to_string).collect();
        if answered != Some(200) || sentinel != ["GET /sentinel none"] {
            problems.push(format!("the next request: {answered:?}, {sentinel:?}"));
        }
    }
    if answers.silent {
        problems.push("nothing came, and the connection stands".to_owned());
    }
    // What came late is an arrival as well.
    arrivals.extend(record.take());
    for arrival in &arrivals {
        for fault in &arrival.faults {
            problems.push(format!("ambiguous at the worker: {fault}"));
        }
    }
    let files = case
        .expected
        .iter()
        .filter(|(_, text)| text == "file")
        .count();
    let good = statuses
        .iter()
        .filter(|status| (200..300).contains(*status))
        .count();
    // A request whose body breaks off has begun to arrive, and is not taken down.
    if good != arrivals.len() + files {
        problems.push(format!("{good} answers and {} requests", arrivals.len()));
    }
    Outcome {
        statuses,
        arrivals,
        problems,
    }
}

/// The answers on one connection.
#[derive(Default)]
pub(crate) struct Answers {
    heard: Vec<u8>,
    /// Nothing came in time, and the connection still stands.
    pub(crate) silent: bool,
}

impl Answers {
    /// The status of the next final answer; `None` at the end of the connection, or when nothing comes in time.
    pub(crate) fn next(&mut self, stream: &mut impl Read) -> Option<u16> {
        loop {
            while find(&self.heard, b"\r\n\r\n").is_none() {
                self.more(stream)?;
            }
            let end = find(&self.heard, b"\r\n\r\n")? + 4;
            let head = String::from_utf8_lossy(&self.heard[..end]).into_owned();
            self.heard.drain(..end);
            let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            while self.heard.len() < length {
                self.more(stream)?;
            }
            self.heard.drain(..length);
            if status(&head) >= 200 {
                return Some(status(&head));
            }
        }
    }

    fn more(&mut self, stream: &mut impl Read) -> Option<()> {
        let mut buffer = [0; 16 << 10];
        match stream.read(&mut buffer) {
            Ok(0) => None,
            Ok(read) => {
                self.heard.extend(&buffer[..read]);
                Some(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Some(()),
            Err(error) => {
                self.silent = error.kind() == ErrorKind::WouldBlock;
                None
            }
        }
    }
}

/// Whether an outcome is what the case says, and if not, what it is.
fn judge(case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut problems = outcome.problems.clone();
    let mut statuses = outcome.statuses.iter();
    let mut arrivals = outcome.arrivals.iter();
    let mut last = None;
    for (mark, text) in &case.expected {
        match mark {
            '<' => {
                for word in text.split(' ').filter(|word| *word != "close") {
                    let status = statuses
                        .next()
                        .map_or_else(|| "nothing".to_owned(), u16::to_string);
                    if !word.split('|').any(|one| one == status) {
                        problems.push(format!("answered {status}, not {word}"));
                    }
                }
            }
            '=' if text == "file" => {}
            '=' => {
                last = arrivals.next();
                let line = last.map_or("nothing", |arrival| &arrival.line);
                if line != text {
                    problems.push(format!("arrived {line:?}, not {text:?}"));
                }
            }
            '+' | '-' => {
                let head = last.map_or("", |arrival| &arrival.head);
                let (name, value) = text.split_once(':').unwrap_or((text, ""));
                let value = value.trim_start();
                let found = field(head, name);
                let fine = match mark {
                    '+' => found == Some(value),
                    _ => found.is_none(),
                };
                if !fine {
                    problems.push(format!("{mark} {text}: found {found:?}"));
                }
            }
            _ => problems.push(format!("{mark} is no word about a request")),
        }
    }
    problems.extend(arrivals.map(|arrival| format!("arrived besides: {arrival}")));
    problems
}

#[test]
fn every_request_is_refused_or_means_one_thing() {
    let (house, record) = open();
    let cases = read("requests");
    assert!(cases.len() >= 300, "{} cases", cases.len());
    let mut wrong = String::new();
    for case in &cases {
        let problems = judge(case, &run(case, &house, &record));
        if !problems.is_empty() {
            let bytes = escape(&case.bytes[..case.bytes.len().min(300)]);
            wrong += &format!("{}\n  {bytes}\n  {}\n", case.name, problems.join("\n  "));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn cutting_a_request_in_pieces_changes_nothing() {
    let (house, record) = open();
    for case in read("requests") {
        let large = case.bytes.len() > 1000;
        let outcome = run(&case, &house, &record);
        let whole: Vec<String> = outcome.arrivals.iter().map(Arrival::to_string).collect();
        if large || outcome.statuses.iter().any(|status| *status != 200) || whole.is_empty() {
            continue;
        }
        let mut client = house.client();
        client.stream.set_nodelay(true).unwrap();
        for piece in case.bytes.chunks(7) {
            let _ = client.stream.write_all(piece);
        }
        let mut answers = Answers::default();
        for _ in 0..whole.len() {
            assert_eq!(answers.next(&mut client.stream), Some(200), "{}", case.name);
        }
        let pieces: Vec<String> = record.take().iter().map(Arrival::to_string).collect();
        assert_eq!(whole, pieces, "{}", case.name);
    }
}
