//! By which a change of a worker is known, without reading its files.

use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use walkdir::{DirEntry, WalkDir};

use super::omitted::is_omitted;
use crate::config::{DocumentRoot, Mode, WorkerSettings, WorkerType};
use crate::fnv::Fnv;
use crate::ignored::{Developed, GitFiles, Rules};
use crate::route::{Indexes, TooManyIndexes};
use crate::types::{self, Run, Type};

/// What a worker was made of. Each part is 16 hexadecimal digits, or empty where there is nothing to compare; parts that are the same
/// ([`is_same`]) need no action. Behind a `-` come 16 more of the times of the last change, which earlier versions did not note. It is kept with a generation and compared by later versions of this program, so the way it is computed does not change
/// without need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The files that a generation runs from, in production those below `public/` too: a change needs a new generation.
    pub program: String,
    /// The files below `public/`: a change of them alone needs no new process.
    pub assets: String,
    /// The effective settings; empty while the worker is refused.
    pub config: String,
    /// Its own configuration file, as a file: the settings also come from server.yaml.
    #[serde(default)]
    pub file: String,
    /// In development, for browsers: the `*.css` files below `public/`. It decides on nothing here.
    #[serde(default)]
    pub styles: String,
    /// In development, for browsers: the other files below `public/`.
    #[serde(default)]
    pub other_assets: String,
    /// In development: which of the program's files was changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Latest>,
}

/// A file, and when it was changed last, whatever time of modification somebody gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// From the worker's directory on.
    pub path: String,
    /// Its ctime, in seconds and nanoseconds.
    pub changed: (i64, i64),
}

/// Whether two parts of fingerprints are of the same files. One of an earlier version says nothing of the times of the last change, and
/// is not another for that.
pub fn is_same(one: &str, other: &str) -> bool {
    let ((one, changed), (other, other_changed)) = (split(one), split(other));
    let both = changed.zip(other_changed);
    one == other && both.is_none_or(|(one, other)| one == other)
}

/// What was always noted, and the times of the last change.
fn split(part: &str) -> (&str, Option<&str>) {
    match part.split_once('-') {
        Some((noted, changed)) => (noted, Some(changed)),
        None => (part, None),
    }
}

impl Fingerprint {
    /// Whether both are of the same files in the worker's directory, whatever server.yaml said.
    pub fn is_of_the_same_files(&self, other: &Self) -> bool {
        self.files()
            .iter()
            .zip(other.files())
            .all(|(own, others)| is_same(own, others))
    }

    /// The same, but for the times of the last change: a backup's link or a change of owner is one too, and must not bring back what
    /// nobody wants.
    pub fn is_of_like_files(&self, other: &Self) -> bool {
        let mut pairs = self.files().into_iter().zip(other.files());
        pairs.all(|(own, others)| split(own).0 == split(others).0)
    }

    fn files(&self) -> [&str; 3] {
        [&self.program, &self.assets, &self.file]
    }

    /// The fingerprint of the worker's files as they are now; `git` has what was read of `.gitignore` files. What the same walk finds of
    /// the indexes of PHP scripts is beside it, in production: there the files that are looked at are those of a snapshot.
    pub(super) fn of(
        lying: &Lying<'_>,
        mode: Mode,
        git: &Rc<GitFiles>,
    ) -> (Self, Result<Indexes, TooManyIndexes>) {
        let kind = lying.settings.map(|settings| settings.kind);
        let rules = |developed: &Developed| Rules::new(developed, git);
        let rules = (mode == Mode::Development).then(|| Developing {
            own: rules(lying.developed),
            nested: lying
                .nested
                .iter()
                .map(|nested| (&*nested.directory, rules(nested)))
                .collect(),
        });
        let parts = Parts { lying, kind, rules };
        let is_static = kind.is_some_and(|kind| matches!(types::of(kind).run, Run::Nothing));
        // Nothing of it runs; in development there is what its files are built from.
        let has_sources = mode == Mode::Development
            && lying
                .settings
                .is_some_and(WorkerSettings::is_static_and_built);
        let (mut indexes, mut size) = (Vec::new(), 0);
        let root = lying.document_root().filter(|_| mode == Mode::Production);
        let mut latest = None;
        let program = match is_static && !has_sources {
            true => String::new(),
            false => {
                let mut hash = Hash::new();
                each(
                    lying.directory,
                    |entry| parts.is_program(entry),
                    |file| {
                        hash = file.onto(hash);
                        if mode == Mode::Development {
                            file.take_place_of(&mut latest);
                        }
                        let index = root.as_ref().and_then(|root| file.index_below(root));
                        // One too many says as much as all.
                        indexes.extend(index.filter(|_| size <= Indexes::MOST).inspect(|index| {
                            size += index.len() + 1;
                        }));
                    },
                );
                hash.part()
            }
        };
        let config = lying
            .settings
            .and_then(|settings| serde_json::to_vec(settings).ok());
        let mut fingerprint = Self {
            program,
            latest,
            config: config
                .map(|json| Fnv::new().with(&json).to_string())
                .unwrap_or_default(),
            file: std::fs::symlink_metadata(lying.directory.join("config").join("worker.yaml"))
                .map(|metadata| Hash::new().with_file(&metadata).part())
                .unwrap_or_default(),
            ..Self::default()
        };
        match (lying.public, &parts.rules) {
            (None, _) => {}
            (Some(public), None) => fingerprint.assets = files(public, |_| true).part(),
            (Some(public), Some(rules)) => fingerprint.add_assets(public, &rules.own),
        }
        (fingerprint, Indexes::new(indexes))
    }

