//! What lies on disk: the workers, what each is to run as, and a fingerprint of its files by which a change is known.
//!
//! Reads only. It follows no symbolic link between workers, knows no unit, and does not ask whether a program is there to be run.
//! What is wrong with one worker stays with that worker. A file that vanishes while it is looked at was not there.

mod fingerprint;
mod kind;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use fingerprint::Fingerprint;

use crate::config::problem::printable;
use crate::config::{Mode, Place, Problem, Problems, Settings, WorkerFile, WorkerSettings};
use crate::names::WorkerName;
use crate::route::RoutePath;
use kind::Listing;

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
/// Directories full of other people's project files: never searched, wherever they are.
const NEVER: [&str; 3] = ["node_modules", "target", "__pycache__"];

/// All workers of a directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// The workers by name.
    pub workers: BTreeMap<WorkerName, Found>,
    /// Directories that look like a worker and can not be one.
    pub strays: Vec<Stray>,
}

/// A worker's directory and what was found in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its name.
    pub name: WorkerName,
    /// Its directory, absolute.
    pub directory: PathBuf,
    /// The directory of its assets, absolute, if it has one.
    pub public: Option<PathBuf>,
    /// The directories of other workers inside its own, absolute: no part of it.
    pub nested: Vec<PathBuf>,
    /// Whether and how it is to run.
    pub status: Status,
    /// By which a change of it is known.
    pub fingerprint: Fingerprint,
}

/// Whether and how a worker is to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// It is to run like this.
    Enabled(Box<WorkerSettings>),
    /// Its file says that it is not there in this mode.
    Disabled,
    /// It can not run, for these reasons.
    Refused(Problems),
}

/// A directory that looks like a worker and can not be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The directory, absolute.
    pub directory: PathBuf,
    /// Why not, as a sentence.
    pub reason: String,
}

/// The directory of workers could not be read. This is not the same as "no workers": nothing may be stopped because of it.
#[derive(Debug, thiserror::Error)]
#[error("read the directory of workers '{}'", directory.display())]
pub struct ScanError {
    /// The directory.
    pub directory: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = printable(&self.directory.to_string_lossy());
        write!(f, "{directory}: {}", printable(&self.reason))
    }
}

impl Found {
    /// How it is to run, if it is.
    pub fn settings(&self) -> Option<&WorkerSettings> {
        match &self.status {
            Status::Enabled(settings) => Some(settings),
            Status::Disabled | Status::Refused(_) => None,
        }
    }
}

/// Looks at all workers of `settings` as they lie there now.
///
/// # Errors
/// When the directory of workers itself can not be read.
pub fn scan(settings: &Settings, mode: Mode) -> Result<Inventory, ScanError> {
    scan_beside(settings, mode, &BTreeMap::new())
}

/// Looks at all workers as [`scan`] does, while workers serve on the routes in `held`: a newcomer does not get one of these as long as
/// who serves there wants it.
///
/// # Errors
/// As [`scan`].
pub fn scan_beside(
    settings: &Settings,
    mode: Mode,
    held: &BTreeMap<String, WorkerName>,
) -> Result<Inventory, ScanError> {
    let root = &settings.workers_directory;
    let mut search = Search {
        root,
        candidates: BTreeMap::new(),
        strays: Vec::new(),
    };
    let top = Listing::of(root).map_err(|source| ScanError {
        directory: root.clone(),
        source,
    })?;
    search.below(Path::new(""), &top, false, 1);

    let directories: BTreeSet<PathBuf> = search.candidates.keys().cloned().collect();
    let mut inventory = Inventory {
        workers: BTreeMap::new(),
        strays: search.strays,
    };
    for (relative, listing) in &search.candidates {
        match WorkerName::from_directory(relative) {
            Ok(name) => {
                let found = look(settings, mode, name, listing, &directories);
                inventory.workers.insert(found.name.clone(), found);
            }
            Err(error) => inventory.strays.push(Stray {
                directory: root.join(relative),
                reason: error.to_string(),
            }),
        }
    }
    inventory
        .strays
        .sort_by(|a, b| a.directory.cmp(&b.directory));
    refuse_second_on_a_route(&mut inventory, held);
    Ok(inventory)
}

/// The walk through the directories.
struct Search<'a> {
    root: &'a Path,
    /// Directories that look like a worker, relative to the root.
    candidates: BTreeMap<PathBuf, Listing>,
    strays: Vec<Stray>,
}

