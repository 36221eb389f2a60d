//! Manager and proxy as two services: either may die at any moment.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::house::process::{freeze, kill};
use crate::house::worker::{behaves, says};
use crate::house::{HEAD, House, count, until};

const MANAGER: &str = "tqserver.service";
const PROXY: &str = "tqserver-proxy.service";

#[test]
fn a_manager_that_is_killed_again_and_again_costs_no_request_and_ends_in_the_same_state() {
    let house = House::new()
        .worker("index", says("0"))
        .worker("api", says("0").and("start_delay_ms 100"))
        .planes()
        .open();
    let load = (house.load("/", 4), house.load("/api", 4));
    let seed = std::env::var("TQ_SEED").map_or_else(
        |_| fastrand::u64(..),
        |text| text.parse().expect("TQ_SEED is a number"),
    );
    println!("again with TQ_SEED={seed}");
    let mut moment = fastrand::Rng::with_seed(seed);
    let mut versions = vec!["0".to_owned()];
    for version in 1..=count("TQ_KILLS", 6) {
        let text = version.to_string();
        house.replace("index", says(&text));
        house.replace("api", says(&text).and("start_delay_ms 100"));
        let pid = house.manager_pid();
        let reload = house.begin_reload([]);
        // Any moment is a good one: before the reload arrives, while units start, while they switch, while the old ones drain.
        load.0.reaches(moment.u64(0..150));
        kill(pid, Signal::KILL);
        let ran = reload.ends();
        house.manager_is_back(pid);
        ran.succeeds();
        versions.push(text.clone());
        house.manager_is_back(pid);
        for worker in ["index", "api"] {
            until(&format!("'{worker}' is alone again"), || {
                house.units(worker).found().len() == 1
            });
        }
        house.get("/").is(&text);
        house.get("/api").is(&text);
    }
    let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
    let load = (load.0.stop(), load.1.stop());
    load.0.only(&versions);
    load.1.only(&versions);
    println!(
        "{} and {} answers, none lost",
        load.0.answered(),
        load.1.answered()
    );
    for worker in ["index", "api"] {
        let generations = house.units(worker).found();
        assert!(
            generations[0].ends_with(" serving") && generations.len() == 1,
            "{generations:?}"
        );
        let generations: [&str; 1] = [&generations[0]];
        house.units(worker).are(generations);
    }
}

#[test]
fn a_manager_that_is_killed_between_reloads_touches_nothing() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("one"))
        .planes()
        .open();
    house.replace("index", says("two"));
    house.systemctl(["reload", "tqserver.service"]).succeeds();
    let before = (house.pid("index"), house.pid("api"));
    let load = house.load("/", 8);
    for _ in 0..3 {
        let pid = house.manager_pid();
        kill(pid, Signal::KILL);
        house.manager_is_back(pid);
        load.reaches(50);
    }
    load.stop().only(&["two"]);
    assert_eq!((house.pid("index"), house.pid("api")), before);
    house.units("index").are(["generation 2 serving"]);
    house.units("api").are(["generation 1 serving"]);
    // What was deployed meanwhile waits for its reload.
    house
        .reload()
        .succeeds()
        .says("index: unchanged")
        .says("api: unchanged");
}

#[test]
fn a_reload_whose_manager_dies_is_taken_up_by_the_next_one() {
    let house = House::new().worker("index", says("one")).planes().open();
    house.replace("index", says("two").and("start_delay_ms 500"));
    let (pid, reload) = (house.manager_pid(), house.begin_reload([]));
    until("the new generation starts", || {
        house.units("index").found().len() == 2
    });
    kill(pid, Signal::KILL);
    reload
        .ends()
        .succeeds()
        .says("the manager was restarted; asking the new one");
    house.get("/").is("two");
}

#[test]
fn a_manager_that_dies_while_systemd_reloads_it_is_replaced_at_once() {
    let house = House::new().worker("index", says("one")).planes().open();
    house.replace("index", says("two").and("start_delay_ms 500"));
    let pid = house.manager_pid();
    let reload = ["reload", "--no-block", "tqserver.service"];
    house.systemctl(reload).succeeds();
    until("the new generation starts", || {
        house.units("index").found().len() == 2
    });
    kill(pid, Signal::KILL);
    let died = Instant::now();
    // Held up by its own reload it would come back when the watchdog has seen to that, after 30 seconds.
    house.manager_is_back(pid);
    let away = died.elapsed();
    assert!(away < Duration::from_secs(15), "away for {away:?}");
    house.systemctl(["reload", "tqserver.service"]).succeeds();
    house.get("/").is("two");
}

