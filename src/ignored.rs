//! Which files of a worker do not count while it is developed: those of version control and editors, what is built from others, what
//! git ignores, and what its own `watch: {ignore: ...}` names. The one door to the crate `ignore`.
//!
//! It reads `.gitignore` files and no others. In production nobody asks: what was deployed is deployed.

mod git;
mod names;
mod pattern;

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ignore::Match;
use ignore::gitignore::Gitignore;

pub use git::{GIT_IGNORE, GitFiles, above};
pub use names::is_left_out_between_workers;
pub use pattern::{Pattern, PatternError};

use names::{is_litter, is_output, is_written};

/// The configuration of a worker in its directory: it counts, whatever else is said.
const CONFIGURATION: &str = "config/worker.yaml";
/// What the proxy serves of a worker.
const PUBLIC: &str = "public";

/// A worker under development: what decides which of its files count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Developed {
    /// Its directory, absolute.
    pub directory: PathBuf,
    /// Its own `watch: {ignore: ...}`.
    pub ignore: Vec<Pattern>,
    /// Whether it is built from its sources: what lies in `bin/` is then a consequence of them.
    pub is_built: bool,
    /// Directories at its top that its build fills with what others have written.
    pub made: &'static [&'static str],
    /// What it runs, where that is no consequence of other files, and what else of its files it names: they count even if git ignores
    /// them. Relative to its directory.
    pub programs: Vec<PathBuf>,
    /// Where `public/` leads if it is a symbolic link, absolute, inside the directory.
    pub public: Option<PathBuf>,
}

/// The rules of one worker. A question about a path takes for granted that the directory it is in counts: who walks asks about each
/// directory on the way and does not enter those that are ignored.
pub struct Rules {
    directory: PathBuf,
    is_built: bool,
    made: &'static [&'static str],
    public: Option<PathBuf>,
    /// `watch: {ignore: ...}`: over all that can be argued about.
    own: Gitignore,
    /// `.gitignore` files of the directories above the worker's, the nearest first.
    above: Vec<Rc<Gitignore>>,
    git: Rc<GitFiles>,
    /// Files that count though they or a directory around them are ignored.
    kept: Vec<PathBuf>,
    /// Ignored directories that are entered for the sake of those.
    through: Vec<PathBuf>,
    /// The `.gitignore` files that speak of what is in one directory, the nearest first: questions come directory by directory.
    last: RefCell<Last>,
}

