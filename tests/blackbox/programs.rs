//! Programs that a package manager has put beside a worker's own: found by name, and run from where the worker runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::house::worker::{empty, says, write};
use crate::house::{HEAD, House, until};

/// A program in Python that answers with where it runs, and what it is told of its environment.
const SERVER: &str = r#"
import os, shutil, socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        told = [sys.prefix, os.environ.get("VIRTUAL_ENV"), os.path.dirname(shutil.which("serve") or "")]
        body = "\n".join(map(str, told)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "proxy"

server = HTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
"#;

/// Makes a file executable.
fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod a file");
}

/// Puts an environment with the program `serve` into a worker's directory; its script says that it was made at `made`.
fn environment(directory: &Path, made: &str) {
    let environment = directory.join(".venv");
    write(
        &environment.join("pyvenv.cfg"),
        "home = /usr/bin\ninclude-system-site-packages = false\n",
    );
    let serve = environment.join("bin/serve");
    write(&serve, &format!("#!{made}/bin/python\n{SERVER}"));
    executable(&serve);
    symlink("/usr/bin/python3", environment.join("bin/python")).expect("make a link");
}

/// The worker `app`, whose command is this.
fn app(house: &House, command: &str) {
    house.replace(
        "app",
        empty()
            .config(&format!("command: {command}"))
            .file("bin/run", "#!/bin/sh\nexec .venv/bin/serve\n"),
    );
    executable(&house.worker_directory("app").join("bin/run"));
}

#[test]
fn a_program_of_an_environment_runs_from_its_snapshot_whatever_names_it() {
    let house = House::new()
        .worker("index", says("one"))
        .production()
        .open();
    let directory = house.worker_directory("app");
    environment(&directory, &directory.join(".venv").display().to_string());
    for (generation, command) in ["[serve]", "[.venv/bin/serve]", "[bin/run]"]
        .iter()
        .enumerate()
    {
        app(&house, command);
        house
            .reload()
            .succeeds()
            .says(&format!("generation {} ", generation + 1));
        let told = house.get("/app").text();
        let told: Vec<&str> = told.lines().collect();
        let snapshot = format!(".snapshots/app/{}/.venv", generation + 1);
        assert!(told[0].ends_with(&snapshot), "{command}: {told:?}");
        assert_eq!(told[1], told[0], "{command}");
        assert_eq!(told[2], format!("{}/bin", told[0]), "{command}");
    }
    house.run(["check"]).succeeds().says("no problems");
}

#[test]
fn in_development_a_program_is_found_as_soon_as_it_was_fetched() {
    let head = HEAD.replace("60000", "20");
    let house = House::new()
        .server_yaml(&head)
        .worker("index", says("one"))
        .open();
    let directory = house.worker_directory("app");
    let environment = directory.join(".venv");
    // What stands for pip puts the program there, and the rest only when that has been seen.
    let pip = "#!/bin/sh\nif test \"$2\" = pip; then\n\
        cp serve.in .venv/bin/serve && chmod +x .venv/bin/serve && echo $$ >>../pip\n\
        until test -e ../seen; do sleep 0.01; done\ntouch .venv/all; exit\nfi\n\
        test -e .venv/all || exit 9\nexec /usr/bin/python3 \"$@\"\n";
    write(&environment.join("bin/python"), pip);
    executable(&environment.join("bin/python"));
    write(&environment.join("bin/pip"), "");
    let script = "#!/bin/sh\ntest -e .venv/all || exit 9\nexec /usr/bin/python3 main.py\n";
    let worker = |command: &str| {
        empty()
            .config(&format!("command: {command}"))
            .file("requirements.txt", "serve\n")
            .file("main.py", SERVER)
            .file("serve.in", script)
    };
    house.replace("app", worker("[.venv/bin/serve]"));
    let serve = environment.join("bin/serve");
    until("the program is there", || serve.exists());
    // What is saved after that is live: the program has been seen, too.
    house.replace("index", says("two"));
    house.server_says("index: live ");
    write(&directory.with_file_name("seen"), "");
    until("it serves", || {
        house.get("/app").text().contains("/.venv/bin")
    });
    let told = house.get("/app").text();
    let bin = environment.join("bin").canonicalize().expect("a path");
    let found = told.lines().last().expect("three lines").to_owned();
    assert_eq!(Path::new(&found).canonicalize().expect("a path"), bin);
    house.replace("app", worker("[serve]"));
    house.server_says("app: live ");
    // The first build ran to its end, and was enough.
    let built = fs::read_to_string(directory.with_file_name("pip")).expect("it was built");
    assert_eq!(built.lines().count(), 1, "{built}");
}

/// A program in Python that writes `counter.txt` when it starts and for each request, and answers with `text`.
fn counting(text: &str) -> String {
    SERVER
        .replace("def do_GET(self):", "def do_GET(self):\n        count()")
        .replace(
            "class Handler",
            "def count():\n    with open('counter.txt', 'a') as counter:\n        counter.write('x')\n\ncount()\nclass Handler",
        )
        .replace("map(str, told)", &format!("['{text}']"))
}

#[test]
fn a_file_that_a_program_writes_itself_replaces_it_a_few_times_and_is_told_once() {
    let head = HEAD.replace("60000", "20");
    let house = House::new()
        .server_yaml(&head)
        .worker("index", says("one"))
        .worker("app", empty().file("main.py", &counting("first")))
        .open();
    house.server_says("counter.txt is written by the program of 'app' itself");
    house.server_says("app: live ");
    let generations = || house.status("app").generations.len();
    until("one generation serves", || generations() == 1);
    let newest = || house.status("app").generations[0].generation;
    let settled = newest();
    assert!(settled <= 7, "generation {settled}");
    // It writes for these, too.
    for _ in 0..5 {
        house.get("/app").is("first");
    }
    let counter = house.worker_directory("app").join("counter.txt");
    write(&counter, "");
    // What else is saved is seen after that, and taken over at once.
    house.replace("index", says("two"));
    until("it is live", || house.get("/").text() == "two");
    assert_eq!(newest(), settled);
    house.replace("app", empty().file("main.py", &counting("second")));
    until("it is live", || house.get("/app").text() == "second");
    house.replace("index", says("three"));
    until("it is live", || house.get("/").text() == "three");
    assert_eq!(newest(), settled + 1);
    let said = house.server().all_it_said();
    let told = said.iter().filter(|line| line.contains("counter.txt"));
    assert_eq!(told.count(), 1, "{said:#?}");
}
