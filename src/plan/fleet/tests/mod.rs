//! The main stories, each told by the actions they lead to, and the table of stages.

mod house;
mod instances;
mod ports;
mod queue;
mod written;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::instance;
use crate::config::{DocumentRoot, Limits, Listen, WorkerSettings, WorkerType};
use crate::names::{Generation, Instance};
use crate::plan::run::Stage;
use crate::plan::simulation::disk::policy;
use crate::plan::{Action, Event, Look, Reason, Ruling, Spec};
use crate::route::{Indexes, Protocol, Redirect, RoutePath, Scripts, Target};
use crate::systemd::{Activity, ServiceState};
use crate::wire::ProbeOutcome;
use house::{House, found, index, name, spec};

/// A house in which generation 1 is in `stage`, and from then on nothing that is asked for is done.
fn at(stage: Stage) -> House {
    let mut house = House::new();
    house.happen(Event::Configured(Box::new(policy(
        stage == Stage::Building,
    ))));
    let held = match stage {
        Stage::Building => "build",
        Stage::Launching => "launch",
        Stage::Activating => "probe",
        Stage::Switching => "publish",
        Stage::Accepting => "accept",
        Stage::Serving => "",
        Stage::Draining => "drained",
        Stage::Stopping => "stop",
    };
    house.held.insert(held);
    house.put("index", "one");
    house.reload(&[]);
    if stage > Stage::Serving {
        house.put("index", "two");
        house.reload(&[]);
    }
    house.held.extend([
        "build", "launch", "probe", "accept", "publish", "stop", "look",
    ]);
    assert_eq!(house.stage(), Some(stage));
    house
}

#[test]
fn each_stage_leads_where_its_table_says() {
    let refused = || Reason::Refused("no".to_owned());
    let died = Event::Unit(
        index(1).pair(1),
        ServiceState {
            activity: Activity::Failed,
            ..ServiceState::default()
        },
    );
    let gone = || Event::Looked {
        look: Look::Reload {
            id: 9,
            only: Vec::new(),
            force: false,
        },
        workers: BTreeMap::new(),
        snapshots: BTreeMap::new(),
    };
    use Stage::*;
    let table = [
        (Building, Event::Built(index(1), Ok(true)), Some(Launching)),
        (Building, Event::Built(index(1), Err(refused())), None),
        (Building, gone(), None),
        (Building, Event::StopAll, None),
        (
            Launching,
            Event::Launched(index(1), Ok(None)),
            Some(Activating),
        ),
        (
            Launching,
            Event::Launched(index(1), Err(refused())),
            Some(Stopping),
        ),
        (Launching, gone(), Some(Launching)),
        (Launching, Event::StopAll, Some(Launching)),
        (
            Activating,
            Event::Probed(0, ProbeOutcome::Status(200)),
            Some(Switching),
        ),
        (
            Activating,
            Event::Probed(0, ProbeOutcome::Status(503)),
            Some(Activating),
        ),
        (
            Activating,
            Event::Probed(0, ProbeOutcome::Status(500)),
            Some(Stopping),
        ),
        (Activating, died.clone(), Some(Stopping)),
        (
            Activating,
            Event::SocketFailed(index(1).pair(1)),
            Some(Stopping),
        ),
        (Activating, gone(), Some(Stopping)),
        (Switching, Event::Applied(9), Some(Accepting)),
        (Switching, died.clone(), Some(Draining)),
        (Switching, gone(), Some(Draining)),
        (Switching, Event::StopAll, Some(Stopping)),
        (
            Switching,
            Event::SocketFailed(index(1).pair(1)),
            Some(Stopping),
        ),
        (Accepting, Event::Accepted(index(1), Ok(())), Some(Serving)),
        (
            Accepting,
            Event::Accepted(index(1), Err(refused())),
            Some(Draining),
        ),
        (Accepting, died.clone(), Some(Draining)),
        (
            Accepting,
            Event::SocketFailed(index(1).pair(1)),
            Some(Stopping),
        ),
        (Serving, died, Some(Serving)),
        (
            Serving,
            Event::SocketFailed(index(1).pair(1)),
            Some(Serving),
        ),
        (Serving, gone(), Some(Draining)),
        (Serving, Event::StopAll, Some(Stopping)),
        (Draining, Event::Drained(index(1)), Some(Stopping)),
        (Draining, Event::StopAll, Some(Stopping)),
        (Stopping, Event::Stopped(index(1), Vec::new()), None),
    ];
    for (stage, event, next) in table {
        let mut house = at(stage);
        house.happen(event.clone());
        assert_eq!(house.stage(), next, "{stage}: {event:?}");
    }
}