    /// Adds what there is below `public/`, in one walk.
    fn add_assets(&mut self, public: &Path, rules: &Rules) {
        let [mut all, mut styles, mut others] = [Hash::new(); 3];
        let wanted = |entry: &DirEntry| !rules.ignores_asset(entry.path(), is_directory(entry));
        each(public, wanted, |file| {
            all = file.onto(all);
            let part = match file.is_stylesheet() {
                true => &mut styles,
                false => &mut others,
            };
            *part = file.onto(*part);
        });
        [self.assets, self.styles, self.other_assets] = [all, styles, others].map(Hash::part);
    }
}

impl Fingerprint {
    /// The same for a worker that is handed `secrets`, files elsewhere: what counts of them is what counts of its own files. One of
    /// them that changes is a change of its settings.
    #[must_use]
    pub fn with_secrets(mut self, secrets: &[PathBuf]) -> Self {
        if secrets.is_empty() {
            return self;
        }
        let mut hash = Hash::new().with(self.config.as_bytes());
        for path in secrets {
            hash = hash.with(path.as_os_str().as_bytes()).with(&[0]);
            hash = match path.metadata() {
                Ok(metadata) => hash.with_file(&metadata),
                Err(_) => hash.with(b"missing"),
            };
        }
        self.config = hash.part();
        self
    }
}

/// A worker as it lies on disk.
pub(super) struct Lying<'a> {
    /// Its directory.
    pub(super) directory: &'a Path,
    /// The directory of its assets, if it has one.
    pub(super) public: Option<&'a Path>,
    /// The workers inside its directory. They are a part of it all the same.
    pub(super) nested: &'a [&'a Developed],
    /// Which of its files count in development.
    pub(super) developed: &'a Developed,
    /// How it is to run, if it is.
    pub(super) settings: Option<&'a WorkerSettings>,
}

impl Lying<'_> {
    /// Where its PHP scripts start, from its directory on.
    fn document_root(&self) -> Option<PathBuf> {
        let root = self.settings?.document_root?;
        let linked = self.developed.public.as_ref();
        let linked = linked.filter(|_| root == DocumentRoot::Public);
        let linked = linked.and_then(|linked| linked.strip_prefix(self.directory).ok());
        Some(linked.map_or_else(|| root.below(Path::new("")), Path::to_owned))
    }
}

/// Which of a worker's files are its program.
struct Parts<'a> {
    lying: &'a Lying<'a>,
    kind: Option<WorkerType>,
    rules: Option<Developing<'a>>,
}

/// What does not count in development.
struct Developing<'a> {
    own: Rules,
    /// In the directory of each worker inside: what is no news there, as what it builds and keeps, is none around it.
    nested: Vec<(&'a Path, Rules)>,
}

