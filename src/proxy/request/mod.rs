//! One request on its way to a worker, and the response on its way back.
//!
//! | file | what it is for |
//! |---|---|
//! | `respond` | down through the phases, and up through what is done to every response |
//! | `dispatch` | the phases, in their order |
//! | `first_generation` | requests that wait for a route's first generation |
//! | `queue` | requests that wait for a place in a worker, or for the end of a pause |
//! | `route_file` | a route's files, which need no worker |
//! | `forward` | to a worker, and the head of its response back |
//! | `tunnel` | a connection that is HTTP no more |
//! | `client`, `notes` | what requests of a client have in common; what is noted on the way down |
//! | `development/` | what developers are shown besides |

pub(super) mod client;
pub(super) mod development;
pub(super) mod dispatch;
pub(super) mod first_generation;
pub(super) mod forward;
pub(super) mod notes;
pub(super) mod queue;
pub(super) mod respond;
mod route_file;
pub(super) mod tunnel;
