//! Production: what is live is what passed its check.

use rustix::process::Signal;

use crate::house::process::{gone, kill};
use crate::house::worker::{behaves, says};
use crate::house::{HEAD, House, until};

#[test]
fn a_crash_never_runs_files_that_were_deployed_but_not_accepted() {
    let house = House::new()
        .worker("index", says("one").file("public/a.txt", "a"))
        .production()
        .open();
    let pid = house.pid("index");
    house.replace("index", says("two").file("public/a.txt", "b"));
    house.get("/exit?code=1").has_status(502);
    house.get("/").is("one");
    house.get("/a.txt").is("a");
    assert_ne!(house.pid("index"), pid);
    house.reload().succeeds().says("generation 2 serves");
    house.get("/").is("two");
    house.get("/a.txt").is("b");
}

#[test]
fn a_replacement_of_a_broken_generation_is_made_of_accepted_files() {
    let house = House::new()
        .worker("index", says("one"))
        .production()
        .open();
    house.replace("index", says("two"));
    until("its socket has failed", || {
        house.get("/exit?code=4").status == 503
    });
    until("it is back", || house.get("/").status == 200);
    house.get("/").is("one");
    house.units("index").are(["generation 2 serving"]);
}

#[test]
fn clients_are_not_told_why_a_worker_does_not_run() {
    let house = House::new()
        .worker("index", behaves("exit 7"))
        .production()
        .open();
    let answer = house.get("/");
    answer.has_status(503);
    assert!(!answer.text().contains("exit code"), "{}", answer.text());
    house.run(["status"]).succeeds().says("exit code 7");
}

#[test]
fn a_worker_does_not_run_in_the_deployed_directory() {
    let house = House::new()
        .worker("index", says("one"))
        .production()
        .open();
    let found = std::fs::read_link(format!("/proc/{}/cwd", house.pid("index")))
        .expect("a working directory");
    assert!(
        !found.starts_with(house.path().canonicalize().expect("a path")),
        "it runs in {}",
        found.display()
    );
}

#[test]
fn a_start_from_nothing_runs_what_was_accepted_and_numbers_go_on() {
    let house = House::new()
        .worker("index", says("one"))
        .production()
        .planes()
        .open();
    house.replace("index", says("two"));
    house.reload().succeeds().says("generation 2 serves");
    let pid = house.pid("index");
    house.systemctl(["stop", "tqserver.service"]).succeeds();
    gone(pid);
    house.replace("index", says("three"));
    house.systemctl(["start", "tqserver.service"]).succeeds();
    house
        .systemctl(["start", "tqserver-proxy.service"])
        .succeeds();
    // Nobody has asked for it yet, so it does not run; and what was deployed since was not accepted.
    until("it is back", || {
        house
            .try_status()
            .is_some_and(|all| all.iter().any(|worker| worker.state == "sleeping"))
    });
    let status = house.property("tqserver-proxy.service", "StatusText");
    let address = status
        .strip_prefix("listens on ")
        .and_then(|text| text.parse().ok())
        .expect("an address");
    let mut client = crate::house::http::Client::new(address);
    client.get("/").expect("an answer").is("two");
    house.units("index").are(["generation 2 serving"]);
    house.reload().succeeds().says("generation 3 serves");
    client.get("/").expect("an answer").is("three");
}

#[test]
fn an_adopted_generation_keeps_its_number_and_its_files() {
    let house = House::new()
        .worker("index", says("one"))
        .production()
        .planes()
        .open();
    house.replace("index", says("two"));
    house.reload().succeeds();
    house.replace("index", behaves("exit 1"));
    house.reload().fails_with("exit code 1");
    let pid = house.manager_pid();
    kill(pid, Signal::KILL);
    house.manager_is_back(pid);
    house.units("index").are(["generation 2 serving"]);
    house.get("/exit?code=1").has_status(502);
    house.get("/").is("two");
    house.replace("index", says("four"));
    house.reload().succeeds();
    house.get("/").is("four");
    let generations = house.units("index").found();
    assert!(
        generations[0] == "generation 3 serving" || generations[0] == "generation 4 serving",
        "{generations:?}"
    );
}

#[test]
fn a_snapshot_that_is_made_while_an_older_one_goes_is_whole() {
    let mut worker = says("0");
    for number in 0..200 {
        worker = worker.file(&format!("pages/{number}"), "a page");
    }
    let house = House::new().worker("index", worker).production().open();
    for version in 1..=8 {
        let text = version.to_string();
        // The old generation goes when this is answered: while the next snapshot is made.
        let mut client = house.client();
        client.send("/slow?ms=150").expect("send a request");
        house.replace("index", says(&text));
        house.reload().succeeds();
        let directory = format!("/proc/{}/cwd/pages", house.pid("index"));
        let pages = std::fs::read_dir(directory).expect("its pages").count();
        assert_eq!(pages, 200, "of generation {}", version + 1);
        house.get("/").is(&text);
    }
}

