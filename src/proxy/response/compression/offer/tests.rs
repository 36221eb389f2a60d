use std::io::{Read, Write};
use std::pin::Pin;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream;
use http_body::Body as _;

use super::*;
use crate::proxy::response::compression::{Coding, accepted};

const LONG: u64 = 100_000;

fn request(lines: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder();
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn response(status: u16, lines: &[(&str, &str)]) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in lines {
        response = response.header(*name, *value);
    }
    let body = Body::full(Bytes::from(vec![b'a'; LONG as usize]));
    response.body(body).unwrap()
}

/// What becomes of an answer to a client that takes gzip.
fn gzipped(status: u16, lines: &[(&str, &str)]) -> Response<Body> {
    let mut response = response(status, lines);
    let offer = Offer::of(&request(&[("accept-encoding", "gzip")]));
    offer.unwrap().apply(&mut response);
    response
}

fn text<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    let mut values = response.headers().get_all(name).iter();
    let value = values.next();
    assert!(values.next().is_none(), "{name} is there twice");
    value.map(|value| value.to_str().unwrap())
}

#[test]
fn only_what_shrinks_is_compressed() {
    for (kind, expected) in [
        ("text/html; charset=utf-8", true),
        ("TEXT/HTML", true),
        ("text/css", true),
        ("text/event-stream", false),
        ("Text/Event-Stream;charset=utf-8", false),
        ("application/json", true),
        ("application/ld+json ; x=y", true),
        ("application/problem+json", true),
        ("image/svg+xml", true),
        ("application/wasm", true),
        ("font/ttf", true),
        ("font/woff2", false),
        ("font/woff", false),
        ("image/png", false),
        ("video/mp4", false),
        ("application/grpc", false),
        ("application/grpc+proto", false),
        ("application/grpc-web-text", false),
        ("application/x-ndjson", false),
        ("application/octet-stream", false),
        ("application/zip", false),
        ("json", false),
        ("", false),
    ] {
        let kind = HeaderValue::from_str(kind).unwrap();
        assert_eq!(is_compressible_type(&kind), expected, "{kind:?}");
    }
    assert_eq!(text(&gzipped(200, &[]), "content-encoding"), None);
}

#[test]
fn an_answer_that_speaks_of_its_own_bytes_is_not_touched() {
    for claim in [
        ("content-encoding", "br"),
        ("content-encoding", "identity"),
        ("content-range", "bytes 0-1/2"),
        ("cache-control", "no-transform"),
        ("cache-control", "public, No-Transform ,max-age=1"),
        ("content-digest", "sha-256=:x:"),
        ("repr-digest", "sha-256=:x:"),
        ("content-md5", "x"),
    ] {
        let lines = [("content-type", "text/html"), claim, ("etag", "\"x\"")];
        let response = gzipped(200, &lines);
        assert_eq!(text(&response, "vary"), None, "{claim:?}");
        assert_eq!(text(&response, "etag"), Some("\"x\""), "{claim:?}");
        assert_eq!(response.body().size_hint().exact(), Some(LONG), "{claim:?}");
    }
}

#[test]
fn the_status_decides() {
    for (status, expected) in [
        (200, true),
        (201, true),
        (404, true),
        (500, true),
        (101, false),
        (204, false),
        (205, false),
        (206, false),
        (301, false),
        (304, false),
    ] {
        let response = gzipped(status, &[("content-type", "text/html")]);
        let is = text(&response, "content-encoding").is_some();
        assert_eq!(is, expected, "{status}");
    }
}

#[test]
fn the_head_tells_the_truth_about_what_follows() {
    let response = gzipped(
        200,
        &[
            ("content-type", "text/html"),
            ("content-length", "100000"),
            ("accept-ranges", "bytes"),
            ("etag", "\"x\""),
        ],
    );
    assert_eq!(text(&response, "content-encoding"), Some("gzip"));
    assert_eq!(text(&response, "content-length"), None);
    assert_eq!(text(&response, "accept-ranges"), None);
    assert_eq!(text(&response, "etag"), Some("W/\"x\""));
    assert_eq!(text(&response, "vary"), Some("Accept-Encoding"));
    assert_eq!(response.body().size_hint().exact(), None);
    let response = gzipped(200, &[("content-type", "text/html"), ("etag", "W/\"x\"")]);
    assert_eq!(text(&response, "etag"), Some("W/\"x\""));
}

#[test]
fn head_is_answered_as_get_would_be() {
    let mut asked = request(&[("accept-encoding", "br")]);
    *asked.method_mut() = Method::HEAD;
    for (length, expected) in [
        (None, Some("br")),
        (Some("5000"), Some("br")),
        (Some("50"), None),
    ] {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        headers.extend(length.map(|length| (CONTENT_LENGTH, HeaderValue::from_static(length))));
        Offer::of(&asked).unwrap().apply(&mut response);
        assert_eq!(text(&response, "content-encoding"), expected);
        assert!(response.body().is_end_stream());
    }
}

