//! What must hold of any blocks of fields that a client sends over HTTP/2.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Method, Uri};
use tokio::io::{AsyncRead, ReadBuf};

use super::filter::Filter;
use crate::proxy::fuzzed::{Pieces, STEPS};

/// With that a client begins that speaks HTTP/2, its settings included.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Most bytes of a request's fields.
const ROOM: usize = 16 << 10;

/// A request as h2 sees it.
type Seen = (Method, Uri, HeaderMap);

/// Bytes behind which more may come: at the end of a connection h2 forgets what it has not handed over.
struct Open<'a>(Pieces<'a>);

impl AsyncRead for Open<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.rest() {
            [] => Poll::Pending,
            _ => Pin::new(&mut self.0).poll_read(cx, buffer),
        }
    }
}

/// What a client's bytes are behind the filter.
#[derive(Debug, PartialEq)]
struct Filtered {
    bytes: Vec<u8>,
    /// The streams that are refused.
    refused: Vec<u32>,
    end: Option<Reason>,
}

/// Blocks of fields, each behind its length and the flags of its frame; or, behind a zero, any bytes at all.
pub fn http2(data: &[u8]) {
    if let [0, bytes @ ..] = data {
        // Whatever they are, they are the same in any pieces.
        filtered(&[BEGIN, bytes].concat());
        return;
    }
    let (mut sent, mut stream, mut rest) = (BEGIN.to_vec(), 1_u32, data);
    let mut in_pieces = false;
    while let [length, flags, after @ ..] = rest {
        let (block, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        // It ends the request, and is in one frame, or goes on in a second.
        let in_two = flags & 1 != 0;
        in_pieces |= in_two;
        let (first, second) = block.split_at(if in_two { block.len() / 2 } else { block.len() });
        frame(1, if in_two { 1 } else { 5 }, stream, first, &mut sent);
        if in_two {
            frame(9, 4, stream, second, &mut sent);
        }
        stream += 2;
    }
    let found = filtered(&sent);
    let seen = by_h2(&found.bytes);
    // Whatever passes is a request to h2 as well: none is reset by it, and none ends the connection.
    let streams: Vec<u32> = seen.iter().map(|(stream, _)| *stream).collect();
    let last = stream.saturating_sub(2);
    if found.end.is_none() {
        assert_eq!(streams, (1..=last).step_by(2).collect::<Vec<_>>());
    }
    assert!(matches!(found.end, None | Some(Reason::COMPRESSION_ERROR)));
    // And it is the same that it would have been, had it come without the filter.
    let unfiltered = by_h2(&sent);
    let with = |stream: u32| seen.iter().find(|(seen, _)| *seen == stream);
    for (stream, request) in &unfiltered {
        if !found.refused.contains(stream)
            && let Some((_, passed)) = with(*stream)
        {
            assert_eq!(passed, request, "stream {stream}");
        }
    }
    // Nothing is refused for its compression that h2 can read; but in the middle of a block it takes
    // what may stand at its begin alone.
    if found.end.is_some() && !in_pieces {
        assert!(unfiltered.len() <= seen.len(), "{unfiltered:?}");
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// What is behind the filter, in whatever pieces the bytes come.
fn filtered(sent: &[u8]) -> Filtered {
    let outcomes = STEPS.map(|step| {
        let (mut filter, findings) = Filter::new(Pieces::of(sent, step), ROOM);
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut buffer);
            let cx = &mut Context::from_waker(Waker::noop());
            match Pin::new(&mut filter).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    bytes.extend_from_slice(buffer.filled());
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    assert!(findings.end().is_some(), "it waits");
                    break;
                }
            }
        }
        // What is held back has not come as a whole, and is not much.
        assert!(filter.held() <= 8 * (16_384 + 9));
        Filtered {
            bytes,
            refused: findings.refused(),
            end: findings.end(),
        }
    });
    let [one, some, whole] = outcomes;
    assert_eq!(one, some);
    assert_eq!(some, whole);
    whole
}

/// The requests that h2 sees in `bytes`, with their streams.
fn by_h2(bytes: &[u8]) -> Vec<(u32, Seen)> {
    let io = tokio::io::join(Open(Pieces::of(bytes, usize::MAX)), tokio::io::sink());
    let mut builder = h2::server::Builder::new();
    builder
        .max_header_list_size(ROOM as u32)
        .max_local_error_reset_streams(None)
        .enable_connect_protocol();
    let cx = &mut Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    let mut kept = Vec::new();
    let mut handshake = pin!(builder.handshake::<_, Bytes>(io));
    // It has nothing to wait for but its own turn.
    for _ in 0..16 {
        let mut connection = match handshake.as_mut().poll(cx) {
            Poll::Pending => continue,
            Poll::Ready(Err(_)) => break,
            Poll::Ready(Ok(connection)) => connection,
        };
        for _ in 0..bytes.len() / 9 + 16 {
            match connection.poll_accept(cx) {
                Poll::Pending => {}
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let (parts, body) = request.into_parts();
                    let seen = (parts.method, parts.uri, parts.headers);
                    all.push((respond.stream_id().as_u32(), seen));
                    kept.push((body, respond));
                }
                Poll::Ready(_) => break,
            }
        }
        break;
    }
    all
}
