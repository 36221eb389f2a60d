//! Making snapshots, and removing them.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::house::{House, below, chain, index, manifest};
use crate::config::{SnapshotLimits, WorkerType};
use crate::deploy::allowance::Spent;
use crate::deploy::copy::{self, How, Omit};
use crate::deploy::layout;
use crate::effort::Effort;
use crate::limits::ByteSize;
use crate::names::Generation;

#[test]
fn a_snapshot_has_all_but_what_is_known_not_to_be_the_programs() {
    let house = House::with(&[
        ("bin/index", "x"),
        ("views/data/x", "x"),
        ("config/worker.yaml", "x"),
        (".env", "x"),
        (".next/BUILD_ID", "x"),
        (".next/.git/x", "x"),
        ("src/main.rs", "x"),
        ("data/db", "x"),
        ("target/debug/index", "x"),
        (".git/HEAD", "x"),
        (".vscode/x", "x"),
        ("lib/__pycache__/a.pyc", "x"),
        ("lib/.cache/x", "x"),
        ("lib/other/bin/other", "another worker's"),
        ("lib/other/config/worker.yaml", ""),
        ("lib/other/data/db", "x"),
        ("lib/rust/Cargo.toml", "x"),
        ("lib/rust/target/x", "x"),
        ("public/style.css", "x"),
        ("public/data/x", "x"),
        ("public/.git/x", "x"),
    ]);
    let made = house.create(1, WorkerType::Rust).unwrap();
    let files = |directory: &Path| {
        let mut files = below(directory);
        files.retain(|path| directory.join(path).is_file());
        files
    };
    assert_eq!(
        files(&made),
        [
            ".env",
            ".next/BUILD_ID",
            "bin/index",
            "config/worker.yaml",
            "lib/other/bin/other",
            "lib/other/config/worker.yaml",
            "lib/rust/Cargo.toml",
            "public/data/x",
            "public/style.css",
            "views/data/x",
        ]
    );
    assert_eq!(house.names(), ["1", "1-1"]);
    let assets = house.store.latest_assets(&index(1)).unwrap();
    assert_eq!(files(&assets), ["data/x", "style.css"]);

    for (generation, kind) in [(2, WorkerType::Python), (3, WorkerType::Exec)] {
        let made = house.create(generation, kind).unwrap();
        for file in ["src/main.rs", "target/debug/index", "public/style.css"] {
            assert!(made.join(file).exists(), "{kind}: {file}");
        }
    }
    let pages = house.create(4, WorkerType::Static).unwrap();
    assert!(
        !pages.join("public").exists(),
        "it has no program to read it"
    );
}

#[test]
fn what_the_proxy_serves_is_stored_once_and_it_gets_no_more_of_the_snapshot() {
    let house = House::with(&[("bin/index", "x"), ("public/a/style.css", "x")]);
    symlink("a/style.css", house.worker().join("public/link")).unwrap();
    let made = house.create(1, WorkerType::Rust).unwrap();
    let assets = house.store.latest_assets(&index(1)).unwrap();
    let found = |path: PathBuf| fs::symlink_metadata(path).unwrap();
    let file = found(assets.join("a/style.css"));
    assert_eq!(found(made.join("public/a/style.css")).ino(), file.ino());
    assert_eq!((file.nlink(), file.mode() & 0o7777), (2, 0o444));
    assert_eq!(found(made.join("bin/index")).nlink(), 1);
    assert_eq!(below(&assets), ["a", "a/style.css", "link"]);
    assert_eq!(
        below(&made),
        [
            "bin",
            "bin/index",
            "public",
            "public/a",
            "public/a/style.css",
            "public/link"
        ]
    );
    for directory in ["public", "public/a"] {
        assert_eq!(found(made.join(directory)).mode() & 0o7777, 0o755);
    }
    // The one stays when the other goes.
    fs::remove_dir_all(&assets).unwrap();
    assert_eq!(fs::read(made.join("public/link")).unwrap(), b"x");
}

#[test]
fn links_inside_stay_links_and_links_that_leave_are_refused() {
    let house = House::with(&[("bin/index-1", "x"), ("lib/a/x", "x")]);
    symlink("index-1", house.worker().join("bin/index")).unwrap();
    symlink("../a/x", house.worker().join("lib/a/y")).unwrap();
    let made = house.create(1, WorkerType::Rust).unwrap();
    assert_eq!(
        fs::read_link(made.join("bin/index")).unwrap(),
        Path::new("index-1")
    );
    assert_eq!(
        fs::read_link(made.join("lib/a/y")).unwrap(),
        Path::new("../a/x")
    );

    symlink("/etc/shadow", house.worker().join("lib/secret")).unwrap();
    let error = house.create(2, WorkerType::Rust).unwrap_err();
    assert!(
        error.starts_with("copy the files of tqserver-index@2 from "),
        "{error}"
    );
    assert!(
        error.contains(": lib/secret is a link to /etc/shadow, which is outside"),
        "{error}"
    );
    assert_eq!(house.names(), ["1"]);
}

