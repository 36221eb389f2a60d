//! Snapshots: a generation's own copy of the worker's files, which only the server's user can write.
//!
//! The store is a directory of directories, and nothing else remembers what is in it:
//!
//! ```text
//! root/NAME/GEN/            the files of the worker
//! root/NAME/GEN.public-K/   its public/, K growing as assets are deployed without a new program
//! root/NAME/GEN.json        what it was made of: the manifest
//! root/NAME/.new-*          being made; removed by the next prune if nobody finished it
//! ```
//!
//! Everything appears by rename, whole. Which generations are kept is decided elsewhere. One task at a time changes what belongs
//! to one worker, on a thread that may block.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use super::copy::CopyError;
use super::copy::{self, How, Omit, io_error};
use crate::config::{WorkerSettings, WorkerType};
use crate::names::{Generation, Instance, WorkerName};

/// The start of the name of something that is being made.
const NEW: &str = ".new-";

/// Directories of the worker that no snapshot has: `data/` is written at run time, `public/` is kept apart, `target/` is Cargo's.
const NOT_THE_PROGRAMS: &[&str] = &["data", "public", "target"];

/// The same, of a worker whose program was built from `src/`.
const NOT_THE_PROGRAMS_NOR_SOURCE: &[&str] = &["data", "public", "target", "src"];

/// What no snapshot has on any level.
const NOWHERE: &[&str] = &[".git", ".hg", ".svn", "__pycache__"];

/// What a snapshot was made of. Kept beside it, so that a manager that has just started can tell whether anything changed since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Fingerprint of the worker's files, `public/` left out.
    pub program: String,
    /// Fingerprint of `public/`.
    pub assets: String,
    /// Fingerprint of the worker's configuration.
    pub config: String,
    /// The settings the generation was accepted with.
    pub settings: WorkerSettings,
}

