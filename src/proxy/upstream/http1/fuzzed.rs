//! What must hold of any bytes that a worker sends in answer to a request.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::header::HeaderMap;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::response::{Head, ResponseError, Rest, Taken};
use crate::proxy::downstream::interim::{Interim, InterimSink, MOST, Outbox};
use crate::proxy::fuzzed::{Pieces, STEPS};
use crate::proxy::wire::headers;

/// All that is made of a worker's bytes.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    interims: Vec<(StatusCode, HeaderMap)>,
    status: Option<StatusCode>,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Bytes behind the answer.
    left: usize,
    end: End,
}

#[derive(Debug, Default, PartialEq)]
enum End {
    #[default]
    Torn,
    Whole,
    Refused(ResponseError),
    Broken,
}

/// What a worker sends, and then it closes the connection.
pub fn answer(data: &[u8]) {
    // A head that is longer is refused with the piece that makes it so.
    let data = &data[..data.len().min(32 << 10)];
    for method in [Method::GET, Method::HEAD] {
        let heard = hear(data, usize::MAX, &method);
        for step in STEPS {
            let cut = hear(data, step, &method);
            match (&heard.end, &cut.end) {
                // What comes before a break is handed on as it comes.
                (End::Broken, End::Broken) => {}
                _ => assert_eq!(cut, heard, "in pieces of {step}"),
            }
        }
        told(&heard.interims);
        let all = heard.interims.iter().map(|(_, fields)| fields);
        for fields in all.chain([&heard.headers]).chain(&heard.trailers) {
            alone(fields, heard.status);
        }
        if heard.end == End::Whole {
            by_hyper(data, &method, &heard);
        }
    }
}

fn hear(data: &[u8], step: usize, method: &Method) -> Heard {
    let mut heard = Heard::default();
    let mut pieces = data.chunks(step.min(data.len().max(1)));
    let mut came = 0;
    let mut buffer = BytesMut::new();
    let mut more = |buffer: &mut BytesMut| match pieces.next() {
        Some(piece) => {
            came += piece.len();
            buffer.extend_from_slice(piece);
            true
        }
        None => false,
    };
    let mut rest = loop {
        match Head::take(&mut buffer, method) {
            Ok(Some(head)) if head.is_interim() => {
                heard.interims.push((head.status, head.headers));
            }
            Ok(Some(head)) => {
                heard.status = Some(head.status);
                heard.headers = head.headers;
                break head.rest;
            }
            Ok(None) if more(&mut buffer) => {}
            Ok(None) => return heard,
            Err(error) => {
                heard.end = End::Refused(error);
                return heard;
            }
        }
    };
    let is_open = rest == Rest::UntilClose;
    loop {
        match rest.take(&mut buffer) {
            Ok(Taken::Frame(frame)) => match frame.into_data() {
                Ok(piece) => heard.body.extend_from_slice(&piece),
                Err(frame) => heard.trailers = frame.into_trailers().ok(),
            },
            Ok(Taken::End) => break,
            Ok(Taken::Nothing) if more(&mut buffer) => {}
            Ok(Taken::Nothing) => {
                if rest.close().is_err() {
                    return heard;
                }
                assert!(is_open);
            }
            Err(_) => {
                heard.end = End::Broken;
                return heard;
            }
        }
    }
    assert!(rest.is_nothing());
    heard.end = End::Whole;
    heard.left = buffer.len() + data.len() - came;
    heard
}

/// What is passed on of interim answers is as many as may be, and can be read.
fn told(interims: &[(StatusCode, HeaderMap)]) {
    let outbox = Outbox::default();
    let sink = InterimSink::Http1(&outbox);
    for (status, headers) in interims.iter().take(MOST) {
        sink.tell(Interim {
            status: *status,
            headers: headers.clone(),
        });
    }
    let bytes = outbox.take();
    let mut told = &bytes[..];
    while !told.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(end)) = head.parse(told) else {
            panic!("{told:?}");
        };
        assert!((100..200).contains(&head.code.unwrap()));
        told = &told[end..];
    }
}

/// No field is about a hop, but for those of a change of protocol.
fn alone(fields: &HeaderMap, status: Option<StatusCode>) {
    for name in fields.keys().map(|name| name.as_str()) {
        let is_switch = status == Some(StatusCode::SWITCHING_PROTOCOLS)
            && matches!(name, "connection" | "upgrade");
        assert!(is_switch || !headers::is_hop(name), "{name}");
    }
}

/// A worker that says nothing before it is asked: hyper takes that for an error.
struct Worker<'a> {
    answer: Pieces<'a>,
    is_asked: bool,
}

impl AsyncRead for Worker<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.is_asked {
            true => Pin::new(&mut self.answer).poll_read(cx, buffer),
            false => Poll::Pending,
        }
    }
}

impl AsyncWrite for Worker<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_asked = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// hyper's client, which forgives more, makes the same of what is understood.
fn by_hyper(data: &[u8], method: &Method, heard: &Heard) {
    if heard.status == Some(StatusCode::SWITCHING_PROTOCOLS) {
        return;
    }
    let mut waiting = Context::from_waker(Waker::noop());
    let stream = Worker {
        answer: Pieces::of(data, usize::MAX),
        is_asked: false,
    };
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method.clone();
        let answered = async {
            let answer = sender.send_request(request).await.ok()?;
            let (parts, body) = answer.into_parts();
            Some((parts, body.collect().await.ok()?))
        };
        let mut answered = pin!(answered);
        let mut connection = pin!(connection);
        // It has nothing to wait for but its own turn.
        for _ in 0..data.len() + 16 {
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(answer) = answered.as_mut().poll(&mut cx) {
                return answer;
            }
            let _ = connection.as_mut().poll(&mut cx);
        }
        None
    };
    let Poll::Ready(answer) = pin!(exchange).poll(&mut waiting) else {
        panic!("hyper waits");
    };
    let (parts, body) = answer.expect("hyper understands it");
    assert_eq!(Some(parts.status), heard.status);
    for name in heard.headers.keys() {
        let ours: Vec<_> = heard.headers.get_all(name).iter().collect();
        let theirs: Vec<_> = parts.headers.get_all(name).iter().collect();
        assert_eq!(ours, theirs, "{name}");
    }
    if let Some(trailers) = &heard.trailers {
        let theirs = body.trailers().expect("hyper has trailers");
        for name in trailers.keys() {
            assert_eq!(trailers.get(name), theirs.get(name), "{name}");
        }
    }
    assert_eq!(body.to_bytes(), heard.body);
}
