//! What the proxy needs to run, and what it tells of itself.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use crate::route::Place;
use crate::wire::FrontState;

/// Where a proxy leaves what the next one is to find.
pub trait Store: Send {
    /// Keeps a socket that was newly bound at `place`.
    fn keep_listener(&self, place: &Place, listener: BorrowedFd<'_>);
    /// Keeps the socket of this place no longer.
    fn drop_listener(&self, place: &Place);
    /// Keeps the route table in force, in place of the one before.
    fn keep_table(&self, table: &[u8]);
    /// Keeps the keys of TLS sessions, in place of those before.
    fn keep_tickets(&self, keys: &[u8]);
}

/// Who is told that the proxy is alive.
pub struct Heart {
    /// How often.
    pub every: Duration,
    /// Called so often while all threads of the proxy do their work.
    pub beat: Box<dyn Fn() + Send>,
    /// Called when one of them hangs, with a sentence that says which, and how. No more beats come then.
    pub hung: Box<dyn Fn(&str) + Send>,
}

/// What the proxy needs to run. All else comes over the link.
pub struct Options {
    /// The way to the manager.
    pub link: Link,
    /// Sockets that an earlier proxy has left with systemd. They are used where the table wants to listen at their address; the others
    /// are closed with the first table.
    pub inherited: Vec<OwnedFd>,
    /// The route table that an earlier proxy has left. It is served by while no manager can be reached.
    pub remembered: Option<Vec<u8>>,
    /// Keys of TLS sessions that an earlier proxy has left.
    pub tickets: Option<Vec<u8>>,
    /// Where to leave all of that for the next proxy.
    pub store: Option<Box<dyn Store>>,
    /// Told of each table in force; `None` before the first.
    pub serving: Option<watch::Sender<Option<Serving>>>,
    /// Threads that serve, at least one.
    pub threads: usize,
    /// Who is told that the proxy is alive.
    pub heart: Option<Heart>,
}

/// The way to the manager.
#[derive(Debug)]
pub enum Link {
    /// A connection that stands: one end of a socket pair.
    Stream(UnixStream),
    /// The manager's socket: connected to, and again whenever it breaks.
    Path(PathBuf),
}

/// How the proxy meets its clients by the table in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Where, and where not.
    pub front: FrontState,
    /// How long requests in flight may take to end at shutdown.
    pub grace: Duration,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("link", &self.link)
            .field("inherited", &self.inherited)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}
