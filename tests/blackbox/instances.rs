//! A worker of several instances.

use std::collections::BTreeSet;

use rustix::process::Signal;

use tqserver::manager::status::InstanceStatus;

use crate::house::http::Client;
use crate::house::process::{gone, kill};
use crate::house::worker::{Worker, says};
use crate::house::{House, until};

fn three(text: &str) -> Worker {
    says(text).config("instances: 3\nsticky: true")
}

/// The instances that answer, by what each was told of itself.
fn who_answers(house: &House, requests: usize) -> BTreeSet<String> {
    let mut client = house.client();
    let number = |_| {
        let answer = client.get("/env").expect("an answer").json();
        let number = answer["WORKER_INSTANCE"].as_str();
        number.expect("a number").to_owned()
    };
    (0..requests).map(number).collect()
}

fn loaded(house: &House, generation: u64) -> Vec<String> {
    let name = |number| format!("tqserver-index@{generation}{number}.service");
    assert_eq!(house.status("index").generations[0].instances.len(), 3);
    let mut units = house.loaded("tqserver-index@*.service");
    units.sort();
    assert_eq!(units, [".2", ".3", ""].map(name));
    units
}

#[test]
fn each_of_three_instances_answers_and_a_reload_replaces_all_without_losing_a_request() {
    let house = House::new().worker("index", three("1")).open();
    let answer = house.get("/");
    answer.is("1");
    let cookie = answer.header("set-cookie").expect("a cookie");
    assert!(cookie.starts_with("tqserver_index="), "{cookie}");
    let all = BTreeSet::from(["1", "2", "3"].map(str::to_owned));
    assert_eq!(who_answers(&house, 12), all);
    loaded(&house, 1);
    house.run(["status"]).succeeds().says("1 x3");
    house
        .run(["status", "index"])
        .succeeds()
        .says("tqserver-index@1.2.service running");
    let load = house.load("/", 6);
    for version in 2..5 {
        load.reaches(20);
        house.replace("index", three(&version.to_string()));
        house.reload().succeeds();
    }
    load.reaches(20);
    load.stop().only(&["1", "2", "3", "4"]);
    until("all pairs of the old generations are gone", || {
        house.loaded("tqserver-index@*.service").len() == 3
    });
    loaded(&house, 4);
    assert_eq!(who_answers(&house, 12), all);
}

#[test]
fn one_instance_that_never_becomes_ready_fails_the_reload() {
    let house = House::new().worker("index", three("one")).open();
    let start = "test $WORKER_INSTANCE = 2 && exec sleep 1000\nexec bin/index\n";
    let config = "instances: 3\ncommand: [sh, start]\nhealth: {start_timeout_seconds: 3}";
    house.replace("index", says("two").file("start", start).config(config));
    house
        .reload()
        .fails_with("index: failed: ")
        .says("instance 2: timeout: it did not become ready");
    house.get("/").is("one");
    loaded(&house, 1);
}

#[test]
fn a_manager_that_comes_back_adopts_all_instances() {
    let house = House::new().planes().worker("index", three("one")).open();
    house.get("/").is("one");
    let before = house.status("index").generations[0].instances.clone();
    let pid = house.manager_pid();
    kill(pid, Signal::KILL);
    house.manager_is_back(pid);
    let after = house.status("index").generations[0].instances.clone();
    let pids = |all: &[InstanceStatus]| -> Vec<(String, u32)> {
        all.iter().map(|one| (one.unit.clone(), one.pid)).collect()
    };
    assert_eq!(pids(&before), pids(&after));
    house.replace("index", three("two"));
    house.reload().succeeds();
    house.get("/").is("two");
    until("the old generation is gone", || {
        house.loaded("tqserver-index@*.service").len() == 3
    });
}

#[test]
fn what_one_instance_on_a_port_can_not_take_another_does() {
    let two = says("two").config("listen: port\ninstances: 2");
    let house = House::new().worker("index", two).open();
    let all = BTreeSet::from(["1", "2"].map(str::to_owned));
    assert_eq!(who_answers(&house, 8), all);
    let instances = house.status("index").generations[0].instances.clone();
    kill(instances[1].pid, Signal::KILL);
    let mut client = house.client();
    for _ in 0..30 {
        client
            .get("/")
            .expect("an answer")
            .has_status(200)
            .is("two");
    }
    until("both answer", || who_answers(&house, 8) == all);
}

#[test]
fn all_instances_come_back_from_a_snapshot_and_by_a_rollback() {
    let house = House::new()
        .worker("index", three("one"))
        .production()
        .planes()
        .open();
    house.replace("index", three("two"));
    house.reload().succeeds();
    let pid = house.pid("index");
    house.systemctl(["stop", "tqserver.service"]).succeeds();
    gone(pid);
    house.systemctl(["start", "tqserver.service"]).succeeds();
    house
        .systemctl(["start", "tqserver-proxy.service"])
        .succeeds();
    until("it is back", || {
        house
            .try_status()
            .is_some_and(|all| all.iter().any(|worker| worker.state == "sleeping"))
    });
    let status = house.property("tqserver-proxy.service", "StatusText");
    let address = status.strip_prefix("listens on ");
    let address = address.and_then(|text| text.parse().ok());
    let mut client = Client::new(address.expect("an address"));
    let mut answer = |path| client.get(path).expect("an answer");
    answer("/").is("two");
    // The first requests have woken them all.
    let woken: BTreeSet<String> = (0..12).map(|_| answer("/pid").text()).collect();
    assert_eq!(woken.len(), 3);
    loaded(&house, 2);
    house.run(["rollback", "index"]).succeeds();
    answer("/").is("one");
    let units = || house.loaded("tqserver-index@3*.service").len();
    assert_eq!(units(), 3);
}
