//! What a worker keeps on the disk is measured, and told of before it is too much.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::house::worker::says;
use crate::house::{House, until};

/// The warnings so far of this worker's state.
fn warnings(house: &House) -> Vec<String> {
    let said = house.server().all_it_said().into_iter();
    said.filter(|line| line.contains("the state of worker 'index'"))
        .collect()
}

#[test]
fn a_worker_that_fills_its_state_is_told_of_at_90_and_at_100_percent() {
    let house = House::new()
        .worker("index", says("one").config("state_max: 2MiB"))
        .open();
    house.get("/fill?kib=100").has_status(200);
    house.reload().succeeds();
    until("status shows it", || {
        let status = house.run(["status", "index"]).stdout;
        status.contains("  state 1") && status.contains("KiB of 2MiB")
    });
    assert_eq!(warnings(&house), Vec::<String>::new());
    house.get("/fill?kib=1900").has_status(200);
    house.reload().succeeds();
    until("it is told of at 90 %", || warnings(&house).len() == 1);
    let directory = house.worker_directory("index").join("data");
    let warning = &warnings(&house)[0];
    for part in [
        &*directory.display().to_string(),
        "of 2MiB",
        "raise 'state_max'",
    ] {
        assert!(warning.contains(part), "'{part}' is not in '{warning}'");
    }
    house.get("/fill?kib=3000").has_status(200);
    house.reload().succeeds();
    until("it is told of at 100 %", || warnings(&house).len() == 2);
    let json: serde_json::Value =
        serde_json::from_str(&house.run(["status", "index", "--json"]).stdout).expect("JSON");
    assert!(json[0]["state_size"].as_u64() > Some(3000 << 10), "{json}");
    assert_eq!(json[0]["state_max"], 2 << 20);
    // Once, for as long as it stays there.
    house.get("/fill?kib=4000").has_status(200);
    house.reload().succeeds();
    until("it was measured again", || {
        house
            .run(["status", "index"])
            .stdout
            .contains("state 3.9MiB of 2MiB")
    });
    assert_eq!(warnings(&house).len(), 2);
    house.get("/").is("one");
}

#[test]
fn a_higher_limit_is_a_new_generation_and_no_more_than_the_cap() {
    let house = House::new()
        .worker("index", says("one").config("state_max: 2MiB"))
        .workers_section("    max: {state_max: 4MiB}\n")
        .open();
    house.replace("index", says("one").config("state_max: 4MiB"));
    house.reload().succeeds().says("generation 2 serves");
    house.replace("index", says("one").config("state_max: 5MiB"));
    house
        .reload()
        .fails_with("index: failed: ")
        .says("state_max");
}

#[test]
fn what_a_worker_stores_is_served_in_development_and_in_production() {
    for production in [false, true] {
        let files = "files: {/media: media}";
        let mut house = House::new().worker("shop", says("shop").config(files));
        if production {
            house = house.production();
        }
        let house = house.open();
        let environment = house.get("/shop/env").json();
        let state = environment["STATE_DIRECTORY"].as_str().expect("a state");
        let state = PathBuf::from(state);
        house.get("/shop/media/a.txt").is("shop");
        fs::create_dir(state.join("media/sub")).unwrap();
        fs::write(state.join("media/sub/a.txt"), "stored").unwrap();
        fs::write(state.join("db"), "secret").unwrap();
        symlink("../db", state.join("media/db")).unwrap();
        let stored = house.get("/shop/media/sub/a.txt");
        stored.is("stored");
        assert_eq!(stored.header("x-content-type-options"), Some("nosniff"));
        assert!(stored.header("etag").is_some());
        // It is asked for all that is not a file there.
        for path in [
            "",
            "/",
            "/sub",
            "/sub/",
            "/db",
            "/../db",
            "/%2e%2e/db",
            "/sub/b.txt",
        ] {
            let response = house.get(&format!("/shop/media{path}"));
            assert!(!response.text().contains("secret"), "{path}");
            assert!(
                response.text() == "shop" || response.status == 400,
                "{path}: {}",
                response.text()
            );
        }
        house.get("/shop/db").is("shop");
        // A new version finds it as it was.
        house.replace("shop", says("new").config(files));
        house.reload().succeeds();
        house.get("/shop").is("new");
        house.get("/shop/media/sub/a.txt").is("stored");
    }
}

#[test]
fn what_persists_outlives_releases_and_rollbacks() {
    let house = House::new()
        .production()
        .worker("shop", says("one").config("persist: [wp/plugins]"));
    let problems = house.run(["check"]);
    problems.says("'persist' names 'wp/plugins', which is no directory of the worker");
    let release = |text: &str, shipped: &str| {
        let worker = says(text).config("persist: [wp/plugins]");
        worker.file("wp/plugins/one", shipped).file("wp/own", text)
    };
    house.replace("shop", release("one", "shipped"));
    let house = house.open();
    let environment = house.get("/shop/env").json();
    let plugins = environment["STATE_DIRECTORY"].as_str().expect("a state");
    let plugins = PathBuf::from(plugins).join("wp/plugins");
    let files = || fs::read_link(format!("/proc/{}/cwd", house.pid("shop"))).expect("its files");
    assert_eq!(fs::read_to_string(plugins.join("one")).unwrap(), "shipped");
    // As the program sees it, and changes it.
    let one = files().join("wp/plugins/one");
    assert_eq!(fs::read_to_string(&one).unwrap(), "shipped");
    fs::write(&one, "updated").unwrap();
    house.replace("shop", release("two", "shipped later"));
    house.reload().succeeds();
    house.get("/shop").is("two");
    let seen = || fs::read_to_string(files().join("wp/plugins/one")).unwrap();
    assert_eq!(seen(), "updated");
    assert_eq!(fs::read_to_string(files().join("wp/own")).unwrap(), "two");
    house.run(["rollback", "shop"]).succeeds();
    house.get("/shop").is("one");
    assert_eq!(seen(), "updated");
    assert_eq!(fs::read_to_string(plugins.join("one")).unwrap(), "updated");
}
