//! What lies on disk: the workers, what each is to run as, and a fingerprint of its files by which a change is known.
//!
//! Reads only. It follows no symbolic link between workers, knows no unit, and does not ask whether a program is there to be run.
//! What is wrong with one worker stays with that worker. A file that vanishes while it is looked at was not there.

mod author;
mod fingerprint;
mod kind;
mod roots;
mod search;
mod unserved;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

pub use fingerprint::{Fingerprint, is_same};
pub use roots::{ScanError, directory_of};
pub use search::closed;
pub use unserved::unserved;

use crate::config::problem::printable;
use crate::config::{
    Files, Mode, Place, Problem, Problems, Settings, WorkerFile, WorkerSettings, WorkerType,
};
use crate::ignored::{Developed, GitFiles};
use crate::names::WorkerName;
use crate::route::Claim;
use kind::Listing;
use roots::roots;
use search::Search;

/// All workers of the directories they are looked for in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// The workers by name.
    pub workers: BTreeMap<WorkerName, Found>,
    /// Directories that look like a worker and can not be one.
    pub strays: Vec<Stray>,
    /// Directories of workers that are hidden by one of the same name in an earlier directory of workers.
    pub hidden: Vec<PathBuf>,
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
    /// Which of its files count in development.
    pub developed: Developed,
    /// By which a change of it is known.
    pub fingerprint: Fingerprint,
    /// Whether nobody but the administrator can have written it.
    pub is_administrators: bool,
    /// Where its file says where it wants to be.
    places: BTreeMap<&'static str, Place>,
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

/// Looks at all workers of `settings` as they lie there now. Of two with the same name the one in the earlier directory counts, even
/// if it can not run or is disabled.
///
/// # Errors
/// When a directory of workers itself can not be read. One that is not there is no error as long as another is.
pub fn scan(settings: &Settings, mode: Mode) -> Result<Inventory, ScanError> {
    scan_beside(settings, mode, &BTreeMap::new(), &Files::default())
}

/// Looks at all workers as [`scan`] does, while workers serve on the routes in `held`: a newcomer does not get one of these as long as
/// who serves there wants it. `files` knows what their files said at the last look.
///
/// # Errors
/// As [`scan`].
pub fn scan_beside(
    settings: &Settings,
    mode: Mode,
    held: &BTreeMap<Claim, WorkerName>,
    files: &Files,
) -> Result<Inventory, ScanError> {
    let mut inventory = Inventory::default();
    let mut taken = BTreeSet::new();
    let roots = roots(settings)?;
    let searches = roots.iter();
    let searches = searches.map(|(root, listing)| Search::below(root, listing));
    let searches: Vec<Search<'_>> = searches.collect();
    let all = searches.iter().flat_map(|search| {
        let workers = search.candidates.keys();
        workers.map(|relative| file_of(&search.root.join(relative)))
    });
    let eyes = Eyes {
        settings,
        mode,
        git: Rc::default(),
        files: files.read(all),
    };
    for search in searches {
        inventory.take(search, &mut taken, &eyes);
    }
    refuse_what_is_not_left_to_deployers(&mut inventory, settings);
    inventory.hidden.sort();
    inventory
        .strays
        .sort_by(|a, b| a.directory.cmp(&b.directory));
    refuse_second_on_a_route(&mut inventory, held);
    Ok(inventory)
}

/// What is the same for all workers that are looked at.
struct Eyes<'a> {
    settings: &'a Settings,
    mode: Mode,
    /// What was read of `.gitignore` files on the way.
    git: Rc<GitFiles>,
    /// What their files say.
    files: BTreeMap<PathBuf, Arc<Result<WorkerFile, Problems>>>,
}

fn file_of(directory: &Path) -> PathBuf {
    directory.join("config").join("worker.yaml")
}

impl Inventory {
    /// What file events are to be judged by.
    pub fn developed(&self) -> Vec<Developed> {
        let workers = self.workers.values();
        workers.map(|found| found.developed.clone()).collect()
    }

