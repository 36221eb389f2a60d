//! What all connections of a front have in common: how hyper and h2 are to serve them.

use hyper::server;

use crate::route::Front;

/// Fewest bytes hyper reads a message's head into.
pub(super) const BUFFER_MIN: usize = 16 << 10;

/// Header fields hyper parses without an allocation; only a front that allows more pays for it.
const HEADERS_INLINE: usize = 100;

/// What all connections of this front have in common. Deadlines are not hyper's: see `socket.rs`.
pub(crate) fn http1(front: &Front) -> server::conn::http1::Builder {
    let mut server = server::conn::http1::Builder::new();
    server
        .max_buf_size(front.max_header_bytes.max(BUFFER_MIN))
        .max_header_size(front.max_header_bytes);
    if front.max_headers > HEADERS_INLINE {
        server.max_headers(front.max_headers);
    }
    server
}

/// Most requests in flight on one connection.
const STREAMS_MAX: u32 = 128;

/// What a client may send before it is taken: for each stream, and for all of a connection. It is what a hostile one can make us keep.
const WINDOW: u32 = 128 << 10;
const WINDOW_ALL: u32 = 256 << 10;

/// Most bytes that are kept for a client to read, for each stream, beyond the piece at hand.
const SEND_BUFFER: usize = 64 << 10;

/// What all connections of a front have in common.
#[derive(Debug, Clone)]
pub(crate) struct Http2 {
    pub(crate) builder: h2::server::Builder,
    /// Most bytes of a request's fields.
    pub(crate) room: u32,
}

/// What all connections of this front have in common.
pub(crate) fn http2(front: &Front) -> Http2 {
    let room = u32::try_from(front.max_header_bytes).unwrap_or(u32::MAX);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW_ALL)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(room)
        .max_send_buffer_size(SEND_BUFFER)
        // Where many share the connection, they all would pay for so many errors of one of them, however
        // long it takes. What such an error can cost is a request that was taken, and those are counted
        // with what is taken back.
        .max_local_error_reset_streams(None)
        .enable_connect_protocol();
    Http2 { builder, room }
}
