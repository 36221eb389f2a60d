//! A disk that is full.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::house::{House, below, chain, index, is_inside, manifest};
use crate::config::WorkerType;
use crate::deploy::Store;

/// Whether this is the process that may mount: root, or a user who is root in a name space of its own.
fn may_mount(test: &str) -> bool {
    let user: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["unshare", "--mount"],
        false => &["unshare", "--user", "--map-root-user", "--mount"],
    };
    is_inside(&format!("deploy::tests::full::{test}"), user)
}

/// A file system of its own at `place`.
fn mount(options: &str, place: &Path) {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "small"])
        .arg(place)
        .status();
    assert!(mounted.unwrap().success(), "a tmpfs can not be mounted");
}

/// A house whose store is on a file system of 256 KiB.
fn small(files: &[(&str, &str)]) -> House {
    let mut house = House::with(files);
    let state = house.directory.path().join("small");
    fs::create_dir(&state).unwrap();
    mount("size=256k,nr_inodes=64", &state);
    house.store = Store::open(&state, None).unwrap();
    house
}

#[test]
fn assets_on_a_file_system_of_their_own_are_copied() {
    if !may_mount("assets_on_a_file_system_of_their_own_are_copied") {
        return;
    }
    let house = House::with(&[("bin/index", "x"), ("public/a", "a")]);
    mount("size=256k", house.store.public());
    let made = house.create(1, WorkerType::Rust).unwrap();
    assert_eq!(fs::read(made.join("public/a")).unwrap(), b"a");
    assert_eq!(house.names(), ["1", "1-1"]);
}

/// Takes all the room there is but for `left` KiB.
fn fill(house: &House, left: u64) {
    let filler = state(house).join("filler");
    let _ = fs::remove_file(&filler);
    let free = rustix::fs::statvfs(state(house)).unwrap();
    let bytes = free.f_bavail * free.f_frsize - (left << 10);
    fs::write(filler, vec![b'x'; usize::try_from(bytes).unwrap()]).unwrap();
}

fn state(house: &House) -> &Path {
    house.store.programs().parent().unwrap()
}

#[test]
fn a_snapshot_that_does_not_fit_leaves_nothing_and_says_what_and_where() {
    if !may_mount("a_snapshot_that_does_not_fit_leaves_nothing_and_says_what_and_where") {
        return;
    }
    let large = "x".repeat(400 << 10);
    let house = small(&[("bin/index", &large), ("public/a", "a")]);
    let error = house.create(1, WorkerType::Rust).unwrap_err();
    let from = house.worker();
    let start = format!(
        "copy the files of tqserver-index@1 from {}: copy bin/index: No space left on device",
        from.display()
    );
    assert!(error.starts_with(&start), "{error}");
    let room = format!(
        "; the file system of the snapshots, mounted at {}, had ",
        state(&house).display()
    );
    assert!(error.contains(&room), "{error}");
    // What was met, and not what is free again once the copy is removed; the kernel takes its time to count the last page.
    let found = error.split_once("/small, had ").unwrap().1;
    let free = found.split_once(" of 256 KiB free; make room, then reload");
    let free = free.unwrap().0;
    assert!(
        ["0 bytes", "4096 bytes", "8192 bytes"].contains(&free),
        "{error}"
    );
    assert_eq!(below(state(&house)), [".public", ".snapshots"]);

    house.write("bin/index", "x");
    house.write("public/a", &large);
    let error = house.create(1, WorkerType::Rust).unwrap_err();
    assert!(error.contains("/public: copy a: No space left"), "{error}");
    assert_eq!(below(state(&house)), [".public", ".snapshots"]);
}

#[test]
fn wherever_the_room_ends_nothing_is_left_and_with_enough_it_is_whole() {
    if !may_mount("wherever_the_room_ends_nothing_is_left_and_with_enough_it_is_whole") {
        return;
    }
    let page = "x".repeat(4 << 10);
    let house = small(&[("bin/index", &page), ("lib/a", &page), ("public/a", &page)]);
    for left in [0, 4, 8] {
        fill(&house, left);
        let error = house.create(1, WorkerType::Rust).unwrap_err();
        assert!(error.contains("No space left on device"), "{error}");
        assert_eq!(below(state(&house)), [".public", ".snapshots", "filler"]);
    }
    fill(&house, 12);
    house.create(1, WorkerType::Rust).unwrap();
    assert_eq!(house.names(), ["1", "1-1"]);

    // There is no room for the manifest, which is what accepting comes down to.
    let error = house.store.write_manifest(&index(1), &manifest("a"));
    let error = chain(&error.unwrap_err());
    assert!(error.contains("1.json: No space left on device"), "{error}");
    assert!(error.contains("had 0 bytes of 256 KiB free"), "{error}");
    assert_eq!(house.names(), ["1", "1-1"]);
}

#[test]
fn assets_whose_manifest_does_not_fit_are_not_the_latest() {
    if !may_mount("assets_whose_manifest_does_not_fit_are_not_the_latest") {
        return;
    }
    let house = small(&[("bin/index", "x"), ("public/a", "a")]);
    house.accept(1, "p");
    house.write("public/a", "b");
    fill(&house, 4);
    let added = house.store.add_assets(&index(1), &house.worker(), "b");
    assert!(added.is_err());
    assert_eq!(house.names(), ["1", "1.json", "1-1"]);
    let stayed = house.store.manifest(&index(1)).unwrap().unwrap();
    assert_eq!(stayed.assets, "a");
}

#[test]
fn it_is_said_when_it_is_files_that_are_too_many() {
    if !may_mount("it_is_said_when_it_is_files_that_are_too_many") {
        return;
    }
    let house = small(&[("bin/index", "x")]);
    for number in 0..70 {
        let _ = fs::write(state(&house).join(number.to_string()), "");
    }
    let error = house.create(1, WorkerType::Rust).unwrap_err();
    assert!(error.contains("No space left on device"), "{error}");
    assert!(error.contains("no file more can be made on it"), "{error}");
}
