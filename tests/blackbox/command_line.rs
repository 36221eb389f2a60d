//! The command line: what it says, and its exit codes.

use std::process::Command;

use crate::house::House;
use crate::house::process::{Ran, tqserver};
use crate::house::worker::{behaves, empty, says, write};

#[test]
fn a_developers_server_is_for_this_machine_alone_unless_it_is_told_otherwise() {
    for (option, is_open) in [("--port=0", false), ("--address=0.0.0.0", true)] {
        let house = House::new()
            .server_yaml("server: {port: 0}\n")
            .on_port(option)
            .open_until_it_says("TQServer listens on http://localhost:");
        let line = house.server().said("TQServer listens on http://localhost:");
        let line = line.expect("it was said");
        let port = line
            .rsplit("localhost:")
            .next()
            .and_then(|rest| rest.split('/').next());
        let port: u16 = port.and_then(|port| port.parse().ok()).expect("a port");
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("this machine is served");
        let other = std::net::TcpStream::connect(("127.0.0.2", port));
        assert_eq!(other.is_ok(), is_open, "{option}: {other:?}");
        if !is_open {
            house.server_says("only this machine can connect");
        }
    }
}

#[test]
fn a_wrong_argument_is_exit_64() {
    Ran::of(&mut tqserver(["relaod"])).exits(64).says("reload");
    Ran::of(&mut tqserver(["reload", "--farce"]))
        .exits(64)
        .says("--force");
    Ran::of(&mut tqserver([])).exits(64);
    Ran::of(&mut tqserver(["--help"]))
        .succeeds()
        .says("without losing a request");
    Ran::of(&mut tqserver(["--version"]))
        .succeeds()
        .says(env!("CARGO_PKG_VERSION"));
}

#[test]
fn where_nothing_runs_is_exit_69() {
    let house = House::new().worker("index", says("one"));
    for verb in ["status", "reload"] {
        house
            .run([verb])
            .exits(69)
            .says("no TQServer runs here")
            .says("hint: start one with `tqserver dev`");
    }
    assert!(
        !house.place().exists(),
        "asking made {}",
        house.place().display()
    );
}

#[test]
fn what_a_deployer_names_colours_no_terminal() {
    let house = House::new().worker("index", says("one"));
    for name in ["evil\u{1b}[8m", "turned\u{202e}", "two\nlines"] {
        write(&house.worker_directory(name).join("main.py"), "");
    }
    let yaml = house.worker_directory("painted").join("config/worker.yaml");
    write(&yaml, "command: [\"bin/\\e[31mx\\nfake: well\"]\n");
    let ran = house.run(["check"]);
    ran.exits(78)
        .says("painted: ")
        .says("bin/\\u{1b}[31mx\\nfake: well is missing")
        .says("evil\\u{1b}[8m: ")
        .says("turned\\u{202e}: ")
        .says("two\\nlines: ");
    assert!(!ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
}

#[test]
fn a_wrong_configuration_is_exit_78() {
    let house = House::new()
        .worker("index", says("one"))
        .server_yaml("server: {port: many}\n");
    house
        .run(["check"])
        .exits(78)
        .says("server.yaml:1:16")
        .says("'server.port' can not be");
    house
        .does_not_open()
        .exits(78)
        .says("'server.port' can not be");
    house.write_server_yaml("server: {port: 0}\n");
    house.replace("index", says("one").config("tipe: exec"));
    house
        .run(["check"])
        .exits(78)
        .says("worker.yaml:1:1")
        .says("did you mean 'type'?");
    house.replace("index", says("one"));
    house
        .run(["check"])
        .succeeds()
        .says("1 worker, no problems");
}

#[test]
fn a_port_in_use_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let house = House::new().worker("index", says("one"));
    house.write_server_yaml(&format!("server: {{address: 127.0.0.1, port: {port}}}\n"));
    let ran = house.does_not_open();
    ran.exits(1)
        .says("is in use by ")
        .says(&format!("(PID {})", std::process::id()));
    assert!(
        !house.place().exists(),
        "{} is left",
        house.place().display()
    );
}

