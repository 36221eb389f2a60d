//! Reloads: what was accepted serves, what was not does not, and nobody who asks for a page notices either.

use crate::house::worker::{Worker, behaves, never_ready, says};
use crate::house::{House, count, until};

/// How many reloads the long test does; a soak test sets more.
fn reloads() -> usize {
    count("TQ_RELOADS", 10)
}

#[test]
fn a_failed_reload_leaves_the_old_generation_serving() {
    let house = House::new().worker("index", says("one")).open();
    house.replace("index", never_ready());
    house.reload().fails_with("did not become ready");
    house.get("/").is("one");
    house.units("index").are(["generation 1 serving"]);
    house.replace("index", says("two"));
    house.reload().succeeds();
    house.get("/").is("two");
    house.units("index").are(["generation 3 serving"]);
}

/// A reload to this version fails, names the worker and says this.
#[track_caller]
fn fails(version: Worker, reason: &str, log: &str) {
    let house = House::new().worker("index", says("one")).open();
    house.replace("index", version);
    house
        .reload()
        .fails_with("index: failed: ")
        .says(reason)
        .says(log);
    house.get("/").is("one");
    let status = house.status("index");
    assert!(status.last_failure.contains(reason), "{status:?}");
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn a_failed_reload_tells_the_exit_code_and_the_last_lines_of_the_log() {
    fails(
        behaves("exit 3").and("log the database is not there"),
        "exit code 3",
        "    the database is not there",
    );
}

#[test]
fn a_failed_reload_tells_the_signal() {
    fails(
        behaves("crash_signal 11").and("log about to fall"),
        "signal 11 (SEGV)",
        "    about to fall",
    );
}

#[test]
fn a_failed_reload_tells_of_the_time_that_was_over() {
    fails(
        never_ready().and("log I am thinking"),
        "did not become ready within 1 s",
        "    I am thinking",
    );
}

#[test]
fn a_failed_reload_tells_the_http_status() {
    fails(
        behaves("status 500").and("log no table 'users'"),
        "HTTP status 500",
        "    no table 'users'",
    );
}

#[test]
fn a_worker_that_says_503_while_it_starts_is_asked_again_until_its_time_is_over() {
    let busy = behaves("status 503").config("health: {start_timeout_seconds: 1}");
    fails(
        busy.and("log filling the cache"),
        "HTTP status 503",
        "filling the cache",
    );
}

#[test]
fn a_worker_that_takes_its_time_to_start_is_waited_for() {
    let house = House::new().worker("index", says("one")).open();
    house.replace("index", says("two").and("start_delay_ms 700"));
    let ran = house.reload();
    ran.succeeds();
    assert!(ran.took.as_millis() >= 700, "{ran}");
    house.get("/").is("two");
}

#[test]
fn a_program_that_can_not_be_executed_fails_its_reload() {
    let house = House::new().worker("index", says("one")).open();
    house.replace(
        "index",
        says("two").config("type: exec\ncommand: [bin/none]"),
    );
    house
        .reload()
        .fails_with("index: failed: ")
        .says("bin/none");
    house.get("/").is("one");
    house.replace(
        "index",
        says("two")
            .config("type: exec\ncommand: [./text]")
            .file("text", "no program"),
    );
    house.reload().fails_with("index: failed: ").says("text");
    house.get("/").is("one");
}

#[test]
fn a_wrong_server_yaml_changes_nothing_and_is_shown() {
    let house = House::new().worker("index", says("one")).open();
    let (address, pid) = (house.address(), house.pid("index"));
    house.replace("index", says("two"));
    house.write_server_yaml("server: {address: 127.0.0.1, prot: 1}\n");
    let ran = house.reload();
    ran.exits(78)
        .says("server.yaml:1:30")
        .says("did you mean 'port'?")
        .says("nothing was reloaded");
    assert_eq!((house.address(), house.pid("index")), (address, pid));
    house.get("/").is("one");
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn a_wrong_worker_yaml_fails_that_worker_alone() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("old"))
        .open();
    house.replace("index", says("two").config("user: root"));
    house.replace("api", says("new"));
    house
        .reload()
        .fails_with("index: failed: ")
        .says("a worker can not set 'user'")
        .says("api: generation 2 serves");
    house.get("/").is("one");
    house.get("/api").is("new");
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn nothing_unchanged_is_touched() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("old"))
        .open();
    let pid = house.pid("index");
    house.replace("api", says("new"));
    house.reload().succeeds().says("index: unchanged");
    assert_eq!(house.pid("index"), pid);
    house.units("index").are(["generation 1 serving"]);
    house.units("api").are(["generation 2 serving"]);
}

#[test]
fn requests_in_flight_end_in_the_generation_they_began_in() {
    let house = House::new().worker("index", says("one")).open();
    let mut client = house.client();
    client.send("/slow?ms=1500").expect("send a request");
    until("the request is in flight", || {
        house.status("index").generations[0].in_flight == 1
    });
    house.replace("index", says("two"));
    house.reload().succeeds();
    house.get("/").is("two");
    house
        .units("index")
        .are(["generation 2 serving", "generation 1 draining"]);
    client
        .receive()
        .expect("the old generation's answer")
        .is("slow");
    client.get("/").expect("the same connection").is("two");
    house.units("index").are(["generation 2 serving"]);
}

