//! A generation of several instances: all of them pass, serve and go together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::house::{House, found_pair, name, spec};
use crate::names::{Generation, Instance};
use crate::plan::fleet::instance;
use crate::plan::simulation::disk::policy;
use crate::plan::{Action, Event, Found, FoundPair, Look, Moment, Policy};
use crate::route::{Address, Target};
use crate::systemd::{Activity, Ending, ServiceState};
use crate::wire::ProbeOutcome;

/// A generation of the worker that has three instances.
fn trio(generation: u64) -> Instance {
    instance(&name("trio"), Generation(generation))
}

/// A house in which the three instances of generation 1 are asked for their health: by the requests 0, 1 and 2.
fn asking() -> House {
    let mut house = House::new();
    house.held.insert("probe");
    house.put("trio", "one");
    house.reload(&[]);
    house.was(&["publish", "launch trio@1", "publish no trio"]);
    house
}

/// A house with generation 1 of `trio`, which serves.
fn serving() -> House {
    let mut house = House::new();
    house.put("trio", "one");
    house.reload(&[]);
    house.told.clear();
    house
}

fn state(activity: Activity) -> ServiceState {
    ServiceState {
        activity,
        failure: (activity == Activity::Failed).then_some(Ending::Signal(9)),
        ..ServiceState::default()
    }
}

#[track_caller]
fn says(house: &House, text: &str) {
    let told = house.told.iter().any(|line| line.contains(text));
    assert!(told, "{:?}", house.told);
}

/// Where the requests of `trio` go, by the numbers of its instances.
fn in_table(house: &House) -> Vec<u8> {
    let table = house.fleet.published.as_ref().expect("a table");
    match &table.routes[0].target {
        Target::Serving(upstream) => {
            let first = upstream.instances.values().next();
            assert_eq!(first, Some(&upstream.address));
            upstream.instances.keys().copied().collect()
        }
        _ => Vec::new(),
    }
}

fn found(generation: u64, accepted: bool, numbers: &[u8]) -> Found {
    let pair = |number: &u8| {
        let file = trio(generation).pair(*number).file_name("sock");
        let address = Address::Unix(PathBuf::from("/run").join(file));
        let pair = FoundPair {
            address,
            ..found_pair()
        };
        (*number, pair)
    };
    Found {
        instance: trio(generation),
        spec: spec("trio", "one"),
        pairs: numbers.iter().map(pair).collect(),
        public: None,
        accepted,
    }
}

#[test]
fn a_generation_serves_when_all_of_its_instances_are_ready() {
    let mut house = asking();
    for id in [2, 0] {
        house.happen(Event::Probed(id, ProbeOutcome::Status(200)));
        house.was(&[]);
    }
    house.happen(Event::Probed(1, ProbeOutcome::Status(200)));
    house.was(&["publish trio@1", "accept trio@1", "finish 1: replaced by 1"]);
    assert_eq!(in_table(&house), [1, 2, 3]);
}

#[test]
fn one_instance_that_fails_fails_the_generation_and_is_named() {
    let mut house = asking();
    house.happen(Event::Probed(0, ProbeOutcome::Status(200)));
    house.happen(Event::Probed(1, ProbeOutcome::Status(500)));
    house.was(&[
        "stop trio@1",
        "publish no trio",
        "finish 1: failed: instance 2: HTTP status 500 to its health request",
    ]);

    let mut house = asking();
    let died = Event::Unit(trio(1).pair(3), state(Activity::Failed));
    house.happen(died);
    says(&house, "instance 3: signal 9");

    let mut house = asking();
    for id in [0, 2] {
        house.happen(Event::Probed(id, ProbeOutcome::Status(200)));
    }
    house.wait();
    says(&house, "instance 2: timeout");
}

#[test]
fn an_instance_that_has_answered_may_sleep_until_the_others_have() {
    let mut house = asking();
    house.happen(Event::Unit(trio(1).pair(1), state(Activity::Active)));
    house.happen(Event::Probed(0, ProbeOutcome::Status(200)));
    house.happen(Event::Unit(trio(1).pair(1), state(Activity::Inactive)));
    house.was(&[]);
    for id in [1, 2] {
        house.happen(Event::Probed(id, ProbeOutcome::Status(200)));
    }
    assert_eq!(in_table(&house), [1, 2, 3]);
}