#[test]
fn assets_that_are_links_out_of_public_are_refused() {
    let house = House::with(&[
        ("bin/index", "x"),
        ("config/secret", "x"),
        ("public/a", "x"),
    ]);
    symlink("../config/secret", house.worker().join("public/secret")).unwrap();
    let error = house.create(1, WorkerType::Rust).unwrap_err();
    assert!(
        error.contains("secret is a link to ../config/secret"),
        "{error}"
    );
    assert_eq!(house.names(), [""; 0]);
}

#[test]
fn a_worker_or_a_public_that_is_a_link_is_not_followed() {
    let house = House::with(&[("bin/index", "x")]);
    let elsewhere = house.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, house.worker().join("public")).unwrap();
    let error = house.create(1, WorkerType::Rust).unwrap_err();
    assert!(
        error.contains("open as a directory, which a link is not"),
        "{error}"
    );

    fs::rename(house.worker(), house.directory.path().join("moved")).unwrap();
    symlink(house.directory.path().join("moved"), house.worker()).unwrap();
    let error = house.create(1, WorkerType::Rust).unwrap_err();
    assert!(
        error.contains("open as a directory, which a link is not"),
        "{error}"
    );
    assert_eq!(house.names(), [""; 0]);
}

#[test]
fn sockets_and_fifos_are_refused() {
    let house = House::with(&[("bin/index", "x")]);
    let _socket = std::os::unix::net::UnixListener::bind(house.worker().join("x")).unwrap();
    let error = house.create(1, WorkerType::Rust).unwrap_err();
    assert!(
        error.contains(": x is a socket, which can not be deployed"),
        "{error}"
    );
    fs::remove_file(house.worker().join("x")).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    let fifo = house.worker().join("x");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let error = house.create(1, WorkerType::Rust).unwrap_err();
    assert!(
        error.contains(": x is a fifo, which can not be deployed"),
        "{error}"
    );
}

#[test]
fn a_file_swapped_for_a_link_while_it_is_copied_never_leaks_its_target() {
    let house = House::with(&[("a/x", "mine"), ("b/x", "mine")]);
    let secret = house.directory.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("x"), "secret").unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A file, and a directory, for a link and back, as fast as it goes.
            let (file, directory) = (house.worker().join("a/x"), house.worker().join("b"));
            let aside = house.directory.path().join("aside");
            while !over.load(Ordering::Relaxed) {
                fs::rename(&directory, &aside).unwrap();
                symlink(&secret, &directory).unwrap();
                fs::remove_file(&file).unwrap();
                symlink(secret.join("x"), &file).unwrap();
                fs::remove_file(&file).unwrap();
                fs::write(&file, "mine").unwrap();
                fs::remove_file(&directory).unwrap();
                fs::rename(&aside, &directory).unwrap();
            }
        });
        let leaked = |copy: PathBuf| fs::read(copy).is_ok_and(|content| content == b"secret");
        let leaks = (1..200)
            .filter_map(|generation| copied(&house, generation))
            .filter(|made| leaked(made.join("a/x")) || leaked(made.join("b/x")))
            .count();
        over.store(true, Ordering::Relaxed);
        assert_eq!(leaks, 0);
    });
}

/// A copy that is not flushed to disk, for a test that makes many.
fn copied(house: &House, generation: u64) -> Option<PathBuf> {
    let to = house.directory.path().join(format!("copy-{generation}"));
    fs::create_dir(&to).unwrap();
    let source = copy::open_below(&house.worker(), Path::new("")).unwrap();
    let mut spent = Spent::new(SnapshotLimits::NONE, Effort::default());
    copy::tree(source, &to, How::Copy, Omit::default(), &mut spent)
        .ok()
        .map(|()| to)
}

#[test]
fn large_files_and_holes_arrive_as_they_are() {
    let house = House::with(&[]);
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    fs::write(house.worker().join("large"), &content).unwrap();
    fs::write(house.worker().join("empty"), "").unwrap();
    let made = house.create(1, WorkerType::Exec).unwrap();
    assert!(fs::read(made.join("large")).unwrap() == content);
    assert_eq!(fs::read(made.join("empty")).unwrap(), b"");
}

#[test]
fn a_snapshot_is_not_written_twice() {
    let house = House::with(&[("bin/index", "x")]);
    house.create(1, WorkerType::Rust).unwrap();
    let error = house.create(1, WorkerType::Rust).unwrap_err();
    assert_eq!(error, "there is a snapshot of tqserver-index@1 already");
}