#[test]
fn a_candidate_that_is_not_ready_in_time_and_a_drain_past_its_grace_are_stopped() {
    for stage in [Stage::Activating, Stage::Draining] {
        let mut house = at(stage);
        house.wait();
        assert_eq!(house.stage(), Some(Stage::Stopping), "{stage}");
    }
}

#[test]
fn what_ended_long_ago_or_never_was_is_ignored() {
    let mut house = House::serving_one();
    for instance in [index(9), instance(&name("ghost"), Generation(1))] {
        for event in [
            Event::Built(instance.clone(), Ok(true)),
            Event::Launched(instance.clone(), Ok(None)),
            Event::Unit(instance.pair(1), ServiceState::default()),
            Event::SocketFailed(instance.pair(1)),
            Event::Accepted(instance.clone(), Ok(())),
            Event::AssetsReady(instance.clone(), Ok(PathBuf::new())),
            Event::Stopped(instance.clone(), Vec::new()),
            Event::Drained(instance.clone()),
            Event::Spent(instance.clone()),
            Event::Probed(77, ProbeOutcome::TimedOut),
            Event::Applied(0),
        ] {
            house.happen(event);
        }
    }
    house.was(&[]);
    assert_eq!(house.fleet.workers.len(), 1);
}

#[test]
fn a_reload_keeps_the_old_generation_until_the_new_one_is_accepted() {
    let mut house = House::serving_one();
    house.put("index", "two");
    house.reload(&[]);
    house.was(&[
        "launch index@2",
        "publish index@2",
        "accept index@2",
        "publish index@2",
        "finish 2: replaced by 2",
        "stop index@1",
        "publish index@2",
    ]);
}

#[test]
fn a_generation_that_fails_its_check_leaves_the_old_one_serving() {
    let mut house = House::serving_one();
    house.bad.insert("two");
    house.put("index", "two");
    house.reload(&[]);
    house.was(&[
        "launch index@2",
        "stop index@2",
        "finish 2: failed: HTTP status 500 to its health request",
    ]);
    assert_eq!(house.fleet.deadline(), None, "nobody asked for another try");
}

#[test]
fn what_did_not_change_is_not_touched() {
    let mut house = House::serving_one();
    house.reload(&[]);
    house.was(&["finish 2: unchanged"]);
}

#[test]
fn two_reloads_of_the_same_join() {
    let mut house = House::serving_one();
    house.held.insert("launch");
    house.put("index", "two");
    house.reload(&[]);
    house.reload(&["index"]);
    house.was(&["launch index@2"]);
    house.happen(Event::Launched(index(2), Ok(None)));
    assert_eq!(
        house.told[3..5],
        ["finish 2: replaced by 2", "finish 3: replaced by 2"]
    );
}

#[test]
fn a_reload_of_something_else_follows() {
    let mut house = House::serving_one();
    house.held.insert("launch");
    house.put("index", "two");
    house.reload(&[]);
    house.put("index", "three");
    house.reload(&[]);
    house.held.clear();
    house.happen(Event::Launched(index(2), Ok(None)));
    assert!(house.told.contains(&"finish 2: replaced by 2".to_owned()));
    assert!(house.told.contains(&"finish 3: replaced by 3".to_owned()));
}

#[test]
fn a_third_generation_waits_until_the_first_has_drained() {
    let mut house = House::serving_one();
    house.held.insert("drained");
    house.put("index", "two");
    house.reload(&[]);
    house.put("index", "three");
    house.told.clear();
    house.reload(&[]);
    house.was(&[]);
    house.wait();
    house.was(&[
        "stop index@1",
        "launch index@3",
        "publish index@2",
        "publish index@3",
        "accept index@3",
        "publish index@3",
        "finish 3: replaced by 3",
    ]);
}

