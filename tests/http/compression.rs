//! Answers are compressed for those who take it, as they come, and what was compressed in advance is sent as it lies there.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use crate::house::{House, Talk, field, find, status};
use tqserver::route::{Development, Target, Work};

const ASKING: &str = "GET / HTTP/1.1\r\nhost: h\r\naccept-encoding: gzip, br, zstd\r\n\r\n";

fn house() -> House {
    House::with(|table| table.routes[0].compression = true)
}

fn page() -> String {
    (0..500).map(|i| format!("<p>line {i}</p>\n")).collect()
}

/// The next chunk of a body, empty at its end, where trailers may follow.
fn chunk(client: &mut Talk<TcpStream>) -> Vec<u8> {
    let mut size = Vec::new();
    while !size.ends_with(b"\r\n") {
        size.extend(client.bytes(1));
    }
    let size = String::from_utf8(size).unwrap();
    let size = usize::from_str_radix(size.trim(), 16).unwrap();
    let chunk = client.bytes(size);
    if size > 0 {
        client.expect("\r\n");
    }
    chunk
}

fn body(client: &mut Talk<TcpStream>) -> Vec<u8> {
    let body = chunks(client);
    client.expect("\r\n");
    body
}

fn chunks(client: &mut Talk<TcpStream>) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        match chunk(client) {
            end if end.is_empty() => return body,
            more => body.extend(more),
        }
    }
}

fn decoded(coding: &str, bytes: &[u8]) -> std::io::Result<String> {
    let mut plain = String::new();
    match coding {
        "zstd" => zstd::stream::read::Decoder::new(bytes)?.read_to_string(&mut plain)?,
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut plain)?,
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_string(&mut plain)?,
        other => panic!("{other:?} is no coding"),
    };
    Ok(plain)
}

#[test]
fn the_client_chooses_the_coding() {
    let house = house();
    let text = page();
    let served = text.clone();
    house.worker(1).serve(move |talk| {
        while talk.try_head().is_some() {
            let length = served.len();
            talk.send(&format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\netag: \"1\"\r\ncontent-length: {length}\r\n\r\n{served}"));
        }
    });
    let mut client = house.client();
    for (accept, coding) in [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, br", "br"),
        ("gzip", "gzip"),
    ] {
        client.send(&format!(
            "GET / HTTP/1.1\r\nhost: h\r\naccept-encoding: {accept}\r\n\r\n"
        ));
        let head = client.head();
        assert_eq!(field(&head, "content-encoding"), Some(coding));
        assert_eq!(field(&head, "vary"), Some("Accept-Encoding"));
        assert_eq!(field(&head, "etag"), Some("W/\"1\""));
        assert_eq!(field(&head, "content-length"), None);
        let body = body(&mut client);
        assert!(body.len() < text.len() / 2);
        assert_eq!(decoded(coding, &body).unwrap(), text);
    }
    // One that takes none, and one that could not tell where it ends.
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    let head = client.head();
    assert_eq!(field(&head, "content-encoding"), None);
    assert_eq!(client.content(&head), text.as_bytes());
    client.send("GET / HTTP/1.0\r\naccept-encoding: gzip\r\n\r\n");
    let head = client.head();
    assert_eq!(field(&head, "content-encoding"), None);
    assert_eq!(client.content(&head), text.as_bytes());
}

#[test]
fn without_the_setting_nothing_is_compressed() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(ASKING);
    let mut upstream = worker.accept();
    let asked = upstream.head();
    assert_eq!(field(&asked, "accept-encoding"), Some("gzip, br, zstd"));
    let text = page();
    let length = text.len();
    upstream.send(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n{text}"
    ));
    let head = client.head();
    assert_eq!(field(&head, "content-encoding"), None);
    assert_eq!(field(&head, "vary"), None);
    assert_eq!(client.content(&head), text.as_bytes());
}

#[test]
fn what_a_worker_sends_slowly_arrives_as_it_is_sent() {
    let house = house();
    let worker = house.worker(1);
    let mut client = house.ask(&ASKING.replace("gzip, br, zstd", "gzip"));
    let mut upstream = worker.accept();
    upstream.head();
    upstream
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(field(&client.head(), "content-encoding"), Some("gzip"));
    let mut sent = Vec::new();
    for word in ["one", "two", "six"] {
        upstream.send(&format!("3\r\n{word}\r\n"));
        // The next word is not sent before this one has come.
        let mut plain = Vec::new();
        while !plain.ends_with(word.as_bytes()) {
            sent.extend(chunk(&mut client));
            plain.clear();
            let mut decoder = flate2::read::GzDecoder::new(&*sent);
            // There is no end yet.
            let _ = decoder.read_to_end(&mut plain);
        }
    }
    upstream.send("0\r\n\r\n");
    sent.extend(body(&mut client));
    assert_eq!(decoded("gzip", &sent).unwrap(), "onetwosix");
}