#[test]
fn a_rollback_goes_back_and_the_next_reload_does_not_undo_it() {
    let house = House::new()
        .worker("index", says("one"))
        .production()
        .planes()
        .open();
    house
        .run(["rollback", "index"])
        .exits(64)
        .says("nothing different to go back to");
    house.replace("index", says("two"));
    house.reload().succeeds();
    let load = house.load("/", 8);
    house
        .run(["rollback", "index"])
        .succeeds()
        .says("generation 3 serves, generation 2 drains");
    house.get("/").is("one");
    house.reload().succeeds().says("it was rolled back to");
    house.get("/").is("one");
    // Neither does a manager that dies, nor a start from nothing.
    let pid = house.manager_pid();
    kill(pid, Signal::KILL);
    house.manager_is_back(pid);
    house.reload().succeeds().says("it was rolled back to");
    let totals = load.stop();
    totals.only(&["one", "two"]);
    house
        .run(["rollback", "index", "9"])
        .exits(64)
        .says("there is no generation 9")
        .says("accepted and kept:");
    house.run(["rollback", "index", "2"]).succeeds();
    house.get("/").is("two");
    house.run(["rollback", "ghost"]).exits(64).says("ghost");
}

#[test]
fn the_bus_tells_which_generations_can_be_rolled_back_to() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("other", says("other"))
        .production()
        .open();
    let told = |workers: &[&str]| {
        let count = workers.len().to_string();
        let call = ["ListRollbacks", "as", &count];
        let ran = house.calls_the_manager(call.into_iter().chain(workers.iter().copied()));
        ran.succeeds().stdout.trim().to_owned()
    };
    assert_eq!(told(&[]), r#"a(sat) 2 "index" 0 "other" 0"#);
    house.replace("index", says("two"));
    house.reload().succeeds();
    house.replace("index", behaves("exit 2"));
    house.reload().exits(1);
    house.replace("index", says("three"));
    house.reload().succeeds();
    // The one that failed is none, and neither is the one that serves.
    assert_eq!(told(&["index"]), r#"a(sat) 1 "index" 2 2 1"#);
    house.run(["rollback", "index", "1"]).succeeds();
    // Generation 5 is of the same files as 1.
    assert_eq!(told(&["index", "ghost"]), r#"a(sat) 1 "index" 2 4 2"#);
    house.remove("index");
    house.reload().succeeds();
    assert_eq!(told(&[]), r#"a(sat) 1 "other" 0"#);
}

#[test]
fn as_many_generations_are_kept_to_go_back_to_as_server_yaml_says() {
    let yaml = |keep| format!("{HEAD}snapshots: {{keep_generations: {keep}}}\n");
    let house = House::new()
        .worker("index", says("1"))
        .server_yaml(&yaml(4))
        .production()
        .open();
    let kept = || {
        let directory = house.place().join("tqserver/state/.snapshots/index");
        let names = std::fs::read_dir(directory).expect("the snapshots");
        let names = names.filter_map(|name| name.ok()?.file_name().into_string().ok());
        let mut numbers: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    };
    let deploy = |text: &str| {
        house.replace("index", says(text));
        house.reload().succeeds();
    };
    for version in 2..=6 {
        deploy(&version.to_string());
    }
    until("four are kept beside the one that serves", || {
        kept() == [2, 3, 4, 5, 6]
    });
    // Fewer from the next generation on.
    house.write_server_yaml(&yaml(1));
    deploy("7");
    until("one is kept beside the one that serves", || {
        kept() == [6, 7]
    });
    house.write_server_yaml(&yaml(0));
    deploy("8");
    until("none is kept beside the one that serves", || kept() == [8]);
    house
        .run(["rollback", "index"])
        .exits(64)
        .says("nothing different to go back to");
}

#[test]
fn a_worker_that_was_never_accepted_waits_for_a_reload() {
    let house = House::new()
        .worker("index", says("one"))
        .production()
        .planes()
        .open();
    house.replace("later", says("later"));
    let pid = house.manager_pid();
    kill(pid, Signal::KILL);
    house.manager_is_back(pid);
    until("it is known", || {
        house
            .try_status()
            .is_some_and(|all| all.iter().any(|worker| worker.state == "new"))
    });
    house.get("/later").is("one");
    house.reload().succeeds().says("later: generation 1 serves");
    house.get("/later").is("later");
}

#[test]
fn a_directory_stands_for_the_workers_in_it() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("other", says("one"))
        .production()
        .planes()
        .open();
    house.replace("index", says("two"));
    house.replace("other", says("two"));
    let place = house.worker_directory("other");
    let place = place.to_str().expect("a path");
    house
        .run(["reload", place])
        .succeeds()
        .says("other: generation 2 serves");
    house.get("/").is("one");
    house.get("/other").is("two");
    house.run(["reload", "/nowhere"]).succeeds();
    house.get("/").is("one");
}

#[test]
fn a_manager_that_finds_a_wrong_server_yaml_goes_on_with_the_one_before() {
    let house = House::new()
        .worker("index", says("one"))
        .production()
        .planes()
        .open();
    let good = std::fs::read_to_string(house.config()).expect("its server.yaml");
    house.write_server_yaml(&format!("{good}serverr: {{}}\n"));
    house.systemctl(["stop", "tqserver.service"]).succeeds();
    house.systemctl(["start", "tqserver.service"]).succeeds();
    house
        .reload()
        .exits(78)
        .says("serverr")
        .says("did you mean 'server'?");
    until("it is back", || {
        house.try_status().is_some_and(|all| !all.is_empty())
    });
    house.write_server_yaml(&good);
    house.reload().succeeds();
}
