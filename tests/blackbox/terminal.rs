//! What `tqserver dev` and `tqserver build` show who sits before them.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::house::process::wait;
use crate::house::worker::{Worker, behaves, says};
use crate::house::{HEAD, House, LONG, lock, until};

/// A terminal that neither becomes ours nor is inherited.
const FLAGS: OpenptFlags = OpenptFlags::RDWR
    .union(OpenptFlags::NOCTTY)
    .union(OpenptFlags::CLOEXEC);

/// A house that writes down what it says, and how often.
fn house() -> House {
    let head = HEAD.replace("60000", "20");
    House::new().server_yaml(&head)
}

/// A worker that says that it starts, in red, and tries to clear the screen.
fn talkative(text: &str) -> Worker {
    says(text).and("log \u{1b}[31mhello\u{1b}[2J")
}

/// A command that is run in a terminal of its own.
pub(crate) struct Screen {
    child: std::process::Child,
    keys: File,
    shown: Arc<(Mutex<String>, Condvar)>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Screen {
    pub(crate) fn of(command: &mut Command) -> Self {
        let ours = openpt(FLAGS).expect("a terminal");
        grantpt(&ours).expect("a terminal of ours");
        unlockpt(&ours).expect("an open terminal");
        let name = ptsname(&ours, Vec::new()).expect("its name");
        let theirs = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().expect("a path"))
            .expect("its other end");
        let copy = || Stdio::from(theirs.try_clone().expect("a copy"));
        command.stdin(copy()).stdout(copy()).stderr(copy());
        let child = command.env_remove("NO_COLOR").spawn().expect("run it");
        let shown = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let told = Arc::clone(&shown);
        let mut from = File::from(ours);
        let keys = from.try_clone().expect("a copy");
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            // At its end a terminal's other side fails to read.
            while let Ok(read @ 1..) = from.read(&mut chunk) {
                lock(&told.0).push_str(&String::from_utf8_lossy(&chunk[..read]));
                told.1.notify_all();
            }
        });
        Self {
            child,
            keys,
            shown,
            reader: Some(reader),
        }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("it takes them");
    }

    /// The exit code of what ends by itself.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let status = wait(&mut self.child, LONG);
        let shown = lock(&self.shown.0);
        assert!(status.is_some(), "it does not end: {shown:?}");
        status.and_then(|status| status.code())
    }

    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        let shown = lock(&self.shown.0);
        let missing = |shown: &mut String| !shown.contains(text);
        let (shown, _) = self
            .shown
            .1
            .wait_timeout_while(shown, LONG, missing)
            .expect("nobody panics");
        assert!(shown.contains(text), "no {text:?} in: {shown:?}");
    }

    fn ends(mut self) -> String {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process");
        let _ = kill_process(pid, Signal::TERM);
        assert!(wait(&mut self.child, LONG).is_some(), "it does not end");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it reads");
        }
        lock(&self.shown.0).clone()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Of a test that failed; its systemd goes with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_workers_write_is_shown_behind_their_names_with_their_urls() {
    let house = house()
        .worker("index", talkative("one"))
        .worker("api/users", says("users"))
        .open();
    house.server_says("index      http://127.0.0.1:");
    house.server_says("api.users  http://127.0.0.1:");
    house.get("/").is("one");
    house.server_says("index | hello");
    house.replace("index", says("two").and("log changed"));
    house.server_says("index | changed");
    // One that comes later is told of as well.
    house.replace("late", says("late"));
    house.server_says("late  http://127.0.0.1:");
}

