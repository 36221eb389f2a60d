//! Who may read what, and what root without its privileges can do.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use super::house::{House, index, is_inside, mode, name};
use crate::config::WorkerType;
use crate::deploy::Store;
use crate::names::Generation;

/// Whether this is the process without capabilities, as the manager of a machine is.
fn has_no_capabilities(test: &str) -> bool {
    let wrapper: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
        false => &["env"],
    };
    is_inside(&format!("deploy::tests::rights::{test}"), wrapper)
}

#[test]
fn only_the_server_gets_in_and_whoever_it_lets_in_may_read_all() {
    let house = House::with(&[
        ("bin/index", "x"),
        (".env", "x"),
        ("config/secret", "x"),
        ("public/a", "x"),
    ]);
    let set = |path: &str, mode| {
        fs::set_permissions(house.worker().join(path), Permissions::from_mode(mode)).unwrap();
    };
    set("bin/index", 0o6777);
    set(".env", 0o600);
    set("config/secret", 0o640);
    set("config", 0o2700);
    set("public/a", 0o600);
    set("public", 0o700);
    set("", 0o700);
    let made = house.create(1, WorkerType::Rust).unwrap();
    let modes = [
        ("bin/index", 0o555),
        (".env", 0o444),
        ("config/secret", 0o444),
    ];
    for (path, expected) in modes {
        assert_eq!(mode(&made.join(path)), expected, "{path}");
    }
    // Its owner must be able to remove what is in a directory, without any privilege.
    assert_eq!(mode(&made), 0o755);
    assert_eq!(mode(&made.join("config")), 0o755);
    let assets = house.store.latest_assets(&index(1)).unwrap();
    assert_eq!(mode(&assets), 0o755);
    assert_eq!(mode(&assets.join("a")), 0o444);
    assert_eq!(mode(assets.parent().unwrap()), 0o755);
    assert_eq!(mode(house.store.programs()), 0o700);
    assert_eq!(mode(house.store.public()), 0o700);
}

#[test]
fn the_time_of_change_is_kept() {
    let house = House::with(&[("bin/index", "x")]);
    let program = fs::File::options()
        .write(true)
        .open(house.worker().join("bin/index"));
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    program.unwrap().set_modified(then).unwrap();
    let made = house.create(1, WorkerType::Rust).unwrap();
    let copy = fs::metadata(made.join("bin/index")).unwrap();
    assert_eq!(copy.modified().unwrap(), then);
}

#[test]
fn extended_attributes_stay_behind() {
    let house = House::with(&[("bin/index", "x")]);
    let list = |path: &std::path::Path| {
        let mut names = [0_u8; 256];
        let length = rustix::fs::listxattr(path, &mut names).unwrap();
        String::from_utf8_lossy(&names[..length]).into_owned()
    };
    let program = house.worker().join("bin/index");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&program, "user.tqserver", b"x", flags).unwrap();
    if rustix::process::geteuid().is_root() {
        // VFS_CAP_REVISION_2 with CAP_NET_BIND_SERVICE, permitted and effective (capabilities(7)).
        let mut capability = [0_u8; 20];
        capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 4, 0, 0]);
        rustix::fs::setxattr(&program, "security.capability", &capability, flags).unwrap();
    }
    assert!(list(&program).contains("user.tqserver"));
    let made = house.create(1, WorkerType::Rust).unwrap();
    let copied = list(&made.join("bin/index"));
    assert!(!copied.contains("user."), "{copied}");
    assert!(!copied.contains("security.capability"), "{copied}");
}

#[test]
fn the_proxys_group_may_read_the_assets_and_modes_that_are_wrong_are_put_right() {
    let house = House::with(&[]);
    let state = house.directory.path().join("state");
    // A group we are in; root may take any.
    let group = match rustix::process::geteuid().is_root() {
        true => 65_534,
        false => rustix::process::getegid().as_raw(),
    };
    fs::set_permissions(house.store.programs(), Permissions::from_mode(0o755)).unwrap();
    let store = Store::open(&state, Some(group)).unwrap();
    assert_eq!(mode(store.programs()), 0o700);
    assert_eq!(mode(store.public()), 0o750);
    assert_eq!(fs::metadata(store.public()).unwrap().gid(), group);
    let store = Store::open(&state, None).unwrap();
    assert_eq!(mode(store.public()), 0o700);
}

#[test]
fn a_store_that_is_a_link_is_not_used() {
    let house = House::with(&[]);
    let elsewhere = house.directory.path().join("elsewhere");
    let state = house.directory.path().join("other");
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::symlink(&elsewhere, state.join(".snapshots")).unwrap();
    assert!(Store::open(&state, None).is_err());
}

#[test]
fn without_capabilities_snapshots_are_made_linked_and_removed() {
    if !has_no_capabilities("without_capabilities_snapshots_are_made_linked_and_removed") {
        return;
    }
    let house = House::with(&[("bin/index", "x"), ("lib/a/b", "x"), ("public/a/b", "x")]);
    let set = |path: &str, mode| {
        fs::set_permissions(house.worker().join(path), Permissions::from_mode(mode)).unwrap();
    };
    set("lib/a", 0o555);
    set("lib/a/b", 0o400);
    house.accept(1, "p");
    house.store.clone_of(&index(1), &index(2)).unwrap();
    assert_eq!(house.names(), ["1", "1.json", "2", "1-1", "2-1"]);
    house.store.prune(&name(), &[], Generation(9)).unwrap();
    assert_eq!(house.store.workers(), []);
    set("lib/a", 0o755);
}

#[test]
fn what_can_not_be_read_is_named_with_what_to_type() {
    if !has_no_capabilities("what_can_not_be_read_is_named_with_what_to_type") {
        return;
    }
    let house = House::with(&[("bin/index", "x"), ("config/secret", "x"), ("lib/a/b", "x")]);
    let set = |path: &str, mode| {
        fs::set_permissions(house.worker().join(path), Permissions::from_mode(mode)).unwrap();
    };
    set("config/secret", 0o200);
    let error = house.create(1, WorkerType::Rust).unwrap_err();
    let secret = house.worker().join("config/secret");
    let secret = secret.display();
    let hint = format!(": {secret} can not be read by ");
    assert!(error.contains(&hint), "{error}");
    let hint = format!("; type `chmod o+r {secret}`, or for a secret `chown ");
    assert!(error.contains(&hint), "{error}");
    assert_eq!(house.names(), [""; 0]);

    set("config/secret", 0o600);
    // Neither one that can not be listed, nor one that can be listed and not entered.
    for closed in [0o300, 0o600] {
        set("lib/a", closed);
        let error = house.create(1, WorkerType::Rust).unwrap_err();
        set("lib/a", 0o755);
        let hint = format!("chmod o+rx {}`", house.worker().join("lib/a").display());
        assert!(error.contains(&hint), "{error}");
        assert_eq!(house.names(), [""; 0]);
    }
}
