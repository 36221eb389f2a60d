//! Development: what is saved is live by itself, whoever saves it and however, and what is wrong with it is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::house::process::is_alive;
use crate::house::worker::{Worker, behaves, empty, says, write};
use crate::house::{HEAD, House, count, until};

/// A house in which files are watched, and not only when somebody asks.
fn house() -> House {
    house_with("")
}

/// The same with more in its server.yaml.
fn house_with(more: &str) -> House {
    let head = HEAD.replace("60000", "20");
    House::new().server_yaml(&format!(
        "{head}workers:\n    shutdown_grace_period_ms: 5000\n{more}"
    ))
}

fn serving(text: &str) -> House {
    house().worker("index", says(text)).open()
}

#[track_caller]
fn becomes(house: &House, path: &str, text: &str) {
    until(&format!("{path} answers '{text}'"), || {
        house.get(path).text() == text
    });
}

/// Several files that are saved one after the other may be taken over one after the other.
#[track_caller]
fn one_serves(house: &House) {
    until("one generation serves and no other is there", || {
        let found = house.units("index").found();
        found.len() == 1 && found[0].ends_with(" serving")
    });
}

#[test]
fn what_is_saved_is_live_and_a_line_says_so() {
    let house = serving("one");
    house.replace("index", says("two"));
    house.server_says("index: live ");
    house.get("/").is("two");
    house.units("index").are(["generation 2 serving"]);
}

