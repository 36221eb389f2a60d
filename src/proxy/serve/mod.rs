//! Connections of clients.

pub(super) mod accept;
pub(super) mod connection;
pub(super) mod http2;
