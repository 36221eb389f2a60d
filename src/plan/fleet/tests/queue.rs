//! Many candidates at once: which begin, and which wait for what.

use std::time::Duration;

use super::house::{House, name};
use crate::plan::simulation::disk::policy;
use crate::plan::{Event, Policy};
use crate::wire::ProbeOutcome;

const MIB: u64 = 1 << 20;

/// A house that starts so many at once, in which workers `w0`, `w1`... lie, and no health request is answered.
fn house(concurrent_starts: usize, workers: usize) -> House {
    let mut house = House::new();
    house.happen(Event::Configured(Box::new(Policy {
        concurrent_starts,
        ..policy(false)
    })));
    house.held.insert("probe");
    for number in 0..workers {
        house.put(&format!("w{number}"), "one");
    }
    house
}

/// How many were launched, in all.
fn launched(house: &House) -> usize {
    let launches = house.told.iter();
    launches.filter(|line| line.starts_with("launch")).count()
}

fn is_healthy(house: &mut House, probe: u64) {
    house.happen(Event::Probed(probe, ProbeOutcome::Status(200)));
}

#[test]
fn no_more_are_started_at_once_than_server_yaml_says() {
    let mut house = house(2, 5);
    house.reload(&[]);
    assert_eq!(launched(&house), 2);
    for probe in 0..5 {
        is_healthy(&mut house, probe);
        assert_eq!(launched(&house), (probe as usize + 3).min(5));
        let over = house.fleet.reloaded(1).map_or(5, |(over, _)| over);
        assert_eq!(over, probe as usize + 1);
    }
    let line = "finish 1: replaced by 1 replaced by 1 replaced by 1 replaced by 1 replaced by 1";
    assert_eq!(house.told.last().map(String::as_str), Some(line));
}

#[test]
fn a_deadline_counts_from_the_start_and_not_from_the_wait() {
    let mut house = house(1, 3);
    house.reload(&[]);
    // None becomes ready, and each has its own five seconds.
    for number in 1..=3 {
        assert_eq!(launched(&house), number);
        let began = house.now;
        while launched(&house) == number
            && house.told.iter().all(|line| !line.starts_with("finish"))
        {
            house.wait();
        }
        assert_eq!(house.now - began, Duration::from_secs(5));
    }
}

#[test]
fn what_takes_long_to_become_ready_makes_room_for_others_within_bounds() {
    let mut house = house(1, 9);
    for spec in house.disk.values_mut() {
        spec.settings.health.start_timeout = Duration::from_secs(300);
    }
    house.reload(&[]);
    for number in 2..=4 {
        assert_eq!(house.wait(), Duration::from_secs(10));
        assert_eq!(launched(&house), number);
    }
    // Four times as many as there may be, and no more until one is over.
    house.wait();
    assert!(house.wait() > Duration::from_secs(200));
    assert_eq!(launched(&house), 5);
}

#[test]
fn a_worker_of_more_instances_than_may_start_at_once_starts_alone() {
    let mut house = house(2, 1);
    house.put("trio", "one");
    house.reload(&[]);
    assert_eq!(launched(&house), 1);
    // `trio` was first by its name; its three probes come first.
    for probe in 0..3 {
        is_healthy(&mut house, probe);
    }
    assert_eq!(launched(&house), 2);
}

#[test]
fn while_memory_is_short_one_is_started_after_another_and_none_is_refused() {
    let mut house = house(4, 3);
    house.happen(Event::Memory(Some(100 * MIB)));
    house.reload(&[]);
    assert_eq!(launched(&house), 1);
    // Less than any needs.
    house.happen(Event::Memory(Some(MIB)));
    is_healthy(&mut house, 0);
    assert_eq!(launched(&house), 2);
    house.happen(Event::Memory(Some(1000 * MIB)));
    assert_eq!(launched(&house), 3);
}

#[test]
fn while_memory_is_short_old_generations_go_first() {
    let mut house = house(4, 2);
    house.held.remove("probe");
    house.reload(&[]);
    house.put("w0", "two");
    house.put("w1", "two");
    house.held.insert("drained");
    house.happen(Event::Memory(Some(MIB)));
    house.told.clear();
    house.reload(&[]);
    assert_eq!(launched(&house), 1);
    // Its old generation has its grace, and is stopped.
    house.wait();
    assert_eq!(launched(&house), 2);
}

#[test]
fn what_is_removed_or_superseded_leaves_the_queue() {
    let mut house = house(1, 3);
    house.reload(&[]);
    house.disk.remove(&name("w1"));
    house.put("w2", "two");
    house.reload(&[]);
    is_healthy(&mut house, 0);
    is_healthy(&mut house, 1);
    let launches = house.told.iter().filter(|line| line.starts_with("launch"));
    assert_eq!(launches.collect::<Vec<_>>(), ["launch w0@1", "launch w2@1"]);
    let spec = &house.fleet.workers[&name("w2")].serving().unwrap().1.spec;
    assert_eq!(spec.fingerprint.program, "two");
}

#[test]
fn after_a_boot_what_the_first_request_wakes_does_not_wait() {
    let mut house = house(1, 4);
    house.start([
        ("w0", 7, "one"),
        ("w1", 7, "one"),
        ("w2", 7, "one"),
        ("w3", 7, "one"),
    ]);
    assert_eq!(launched(&house), 4);
}