#[test]
fn assets_are_added_without_a_new_program() {
    let house = House::with(&[("bin/index", "x"), ("public/a", "one")]);
    house.create(1, WorkerType::Rust).unwrap();
    house
        .store
        .write_manifest(&index(1), &manifest("a1"))
        .unwrap();
    house.write("public/a", "two");
    let second = house
        .store
        .add_assets(&index(1), &house.worker(), "a2")
        .unwrap();
    assert_eq!(fs::read(second.join("a")).unwrap(), b"two");
    assert_eq!(house.store.latest_assets(&index(1)), Some(second));
    assert_eq!(
        house.store.manifest(&index(1)).unwrap(),
        Some(manifest("a2"))
    );

    fs::remove_dir_all(house.worker().join("public")).unwrap();
    let third = house
        .store
        .add_assets(&index(1), &house.worker(), "a3")
        .unwrap();
    assert_eq!(below(&third), [""; 0]);
    let missing = house
        .store
        .add_assets(&index(9), &house.worker(), "a3")
        .unwrap_err();
    assert_eq!(
        missing.to_string(),
        "there is no snapshot of tqserver-index@9"
    );
}

#[test]
fn a_clone_has_the_very_files_and_the_assets_and_is_not_accepted() {
    let house = House::with(&[("bin/index", "x"), ("public/a", "x")]);
    symlink("index", house.worker().join("bin/link")).unwrap();
    let first = house.create(1, WorkerType::Rust).unwrap();
    house
        .store
        .write_manifest(&index(1), &manifest("a1"))
        .unwrap();
    let second = house.store.clone_of(&index(1), &index(2)).unwrap();
    assert_eq!(below(&first), below(&second));
    let inode = |directory: &Path| fs::metadata(directory.join("bin/index")).unwrap().ino();
    assert_eq!(inode(&first), inode(&second));
    assert_eq!(house.store.manifest(&index(2)).unwrap(), None);
    assert_eq!(below(&house.store.latest_assets(&index(2)).unwrap()), ["a"]);

    house
        .store
        .prune(&index(2).worker, &[Generation(2)], Generation(99))
        .unwrap();
    assert_eq!(fs::read(second.join("bin/index")).unwrap(), b"x");
    assert!(house.store.clone_of(&index(1), &index(3)).is_err());
}

#[test]
fn prune_keeps_what_it_is_told_and_the_latest_assets() {
    let house = House::with(&[("bin/index", "x"), ("public/a", "x")]);
    for generation in [1, 2, 10] {
        house.create(generation, WorkerType::Rust).unwrap();
        house
            .store
            .write_manifest(&index(generation), &manifest("a"))
            .unwrap();
    }
    house
        .store
        .add_assets(&index(10), &house.worker(), "b")
        .unwrap();
    fs::create_dir(layout::unfinished(&house.store.files(&index(3)))).unwrap();
    let worker = &index(0).worker;
    assert_eq!(house.store.generations(worker), [1, 2, 10].map(Generation));
    assert_eq!(house.store.workers(), std::slice::from_ref(worker));

    house
        .store
        .prune(worker, &[Generation(10), Generation(2)], Generation(99))
        .unwrap();
    assert_eq!(house.store.generations(worker), [2, 10].map(Generation));
    let kept = ["10", "10.json", "2", "2.json", "10-2", "2-1"];
    assert_eq!(house.names(), kept);

    house.store.prune(worker, &[], Generation(99)).unwrap();
    assert_eq!(house.store.workers(), []);
}

#[test]
fn what_a_create_that_was_killed_left_behind_is_in_nobodys_way() {
    let house = House::with(&[("bin/index", "x"), ("public/a", "x")]);
    let left = layout::unfinished(&house.store.files(&index(1)));
    fs::create_dir_all(left.join("bin")).unwrap();
    fs::create_dir_all(house.store.layout.assets(&index(1), 7)).unwrap();
    assert_eq!(house.store.generations(&index(1).worker), []);
    house.create(1, WorkerType::Rust).unwrap();
    assert_eq!(house.names(), ["1", "1-1"]);
}

#[test]
fn a_manifest_that_is_not_ours_is_an_error_and_none_is_none() {
    let house = House::with(&[("bin/index", "x")]);
    assert_eq!(house.store.manifest(&index(1)).unwrap(), None);
    house.create(1, WorkerType::Rust).unwrap();
    fs::write(house.store.layout.manifest(&index(1)), "{}").unwrap();
    assert!(house.store.manifest(&index(1)).is_err());
}

#[test]
fn holes_stay_holes() {
    let house = House::with(&[("lib/x", "x")]);
    let sparse = fs::File::create(house.worker().join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"in the middle", 512 << 20).unwrap();
    let made = house.create(1, WorkerType::Exec).unwrap().join("sparse");
    let found = made.metadata().unwrap();
    assert_eq!(found.len(), 1 << 30);
    assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
    let mut content = [0; 13];
    let copy = fs::File::open(&made).unwrap();
    std::os::unix::fs::FileExt::read_at(&copy, &mut content, 512 << 20).unwrap();
    assert_eq!(&content, b"in the middle");
}