    /// Adds what was found in one directory of workers, but for what is `taken` by an earlier one. What can not be a worker hides as
    /// well: it was put there instead of the other.
    fn take(&mut self, search: Search<'_>, taken: &mut BTreeSet<PathBuf>, eyes: &Eyes<'_>) {
        let root = search.root;
        let directories: BTreeSet<PathBuf> = search
            .candidates
            .keys()
            .map(|relative| root.join(relative))
            .collect();
        let mut here = BTreeSet::new();
        for (relative, listing) in &search.candidates {
            let directory = root.join(relative);
            here.insert(relative.clone());
            if taken.contains(relative) {
                self.hidden.push(directory);
                continue;
            }
            match WorkerName::from_directory(relative) {
                Ok(name) => {
                    let found = look(eyes, name, directory, listing, &directories);
                    self.workers.insert(found.name.clone(), found);
                }
                Err(error) => self.strays.push(Stray {
                    directory,
                    reason: error.to_string(),
                }),
            }
        }
        for (relative, reason) in search.strays {
            let directory = root.join(&relative);
            if taken.contains(&relative) {
                self.hidden.push(directory);
            } else {
                self.strays.push(Stray { directory, reason });
            }
            here.insert(relative);
        }
        taken.append(&mut here);
    }
}

/// Looks at one worker.
fn look(
    eyes: &Eyes<'_>,
    name: WorkerName,
    directory: PathBuf,
    listing: &Listing,
    directories: &BTreeSet<PathBuf>,
) -> Found {
    let nested = directories
        .iter()
        .filter(|other| **other != directory && other.starts_with(&directory))
        .cloned()
        .collect();
    let (public, link) = match public(&directory, listing) {
        Ok(public) => (public, None),
        Err(problem) => (None, Some(problem)),
    };
    let path = file_of(&directory);
    let file = match eyes.files.get(&path) {
        Some(said) => said.clone(),
        None => Arc::new(WorkerFile::load(&path)),
    };
    let file = file.as_ref();
    let developed = match file {
        Ok(file) => developed(&name, &directory, listing, file),
        Err(_) => developed(&name, &directory, listing, &WorkerFile::default()),
    };
    let status = match file {
        Ok(file) if !file.enabled.in_mode(eyes.mode) => Status::Disabled,
        Ok(file) => judge(eyes.settings, &name, &directory, listing, file, link),
        Err(problems) => {
            let mut problems = problems.clone();
            problems.0.extend(link);
            Status::Refused(problems)
        }
    };
    let places = file.as_ref().map(|file| file.places.clone());
    let mut found = Found {
        is_administrators: author::is_administrators(&directory, eyes.mode),
        places: places.unwrap_or_default(),
        name,
        directory,
        public,
        nested,
        status,
        developed,
        fingerprint: Fingerprint::default(),
    };
    if !matches!(found.status, Status::Disabled) {
        found.fingerprint = Fingerprint::of(&found, eyes.mode, &eyes.git);
    }
    found
}

/// Which of a worker's files count in development. What can not run is developed as well: the next file that is saved may be the one
/// that was missing.
fn developed(
    name: &WorkerName,
    directory: &Path,
    listing: &Listing,
    file: &WorkerFile,
) -> Developed {
    let known = listing.kind(name.program(), file.command.is_some());
    let kind = file.kind.or(known.ok());
    let is_compiled = matches!(kind, Some(WorkerType::Rust | WorkerType::Go));
    let is_built = is_compiled || file.build.is_some();
    let command = file.command.iter().flatten().take(1).map(PathBuf::from);
    let mut programs: Vec<PathBuf> = command
        .filter(|program| program.is_relative() && program.components().count() > 1)
        .collect();
    if kind == Some(WorkerType::Exec) {
        programs.push(Path::new("bin").join(name.program()));
    }
    Developed {
        directory: directory.to_owned(),
        ignore: file.watch_ignore.clone(),
        is_built,
        programs: if is_built { Vec::new() } else { programs },
        public: linked_public(directory, listing),
    }
}

