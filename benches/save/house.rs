//! A project in a directory of its own, and `tqserver dev` that runs it.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::kind::{Kind, search_path};

/// As much of what the server says is kept.
const LINES: usize = 40;

pub(crate) struct House {
    directory: TempDir,
    server: Option<(Child, SocketAddr)>,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl House {
    /// Starts the server once `furnish` has put the workers in.
    pub(crate) fn open(furnish: impl FnOnce(&Self)) -> Self {
        let mut house = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            server: None,
            said: Arc::default(),
        };
        furnish(&house);
        fs::create_dir_all(house.path().join("config")).expect("a directory");
        // Everything is as it is by default, but that nobody else is asked.
        fs::write(house.config(), "server: {address: \"127.0.0.1\"}\n").expect("the configuration");
        house.start();
        house
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tqserver"));
        command
            .args(["dev", "--manager=private", "--port=0", "--config"])
            .arg(self.config())
            .env("PATH", search_path())
            .stderr(Stdio::piped());
        let mut server = command.spawn().expect("the server");
        let lines = BufReader::new(server.stderr.take().expect("piped")).lines();
        let mut lines = lines.map_while(Result::ok);
        let line = lines
            .by_ref()
            .inspect(|line| self.keep(line))
            .find(|line| line.contains("listens on"));
        let address = line.as_deref().and_then(|line| {
            line.split("http://")
                .nth(1)?
                .split('/')
                .next()?
                .parse()
                .ok()
        });
        let said = Arc::clone(&self.said);
        std::thread::spawn(move || lines.for_each(|line| keep(&said, &line)));
        let Some(address) = address else {
            let _ = server.wait();
            panic!("the server did not come up: {}", self.last_words());
        };
        self.server = Some((server, address));
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("config/server.yaml")
    }

    pub(crate) fn worker(&self, name: &str) -> PathBuf {
        self.path().join("workers").join(name)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.as_ref().expect("it is open").1
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.as_ref().expect("it is open").0.id()
    }

    pub(crate) fn put(&self, kind: &Kind) {
        kind.put(&self.worker(kind.name), &kind.text(0));
    }

    /// Saves as editors do: a new file takes the old one's name. Answers the moment before it does.
    pub(crate) fn save(&self, kind: &Kind, number: usize) -> Instant {
        let (path, _) = kind.source;
        let file = self.worker(kind.name).join(path);
        let fresh = file.with_extension("saved~");
        fs::write(&fresh, kind.source_saying(&kind.text(number))).expect("a new file");
        let before = Instant::now();
        fs::rename(&fresh, &file).expect("it takes the name");
        before
    }

    /// The last lines the server wrote.
    pub(crate) fn last_words(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter()
            .fold(String::new(), |text, line| text + "\n" + line)
    }

    fn keep(&self, line: &str) {
        keep(&self.said, line);
    }
}

fn keep(said: &Mutex<VecDeque<String>>, line: &str) {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    said.push_back(line.to_owned());
    while said.len() > LINES {
        said.pop_front();
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some((server, _)) = &mut self.server {
            let _ = kill_process(Pid::from_child(server), Signal::TERM);
            let _ = server.wait();
        }
    }
}
