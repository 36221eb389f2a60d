//! `tqserver new`: what it writes runs at once. The type is `exec`, in Perl, which every Debian has; all types are tried, each with its
//! toolchain and its own test, by `packaging/acceptance/types`.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::OFlags;
use rustix::process::Signal;

use crate::house::process::{Ran, gone, kill, tqserver};
use crate::house::worker::{says, write};
use crate::house::{HEAD, House, until};

const NEW: [&str; 4] = ["new", "hello", "--type", "exec"];

/// A house in which files are watched, with the new worker `hello`.
fn with_hello() -> House {
    let head = HEAD.replace("60000", "20");
    let house = House::new().server_yaml(&format!(
        "{head}workers:\n    shutdown_grace_period_ms: 20000\n"
    ));
    house.run(NEW).succeeds();
    house
}

/// Changes the program of the worker as an editor does.
fn edit(house: &House, from: &str, to: &str) {
    let program = house.worker_directory("hello").join("bin/hello");
    let old = fs::read_to_string(&program).expect("the program");
    assert!(old.contains(from), "'{from}' is not in {old}");
    let beside = program.with_file_name("hello~");
    fs::write(&beside, old.replace(from, to)).expect("write beside it");
    let mode = fs::metadata(&program).expect("its mode").permissions();
    fs::set_permissions(&beside, mode).expect("the same mode");
    fs::rename(&beside, &program).expect("rename");
}

#[track_caller]
fn becomes(house: &House, path: &str, text: &str) {
    until(&format!("{path} has '{text}'"), || {
        house.get(path).text().contains(text)
    });
}

#[test]
fn a_new_worker_runs_at_once_and_a_save_is_live_without_a_lost_request() {
    let house = with_hello().open();
    house
        .get("/hello")
        .has_status(200)
        .holds("Hello from hello")
        .holds("<code>workers/hello/bin/hello</code>");
    house.get("/hello/health").has_status(200);
    house.get("/hello/none").has_status(404);
    let load = house.load("/hello/health", 4);
    edit(&house, "Hello from", "Greetings from");
    becomes(&house, "/hello", "Greetings from hello");
    house.units("hello").are(["generation 2 serving"]);
    load.stop().lost_nothing();
}

#[test]
fn a_worker_that_is_made_while_the_server_runs_gets_its_route() {
    let head = HEAD.replace("60000", "20");
    let house = House::new()
        .server_yaml(&head)
        .worker("index", says("one"))
        .open();
    house
        .run(["new", "api/hello", "--type", "exec"])
        .succeeds()
        .says("workers/api/hello/bin/hello\n")
        .says("next: tqserver dev")
        .says("then: http://localhost:PORT/api/hello\n");
    becomes(&house, "/api/hello", "Hello from api.hello");
}

/// A worker with an answer that begins when the test writes into a fifo.
struct Gate(PathBuf);

impl Gate {
    fn of(house: &House) -> Self {
        // What lies in data/ starts no new generation.
        let gate = house.worker_directory("hello").join("data/gate");
        fs::create_dir_all(gate.parent().expect("data/")).expect("make data/");
        Ran::of(Command::new("mkfifo").arg(&gate)).succeeds();
        edit(
            house,
            "    my $base =",
            "    if ($path =~ /slow/) { open my $gate, '<', 'data/gate' or die; <$gate>; return ('200 OK', 'text/plain', \"late\\n\") }\n    my $base =",
        );
        Self(gate)
    }

    /// Returns when the worker is at the gate.
    fn is_reached(&self) -> fs::File {
        let mut opened = None;
        until("the worker is at the gate", || {
            // Refused until somebody has opened the other end.
            let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
            let mut options = fs::OpenOptions::new();
            opened = options
                .write(true)
                .custom_flags(nonblocking)
                .open(&self.0)
                .ok();
            opened.is_some()
        });
        opened.expect("it is open")
    }
}

#[test]
fn a_request_in_flight_is_answered_while_the_worker_is_replaced() {
    let house = with_hello();
    let gate = Gate::of(&house);
    let house = house.open();
    let mut client = house.client();
    client.send("/hello/slow").expect("send a request");
    let open = gate.is_reached();
    edit(&house, "Hello from", "Greetings from");
    becomes(&house, "/hello", "Greetings from hello");
    drop(open);
    let answer = client.receive().expect("an answer");
    answer.is("late");
    house.units("hello").are(["generation 2 serving"]);
}