impl Parts<'_> {
    fn is_program(&self, entry: &DirEntry) -> bool {
        let path = entry.path();
        if self.is_configuration(path) {
            // Counted as what it says, not as a file: a new comment in it needs no reload. That of a worker inside is for that one.
            return false;
        }
        // What a site is built into is no source of it, wherever `public/` leads.
        if self.kind == Some(WorkerType::Static)
            && self.lying.developed.public.as_deref() == Some(entry.path())
        {
            return false;
        }
        if entry.depth() == 0 {
            return true;
        }
        match &self.rules {
            Some(rules) => self.is_developed(rules, entry),
            None => !is_omitted(self.kind, path, entry.depth() == 1),
        }
    }

    fn is_configuration(&self, path: &Path) -> bool {
        let configuration = Path::new("config/worker.yaml");
        let is_in = |directory: &Path| path.strip_prefix(directory) == Ok(configuration);
        let mut nested = self.lying.nested.iter();
        path.ends_with(configuration)
            && (is_in(self.lying.directory) || nested.any(|nested| is_in(&nested.directory)))
    }

    /// In development a program reads what lies in `public/` itself, and needs no new process for it, but for scripts.
    fn is_developed(&self, rules: &Developing<'_>, entry: &DirEntry) -> bool {
        let (path, is_directory) = (entry.path(), is_directory(entry));
        if path.starts_with(self.lying.directory.join("public")) {
            let kind = self.kind.map(types::of);
            return kind.is_some_and(Type::runs_from_public)
                && (entry.depth() == 1 || !rules.own.ignores_asset(path, is_directory))
                && (is_directory || is_script(path));
        }
        let mut nested = rules.nested.iter();
        !rules.own.ignores_program(path, is_directory)
            && !nested.any(|(directory, rules)| {
                path != *directory
                    && path.starts_with(directory)
                    && rules.ignores_program(path, is_directory)
            })
    }
}

/// Whether PHP reads the file and goes on by what it has read.
fn is_script(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    extension.eq_ignore_ascii_case("php") || path.ends_with(".user.ini")
}

fn is_directory(entry: &DirEntry) -> bool {
    entry.file_type().is_dir()
}

/// What a walk comes upon.
enum Seen<'a> {
    /// A file, by its path below where the walk began.
    File(&'a Path, Metadata),
    /// What can not be looked at or into.
    Unreadable(&'a Path),
}

impl Seen<'_> {
    fn onto(&self, hash: Hash) -> Hash {
        match self {
            // A path can hold anything but NUL, so that the end of it is certain; the numbers have a fixed length.
            Self::File(path, metadata) => {
                let hash = hash.with(path.as_os_str().as_bytes()).with(&[0]);
                hash.with_file(metadata)
            }
            Self::Unreadable(path) => hash.with(path.as_os_str().as_bytes()).with(b"\0unreadable"),
        }
    }

    /// Takes the place of a file that was changed before it.
    fn take_place_of(&self, latest: &mut Option<Latest>) {
        let Self::File(path, metadata) = self else {
            return;
        };
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let is_later = latest
            .as_ref()
            .is_none_or(|latest| latest.changed < changed);
        // As for the fingerprint: a link to a file elsewhere changes it, too.
        if let (1, true, Some(path)) = (metadata.nlink(), is_later, path.to_str()) {
            let path = path.to_owned();
            *latest = Some(Latest { path, changed });
        }
    }

    /// The directory whose index of PHP scripts it is, from the document root on.
    fn index_below(&self, root: &Path) -> Option<String> {
        let Self::File(path, _) = self else {
            return None;
        };
        let below = path.strip_prefix(root).ok()?;
        let directory = below.parent()?.to_str()?;
        // What is hidden answers nobody.
        let is_hidden = directory.split('/').any(|name| name.starts_with('.'));
        (below.ends_with(DocumentRoot::INDEX) && !is_hidden).then(|| directory.to_owned())
    }

    fn is_stylesheet(&self) -> bool {
        let (Self::File(path, _) | Self::Unreadable(path)) = self;
        let extension = path.extension().unwrap_or_default();
        extension.eq_ignore_ascii_case("css")
    }
}

/// A hash of what the file system knows of the files below `directory`: path, size, times of modification and change, inode and mode.
fn files(directory: &Path, wanted: impl Fn(&DirEntry) -> bool) -> Hash {
    let mut hash = Hash::new();
    each(directory, wanted, |file| hash = file.onto(hash));
    hash
}

