//! On real file events. A test that shows that something is no event writes what is none, then what is one, and counts the bursts.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::{Burst, Watched, Watcher};
use crate::ignored::{Developed, Pattern};

/// Longest wait for what is to come.
const LONG: Duration = Duration::from_secs(20);

struct House {
    directory: TempDir,
    watcher: Watcher,
    runtime: tokio::runtime::Runtime,
}

impl House {
    /// A watched directory `workers` with a worker `a` in it, and a server.yaml beside.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Watched)) -> Self {
        let directory = TempDir::new().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("workers/a/node_modules")).unwrap();
        fs::create_dir_all(root.join("config")).unwrap();
        fs::write(root.join("workers/a/main.py"), "1").unwrap();
        let mut watched = Watched {
            directories: vec![root.join("workers")],
            files: vec![root.join("config/server.yaml")],
            workers: vec![Developed {
                directory: root.join("workers/a"),
                ignore: vec![Pattern::parse("*.log").unwrap()],
                ..Developed::default()
            }],
            debounce: Duration::from_millis(20),
            poll: None,
        };
        change(&mut watched);
        let polls = watched.poll.is_some();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let house = Self {
            watcher: Watcher::start(watched).unwrap(),
            directory,
            runtime,
        };
        if !polls {
            // That it watches from now on.
            house.comes();
        }
        house
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "2").unwrap();
    }

    #[track_caller]
    fn comes(&self) -> Burst {
        let burst = async { tokio::time::timeout(LONG, self.watcher.burst()).await };
        self.runtime.block_on(burst).expect("a burst")
    }

    /// The end of what was begun: a marker is written, and all that comes until it has been answered is taken.
    fn settle(&self) {
        self.write("workers/a/marker");
        self.comes();
    }
}

#[test]
fn a_saved_file_is_a_burst_however_it_is_saved() {
    let house = House::new();
    house.write("workers/a/main.py");
    house.comes();
    // vim: a copy is kept, and the new file takes the name.
    house.write("workers/a/main.py~");
    fs::rename(
        house.path("workers/a/main.py~"),
        house.path("workers/a/main.py"),
    )
    .unwrap();
    house.comes();
    house.write("config/server.yaml");
    house.comes();
}

#[test]
fn a_new_directory_is_watched_with_all_that_is_in_it() {
    let house = House::new();
    house.write("workers/b/src/deep/main.py");
    house.comes();
    house.settle();
    house.write("workers/b/src/deep/main.py");
    house.comes();
    fs::rename(house.path("workers/b"), house.path("workers/c")).unwrap();
    house.comes();
    house.settle();
    house.write("workers/c/src/deep/main.py");
    house.comes();
    fs::remove_dir_all(house.path("workers/c")).unwrap();
    house.comes();
}

#[test]
fn what_does_not_count_is_no_burst() {
    let house = House::with(|watched| watched.debounce = Duration::from_millis(200));
    for name in ["x.log", "node_modules/m/index.js", ".main.py.swp", "4913"] {
        house.write(&format!("workers/a/{name}"));
    }
    house.write("config/other.yaml");
    let before = tokio::time::Instant::now();
    house.write("workers/a/main.py");
    let burst = house.comes();
    assert!(
        burst.first >= before,
        "the burst began with a file that does not count"
    );
}

#[test]
fn many_files_at_once_are_few_bursts() {
    let house = House::new();
    let before = tokio::time::Instant::now();
    for number in 0..5000 {
        house.write(&format!("workers/a/src/{}/{number}.py", number % 50));
    }
    let burst = house.comes();
    assert!(burst.first >= before);
    house.settle();
    house.write("workers/a/src/49/4999.py");
    house.comes();
}

#[test]
fn a_burst_comes_even_while_somebody_writes_all_the_time() {
    let house = House::new();
    let path = house.path("workers/a/busy.py");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = std::sync::Arc::clone(&stop);
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                fs::write(&path, "x").unwrap();
            }
        }
    });
    house.comes();
    house.comes();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
}

#[test]
fn a_directory_of_workers_that_goes_and_comes_back_is_found_again() {
    let house = House::new();
    fs::rename(house.path("workers"), house.path("elsewhere")).unwrap();
    house.comes();
    fs::rename(house.path("elsewhere"), house.path("workers")).unwrap();
    house.comes();
    house.settle();
    house.write("workers/a/main.py");
    house.comes();
}

#[test]
fn another_gitignore_is_followed_at_once() {
    let house = House::with(|watched| watched.debounce = Duration::from_millis(200));
    fs::write(house.path("workers/a/.gitignore"), "made.js\n").unwrap();
    house.comes();
    house.write("workers/a/made.js");
    let before = tokio::time::Instant::now();
    house.write("workers/a/main.py");
    assert!(house.comes().first >= before);
}

#[test]
fn without_events_there_is_a_burst_every_so_often() {
    let house = House::with(|watched| watched.poll = Some(Duration::from_millis(50)));
    let first = house.comes().first;
    assert!(house.comes().first > first);
}

#[test]
fn what_is_watched_can_change() {
    let house = House::new();
    let other: &Path = &house.path("other");
    fs::create_dir(other).unwrap();
    house.watcher.watch(Watched {
        directories: vec![other.to_owned()],
        debounce: Duration::from_millis(20),
        ..Watched::default()
    });
    house.comes();
    house.write("other/b/main.py");
    house.comes();
}

#[test]
fn a_gitignore_above_the_workers_is_followed_too() {
    let house = House::with(|watched| {
        let root = watched.directories[0].parent().unwrap().to_owned();
        fs::create_dir(root.join(".git")).unwrap();
        watched.files.push(root.join(".gitignore"));
        watched.debounce = Duration::from_millis(200);
    });
    fs::write(house.path(".gitignore"), "made.js\n").unwrap();
    house.comes();
    house.write("workers/a/made.js");
    let before = tokio::time::Instant::now();
    house.write("workers/a/main.py");
    assert!(house.comes().first >= before);
}

#[test]
fn the_lines_by_which_files_grow_are_followed_to_their_end() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let append = |name: &str, text: &str| {
        let mut file = fs::File::options()
            .append(true)
            .create(true)
            .open(path(name))
            .unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    append("a.log", "before\n");
    append("other", "of no interest\n");
    let mut tails = super::Tails::follow(directory.path().to_owned()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut comes = |name: &str, text: &str| {
        let next = async { tokio::time::timeout(LONG, tails.next()).await };
        let line = runtime.block_on(next).expect("a line").expect("a line");
        assert_eq!(
            (
                &*line.file.to_string_lossy(),
                &*String::from_utf8_lossy(&line.bytes)
            ),
            (name, text)
        );
    };
    append("a.log", "one\ntw");
    comes("a.log", "one");
    append("b.log", "of b\n");
    comes("b.log", "of b");
    append("a.log", "o\n\n");
    comes("a.log", "two");
    comes("a.log", "");
    // It is emptied, and goes with a line that has no end.
    fs::write(path("a.log"), "").unwrap();
    append("b.log", "b\n");
    comes("b.log", "b");
    append("a.log", "anew\n");
    comes("a.log", "anew");
    append("b.log", "last");
    fs::remove_file(path("b.log")).unwrap();
    comes("b.log", "last");
}
