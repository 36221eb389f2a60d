//! Workers as Debian packages.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::house::House;
use crate::house::process::{Ran, tqserver};
use crate::house::worker::{empty, only_files, says, write};

/// Where packages put workers.
const PLACE: &str = "./usr/lib/tqserver/workers";

/// Packages a worker; returns what was said and where the package is.
#[track_caller]
fn package(house: &House, arguments: &[&str]) -> String {
    let output = format!("--output={}", house.path().display());
    let all = ["package", &output]
        .into_iter()
        .chain(arguments.iter().copied());
    let ran = house.run(all);
    ran.succeeds();
    let path = ran.stdout.lines().last().unwrap_or_default().to_owned();
    assert!(Path::new(&path).is_file(), "{ran}");
    path
}

#[track_caller]
fn dpkg_deb(arguments: &[&str]) -> String {
    let ran = Ran::of(Command::new("dpkg-deb").args(arguments));
    ran.succeeds();
    ran.stdout
}

fn field(package: &str, field: &str) -> String {
    dpkg_deb(&["--field", package, field]).trim().to_owned()
}

#[test]
fn a_package_has_what_a_snapshot_has_owned_by_root() {
    let worker = says("one")
        .config("path: /blog")
        .file("public/a.txt", "a")
        .file("views/page.html", "page")
        .file("src/main.c", "source")
        .file("data/state", "state")
        .file("lib/Cargo.toml", "[package]")
        .file("lib/target/x", "x")
        .file(".git/HEAD", "head");
    let house = House::new().worker("api/users", worker);
    let loose = house.worker_directory("api/users").join("views/page.html");
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o666)).expect("chmod a file");
    let path = package(&house, &["api.users", "--version=1:1.2-3"]);
    assert!(path.contains("/tqserver-worker-api-users_1.2-3_"), "{path}");
    let listed = dpkg_deb(&["--contents", &path]);
    let files: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for file in &files {
        assert_eq!(file[1], "root/root", "{listed}");
        let program = file[5].ends_with("bin/users");
        let mode = match file[5].ends_with('/') {
            true => "drwxr-xr-x",
            false if program => "-rwxr-xr-x",
            false => "-rw-r--r--",
        };
        assert_eq!(file[0], mode, "{listed}");
        if !file[5].ends_with('/') {
            names.push(&file[5][PLACE.len()..]);
        }
    }
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "/api/users/behaviour",
            "/api/users/bin/users",
            "/api/users/config/worker.yaml",
            "/api/users/lib/Cargo.toml",
            "/api/users/public/a.txt",
            "/api/users/src/main.c",
            "/api/users/views/page.html"
        ]
    );
    assert_eq!(field(&path, "Version"), "1:1.2-3");
    let depends = field(&path, "Depends");
    assert!(depends.starts_with("tqserver"), "{depends}");
    // A program of this machine's kind.
    assert_ne!(field(&path, "Architecture"), "all");
    let sums = dpkg_deb(&["--info", &path, "md5sums"]);
    assert_eq!(sums.lines().count(), 7, "{sums}");
    assert!(
        sums.contains("  usr/lib/tqserver/workers/api/users/public/a.txt"),
        "{sums}"
    );
}

#[test]
fn a_package_whose_worker_does_not_start_fails_to_be_configured() {
    let house = House::new().worker("blog", only_files().file("public/a.txt", "a"));
    let path = package(&house, &["blog"]);
    let control = house.path().join("control");
    let script = control.join("postinst");
    dpkg_deb(&["--control", &path, &control.to_string_lossy()]);
    let programs = house.path().join("programs");
    // What the script is answered by the server and by systemd.
    let configure = |server: &str, state: &str| {
        let server = format!("#!/bin/sh\necho \"$@\"\nexit {server}\n");
        let systemctl = format!("#!/bin/sh\necho {state}\n[ {state} = active ]\n");
        for (name, text) in [("tqserver", server), ("systemctl", systemctl)] {
            let program = programs.join(name);
            write(&program, &text);
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod a file");
        }
        let path = format!("{}:/usr/bin:/bin", programs.display());
        Ran::of(
            Command::new(&script)
                .args(["configure", ""])
                .env("PATH", path),
        )
    };
    configure("0", "active")
        .succeeds()
        .says("reload --quiet --manager=system --config=/etc/tqserver/server.yaml blog");
    configure("1", "activating")
        .exits(1)
        .says("install the version before");
    configure("1", "inactive").succeeds();
}

