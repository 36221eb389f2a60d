//! Workers that crash, hang, or wear out: they come back, and the others do not notice.

use rustix::process::Signal;

use crate::house::process::kill;
use crate::house::worker::{behaves, says};
use crate::house::{House, until};

#[test]
fn a_worker_that_crashes_is_started_again_for_the_next_request() {
    let house = House::new()
        .worker("index", says("one").and("log here I am"))
        .open();
    let pid = house.pid("index");
    house.get("/exit?code=3").has_status(502);
    house.get("/").is("one");
    let status = house.status("index");
    assert_ne!(house.pid("index"), pid);
    assert!(status.last_failure.contains("exit code 3"), "{status:?}");
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn a_worker_on_a_port_that_crashes_is_waited_for() {
    let slow = says("one").and("start_delay_ms 2500");
    let house = House::new()
        .worker("index", slow.config("listen: port"))
        .open();
    house.get("/exit?code=3").has_status(502);
    house.get("/").is("one");
    let status = house.status("index");
    assert!(status.last_failure.contains("exit code 3"), "{status:?}");
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn a_start_may_take_longer_than_a_response() {
    let config = "read_timeout_seconds: 1\nhealth: {start_timeout_seconds: 20}";
    let slow = says("one").and("start_delay_ms 2500").config(config);
    let house = House::new().worker("index", slow).open();
    house.get("/slow?ms=3000").has_status(504);
    house.get("/exit?code=3").has_status(502);
    house.get("/").is("one");
    house.get("/slow?ms=3000").has_status(504);
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn a_worker_that_can_not_start_is_tried_again_and_comes_back_when_it_is_mended() {
    let house = House::new()
        .worker("index", behaves("exit 1").and("log no licence"))
        .worker("api", says("api"))
        .open();
    house.get("/api").is("api");
    house.get("/").has_status(503).holds("exit code 1");
    let status = house.status("index");
    assert!(
        status.state == "failed" && status.retry_in > 0,
        "{status:?}"
    );
    house.replace("index", says("mended"));
    until("it serves without a reload", || {
        house.get("/").text() == "mended"
    });
    assert_eq!(house.status("index").state, "serving");
}

#[test]
fn a_worker_that_crashes_again_and_again_is_unavailable_with_a_reason_and_comes_back() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("api"))
        .open();
    let neighbour = house.load("/api", 4);
    // systemd tries five times in ten seconds.
    let mut answers = Vec::new();
    // A request may come between the end of its socket and the table that says so.
    until("clients are told that it ends again and again", || {
        let answer = house.get("/exit?code=4");
        answers.push((answer.status, answer.text()));
        let (status, reason) = &answers[answers.len() - 1];
        *status == 503 && reason.contains("again and again: exit code 4")
    });
    until("it is back", || house.get("/").status == 200);
    house.get("/").is("one");
    house.units("index").are(["generation 2 serving"]);
    neighbour.stop().only(&["api"]);
}

#[test]
fn a_worker_that_hangs_fails_its_health_requests_and_is_replaced() {
    let health = "health: {interval_seconds: 1, timeout_seconds: 1, failures: 2}";
    let house = House::new()
        .worker("index", says("one").config(health))
        .open();
    let pid = house.pid("index");
    kill(pid, Signal::STOP);
    house.server_says("took over from generation 1");
    // A request that got into the one that hangs is lost with it.
    until("it serves", || house.get("/").status == 200);
    house.get("/").is("one");
    assert!(house.pid("index") != pid);
    house.units("index").are(["generation 2 serving"]);
}

#[test]
fn a_worker_that_has_answered_its_max_requests_is_replaced_without_losing_one() {
    let house = House::new()
        .worker("index", says("one").config("max_requests: 100"))
        .open();
    let load = house.load("/", 8);
    until("it was replaced three times", || {
        house
            .status("index")
            .generations
            .iter()
            .any(|run| run.generation > 3)
    });
    load.stop().only(&["one"]);
    until("one generation is left", || {
        house.units("index").found().len() == 1
    });
}

#[test]
fn a_broken_worker_delays_no_start() {
    let slow = "health: {start_timeout_seconds: 3}";
    let house = House::new()
        .worker("index", behaves("never_ready").config(slow))
        .worker("api", says("api"));
    let house = house
        .worker("none", says("none").config("command: [bin/missing]"))
        .worker("bad", says("bad").config("port: 80"));
    let house = house.open();
    house.get("/api").is("api");
    house
        .get("/")
        .has_status(503)
        .holds("did not become ready within 3 s");
    house.get("/none").has_status(503).holds("bin/missing");
    house
        .get("/bad")
        .has_status(503)
        .holds("is not a key of worker.yaml");
}

#[test]
fn a_broken_worker_delays_no_shutdown() {
    let mut house = House::new().worker(
        "index",
        behaves("never_ready")
            .and("ignore_term")
            .config("health: {start_timeout_seconds: 60}"),
    );
    house = house
        .worker("api", says("api"))
        .workers_section("    shutdown_grace_period_ms: 500\n")
        .open_until_it_says("generation 1 of 'api' serves");
    let began = std::time::Instant::now();
    house.close(Signal::TERM);
    let took = began.elapsed();
    assert!(took.as_secs() < 10, "it took {took:?}");
}
