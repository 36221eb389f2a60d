//! Snapshots, told by what is on disk after them.

mod accepted;
mod full;
mod house;
mod making;
mod rights;
mod scripts;
