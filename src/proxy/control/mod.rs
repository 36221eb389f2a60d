//! The link to the manager, and what it asks for.

pub(super) mod link;
pub(super) mod memory;
pub(super) mod probe;
pub(super) mod pulse;
