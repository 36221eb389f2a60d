//! What bytes and fields mean, and how long one waits for them. Nothing here has a connection of its own.

pub(super) mod cause;
pub(super) mod conditions;
pub(super) mod deadline;
pub(super) mod file_body;
pub(super) mod headers;
pub(super) mod pace;
pub(super) mod path;
pub(super) mod refusal;
pub(super) mod request_id;
pub(super) mod strict;
pub(super) mod timer;
pub(super) mod unread;