#[test]
fn vary_is_merged_and_said_to_those_who_take_nothing_too() {
    for (before, after) in [
        (vec![], "Accept-Encoding"),
        (vec!["Origin"], "Origin, Accept-Encoding"),
        (vec!["Origin", "Cookie"], "Origin, Cookie, Accept-Encoding"),
        (vec!["accept-encoding"], "accept-encoding"),
        (vec!["Origin,ACCEPT-ENCODING"], "Origin,ACCEPT-ENCODING"),
        (vec!["*"], "*"),
    ] {
        for accept in ["gzip", "identity", "gzip;q=0"] {
            let mut lines = vec![("content-type", "text/html")];
            lines.extend(before.iter().map(|value| ("vary", *value)));
            let mut response = response(200, &lines);
            let offer = Offer::of(&request(&[("accept-encoding", accept)]));
            offer.unwrap().apply(&mut response);
            assert_eq!(text(&response, "vary"), Some(after));
        }
    }
}

#[test]
fn a_short_answer_is_compressed_only_for_who_refuses_any_other() {
    for (accept, expected) in [("gzip", None), ("gzip, identity;q=0", Some("gzip"))] {
        let mut response = Response::new(Body::full("short".into()));
        let kind = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        let offer = Offer::of(&request(&[("accept-encoding", accept)]));
        offer.unwrap().apply(&mut response);
        assert_eq!(text(&response, "content-encoding"), expected);
    }
}

#[test]
fn a_client_may_want_no_transformation() {
    let lines = [
        ("accept-encoding", "gzip"),
        ("cache-control", "no-transform"),
    ];
    assert!(Offer::of(&request(&lines)).is_none());
    assert!(Offer::of(&request(&[])).is_none());
    let mut old = request(&[("accept-encoding", "gzip")]);
    *old.version_mut() = Version::HTTP_10;
    assert!(Offer::of(&old).is_none());
    let twice = [("accept-encoding", "gzip;q=0.1"), ("accept-encoding", "br")];
    let accepted = accepted(request(&twice).headers()).unwrap();
    let codings: Vec<Coding> = accepted.codings().collect();
    assert_eq!(codings, [Coding::Brotli, Coding::Gzip]);
}

#[test]
fn what_is_confirmed_is_called_as_the_client_calls_it() {
    for (has, expected) in [
        (Some("W/\"x\""), "W/\"x\""),
        (Some("\"y\", W/\"x\""), "W/\"x\""),
        (Some("\"x\""), "\"x\""),
        (None, "\"x\""),
    ] {
        let mut lines = vec![("accept-encoding", "gzip")];
        lines.extend(has.map(|has| ("if-none-match", has)));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        let tag = HeaderValue::from_static("\"x\"");
        response.headers_mut().insert(ETAG, tag);
        Offer::of(&request(&lines)).unwrap().apply(&mut response);
        assert_eq!(text(&response, "etag"), Some(expected));
        // What a worker would have said of the whole is not known.
        assert_eq!(text(&response, "vary"), Some("Accept-Encoding"));
    }
}

fn decoded(coding: Coding, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match coding {
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes)?.read_to_end(&mut plain)?,
        Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain)?,
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain)?,
    };
    Ok(plain)
}

const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

/// Text that is neither all the same nor noise.
fn prose(length: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(7);
    let mut text = Vec::new();
    while text.len() < length {
        write!(
            text,
            "<p class=\"c{}\">{}</p>",
            random.u8(..),
            random.u32(..)
        )
        .unwrap();
    }
    text.truncate(length);
    text.into()
}

#[tokio::test]
async fn what_goes_in_comes_out_in_pieces_of_any_size() {
    for coding in CODINGS {
        for size in [0, 1, 1000, 400_000] {
            let plain = prose(size);
            let pieces: Vec<Bytes> = plain.chunks(60_000).map(Bytes::copy_from_slice).collect();
            for length in [None, Some(size as u64)] {
                let mut body = Body::pieces(Box::pin(stream::iter(pieces.clone())));
                body.encode(Encoding::new(coding, length).unwrap());
                let mut sent = Vec::new();
                let mut largest = 0;
                while let Some(frame) = next(&mut body).await {
                    let bytes = frame.unwrap().into_data().unwrap();
                    largest = largest.max(bytes.len());
                    sent.extend_from_slice(&bytes);
                }
                assert!(body.is_end_stream());
                assert_eq!(decoded(coding, &sent).unwrap(), plain, "{coding:?} {size}");
                assert!(
                    size < 10_000 || sent.len() < size / 2,
                    "{coding:?}: {}",
                    sent.len()
                );
                assert!(largest <= 256 << 10, "{coding:?}: {largest}");
            }
        }
    }
}

