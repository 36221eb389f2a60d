//! The programs of a Python environment, run from a snapshot that lies elsewhere than they were made for.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};

use super::house::*;
use crate::config::WorkerType;

/// Says where it runs, and what it is told.
const SAYS: &str = "import sys\nprint(sys.prefix, sys.flags.isolated, *sys.argv[1:])\n";

/// A worker with an environment whose script `serve` begins with `head`.
fn house(head: &str) -> House {
    let house = House::with(&[
        (
            ".venv/pyvenv.cfg",
            "home = /usr/bin\ninclude-system-site-packages = false\n",
        ),
        (".venv/bin/serve", &format!("{head}\n{SAYS}")),
    ]);
    let bin = house.worker().join(".venv/bin");
    symlink("/usr/bin/python3", bin.join("python3")).unwrap();
    symlink("python3", bin.join("python")).unwrap();
    let program = Permissions::from_mode(0o755);
    fs::set_permissions(bin.join("serve"), program).unwrap();
    house
}

/// What `serve` of this generation says once the worker's directory is gone, run by a shell that has moved elsewhere.
fn serve(house: &House, generation: u64) -> (String, String) {
    let files = house.store.files(&index(generation));
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new("sh")
        .args(["-c", "exec \"$0\" one 'two three'"])
        .arg(files.join(".venv/bin/serve"))
        .current_dir("/")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{stderr}");
    let expected = files.join(".venv").display().to_string();
    (String::from_utf8(stdout).unwrap(), expected)
}

#[test]
fn a_script_of_an_environment_runs_in_that_of_its_snapshot_wherever_it_was_made() {
    let long = "d/".repeat(100);
    for (head, isolated) in [
        (
            "#!/srv/tqserver/workers/index/.venv/bin/python".to_owned(),
            0,
        ),
        ("#!/elsewhere/env/bin/python3.11 -I".to_owned(), 1),
        (
            format!("#!/bin/sh\n'''exec' /{long}bin/python \"$0\" \"$@\"\n' '''"),
            0,
        ),
        (
            "#!/bin/sh\n'''exec' \"/a b/.venv/bin/python3\" \"$0\" \"$@\"\n' '''".to_owned(),
            0,
        ),
    ] {
        let house = house(&head);
        house.create(1, WorkerType::Python).unwrap();
        fs::remove_dir_all(house.worker()).unwrap();
        let (said, prefix) = serve(&house, 1);
        assert_eq!(
            said,
            format!("{prefix} {isolated} one two three\n"),
            "{head}"
        );
        // One that shares its files runs in its own.
        house.store.clone_of(&index(1), &index(2)).unwrap();
        let (said, prefix) = serve(&house, 2);
        assert_eq!(
            said,
            format!("{prefix} {isolated} one two three\n"),
            "{head}"
        );
        let script = house.store.files(&index(2)).join(".venv/bin/serve");
        assert_eq!(mode(&script), 0o555);
    }
}

#[test]
fn a_script_that_is_no_environments_or_names_another_interpreter_is_copied_as_it_is() {
    let head = "#!/usr/bin/python3";
    let house = house(head);
    let made_for_it = "#!/srv/tqserver/workers/index/.venv/bin/python\n";
    house.write("bin/serve", made_for_it);
    house.write(".venv/bin/data", "#!/x/bin/ruby\n");
    house.write(".venv/lib/x", made_for_it);
    house.create(1, WorkerType::Python).unwrap();
    let files = house.store.files(&index(1));
    for name in [
        "bin/serve",
        ".venv/bin/serve",
        ".venv/bin/data",
        ".venv/lib/x",
    ] {
        let [source, copy] = [house.worker(), files.clone()]
            .map(|directory| fs::read_to_string(directory.join(name)).unwrap());
        assert_eq!(source, copy, "{name}");
    }
}

#[test]
fn a_script_is_counted_by_what_the_snapshot_has_of_it() {
    let house = house("#!/elsewhere/.venv/bin/python");
    let source = house.worker().join(".venv/bin/serve");
    let changed = source.metadata().unwrap().modified().unwrap();
    house.create(1, WorkerType::Python).unwrap();
    let copy = house.store.files(&index(1)).join(".venv/bin/serve");
    assert_eq!(copy.metadata().unwrap().modified().unwrap(), changed);
    assert!(copy.metadata().unwrap().len() > source.metadata().unwrap().len());
}
