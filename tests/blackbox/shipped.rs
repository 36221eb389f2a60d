//! The workers that come with the repository.

use std::fs;
use std::path::Path;

use crate::house::House;
use crate::house::worker::empty;

/// What is in the repository of a worker, without what a build has left there.
fn shipped(house: &House, name: &str) {
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("workers")
            .join(name),
        &house.worker_directory(name),
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if ["bin", "target", "data"].iter().any(|made| name == **made) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).expect("copy a file");
        }
    }
}

#[test]
fn index_is_built_and_shows_its_page() {
    let house = House::new();
    shipped(&house, "index");
    let house = house.open();
    house.get("/").has_status(200).holds("<html");
    house.get("/style.css").has_status(200).holds("{");
    house.get("/no/such/page").has_status(404);
    assert_eq!(house.status("index").state, "serving");
}

#[test]
fn clock_serves_or_says_what_to_install() {
    let house = House::new();
    shipped(&house, "clock");
    let house = house.open();
    let answer = house.get("/clock");
    if is_installed("python3") {
        answer.has_status(200).holds("<html");
        house.get("/clock/clock.css").has_status(200);
    } else {
        answer
            .has_status(503)
            .holds("python3 is not installed; run apt install python3");
    }
}

#[test]
fn a_missing_interpreter_is_named_with_its_package() {
    let house = House::new().worker("app", empty().file("server.js", "process.exit(1)"));
    let house = house.open();
    let answer = house.get("/app");
    answer.has_status(503);
    if !is_installed("node") {
        answer.holds("node is not installed; run apt install nodejs");
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/bin", "/usr/bin", "/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .any(|directory| directory.join(program).exists())
}