#[test]
fn a_package_of_the_same_files_is_the_same_package() {
    let house = House::new().worker("blog", only_files().file("public/a.txt", "a"));
    let path = package(&house, &["blog"]);
    let first = fs::read(&path).expect("read a package");
    fs::remove_file(&path).expect("remove a package");
    assert_eq!(package(&house, &["blog"]), path);
    assert!(fs::read(&path).expect("read a package") == first);
    assert!(field(&path, "Version").starts_with("0.20"), "{path}");
    assert_eq!(field(&path, "Architecture"), "all");
    assert_eq!(field(&path, "Depends"), "tqserver");
}

#[test]
fn a_package_says_who_made_it_what_it_needs_and_which_version_it_is() {
    let worker = empty().file("main.py", "pass").file(
        "pyproject.toml",
        "[project]\nname = \"x\"\nversion = \"2.0-rc1\"\n",
    );
    let house = House::new().worker("x", worker);
    let mut command = house.command(["package", "x", "--depends=curl", "--depends=jq (>= 1)"]);
    command
        .arg(format!("--output={}", house.path().display()))
        .env("DEBFULLNAME", "Jo Doe")
        .env("DEBEMAIL", "jo@example.org");
    let ran = Ran::of(&mut command);
    ran.succeeds();
    let path = ran.stdout.trim();
    assert!(
        path.ends_with("/tqserver-worker-x_2.0~rc1_all.deb"),
        "{ran}"
    );
    assert_eq!(field(path, "Maintainer"), "Jo Doe <jo@example.org>");
    assert_eq!(field(path, "Depends"), "tqserver, python3, curl, jq (>= 1)");
    let path = package(&house, &["x", "--name=shop", "--maintainer=A <a@b>"]);
    assert_eq!(field(&path, "Package"), "shop");
    assert_eq!(field(&path, "Maintainer"), "A <a@b>");
}

#[test]
fn what_would_not_run_is_not_packaged() {
    let house = House::new()
        .worker("wrong", says("one").config("tipe: exec"))
        .worker("off", says("one").config("enabled: false"))
        .worker(
            "unbuilt",
            empty()
                .file("Cargo.toml", "[package]")
                .file("src/main.rs", ""),
        )
        .worker(
            "state",
            says("one")
                .config("command: [data/run]")
                .file("data/run", "#!/bin/sh\n"),
        )
        .worker("link", says("one"))
        .worker(
            "version",
            only_files()
                .file("public/a", "")
                .file("package.json", "{\"version\": \"one\"}"),
        );
    let run = house.worker_directory("state").join("data/run");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("chmod a file");
    symlink("/etc/passwd", house.worker_directory("link").join("views")).expect("make a link");
    for (worker, text) in [
        ("wrong", "did you mean 'type'?"),
        ("off", "disabled in production"),
        (
            "unbuilt",
            "bin/unbuilt is missing; build it with tqserver build --release",
        ),
        ("state", "data/run is missing"),
        ("link", "views is a link to /etc/passwd"),
        ("version", "give one with --version"),
    ] {
        house
            .run(["package", worker, "--output", "/tmp"])
            .exits(78)
            .says(text);
    }
    house
        .run(["package", "nope"])
        .exits(64)
        .says("there is no worker 'nope'");
    for option in [
        "--version=v1",
        "--name=X",
        "--maintainer=a\nb",
        "--output=/nowhere",
    ] {
        house.run(["package", "link", option]).exits(64);
    }
}

#[test]
fn what_was_not_for_everybody_to_read_is_told() {
    let house = House::new().worker(
        "blog",
        only_files().file("public/a.txt", "a").file("key", "k"),
    );
    let key = house.worker_directory("blog").join("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod a file");
    let output = format!("--output={}", house.path().display());
    house
        .run(["package", "blog", &output])
        .succeeds()
        .says("note: key was not for everybody to read");
}

#[test]
fn a_packages_version_does_not_hide_the_servers() {
    Ran::of(&mut tqserver(["--version"]))
        .succeeds()
        .says(env!("CARGO_PKG_VERSION"));
    let house = House::new().worker("blog", only_files().file("public/a.txt", "a"));
    write(&house.path().join("unrelated"), "");
    let path = package(&house, &["blog", "--version", "7"]);
    assert!(path.ends_with("/tqserver-worker-blog_7_all.deb"), "{path}");
}