/// Where `public/` leads inside the worker, in the words of the worker's directory, if it is a symbolic link.
fn linked_public(directory: &Path, listing: &Listing) -> Option<PathBuf> {
    let public = public(directory, listing).ok()??;
    let is_link = listing.links.contains(std::ffi::OsStr::new("public"));
    let target = public.canonicalize().ok().filter(|_| is_link)?;
    let inside = target.strip_prefix(directory.canonicalize().ok()?).ok()?;
    (!inside.as_os_str().is_empty()).then(|| directory.join(inside))
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
                let help = "set 'type:' in its config/worker.yaml: rust, go, node, python, php, bun, deno, exec or static";
                problems.push(problem.help(help));
                None
            }
        },
    };
    // The type plays no part in what can be wrong there: any will do to find all problems at once.
    let any = kind.unwrap_or(crate::config::WorkerType::Exec);
    match settings.for_worker(name, directory, file, any) {
        Ok(mut settings) if problems.is_empty() => {
            if kind == Some(WorkerType::Php) && settings.command.is_none() {
                settings.document_root = listing.document_root();
                if settings.document_root.is_none() {
                    return Status::Refused(without_index(directory).into());
                }
            }
            Status::Enabled(Box::new(settings))
        }
        Ok(_) => Status::Refused(Problems(problems)),
        Err(more) => {
            problems.extend(more.0);
            Status::Refused(Problems(problems))
        }
    }
}

fn without_index(directory: &Path) -> Problem {
    let message = "there is no index.php for php-fpm to start from";
    let help = "put one into public/, the worker's directory or src/; or name a 'command' that speaks HTTP in its config/worker.yaml";
    Problem::new(Place::file(directory), message).help(help)
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

/// A worker that a deployer wrote has what its directory gives it, and what server.yaml leaves to it.
fn refuse_what_is_not_left_to_deployers(inventory: &mut Inventory, settings: &Settings) {
    let names: Vec<WorkerName> = inventory.workers.keys().cloned().collect();
    let deployed = inventory.workers.values_mut();
    for found in deployed.filter(|found| !found.is_administrators) {
        let Some(worker) = found.settings() else {
            continue;
        };
        let refused = settings
            .grants
            .refused(&found.name, &worker.route, &worker.hosts, &names);
        if let Some(refused) = refused {
            let place = found.places.get(refused.key).cloned();
            let place = place.unwrap_or_else(|| Place::file(&found.directory));
            let server = settings.file.display();
            let help = format!("if it is to have that, add to {server}: {}", refused.cure);
            let problem = Problem::new(place, refused.message).help(help);
            found.status = Status::Refused(problem.into());
            found.fingerprint.config.clear();
        }
    }
}

/// The places that a worker wants to have.
fn claims(found: &Found) -> Vec<Claim> {
    let settings = found.settings();
    settings.map_or_else(Vec::new, |settings| {
        Claim::all(&settings.hosts, &settings.route)
    })
}

/// Of workers that would have the same route the one that serves there keeps it, else the first by name.
fn refuse_second_on_a_route(inventory: &mut Inventory, held: &BTreeMap<Claim, WorkerName>) {
    let wanted = inventory.workers.values().flat_map(|found| {
        claims(found)
            .into_iter()
            .map(|claim| (claim, found.name.clone()))
    });
    let mut taken: BTreeMap<Claim, WorkerName> = wanted
        .filter(|(claim, name)| held.get(claim) == Some(name))
        .collect();
    for found in inventory.workers.values_mut() {
        let claims = claims(found);
        let second = claims.iter().find_map(|claim| {
            let first = taken.get(claim).filter(|first| **first != found.name)?;
            Some((claim, first))
        });
        if let Some((claim, first)) = second {
            let message = format!("the route {claim} is that of the worker '{first}' already");
            let help = match claim.host {
                Some(_) => {
                    "give one of the two another 'path', or other 'hosts', in its config/worker.yaml"
                }
                None => {
                    "give one of the two another 'path', or 'hosts' of its own, in its config/worker.yaml"
                }
            };
            let problem = Problem::new(Place::file(&found.directory), message).help(help);
            found.status = Status::Refused(problem.into());
            found.fingerprint.config.clear();
        } else {
            let name = &found.name;
            taken.extend(claims.into_iter().map(|claim| (claim, name.clone())));
        }
    }
}

#[cfg(test)]
mod tests;
