//! The walk through a directory of workers: which directories look like one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::kind::Listing;

/// Deepest nesting of workers; longer names than this gives are refused anyway.
const MAX_DEPTH: usize = 24;
/// Sub-directories of a worker that belong to it and are not searched for nested workers.
const OWN: [&str; 10] = [
    "src",
    "bin",
    "config",
    "public",
    "views",
    "data",
    "target",
    "node_modules",
    "vendor",
    "tests",
];
/// Why what was meant as a worker's configuration is not read.
const MISSPELT: &str = "a worker's configuration is called worker.yaml; rename it";
/// Why a directory with files in it is no worker.
const UNRECOGNISED: &str = "nothing in it says what to run; name the program with 'command' in its config/worker.yaml, or move it out of the \
                            directory of workers";
/// Directories full of other people's project files: never searched, wherever they are.
const NEVER: [&str; 3] = ["node_modules", "target", "__pycache__"];

/// The first directory on the way to `relative` below `root`, itself included, in which no worker is looked for: it belongs to the
/// worker around it or to a build, or is a symbolic link. `None`: a worker there would be found.
pub fn closed(root: &Path, relative: &Path) -> Option<PathBuf> {
    let mut directory = root.to_owned();
    let mut inside = false;
    for name in relative {
        directory.push(name);
        let text = name.to_string_lossy();
        let own = inside && OWN.contains(&&*text);
        if own || text.starts_with('.') || NEVER.contains(&&*text) || directory.is_symlink() {
            return Some(directory);
        }
        inside |= Listing::of(&directory).is_ok_and(|listing| listing.is_worker(inside));
    }
    None
}

/// The walk through a directory of workers.
pub(super) struct Search<'a> {
    pub(super) root: &'a Path,
    /// Directories that look like a worker, relative to the root.
    pub(super) candidates: BTreeMap<PathBuf, Listing>,
    /// Directories that may have been meant as a worker, relative to the root, and why they can not be one.
    pub(super) strays: Vec<(PathBuf, String)>,
    /// What else lies there and is not used, relative to the root, and what to do about it.
    pub(super) unrecognised: Vec<(PathBuf, &'static str)>,
}

impl<'a> Search<'a> {
    /// Searches `root`, in which the names of `listing` are.
    pub(super) fn below(root: &'a Path, listing: &Listing) -> Self {
        let mut search = Self {
            root,
            candidates: BTreeMap::new(),
            strays: Vec::new(),
            unrecognised: Vec::new(),
        };
        search.walk(Path::new(""), listing, false, 1);
        search
    }

    /// Searches the sub-directories of `relative`; `inside` says whether that is in a worker. Returns whether one of them is a worker, or may
    /// have been meant as one.
    fn walk(&mut self, relative: &Path, listing: &Listing, inside: bool, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            return false;
        }
        let mut has_any = false;
        for name in &listing.directories {
            let text = name.to_string_lossy();
            let own = inside && OWN.contains(&&*text);
            if own || text.starts_with('.') || NEVER.contains(&&*text) {
                continue;
            }
            let relative = relative.join(name);
            let listing = match Listing::of(&self.root.join(&relative)) {
                Ok(listing) => listing,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // In a worker it is the worker's business, as a cache that another user owns.
                Err(_) if inside => continue,
                Err(error) => {
                    let reason = format!("it can not be read: {error}");
                    self.strays.push((relative, reason));
                    has_any = true;
                    continue;
                }
            };
            let worker = listing.is_worker(inside);
            let told = self.unrecognised.len();
            let holds_any = self.walk(&relative, &listing, inside || worker, depth + 1);
            let misspelt = !inside && listing.has_misspelt_configuration();
            has_any |= worker || holds_any || misspelt;
            if misspelt {
                self.unrecognised.truncate(told);
                let file = relative.join("config/worker.yml");
                self.unrecognised.push((file, MISSPELT));
            } else if !inside && !worker && !holds_any && listing.has_visible_files() {
                // A word for all of it.
                self.unrecognised.truncate(told);
                self.unrecognised.push((relative.clone(), UNRECOGNISED));
            }
            if worker {
                self.candidates.insert(relative, listing);
            }
        }
        if !inside {
            for name in &listing.links {
                let relative = relative.join(name);
                if self.root.join(&relative).is_dir() {
                    let reason = "it is a symbolic link, and none is followed to a worker; put the directory itself here, or let \
                                  'workers.directory' name the place";
                    self.strays.push((relative, reason.to_owned()));
                    has_any = true;
                }
            }
        }
        has_any
    }
}
