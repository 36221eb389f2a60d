//! The side of the workers: generations, the connections to them, and the protocols spoken there.

pub(super) mod balance;
pub(super) mod dial;
pub(super) mod fastcgi;
pub(super) mod generation;
pub(super) mod holder;
pub(super) mod http1;
pub(super) mod limiter;
pub(super) mod pool;
pub(super) mod ticket;
pub(super) mod transport;
