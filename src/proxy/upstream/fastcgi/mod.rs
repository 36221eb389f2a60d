//! The way to a worker that speaks FastCGI: a gateway of one request's life.
//!
//! To the rest of the proxy it is a stream to a worker that speaks HTTP/1.1 and closes after its answer, so that deadlines, uploads,
//! errors and the count of requests are the same for all workers. At its other end an HTTP server of one request hands that on to
//! php-fpm, and the answer back. The protocol's records are the crate's `fastcgi-client` to write and read; what it would take for granted
//! of them is made sure beneath it (`records`).
//!
//! | file | what it is for |
//! |---|---|
//! | `gateway` | the stream to such a worker, and the server of one request at its other end |
//! | `trouble` | why there is no response |
//! | `params` | what php-fpm is told of a request |
//! | `script` | which script it runs |
//! | `hold` | the request's body, until it is whole |
//! | `exchange` | the request on its way, and what comes back |
//! | `records` | whole records of ours alone, and no end before the end |
//! | `response` | the answer's head, and its body |
//! | `fuzzed` | what must hold of any of them; not in the server |

mod exchange;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzed;
mod gateway;
mod hold;
mod params;
mod records;
mod response;
mod script;
mod trouble;

pub(crate) use self::gateway::{Gateway, connect};
pub(crate) use self::script::lacks_slash;