#[test]
fn on_sigterm_it_answers_the_request_in_flight_and_ends_well() {
    let house = with_hello();
    let gate = Gate::of(&house);
    let house = house.open();
    let mut client = house.client();
    client.send("/hello/slow").expect("send a request");
    let open = gate.is_reached();
    let pid = house.pid("hello");
    kill(pid, Signal::TERM);
    // It has closed its end of the listening socket when only the one that serves is left to wait for.
    let listens = || fs::read_link(format!("/proc/{pid}/fd/3")).is_ok();
    until("it accepts no more", || !listens());
    drop(open);
    client.receive().expect("an answer").is("late");
    gone(pid);
    house.get("/hello").has_status(200);
    let status = house.status("hello");
    let (state, failure) = (status.state.as_str(), status.last_failure.as_str());
    assert_eq!((state, failure), ("serving", ""), "{status:?}");
}

#[test]
fn its_own_test_passes() {
    let house = with_hello();
    let mut sh = Command::new("sh");
    sh.arg(house.worker_directory("hello").join("tests/answers.sh"));
    Ran::of(&mut sh).succeeds().says_nothing_of("not ok");
    edit(&house, "$base/health", "$base/helth");
    Ran::of(&mut sh).fails_with("not ok - the health path");
}

#[test]
fn what_can_not_be_written_is_refused_with_exit_64() {
    let house = with_hello();
    house
        .run(NEW)
        .exits(64)
        .says("workers/hello is there already, and not empty")
        .says("hint: choose another name");
    house
        .run(["new", "other"])
        .exits(64)
        .says("hint: name one")
        .says("rust, go, node, python, php");
    house
        .run(["new", "other", "--type", "ruby"])
        .exits(64)
        .says("possible values: rust");
    house
        .run(["new", "a b", "--type", "go"])
        .exits(64)
        .says("use ASCII letters");
    let workers: Vec<_> = fs::read_dir(house.path().join("workers"))
        .expect("workers/")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(workers, ["hello"]);
}

#[test]
fn it_is_for_the_project_it_stands_in() {
    // No project is around it.
    let directory = tempfile::tempdir().expect("make a directory");
    let project = directory.path().to_owned();
    let new = |arguments: &[&str]| {
        let mut command = tqserver(arguments.iter().copied());
        Ran::of(command.current_dir(&project))
    };
    new(&["new", "hello", "--type", "exec"])
        .succeeds()
        .says("    workers/hello/README.md\n")
        .says("then: http://localhost:8080/hello\n");
    let yaml = "server: {port: 3000}\nworkers: {directory: [sites, more]}\n";
    write(&project.join("config/server.yaml"), yaml);
    write(&project.join("more/hello/bin/hello"), "another");
    new(&["new", "hello", "--type", "exec"])
        .succeeds()
        .says("    sites/hello/README.md\n")
        .says("then: http://localhost:3000/hello\n")
        .says("more/hello is hidden by it");
    let quiet = new(&["new", "silent", "--type", "exec", "--quiet"]);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn a_toolchain_that_is_missing_is_told_and_the_worker_is_written() {
    // Debian's directories are searched whatever PATH says: a program in one of them is not missing.
    let is_missing = |program: &str| {
        let mut system = ["/usr/local/bin", "/usr/bin", "/bin"].iter();
        !system.any(|directory| Path::new(directory).join(program).exists())
    };
    let types = [("go", "go"), ("rust", "cargo"), ("bun", "bun")];
    let Some((kind, program)) = types.into_iter().find(|(_, program)| is_missing(program)) else {
        // Nothing is missing for it, so that it is not to be told as missing.
        eprintln!("go, cargo and bun are installed for all: what is said without one is not tried");
        return;
    };
    let house = House::new();
    let mut command = house.command(["new", "hello", "--type", kind]);
    Ran::of(command.env("PATH", "/nowhere"))
        .succeeds()
        .says(&format!(
            "warning: it needs {program}, which is not installed; "
        ));
    assert!(house.worker_directory("hello").join("README.md").is_file());
}
