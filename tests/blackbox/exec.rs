//! `tqserver exec`: a command in the surroundings of a worker.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::house::process::{Ran, kill, tqserver, wait};
use crate::house::worker::{Worker, says, write};
use crate::house::{House, LONG, until};
use crate::terminal::Screen;

fn worker(text: &str) -> Worker {
    let config = "credentials: [db]\nenv_from_credentials: {DATABASE_URL: db}\n\
                  env: {GREETING: hello, PLACE: \"$WORKER_ROUTE\"}";
    says(text).config(config)
}

/// A house whose worker `index` has a secret.
fn house(worker: Worker) -> House {
    let house = House::new().production().worker("index", worker);
    let secret = house.path().join("config/credentials/index/db");
    write(&secret, "hunter2\n");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("chmod a secret");
    house
}

/// `tqserver exec` with these arguments; what follows the worker is the command's.
fn exec<'a>(house: &House, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let config = format!("--config={}", house.config().display());
    let mut command = tqserver(["--manager=private", &config, "exec"]);
    command.args(arguments);
    command
}

fn ran<'a>(house: &House, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
    Ran::of(&mut exec(house, arguments))
}

fn shell(house: &House, script: &str) -> Ran {
    ran(house, ["index", "--", "sh", "-c", script])
}

#[test]
fn a_command_finds_what_its_worker_finds() {
    let house = house(worker("one")).open();
    house.replace("index", worker("two").file("later", "x"));
    let script = "echo \"$DATABASE_URL $GREETING $PLACE $WORKER_NAME $WORKER_MODE ${LISTEN_FDS-none}\"; pwd; cat behaviour; \
                  echo kept > $STATE_DIRECTORY/kept; cat /proc/self/cgroup";
    let ran = shell(&house, script);
    ran.succeeds()
        .says("hunter2 hello / index production none\n");
    // It sees what serves, not what was deployed since.
    let files = house.path().join("state/.snapshots/index/1");
    let files = fs::read_link(format!("/proc/{}/cwd", house.pid("index"))).unwrap_or(files);
    ran.says(&files.display().to_string()).says("says one");
    ran.says("tqserver-index.slice/tqserver-exec@index:");
    let data = house.get("/env").json()["STATE_DIRECTORY"].clone();
    let data = data.as_str().expect("a directory");
    let kept = fs::read_to_string(format!("{data}/kept"));
    assert_eq!(kept.expect("it has written"), "kept\n");
    house.units("index").are(["generation 1 serving"]);
    house.server_says("runs in worker 'index', generation 1: sh -c ");
    let said = house.server().all_it_said().join("\n");
    assert!(
        said.contains("user ") && !said.contains("hunter2"),
        "{said}"
    );
}

#[test]
fn its_exit_status_is_the_commands() {
    let house = house(worker("one")).open();
    shell(&house, "exit 7").exits(7);
    shell(&house, "kill -9 $$").exits(137).says("signal 9");
    ran(&house, ["index", "no-such-program"])
        .exits(203)
        .says("'no-such-program'")
        .says("PATH");
    ran(&house, ["index", "ls", "-d", "bin"])
        .succeeds()
        .says("bin");
    ran(&house, ["ghost", "true"]).exits(64).says("ghost");
    ran(&house, ["index", "true"]).succeeds();
    // Nothing of them stays.
    until("no unit is left", || {
        house.loaded("tqserver-exec@*").is_empty()
    });
}

#[test]
fn what_goes_in_and_comes_out_is_passed_on() {
    let house = house(worker("one")).open();
    let mut command = exec(&house, ["index", "sh", "-c", "tr a-z A-Z; echo wrong >&2"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("run it");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"some words\n").expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "SOME WORDS\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "wrong\n");
}

#[test]
fn signals_are_passed_on_and_a_reload_does_not_end_it() {
    let house = house(worker("one")).open();
    let script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = exec(&house, ["index", "sh", "-c", script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("run it");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut said = [0; 6];
    stdout.read_exact(&mut said).expect("it says something");
    assert_eq!(&said, b"ready\n");
    // Whatever runs in the slice and is no generation's is looked for after a reload.
    house.replace("index", worker("two"));
    house.reload().succeeds();
    house.get("/").is("two");
    house.reload().succeeds();
    assert!(matches!(child.try_wait(), Ok(None)), "it has ended");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("a signal");
    let status = wait(&mut child, LONG).expect("it ends");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the rest");
    assert_eq!((rest.as_str(), status.code()), ("got it\n", Some(5)));
}

#[test]
fn a_stop_of_the_server_ends_it() {
    let mut house = house(worker("one")).open();
    let mut command = exec(&house, ["index", "sh", "-c", "echo $$; exec sleep 1000"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("run it");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut digit = [0];
    stdout.read_exact(&mut digit).expect("it runs");
    assert_eq!(house.close(Signal::TERM), Some(0));
    let status = wait(&mut child, LONG).expect("it ends");
    assert_ne!(status.code(), Some(0));
}

#[test]
fn it_outlives_its_manager_and_no_server() {
    let house = House::new()
        .production()
        .worker("index", says("one"))
        .planes()
        .open();
    let mut command = exec(&house, ["index", "sh", "-c", "echo $$; exec sleep 1000"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("run it");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut digit = [0];
    stdout.read_exact(&mut digit).expect("it runs");
    // A manager that comes looks for what runs beside its workers and is none of theirs.
    house.runs_a_stray("backup.service", "tqserver-index.slice");
    let manager = house.manager_pid();
    kill(manager, Signal::KILL);
    house.manager_is_back(manager);
    let status = wait(&mut child, LONG).expect("it ends");
    assert_eq!(status.code(), Some(69));
    until("it has looked", || {
        house.loaded("backup.service").is_empty()
    });
    let log = fs::read_to_string(house.path().join("manager.log")).expect("its log");
    assert!(log.contains("unit 'backup.service'"), "{log}");
    assert!(!log.contains("unit 'tqserver-exec@"), "{log}");
    assert_eq!(house.loaded("tqserver-exec@*").len(), 1);
    house.systemctl(["stop", "tqserver.service"]).succeeds();
    until("it was stopped", || {
        house.loaded("tqserver-exec@*").is_empty()
    });
}

#[test]
fn a_terminal_is_the_commands_terminal() {
    let house = house(worker("one")).open();
    // A shell, by default. What is typed before it is ready is its own affair.
    let mut command = exec(&house, ["index"]);
    let mut screen = Screen::of(command.env("TERM", "vt100"));
    screen.shows(".snapshots/index/1");
    // It has the terminal however it is asked; one program says it and sleeps, so that no Ctrl-C comes between two.
    let script = "echo \"<$(stty size </dev/tty)$TERM>\" > /dev/tty; exec sleep 1000";
    screen.types(&format!("stty rows 33 cols 77; sh -c '{script}'\n"));
    screen.shows("<33 77vt100>");
    // Ctrl-C ends the command, and the shell goes on.
    screen.types("\x03");
    screen.shows("^C");
    screen.types("echo so-$((40 + 2)) && exit 9\n");
    screen.shows("so-42");
    assert_eq!(screen.ended(), Some(9));
}