/// What is said of a snapshot with these limits; nothing of it may be left.
fn refused(house: &House, max_size: u64, max_files: u64) -> String {
    let limits = SnapshotLimits {
        max_size: ByteSize(max_size),
        max_files,
    };
    let store = house.store.with(limits, &Effort::default());
    let made = store.create(&index(1), &house.worker(), WorkerType::Exec);
    let error = chain(&made.unwrap_err());
    assert_eq!(below(house.store.programs()), [""; 0], "{error}");
    assert_eq!(below(house.store.public()), [""; 0], "{error}");
    error
}

#[test]
fn a_snapshot_that_is_too_large_is_given_up_while_it_is_copied_and_leaves_nothing() {
    let house = House::with(&[("a/1", "x"), ("a/2", "x"), ("public/3", "x")]);
    let error = refused(&house, 1 << 20, 3);
    assert!(
        error.contains("more than 3 files and directories"),
        "{error}"
    );
    assert!(error.contains("'snapshots.max_files'"), "{error}");
    let sparse = fs::File::create(house.worker().join("sparse")).unwrap();
    sparse.set_len(8 << 40).unwrap();
    let error = refused(&house, 1 << 20, 100);
    assert!(error.contains("with sparse (8192 GiB)"), "{error}");
    assert!(error.contains("more than 1024 KiB"), "{error}");
    assert!(error.contains("'snapshots.max_size'"), "{error}");
    // Both trees are one snapshot, and what is linked is in it once.
    fs::remove_file(house.worker().join("sparse")).unwrap();
    let limits = SnapshotLimits {
        max_size: ByteSize(3),
        max_files: 4,
    };
    let store = house.store.with(limits, &Effort::default());
    let made = store.create(&index(1), &house.worker(), WorkerType::Exec);
    made.unwrap();
}

#[test]
fn a_path_that_no_program_could_open_is_refused() {
    let house = House::with(&[]);
    let mut path = house.worker();
    for _ in 0..13 {
        path.push("d".repeat(250));
        fs::create_dir(&path).unwrap();
    }
    let error = house.create(1, WorkerType::Exec).unwrap_err();
    assert!(error.contains("a path of 3"), "{error}");
}

#[test]
fn what_is_finished_after_nobody_waits_for_it_is_taken_back() {
    let house = House::with(&[("bin/index", "x"), ("public/a", "a")]);
    let effort = Effort::default();
    let store = house.store.with(SnapshotLimits::NONE, &effort);
    house.create(1, WorkerType::Rust).unwrap();
    effort.give_up();
    let created = store.create(&index(2), &house.worker(), WorkerType::Rust);
    assert!(created.is_err());
    assert!(store.clone_of(&index(1), &index(2)).is_err());
    assert!(store.write_manifest(&index(1), &manifest("a")).is_err());
    assert_eq!(house.names(), ["1", "1-1"]);
    house
        .store
        .write_manifest(&index(1), &manifest("a"))
        .unwrap();
    house.write("public/a", "b");
    assert!(store.add_assets(&index(1), &house.worker(), "b").is_err());
    assert_eq!(house.names(), ["1", "1.json", "1-1"]);
    let stayed = house.store.manifest(&index(1)).unwrap().unwrap();
    assert_eq!(stayed.assets, "a");
}

#[test]
fn what_a_removed_worker_has_is_kept_for_its_time_and_then_goes_with_its_assets() {
    let house = House::with(&[("bin/index", "x"), ("public/a", "a")]);
    house.accept(1, "one");
    house.accept(2, "two");
    let (start, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let expire = |days| {
        let (name, keep) = (super::house::name(), Some(30 * day));
        let now = start + days * day;
        house.store.expire(&name, Generation(2), keep, now).unwrap()
    };
    assert!(!expire(0));
    assert!(!expire(30));
    assert!(house.store.is_gone(&super::house::name()));
    assert_eq!(house.store.accepted(&super::house::name()).len(), 2);
    // One that comes back has its history, and its time begins anew.
    house.store.came_back(&super::house::name()).unwrap();
    assert!(!house.store.is_gone(&super::house::name()));
    assert_eq!(house.store.accepted(&super::house::name()).len(), 2);
    assert!(!expire(31));
    let (name, now) = (super::house::name(), start + 9999 * day);
    let kept = house.store.expire(&name, Generation(2), None, now);
    assert!(!kept.unwrap());
    assert!(expire(62));
    assert_eq!(below(house.store.programs()), [""; 0]);
    assert_eq!(below(house.store.public()), [""; 0]);
}
