//! What applies to all workers.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::route::{Development, Front};

/// What the fleet goes by and a reload may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The proxy's side towards clients.
    pub front: Front,
    /// How long a draining generation may take.
    pub grace: Duration,
    /// Fixed wait before the first health request of a generation.
    pub startup_delay: Duration,
    /// Fixed wait between the switch and the end of the old generation.
    pub restart_delay: Duration,
    /// Ports for workers that can not take a socket.
    pub ports: RangeInclusive<u16>,
    /// Each worker is a user of its own: nobody else is to answer on its port.
    pub own_users: bool,
    /// Most instances that are started at the same time.
    pub concurrent_starts: usize,
    /// Development: workers are built before they are started, and clients are told why one is not available.
    pub build: bool,
    /// What developers are shown besides.
    pub development: Option<Development>,
    /// Where the sockets of generations are.
    pub sockets: PathBuf,
    /// Production: the directory below which each generation has its files, as `NAME/GENERATION`.
    pub snapshots: Option<PathBuf>,
    /// Production: the directory below which the proxy finds what workers store for it to serve, as `NAME/DIRECTORY`. `None`: each
    /// worker's is in its own directory.
    pub state: Option<PathBuf>,
}
