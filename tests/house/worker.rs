//! Workers of the tests: the example `contract`, told how to behave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What lies in a worker's directory.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    program: bool,
    behaviour: String,
    config: Option<String>,
    files: Vec<(String, String)>,
}

/// It answers with this text.
pub fn says(text: &str) -> Worker {
    behaves("").and(&format!("says {text}"))
}

/// Connections to it are accepted and get no answer. One second must do for what takes for ever.
pub fn never_ready() -> Worker {
    behaves("never_ready").config("health: {start_timeout_seconds: 1}")
}

/// It does what a line of its `behaviour` says (see the example `contract`).
pub fn behaves(line: &str) -> Worker {
    Worker {
        program: true,
        ..Worker::default()
    }
    .and(line)
}

/// It has no program, only `public/`.
pub fn only_files() -> Worker {
    Worker::default().config("type: static")
}

/// Nothing but the files given to it.
pub fn empty() -> Worker {
    Worker::default()
}

impl Worker {
    /// One more line of behaviour.
    pub fn and(mut self, line: &str) -> Self {
        self.behaviour.push_str(line);
        self.behaviour.push('\n');
        self
    }

    /// Its config/worker.yaml.
    pub fn config(mut self, yaml: &str) -> Self {
        self.config = Some(yaml.to_owned());
        self
    }

    /// A file in its directory.
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.to_owned(), text.to_owned()));
        self
    }

    /// Puts it into `directory`, in place of what another one has there. Each file is whole at any moment.
    pub fn put(&self, directory: &Path) {
        fs::create_dir_all(directory).expect("make a worker's directory");
        if self.program {
            let name = directory.file_name().expect("a worker has a name");
            let program = directory.join("bin").join(name);
            if !program.exists() {
                fs::create_dir_all(directory.join("bin")).expect("make bin/");
                link(&contract(), &program);
            }
            write(&directory.join("behaviour"), &self.behaviour);
        }
        let config = directory.join("config/worker.yaml");
        match &self.config {
            Some(yaml) => write(&config, yaml),
            None => drop(fs::remove_file(config)),
        }
        for (path, text) in &self.files {
            write(&directory.join(path), text);
        }
    }
}

/// Writes a file that is never seen half.
pub fn write(path: &Path, text: &str) {
    let directory = path.parent().expect("a file is in a directory");
    fs::create_dir_all(directory)
        .unwrap_or_else(|error| panic!("make {}: {error}", directory.display()));
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("make a file");
    fs::write(file.path(), text).expect("write a file");
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).expect("chmod a file");
    file.persist(path)
        .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

fn link(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to)
            .unwrap_or_else(|error| panic!("copy {} to {}: {error}", from.display(), to.display()));
    }
}

/// The example's program, beside the tests'.
fn contract() -> PathBuf {
    let tests = std::env::current_exe().expect("the tests are a program");
    let program = tests
        .parent()
        .and_then(Path::parent)
        .expect("it is in deps/")
        .join("examples/contract");
    assert!(
        program.exists(),
        "{} is missing: cargo build --example contract",
        program.display()
    );
    program
}