async fn next(body: &mut Body) -> Option<std::io::Result<http_body::Frame<Bytes>>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

#[tokio::test]
async fn when_the_source_pauses_all_there_is_so_far_is_sent() {
    for coding in CODINGS {
        let (source, pieces) = tokio::sync::mpsc::unbounded_channel();
        let pieces = stream::unfold(pieces, |mut pieces| async {
            Some((pieces.recv().await?, pieces))
        });
        let mut body = Body::pieces(Box::pin(pieces));
        body.encode(Encoding::new(coding, None).unwrap());
        let mut decoder = PartDecoder::default();
        for word in ["one", "two", "three"] {
            source.send(Bytes::from_static(word.as_bytes())).unwrap();
            let sent = next(&mut body).await.unwrap().unwrap();
            decoder.bytes.extend_from_slice(sent.data_ref().unwrap());
            assert!(decoder.has(coding, word), "{coding:?}: {word} is held back");
            assert!(next(&mut body).now_or_never().is_none());
        }
        drop(source);
        let end = next(&mut body).await.unwrap().unwrap();
        decoder.bytes.extend_from_slice(end.data_ref().unwrap());
        assert_eq!(decoded(coding, &decoder.bytes).unwrap(), b"onetwothree");
    }
}

#[derive(Default)]
struct PartDecoder {
    bytes: Vec<u8>,
}

impl PartDecoder {
    /// Whether what came so far, without an end, can be read up to `word`.
    fn has(&self, coding: Coding, word: &str) -> bool {
        let mut plain = Vec::new();
        let mut piece = [0; 64];
        let mut reader: Box<dyn Read> = match coding {
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(&*self.bytes).unwrap()),
            Coding::Brotli => Box::new(brotli::Decompressor::new(&*self.bytes, 4096)),
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(&*self.bytes)),
        };
        while let Ok(read @ 1..) = reader.read(&mut piece) {
            plain.extend_from_slice(&piece[..read]);
        }
        plain.ends_with(word.as_bytes())
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_has_no_end_and_is_sent_as_far_as_it_came() {
    for coding in CODINGS {
        let mut encoding = Encoding::new(coding, None).unwrap();
        let mut given = [
            Some(Ok(http_body::Frame::data(Bytes::from_static(b"half")))),
            Some(Err(std::io::Error::other("torn"))),
        ]
        .into_iter();
        let mut frame = std::future::poll_fn(|cx| {
            encoding.poll_frame(cx, |_| std::task::Poll::Ready(given.next().unwrap()))
        });
        let bytes = (&mut frame).await.unwrap().unwrap().into_data().unwrap();
        assert!((&mut frame).await.unwrap().is_err());
        let decoder = PartDecoder {
            bytes: bytes.to_vec(),
        };
        assert!(decoder.has(coding, "half"));
        assert!(decoded(coding, &bytes).is_err(), "{coding:?} has an end");
    }
}

#[tokio::test]
async fn trailers_follow_the_end() {
    let mut encoding = Encoding::new(Coding::Gzip, None).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    let mut given = [
        Some(Ok(http_body::Frame::data(Bytes::from_static(b"all")))),
        Some(Ok(http_body::Frame::trailers(trailers))),
    ]
    .into_iter();
    let mut frame = std::future::poll_fn(|cx| {
        encoding.poll_frame(cx, |_| std::task::Poll::Ready(given.next().unwrap()))
    });
    let bytes = (&mut frame).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(decoded(Coding::Gzip, &bytes).unwrap(), b"all");
    assert!((&mut frame).await.unwrap().unwrap().is_trailers());
    assert!((&mut frame).await.is_none());
}

#[test]
fn only_so_many_are_compressed_at_once() {
    let mut under_way = Vec::new();
    while let Some(encoding) = Encoding::new(Coding::Gzip, None) {
        under_way.push(encoding);
        assert!(under_way.len() < 1000);
    }
    let plain = gzipped(200, &[("content-type", "text/html"), ("etag", "\"x\"")]);
    assert_eq!(text(&plain, "content-encoding"), None);
    assert_eq!(text(&plain, "etag"), Some("\"x\""));
    assert_eq!(text(&plain, "vary"), Some("Accept-Encoding"));
    drop(under_way);
    let again = gzipped(200, &[("content-type", "text/html")]);
    assert_eq!(text(&again, "content-encoding"), Some("gzip"));
}
