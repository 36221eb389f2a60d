//! Production: what lies on disk for a generation to run from.
//!
//! - `layout`: where things lie in the store, what their names mean, who may look in, with which `modes`
//! - `store`: the store itself, and with `failure` why it can not do what was asked
//! - `shelf`: what lies there, of one worker from one look
//! - `copy`: copies a tree that belongs to someone who is trusted less than we are
//! - `allowance`: how large a snapshot may become
//! - `snapshot`: makes snapshots
//! - `persist`: leads from them to what the worker keeps
//! - `removal`: removes them
//! - `manifest`: what a snapshot was made of, and with that: accepted
//! - `accepted`: which snapshots can be started from
//! - `room`: a full disk, in words

mod accepted;
mod allowance;
mod copy;
mod failure;
mod layout;
mod manifest;
mod modes;
mod persist;
mod removal;
mod room;
mod shelf;
mod snapshot;
mod store;

pub use accepted::Accepted;
pub use copy::CopyError;
pub use failure::SnapshotError;
pub use layout::{PUBLIC, SNAPSHOTS};
pub use manifest::Manifest;
pub use room::{Full, Room};
pub use store::Store;

#[cfg(test)]
mod tests;