#[test]
fn the_log_that_is_told_is_that_of_the_instance_that_failed() {
    let mut house = asking();
    let answer = Event::Probed(1, ProbeOutcome::Status(500));
    let actions = house.fleet.step(Moment::ZERO, answer);
    let stop = actions.iter().find_map(|action| match action {
        Action::Stop { pairs, failed, .. } => Some((*pairs, *failed)),
        _ => None,
    });
    assert_eq!(stop, Some((3, Some(2))));
}

#[test]
fn without_one_of_its_instances_a_generation_serves_on_until_it_is_replaced() {
    let mut house = serving();
    house.happen(Event::SocketFailed(trio(1).pair(2)));
    house.was(&["publish trio@1"]);
    assert_eq!(in_table(&house), [1, 3]);
    house.happen(Event::SocketFailed(trio(1).pair(2)));
    house.was(&[]);
    house.wait();
    assert_eq!(
        house.told[..3],
        ["launch trio@2", "publish trio@2", "accept trio@2"]
    );
    assert_eq!(in_table(&house), [1, 2, 3]);
}

#[test]
fn a_reload_replaces_a_generation_of_which_an_instance_is_missing() {
    let mut house = serving();
    house.happen(Event::SocketFailed(trio(1).pair(2)));
    house.told.clear();
    house.reload(&[]);
    assert_eq!(house.told[0], "launch trio@2");
}

#[test]
fn without_any_of_its_instances_a_worker_is_not_available() {
    let mut house = serving();
    for number in 1..=3 {
        house.happen(Event::SocketFailed(trio(1).pair(number)));
    }
    house.was(&["publish trio@1", "publish trio@1", "publish no trio"]);
}

#[test]
fn a_whole_generation_is_adopted_and_half_a_candidate_is_not() {
    let mut house = House::adopt(vec![found(1, true, &[1, 2, 3]), found(2, false, &[1, 3])]);
    // The last manager may have handed it requests.
    house.was(&["publish", "publish trio@1"]);
    assert_eq!(in_table(&house), [1, 2, 3]);
    house.wait();
    house.was(&["stop trio@2", "publish trio@1"]);
    let failed = house.fleet.view()[0].last_failure.clone();
    let reason = failed.expect("a failure").0.reason.to_string();
    assert_eq!(reason, "instance 2: its units are not there");
}

#[test]
fn an_accepted_generation_that_lacks_an_instance_is_adopted_and_replaced() {
    let mut house = House::adopt(vec![found(1, true, &[2, 3])]);
    house.was(&["publish", "publish trio@1"]);
    assert_eq!(in_table(&house), [2, 3]);
    house.wait();
    assert_eq!(house.told[0], "launch trio@2");
}

#[test]
fn each_instance_has_a_port_of_its_own() {
    let mut house = House::new();
    for (worker, instances) in [("port", 1), ("ports", 19)] {
        house.put(worker, "one");
        let disk = house.disk.get_mut(&name(worker)).unwrap();
        disk.settings.limits.instances = instances;
    }
    house.reload(&[]);
    let workers = house.fleet.workers.values();
    let runs = workers.flat_map(|worker| worker.runs.values());
    let addresses = runs.flat_map(|run| run.addresses().into_values());
    let mut ports: Vec<String> = addresses.map(|address| address.to_string()).collect();
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 20);
    house.told.clear();
    house.put("ports", "two");
    let disk = house.disk.get_mut(&name("ports")).unwrap();
    disk.settings.limits.instances = 2;
    house.reload(&[]);
    assert!(
        house.told[0].contains("fewer than 2 ports from 9000 to 9019 are free"),
        "{:?}",
        house.told
    );
}

#[test]
fn many_instances_of_one_worker_leave_room_for_others() {
    let mut house = House::new();
    house.happen(Event::Configured(Box::new(Policy {
        concurrent_starts: 256,
        ..policy(false)
    })));
    house.held.insert("probe");
    let all: Vec<String> = (0..20).map(|number| format!("w{number:02}")).collect();
    for worker in &all {
        house.put(worker, "one");
        let disk = house.disk.get_mut(&name(worker)).unwrap();
        disk.settings.limits.instances = 64;
    }
    let workers: BTreeMap<_, _> = house.disk.clone().into_iter().collect();
    house.happen(Event::Looked {
        look: Look::Reload {
            id: 1,
            only: Vec::new(),
            force: false,
        },
        workers: workers
            .into_iter()
            .map(|(name, spec)| (name, Ok(spec)))
            .collect(),
        snapshots: BTreeMap::new(),
    });
    let launched = house.told.iter().filter(|line| line.starts_with("launch"));
    assert_eq!(launched.count(), 4, "256 instances at a time");
}
