//! A worker's limits hold, and reaching them hurts nobody else.

use std::fs;

use crate::house::traces::cgroup_of;
use crate::house::worker::says;
use crate::house::{House, until};

/// Numbers in the first of these files of a cgroup that exists; v1 and v2 name them differently.
fn numbers(house: &House, controller: &str, files: &[&str]) -> Vec<String> {
    let cgroup = cgroup_of(house.pid("index"), controller);
    let texts = files
        .iter()
        .filter_map(|file| fs::read_to_string(cgroup.join(file)).ok());
    let numbers: Vec<String> = texts
        .flat_map(|text| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(
        !numbers.is_empty(),
        "none of {files:?} is in {}",
        cgroup.display()
    );
    numbers
}

/// Whether the server has said that it can not limit this here.
fn is_warned_of(house: &House, controller: &str) -> bool {
    let said = house.server().all_it_said();
    let warnings = said
        .iter()
        .find(|line| line.contains("limits are not enforced here"));
    warnings.is_some_and(|line| line.contains(controller))
}

#[test]
fn the_cgroup_holds_the_limits_of_the_configuration() {
    let worker = says("one").config("gomaxprocs: 2\ngomemlimit: 64MiB\ntasks_max: 40");
    let house = House::new().worker("index", worker).open();
    if !is_warned_of(&house, "cpu") {
        let cpu = numbers(
            &house,
            "cpu",
            &["cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"],
        );
        let cpu: Vec<u64> = cpu
            .iter()
            .map(|number| number.parse().expect("a quota"))
            .collect();
        assert_eq!(cpu[0], 2 * cpu[1], "two cores");
    }
    if !is_warned_of(&house, "memory") {
        assert_eq!(
            numbers(&house, "memory", &["memory.max", "memory.limit_in_bytes"]),
            ["67108864"]
        );
    }
    if !is_warned_of(&house, "pids") {
        assert_eq!(numbers(&house, "pids", &["pids.max"]), ["40"]);
    }
    let environment = house.get("/env").json();
    assert_eq!(
        (&environment["GOMAXPROCS"], &environment["GOMEMLIMIT"]),
        (&"2".into(), &"60397974B".into())
    );
}

#[test]
fn a_new_limit_is_a_new_generation_and_a_cap_is_kept() {
    let house = House::new()
        .worker("index", says("one").config("tasks_max: 40"))
        .workers_section("    max: {tasks_max: 50}\n")
        .open();
    house.replace("index", says("one").config("tasks_max: 50"));
    house.reload().succeeds().says("generation 2 serves");
    house.replace("index", says("one").config("tasks_max: 60"));
    house
        .reload()
        .fails_with("index: failed: ")
        .says("tasks_max");
    if !is_warned_of(&house, "pids") {
        assert_eq!(numbers(&house, "pids", &["pids.max"]), ["50"]);
    }
    house.units("index").are(["generation 2 serving"]);
}

#[test]
fn a_worker_past_its_memory_is_killed_and_comes_back_and_its_neighbour_does_not_notice() {
    let house = House::new()
        .worker("index", says("one").config("gomemlimit: 64MiB"))
        .worker("api", says("api"))
        .open();
    if is_warned_of(&house, "memory") {
        return house.get("/").is("one");
    }
    let neighbour = house.load("/api", 4);
    let pid = house.pid("index");
    assert_ne!(house.get("/allocate?mib=200").status, 200);
    house.get("/").is("one");
    assert_ne!(house.pid("index"), pid);
    until("status names the reason", || {
        let failure = house.status("index").last_failure;
        failure.contains("oom-kill") || failure.contains("signal 9")
    });
    neighbour.stop().only(&["api"]);
}