#[test]
fn a_broken_worker_is_tried_again_at_growing_intervals() {
    let mut house = House::new();
    house.bad.insert("one");
    house.put("index", "one");
    house.reload(&[]);
    let waits: Vec<u64> = (0..8).map(|_| house.wait().as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    house.bad.clear();
    house.wait();
    assert_eq!(house.fleet.view()[0].state, "sleeping");
    assert_eq!(house.fleet.deadline(), None);
}

#[test]
fn a_generation_that_has_answered_its_max_requests_is_replaced() {
    let mut house = House::new();
    house.put("index", "one");
    let spec = house.disk.get_mut(&name("index")).unwrap();
    spec.settings.limits.max_requests = 100;
    house.reload(&[]);
    house.told.clear();
    house.happen(Event::Spent(index(1)));
    assert_eq!(
        house.told[..3],
        ["launch index@2", "publish index@2", "accept index@2"]
    );
    // A proxy that says so of each generation as soon as it serves is believed less and less.
    let mut waited = Duration::ZERO;
    for _ in 0..20 {
        let newest = house.fleet.workers[&name("index")].newest;
        house.happen(Event::Spent(Instance::new(name("index"), newest)));
        if house.fleet.deadline().is_some() {
            waited += house.wait();
        }
    }
    assert!(waited > Duration::from_secs(300), "{waited:?}");
}

#[test]
fn a_worker_without_max_requests_is_never_spent() {
    let mut house = House::new();
    house.put("index", "one");
    let spec = house.disk.get_mut(&name("index")).unwrap();
    spec.settings.limits.max_requests = 0;
    house.reload(&[]);
    house.told.clear();
    house.happen(Event::Spent(index(1)));
    house.was(&[]);
}

#[test]
fn a_health_request_that_the_proxy_could_not_make_says_nothing_of_the_worker() {
    let mut house = House::new();
    house.put("index", "one");
    let spec = house.disk.get_mut(&name("index")).unwrap();
    spec.settings.health.interval = Duration::from_secs(10);
    house.not_asked.set(3);
    house.reload(&[]);
    while house.not_asked.get() > 0 {
        house.wait();
    }
    house.wait();
    assert!(
        house.told.contains(&"publish index@1".to_owned()),
        "{:?}",
        house.told
    );
    let active = house::found_pair().service;
    house.happen(Event::Unit(self::index(1).pair(1), active));
    house.told.clear();
    house.not_asked.set(10);
    while house.not_asked.get() > 0 {
        house.wait();
    }
    house.was(&[]);
}

#[test]
fn a_generation_that_fails_its_health_requests_is_replaced() {
    let mut house = House::new();
    house.put("index", "one");
    let index = house.disk.get_mut(&name("index")).unwrap();
    index.settings.health.interval = Duration::from_secs(10);
    house.reload(&[]);
    let active = house::found_pair().service;
    house.happen(Event::Unit(self::index(1).pair(1), active));
    house.told.clear();
    house.bad.insert("one");
    house.wait();
    house.was(&[]);
    house.wait();
    house.bad.clear();
    house.wait();
    assert_eq!(house.told[0], "launch index@2");
    assert!(house.told.contains(&"stop index@1".to_owned()));
}

#[test]
fn a_removed_worker_loses_its_route_and_drains() {
    let mut house = House::serving_one();
    house.disk.clear();
    house.reload(&[]);
    house.was(&["publish", "finish 2: removed", "stop index@1", "publish"]);
    assert!(house.fleet.view().is_empty());
}

#[test]
fn a_worker_removed_while_its_units_are_made_does_not_come_up() {
    let mut house = House::new();
    house.held.insert("launch");
    house.put("index", "one");
    house.reload(&[]);
    house.disk.clear();
    house.reload(&[]);
    house.told.clear();
    house.happen(Event::Launched(index(1), Ok(None)));
    house.was(&["stop index@1", "finish 1: failed: the worker was removed"]);
}

#[test]
fn a_worker_that_comes_back_does_not_begin_its_numbers_anew() {
    let mut house = House::serving_one();
    let disk = std::mem::take(&mut house.disk);
    house.reload(&[]);
    house.disk = disk;
    house.told.clear();
    house.reload(&[]);
    assert_eq!(house.told[0], "launch index@2");
}

#[test]
fn adoption_goes_on_with_a_candidate() {
    let mut house = House::adopt(vec![found(1, true), found(2, false)]);
    // Only the first table, of before, was without workers.
    house.was(&[
        "publish",
        "publish index@2",
        "accept index@2",
        "publish index@2",
    ]);
    house.wait();
    assert_eq!(house.told[0], "stop index@1");
}

#[test]
fn of_two_accepted_generations_the_older_drains() {
    let mut house = House::adopt(vec![found(1, true), found(2, true)]);
    house.was(&["publish", "publish index@2"]);
    assert_eq!(house.wait(), policy(false).grace);
    house.was(&["stop index@1", "publish index@2"]);
}

#[test]
fn what_was_not_accepted_and_does_not_listen_is_stopped() {
    let mut half_made = found(2, false);
    half_made.pairs.get_mut(&1).unwrap().listening = false;
    let mut house = House::adopt(vec![found(1, true), half_made]);
    house.was(&["publish", "stop index@2", "publish index@1"]);
}

#[test]
fn new_assets_need_no_new_process() {
    let mut house = House::serving_one();
    house.put_assets("new");
    house.reload(&[]);
    house.was(&["assets index@1", "publish index@1", "finish 2: assets"]);
    // In development the directory stays the same, and with it the table.
    house.put_assets("newer");
    house.reload(&[]);
    house.was(&["assets index@1", "finish 3: assets"]);
}

#[test]
fn assets_that_change_while_others_are_copied_come_next() {
    let mut house = House::serving_one();
    house.held.insert("assets");
    house.put_assets("new");
    house.reload(&[]);
    house.put_assets("newer");
    house.reload(&[]);
    house.was(&["assets index@1"]);
    house.happen(Event::AssetsReady(index(1), Ok(PathBuf::from("/new"))));
    house.was(&["assets index@1", "publish index@1", "finish 2: assets"]);
    house.happen(Event::AssetsReady(index(1), Ok(PathBuf::from("/newer"))));
    house.was(&["publish index@1", "finish 3: assets"]);
}

#[test]
fn the_end_waits_for_units_that_are_being_made() {
    let mut house = House::serving_one();
    house.held.insert("launch");
    house.put("index", "two");
    house.reload(&[]);
    house.told.clear();
    house.happen(Event::StopAll);
    house.was(&[
        "stop index@1",
        "publish no index",
        "finish 2: failed: the server is being stopped",
    ]);
    house.happen(Event::Launched(index(2), Ok(None)));
    house.was(&["stop index@2", "end"]);
}

#[test]
fn a_reload_without_a_proxy_is_told_so() {
    let mut house = House::serving_one();
    house.happen(Event::Unlinked);
    house.put("index", "two");
    house.reload(&[]);
    house.wait();
    house.was(&[
        "launch index@2",
        "stop index@2",
        "finish 2: failed: the proxy is not connected",
    ]);
}

#[test]
fn what_was_accepted_comes_back_as_it_was_and_is_not_started() {
    let mut house = House::new();
    house.put("index", "two");
    house.start([("index", 7, "one")]);
    house.was(&["launch index@7 again", "publish index@7"]);
    assert_eq!(house.fleet.view()[0].state, "sleeping");
    house.reload(&[]);
    assert_eq!(house.told[..2], ["launch index@8", "publish index@8"]);
}

#[test]
fn what_comes_back_is_started_where_it_is_wanted_or_could_not_be_later() {
    for set in [
        |settings: &mut WorkerSettings| settings.autostart = true,
        |settings: &mut WorkerSettings| settings.listen = Listen::Port,
    ] {
        let mut house = House::new();
        house.put("index", "one");
        set(&mut house.disk.get_mut(&name("index")).unwrap().settings);
        house.start([("index", 7, "one")]);
        house.was(&["launch index@7 again", "publish index@7", "accept index@7"]);
    }
}

#[test]
fn what_was_never_accepted_waits_for_a_reload_unless_nothing_was() {
    let mut house = House::new();
    house.put("index", "one");
    house.put("new", "one");
    house.start([("index", 7, "one")]);
    house.was(&["launch index@7 again", "publish index@7"]);
    assert_eq!(house.fleet.view()[1].state, "new");
    house.told.clear();
    house.reload(&["new"]);
    assert_eq!(house.told[0], "launch new@1");

    let mut house = House::new();
    house.put("new", "one");
    house.start([]);
    assert_eq!(house.told[0], "launch new@1");
}

#[test]
fn in_production_a_retry_takes_no_other_files() {
    let mut house = House::new();
    house.bad.insert("one");
    house.put("index", "one");
    house.reload(&[]);
    house.put("index", "two");
    house.told.clear();
    house.wait();
    house.was(&["look index"]);
    assert_eq!(house.fleet.view()[0].state, "failed");
    assert_eq!(house.fleet.deadline(), None);
}

#[test]
fn what_was_rolled_back_from_is_passed_over_until_something_else_is_there() {
    let mut house = House::serving_one();
    house.put("index", "two");
    house.reload(&[]);
    house.told.clear();
    house.roll_back("index", 1, "one");
    assert_eq!(house.told[..2], ["launch index@3", "publish index@3"]);
    house.told.clear();
    house.reload(&[]);
    house.was(&["finish 4: passed over"]);
    house.put("index", "three");
    house.reload(&[]);
    assert_eq!(house.told[0], "launch index@4");
}

#[test]
fn a_rollback_that_fails_leaves_the_present_generation_serving() {
    let mut house = House::serving_one();
    house.put("index", "two");
    house.reload(&[]);
    house.bad.insert("one");
    house.told.clear();
    house.roll_back("index", 1, "one");
    house.was(&[
        "launch index@3",
        "stop index@3",
        "finish 3: failed: HTTP status 500 to its health request",
    ]);
}

#[test]
fn a_number_that_a_stranger_has_is_not_given_out() {
    let mut house = House::new();
    house.happen(Event::Strangers(vec![index(5)]));
    house.put("index", "one");
    house.told.clear();
    house.reload(&[]);
    assert_eq!(house.told[0], "launch index@6");
}

#[test]
fn a_retry_that_outlived_its_manager_and_fails_is_followed_by_another_of_what_was_accepted() {
    let mut house = House::new();
    house.happen(Event::Adopted(vec![found(6, false)]));
    house.put("index", "two");
    house.held.insert("probe");
    house.start_beside([("index", 5, "one")]);
    house.held.clear();
    house.told.clear();
    house.happen(Event::SocketFailed(index(6).pair(1)));
    house.wait();
    assert!(
        house.told.contains(&"launch index@7".to_owned()),
        "{:?}",
        house.told
    );
    let worker = &house.fleet.workers[&name("index")];
    assert_eq!(worker.serving().unwrap().1.spec.fingerprint.program, "one");
}

#[test]
fn what_had_not_passed_its_check_is_not_kept_when_it_ends() {
    let mut house = House::serving_one();
    house.held.insert("accept");
    house.put("index", "two");
    house.reload(&[]);
    let actions = house
        .fleet
        .step(house.now, Event::SocketFailed(index(2).pair(1)));
    let kept = actions.iter().find_map(|action| match action {
        Action::Stop { accepted, .. } => Some(*accepted),
        _ => None,
    });
    assert_eq!(kept, Some(false));
    let actions = house.fleet.step(house.now, Event::StopAll);
    let kept = actions.iter().find_map(|action| match action {
        Action::Stop { accepted, .. } => Some(*accepted),
        _ => None,
    });
    assert_eq!(kept, Some(true), "of what served");
}

#[test]
fn a_rollback_that_waits_is_told_when_a_reload_overtakes_it() {
    let mut house = House::serving_one();
    house.held.insert("drained");
    house.put("index", "two");
    house.reload(&[]);
    house.roll_back("index", 1, "one");
    house.put("index", "three");
    house.told.clear();
    house.reload(&[]);
    house.was(&["finish 3: failed: overtaken by a reload"]);
}

/// A developer's house in which generation 1 serves version `one`.
fn development() -> House {
    let mut house = House::new();
    house.happen(Event::Configured(Box::new(policy(true))));
    house.put("index", "one");
    house.reload(&[]);
    house.told.clear();
    house
}

#[test]
fn what_a_toolchain_builds_and_was_not_tried_may_be_built_before_it_is_asked_for() {
    let mut house = development();
    let program = |version| {
        let mut program = spec("index", version);
        program.settings.kind = WorkerType::Rust;
        program
    };
    let would = |house: &House, spec: &Spec| house.fleet.would_build(&name("index"), spec);
    assert_eq!(would(&house, &spec("index", "two")), None);
    assert_eq!(would(&house, &program("two")), Some(index(2)));
    let mut own = program("two");
    own.settings.build = Some(vec!["make".to_owned()]);
    assert_eq!(would(&house, &own), None);
    // What is on its way comes first, and what was tried is not tried again.
    house.held.insert("build");
    house.put("index", "two");
    house.look(Look::Saved(house.now));
    assert_eq!(would(&house, &program("three")), None);
    house.happen(Event::Built(index(2), Err(Reason::Superseded)));
    assert_eq!(would(&house, &program("three")), Some(index(3)));
    house.happen(Event::StopAll);
    assert_eq!(would(&house, &program("four")), None);
}

#[test]
fn a_save_gives_up_the_build_that_is_under_way() {
    let mut house = development();
    house.held.insert("build");
    house.put("index", "two");
    house.look(Look::Saved(house.now));
    house.was(&["build index@2"]);
    house.put("index", "three");
    house.look(Look::Saved(house.now));
    house.was(&["abandon index@2", "build index@3"]);
    house.look(Look::Saved(house.now));
    house.was(&[]);
}

#[test]
fn a_save_gives_up_the_generation_that_is_not_ready_and_keeps_who_waits_for_it() {
    let mut house = development();
    house.held.insert("probe");
    house.put("index", "two");
    house.reload(&[]);
    house.was(&["build index@2", "launch index@2"]);
    house.held.remove("probe");
    house.put("index", "three");
    house.look(Look::Saved(house.now));
    house.was(&[
        "stop index@2",
        "build index@3",
        "launch index@3",
        "publish index@3",
        "accept index@3",
        "publish index@3",
        "finish 2: replaced by 3",
        "stop index@1",
        "publish index@3",
    ]);
}

#[test]
fn what_failed_is_not_tried_again_because_something_else_was_saved() {
    let mut house = development();
    house.bad.insert("bad");
    house.put("index", "bad");
    house.look(Look::Saved(house.now));
    house.was(&["build index@2", "launch index@2", "stop index@2"]);
    house.put("api", "one");
    house.look(Look::Saved(house.now));
    assert!(
        house.told.iter().all(|line| !line.contains("index@3")),
        "{:?}",
        house.told
    );
    house.told.clear();
    house.put("index", "two");
    house.look(Look::Saved(house.now));
    assert!(
        house.told.contains(&"accept index@3".to_owned()),
        "{:?}",
        house.told
    );
}

/// A site in this version, whose files are in `public/` if it has been built.
fn site(house: &mut House, version: &'static str, assets: &str) {
    house.put("docs", version);
    let site = house.disk.get_mut(&name("docs")).unwrap();
    site.settings.kind = WorkerType::Static;
    site.settings.build = Some(vec!["make".to_owned()]);
    site.settings.limits.instances = 1;
    site.fingerprint.assets = assets.to_owned();
    site.public = (!assets.is_empty()).then(|| PathBuf::from("/public"));
    house.look(Look::Saved(house.now));
}

fn public_of_docs(house: &House) -> Option<PathBuf> {
    let worker = &house.fleet.workers[&name("docs")];
    worker.route(false).unwrap().public
}

#[test]
fn a_site_is_built_and_what_the_build_makes_begins_no_other() {
    let mut house = development();
    house.held.insert("build");
    site(&mut house, "one", "");
    house.was(&["build docs@1", "publish index@1 no docs"]);
    // Where assets are, a build may remove and make what it likes.
    for assets in ["first", "", "second"] {
        site(&mut house, "one", assets);
        house.was(&[]);
    }
    house.held.clear();
    house.happen(Event::Built(
        instance(&name("docs"), Generation(1)),
        Ok(true),
    ));
    assert!(
        house.told.contains(&"accept docs@1".to_owned()),
        "{:?}",
        house.told
    );
    assert_eq!(public_of_docs(&house), Some(PathBuf::from("/public")));
    house.told.clear();
    // The last of it is seen when it serves.
    site(&mut house, "one", "third");
    assert_eq!(house.told[0], "assets docs@1");
    assert!(!house.told.iter().any(|line| line.starts_with("build")));
    house.told.clear();
    site(&mut house, "two", "third");
    assert_eq!(house.told[..2], ["build docs@2", "launch docs@2"]);
    house.told.clear();
    // Somebody has removed what it made.
    site(&mut house, "two", "");
    assert_eq!(house.told[0], "build docs@3");
}

#[test]
fn builds_of_a_site_that_follow_each_other_are_not_taken_for_restless() {
    let mut house = development();
    for round in 0..5 {
        let version = if round % 2 == 0 { "even" } else { "odd" };
        site(&mut house, version, &round.to_string());
        assert_eq!(house.told[0], format!("build docs@{}", round + 1));
        for part in 0..3 {
            site(&mut house, version, &format!("{round}.{part}"));
        }
        house.told.clear();
        house.now += Duration::from_millis(100);
    }
}

#[test]
fn a_site_whose_build_failed_is_built_again_by_a_save_of_its_sources_alone() {
    let mut house = development();
    house.held.insert("build");
    site(&mut house, "one", "");
    house.told.clear();
    let failed = Reason::Build("make".to_owned(), Vec::new());
    house.happen(Event::Built(
        instance(&name("docs"), Generation(1)),
        Err(failed),
    ));
    house.told.clear();
    site(&mut house, "one", "half");
    house.was(&[]);
    site(&mut house, "two", "half");
    assert_eq!(house.told[0], "build docs@2");
}

#[test]
fn what_was_saved_wrong_is_told_until_it_is_right_though_what_serves_is_ill_of_it() {
    let mut house = development();
    let index = house.disk.get_mut(&name("index")).unwrap();
    index.settings.health.interval = Duration::from_secs(10);
    house.reload(&[]);
    let trouble = |house: &House| {
        let work = house.fleet.workers[&name("index")].work();
        work.trouble.map(|trouble| trouble.reason)
    };
    let mut wrong = house.disk[&name("index")].clone();
    wrong.fingerprint.program = "bad".to_owned();
    house.bad.insert("bad");
    // They read the same file.
    house.bad.insert("one");
    house.disk.insert(name("index"), wrong.clone());
    house.look(Look::Saved(house.now));
    let told = trouble(&house);
    assert!(told.is_some());
    let state = ServiceState {
        activity: Activity::Active,
        ..ServiceState::default()
    };
    house.happen(Event::Unit(index_serving(&house).pair(1), state));
    for _ in 0..3 {
        house.wait();
        assert_eq!(trouble(&house), told);
    }
    house.now += Duration::from_millis(1);
    wrong.fingerprint.program = "right".to_owned();
    house.disk.insert(name("index"), wrong);
    house.look(Look::Saved(house.now));
    assert_eq!(trouble(&house), None);
}

/// The generation of `index` that serves.
fn index_serving(house: &House) -> Instance {
    let (number, _) = house.fleet.workers[&name("index")].serving().unwrap();
    instance(&name("index"), number)
}

#[test]
fn scripts_are_named_where_the_generation_has_its_files() {
    let serves_from = |snapshots: Option<&str>, root: &str| {
        let mut served = found(7, true);
        served.spec.settings.document_root = Some(DocumentRoot::Public);
        let mut house = House::new();
        let mut policy = policy(false);
        policy.snapshots = snapshots.map(PathBuf::from);
        house
            .fleet
            .step(house.now, Event::Configured(Box::new(policy)));
        house.fleet.step(house.now, Event::Adopted(vec![served]));
        let run = &house.fleet.workers[&name("index")].runs[&Generation(7)];
        let scripts = Scripts {
            root: root.into(),
            front_controller: "index.php".to_owned(),
            indexes: snapshots.map(|_| Indexes::default()),
            route: RoutePath::root(),
        };
        assert_eq!(run.protocol, Protocol::FastCgi(scripts));
    };
    let directory = found(7, true).spec.directory.join("public");
    serves_from(None, &directory.display().to_string());
    serves_from(Some("/snapshots"), "/snapshots/index/7/public");
}

#[test]
fn a_worker_without_its_prefix_is_asked_at_its_root() {
    let sees = |strip_prefix: bool, health: Option<&str>| {
        let mut served = found(7, true);
        let settings = &mut served.spec.settings;
        settings.document_root = Some(DocumentRoot::Public);
        settings.route = RoutePath::parse("/api").unwrap();
        settings.on_route.strip_prefix = strip_prefix;
        settings.health.path = health.map(str::to_owned);
        let mut house = House::new();
        house.fleet.step(house.now, Event::Adopted(vec![served]));
        let run = &house.fleet.workers[&name("index")].runs[&Generation(7)];
        let Protocol::FastCgi(scripts) = &run.protocol else {
            panic!("{:?}", run.protocol);
        };
        (run.health_path(), scripts.route.to_string())
    };
    assert_eq!(sees(false, None), ("/api".to_owned(), "/api".to_owned()));
    assert_eq!(sees(true, None), ("/".to_owned(), "/".to_owned()));
    assert_eq!(sees(true, Some("/up")), ("/up".to_owned(), "/".to_owned()));
}

#[test]
fn nothing_is_accepted_before_the_proxy_serves_by_a_table_with_it() {
    let mut house = House::serving_one();
    house.held.insert("publish");
    house.put("index", "two");
    house.reload(&[]);
    house.was(&["launch index@2", "publish index@2"]);
    house.wait();
    house.was(&["finish 2: failed: the proxy is not connected"]);
    house.happen(Event::Applied(9));
    house.was(&["accept index@2", "publish index@2"]);
}

#[test]
fn one_that_can_not_be_accepted_ends_its_requests_while_the_old_one_has_the_others() {
    let mut house = House::serving_one();
    house.held.extend(["accept", "drained"]);
    house.put("index", "two");
    house.reload(&[]);
    house.was(&["launch index@2", "publish index@2", "accept index@2"]);
    let full = Reason::Refused("disk full".to_owned());
    house.happen(Event::Accepted(index(2), Err(full)));
    house.was(&["publish index@1"]);
    house.happen(Event::Drained(index(2)));
    house.was(&[
        "stop index@2",
        "publish index@1",
        "finish 2: failed: disk full",
    ]);
}

/// `index` with redirects that have about this many bytes.
fn redirecting(house: &mut House, worker: &str, version: &'static str, bytes: usize) {
    house.put(worker, version);
    let spec = house.disk.get_mut(&name(worker)).unwrap();
    let from = format!("/{}", "x".repeat(1000));
    let redirect = Redirect::new(&from, "/", 308).unwrap();
    spec.settings.on_route.redirects = vec![redirect; bytes / 1000];
}

#[test]
fn a_worker_whose_part_of_the_table_is_too_large_fails_alone() {
    let mut house = House::serving_one();
    redirecting(&mut house, "index", "two", 200_000);
    house.put("other", "one");
    house.reload(&[]);
    let failed = house.told.iter().find(|line| line.starts_with("finish"));
    let failed = failed.expect("an end");
    assert!(failed.contains("may have 131072"), "{failed}");
    assert!(failed.contains("replaced by 1"), "{failed}");
    assert!(house.told.contains(&"publish index@1 other@1".to_owned()));
}

#[test]
fn what_was_accepted_and_is_too_large_by_now_keeps_no_other_from_coming_back() {
    let mut house = House::new();
    redirecting(&mut house, "index", "one", 200_000);
    house.put("other", "one");
    house.start([("index", 7, "one"), ("other", 3, "one")]);
    assert!(
        house.told.contains(&"publish no index other@3".to_owned()),
        "{:?}",
        house.told
    );
}

#[test]
fn no_number_of_large_parts_makes_a_table_that_can_not_be_sent() {
    let mut house = House::new();
    house.put("victim", "one");
    house.reload(&[]);
    for number in 0..60 {
        redirecting(&mut house, &format!("w{number}"), "one", 110_000);
    }
    house.told.clear();
    house.reload(&[]);
    let failed = house.told.iter().find(|line| line.starts_with("finish"));
    let failed = failed.expect("an end").matches("that all share").count();
    assert!((20..40).contains(&failed), "{failed} were refused");
    house.put("victim", "two");
    house.reload(&["victim"]);
    let said = "finish 3: replaced by 2".to_owned();
    assert!(house.told.contains(&said), "{:?}", house.told.last());
    let table = house.fleet.table_as_sent();
    assert!(table < crate::wire::FRAME_MAX, "{table}");
}

#[test]
fn a_first_generation_is_waited_for_until_it_has_failed() {
    let is_awaited = |house: &House| {
        let route = house.fleet.workers[&name("index")].route(false);
        let target = route.expect("it was tried").target;
        matches!(
            target,
            Target::Unavailable {
                awaited: Some(_),
                retry_after: Some(_),
                ..
            }
        )
    };
    // One that is about to be accepted gets the requests.
    for stage in [Stage::Building, Stage::Launching, Stage::Activating] {
        assert!(is_awaited(&at(stage)), "{stage}");
    }
    let mut house = House::new();
    house.bad.insert("one");
    house.put("index", "one");
    house.reload(&[]);
    assert!(!is_awaited(&house), "it has failed");
    house.held.insert("probe");
    house.wait();
    assert_eq!(house.fleet.view()[0].state, "starting");
    assert!(!is_awaited(&house), "it may fail again");
    // What is deployed in its place may be better.
    let mut house = House::new();
    house.bad.insert("one");
    house.put("index", "one");
    house.reload(&[]);
    house.held.insert("probe");
    house.put("index", "two");
    house.reload(&[]);
    assert!(is_awaited(&house));
}

#[test]
fn what_runs_is_limited_anew_and_loses_a_route_that_is_not_allowed_any_more() {
    let mut house = House::serving_one();
    let spec = house.disk[&name("index")].clone();
    let limits = Limits {
        tasks_max: Some(50),
        ..spec.settings.limits.clone()
    };
    let place = (
        spec.settings.route,
        spec.settings.on_route.hosts,
        "why".to_owned(),
    );
    let ruling = Ruling {
        reloads: Vec::new(),
        limits: vec![(index(1), limits, Vec::new())],
        forbidden: BTreeMap::from([(name("index"), vec![place])]),
    };
    house.happen(Event::Ruled(Box::new(ruling)));
    house.was(&["limit index@1 50", "publish"]);
    assert_eq!(house.fleet.view()[0].state, "forbidden");
    house.happen(Event::Ruled(Box::default()));
    house.was(&["publish index@1"]);
}
