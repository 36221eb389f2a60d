//! Directories of a snapshot whose content is in the worker's state.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::failure::SnapshotError;
use super::layout::make_directory;
use super::modes::DIRECTORY_MODE;
use super::store::Store;
use crate::names::Instance;
use crate::systemd::SHIPPED;

impl Store {
    /// Makes the `directories` of a snapshot that was just made links to those of the same names in `state`, and keeps what was deployed
    /// there beside: a worker's first start copies it.
    ///
    /// # Errors
    /// When that fails; nothing is left of the snapshot then.
    pub fn persist(
        &self,
        instance: &Instance,
        directories: &[String],
        state: &Path,
    ) -> Result<(), SnapshotError> {
        let files = self.files(instance);
        for name in directories {
            let link = files.join(name);
            let linked = move_aside(&files, name).and_then(|()| {
                let linked = symlink(state.join(name), &link);
                linked.map_err(|source| SnapshotError::io("make the link", &link, source))
            });
            linked.inspect_err(|_| self.discard(instance))?;
        }
        Ok(())
    }
}

/// Moves a directory to where what was deployed is kept, which the worker can read as it can its files.
fn move_aside(files: &Path, name: &str) -> Result<(), SnapshotError> {
    let (mut shipped, from) = (files.join(SHIPPED), files.join(name));
    make_directory(&shipped, DIRECTORY_MODE, None)?;
    let mut names = name.split('/').peekable();
    while let Some(name) = names.next() {
        shipped.push(name);
        if names.peek().is_some() {
            make_directory(&shipped, DIRECTORY_MODE, None)?;
        }
    }
    fs::rename(&from, shipped).map_err(|source| SnapshotError::io("move", &from, source))
}
