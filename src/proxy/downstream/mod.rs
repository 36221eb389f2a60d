//! The side of the clients: listeners, sockets, and what comes out of them.
//!
//! | file | what it is for |
//! |---|---|
//! | `bind`, `listener`, `listeners`, `stream` | a socket that is bound; one that clients connect to; all of them, as a table says; its bytes |
//! | `connection_limit`, `clients` | how many clients there may be, and which leave first |
//! | `socket`, `signals` | one client: its deadlines, and what its socket and its requests tell each other |
//! | `preamble` | what a connection begins with: a header of the PROXY protocol, HTTP/2's preface |
//! | `request_body`, `upload` | a request's body as it comes, and on its way to the worker |
//! | `interim` | what a worker says before its response |
//! | `h2_io` | a stream of HTTP/2 as bytes both ways |

mod bind;
pub(super) mod clients;
pub(super) mod connection_limit;
pub(super) mod h2_io;
pub(super) mod interim;
pub(super) mod listener;
pub(super) mod listeners;
pub(super) mod preamble;
pub(super) mod request_body;
pub(super) mod signals;
pub(super) mod socket;
pub(super) mod stream;
pub(super) mod upload;
