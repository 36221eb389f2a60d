//! Answers of a worker that are refused, or reach the client in one form; and what a worker says too much, which nobody gets.

use std::io::{Read, Write};

use crate::corpus::{Case, escape, read};
use crate::house::{House, Talk, field, status};

const NEXT: &str = "GET /next HTTP/1.1\r\nhost: h\r\n\r\n";

/// What a case says of `mark`.
fn word(case: &Case, mark: char) -> Option<&str> {
    let mut marked = case.expected.iter().filter(|(found, _)| *found == mark);
    marked.next().map(|(_, text)| text.as_str())
}

/// The next answer as a line: its status, and how its body is framed, and the body.
fn answer<S>(client: &mut Talk<S>, method: &str) -> (String, String)
where
    S: Read + Write + crate::house::Stream,
{
    let head = loop {
        let head = client.head();
        if status(&head) >= 200 {
            break head;
        }
    };
    let status = status(&head);
    let (length, coding) = (
        field(&head, "content-length"),
        field(&head, "transfer-encoding"),
    );
    let line = match (length, coding) {
        (Some(length), Some(coding)) => format!("{status} length {length} and {coding}"),
        (Some(length), None) if method == "HEAD" => format!("{status} length {length}"),
        (Some(length), None) => {
            let body = client.content(&head);
            format!("{status} length {length} {}", escape(&body))
        }
        (None, Some(coding)) => {
            let mut body = Vec::new();
            while let size @ 1.. = size(client) {
                body.extend(client.bytes(size));
                client.expect("\r\n");
            }
            client.expect("\r\n");
            format!("{status} {coding} {}", escape(&body))
        }
        (None, None) => format!("{status} none"),
    };
    (line.trim_end().to_owned(), head)
}

fn size<S: crate::house::Stream>(client: &mut Talk<S>) -> usize {
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        line.push(char::from(client.bytes(1)[0]));
    }
    usize::from_str_radix(line.trim_end(), 16).unwrap()
}

fn check(case: &Case) -> Result<(), String> {
    let house = House::new();
    let worker = house.worker(1);
    let method = word(case, '?').unwrap_or("GET");
    let mut client = house.ask(&format!("{method} / HTTP/1.1\r\nhost: h\r\n\r\n"));
    let mut upstream = worker.accept();
    upstream.head();
    upstream.stream.write_all(&case.bytes).unwrap();
    let fate = word(case, '~').unwrap_or_default();
    let mut upstream = (fate != "closes").then_some(upstream);
    let (line, head) = answer(&mut client, method);
    let expected = word(case, '<').unwrap_or_default();
    // The page of a refusal is not of interest.
    let refused = expected == "502" && line.starts_with("502 length");
    if !refused && line != expected {
        return Err(format!("answered {line:?}, not {expected:?}"));
    }
    for (mark, text) in &case.expected {
        let (name, value) = text.split_once(": ").unwrap_or((text, ""));
        let found = field(&head, name);
        if (*mark == '+' && found != Some(value)) || (*mark == '-' && found.is_some()) {
            return Err(format!("{mark} {text}: found {found:?}"));
        }
    }
    if fate == "dropped" {
        let _ = upstream.take().unwrap().rest();
    }
    // Whatever it was, the next one gets its own answer.
    client.send(NEXT);
    let mut upstream = upstream.unwrap_or_else(|| worker.accept());
    if !upstream.head().starts_with("GET /next ") {
        return Err("another request".to_owned());
    }
    upstream.answer("next");
    match answer(&mut client, "GET").0.as_str() {
        "200 length 4 next" => Ok(()),
        other => Err(format!("the next one was answered {other:?}")),
    }
}

#[test]
fn every_answer_is_refused_or_reaches_the_client_in_one_form() {
    let mut wrong = String::new();
    for case in read("answers") {
        let checked = std::panic::catch_unwind(|| check(&case));
        match checked.unwrap_or_else(|_| Err("see the panic above".to_owned())) {
            Ok(()) => {}
            Err(problem) => {
                wrong += &format!("{}\n  {}\n  {problem}\n", case.name, escape(&case.bytes));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn what_a_worker_says_unasked_is_nobodys_answer() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(NEXT);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.answer("next");
    assert_eq!(answer(&mut client, "GET").0, "200 length 4 next");
    // Whoever came next would get it, if the connection were kept.
    upstream.answer("poison");
    upstream.closes();
    client.send(NEXT);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.answer("mine");
    assert_eq!(answer(&mut client, "GET").0, "200 length 4 mine");
}
