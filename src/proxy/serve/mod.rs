//! Connections of clients.
//!
//! | file | what it is for |
//! |---|---|
//! | `accept` | one thread from its start to its end: accepts where the table in force says |
//! | `connection` | who a client is, what it speaks, and HTTP/1.1 |
//! | `http2`, `http2/` | a client with many requests at a time |

pub(super) mod accept;
pub(super) mod connection;
pub(super) mod http2;