/// See [`Rules::last`].
#[derive(Default)]
struct Last {
    directory: PathBuf,
    edition: u64,
    files: Vec<Rc<Gitignore>>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &mut f.debug_struct("Rules");
        rules
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Rules {
    /// The rules of `worker`; `git` has what was read of `.gitignore` files for this one or others.
    pub fn new(worker: &Developed, git: &Rc<GitFiles>) -> Self {
        let mut rules = Self {
            directory: worker.directory.clone(),
            is_built: worker.is_built,
            made: worker.made,
            public: worker.public.clone(),
            own: pattern::compiled(&worker.directory, &worker.ignore),
            above: git.above(&worker.directory),
            git: Rc::clone(git),
            kept: vec![worker.directory.join(CONFIGURATION)],
            through: Vec::new(),
            last: RefCell::default(),
        };
        for program in &worker.programs {
            let path = worker.directory.join(program);
            // Whoever names it in watch.ignore does not want to hear of it.
            let named = rules.own.matched_path_or_any_parents(program, false);
            if path.starts_with(&worker.directory) && !named.is_ignore() {
                rules.kept.push(path);
            }
        }
        let wanted = rules.kept.iter().chain(&rules.public);
        let mut through: Vec<PathBuf> =
            wanted.flat_map(|path| rules.ignored_around(path)).collect();
        through.extend(rules.public.clone());
        rules.through = through;
        rules
    }

    /// The directories around `path` from the outermost ignored one on.
    fn ignored_around(&self, path: &Path) -> Vec<PathBuf> {
        let inside =
            |around: &&Path| around.starts_with(&self.directory) && *around != self.directory;
        let around: Vec<&Path> = path.ancestors().skip(1).take_while(inside).collect();
        let around = around.into_iter().rev();
        let ignored = around.skip_while(|directory| !self.is_ruled_out(directory, true));
        ignored.map(Path::to_owned).collect()
    }

    /// Whether what is at `path`, below the worker's directory, is of no importance at all.
    pub fn ignores(&self, path: &Path, is_directory: bool) -> bool {
        let public = self.directory.join(PUBLIC);
        if path.starts_with(&public) {
            return self.ignores_asset(path, is_directory);
        }
        if let Some(Ok(inside)) = self.public.as_ref().map(|link| path.strip_prefix(link)) {
            let asset = public.join(inside);
            if !self.ignores_asset(&asset, is_directory) {
                return false;
            }
        }
        self.ignores_program(path, is_directory)
    }

    /// Whether what is at `path`, below the worker's directory, does not count as a part of its program.
    pub fn ignores_program(&self, path: &Path, is_directory: bool) -> bool {
        if self.kept.iter().any(|kept| kept == path) {
            return false;
        }
        let entered = |path: &Path| self.through.iter().any(|through| through == path);
        if is_directory && entered(path) {
            return false;
        }
        if path
            .parent()
            .is_some_and(|parent| entered(parent) && self.is_closed(parent))
        {
            return true;
        }
        self.is_ruled_out(path, is_directory)
    }

    /// Whether what is at `path`, in `public/`, does not count as one of its assets. What git ignores does: browsers see it, and a
    /// stylesheet that a tool makes is seldom committed.
    pub fn ignores_asset(&self, path: &Path, is_directory: bool) -> bool {
        match self.own.matched(path, is_directory) {
            Match::Ignore(_) => true,
            Match::Whitelist(_) => false,
            Match::None => path.file_name().is_some_and(is_litter),
        }
    }

    /// Whether a directory that is entered all the same, or one around it, is ignored.
    fn is_closed(&self, directory: &Path) -> bool {
        let inside = directory.ancestors();
        inside
            .take_while(|around| *around != self.directory)
            .any(|around| self.is_ruled_out(around, true))
    }

    fn is_ruled_out(&self, path: &Path, is_directory: bool) -> bool {
        let Some(name) = path.file_name() else {
            return false;
        };
        let text = name.to_string_lossy();
        if is_directory && text.starts_with('.') {
            return true;
        }
        let on_top = path.parent() == Some(&self.directory);
        if on_top && is_directory {
            match &*text {
                "data" | "target" => return true,
                "bin" if self.is_built => return true,
                _ => {}
            }
        }
        if on_top && text == PUBLIC {
            return true;
        }
        match self.own.matched(path, is_directory) {
            Match::Ignore(_) => true,
            Match::Whitelist(_) => false,
            Match::None => {
                is_litter(name)
                    || on_top && is_directory && self.made.contains(&&*text)
                    || is_output(path, is_directory)
                    || self
                        .word_of_git(path, is_directory)
                        .unwrap_or(!is_directory && is_written(name))
            }
        }
    }

    /// Whether git ignores it, if any of its files says something of it: the last line that fits of the nearest file that has one decides.
    fn word_of_git(&self, path: &Path, is_directory: bool) -> Option<bool> {
        let directory = path.parent()?;
        let mut last = self.last.borrow_mut();
        let edition = self.git.edition();
        if last.directory != directory || last.edition != edition {
            let inside = directory
                .ancestors()
                .take_while(|around| around.starts_with(&self.directory));
            last.files = inside.filter_map(|around| self.git.of(around)).collect();
            last.files.extend(self.above.iter().cloned());
            last.edition = edition;
            directory.clone_into(&mut last.directory);
        }
        last.files.iter().find_map(|file| {
            let word = file.matched(path, is_directory);
            (!word.is_none()).then(|| word.is_ignore())
        })
    }
}

#[cfg(test)]
mod tests;