#[test]
fn a_reload_that_fails_although_its_manager_died_says_so() {
    let house = House::new().worker("index", says("one")).planes().open();
    house.replace("index", behaves("status 500").and("start_delay_ms 500"));
    let (pid, reload) = (house.manager_pid(), house.begin_reload([]));
    until("the new generation starts", || {
        house.units("index").found().len() == 2
    });
    kill(pid, Signal::KILL);
    reload.ends().fails_with("HTTP status 500");
    house.get("/").is("one");
    until("the old one is alone again", || {
        house.units("index").found() == ["generation 1 serving"]
    });
}

#[test]
fn a_proxy_that_is_killed_refuses_no_connection_and_comes_back_with_its_routes() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("api"))
        .planes()
        .open();
    let address = house.address();
    for round in 0..3 {
        let load = house.load("/", 8);
        let pid = house.proxy_pid();
        kill(pid, Signal::KILL);
        until("another proxy runs", || house.proxy_pid() != pid);
        load.reaches(100);
        let totals = load.stop();
        assert_eq!(totals.refused, 0, "round {round}: {totals:?}");
        // Each connection had at most one request in flight in it.
        assert!(totals.failures.len() <= 8, "round {round}: {totals:?}");
        house.get("/api").is("api");
    }
    assert_eq!(house.address(), address);
    house.replace("index", says("two"));
    house.reload().succeeds();
    house.get("/").is("two");
}

#[test]
fn a_proxy_that_is_restarted_loses_no_request() {
    let house = House::new().worker("index", says("one")).planes().open();
    let load = (house.load("/", 16), house.load_anew("/", 16));
    for _ in 0..count("TQ_RESTARTS", 3) {
        let mut clients: Vec<_> = (0..4).map(|_| house.client()).collect();
        clients
            .iter_mut()
            .for_each(|client| client.send("/slow?ms=600").expect("send a request"));
        until("they are in flight", || {
            house.status("index").generations[0].in_flight >= 4
        });
        house.systemctl(["restart", PROXY]).succeeds();
        for mut client in clients {
            client
                .receive()
                .expect("an answer to a request in flight")
                .is("slow");
        }
        load.0.reaches(100);
        load.1.reaches(100);
    }
    let load = (load.0.stop(), load.1.stop());
    load.0.only(&["one"]);
    load.1.only(&["one"]);
    println!(
        "{} and {} answers, none lost; the slowest took {:?} and {:?}",
        load.0.answered(),
        load.1.answered(),
        load.0.slowest,
        load.1.slowest,
    );
}

#[test]
fn a_grace_longer_than_the_units_own_time_is_kept() {
    let house = House::new().worker("index", says("one")).planes().open();
    house.changes_unit(PROXY, "[Service]\nTimeoutStopSec=1s\n");
    let mut client = house.client();
    client.send("/slow?ms=2500").expect("send a request");
    until("it is in flight", || {
        house.status("index").generations[0].in_flight >= 1
    });
    house.systemctl(["restart", PROXY]).succeeds();
    client.receive().expect("an answer").is("slow");
    assert_eq!(house.property(PROXY, "Result"), "success");
}

#[test]
fn a_proxy_that_comes_back_serves_by_its_last_routes_while_no_manager_does() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api", says("api"))
        .planes()
        .open();
    house.replace("index", says("two"));
    house.reload().succeeds();
    // As after an upgrade with a broken server.yaml: the manager does not come back, and the workers stay.
    house.write_server_yaml("nonsense: [\n");
    kill(house.manager_pid(), Signal::KILL);
    until("the manager has given up", || {
        house.property("tqserver.service", "ActiveState") == "failed"
    });
    for _ in 0..2 {
        let proxy = house.proxy_pid();
        kill(proxy, Signal::KILL);
        house.get("/").is("two");
        house.get("/api").is("api");
        assert_ne!(house.proxy_pid(), proxy);
    }
    house.systemctl(["restart", PROXY]).succeeds();
    house.get("/").is("two");
    // And the next manager is followed again.
    house.write_server_yaml(HEAD);
    house.systemctl(["start", "tqserver.service"]).succeeds();
    house.replace("index", says("three"));
    house.reload().succeeds();
    house.get("/").is("three");
}

#[test]
fn a_port_that_was_given_up_is_not_kept_for_the_next_proxy() {
    let mut house = House::new().worker("index", says("one")).planes().open();
    let old = house.address();
    // The kernel knows a free one.
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    let yaml = |port: u16| HEAD.replace("port: 0", &format!("port: {port}"));
    house.write_server_yaml(&yaml(port));
    house.reload().succeeds();
    house.moved_to(([127, 0, 0, 1], port).into());
    until("the old port is closed", || {
        TcpStream::connect(old).is_err()
    });
    // One listener and one table.
    until("systemd keeps what is needed", || {
        house.property(PROXY, "NFileDescriptorStore") == "2"
    });
    for signal in [Signal::TERM, Signal::KILL] {
        let pid = house.proxy_pid();
        kill(pid, signal);
        until("another proxy runs", || house.proxy_pid() != pid);
        house.get("/").is("one");
        assert!(TcpStream::connect(old).is_err());
        assert_eq!(house.property(PROXY, "NFileDescriptorStore"), "2");
    }
}

