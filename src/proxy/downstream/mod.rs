//! The side of the clients: listeners, sockets, and what comes out of them.

pub(super) mod clients;
pub(super) mod connection_limit;
pub(super) mod h2_io;
pub(super) mod interim;
pub(super) mod listener;
pub(super) mod preamble;
pub(super) mod request_body;
pub(super) mod signals;
pub(super) mod socket;
pub(super) mod stream;
pub(super) mod upload;