#[test]
fn a_port_given_on_the_command_line_outlasts_a_reload() {
    let house = House::new().worker("index", says("one"));
    house.write_server_yaml("server: {address: 127.0.0.1, port: 8080}\n");
    let house = house.on_port("--port=0").open();
    assert_ne!(house.address().port(), 8080);
    house.replace("index", says("two"));
    house.reload().succeeds();
    house.get("/").is("two");
}

#[test]
fn the_units_that_are_shown_are_units_that_systemd_takes() {
    let worker = says("one").config(
        "gomaxprocs: 2\ngomemlimit: 64MiB\ntasks_max: 40\nenv: {GREETING: \"a \\\"b\\\" 100% $$x\"}",
    );
    let house = House::new()
        .worker("index", worker.clone())
        .worker("api/users", worker);
    let shown = house.run(["check", "--show-units"]);
    shown
        .succeeds()
        .says("# tqserver-index@1.service")
        .says("CPUQuota=200%")
        .says("MemoryMax=67108864")
        .says("TasksMax=40");
    let directory = house.path().join("shown");
    let mut files: Vec<(String, String)> = Vec::new();
    for line in shown.stdout.lines() {
        match (line.strip_prefix("# "), files.last_mut()) {
            (Some(name), _) => files.push((name.to_owned(), String::new())),
            (None, Some((_, text))) => *text += &format!("{line}\n"),
            (None, None) => panic!("no name before '{line}'"),
        }
    }
    assert_eq!(files.len(), 4, "{shown}");
    let paths: Vec<_> = files.iter().map(|(name, _)| directory.join(name)).collect();
    for ((_, text), path) in files.iter().zip(&paths) {
        write(path, text);
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--user", "--man=no"]).args(&paths);
    verify
        .env("XDG_RUNTIME_DIR", house.path())
        .env("SYSTEMD_LOG_LEVEL", "warning");
    let ran = Ran::of(&mut verify);
    let complaints = ran.stderr.lines().filter(|line| line.contains("tqserver-"));
    assert_eq!(complaints.collect::<Vec<_>>(), Vec::<&str>::new(), "{ran}");
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("api"))
        .open();
    house.replace("index", says("two"));
    house.replace("shop", says("shop"));
    house.remove("api");
    let ran = house.run(["reload", "--dry-run"]);
    ran.succeeds()
        .says("index: would be replaced")
        .says("shop: would be started")
        .says("api: would be removed");
    house.get("/").is("one");
    house.get("/api").is("api");
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn force_replaces_what_has_not_changed() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("api"))
        .open();
    house.run(["reload"]).succeeds().says("index: unchanged");
    house
        .run(["reload", "--force", "index"])
        .succeeds()
        .says("index: generation 2 serves, generation 1 drains");
    house.units("index").are(["generation 2 serving"]);
    house.units("api").are(["generation 1 serving"]);
}

#[test]
fn one_worker_is_reloaded_alone_and_an_unknown_one_is_refused() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("old"))
        .open();
    house.replace("index", says("two"));
    house.replace("api", says("new"));
    house
        .run(["reload", "api"])
        .succeeds()
        .says("api: generation 2 serves")
        .says_nothing_of("index:");
    house.get("/").is("one");
    house.get("/api").is("new");
    let ran = house.run(["reload", "appi"]);
    assert!(ran.code.is_some_and(|code| code != 0), "{ran}");
    ran.says("there is no worker 'appi'");
}

