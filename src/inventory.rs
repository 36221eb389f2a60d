//! What lies on disk: the workers, what each is to run as, and a fingerprint of its files by which a change is known.
//!
//! Reads only. It follows no symbolic link between workers, knows no unit, and does not ask whether a program is there to be run.
//! What is wrong with one worker stays with that worker. A file that vanishes while it is looked at was not there.

mod author;
mod claims;
mod env_files;
mod fingerprint;
mod found;
mod kind;
mod look;
mod omitted;
mod roots;
mod scan;
mod search;
mod unserved;

pub use fingerprint::{Fingerprint, Latest, is_same};
pub use found::{Found, Inventory, Status, Stray};
pub use omitted::omitted;
pub use roots::{ScanError, directory_of};
pub use scan::{Written, names, scan, scan_beside};
pub use search::closed;
pub use unserved::unserved;

#[cfg(test)]
mod tests;
