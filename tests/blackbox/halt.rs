//! Pauses and maintenance: what an operator puts between a worker and its clients.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::house::process::kill;
use crate::house::worker::says;
use crate::house::{House, until};

const PROXY: &str = "tqserver-proxy.service";

#[test]
fn a_request_to_a_paused_worker_waits_for_its_end_and_goes_to_what_serves_then() {
    let house = House::new().worker("index", says("one")).open();
    let paused = house.run(["pause", "index", "--max", "10min"]);
    paused.succeeds().says("index: paused for at most 10 min");
    let mut client = house.client();
    client.send("/").expect("send a request");
    let status = house.status("index");
    assert!(status.paused_for > 500, "{status:?}");
    house.run(["status"]).succeeds().says("paused");
    house.replace("index", says("two"));
    house.reload().succeeds().says("generation 2 serves");
    let resumed = house.run(["resume", "index"]);
    resumed.succeeds().says("index: its requests go on");
    // It was sent before the reload, and would have been answered by the first generation.
    client.receive().expect("an answer").is("two");
    assert_eq!(house.status("index").paused_for, 0);
    let again = house.run(["resume", "index"]);
    again.succeeds().says("index: it was not paused");
}

#[test]
fn a_pause_is_there_when_nothing_is_in_flight_any_more() {
    let house = House::new().worker("index", says("one")).open();
    let mut client = house.client();
    client.send("/slow?ms=1500").expect("send a request");
    until("it is in flight", || {
        house.status("index").generations[0].in_flight == 1
    });
    house
        .run(["pause", "index", "--wait", "0", "--max", "10min"])
        .exits(1)
        .fails_with("1 of its requests are still in flight");
    house.run(["pause", "index", "--max", "10min"]).succeeds();
    let status = house.status("index");
    assert_eq!(status.generations[0].in_flight, 0, "{status:?}");
    client.receive().expect("an answer").is("slow");
    house.run(["resume", "index"]).succeeds();
    house.get("/").is("one");
}

#[test]
fn a_pause_outlives_its_manager_and_is_not_prolonged_by_it() {
    let house = House::new().worker("index", says("one")).planes().open();
    let max = Duration::from_secs(6);
    let began = Instant::now();
    house.run(["pause", "index", "--max", "6s"]).succeeds();
    let mut client = house.client();
    client.send("/").expect("send a request");
    let pid = house.manager_pid();
    kill(pid, Signal::KILL);
    house.manager_is_back(pid);
    let left = Duration::from_secs(house.status("index").paused_for.saturating_sub(1));
    assert!(left + began.elapsed() <= max + Duration::from_secs(1));
    client.receive().expect("an answer").is("one");
    assert!(began.elapsed() >= max, "after {:?}", began.elapsed());
    until("the manager knows that it is over", || {
        house.status("index").paused_for == 0
    });
}

#[test]
fn a_pause_ends_by_itself_although_no_manager_is_there() {
    let house = House::new().worker("index", says("one")).planes().open();
    let began = Instant::now();
    house.run(["pause", "index", "--max", "2s"]).succeeds();
    let pid = house.manager_pid();
    kill(pid, Signal::STOP);
    house.get("/").is("one");
    assert!(began.elapsed() >= Duration::from_secs(2));
    kill(pid, Signal::CONT);
}

#[test]
fn maintenance_outlives_manager_and_proxy() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("api"))
        .planes()
        .open();
    house
        .run(["maintenance", "index", "--message", "Back at noon."])
        .succeeds();
    let told = || {
        let answer = house.get("/");
        answer.has_status(503).holds("Back at noon.");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    };
    told();
    house.get("/api").is("api");
    house.run(["status"]).succeeds().says("maintenance");
    let pid = house.manager_pid();
    kill(pid, Signal::KILL);
    house.manager_is_back(pid);
    assert_eq!(house.status("index").maintenance, "Back at noon.");
    told();
    house.systemctl(["restart", PROXY]).succeeds();
    told();
    house.run(["maintenance", "index", "--off"]).succeeds();
    house.get("/").is("one");
}

#[test]
fn what_can_not_be_halted_is_told() {
    let house = House::new().worker("index", says("one")).open();
    for verb in ["pause", "resume", "maintenance"] {
        house
            .run([verb, "nobody"])
            .exits(64)
            .says("there is no worker 'nobody'; there are: index");
    }
    house
        .run(["pause", "index", "--max", "2h"])
        .exits(64)
        .says("a pause lasts from 1s to 1h");
    house.get("/").is("one");
}
