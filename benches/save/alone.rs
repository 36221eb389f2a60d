//! What no server can save: the build and the start of a worker by themselves, on a copy that `tqserver dev` knows nothing of.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tqserver::builder;
use tqserver::config::{Mode, Settings, WorkerSettings, WorkerType};
use tqserver::inventory;

use super::client::Client;
use super::house::House;
use super::kind::{Kind, search_path};

pub(crate) struct Alone<'a> {
    kind: &'a Kind,
    directory: PathBuf,
    /// Cargo's directory, of the copy's own and as warm as the server's.
    target: PathBuf,
    settings: WorkerSettings,
}

impl<'a> Alone<'a> {
    /// A copy of the worker, built once.
    pub(crate) fn new(house: &House, kind: &'a Kind) -> Self {
        let settings = Settings::load(&house.config()).expect("the configuration");
        let found = inventory::scan(&settings, Mode::Development).expect("the workers");
        let mut workers = found.workers.values();
        let worker = workers.find(|found| found.name.as_str() == kind.name);
        let settings = worker
            .and_then(|found| found.settings())
            .expect("the worker");
        let alone = Self {
            kind,
            directory: house.path().join("alone").join(kind.name),
            target: house.path().join("alone/target"),
            settings: settings.clone(),
        };
        kind.put(&alone.directory, "alone");
        fs::create_dir_all(alone.directory.join("bin")).expect("a directory");
        alone.build(0);
        alone
    }

    /// Changes the copy as the worker is changed, to a text nobody else has: compilers remember. How long the build command then takes.
    pub(crate) fn build(&self, number: usize) -> Duration {
        self.kind.put(&self.directory, &format!("alone {number}"));
        let commands = builder::build_commands(&self.settings, &self.directory);
        let Some(words) = commands.first() else {
            return Duration::ZERO;
        };
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .current_dir(&self.directory)
            .env("PATH", search_path())
            .env("CARGO_TARGET_DIR", &self.target)
            .stdin(Stdio::null());
        let began = Instant::now();
        let built = command.output().expect("the build");
        let took = began.elapsed();
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        took
    }

    /// How long its process takes from the start to the first answer.
    pub(crate) fn start(&self) -> Duration {
        let program = match self.settings.kind {
            WorkerType::Rust => vec![
                self.target
                    .join("debug")
                    .join(self.kind.name)
                    .display()
                    .to_string(),
            ],
            WorkerType::Go => vec![self.directory.join("bin/.go.new").display().to_string()],
            _ => builder::run_command(&self.settings, &self.directory, Mode::Production)
                .expect("its command"),
        };
        let path = self.directory.join("socket");
        let _ = fs::remove_file(&path);
        let listener = OwnedFd::from(UnixListener::bind(&path).expect("a socket"));
        let mut command = Command::new("/bin/sh");
        // The socket comes as standard input and goes where workers have theirs.
        command
            .args(["-c", "exec \"$@\" 3<&0 </dev/null", "sh"])
            .args(program)
            .current_dir(&self.directory)
            .env_clear()
            .env("LISTEN_FDS", "1")
            .stdin(listener)
            .stderr(Stdio::null());
        let began = Instant::now();
        let mut process = command.spawn().expect("the worker");
        let mut client = Client::on(UnixStream::connect(&path).expect("its socket"));
        client.get("/").expect("an answer");
        let took = began.elapsed();
        let _ = process.kill();
        let _ = process.wait();
        took
    }
}
