//! A worker's state: what of it lies apart, for the proxy to serve, and what of it takes the place of the worker's own files.
//!
//! Both are symbolic links, which the start verb and the snapshot have. A bind mount would not do: from version 257 on systemd maps the
//! owners of a state directory where it mounts it (idmapped mounts), and nowhere else.

use std::path::{Path, PathBuf};

use crate::names::WorkerName;

/// Where the state of dynamic users is (systemd.exec(5), `DynamicUser=`).
const PRIVATE: &str = "/var/lib/private";
/// Below all state: what the proxy serves of it. The proxy's unit shows it to it.
pub const STORED: &str = ".files";
/// In a snapshot: what was deployed at places that the state has taken.
pub const SHIPPED: &str = ".tqserver-shipped";

/// Directories below the state of one worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct State<'a> {
    pub(super) worker: &'a WorkerName,
    /// Where it is.
    pub(super) directory: &'a Path,
    /// Those that the proxy serves.
    pub(super) stored: &'a [String],
    /// Those that are seen in the place of the worker's own files of that name.
    pub(super) persisted: &'a [String],
}

impl State<'_> {
    /// The directories that systemd makes and gives to the worker, below its own for all state.
    pub(super) fn directories(&self) -> Vec<String> {
        let own = format!("tqserver/{}", self.worker);
        let stored = self.stored.iter().map(|name| self.apart(name));
        [own].into_iter().chain(stored).collect()
    }

    /// What lies apart, and where in the state it is seen.
    pub(super) fn links(&self) -> Vec<(PathBuf, PathBuf)> {
        let link = |name: &String| {
            let apart = Path::new(PRIVATE).join(self.apart(name));
            (apart, self.directory.join(name))
        };
        self.stored.iter().map(link).collect()
    }

    /// What was deployed, and where in the state it is copied to once; `files` is where the worker's files are.
    pub(super) fn fills(&self, files: &Path) -> Vec<(PathBuf, PathBuf)> {
        let fill = |name: &String| (files.join(SHIPPED).join(name), self.directory.join(name));
        self.persisted.iter().map(fill).collect()
    }

    fn apart(&self, name: &str) -> String {
        format!("tqserver/{STORED}/{}/{name}", self.worker)
    }
}