#[test]
fn the_access_log_is_switched_by_a_reload() {
    let house = House::new().worker("index", says("one")).planes().open();
    house.get("/before").is("one");
    house.write_server_yaml(&format!(
        "{HEAD}workers: {{default: {{access_log: true}}}}\n"
    ));
    house.reload().succeeds();
    house.get("/after").is("one");
    let log = || std::fs::read_to_string(house.path().join("proxy.log")).expect("read the log");
    until("the request is in the log", || {
        log().contains("GET /after 200 ")
    });
    assert!(!log().contains("/before"), "{}", log());
}

#[test]
fn a_proxy_that_hangs_is_replaced_within_two_seconds() {
    let house = House::new().worker("index", says("one")).planes().open();
    let alive = house.proxy_pid();
    let load = house.load("/", 1);
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        load.reaches(10);
    }
    assert_eq!(house.proxy_pid(), alive, "who lives is left alone");
    load.stop().only(&["one"]);
    // A thread that still ran could take a client along.
    freeze(alive);
    let hung = std::time::Instant::now();
    house.get("/").is("one");
    let waited = hung.elapsed();
    assert_ne!(house.proxy_pid(), alive);
    println!("a client has waited for {waited:?}");
    // 2 s, and as much again for a machine that does other things at the same time.
    assert!(waited < Duration::from_secs(4), "{waited:?}");
}

#[test]
fn a_proxy_that_asks_for_more_and_more_time_is_ended_nevertheless() {
    let house = House::new()
        .workers_section("    shutdown_grace_period_ms: 500\n")
        .worker("index", says("one"))
        .planes()
        .open();
    let evil = "trap '' TERM; systemd-notify --ready; while :; do \
        systemd-notify WATCHDOG=1 EXTEND_TIMEOUT_USEC=60000000; sleep 0.1; done";
    let unit =
        format!("[Service]\nNotifyAccess=all\nExecStart=\nExecStart=/bin/sh -c \"{evil}\"\n");
    house.changes_unit(PROXY, &unit);
    house.systemctl(["restart", PROXY]).succeeds();
    let began = std::time::Instant::now();
    house.systemctl(["stop", MANAGER]).succeeds();
    let took = began.elapsed();
    println!("it took {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    for unit in [MANAGER, PROXY] {
        let state = house.property(unit, "ActiveState");
        assert!(
            matches!(&*state, "inactive" | "failed"),
            "{unit} is {state}"
        );
    }
}

#[test]
fn a_start_whose_port_is_taken_says_so_everywhere_and_is_served_once_it_is_free() {
    let mut house = House::new().worker("index", says("one")).planes().open();
    house.systemctl(["stop", MANAGER]).succeeds();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound");
    let port = address.port();
    house.write_server_yaml(&format!(
        "server: {{address: \"127.0.0.1\", port: {port}}}\n"
    ));
    let holder = format!("(PID {})", std::process::id());
    house.run(["check"]).says(&holder);
    house.systemctl(["start", MANAGER]).succeeds();
    let refused = format!("NOT LISTENING on {address}");
    for unit in [MANAGER, PROXY] {
        until(&format!("{unit} says that it does not listen"), || {
            let status = house.property(unit, "StatusText");
            status.contains(&refused) && status.contains(&holder)
        });
    }
    house
        .run(["status"])
        .succeeds()
        .says("NOT SERVED")
        .says(&holder);
    house.reload().fails_with(&holder);
    drop(taken);
    house.moved_to(address);
    until("it is served", || TcpStream::connect(address).is_ok());
    house.get("/").is("one");
    for unit in [MANAGER, PROXY] {
        until(
            &format!("{unit} says no more that it does not listen"),
            || !house.property(unit, "StatusText").contains(&refused),
        );
    }
    house.reload().succeeds();
    house
        .run(["status"])
        .succeeds()
        .says(&format!("{address}  serving"));
}