impl Search<'_> {
    /// Searches the sub-directories of `relative`; `inside` says whether that is in a worker.
    fn below(&mut self, relative: &Path, listing: &Listing, inside: bool, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
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
                    self.stray(&relative, format!("it can not be read: {error}"));
                    continue;
                }
            };
            let worker = listing.is_worker(inside);
            self.below(&relative, &listing, inside || worker, depth + 1);
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
                    self.stray(&relative, reason.to_owned());
                }
            }
        }
    }

    fn stray(&mut self, relative: &Path, reason: String) {
        self.strays.push(Stray {
            directory: self.root.join(relative),
            reason,
        });
    }
}

/// Looks at one worker.
fn look(
    settings: &Settings,
    mode: Mode,
    name: WorkerName,
    listing: &Listing,
    directories: &BTreeSet<PathBuf>,
) -> Found {
    let relative = name.directory();
    let directory = settings.workers_directory.join(&relative);
    let nested = directories
        .iter()
        .filter(|other| **other != relative && other.starts_with(&relative))
        .map(|other| settings.workers_directory.join(other))
        .collect();
    let (public, link) = match public(&directory, listing) {
        Ok(public) => (public, None),
        Err(problem) => (None, Some(problem)),
    };
    let mut built = false;
    let status = match WorkerFile::load(&directory.join("config").join("worker.yaml")) {
        Ok(file) if !file.enabled.in_mode(mode) => Status::Disabled,
        Ok(file) => {
            built = file.build.is_some();
            judge(settings, &name, &directory, listing, &file, link)
        }
        Err(mut problems) => {
            problems.0.extend(link);
            Status::Refused(problems)
        }
    };
    let mut found = Found {
        name,
        directory,
        public,
        nested,
        status,
        fingerprint: Fingerprint::default(),
    };
    if !matches!(found.status, Status::Disabled) {
        found.fingerprint = Fingerprint::of(&found, mode, built);
    }
    found
}

fn judge(
    settings: &Settings,
    name: &WorkerName,
    directory: &Path,
    listing: &Listing,
    file: &WorkerFile,
    link: Option<Problem>,
) -> Status {
    let mut problems: Vec<Problem> = link.into_iter().collect();
    let kind = match file.kind {
        Some(kind) => Some(kind),
        None => match listing.kind(name.program(), file.command.is_some()) {
            Ok(kind) => Some(kind),
            Err(error) => {
                let problem = Problem::new(Place::file(directory), error.to_string());
                let help =
                    "set 'type:' in its config/worker.yaml: rust, go, node, python, exec or static";
                problems.push(problem.help(help));
                None
            }
        },
    };
    // The type plays no part in what can be wrong there: any will do to find all problems at once.
    let any = kind.unwrap_or(crate::config::WorkerType::Exec);
    match settings.for_worker(name, file, any) {
        Ok(settings) if problems.is_empty() => Status::Enabled(Box::new(settings)),
        Ok(_) => Status::Refused(Problems(problems)),
        Err(more) => {
            problems.extend(more.0);
            Status::Refused(Problems(problems))
        }
    }
}

/// The directory of assets. As a symbolic link it must stay inside the worker: the proxy would serve what it leads to.
fn public(directory: &Path, listing: &Listing) -> Result<Option<PathBuf>, Problem> {
    let public = directory.join("public");
    let name = std::ffi::OsStr::new("public");
    if listing.directories.contains(name) {
        return Ok(Some(public));
    }
    if !listing.links.contains(name) {
        return Ok(None);
    }
    match (public.canonicalize(), directory.canonicalize()) {
        (Ok(target), Ok(inside)) if target.starts_with(&inside) && target.is_dir() => {
            Ok(Some(public))
        }
        _ => {
            let message = "'public' is a symbolic link to somewhere outside the worker";
            let help = "make it a real directory, or let it lead to a directory of this worker";
            Err(Problem::new(Place::file(public), message).help(help))
        }
    }
}

/// Of workers that would have the same route the one that serves there keeps it, else the first by name.
fn refuse_second_on_a_route(inventory: &mut Inventory, held: &BTreeMap<String, WorkerName>) {
    let wanted = inventory
        .workers
        .values()
        .filter_map(|found| Some((found.settings()?.route.clone(), found.name.clone())));
    let mut taken: BTreeMap<RoutePath, WorkerName> = wanted
        .filter(|(route, name)| held.get(&route.to_string()) == Some(name))
        .collect();
    for found in inventory.workers.values_mut() {
        let Some(route) = found.settings().map(|settings| settings.route.clone()) else {
            continue;
        };
        if let Some(first) = taken.get(&route).filter(|first| **first != found.name) {
            let message = format!("the route {route} is that of the worker '{first}' already");
            let help = "give one of the two another 'path' in its config/worker.yaml";
            let problem = Problem::new(Place::file(&found.directory), message).help(help);
            found.status = Status::Refused(problem.into());
            found.fingerprint.config.clear();
        } else {
            taken.insert(route, found.name.clone());
        }
    }
}

#[cfg(test)]
mod tests;
