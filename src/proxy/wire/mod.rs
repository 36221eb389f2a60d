//! What bytes and fields mean, and how long one waits for them. Nothing here has a connection of its own.
//!
//! | file | what it is for |
//! |---|---|
//! | `headers`, `origin`, `host`, `list` | header fields between client and worker; where a request comes from; the host it is for; fields that are lists |
//! | `path`, `conditions` | paths, conditional and range requests |
//! | `strict`, `framing` | requests that two readers could understand in two ways; where a message ends |
//! | `refusal`, `cause` | an error that the proxy answers with; what to tell of one that has others beneath it |
//! | `timer`, `deadline`, `pace` | a clock that is cheap to start and stop; when a request is to be over; how slow a client may be |
//! | `request_id` | new names for requests |
//! | `unread`, `file_body` | bytes that were read earlier; a part of a file as it is sent |

pub(super) mod cause;
pub(super) mod conditions;
pub(super) mod deadline;
pub(super) mod file_body;
pub(super) mod framing;
pub(super) mod headers;
pub(super) mod host;
pub(super) mod list;
pub(super) mod origin;
pub(super) mod pace;
pub(super) mod path;
pub(super) mod refusal;
pub(super) mod request_id;
pub(super) mod strict;
pub(super) mod timer;
pub(super) mod unread;