#[test]
fn an_answer_that_breaks_off_is_seen_to() {
    for (accept, coding) in [("zstd", "zstd"), ("br", "br"), ("gzip", "gzip")] {
        let house = house();
        let worker = house.worker(1);
        let mut client = house.ask(&ASKING.replace("gzip, br, zstd", accept));
        let mut upstream = worker.accept();
        upstream.head();
        let text = page();
        upstream.send(&format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 100000\r\n\r\n{text}"
        ));
        assert_eq!(field(&client.head(), "content-encoding"), Some(coding));
        drop(upstream);
        drop(worker);
        let rest = client.rest().unwrap_or_default();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{coding}: it has an end");
    }
}

#[test]
fn event_streams_and_what_is_coded_already_pass_as_they_are() {
    let house = house();
    let worker = house.worker(1);
    let mut client = house.ask(ASKING);
    let mut upstream = worker.accept();
    for fields in [
        "content-type: text/event-stream",
        "content-type: text/html\r\ncontent-encoding: x-own",
        "content-type: application/grpc",
        "content-type: text/html\r\ncache-control: no-transform",
    ] {
        upstream.head();
        upstream.send(&format!(
            "HTTP/1.1 200 OK\r\n{fields}\r\ntransfer-encoding: chunked\r\n\r\n6\r\ndata: \r\n0\r\n\r\n"
        ));
        client.head();
        client.expect("6\r\ndata: \r\n0\r\n\r\n");
        client.send(ASKING);
    }
}

#[test]
fn trailers_come_after_a_compressed_body() {
    let house = house();
    let worker = house.worker(1);
    let mut client = house.ask(&ASKING.replace("\r\n\r\n", "\r\nte: trailers\r\n\r\n"));
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n1\r\nb\r\n0\r\nx-sum: 2\r\n\r\n");
    client.head();
    assert_eq!(decoded("zstd", &chunks(&mut client)).unwrap(), "b");
    client.expect("x-sum: 2\r\n\r\n");
}

#[test]
fn a_page_in_development_is_followed_by_the_script_and_compressed() {
    let house = House::with(|table| {
        table.routes[0].compression = true;
        table.development = Some(Development {
            server: "run".to_owned(),
            hold: Duration::ZERO,
        });
        table.routes[0].work = Some(Work::default());
    });
    let worker = house.worker(1);
    let mut client = house.ask(&ASKING.replace("\r\n\r\n", "\r\naccept: text/html\r\n\r\n"));
    let mut upstream = worker.accept();
    assert_eq!(field(&upstream.head(), "accept-encoding"), None);
    let text = page();
    let length = text.len();
    upstream.send(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n{text}"
    ));
    assert_eq!(field(&client.head(), "content-encoding"), Some("zstd"));
    let page = decoded("zstd", &body(&mut client)).unwrap();
    assert!(page.starts_with(&text) && page.contains("/.tqserver/client.js"));
}

/// A house with files only: a script of some size, and an image.
fn files() -> House {
    let mut house = house();
    house.file("app.js", page().as_bytes());
    house.file("photo.png", &[7; 4000]);
    let public = house.public();
    house.publish(|table| {
        table.routes[0].public = Some(public);
        table.routes[0].target = Target::Files;
    });
    house
}

#[test]
fn a_file_is_compressed_unless_a_part_is_wanted() {
    let house = files();
    let mut client = house.ask(&ASKING.replace("/ HTTP", "/app.js HTTP"));
    let head = client.head();
    assert_eq!(field(&head, "content-encoding"), Some("zstd"));
    assert_eq!(field(&head, "accept-ranges"), None);
    assert_eq!(decoded("zstd", &body(&mut client)).unwrap(), page());
    let tag = field(&head, "etag").unwrap();
    let asked = format!("accept-encoding: zstd\r\nif-none-match: {tag}\r\n");
    let (again, _) = house.get("/app.js", &asked);
    assert_eq!((status(&again), field(&again, "etag")), (304, Some(tag)));
    let (part, bytes) = house.get("/app.js", "accept-encoding: zstd\r\nrange: bytes=3-6\r\n");
    assert_eq!((status(&part), &*bytes), (206, b"line".as_slice()));
    assert_eq!(field(&part, "content-encoding"), None);
    let large = std::fs::File::create(house.public().join("large.txt")).unwrap();
    large.set_len((8 << 20) + 1).unwrap();
    for method in ["HEAD", "GET"] {
        let head = house
            .ask(&ASKING.replace("GET / HTTP", &format!("{method} /large.txt HTTP")))
            .head();
        assert_eq!(field(&head, "content-encoding"), None);
        assert_eq!(field(&head, "content-length"), Some("8388609"));
    }
    let (image, bytes) = house.get("/photo.png", "accept-encoding: zstd\r\n");
    assert_eq!((bytes.len(), field(&image, "vary")), (4000, None));
}

