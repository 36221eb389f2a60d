//! What a worker gets.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use rustix::process::Signal;

use crate::house::process::kill;
use crate::house::worker::{says, write};
use crate::house::{House, until};

/// What systemd sets for every service; which of them depends on its version and on the user (systemd.exec(5)).
const SYSTEMDS: [&str; 14] = [
    "HOME",
    "INVOCATION_ID",
    "LANG",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LOGNAME",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "PATH",
    "SHELL",
    "SYSTEMD_EXEC_PID",
    "USER",
];

/// Beginnings of names that are no business of a worker.
const OTHERS: [&str; 8] = [
    "DBUS_",
    "XDG_",
    "TQ_",
    "KEEPER_",
    "NOTIFY_",
    "SYSTEMD_",
    "MANAGERPID",
    "CARGO",
];

#[test]
fn the_environment_is_what_the_contract_says_and_nothing_of_the_servers() {
    let config = "gomaxprocs: 2\ngomemlimit: 100MiB\nenv: {GREETING: \"a \\\"b\\\" $$HOME %n\", ANSWER: 42, KEY: \"-----BEGIN-----\\nab\\\\c\\n\"}";
    let house = House::new()
        .worker("api/users", says("one").config(config))
        .open();
    let environment = house.get("/api/users/env").json();
    let environment = environment.as_object().expect("an object");
    let data = house.worker_directory("api/users").join("data");
    assert!(data.is_dir(), "it has no directory to write to");
    let data = data.display().to_string();
    let ours = [
        ("STATE_DIRECTORY", data.as_str()),
        ("ANSWER", "42"),
        ("GOMAXPROCS", "2"),
        ("GOMEMLIMIT", "94371840B"),
        ("GREETING", "a \"b\" $HOME %n"),
        ("KEY", "-----BEGIN-----\nab\\c\n"),
        ("WORKER_INSTANCE", "1"),
        ("WORKER_MODE", "development"),
        ("WORKER_NAME", "api.users"),
        ("WORKER_ROUTE", "/api/users"),
    ];
    for (name, value) in ours {
        assert_eq!(
            environment.get(name).and_then(|value| value.as_str()),
            Some(value),
            "{name}"
        );
    }
    assert_eq!(environment["LISTEN_FDS"], "1");
    // What the administrator gives to all services (environment.d(5)) may be there, but nothing of a session or of the server.
    let given = house
        .systemctl(["show-environment"])
        .succeeds()
        .stdout
        .clone();
    let given = given.lines().filter_map(|line| line.split('=').next());
    let given = given.filter(|name| !OTHERS.iter().any(|prefix| name.starts_with(prefix)));
    let known: BTreeSet<&str> = ours
        .iter()
        .map(|(name, _)| *name)
        .chain(SYSTEMDS)
        .chain(given)
        .collect();
    let foreign: Vec<_> = environment
        .iter()
        .filter(|(name, _)| !known.contains(name.as_str()))
        .collect();
    assert!(
        foreign.is_empty(),
        "variables of somebody else: {foreign:?}"
    );
}