#[test]
fn a_generation_is_stopped_when_its_grace_is_over() {
    let house = House::new()
        .worker("index", says("one").and("ignore_term"))
        .workers_section("    shutdown_grace_period_ms: 1000\n")
        .open();
    let mut client = house.client();
    client.send("/slow?ms=60000").expect("send a request");
    until("the request is in flight", || {
        house.status("index").generations[0].in_flight == 1
    });
    let pid = house.pid("index");
    house.replace("index", says("two"));
    house.reload().succeeds();
    crate::house::process::gone(pid);
    house.units("index").are(["generation 2 serving"]);
    house.get("/").is("two");
}

#[test]
fn a_worker_has_at_most_two_live_generations() {
    let house = House::new().worker("index", says("1")).open();
    let mut held = Vec::new();
    for version in 2..=4 {
        let mut client = house.client();
        client.send("/slow?ms=1200").expect("send a request");
        until("the request is in flight", || {
            house
                .status("index")
                .generations
                .iter()
                .any(|run| run.stage == "serving" && run.in_flight > 0)
        });
        held.push(client);
        house.replace("index", says(&version.to_string()));
        let mut reload = house.begin_reload([]);
        while !reload.has_ended() {
            let mut runs = house.units("index").found();
            // What is being stopped has no requests any more.
            runs.retain(|run| !run.ends_with(" stopping"));
            assert!(runs.len() <= 2, "{runs:?}");
        }
        reload.ends().succeeds();
        house.get("/").is(&version.to_string());
    }
    for mut client in held {
        client
            .receive()
            .expect("an answer of its own generation")
            .is("slow");
    }
    house.units("index").are(["generation 4 serving"]);
}

#[test]
fn reloads_at_the_same_time_do_not_disturb_each_other() {
    let house = House::new()
        .worker("index", says("1"))
        .worker("api", says("1"))
        .open();
    house.replace("index", says("2"));
    house.replace("api", says("2"));
    let under_way: Vec<_> = (0..4).map(|_| house.begin_reload([])).collect();
    for reload in under_way {
        reload.ends().succeeds();
    }
    for worker in ["index", "api"] {
        house.units(worker).are(["generation 2 serving"]);
    }
}

#[test]
fn a_worker_that_never_becomes_ready_delays_no_other() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("old"))
        .worker("shop", says("old"))
        .open();
    house.replace(
        "index",
        never_ready().config("health: {start_timeout_seconds: 6}"),
    );
    house.replace("api", says("new"));
    let mut all = house.begin_reload([]);
    until("the healthy one is replaced", || {
        house.get("/api").text() == "new"
    });
    house.replace("shop", says("new"));
    house
        .run(["reload", "shop"])
        .succeeds()
        .says("shop: generation 2 serves");
    house.get("/shop").is("new");
    assert!(
        !all.has_ended(),
        "the reload did not wait for its own worker: {}",
        all.ends()
    );
    all.ends().fails_with("index: failed: ");
    house.get("/").is("one");
}

#[test]
fn no_request_is_lost_in_reloads_under_load() {
    let house = House::new()
        .worker("index", says("1"))
        .worker("late", says("1").and("delay_ms 300"))
        .open();
    let (fast, late) = (house.load("/", 8), house.load("/late", 8));
    let mut good = vec!["1".to_owned()];
    for version in 2..2 + reloads() {
        let text = version.to_string();
        let broken = match version % 10 {
            2 | 7 => Some(behaves("exit 1").and(&format!("says {text}"))),
            4 => Some(behaves("status 500").and(&format!("says {text}"))),
            9 => Some(never_ready().config("health: { start_timeout_seconds: 1 }")),
            _ => None,
        };
        let is_broken = broken.is_some();
        house.replace("index", broken.clone().unwrap_or_else(|| says(&text)));
        house.replace(
            "late",
            broken.unwrap_or_else(|| says(&text)).and("delay_ms 300"),
        );
        let ran = house.reload();
        if is_broken {
            ran.exits(1);
        } else {
            ran.succeeds();
            good.push(text);
        }
        fast.reaches(20);
    }
    let good: Vec<&str> = good.iter().map(String::as_str).collect();
    let (fast, late) = (fast.stop(), late.stop());
    fast.only(&good);
    late.only(&good);
    println!(
        "{} and {} answers, none lost",
        fast.answered(),
        late.answered()
    );
    let last = good[good.len() - 1];
    house.get("/").is(last);
    house.get("/late").is(last);
}

#[test]
fn sighup_reloads() {
    let house = House::new().worker("index", says("one")).open();
    house.replace("index", says("two"));
    house.server().signal(rustix::process::Signal::HUP);
    house.server_says("reload over: 1 changed");
    house.get("/").is("two");
}
