//! Which snapshots can be started from and gone back to.

use std::fs;

use super::house::{House, index, manifest, name};
use crate::config::WorkerType;
use crate::deploy::{Accepted, Manifest};
use crate::names::Generation;

fn house() -> House {
    House::with(&[("bin/index", "x"), ("public/a", "x")])
}

fn generations<const N: usize>(numbers: [u64; N]) -> Vec<Generation> {
    numbers.map(Generation).to_vec()
}

/// Makes a manifest one nobody can read.
fn spoil(house: &House, generation: u64) {
    let path = house.store.layout.manifest(&index(generation));
    fs::write(path, "{}").unwrap();
}

#[test]
fn a_snapshot_is_accepted_with_its_manifest_and_not_before() {
    let house = house();
    house.accept(9, "one");
    house.accept(10, "two");
    house.create(11, WorkerType::Rust).unwrap();
    assert_eq!(house.store.accepted(&name()), generations([10, 9]));
    house.store.clone_of(&index(10), &index(12)).unwrap();
    assert_eq!(house.store.accepted(&name()), generations([10, 9]));
    house.note(12, "two");
    assert_eq!(house.store.accepted(&name()), generations([12, 10, 9]));
}

#[test]
fn what_to_go_back_to_is_the_newest_of_something_else() {
    let house = house();
    let previous = |serving| {
        let history = house.store.history(&name());
        let found = Accepted::previous(&history, Generation(serving));
        found.map(|found| found.generation)
    };
    house.accept(1, "one");
    assert_eq!(previous(1), None);
    house.accept(2, "two");
    house.accept(3, "three");
    assert_eq!(previous(3), Some(Generation(2)));
    // It took the place of 3, which had ended.
    house.accept(4, "three");
    assert_eq!(previous(4), Some(Generation(2)));
    // Gone back to 2, and from there to where that came from.
    house.accept(5, "two");
    assert_eq!(previous(5), Some(Generation(4)));
    assert_eq!(previous(1), Some(Generation(5)));
    // Not accepted itself.
    assert_eq!(previous(99), Some(Generation(5)));
}

#[test]
fn kept_are_the_newest_that_differ() {
    let house = house();
    let kept = |count| house.store.worth_keeping(&name(), count).unwrap();
    assert_eq!(kept(2), []);
    for (generation, program) in [(1, "one"), (2, "two"), (3, "two"), (4, "two")] {
        house.accept(generation, program);
    }
    assert_eq!(kept(2), generations([4, 1]));
    assert_eq!(kept(1), generations([4]));
    spoil(&house, 4);
    assert_eq!(kept(2), generations([3, 1]));
}

#[test]
fn the_newest_accepted_snapshots_come_with_what_is_known_of_them() {
    let house = house();
    house.accept(1, "one");
    house.accept(2, "two");
    house.create(3, WorkerType::Rust).unwrap();
    let (newest, problems) = house.store.newest_accepted();
    assert!(problems.is_empty());
    assert_eq!(newest.keys().collect::<Vec<_>>(), [&name()]);
    let accepted = &newest[&name()];
    assert_eq!(accepted.generation, Generation(2));
    assert_eq!(accepted.manifest.program, "two");
    assert_eq!(accepted.assets, house.store.latest_assets(&index(2)));
}

#[test]
fn with_the_newest_manifest_unreadable_the_one_before_is_used_and_that_is_told() {
    let house = house();
    house.accept(1, "one");
    house.accept(2, "two");
    spoil(&house, 2);
    let other = house.store.programs().join("other");
    fs::create_dir_all(other.join("1")).unwrap();
    fs::write(other.join("1.json"), "").unwrap();
    fs::write(house.store.programs().join("third"), "no directory").unwrap();
    let (newest, problems) = house.store.newest_accepted();
    assert_eq!(newest[&name()].generation, Generation(1));
    assert_eq!(newest.len(), 1);
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let named = ["index/2.json", "other/1.json", "/third"];
    assert_eq!(problems.len(), named.len(), "{problems:?}");
    for (problem, named) in problems.iter().zip(named) {
        assert!(problem.ends_with(named), "{problem}");
    }
}

#[test]
fn a_manifest_without_files_is_nothing_to_start_from() {
    let house = house();
    house.accept(1, "one");
    house.note(2, "two");
    assert_eq!(house.store.accepted(&name()), generations([1]));
    let (newest, _) = house.store.newest_accepted();
    assert_eq!(newest[&name()].generation, Generation(1));
}

#[test]
fn manifests_of_other_versions_are_read() {
    let mut newer = serde_json::to_value(manifest("a")).unwrap();
    newer["of"] = "a field of a later version".into();
    newer["settings"]["colour"] = "another".into();
    let read: Manifest = serde_json::from_value(newer).unwrap();
    assert_eq!(read, manifest("a"));
}