#[test]
fn requests_come_with_their_full_path_and_where_they_come_from() {
    let house = House::new().worker("api/users", says("one")).open();
    let echo = house.get("/api/users/echo?q=1").json();
    assert_eq!(echo["path"], "/api/users/echo?q=1");
    let header = |name: &str| {
        echo["headers"][name][0]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(header("x-forwarded-proto"), "http");
    assert_eq!(header("x-forwarded-prefix"), "/api/users");
    assert_eq!(header("x-forwarded-host"), "house.test");
    assert!(!header("x-request-id").is_empty());
}

#[test]
fn the_output_goes_to_the_file_that_is_configured() {
    let house = House::new().worker("api", says("one").and("log hello from the worker"));
    let house = house
        .workers_section("    default: {log_file: \"logs/{path}/{name}_{date}.log\"}\n")
        .open();
    house.get("/api").is("one");
    let directory = house.path().join("logs/api");
    let file = || std::fs::read_dir(&directory).ok()?.next()?.ok();
    until("the file has the line", || {
        let text = file().and_then(|file| std::fs::read_to_string(file.path()).ok());
        text.is_some_and(|text| text.contains("hello from the worker"))
    });
    let name = file()
        .expect("a file")
        .file_name()
        .into_string()
        .expect("a name");
    let date = name
        .strip_prefix("api_")
        .and_then(|rest| rest.strip_suffix(".log"))
        .unwrap_or_default();
    assert!(date.len() == 10 && date.split('-').count() == 3, "{name}");
}

#[test]
fn the_working_directory_is_the_workers_own() {
    let house = House::new().worker("index", says("one")).open();
    let worker = std::fs::metadata(format!("/proc/{}/cwd", house.pid("index")));
    let own = std::fs::metadata(house.worker_directory("index"));
    // By inode: in a chroot the link names a path of the world outside.
    let same = |found: std::io::Result<Metadata>| found.map(|found| (found.dev(), found.ino()));
    assert_eq!(same(worker).expect("its own"), same(own).expect("there"));
}

/// The arguments of a process.
fn arguments(pid: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
    let words = line
        .strip_suffix(b"\0")
        .expect("an end")
        .split(|byte| *byte == 0);
    let words = words.map(|word| String::from_utf8_lossy(word).into_owned());
    words.skip(1).collect()
}

#[test]
fn each_instance_is_given_its_port_and_directories_in_arguments_and_variables() {
    let config = "listen: port\ninstances: 2\ncache: true\n\
                  command: bin/index --port=${PORT} $STATE_DIRECTORY/db\n\
                  env: {ADDRESS: \"127.0.0.1:$PORT\", TEMPLATES: \"$CACHE_DIRECTORY$WORKER_ROUTE$WORKER_NAME\"}";
    let house = House::new()
        .worker("index", says("one").config(config))
        .open();
    let data = house.worker_directory("index").join("data");
    let mut ports = BTreeSet::new();
    for instance in &house.status("index").generations[0].instances {
        let environment = std::fs::read(format!("/proc/{}/environ", instance.pid));
        let environment = environment.expect("it runs");
        let environment = String::from_utf8_lossy(&environment);
        let told = |name: &str| {
            let mut entries = environment
                .split('\0')
                .filter_map(|entry| entry.split_once('='));
            let found = entries.find(|(found, _)| *found == name);
            found.unwrap_or_else(|| panic!("no {name}")).1.to_owned()
        };
        let port = told("PORT");
        assert_eq!(
            arguments(instance.pid),
            [format!("--port={port}"), format!("{}/db", data.display())]
        );
        assert_eq!(told("ADDRESS"), format!("127.0.0.1:{port}"));
        let templates = format!("{}/index", told("CACHE_DIRECTORY"));
        assert_eq!(told("TEMPLATES"), templates);
        ports.insert(port);
    }
    assert_eq!(ports.len(), 2, "{ports:?}");
}

#[test]
fn in_production_its_home_is_the_directory_it_can_write_to() {
    let house = House::new()
        .production()
        .worker("index", says("one").config("cache: true"))
        .worker("away", says("two").config("env: {HOME: /tmp}"))
        .open();
    let environment = house.get("/env").json();
    assert_eq!(environment["HOME"], environment["STATE_DIRECTORY"]);
    assert_eq!(
        environment["XDG_CACHE_HOME"],
        environment["CACHE_DIRECTORY"]
    );
    let home = environment["HOME"].as_str().expect("a path");
    assert!(std::path::Path::new(home).is_dir(), "{home}");
    assert_eq!(house.get("/away/env").json()["HOME"], "/tmp");
}

#[test]
fn arguments_arrive_as_they_are_written_also_after_systemd_has_read_its_units_again() {
    let words = [
        ";",
        "\\;",
        "$HOME ${PATH} $$",
        "%n",
        "",
        "two\nlines",
        "a  'b' \"c\"",
    ];
    let written = words.iter().map(|word| format!("{word:?}"));
    // Only a variable's '$' means something, and this is none.
    let written: Vec<String> = written.map(|word| word.replace('$', "$$")).collect();
    let config = format!("command: [bin/index, {}]", written.join(", "));
    let house = House::new()
        .worker("index", says("one").config(&config))
        .open();
    let arguments = || arguments(house.pid("index"));
    assert_eq!(arguments(), words);
    house.systemctl(["daemon-reload"]).succeeds();
    let before = house.pid("index");
    house
        .systemctl(["kill", "--signal=KILL", "tqserver-index@*.service"])
        .succeeds();
    until("systemd has started it again", || {
        let status = house.status("index");
        let pids = status.generations.iter().map(|run| run.pid);
        pids.into_iter().any(|pid| pid != 0 && pid != before)
    });
    house.get("/").is("one");
    assert_eq!(arguments(), words);
}

#[test]
fn a_comment_in_its_configuration_is_no_change() {
    let house = House::new()
        .worker("index", says("one").config("tasks_max: 50"))
        .open();
    write(
        &house.worker_directory("index").join("config/worker.yaml"),
        "# fifty\ntasks_max: 50\n",
    );
    house.reload().succeeds().says("index: unchanged");
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn a_variable_of_several_lines_outlives_a_daemon_reload() {
    let config = "env: {KEY: \"-----BEGIN-----\\nab\\\\c\\t%n\\n\"}";
    let house = House::new()
        .worker("index", says("one").config(config))
        .open();
    house.systemctl(["daemon-reload"]).succeeds();
    kill(house.pid("index"), Signal::KILL);
    until("it answers again", || house.get("/").text() == "one");
    let environment = house.get("/env").json();
    assert_eq!(environment["KEY"], "-----BEGIN-----\nab\\c\t%n\n");
}