#[test]
fn each_editors_way_to_save_is_one() {
    let house = serving("one");
    let file = house.worker_directory("index").join("behaviour");
    let beside = |name: &str| file.with_file_name(name);
    // vim: may I write here? Then the old one is put aside, and a new one written.
    fs::write(beside("4913"), "").unwrap();
    fs::remove_file(beside("4913")).unwrap();
    fs::rename(&file, beside("behaviour~")).unwrap();
    fs::write(&file, "says vim\n").unwrap();
    fs::remove_file(beside("behaviour~")).unwrap();
    becomes(&house, "/", "vim");
    // VS Code: in place, or a new one that takes the name and gets the old one's mode.
    fs::write(&file, "says in place\n").unwrap();
    becomes(&house, "/", "in place");
    fs::write(beside("behaviour.new"), "says renamed\n").unwrap();
    fs::rename(beside("behaviour.new"), &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    becomes(&house, "/", "renamed");
    // git: away, and another one in its place.
    fs::remove_file(&file).unwrap();
    fs::write(&file, "says stashed\n").unwrap();
    becomes(&house, "/", "stashed");
}

#[test]
fn whoever_asks_for_a_new_worker_waits_until_it_serves() {
    let house = serving("one");
    house.replace("api", behaves("start_delay_ms 700").and("says api"));
    until("the worker has a route", || {
        // Until its directory has been seen the path is index's.
        let answer = house.get("/api");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text() == "api"
    });
}

#[test]
fn a_worker_that_comes_has_a_route_and_one_that_goes_has_none() {
    let house = serving("one");
    house.replace("api", says("api"));
    becomes(&house, "/api", "api");
    house.remove("api");
    becomes(&house, "/api", "one");
    house.units("api").are([]);
}

#[test]
fn files_that_do_not_count_start_nothing() {
    let house = house()
        .worker("index", says("one").config("watch: {ignore: [\"*.log\"]}"))
        .open();
    let directory = house.worker_directory("index");
    for name in [
        "app.log",
        "data/state.db",
        "node_modules/a/index.js",
        "src/__pycache__/a.pyc",
    ] {
        write(&directory.join(name), "made");
    }
    write(&directory.join("behaviour"), "says two\n");
    house.server_says("index: live ");
    house.get("/").is("two");
    house.units("index").are(["generation 2 serving"]);
}

#[test]
fn a_mistake_leaves_the_old_one_serving_and_is_told_once() {
    let house = house()
        .worker("index", says("one"))
        .worker("api", says("api"))
        .open();
    becomes(&house, "/api", "api");
    house.replace("index", behaves("exit 3").and("log about to fall"));
    house.server_says("generation 2 of 'index' failed: exit code 3, keeping generation 1");
    house.server_says("    about to fall");
    house.get("/").is("one");
    // Another worker is no reason to try the same files again.
    house.replace("api", says("new"));
    becomes(&house, "/api", "new");
    house.replace("index", says("two"));
    becomes(&house, "/", "two");
    let said = house.server().all_it_said();
    let failures = said.iter().filter(|line| line.contains("'index' failed"));
    assert_eq!(failures.count(), 1, "{said:#?}");
    house.units("index").are(["generation 3 serving"]);
}

#[test]
fn a_worker_yaml_that_is_wrong_is_told_and_taken_over_when_it_is_right() {
    let house = serving("one");
    house.replace("index", says("one").config("gomaxprocs: many"));
    house.server_says("config/worker.yaml:1:13: ");
    house.get("/").is("one");
    house.replace("index", says("two").config("gomaxprocs: 2"));
    becomes(&house, "/", "two");
}

#[test]
fn a_server_yaml_that_is_wrong_holds_up_no_worker() {
    let house = serving("one");
    house.write_server_yaml(&format!("{HEAD}wrong: 1\n"));
    house.server_says("what was saved is not taken over");
    house.replace("index", says("two"));
    becomes(&house, "/", "two");
}

/// A worker that is built by `script`.
fn built(script: &str, text: &str) -> Worker {
    says(text)
        .config("build: [sh, make.sh]")
        .file("make.sh", script)
}

#[test]
fn a_save_ends_the_build_that_is_under_way_with_all_its_processes() {
    let house = house().worker("index", built("exit 0", "one")).open();
    let pids = house.path().join("pids");
    let endless = format!(
        "trap '' TERM\nsleep 1000 &\necho $! $$ >{0}.new\nmv {0}.new {0}\nwait\n",
        pids.display()
    );
    house.replace("index", built(&endless, "one"));
    until("the build runs", || pids.exists());
    house.get("/").is("one");
    house.replace("index", built("exit 0", "two"));
    becomes(&house, "/", "two");
    let pids = fs::read_to_string(pids).unwrap();
    for pid in pids.split_whitespace() {
        let pid = pid.parse().unwrap();
        until("the build's processes are gone", || !is_alive(pid));
    }
    one_serves(&house);
}

#[test]
fn a_build_is_a_unit_of_its_own_with_limits() {
    let house = house_with("dev: {build_memory_max: 32MiB, build_timeout_seconds: 20}\n")
        .worker("index", built("true", "one"))
        .open();
    let seen = house.path().join("cgroup");
    let look = format!("cat /proc/self/cgroup >{}", seen.display());
    house.replace("index", built(&look, "one"));
    until("it is built", || {
        fs::read_to_string(&seen).is_ok_and(|cgroup| cgroup.ends_with('\n'))
    });
    let cgroup = fs::read_to_string(seen).unwrap();
    assert!(cgroup.contains("/tqserver-build@index:"), "{cgroup}");

    // More than it may have: a line of 64 MiB is kept in memory.
    let greedy = built("head -c 64M /dev/zero | tail -n 1 >/dev/null", "one");
    house.replace("index", greedy);
    house.server_says("failed: `sh make.sh`: ");
    house.get("/").is("one");
    house.replace("index", built("true", "three"));
    becomes(&house, "/", "three");
    one_serves(&house);
}

/// A site that is built of one file, in a directory that is emptied first, as generators do it.
fn site(text: &str) -> Worker {
    empty()
        .config("type: static\nbuild: [sh, make.sh]")
        .file("make.sh", "rm -rf public && mkdir public && cat index.md >public/index.html && echo made >>../made\n")
        .file("index.md", text)
}

#[test]
fn a_site_is_built_at_the_start_and_after_each_save_of_what_it_is_made_of() {
    let house = house().worker("site", site("one")).open();
    becomes(&house, "/site/", "one");
    house.replace("site", site("two"));
    becomes(&house, "/site/", "two");
    house.server_says("site: built in ");
    house.replace("site", site("three"));
    becomes(&house, "/site/", "three");
    // What a build makes begins no other: when one more worker is there, whatever was saved before it has been seen.
    house.replace("index", says("up"));
    becomes(&house, "/", "up");
    let made = fs::read_to_string(house.worker_directory("site").with_file_name("made"));
    assert_eq!(made.unwrap().lines().count(), 3);
}

/// A program in Rust that answers with `text`.
fn program(text: &str) -> Worker {
    let source = r#"use std::io::{BufRead, BufReader, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixListener;

fn main() {
    let listener = unsafe { UnixListener::from_raw_fd(3) };
    for stream in listener.incoming().flatten() {
        let mut writer = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines() {
            if line.unwrap().is_empty() {
                let text = "TEXT";
                write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len()).unwrap();
                break;
            }
        }
    }
}
"#;
    let manifest =
        "[package]\nname = \"index\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    empty()
        .file("Cargo.toml", manifest)
        .file("src/main.rs", &source.replace("TEXT", text))
}

