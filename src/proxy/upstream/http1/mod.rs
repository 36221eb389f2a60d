//! A worker that speaks HTTP/1.1, or takes the gateway's word for it: one exchange after the other over one connection.
//!
//! hyper's client would do, and did. It runs each connection as a task of its own, to which a request is sent over one channel and from which
//! the answer comes over another, and it owns what it sends, so that a request that may have to be sent again is copied first. Here the
//! task that waits for the answer reads it, and a request is bytes that can be written twice. That is a third of the instructions of
//! a request through the proxy, and half of what misses a core's own cache (docs/PERFORMANCE.md). Only a body that is still on its way when its
//! answer has begun needs a task: both must be able to go on without the other.
//!
//! | file | what it is for |
//! |---|---|
//! | `connection` | one exchange after the other |
//! | `request` | what is written |
//! | `response` | what is read |
//! | `fuzzed` | what must hold of any of it; not in the server |

mod connection;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzed;
mod request;
mod response;

pub(crate) use self::connection::{Coming, Connection, Content, ExchangeError, Switched};
pub(crate) use self::request::{Request, Writer, is_timeout};
pub(crate) use self::response::ResponseError;
