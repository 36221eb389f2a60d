//! What was read of `.gitignore` files.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ignore::gitignore::Gitignore;

use super::pattern;

/// The name of such a file.
pub const GIT_IGNORE: &str = ".gitignore";
/// What is read of one at most; real ones have some hundred lines.
const MOST: u64 = 1 << 20;

/// The `.gitignore` files of the directories that were asked about, each read once.
#[derive(Default)]
pub struct GitFiles {
    read: RefCell<HashMap<PathBuf, Option<Rc<Gitignore>>>>,
    edition: Cell<u64>,
}

impl std::fmt::Debug for GitFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GitFiles of {} directories", self.read.borrow().len())
    }
}

impl GitFiles {
    /// Forgets what was read in `directory` and below it.
    pub fn forget(&self, directory: &Path) {
        let mut read = self.read.borrow_mut();
        read.retain(|known, _| !known.starts_with(directory));
        self.edition.set(self.edition.get() + 1);
    }

    /// Changes when something was forgotten.
    pub(super) fn edition(&self) -> u64 {
        self.edition.get()
    }

    /// The file in `directory`, if there is one that says something.
    pub(super) fn of(&self, directory: &Path) -> Option<Rc<Gitignore>> {
        if let Some(known) = self.read.borrow().get(directory) {
            return known.clone();
        }
        let file = read(directory).map(Rc::new);
        let mut read = self.read.borrow_mut();
        read.insert(directory.to_owned(), file.clone());
        file
    }

    /// Those of the directories above `directory` up to the root of its repository, the nearest first. None if they ignore all of it:
    /// who develops a worker that git does not know wants to see it.
    pub(super) fn above(&self, directory: &Path) -> Vec<Rc<Gitignore>> {
        let around = directories_above(directory);
        let files: Vec<_> = around.iter().filter_map(|above| self.of(above)).collect();
        let ignored = |path: &Path| {
            let mut words = files.iter().map(|file| file.matched(path, true));
            let word = words.find(|word| !word.is_none());
            word.is_some_and(|word| word.is_ignore())
        };
        let inside = |path: &&Path| around.iter().any(|above| path.parent() == Some(above));
        let mut path_to_it = directory.ancestors().take_while(inside);
        match path_to_it.any(ignored) {
            true => Vec::new(),
            false => files,
        }
    }
}

/// The `.gitignore` files above `directory`, which may or may not be there, up to the root of its repository.
pub fn above(directory: &Path) -> Vec<PathBuf> {
    let around = directories_above(directory);
    around.iter().map(|above| above.join(GIT_IGNORE)).collect()
}

/// The directories above `directory` up to the root of its repository, the nearest first; none outside of a repository.
fn directories_above(directory: &Path) -> Vec<PathBuf> {
    let is_root = |path: &Path| path.join(".git").symlink_metadata().is_ok();
    let ancestors: Vec<&Path> = directory.ancestors().collect();
    match ancestors.iter().position(|path| is_root(path)) {
        Some(root) => ancestors[..=root]
            .iter()
            .skip(1)
            .map(|path| (*path).to_owned())
            .collect(),
        None => Vec::new(),
    }
}

/// Reads the file in `directory`. As for git, a symbolic link is none.
fn read(directory: &Path) -> Option<Gitignore> {
    let path = directory.join(GIT_IGNORE);
    let metadata = path.symlink_metadata().ok()?;
    if !metadata.is_file() {
        return None;
    }
    let mut text = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MOST).read_to_end(&mut text));
    if let Err(error) = read {
        tracing::debug!("{} is left out: {error}", path.display());
        return None;
    }
    let text = String::from_utf8_lossy(&text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let file = pattern::read(directory, text.lines());
    (!file.is_empty()).then_some(file)
}
