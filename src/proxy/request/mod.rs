//! One request on its way to a worker and back.

pub(super) mod client;
pub(super) mod development;
pub(super) mod dispatch;
pub(super) mod first_generation;
pub(super) mod forward;
pub(super) mod notes;
pub(super) mod queue;
pub(super) mod respond;
pub(super) mod tunnel;
