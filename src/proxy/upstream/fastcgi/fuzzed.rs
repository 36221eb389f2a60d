//! What must hold of any request on its way to php-fpm, and of any bytes that come back.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net;

use http::{HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::net::UnixStream;

use super::exchange::Exchange;
use super::params;
use super::records::Records;
use super::response;
use super::trouble::Verdict;
use crate::proxy::fuzzed::{Pieces, fields, lines, now};
use crate::proxy::wire::origin::Origin;
use crate::proxy::wire::path;
use crate::route::{Indexes, RoutePath, Scripts};

/// What php-fpm sends.
pub fn answer(data: &[u8]) {
    // A socket takes as much without a reader.
    let data = &data[..data.len().min(64 << 10)];
    let outcomes = [(1, 64), (7, 3), (usize::MAX, 8192)].map(|(step, buffer)| {
        let stream = BufReader::with_capacity(16, Pieces::of(data, step));
        let mut records = Records::new(stream);
        let (mut handed, mut piece) = (Vec::new(), vec![0; buffer]);
        let is_whole = loop {
            match now(records.read(&mut piece)) {
                Ok(0) => break true,
                Ok(count) => handed.extend_from_slice(&piece[..count]),
                Err(_) => break false,
            }
        };
        (is_whole, handed)
    });
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
    let (is_whole, handed) = &outcomes[0];
    assert!(data.starts_with(handed));
    let said = is_whole.then(|| output(handed));
    let heard = exchanged(data);
    if let Some(heard) = heard {
        let said = said.expect("an answer without an end is none");
        assert!(said.ends_with(&heard), "the body is the end of the output");
    }
}

/// The standard output in whole records, the last of which ends the answer.
fn output(mut records: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    loop {
        let (head, rest) = records.split_at(8);
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let (content, rest) = rest.split_at(length);
        records = &rest[usize::from(head[6])..];
        assert_eq!(head[..1], [1]);
        assert_eq!(head[2..4], [0, 1]);
        match head[1] {
            3 => break,
            6 => output.extend_from_slice(content),
            7 => {}
            kind => panic!("a record of type {kind}"),
        }
    }
    assert!(records.is_empty(), "and nothing behind it");
    output
}

/// The body of the answer in `data`, if that is one.
fn exchanged(data: &[u8]) -> Option<Vec<u8>> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime needs little");
    }
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (near, mut far) = net::UnixStream::pair().expect("two sockets");
            far.write_all(data).expect("they take this much");
            far.shutdown(Shutdown::Write).expect("it is open");
            near.set_nonblocking(true).expect("a socket can be");
            let near = UnixStream::from_std(near).expect("in a runtime");
            let body = futures_util::io::empty();
            let told = fastcgi_client::Params::default();
            let begun = Exchange::begin(near, told, Box::pin(body), None).await;
            let (exchange, _sending) = begun.ok()?;
            let verdict = Verdict::default();
            let answer = response::begin(exchange, &Method::GET, verdict)
                .await
                .ok()?;
            assert!((200..600).contains(&answer.status().as_u16()));
            for name in [
                "connection",
                "transfer-encoding",
                "upgrade",
                "te",
                "trailer",
            ] {
                assert!(!answer.headers().contains_key(name), "{name}");
            }
            let length = answer.headers().get("content-length").cloned();
            let empty = [204, 304].contains(&answer.status().as_u16());
            let body = answer.into_body().collect().await.ok()?.to_bytes();
            if let Some(length) = length.filter(|_| !empty) {
                let length: usize = length.to_str().unwrap().parse().unwrap();
                assert!(body.len() >= length, "it is shorter than it says");
            }
            Some(body.to_vec())
        })
    })
}

/// A request's target and its fields, as php-fpm is told of them.
pub fn script(data: &[u8]) {
    let mut lines = lines(data);
    let Ok(uri) = Uri::try_from(lines.next().unwrap_or_default()) else {
        return;
    };
    let Ok(decoded) = path::decode(uri.path()) else {
        return;
    };
    let decoded = decoded.into_owned();
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.headers_mut() = fields(lines);
    let (parts, ()) = request.into_parts();
    for route in ["/", "/blog"] {
        let scripts = Scripts {
            root: "/srv/w/public".into(),
            front_controller: "index.php".to_owned(),
            indexes: Some(Indexes::default()),
            route: RoutePath::parse(route).expect("it is one"),
        };
        if !scripts.route.covers(&decoded) {
            continue;
        }
        let origin = Origin {
            client: HeaderValue::from_static("192.0.2.1"),
            client_port: Some(4711),
            way: HeaderValue::from_static("192.0.2.1"),
            proto: HeaderValue::from_static("http"),
            is_told: false,
            local: None,
        };
        let told = params::of(&parts, &scripts, Some(&origin));
        let before = params::size(&told);
        let told = params::with_length(told, 5);
        assert!(params::size(&told) - before <= params::LENGTH_SIZE);
        let get = |name: &str| told.get(name).map(|value| &**value).unwrap_or_default();
        let file = get("SCRIPT_FILENAME").strip_prefix("/srv/w/public/");
        let file = file.expect("a script is below the root");
        assert!(file.ends_with(".php") && !file.contains(['\\', '%', '\0']));
        for segment in file.split('/') {
            assert!(!segment.is_empty() && !segment.starts_with('.'), "{file:?}");
        }
        let name = get("SCRIPT_NAME");
        assert_eq!(name, format!("{}/{file}", scripts.route.prefix()));
        let is_front = file == "index.php" && get("PATH_INFO").is_empty();
        assert!(is_front || format!("{name}{}", get("PATH_INFO")) == decoded);
        assert_eq!(get("CONTENT_LENGTH"), "5");
        assert!(!told.contains_key("HTTP_PROXY") && !told.contains_key("HTTP_CONTENT_LENGTH"));
        for (name, value) in [
            ("REMOTE_ADDR", "192.0.2.1"),
            ("REMOTE_HOST", "192.0.2.1"),
            ("REMOTE_PORT", "4711"),
            ("SERVER_PORT", "80"),
            ("REQUEST_SCHEME", "http"),
            ("HTTPS", ""),
        ] {
            assert_eq!(get(name), value, "{name}");
        }
    }
}
