//! A worker's state in its sandbox: what of it lies apart, for the proxy to serve, and what of it takes the place of the worker's own files.

use std::path::{Path, PathBuf};

use crate::names::WorkerName;

/// Where the state of dynamic users is (systemd.exec(5), `DynamicUser=`).
const PRIVATE: &str = "/var/lib/private";
/// Below all state: what the proxy serves of it. The proxy's unit shows it to it.
pub const STORED: &str = ".files";
/// Where a sandbox has what the worker was deployed with at a place that its state has taken: beside the snapshots.
const SHIPPED: &str = ".shipped";

/// Directories below the state of one worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct State<'a> {
    pub(super) worker: &'a WorkerName,
    /// Those that the proxy serves.
    pub(super) stored: &'a [String],
    /// Those that are seen in the place of the worker's own files of that name.
    pub(super) persisted: &'a [String],
}

/// What is in one place and seen in another: from, to.
pub(super) type Bound = (PathBuf, PathBuf);

impl State<'_> {
    /// The directories that systemd makes and gives to the worker, below its own for all state.
    pub(super) fn directories(&self) -> Vec<String> {
        let mut all = vec![self.own()];
        // A place to bind to is made here, or else it would be root's once nothing is bound there any more.
        all.extend(
            self.stored
                .iter()
                .flat_map(|name| [self.here(name), self.apart(name)]),
        );
        all.extend(self.persisted.iter().map(|name| self.home(name)));
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|directory| seen.insert(directory.clone()));
        all
    }

    /// What is written to in another place than it lies in; `files` is where the worker's own are.
    pub(super) fn bound(&self, files: &Path) -> Vec<Bound> {
        let private = |path: String| Path::new(PRIVATE).join(path);
        let mut bound = Vec::new();
        for name in self.stored {
            bound.push((private(self.apart(name)), private(self.here(name))));
            // A bind mount does not bring what is mounted in it.
            if self
                .persisted
                .iter()
                .any(|outer| rest(name, outer).is_some_and(|rest| !rest.is_empty()))
            {
                bound.push((private(self.apart(name)), files.join(name)));
            }
        }
        let persisted = self.persisted.iter();
        bound.extend(persisted.map(|name| (private(self.home(name)), files.join(name))));
        bound
    }

    /// Where what was deployed can still be read at a place that the state has taken.
    pub(super) fn shipped(&self, files: &Path, snapshots: &Path) -> Vec<Bound> {
        let shipped = snapshots.join(SHIPPED);
        let persisted = self.persisted.iter();
        persisted
            .map(|name| (files.join(name), shipped.join(name)))
            .collect()
    }

    fn own(&self) -> String {
        format!("tqserver/{}", self.worker)
    }

    fn here(&self, name: &str) -> String {
        format!("{}/{name}", self.own())
    }

    fn apart(&self, name: &str) -> String {
        format!("tqserver/{STORED}/{}/{name}", self.worker)
    }

    /// Where a directory of the state lies: apart, if the proxy serves it or one around it.
    fn home(&self, name: &str) -> String {
        match self.stored.iter().any(|outer| rest(name, outer).is_some()) {
            true => self.apart(name),
            false => self.here(name),
        }
    }
}

/// What is left of a path behind `outer`, if it is that or below it.
fn rest<'a>(name: &'a str, outer: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(outer)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}