#[test]
fn what_lies_beside_a_file_is_sent_in_its_place() {
    let house = files();
    house.file("app.js.br", b"brotli");
    house.file("app.js.gz", b"gzip");
    for (accept, coding, content) in [
        ("gzip, br, zstd", Some("br"), "brotli"),
        ("gzip", Some("gzip"), "gzip"),
        ("br;q=0.1, gzip", Some("gzip"), "gzip"),
        ("identity", None, &*page()),
    ] {
        let (head, body) = house.get("/app.js", &format!("accept-encoding: {accept}\r\n"));
        assert_eq!(field(&head, "content-encoding"), coding, "{accept}");
        assert_eq!(String::from_utf8(body).unwrap(), content);
        let kind = field(&head, "content-type");
        assert_eq!(kind, Some("text/javascript; charset=utf-8"));
        assert_eq!(field(&head, "vary"), Some("Accept-Encoding"));
    }
    let (head, _) = house.get("/app.js.gz", "accept-encoding: gzip\r\n");
    assert_eq!(field(&head, "content-type"), Some("application/gzip"));
    assert_eq!(field(&head, "content-encoding"), None);
}

#[test]
fn what_lies_beside_a_file_is_an_answer_of_its_own() {
    let house = files();
    house.file("app.js.br", b"brotli");
    let (plain, _) = house.get("/app.js", "");
    let (head, _) = house.get("/app.js", "accept-encoding: br\r\n");
    let tag = field(&head, "etag").unwrap();
    assert!(tag.starts_with('"') && field(&plain, "etag") != Some(tag));
    let (again, _) = house.get(
        "/app.js",
        &format!("accept-encoding: br\r\nif-none-match: {tag}\r\n"),
    );
    assert_eq!(status(&again), 304);
    assert_eq!(field(&again, "vary"), Some("Accept-Encoding"));
    let (part, bytes) = house.get(
        "/app.js",
        &format!("accept-encoding: br\r\nrange: bytes=0-2\r\nif-range: {tag}\r\n"),
    );
    assert_eq!((status(&part), &*bytes), (206, b"bro".as_slice()));
    assert_eq!(field(&part, "content-encoding"), Some("br"));
    assert_eq!(field(&part, "content-range"), Some("bytes 0-2/6"));
    // A part of the plain file, with another coding on offer, is still one of the plain file.
    let (part, bytes) = house.get("/app.js", "range: bytes=3-6\r\n");
    assert_eq!((status(&part), &*bytes), (206, b"line".as_slice()));
}

#[test]
fn what_is_older_than_its_source_is_passed_over() {
    let mut house = files();
    let beside = house.file("app.js.gz", b"gzip");
    let then = SystemTime::now() - Duration::from_secs(60);
    let file = std::fs::File::options().write(true).open(&beside).unwrap();
    file.set_modified(then).unwrap();
    let mut client = house.ask(
        &ASKING
            .replace("/ HTTP", "/app.js HTTP")
            .replace("gzip, br, zstd", "gzip"),
    );
    client.head();
    assert_eq!(decoded("gzip", &body(&mut client)).unwrap(), page());
    // With the time of its source, as compressors give it.
    let source = std::fs::File::options()
        .write(true)
        .open(house.public().join("app.js"))
        .unwrap();
    source.set_modified(then).unwrap();
    // What is deployed does not change until the next table.
    house.publish(|_| {});
    let (_, content) = house.get("/app.js", "accept-encoding: gzip\r\n");
    assert_eq!(content, b"gzip");
}

#[test]
fn a_link_beside_a_file_leads_nowhere_outside() {
    let house = files();
    std::fs::write(house.directory.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", house.public().join("app.js.gz")).unwrap();
    let mut client = house.ask(&ASKING.replace("/ HTTP", "/app.js HTTP"));
    client.head();
    let body = body(&mut client);
    assert!(find(&body, b"secret").is_none());
    assert_eq!(decoded("zstd", &body).unwrap(), page());
}

#[test]
fn not_modified_varies_as_the_whole_would() {
    let mut house = house();
    house.file("app.js", page().as_bytes());
    house.file("photo.png", page().as_bytes());
    let public = house.public();
    house.publish(|table| table.routes[0].public = Some(public));
    for (path, vary) in [("/app.js", Some("Accept-Encoding")), ("/photo.png", None)] {
        // The tag of what is not compressed, and a date.
        let (plain, _) = house.get(path, "");
        for known in [
            format!("if-none-match: {}\r\n", field(&plain, "etag").unwrap()),
            format!(
                "if-modified-since: {}\r\n",
                field(&plain, "last-modified").unwrap()
            ),
        ] {
            let (again, _) = house.get(path, &format!("accept-encoding: zstd\r\n{known}"));
            assert_eq!(
                (status(&again), field(&again, "vary")),
                (304, vary),
                "{path}"
            );
        }
    }
    let worker = house.worker(1);
    for (fields, vary) in [
        ("etag: \"1\"\r\n", Some("Accept-Encoding")),
        ("", Some("Accept-Encoding")),
        ("vary: Cookie\r\n", Some("Cookie, Accept-Encoding")),
        ("cache-control: no-transform\r\n", None),
    ] {
        let mut client = house.ask(
            "GET / HTTP/1.1\r\nhost: h\r\naccept-encoding: zstd\r\nif-none-match: \"1\"\r\n\r\n",
        );
        let mut talk = worker.accept();
        talk.head();
        talk.send(&format!(
            "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n{fields}\r\n"
        ));
        let head = client.head();
        assert_eq!(
            (status(&head), field(&head, "vary")),
            (304, vary),
            "{fields}"
        );
    }
}
