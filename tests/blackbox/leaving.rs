//! However it ends, `tqserver dev` leaves nothing behind.

use rustix::process::Signal;

use crate::house::House;
use crate::house::process::is_alive;
use crate::house::traces::{Traces, mounts};
use crate::house::worker::{only_files, says};

/// A house with a worker that has forked, and what there is of it.
fn house() -> (House, Traces, u32) {
    let mounts = mounts();
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("api").and("ignore_term"))
        .worker("docs", only_files().file("public/a", "a"));
    let house = house
        .workers_section("    shutdown_grace_period_ms: 500\n")
        .open();
    let child = house.get("/fork").text().parse().expect("a process");
    let traces = house.traces(mounts);
    (house, traces, child)
}

#[test]
fn ctrl_c_leaves_nothing() {
    let (mut house, traces, child) = house();
    assert_eq!(house.close(Signal::INT), Some(0));
    traces.are_gone_already();
    assert!(!is_alive(child), "a worker's child is left");
}

#[test]
fn sigterm_leaves_nothing() {
    let (mut house, traces, child) = house();
    assert_eq!(house.close(Signal::TERM), Some(0));
    traces.are_gone_already();
    assert!(!is_alive(child), "a worker's child is left");
}

#[test]
fn kill_9_leaves_nothing() {
    let (mut house, traces, child) = house();
    assert_eq!(house.close(Signal::KILL), None);
    traces.are_gone();
    crate::house::process::gone(child);
    // And the next one starts as if nothing had been.
    let house = house.open();
    house.get("/").is("one");
}

#[test]
fn the_death_of_the_private_systemd_ends_the_server() {
    let (mut house, traces, _) = house();
    let systemd = traces.systemd();
    crate::house::process::kill(systemd, Signal::KILL);
    let code = house.ends();
    assert!(code.is_some_and(|code| code != 0), "exit code {code:?}");
    traces.are_gone();
}

#[test]
fn a_second_server_for_one_configuration_is_refused() {
    let house = House::new().worker("index", says("one")).open();
    let ran = house.does_not_open();
    ran.exits(69)
        .says("TQServer runs already for this configuration");
    house.get("/").is("one");
    house.reload().succeeds();
}

#[test]
fn servers_for_different_configurations_do_not_see_each_other() {
    let one = House::new().worker("index", says("one")).open();
    let two = House::new().worker("index", says("two")).open();
    one.get("/").is("one");
    two.get("/").is("two");
    two.replace("index", says("three"));
    one.reload().succeeds().says("index: unchanged");
    two.reload().succeeds().says("generation 2 serves");
    drop(two);
    one.get("/").is("one");
    one.units("index").are(["generation 1 serving"]);
}