#[test]
fn who_wants_it_quiet_sees_what_goes_wrong_alone() {
    let house = house().worker("index", talkative("one"));
    let out = house.path().join("out");
    let file = || File::create(&out).expect("a file");
    let mut command = house.command(["dev", "--quiet", "--port=0"]);
    let both = file();
    command
        .stdout(both.try_clone().expect("a copy"))
        .stderr(both);
    let mut child = command.spawn().expect("run it");
    let status = || house.try_status().unwrap_or_default();
    until("it serves", || {
        status().iter().any(|worker| worker.state == "serving")
    });
    house.replace("index", behaves("exit 3"));
    let said = || std::fs::read_to_string(&out).unwrap_or_default();
    until("it says what is wrong", || {
        said().contains("of 'index' failed")
    });
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a process");
    let _ = kill_process(pid, Signal::TERM);
    assert!(wait(&mut child, LONG).is_some());
    let said = said();
    assert!(said.starts_with("warning: "), "{said}");
    assert!(!said.contains("index | "), "{said}");
}

#[test]
fn in_a_terminal_names_have_colours_and_no_line_moves_the_cursor() {
    let house = house().worker("index", talkative("one"));
    let screen = Screen::of(&mut house.command(["dev", "--port=0"]));
    screen.shows("TQServer listens on ");
    screen.shows("\u{1b}[36mindex |\u{1b}[0m \u{1b}[31mhello");
    let shown = screen.ends();
    assert!(!shown.contains("\u{1b}[2J"), "{shown:?}");
}

#[test]
fn a_long_build_is_counted_in_a_line_that_changes_and_goes() {
    let house = house().worker(
        "index",
        says("one").config("build: [sh, make.sh]").file(
            "make.sh",
            "echo Compiling the world\nuntil test -e go; do sleep 0.05; done\n",
        ),
    );
    let screen = Screen::of(&mut house.command(["dev", "--port=0"]));
    screen.shows("\r\u{1b}[Kindex: building for ");
    screen.shows(" s: Compiling the world");
    let go = house.worker_directory("index").join("go");
    File::create(go)
        .and_then(|mut file| file.write_all(b"1"))
        .expect("let it go");
    screen.shows("TQServer listens on ");
    let shown = screen.ends();
    let after = shown.rsplit("building for").next().expect("the rest");
    assert!(after.contains("\r\u{1b}[K"), "{shown:?}");
}

#[test]
fn build_builds_what_it_is_told_and_fails_with_what_the_compiler_said() {
    let built = |script: &str| {
        says("one")
            .config("build: [sh, make.sh]")
            .file("make.sh", script)
    };
    let house = house()
        .worker("api", built("echo one >made"))
        .worker("index", built("echo 'main.c:1: no' >&2; exit 3"))
        .worker("plain", says("plain"));
    house
        .run(["build"])
        .exits(1)
        .says("api: built in ")
        .says("plain: nothing to build")
        .says("build worker 'index' with `sh make.sh`: exit code 3\n    main.c:1: no");
    assert!(house.worker_directory("api").join("made").exists());
    let directory = house.worker_directory("api").display().to_string();
    house
        .run(["build", &directory, "plain", "--release"])
        .succeeds()
        .says_nothing_of("index");
    house
        .run(["build", "none"])
        .exits(64)
        .says("there is no worker 'none'")
        .says("there are: api, index, plain");
}

#[test]
fn a_build_that_is_interrupted_leaves_no_process() {
    let script = "echo $$ >pid.new\nmv pid.new pid\nsleep 1000\n";
    let house = house().worker(
        "index",
        says("one")
            .config("build: [sh, make.sh]")
            .file("make.sh", script),
    );
    let pid = house.worker_directory("index").join("pid");
    let mut child = house.command(["build"]).spawn().expect("run it");
    until("it builds", || pid.exists());
    let ours = Pid::from_raw(child.id().cast_signed()).expect("a process");
    let _ = kill_process(ours, Signal::INT);
    let ended = wait(&mut child, LONG).expect("it ends");
    assert_eq!(ended.code(), Some(1));
    let pid = std::fs::read_to_string(pid).expect("its process");
    let pid = pid.trim().parse().expect("a number");
    until("the build is gone", || {
        !crate::house::process::is_alive(pid)
    });
}
