//! A worker on a port: whose it has to be, who may have taken it, and how far it reaches.

use std::time::Duration;

use super::house::{House, index, name};
use crate::config::{Listen, Network};
use crate::plan::{Action, EXPOSED, Event};
use crate::route::{Address, Target};
use crate::systemd::{Activity, Ending, ServiceState};
use crate::wire::ProbeOutcome;

/// A house in which each worker is a user of its own, and generation 1 of `index`, on port 9000, is asked for its health.
fn asking() -> House {
    let mut house = House::new();
    house.fleet.policy.own_users = true;
    house.held.insert("probe");
    house.put("index", "one");
    let on_disk = house.disk.get_mut(&name("index")).unwrap();
    on_disk.settings.listen = Listen::Port;
    house.reload(&[]);
    house.told.clear();
    house
}

fn runs_as(user: Option<u32>) -> Event {
    let state = ServiceState {
        activity: Activity::Active,
        user,
        ..ServiceState::default()
    };
    Event::Unit(index(1).pair(1), state)
}

fn held(port: u16, by: u32) -> Address {
    Address::Held {
        at: ([127, 0, 0, 1], port).into(),
        by,
    }
}

/// Where the next health request goes.
fn asked(house: &mut House) -> Address {
    house.now += Duration::from_millis(50);
    let actions = house.fleet.step(house.now, Event::Tick);
    let probe = actions.into_iter().find_map(|action| match action {
        Action::Probe { address, .. } => Some(address),
        _ => None,
    });
    probe.expect("it is asked again")
}

fn taken() -> ProbeOutcome {
    ProbeOutcome::Taken("port 9000 is held by another user: 7".to_owned())
}