#[test]
fn a_program_is_built_while_more_may_be_saved_and_serves_when_that_is_over() {
    // Here that is not over within the test, unless somebody asks for a reload.
    let house = House::new().worker("index", program("one")).open();
    house.get("/").is("one");
    let built = || fs::read(house.worker_directory("index").join("bin/index")).unwrap();
    let before = built();
    house.replace("index", program("two"));
    until("it is built", || built() != before);
    house.get("/").is("one");
    house.units("index").are(["generation 1 serving"]);
    // What was built early and is not what lies there is built again.
    house.replace("index", program("three"));
    house.reload().succeeds();
    house.get("/").is("three");
    house.units("index").are(["generation 2 serving"]);
}

#[test]
fn a_build_that_changes_its_own_source_comes_to_rest_and_is_told_of() {
    let house = house().worker("index", built("exit 0", "one")).open();
    let script = "echo $$ >made.new\nmv made.new made\n";
    house.replace("index", built(script, "one"));
    house.server_says("seems to change files that are watched");
    house.get("/").is("one");
    // And whoever heeds what it says is rid of it.
    let heeding =
        built(script, "two").config("build: [sh, make.sh]\nwatch: {ignore: [made, made.new]}");
    house.replace("index", heeding);
    becomes(&house, "/", "two");
    one_serves(&house);
}

#[test]
fn a_build_that_fails_tells_what_the_compiler_said() {
    let house = house().worker("index", built("exit 0", "one")).open();
    let broken = "echo 'main.c:1: what is this?' >&2\nexit 2\n";
    house.replace("index", built(broken, "one"));
    house.server_says("`sh make.sh`: exit code 2, keeping generation ");
    house.server_says("    main.c:1: what is this?");
    house.get("/").is("one");
    house.replace("index", built("sleep 0.05", "two"));
    house.server_says("index: built in ");
    house.get("/").is("two");
}

#[test]
fn a_save_does_not_wait_for_a_generation_that_never_becomes_ready() {
    let house = serving("one");
    let endless = behaves("never_ready").config("health: {start_timeout_seconds: 3600}");
    house.replace("index", endless);
    until("it is started", || {
        let status = house.status("index");
        status
            .generations
            .iter()
            .any(|run| run.stage == "activating")
    });
    house.replace("index", says("two"));
    becomes(&house, "/", "two");
    one_serves(&house);
}

#[test]
fn two_hundred_saves_end_with_the_last_one() {
    let house = serving("one");
    let file = house.worker_directory("index").join("behaviour");
    for number in 0..200 {
        write(&file, &format!("says {number}\n"));
    }
    becomes(&house, "/", "199");
    one_serves(&house);
}

#[test]
fn saves_under_load_lose_no_request() {
    let house = serving("0");
    let load = house.load("/", 8);
    for number in 1..=count("TQ_SAVES", 10) {
        house.replace("index", says(&number.to_string()));
        becomes(&house, "/", &number.to_string());
    }
    load.stop().lost_nothing();
}
