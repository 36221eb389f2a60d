//! A server for one user, by the user's own systemd: what README says of it.

use std::fs;

use crate::house::House;
use crate::house::worker::{says, write};

#[test]
fn a_user_starts_a_server_without_having_written_anything() {
    let house = House::new().open_for_user();
    let home = house.path().join("home");
    house.systemctl(["start", "tqserver"]).succeeds();
    assert_eq!(house.property("tqserver", "ActiveState"), "active");
    house.user_runs(["status"]).succeeds().says("WORKER");
    let made = fs::read_dir(&home).expect("a home").count();
    assert_eq!(made, 0, "nothing is put into the user's home");
    // Where README says that workers are.
    let configuration = home.join(".config/tqserver");
    says("hello").put(&configuration.join("workers/hello"));
    house
        .user_runs(["reload", "--dry-run"])
        .succeeds()
        .says("hello: ");
    house
        .user_runs(["check"])
        .succeeds()
        .says("home/.config/tqserver/server.yaml: 1 worker, no problems");
}

#[test]
fn check_reads_the_file_that_status_and_reload_are_about() {
    let house = House::new().open_for_user();
    let file = house.path().join("home/.config/tqserver/server.yaml");
    write(&file, "server: {port: 8081}\n");
    house.systemctl(["start", "tqserver"]).succeeds();
    write(&file, "bad: 1\n");
    for verb in [&["reload"][..], &["check"], &["check", "--manager=user"]] {
        house
            .user_runs(verb.iter().copied())
            .exits(78)
            .says("home/.config/tqserver/server.yaml:1:1: 'bad' is not a key");
    }
}