/// Why the store can not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The files could not be copied.
    #[error("copy the files of {instance} from {}", from.display())]
    Copy {
        /// For which generation.
        instance: Instance,
        /// From where.
        from: PathBuf,
        /// Why not.
        #[source]
        reason: CopyError,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot of {0}")]
    NoSnapshot(Instance),
    /// A snapshot is never written a second time.
    #[error("there is a snapshot of {0} already")]
    Exists(Instance),
    /// The manifest is not one of ours.
    #[error("read the manifest {}", path.display())]
    Manifest {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Another failure.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which object.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// The snapshots of all workers.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store in `root`, which is made if it is not there.
    ///
    /// # Errors
    /// When the directory can not be made.
    pub fn open(root: PathBuf) -> Result<Self, SnapshotError> {
        make_directory(&root)?;
        Ok(Self { root })
    }

    /// Where the files of a generation are, or would be.
    pub fn files(&self, instance: &Instance) -> PathBuf {
        self.directory(&instance.worker)
            .join(instance.generation.to_string())
    }

    /// Makes the snapshot of a generation from the worker's directory `source`, its assets included and the directories in `nested`
    /// left out, and returns where its files are. It is there when all of it is.
    ///
    /// # Errors
    /// When the worker has files that can not be deployed, or the copy fails; nothing is left then.
    pub fn create(
        &self,
        instance: &Instance,
        source: &Path,
        kind: WorkerType,
        nested: &[PathBuf],
    ) -> Result<PathBuf, SnapshotError> {
        let inside = nested
            .iter()
            .filter_map(|path| path.strip_prefix(source).ok());
        let nested: Vec<PathBuf> = inside.map(Path::to_owned).collect();
        let top = match kind {
            WorkerType::Rust | WorkerType::Go | WorkerType::Exec => NOT_THE_PROGRAMS_NOR_SOURCE,
            WorkerType::Node | WorkerType::Python | WorkerType::Static => NOT_THE_PROGRAMS,
        };
        let omit = Omit {
            top,
            dot_directories: true,
            anywhere: NOWHERE,
            paths: &nested,
        };
        self.vacant(instance)?;
        let failed = |reason| self.copy_failed(instance, source, reason);
        let (base, below) = split_base(&instance.worker, source);
        let files = copy::open_below(base, below).map_err(failed)?;
        self.add_assets_from(instance, source)?;
        let made = self.make(
            instance,
            files,
            &instance.generation.to_string(),
            How::Copy,
            omit,
        );
        made.map_err(|error| {
            self.discard(instance);
            error.with_origin(source)
        })
    }

    /// Makes the snapshot of `to` of the very files of `from`: for a generation that is replaced though nothing changed. The manifest
    /// and the latest assets come with it.
    ///
    /// # Errors
    /// When there is no snapshot of `from`, or it can not be linked; nothing is left then.
    pub fn clone_of(&self, from: &Instance, to: &Instance) -> Result<PathBuf, SnapshotError> {
        self.vacant(to)?;
        let source = self.files(from);
        if !source.is_dir() {
            return Err(SnapshotError::NoSnapshot(from.clone()));
        }
        let link = |directory: &Path, name: &str| {
            let opened = copy::open_below(directory, Path::new(""));
            let opened = opened.map_err(|reason| self.copy_failed(to, directory, reason))?;
            self.make(to, opened, name, How::Link, Omit::default())
                .map_err(|error| error.with_origin(directory))
        };
        let all = || {
            if let Some(assets) = self.latest_assets(from) {
                link(&assets, &assets_name(to.generation, 1))?;
            }
            if let Some(manifest) = self.manifest(from)? {
                self.write_manifest(to, &manifest)?;
            }
            link(&source, &to.generation.to_string())
        };
        all().inspect_err(|_| self.discard(to))
    }

    /// Adds the present `public/` of the worker's directory `source` to the snapshot of a generation, as its latest assets, and notes
    /// their fingerprint in its manifest. A worker without `public/` gets an empty directory.
    ///
    /// # Errors
    /// When there is no such snapshot, or the copy fails; the assets before it stay the latest then.
    pub fn add_assets(
        &self,
        instance: &Instance,
        source: &Path,
        fingerprint: &str,
    ) -> Result<PathBuf, SnapshotError> {
        if !self.files(instance).is_dir() {
            return Err(SnapshotError::NoSnapshot(instance.clone()));
        }
        let assets = match self.add_assets_from(instance, source)? {
            Some(assets) => assets,
            None => {
                let name = self.next_assets(instance);
                let empty = self.directory(&instance.worker).join(name);
                make_directory(&empty)?;
                empty
            }
        };
        if let Some(manifest) = self.manifest(instance)? {
            let assets = fingerprint.to_owned();
            self.write_manifest(instance, &Manifest { assets, ..manifest })?;
        }
        Ok(assets)
    }

    /// The directory of assets that was added last to the snapshot of a generation.
    pub fn latest_assets(&self, instance: &Instance) -> Option<PathBuf> {
        let number = self.assets_number(instance)?;
        let name = assets_name(instance.generation, number);
        Some(self.directory(&instance.worker).join(name))
    }

    /// The generations of a worker that have a snapshot, in order.
    pub fn generations(&self, worker: &WorkerName) -> Vec<Generation> {
        let mut generations: Vec<Generation> = self
            .names(worker)
            .iter()
            .filter_map(|name| match Entry::of(name) {
                Some(Entry::Files(generation)) => Some(generation),
                _ => None,
            })
            .collect();
        generations.sort();
        generations
    }

    /// The workers that have snapshots, in order.
    pub fn workers(&self) -> Vec<WorkerName> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut workers: Vec<WorkerName> = entries
            .filter_map(|entry| WorkerName::parse(entry.file_name().to_str()?).ok())
            .collect();
        workers.sort();
        workers
    }

    /// Removes all a worker has here of generations up to `last`, but for those to `keep`: their files, the latest of their assets and
    /// their manifests stay.
    ///
    /// # Errors
    /// When something can not be removed; the rest is removed all the same, and the first such error is returned.
    pub fn prune(
        &self,
        worker: &WorkerName,
        keep: &[Generation],
        last: Generation,
    ) -> Result<(), SnapshotError> {
        let latest = |generation| self.assets_number(&Instance::new(worker.clone(), generation));
        let stays = |name: &str| match Entry::of(name) {
            Some(Entry::Files(generation) | Entry::Manifest(generation)) => {
                generation > last || keep.contains(&generation)
            }
            Some(Entry::Assets(generation, number)) => {
                generation > last
                    || keep.contains(&generation) && latest(generation) == Some(number)
            }
            Some(Entry::New) => false,
            None => true,
        };
        let directory = self.directory(worker);
        let goes: Vec<String> = self
            .names(worker)
            .into_iter()
            .filter(|name| !stays(name))
            .collect();
        let removed: Vec<_> = goes
            .iter()
            .map(|name| remove(&directory.join(name)))
            .collect();
        if keep.is_empty() {
            // Not empty if something could not be removed, or is none of ours.
            let _ = fs::remove_dir(&directory);
        }
        removed.into_iter().collect()
    }

    /// The manifest of a generation, if it has one.
    ///
    /// # Errors
    /// When it is there and can not be read.
    pub fn manifest(&self, instance: &Instance) -> Result<Option<Manifest>, SnapshotError> {
        let path = self.manifest_path(instance);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| SnapshotError::Manifest { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SnapshotError::Io {
                what: "read",
                path,
                source,
            }),
        }
    }

    /// Writes the manifest of a generation, whole or not at all.
    ///
    /// # Errors
    /// When it can not be written; the one before it stays then.
    pub fn write_manifest(
        &self,
        instance: &Instance,
        manifest: &Manifest,
    ) -> Result<(), SnapshotError> {
        let path = self.manifest_path(instance);
        let new = self.new_path(&instance.worker, &format!("{}.json", instance.generation));
        let write = || {
            let mut bytes = serde_json::to_vec_pretty(manifest)?;
            bytes.push(b'\n');
            let mut file = fs::File::create(&new)?;
            io::Write::write_all(&mut file, &bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        make_directory(&self.directory(&instance.worker))?;
        write().map_err(|source| {
            // What is wrong has been found; a second failure adds nothing.
            let _ = fs::remove_file(&new);
            SnapshotError::Io {
                what: "write",
                path: path.clone(),
                source,
            }
        })
    }

    fn directory(&self, worker: &WorkerName) -> PathBuf {
        self.root.join(worker.as_str())
    }

    fn manifest_path(&self, instance: &Instance) -> PathBuf {
        self.directory(&instance.worker)
            .join(format!("{}.json", instance.generation))
    }

    fn new_path(&self, worker: &WorkerName, name: &str) -> PathBuf {
        self.directory(worker).join(format!("{NEW}{name}"))
    }

    fn vacant(&self, instance: &Instance) -> Result<(), SnapshotError> {
        match self.files(instance).exists() {
            true => Err(SnapshotError::Exists(instance.clone())),
            // Assets or a manifest without files are what is left of a snapshot nobody finished.
            false => {
                self.discard(instance);
                Ok(())
            }
        }
    }

    /// Copies `public/`, if the worker has one.
    fn add_assets_from(
        &self,
        instance: &Instance,
        source: &Path,
    ) -> Result<Option<PathBuf>, SnapshotError> {
        let (base, below) = split_base(&instance.worker, source);
        let public = match copy::open_below(base, &below.join("public")) {
            Ok(public) => public,
            Err(CopyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(reason) => return Err(self.copy_failed(instance, source, reason)),
        };
        let omit = Omit {
            anywhere: NOWHERE,
            ..Omit::default()
        };
        let name = self.next_assets(instance);
        let made = self.make(instance, public, &name, How::Copy, omit);
        made.map(Some)
            .map_err(|error| error.with_origin(&source.join("public")))
    }

    fn next_assets(&self, instance: &Instance) -> String {
        let next = self.assets_number(instance).unwrap_or(0) + 1;
        assets_name(instance.generation, next)
    }

    fn assets_number(&self, instance: &Instance) -> Option<u64> {
        let numbers =
            self.names(&instance.worker)
                .into_iter()
                .filter_map(|name| match Entry::of(&name) {
                    Some(Entry::Assets(generation, number)) => {
                        (generation == instance.generation).then_some(number)
                    }
                    _ => None,
                });
        numbers.max()
    }

    fn names(&self, worker: &WorkerName) -> Vec<String> {
        let entries = fs::read_dir(self.directory(worker))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Makes the directory `name` of the tree `source`: under another name first, and on the disk before it takes its own.
    fn make(
        &self,
        instance: &Instance,
        source: OwnedFd,
        name: &str,
        how: How,
        omit: Omit,
    ) -> Result<PathBuf, SnapshotError> {
        let directory = self.directory(&instance.worker);
        make_directory(&directory)?;
        let new = self.new_path(&instance.worker, name);
        let place = directory.join(name);
        remove(&new)?;
        let fill = || {
            let made = fs::DirBuilder::new().mode(0o700).create(&new);
            made.map_err(|error| io_error("create", &new, errno(&error)))?;
            copy::tree(source, &new, how, omit)?;
            flush(&new).map_err(|errno| io_error("write to disk", &new, errno))?;
            fs::rename(&new, &place).map_err(|error| io_error("rename", &new, errno(&error)))
        };
        fill().map(|()| place).map_err(|reason| {
            // What is wrong has been found; what can not be removed now is removed by the next prune.
            let _ = remove(&new);
            self.copy_failed(instance, &directory, reason)
        })
    }

    /// Removes what there is of a snapshot that can not be finished.
    fn discard(&self, instance: &Instance) {
        for name in self.names(&instance.worker) {
            let generation = match Entry::of(&name) {
                Some(Entry::Assets(generation, _) | Entry::Manifest(generation)) => generation,
                _ => continue,
            };
            if generation == instance.generation {
                // As above: prune comes by again.
                let _ = remove(&self.directory(&instance.worker).join(name));
            }
        }
    }

    fn copy_failed(&self, instance: &Instance, from: &Path, reason: CopyError) -> SnapshotError {
        SnapshotError::Copy {
            instance: instance.clone(),
            from: from.to_owned(),
            reason,
        }
    }
}

impl SnapshotError {
    /// The same, of files from `origin`.
    fn with_origin(self, origin: &Path) -> Self {
        match self {
            Self::Copy {
                instance, reason, ..
            } => {
                let from = origin.to_owned();
                Self::Copy {
                    instance,
                    from,
                    reason,
                }
            }
            other => other,
        }
    }
}

/// What a name in a worker's directory of the store means.
enum Entry {
    Files(Generation),
    Assets(Generation, u64),
    Manifest(Generation),
    New,
}

impl Entry {
    fn of(name: &str) -> Option<Self> {
        if name.starts_with(NEW) {
            return Some(Self::New);
        }
        let (generation, rest) = name.split_once('.').unwrap_or((name, ""));
        let generation = Generation(generation.parse().ok()?);
        match rest {
            "" => Some(Self::Files(generation)),
            "json" => Some(Self::Manifest(generation)),
            assets => {
                let number = assets.strip_prefix("public-")?.parse().ok()?;
                Some(Self::Assets(generation, number))
            }
        }
    }
}

fn assets_name(generation: Generation, number: u64) -> String {
    format!("{generation}.public-{number}")
}

/// Parts a worker's directory into the directory of all workers, whose path root chose, and the rest, which the deployer could
/// replace by a link.
fn split_base<'a>(worker: &WorkerName, source: &'a Path) -> (&'a Path, &'a Path) {
    let parts = worker.directory().components().count();
    let base = source.ancestors().nth(parts);
    match base.and_then(|base| Some((base, source.strip_prefix(base).ok()?))) {
        Some((base, below)) if below == worker.directory() => (base, below),
        _ => (source, Path::new("")),
    }
}

/// Everyone may look into a directory of the store; what a worker's own files allow is up to their modes.
fn make_directory(path: &Path) -> Result<(), SnapshotError> {
    let made = fs::DirBuilder::new()
        .mode(0o755)
        .recursive(true)
        .create(path);
    made.map_err(|source| SnapshotError::Io {
        what: "create",
        path: path.to_owned(),
        source,
    })
}

/// Removes a file or a tree, if it is there.
fn remove(path: &Path) -> Result<(), SnapshotError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SnapshotError::Io {
            what: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Writes what was copied to the disk. Without it a power cut could leave a snapshot that is there and has empty files, and the
/// machine would come up with a worker that was never accepted.
fn flush(directory: &Path) -> Result<(), Errno> {
    let opened = fs::File::open(directory).map_err(|error| errno(&error))?;
    rustix::fs::syncfs(opened)
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::error::Error;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, SystemTime};

    /// A worker `index` and a store.
    struct House {
        directory: tempfile::TempDir,
        store: Store,
    }

    impl House {
        fn with(files: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path().join("store")).unwrap();
            let house = Self { directory, store };
            fs::create_dir_all(house.worker()).unwrap();
            for (name, content) in files {
                house.write(name, content);
            }
            house
        }

        fn worker(&self) -> PathBuf {
            self.directory.path().join("workers/index")
        }

        fn write(&self, name: &str, content: &str) {
            let path = self.worker().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn create(&self, generation: u64, kind: WorkerType) -> Result<PathBuf, String> {
            let nested = [self.worker().join("lib/other")];
            let made = self
                .store
                .create(&index(generation), &self.worker(), kind, &nested);
            made.map_err(|error| chain(&error))
        }

        /// All names in the store's directory of the worker.
        fn names(&self) -> Vec<String> {
            let mut names = self.store.names(&index(0).worker);
            names.sort();
            names
        }
    }

    fn index(generation: u64) -> Instance {
        Instance::new(WorkerName::parse("index").unwrap(), Generation(generation))
    }

    fn chain(error: &SnapshotError) -> String {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    fn below(directory: &Path) -> Vec<String> {
        let walk = walkdir::WalkDir::new(directory)
            .min_depth(1)
            .sort_by_file_name();
        let relative = |path: &Path| path.strip_prefix(directory).unwrap().display().to_string();
        walk.into_iter()
            .map(|entry| relative(entry.unwrap().path()))
            .collect()
    }

    fn manifest(assets: &str) -> Manifest {
        let second = json!({ "secs": 1, "nanos": 0 });
        let settings = json!({
            "name": "index", "route": "/", "kind": "rust", "command": null, "build": null, "listen": "socket", "env": {},
            "health": { "path": null, "timeout": second, "interval": second, "start_timeout": second, "failures": 3 },
            "limits": { "gomaxprocs": null, "gomemlimit": null, "tasks_max": null, "max_requests": 0, "log_file": "",
                        "timeouts": { "read": second, "write": second, "idle": second } },
        });
        Manifest {
            program: "p1".to_owned(),
            assets: assets.to_owned(),
            config: "c1".to_owned(),
            settings: serde_json::from_value(settings).unwrap(),
        }
    }

    #[test]
    fn a_snapshot_has_what_the_program_needs_and_nothing_else() {
        let house = House::with(&[
            ("bin/index", "x"),
            ("views/index.html", "x"),
            ("views/data/x", "x"),
            ("config/worker.yaml", "x"),
            (".env", "x"),
            ("src/main.rs", "x"),
            ("data/db", "x"),
            ("target/debug/index", "x"),
            (".git/HEAD", "x"),
            ("lib/__pycache__/a.pyc", "x"),
            ("lib/other/Cargo.toml", "another worker's"),
            ("public/style.css", "x"),
        ]);
        let made = house.create(1, WorkerType::Rust).unwrap();
        let common = [
            ".env",
            "bin",
            "bin/index",
            "config",
            "config/worker.yaml",
            "lib",
        ];
        let views = ["views", "views/data", "views/data/x", "views/index.html"];
        assert_eq!(below(&made), [&common[..], &views[..]].concat());
        assert_eq!(house.names(), ["1", "1.public-1"]);
        let assets = house.store.latest_assets(&index(1)).unwrap();
        assert_eq!(below(&assets), ["style.css"]);

        let python = house.create(2, WorkerType::Python).unwrap();
        assert!(
            python.join("src/main.rs").exists(),
            "its source is its program"
        );
    }

    #[test]
    fn mode_and_time_are_kept_but_no_right_to_write_and_no_setuid() {
        let house = House::with(&[("bin/index", "x")]);
        let program = house.worker().join("bin/index");
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::options()
            .write(true)
            .open(&program)
            .unwrap()
            .set_modified(then)
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o6777)).unwrap();
        fs::set_permissions(house.worker(), fs::Permissions::from_mode(0o2577)).unwrap();
        let made = house.create(1, WorkerType::Rust).unwrap();
        let copy = fs::metadata(made.join("bin/index")).unwrap();
        assert_eq!(copy.permissions().mode() & 0o7777, 0o755);
        assert_eq!(copy.modified().unwrap(), then);
        // Its owner must be able to remove it again.
        assert_eq!(
            fs::metadata(made).unwrap().permissions().mode() & 0o7777,
            0o755
        );
    }

    #[test]
    fn links_inside_stay_links_and_links_that_leave_are_refused() {
        let house = House::with(&[("bin/index-1", "x"), ("lib/a/x", "x")]);
        symlink("index-1", house.worker().join("bin/index")).unwrap();
        symlink("../a/x", house.worker().join("lib/a/y")).unwrap();
        let made = house.create(1, WorkerType::Rust).unwrap();
        assert_eq!(
            fs::read_link(made.join("bin/index")).unwrap(),
            Path::new("index-1")
        );
        assert_eq!(
            fs::read_link(made.join("lib/a/y")).unwrap(),
            Path::new("../a/x")
        );

        symlink("/etc/shadow", house.worker().join("lib/secret")).unwrap();
        let error = house.create(2, WorkerType::Rust).unwrap_err();
        assert!(
            error.starts_with("copy the files of tqserver-index@2 from "),
            "{error}"
        );
        assert!(
            error.contains(": lib/secret is a link to /etc/shadow, which is outside"),
            "{error}"
        );
        assert_eq!(house.names(), ["1"]);
    }

    #[test]
    fn assets_that_are_links_out_of_public_are_refused() {
        let house = House::with(&[
            ("bin/index", "x"),
            ("config/secret", "x"),
            ("public/a", "x"),
        ]);
        symlink("../config/secret", house.worker().join("public/secret")).unwrap();
        let error = house.create(1, WorkerType::Rust).unwrap_err();
        assert!(
            error.contains("secret is a link to ../config/secret"),
            "{error}"
        );
        assert_eq!(house.names(), [""; 0]);
    }

    #[test]
    fn a_worker_or_a_public_that_is_a_link_is_not_followed() {
        let house = House::with(&[("bin/index", "x")]);
        let elsewhere = house.directory.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, house.worker().join("public")).unwrap();
        let error = house.create(1, WorkerType::Rust).unwrap_err();
        assert!(
            error.contains("open as a directory, which a link is not"),
            "{error}"
        );

        fs::rename(house.worker(), house.directory.path().join("moved")).unwrap();
        symlink(house.directory.path().join("moved"), house.worker()).unwrap();
        let error = house.create(1, WorkerType::Rust).unwrap_err();
        assert!(
            error.contains("open as a directory, which a link is not"),
            "{error}"
        );
        assert_eq!(house.names(), [""; 0]);
    }

    #[test]
    fn sockets_and_fifos_are_refused() {
        let house = House::with(&[("bin/index", "x")]);
        let _socket = std::os::unix::net::UnixListener::bind(house.worker().join("x")).unwrap();
        let error = house.create(1, WorkerType::Rust).unwrap_err();
        assert!(
            error.contains(": x is a socket, which can not be deployed"),
            "{error}"
        );
        fs::remove_file(house.worker().join("x")).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        let fifo = house.worker().join("x");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let error = house.create(1, WorkerType::Rust).unwrap_err();
        assert!(
            error.contains(": x is a fifo, which can not be deployed"),
            "{error}"
        );
    }

    #[test]
    fn a_file_swapped_for_a_link_while_it_is_copied_never_leaks_its_target() {
        let house = House::with(&[("a/x", "mine"), ("b/x", "mine")]);
        let secret = house.directory.path().join("secret");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("x"), "secret").unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // A file, and a directory, for a link and back, as fast as it goes.
                let (file, directory) = (house.worker().join("a/x"), house.worker().join("b"));
                let aside = house.directory.path().join("aside");
                while !over.load(Ordering::Relaxed) {
                    fs::rename(&directory, &aside).unwrap();
                    symlink(&secret, &directory).unwrap();
                    fs::remove_file(&file).unwrap();
                    symlink(secret.join("x"), &file).unwrap();
                    fs::remove_file(&file).unwrap();
                    fs::write(&file, "mine").unwrap();
                    fs::remove_file(&directory).unwrap();
                    fs::rename(&aside, &directory).unwrap();
                }
            });
            let leaked = |copy: PathBuf| fs::read(copy).is_ok_and(|content| content == b"secret");
            let leaks = (1..200)
                .filter_map(|generation| copied(&house, generation))
                .filter(|made| leaked(made.join("a/x")) || leaked(made.join("b/x")))
                .count();
            over.store(true, Ordering::Relaxed);
            assert_eq!(leaks, 0);
        });
    }

    /// A copy that is not flushed to disk, for a test that makes many.
    fn copied(house: &House, generation: u64) -> Option<PathBuf> {
        let to = house.directory.path().join(format!("copy-{generation}"));
        fs::create_dir(&to).unwrap();
        let source = copy::open_below(&house.worker(), Path::new("")).unwrap();
        copy::tree(source, &to, How::Copy, Omit::default())
            .ok()
            .map(|()| to)
    }

    #[test]
    fn large_files_and_holes_arrive_as_they_are() {
        let house = House::with(&[]);
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        fs::write(house.worker().join("large"), &content).unwrap();
        fs::write(house.worker().join("empty"), "").unwrap();
        let made = house.create(1, WorkerType::Exec).unwrap();
        assert!(fs::read(made.join("large")).unwrap() == content);
        assert_eq!(fs::read(made.join("empty")).unwrap(), b"");
    }

    #[test]
    fn a_snapshot_is_not_written_twice() {
        let house = House::with(&[("bin/index", "x")]);
        house.create(1, WorkerType::Rust).unwrap();
        let error = house.create(1, WorkerType::Rust).unwrap_err();
        assert_eq!(error, "there is a snapshot of tqserver-index@1 already");
    }

    #[test]
    fn a_full_disk_is_said_in_words() {
        let error = io_error("copy", Path::new("bin/index"), Errno::NOSPC);
        assert!(error.to_string().starts_with("no space left"));
    }

    #[test]
    fn assets_are_added_without_a_new_program() {
        let house = House::with(&[("bin/index", "x"), ("public/a", "one")]);
        house.create(1, WorkerType::Rust).unwrap();
        house
            .store
            .write_manifest(&index(1), &manifest("a1"))
            .unwrap();
        house.write("public/a", "two");
        let second = house
            .store
            .add_assets(&index(1), &house.worker(), "a2")
            .unwrap();
        assert_eq!(fs::read(second.join("a")).unwrap(), b"two");
        assert_eq!(house.store.latest_assets(&index(1)), Some(second));
        assert_eq!(
            house.store.manifest(&index(1)).unwrap(),
            Some(manifest("a2"))
        );

        fs::remove_dir_all(house.worker().join("public")).unwrap();
        let third = house
            .store
            .add_assets(&index(1), &house.worker(), "a3")
            .unwrap();
        assert_eq!(below(&third), [""; 0]);
        let missing = house
            .store
            .add_assets(&index(9), &house.worker(), "a3")
            .unwrap_err();
        assert_eq!(
            missing.to_string(),
            "there is no snapshot of tqserver-index@9"
        );
    }

    #[test]
    fn a_clone_has_the_very_files_the_assets_and_the_manifest() {
        let house = House::with(&[("bin/index", "x"), ("public/a", "x")]);
        symlink("index", house.worker().join("bin/link")).unwrap();
        let first = house.create(1, WorkerType::Rust).unwrap();
        house
            .store
            .write_manifest(&index(1), &manifest("a1"))
            .unwrap();
        let second = house.store.clone_of(&index(1), &index(2)).unwrap();
        assert_eq!(below(&first), below(&second));
        let inode = |directory: &Path| fs::metadata(directory.join("bin/index")).unwrap().ino();
        assert_eq!(inode(&first), inode(&second));
        assert_eq!(
            house.store.manifest(&index(2)).unwrap(),
            Some(manifest("a1"))
        );
        assert_eq!(below(&house.store.latest_assets(&index(2)).unwrap()), ["a"]);

        house
            .store
            .prune(&index(2).worker, &[Generation(2)], Generation(99))
            .unwrap();
        assert_eq!(fs::read(second.join("bin/index")).unwrap(), b"x");
        assert!(house.store.clone_of(&index(1), &index(3)).is_err());
    }

    #[test]
    fn prune_keeps_what_it_is_told_and_the_latest_assets() {
        let house = House::with(&[("bin/index", "x"), ("public/a", "x")]);
        for generation in [1, 2, 10] {
            house.create(generation, WorkerType::Rust).unwrap();
            house
                .store
                .write_manifest(&index(generation), &manifest("a"))
                .unwrap();
        }
        house
            .store
            .add_assets(&index(10), &house.worker(), "b")
            .unwrap();
        fs::create_dir(house.store.new_path(&index(3).worker, "3")).unwrap();
        let worker = &index(0).worker;
        assert_eq!(house.store.generations(worker), [1, 2, 10].map(Generation));
        assert_eq!(house.store.workers(), std::slice::from_ref(worker));

        house
            .store
            .prune(worker, &[Generation(10), Generation(2)], Generation(99))
            .unwrap();
        assert_eq!(house.store.generations(worker), [2, 10].map(Generation));
        let kept = ["10", "10.json", "10.public-2", "2", "2.json", "2.public-1"];
        assert_eq!(house.names(), kept);

        house.store.prune(worker, &[], Generation(99)).unwrap();
        assert_eq!(house.store.workers(), []);
    }

    #[test]
    fn what_a_create_that_was_killed_left_behind_is_in_nobodys_way() {
        let house = House::with(&[("bin/index", "x"), ("public/a", "x")]);
        let left = house.store.new_path(&index(1).worker, "1");
        fs::create_dir_all(left.join("bin")).unwrap();
        fs::create_dir(house.store.directory(&index(1).worker).join("1.public-7")).unwrap();
        assert_eq!(house.store.generations(&index(1).worker), []);
        house.create(1, WorkerType::Rust).unwrap();
        assert_eq!(house.names(), ["1", "1.public-1"]);
    }

    #[test]
    fn a_manifest_that_is_not_ours_is_an_error_and_none_is_none() {
        let house = House::with(&[("bin/index", "x")]);
        assert_eq!(house.store.manifest(&index(1)).unwrap(), None);
        house.create(1, WorkerType::Rust).unwrap();
        fs::write(house.store.manifest_path(&index(1)), "{}").unwrap();
        assert!(house.store.manifest(&index(1)).is_err());
    }
}
