//! Looks at one worker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::author;
use super::env_files;
use super::fingerprint::{Fingerprint, Lying};
use super::found::{Found, Status};
use super::kind::Listing;
use crate::config::{Mode, Place, Problem, Problems, Settings, WorkerFile, WorkerType};
use crate::ignored::{Developed, GitFiles, Pattern};
use crate::names::WorkerName;
use crate::types::{self, Build, Installer, Run, Type};

/// What is the same for all workers that are looked at.
pub(super) struct Eyes<'a> {
    pub(super) settings: &'a Settings,
    pub(super) mode: Mode,
    /// What was read of `.gitignore` files on the way.
    pub(super) git: Rc<GitFiles>,
    /// What programs write themselves.
    pub(super) written: &'a BTreeMap<WorkerName, BTreeSet<String>>,
    /// What their files say.
    pub(super) files: BTreeMap<PathBuf, Arc<Result<WorkerFile, Problems>>>,
}

pub(super) fn file_of(directory: &Path) -> PathBuf {
    directory.join("config").join("worker.yaml")
}

/// Looks at one worker; `nested` are those inside its directory.
pub(super) fn look(
    eyes: &Eyes<'_>,
    name: WorkerName,
    directory: PathBuf,
    listing: &Listing,
    nested: &[&Developed],
) -> Found {
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
    let mut developed = match file {
        Ok(file) => developed(&name, &directory, listing, file),
        Err(_) => developed(&name, &directory, listing, &WorkerFile::default()),
    };
    if let Some(written) = eyes.written.get(&name) {
        // What its file says comes after that, and over it.
        let written = written.iter().filter_map(|path| Pattern::of_path(path));
        developed.ignore.splice(..0, written);
    }
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
        status,
        developed,
        fingerprint: Fingerprint::default(),
    };
    if !matches!(found.status, Status::Disabled) {
        let files = Lying {
            directory: &found.directory,
            public: found.public.as_deref(),
            nested,
            developed: &found.developed,
            settings: found.settings(),
        };
        let (fingerprint, indexes) = Fingerprint::of(&files, eyes.mode, &eyes.git);
        found.fingerprint = fingerprint;
        found.status = found.status.with_indexes(indexes, &found.directory);
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
    let known = kind.map(types::of);
    let is_built = known.is_some_and(Type::is_compiled) || file.build.is_some();
    let command = file.command.iter().flatten().take(1).map(PathBuf::from);
    let installer = match known.map(|known| known.build) {
        Some(Build::Dependencies(installer)) if file.build.is_none() => Some(installer),
        _ => None,
    };
    let is_read = |installer: &Installer| {
        let mut files = installer.reads().iter();
        files.any(|file| listing.has_file(file))
    };
    let made = installer
        .filter(is_read)
        .map_or(&[][..], |installer| installer.makes());
    let is_made = |program: &Path| {
        let mut parts = program.components();
        let first = parts.find(|part| *part != Component::CurDir);
        first.is_some_and(|first| made.iter().any(|made| first.as_os_str() == *made))
    };
    let mut programs: Vec<PathBuf> = command
        .filter(|program| program.is_relative() && program.components().count() > 1)
        .filter(|program| !is_made(program))
        .collect();
    if known.is_some_and(|known| matches!(known.run, Run::Program { .. })) {
        programs.push(Path::new("bin").join(name.program()));
    }
    if is_built {
        programs.clear();
    }
    // Nothing makes these, and git seldom has them.
    programs.extend(file.env_files.iter().map(PathBuf::from));
    Developed {
        directory: directory.to_owned(),
        ignore: file.watch_ignore.clone(),
        is_built,
        made,
        programs,
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
                let [names @ .., last] = types::ALL.map(|kind| kind.name);
                let names = names.join(", ");
                let help = format!("set 'type:' in its config/worker.yaml: {names} or {last}");
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
                settings.document_root = listing.document_root(settings.front_controller());
                if settings.document_root.is_none() {
                    return Status::Refused(without_script(directory, file).into());
                }
            }
            let public = linked_public(directory, listing);
            let mut problems = env_files::problems(directory, public.as_deref(), file, &settings);
            problems.extend(not_there(directory, file));
            if !problems.is_empty() {
                return Status::Refused(Problems(problems));
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

/// A directory that `persist` names has to be there: its content at first, and the place where the worker sees it.
fn not_there(directory: &Path, file: &WorkerFile) -> Option<Problem> {
    let is_there = |name: &&String| {
        let found = directory.join(name).symlink_metadata();
        found.is_ok_and(|found| found.is_dir())
    };
    let missing = file.persisted.iter().find(|name| !is_there(name))?;
    let place = file.places.get("persist").cloned().unwrap_or_default();
    let message = format!("'persist' names '{missing}', which is no directory of the worker");
    let help = "make it, with an empty file .gitkeep in it if it is to be empty and in git";
    Some(Problem::new(place, message).help(help))
}

/// Php-fpm has nothing to start from.
fn without_script(directory: &Path, file: &WorkerFile) -> Problem {
    let places = "public/, the worker's directory or src/";
    if let Some(script) = &file.front_controller {
        let place = file.places.get("front_controller").cloned();
        let message = format!("'front_controller' is '{script}', and there is no such script");
        let help = format!("write its path from {places}");
        return Problem::new(place.unwrap_or_default(), message).help(help);
    }
    let message = "there is no index.php for php-fpm to start from";
    let help = format!(
        "put one into {places}; or name a 'command' that speaks HTTP in its config/worker.yaml"
    );
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