/// Hands each file below `directory` to `take`.
fn each(directory: &Path, wanted: impl Fn(&DirEntry) -> bool, mut take: impl FnMut(Seen<'_>)) {
    let walk = WalkDir::new(directory).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(wanted) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let kind = error.io_error().map(io::Error::kind);
                if kind != Some(io::ErrorKind::NotFound) {
                    // Unreadable is a state like another: when that ends, the worker has changed.
                    take(Seen::Unreadable(error.path().unwrap_or(directory)));
                }
                continue;
            }
        };
        if is_directory(&entry) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let relative = entry.path().strip_prefix(directory).unwrap_or(entry.path());
        take(Seen::File(relative, metadata));
    }
}

/// A part of a fingerprint in the making. Who can write a worker's files gains nothing by hiding a change of them.
#[derive(Clone, Copy)]
struct Hash {
    /// What earlier versions noted, too.
    noted: Fnv,
    /// When each file was last changed (ctime). A release may give all its files one time of modification, and be copied over the one
    /// before; this time nobody can set.
    changed: Fnv,
}

impl Hash {
    fn new() -> Self {
        let (noted, changed) = (Fnv::new(), Fnv::new());
        Self { noted, changed }
    }

    fn with(self, bytes: &[u8]) -> Self {
        let noted = self.noted.with(bytes);
        Self { noted, ..self }
    }

    fn with_file(self, metadata: &Metadata) -> Self {
        // Where releases share files, one more link to them, for another worker's, is a change of that kind and not of this file.
        let changed = match metadata.nlink() {
            1 => (metadata.ctime(), metadata.ctime_nsec()),
            _ => (0, 0),
        };
        Self {
            noted: self
                .noted
                .with(&metadata.size().to_le_bytes())
                .with(&metadata.mtime().to_le_bytes())
                .with(&metadata.mtime_nsec().to_le_bytes())
                .with(&metadata.ino().to_le_bytes())
                .with(&metadata.mode().to_le_bytes()),
            changed: self
                .changed
                .with(&changed.0.to_le_bytes())
                .with(&changed.1.to_le_bytes()),
        }
    }

    fn part(self) -> String {
        format!("{}-{}", self.noted, self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_changes_changes_the_settings_of_its_worker() {
        let secret = std::env::temp_dir().join(format!("tqserver-secret-{}", std::process::id()));
        let seen = || {
            let nothing = Fingerprint::default();
            nothing.with_secrets(std::slice::from_ref(&secret)).config
        };
        let missing = seen();
        std::fs::write(&secret, "one").unwrap();
        let first = seen();
        assert_eq!(first, seen());
        std::fs::write(&secret, "another").unwrap();
        let second = seen();
        std::fs::remove_file(&secret).unwrap();
        assert!(missing != first && first != second && missing != second);
        assert_eq!(Fingerprint::default().with_secrets(&[]).config, "");
    }

    #[test]
    fn what_an_earlier_version_noted_is_compared_with_what_it_knew() {
        for (one, other, expected) in [
            ("", "", true),
            ("aa", "aa", true),
            ("aa", "aa-11", true),
            ("aa-11", "aa", true),
            ("aa-11", "aa-11", true),
            ("aa-11", "aa-22", false),
            ("aa-11", "bb-11", false),
            ("aa", "bb-11", false),
            ("", "aa-11", false),
        ] {
            assert_eq!(is_same(one, other), expected, "{one:?} {other:?}");
        }
        let of = |program: &str| Fingerprint {
            program: program.to_owned(),
            ..Fingerprint::default()
        };
        assert!(of("aa-11").is_of_like_files(&of("aa-22")));
        assert!(!of("aa-11").is_of_the_same_files(&of("aa-22")));
        assert!(!of("aa-11").is_of_like_files(&of("bb-11")));
    }

    #[test]
    fn a_file_that_is_written_anew_with_the_same_size_and_time_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("main.py");
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
            path.metadata().unwrap()
        };
        let first = write("1.0.1");
        let mut second = write("1.0.2");
        // The kernel's clock for files has ticks of some milliseconds.
        while second.ctime_nsec() == first.ctime_nsec() {
            second = write("1.0.2");
        }
        let [first, second] = [first, second].map(|of| Hash::new().with_file(&of).part());
        assert!(!is_same(&first, &second));
        assert_eq!(split(&first).0, split(&second).0);
    }
}
