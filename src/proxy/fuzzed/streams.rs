//! Bytes as they come from clients.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::{Pieces, STEPS, now};
use crate::proxy::downstream::preamble;
use crate::proxy::wire::strict::{Flaw, Scanner, Verdict};

/// How every header of the PROXY protocol, version 2, begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// With that a client begins that speaks HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The begin of a connection.
pub fn preamble(data: &[u8]) {
    let outcomes = STEPS.map(|step| {
        let mut stream = Pieces::of(data, step);
        let client = now(preamble::proxied(&mut stream)).ok();
        // Nothing of what follows is taken, and nothing of it is left.
        if client.is_some() {
            let rest = usize::from(u16::from_be_bytes([data[14], data[15]]));
            assert_eq!(data.len() - stream.rest().len(), 16 + rest);
        }
        client
    });
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
    if let [Some(client), ..] = outcomes {
        assert_eq!(preamble::parse(data), Ok(client));
        assert!(data.starts_with(SIGNATURE));
        let said = match (data[12], data[13] >> 4) {
            (0x21, 1) => {
                let bytes: [u8; 4] = data[16..20].try_into().unwrap();
                Some(IpAddr::from(bytes))
            }
            (0x21, 2) => {
                let bytes: [u8; 16] = data[16..32].try_into().unwrap();
                Some(IpAddr::from(bytes).to_canonical())
            }
            (0x20 | 0x21, _) => None,
            (other, _) => panic!("command {other:#x}"),
        };
        assert_eq!(client.map(|proxied| proxied.client.ip()), said);
    }
    for step in STEPS {
        let mut stream = Pieces::of(data, step);
        let (is, read) = now(preamble::has_preface(&mut stream)).expect("nothing broke");
        assert_eq!(is, data.starts_with(PREFACE));
        assert_eq!([&read, stream.rest()].concat(), data);
    }
}

/// How the requests of a connection go on past the scanner.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Pass,
    Refuse(u64, Flaw),
    Break(usize),
}

fn scanned(data: &[u8], step: usize) -> Outcome {
    let mut scanner = Scanner::default();
    let mut before = 0;
    for piece in data.chunks(step.min(data.len().max(1))) {
        match scanner.take(piece, false) {
            Verdict::Pass => before += piece.len(),
            Verdict::Refuse(request, flaw) => return Outcome::Refuse(request, flaw),
            Verdict::Break(at) => return Outcome::Break(before + at),
        }
    }
    Outcome::Pass
}

/// What a client sends.
pub fn strict(data: &[u8]) {
    let whole = scanned(data, usize::MAX);
    for step in STEPS {
        match (&whole, scanned(data, step)) {
            // What has come of a line has passed.
            (Outcome::Break(whole), Outcome::Break(cut)) => {
                assert!(*whole <= cut && !data[*whole..cut].contains(&b'\n'));
            }
            (whole, cut) => assert_eq!(*whole, cut, "in pieces of {step}"),
        }
    }
    let (passed, refused) = match whole {
        Outcome::Pass => (data, u64::MAX),
        Outcome::Refuse(request, _) => (data, request),
        Outcome::Break(at) => (&data[..at], u64::MAX),
    };
    let read = by_the_book(passed, refused);
    let heard = by_hyper(passed);
    // The one that is refused, and what follows, is nobody's request.
    let count = usize::try_from(refused.saturating_sub(1)).unwrap_or(usize::MAX);
    for (at, request) in heard.iter().take(count).enumerate() {
        assert_eq!(Some(request), read.get(at), "request {}", at + 1);
    }
}

/// Method and body.
type Read = (String, Vec<u8>);

/// The whole requests in `bytes` before number `refused`, as RFC 9112 has them, each of which must have one end; at each of those the
/// scanner, too, must be at an end.
fn by_the_book(bytes: &[u8], refused: u64) -> Vec<Read> {
    let (mut at, mut scanner, mut all) = (0, Scanner::default(), Vec::new());
    let mut rest = bytes;
    loop {
        let (before, after) = (&bytes[at..bytes.len() - rest.len()], rest);
        at = bytes.len() - after.len();
        assert_eq!(scanner.take(before, false), Verdict::Pass);
        assert_eq!(scanner.between(), Some(all.len() as u64));
        while let Some(after) = rest.strip_prefix(b"\r\n") {
            rest = after;
        }
        if all.len() as u64 + 1 >= refused {
            return all;
        }
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut head = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(end)) = head.parse(rest) else {
            return all;
        };
        let values = |name: &str| -> Vec<&[u8]> {
            let named = head
                .headers
                .iter()
                .filter(|field| field.name.eq_ignore_ascii_case(name));
            named.map(|field| field.value).collect()
        };
        let mut body = Vec::new();
        let method = head.method.unwrap_or_default().to_owned();
        let framing = (
            &values("content-length")[..],
            &values("transfer-encoding")[..],
        );
        rest = &rest[end..];
        let whole = match framing {
            ([], []) => Some(rest),
            ([length], []) => {
                let length = std::str::from_utf8(length).unwrap().parse().unwrap();
                rest.split_at_checked(length).map(|(own, after)| {
                    body.extend_from_slice(own);
                    after
                })
            }
            ([], [coding]) => {
                assert!(coding.eq_ignore_ascii_case(b"chunked"));
                unchunked(rest, &mut body)
            }
            framing => panic!("two ends: {framing:?}"),
        };
        let Some(after) = whole else {
            return all;
        };
        rest = after;
        all.push((method, body));
    }
}

/// What follows a chunked body (RFC 9112, 7.1); `None` if it is not whole.
fn unchunked<'a>(mut rest: &'a [u8], body: &mut Vec<u8>) -> Option<&'a [u8]> {
    let line = |rest: &mut &'a [u8]| {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let (line, after) = rest.split_at(end);
        *rest = &after[2..];
        Some(line)
    };
    loop {
        let size = line(&mut rest)?;
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let (digits, extension) = size.split_at(digits.count());
        let extension = extension.trim_ascii();
        if !extension.is_empty() && extension[0] != b';' {
            return None;
        }
        let size = std::str::from_utf8(digits).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            while !line(&mut rest)?.is_empty() {}
            return Some(rest);
        }
        let (chunk, after) = rest.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n")?;
    }
}

/// The whole requests that hyper sees in `bytes`.
fn by_hyper(bytes: &[u8]) -> Vec<Read> {
    let all = Rc::new(RefCell::new(Vec::new()));
    let heard = all.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let heard = heard.clone();
        async move {
            let method = request.method().to_string();
            if let Ok(body) = request.into_body().collect().await {
                heard.borrow_mut().push((method, body.to_bytes().to_vec()));
            }
            let mut answer = Response::new(Empty::<Bytes>::new());
            *answer.status_mut() = StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(answer)
        }
    });
    let stream = tokio::io::join(Pieces::of(bytes, usize::MAX), tokio::io::sink());
    let mut server = http1::Builder::new();
    let connection = server
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // It has nothing to wait for but its own turn.
    for _ in 0..bytes.len() + 16 {
        let polled = connection
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if polled.is_ready() {
            break;
        }
    }
    all.take()
}
