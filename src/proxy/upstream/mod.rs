//! The side of the workers: generations, the connections to them, and the protocols spoken there.
//!
//! | file | what it is for |
//! |---|---|
//! | `generation`, `limiter` | the counters that all threads share: of a generation, and of the places in a worker |
//! | `transport`, `dial`, `holder` | bytes to and from a worker, how they are connected, and whether the port is the worker's |
//! | `http1/`, `fastcgi/` | what is spoken there |
//! | `pool` | a thread's connections to one instance |
//! | `balance` | the choice between several instances |
//! | `ticket` | all that a request holds while it is in flight |

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