#[test]
fn a_check_tells_what_a_command_names_and_a_snapshot_has_not() {
    let worker = says("one")
        .file("data/run.conf", "")
        .file("lib/.cache/x", "")
        .file("lib/x", "")
        .config(
            "command: [bin/index, --config=data/run.conf, lib/x, data]\nenv: {CACHE: lib/.cache/x}",
        );
    let house = House::new().worker("index", worker);
    house
        .run(["check"])
        .succeeds()
        .says("warning: index: 'command' names data/run.conf, and in production the worker runs from a snapshot without data")
        .says("'env: CACHE' names lib/.cache/x")
        .says("without lib/.cache;")
        .says_nothing_of("lib/x,");
    house
        .run(["check", "--mode=development"])
        .succeeds()
        .says_nothing_of("snapshot");
}

#[test]
fn what_is_no_worker_among_workers_is_told_with_what_to_do() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("rails", empty().file("Gemfile", ""))
        .worker(
            "shop",
            says("shop").file("config/worker.yml", "listen: port"),
        )
        .open();
    let recognised = "workers/rails is left out: nothing in it says what to run; name the program with 'command' in its config/worker.yaml";
    let spelt = "workers/shop/config/worker.yml is left out: a worker's configuration is called worker.yaml; rename it";
    house.server_says(recognised);
    for command in [&["reload"][..], &["reload", "--dry-run"], &["status"]] {
        let ran = house.run(command.iter().copied());
        ran.succeeds().says(recognised).says(spelt);
    }
    house
        .run(["reload", "--quiet"])
        .succeeds()
        .says_nothing_of("left out");
    house
        .run(["check"])
        .succeeds()
        .says("warning: ")
        .says("workers/rails: nothing in it says what to run")
        .says("workers/shop/config/worker.yml: a worker's configuration is called worker.yaml");
    house.remove("rails");
    house
        .reload()
        .succeeds()
        .says_nothing_of("workers/rails")
        .says(spelt);
}

#[test]
fn status_tells_of_each_worker() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api/users", says("users"))
        .worker("bad", behaves("exit 5"))
        .open();
    house.get("/").is("one");
    let ran = house.run(["status"]);
    ran.succeeds()
        .says("WORKER")
        .says("/api/users")
        .says("bad: last failure")
        .says("exit code 5");
    house
        .run(["status", "api.users"])
        .succeeds()
        .says("generation 1 serving (tqserver-api.users@1.service)");
    house
        .run(["status", "none"])
        .exits(64)
        .says("there are: api.users, bad, index");
    let status = house.status("index");
    let run = &status.generations[0];
    assert_eq!(
        (
            status.route.as_str(),
            status.state.as_str(),
            run.requests,
            run.in_flight
        ),
        ("/", "serving", 1, 0)
    );
    assert!(run.since > 0 && run.pid > 0, "{status:?}");
}

#[test]
fn quiet_says_only_what_went_wrong() {
    let house = House::new().worker("index", says("one")).open();
    house.replace("index", says("two"));
    let ran = house.run(["reload", "--quiet"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(0), "", "")
    );
    house.replace("index", behaves("exit 2"));
    house
        .run(["reload", "--quiet"])
        .fails_with("index: failed: exit code 2");
}

#[test]
fn the_bus_object_explains_itself() {
    let house = House::new().worker("index", says("one")).open();
    let mut busctl = Command::new("busctl");
    busctl.arg(format!(
        "--address=unix:path={}/bus",
        house.place().display()
    ));
    busctl.args([
        "introspect",
        "org.tqserver.Manager1",
        "/org/tqserver/Manager1",
    ]);
    let ran = Ran::of(&mut busctl);
    ran.succeeds();
    for member in [
        ".Reload",
        ".ListWorkers",
        ".ListRollbacks",
        ".Progress",
        ".Version",
        ".Mode",
    ] {
        ran.says(member);
    }
}

#[test]
fn the_servers_own_health_is_told() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("bad", behaves("exit 1"))
        .open();
    house.get("/health").has_status(503);
    let health = house.get("/health").json();
    assert_eq!(health["status"], "degraded", "{health}");
}