#[test]
fn a_wildcard_is_narrowed_by_a_reload_and_by_a_restart() {
    let house = House::new().worker("index", says("one")).planes().open();
    let port = house.address().port();
    let elsewhere = std::net::SocketAddr::from(([127, 0, 0, 2], port));
    let listens = |address: &str| {
        let yaml = format!("server: {{address: \"{address}\", port: {port}}}\n");
        house.write_server_yaml(&yaml);
    };
    let narrowed = || {
        until("the wildcard is closed", || {
            TcpStream::connect(elsewhere).is_err()
        });
        house.get("/").is("one");
    };
    listens("0.0.0.0");
    house.reload().succeeds();
    TcpStream::connect(elsewhere).expect("every address is served");
    listens("127.0.0.1");
    house.reload().succeeds();
    narrowed();
    listens("0.0.0.0");
    house.reload().succeeds();
    TcpStream::connect(elsewhere).expect("every address is served");
    listens("127.0.0.1");
    house.systemctl(["restart", MANAGER]).succeeds();
    narrowed();
    house.systemctl(["restart", PROXY]).succeeds();
    narrowed();
    until("systemd keeps one listener and one table", || {
        house.property(PROXY, "NFileDescriptorStore") == "2"
    });
}

#[test]
fn the_proxy_serves_while_the_manager_is_stopped_and_while_it_hangs() {
    let house = House::new().worker("index", says("one")).planes().open();
    let load = house.load("/", 4);
    let pid = house.manager_pid();
    kill(pid, Signal::STOP);
    load.reaches(200);
    kill(pid, Signal::CONT);
    until("the manager answers", || house.try_status().is_some());
    load.reaches(20);
    load.stop().only(&["one"]);
}

#[test]
fn a_proxy_that_comes_back_while_the_manager_hangs_serves_by_its_last_routes() {
    let house = House::new().worker("index", says("one")).planes().open();
    let (manager, proxy) = (house.manager_pid(), house.proxy_pid());
    kill(manager, Signal::STOP);
    kill(proxy, Signal::KILL);
    let mut client = house.client();
    client
        .send("/")
        .expect("the connection is taken by the listener that systemd keeps");
    client
        .receive()
        .expect("an answer by the routes that systemd keeps")
        .is("one");
    kill(manager, Signal::CONT);
    house.replace("index", says("two"));
    house.reload().succeeds();
    house.get("/").is("two");
}

#[test]
fn a_second_manager_is_refused_and_takes_nothing_from_the_first() {
    let house = House::new().worker("index", says("one")).planes().open();
    house
        .run(["manager", "--mode=development"])
        .exits(1)
        .says("another TQServer manages this systemd already");
    let proxy = house.proxy_pid();
    kill(proxy, Signal::KILL);
    until("another proxy runs", || house.proxy_pid() != proxy);
    house.replace("index", says("two"));
    house.reload().succeeds();
    house.get("/").is("two");
}

#[test]
fn a_restart_of_the_manager_leaves_the_workers_and_a_stop_takes_them_along() {
    let house = House::new().worker("index", says("one")).planes().open();
    let pid = house.pid("index");
    house.systemctl(["restart", "tqserver.service"]).succeeds();
    until("it answers", || house.try_status().is_some());
    assert_eq!(house.pid("index"), pid);
    until("it serves", || {
        house
            .client()
            .get("/")
            .is_ok_and(|answer| answer.text() == "one")
    });
    house.systemctl(["stop", "tqserver.service"]).succeeds();
    crate::house::process::gone(pid);
    assert_eq!(house.loaded("tqserver-index@*"), Vec::<String>::new());
}

#[test]
fn a_stop_is_not_held_up_by_a_worker_that_does_not_end() {
    let house = House::new()
        .worker("index", says("one").and("ignore_term"))
        .worker("api", says("api"))
        .workers_section("    shutdown_grace_period_ms: 1000\n");
    let house = house.planes().open();
    let ran = house.systemctl(["stop", "tqserver.service"]);
    ran.succeeds();
    assert!(ran.took < Duration::from_secs(10), "{ran}");
    assert_eq!(house.loaded("tqserver-*@*"), Vec::<String>::new());
}

#[test]
fn a_worker_that_ends_after_a_daemon_reload_is_started_again() {
    let house = House::new().worker("index", says("one")).planes().open();
    // As each installation of a package does: systemd reads anew what it has written down of its transient units.
    house.systemctl(["daemon-reload"]).succeeds();
    let pid = house.pid("index");
    house.get("/exit?code=1").has_status(502);
    house.get("/").is("one");
    assert_ne!(house.pid("index"), pid, "it is another process");
    house.replace("index", says("two"));
    house.reload().succeeds();
    house.get("/").is("two");
}

#[test]
fn a_generation_of_another_version_goes_when_the_worker_serves_and_its_number_is_not_used_again() {
    let house = House::new().worker("index", says("one")).planes().open();
    crate::sandbox::start_stranger(&house, "index", 50);
    let is_there = || house.property("tqserver-index@50.socket", "ActiveState") == "active";
    assert!(is_there());
    let pid = house.manager_pid();
    kill(pid, Signal::KILL);
    house.manager_is_back(pid);
    until("the stranger is stopped", || !is_there());
    house.get("/").is("one");
    house.replace("index", says("two"));
    house.reload().succeeds().says("generation 51 serves");
    house.get("/").is("two");
}
