//! A worker `index`, a store, and a process of its own for what needs another machine than this.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::config::WorkerType;
use crate::deploy::{Manifest, SnapshotError, Store};
use crate::names::{Generation, Instance, WorkerName};

/// Set in a process that was started by [`process`].
const INSIDE: &str = "TQSERVER_TEST_INSIDE";

pub(super) struct House {
    pub(super) directory: tempfile::TempDir,
    pub(super) store: Store,
}

impl House {
    pub(super) fn with(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state"), None).unwrap();
        let house = Self { directory, store };
        fs::create_dir_all(house.worker()).unwrap();
        for (name, content) in files {
            house.write(name, content);
        }
        house
    }

    pub(super) fn worker(&self) -> PathBuf {
        self.directory.path().join("workers/index")
    }

    pub(super) fn write(&self, name: &str, content: &str) {
        let path = self.worker().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(super) fn create(&self, generation: u64, kind: WorkerType) -> Result<PathBuf, String> {
        let made = self.store.create(&index(generation), &self.worker(), kind);
        made.map_err(|error| chain(&error))
    }

    /// Makes and accepts a generation of the program `program`.
    pub(super) fn accept(&self, generation: u64, program: &str) {
        self.create(generation, WorkerType::Rust).unwrap();
        self.note(generation, program);
    }

    /// Writes the manifest of a generation.
    pub(super) fn note(&self, generation: u64, program: &str) {
        let manifest = Manifest {
            program: program.to_owned(),
            ..manifest("a")
        };
        self.store
            .write_manifest(&index(generation), &manifest)
            .unwrap();
    }

    /// All names the worker has in the store: its programs, then its assets.
    pub(super) fn names(&self) -> Vec<String> {
        let list = |directory: &Path| {
            let mut names = crate::deploy::shelf::names(&directory.join("index")).unwrap();
            names.sort();
            names
        };
        [list(self.store.programs()), list(self.store.public())].concat()
    }
}

pub(super) fn name() -> WorkerName {
    WorkerName::parse("index").unwrap()
}

pub(super) fn index(generation: u64) -> Instance {
    Instance::new(name(), Generation(generation))
}

pub(super) fn chain(error: &SnapshotError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

pub(super) fn below(directory: &Path) -> Vec<String> {
    let walk = walkdir::WalkDir::new(directory)
        .min_depth(1)
        .sort_by_file_name();
    let relative = |path: &Path| path.strip_prefix(directory).unwrap().display().to_string();
    walk.into_iter()
        .map(|entry| relative(entry.unwrap().path()))
        .collect()
}

pub(super) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

/// A manifest as the first version that was released wrote it.
pub(super) fn manifest(assets: &str) -> Manifest {
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
        file: String::new(),
        passed_over: None,
    }
}

/// Runs the test `test` once more in a process of its own that `wrapper` starts, and with no other test; says whether this is that
/// process. A wrapper that can not do its part makes the test fail.
pub(super) fn is_inside(test: &str, wrapper: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let [program, arguments @ ..] = wrapper else {
        panic!("nothing to start");
    };
    let ran = Command::new(program)
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output();
    let ran = ran.unwrap_or_else(|error| panic!("{program} can not be started: {error}"));
    let output = String::from_utf8_lossy(&ran.stdout);
    let passed = ran.status.success() && output.contains("1 passed");
    assert!(passed, "{output}{}", String::from_utf8_lossy(&ran.stderr));
    false
}