#[test]
fn a_port_is_nobodys_until_it_is_known_which_user_the_worker_is() {
    let mut house = asking();
    house.happen(Event::Probed(0, taken()));
    assert_eq!(asked(&mut house), held(9000, u32::MAX));
    house.happen(runs_as(Some(61)));
    house.happen(Event::Probed(1, taken()));
    assert_eq!(asked(&mut house), held(9000, 61));
    house.happen(Event::Probed(2, ProbeOutcome::Status(200)));
    let serves_at = |house: &House| match &house.fleet.published.as_ref().unwrap().routes[0].target
    {
        Target::Serving(upstream) => upstream.address.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(serves_at(&house), held(9000, 61));
    // Between two processes of it the port is still no one else's.
    house.happen(runs_as(None));
    assert_eq!(serves_at(&house), held(9000, 61));
    house.happen(runs_as(Some(62)));
    assert_eq!(serves_at(&house), held(9000, 62));
}

#[test]
fn workers_that_are_all_the_same_user_are_not_asked_who_they_are() {
    let mut house = asking();
    house.fleet.policy.own_users = false;
    house.happen(Event::Probed(0, ProbeOutcome::Broken("refused".to_owned())));
    let anybodys = Address::Tcp(([127, 0, 0, 1], 9000).into());
    assert_eq!(asked(&mut house), anybodys);
}

#[test]
fn a_worker_whose_port_is_taken_fails_with_whose_it_is_and_gets_another() {
    let mut house = asking();
    house.happen(runs_as(Some(61)));
    house.happen(Event::Probed(0, taken()));
    let died = ServiceState {
        activity: Activity::Failed,
        failure: Some(Ending::ExitCode(98)),
        ..ServiceState::default()
    };
    house.happen(Event::Unit(index(1).pair(1), died));
    house.was(&[
        "stop index@1",
        "publish no index",
        "finish 1: failed: port 9000 is held by another user: 7; its own process: exit code 98",
    ]);
    let on_port = |house: &mut House| {
        house.reload(&[]);
        let worker = &house.fleet.workers[&name("index")];
        let (_, run) = worker.runs.iter().next_back().unwrap();
        run.members[&1].address.clone()
    };
    assert_eq!(
        on_port(&mut house),
        Address::Tcp(([127, 0, 0, 1], 9001).into())
    );
    // When all have been found taken, the next try says so again.
    house.fleet.shunned.extend(9000..=9019);
    house.happen(Event::Probed(1, ProbeOutcome::Status(500)));
    assert_eq!(
        on_port(&mut house),
        Address::Tcp(([127, 0, 0, 1], 9000).into())
    );
}

/// How often it is told that a port can be reached from outside.
fn warnings(house: &mut House, event: Event) -> Vec<Vec<u64>> {
    let actions = house.fleet.step(house.now, event);
    let told = actions.into_iter().filter_map(|action| match action {
        Action::Progress { reloads, note } => note.text.contains(EXPOSED).then_some(reloads),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_port_that_can_be_reached_from_outside_is_told_once_to_whoever_reloads() {
    let mut house = asking();
    assert_eq!(warnings(&mut house, Event::Exposed(0)), [[1]]);
    assert_eq!(
        warnings(&mut house, Event::Exposed(0)),
        Vec::<Vec<u64>>::new()
    );
    house.happen(Event::Probed(0, ProbeOutcome::Status(200)));
    assert!(house.fleet.view()[0].exposed);
}

#[test]
fn a_port_to_which_systemd_lets_nobody_from_outside_is_not_told_of() {
    let mut house = asking();
    let worker = house.fleet.workers.get_mut(&name("index")).unwrap();
    let (_, run) = worker.runs.iter_mut().next_back().unwrap();
    run.spec.settings.network = Network::Loopback;
    assert!(warnings(&mut house, Event::Exposed(0)).is_empty());
}

/// A house in which `index` serves on a port.
fn serving() -> House {
    let mut house = House::new();
    house.put("index", "one");
    let on_disk = house.disk.get_mut(&name("index")).unwrap();
    on_disk.settings.listen = Listen::Port;
    house.reload(&[]);
    house.happen(is(Activity::Active, None));
    house.told.clear();
    house
}

fn is(activity: Activity, failure: Option<Ending>) -> Event {
    let state = ServiceState {
        activity,
        failure,
        ..ServiceState::default()
    };
    Event::Unit(index(1).pair(1), state)
}

/// How long requests of `index` may wait for its process.
fn waits(house: &House) -> Option<Duration> {
    match &house.fleet.published.as_ref().unwrap().routes[0].target {
        Target::Serving(upstream) => upstream.starting,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_crash_on_a_port_is_a_restart_and_its_requests_wait_until_it_responds() {
    let mut house = serving();
    assert_eq!(waits(&house), None);
    house.held.insert("probe");
    let died = Some(Ending::ExitCode(1));
    house.happen(is(Activity::Failed, died.clone()));
    house.happen(is(Activity::Restarting, died.clone()));
    assert!(waits(&house).is_some());
    house.happen(is(Activity::Active, died));
    let probe = house.fleet.next_probe - 1;
    house.happen(Event::Probed(probe, ProbeOutcome::Broken("refused".into())));
    assert!(waits(&house).is_some());
    house.wait();
    let probe = house.fleet.next_probe - 1;
    house.happen(Event::Probed(probe, ProbeOutcome::Status(200)));
    assert_eq!(waits(&house), None);
    assert_eq!(house.fleet.workers[&name("index")].runs.len(), 1);
    assert!(house.fleet.workers[&name("index")].replace.is_none());
}

#[test]
fn a_failed_process_on_a_port_that_nothing_starts_again_is_replaced() {
    let mut house = serving();
    house.happen(is(Activity::Failed, Some(Ending::ExitCode(1))));
    assert!(house.fleet.workers[&name("index")].replace.is_none());
    assert_eq!(house.wait(), Duration::from_secs(1));
    assert!(house.fleet.workers[&name("index")].replace.is_some());
}

#[test]
fn a_process_that_does_not_come_up_in_time_is_ill() {
    let mut house = serving();
    house.held.insert("probe");
    house.happen(is(Activity::Restarting, Some(Ending::ExitCode(1))));
    house.happen(is(Activity::Active, Some(Ending::ExitCode(1))));
    let probe = house.fleet.next_probe - 1;
    house.now += waits(&house).unwrap();
    house.happen(Event::Probed(probe, ProbeOutcome::TimedOut));
    assert_eq!(waits(&house), None);
    let run = &house.fleet.workers[&name("index")].runs[&index(1).generation];
    assert_eq!(run.members[&1].unhealthy, 1);
}
