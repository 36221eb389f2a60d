//! Production: what lies on disk for a generation to run from.

mod copy;
pub mod snapshot;
