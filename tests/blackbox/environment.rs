//! What of a worker's environment comes from files and secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::house::worker::{Worker, says, write};
use crate::house::{HEAD, House, until};

/// A worker with these files, which `env_file` names.
fn with_env(text: &str) -> Worker {
    says("one")
        .config("env_file: [.env, config/more.env]\nenv: {C: \"$WORKER_NAME\"}")
        .file(".env", text)
        .file("config/more.env", "B=more\nC=more\nD='a b\n$PORT'\n")
}

/// A variable as the worker `index` finds it; null without one.
fn variable(house: &House, name: &str) -> Value {
    house.get("/env").json()[name].clone()
}

#[test]
fn the_files_that_are_named_are_in_the_environment_and_worker_yaml_is_over_them() {
    let text = "# for us\nexport A=\"one\\ntwo\" # so\nB=file\nC=file\n";
    let house = House::new().worker("index", with_env(text)).open();
    for (name, value) in [
        ("A", "one\ntwo"),
        ("B", "more"),
        ("C", "index"),
        ("D", "a b\n$PORT"),
    ] {
        assert_eq!(variable(&house, name), value, "{name}");
    }
}

#[test]
fn a_saved_env_file_is_live_though_git_ignores_it() {
    let head = HEAD.replace("60000", "20");
    let house = House::new()
        .server_yaml(&head)
        .worker("index", with_env("A=1\n"));
    write(
        &house.worker_directory("index").join(".gitignore"),
        ".env\n",
    );
    let house = house.open();
    assert_eq!(variable(&house, "A"), "1");
    let file = house.worker_directory("index").join(".env");
    write(&file, "A=2\n");
    until("the change is live", || variable(&house, "A") == "2");
    write(&file, "A=3\nhunter2\n");
    house.server_says("`env_file: .env`: line 2 is no assignment");
    assert_eq!(variable(&house, "A"), "2");
    fs::remove_file(&file).expect("remove it");
    house.server_says("'env_file' names .env, which was not found");
    write(&file, "A=4\n");
    until("it is well again", || variable(&house, "A") == "4");
    assert!(!house.server().all_it_said().join("\n").contains("hunter2"));
}

#[test]
fn each_generation_has_the_env_files_of_its_own_snapshot() {
    let house = House::new()
        .production()
        .worker("index", with_env("A=1\n"))
        .open();
    house.replace("index", with_env("A=2\n"));
    // What lies there is nobody's before a reload.
    house.get("/exit?code=1").has_status(502);
    assert_eq!(variable(&house, "A"), "1");
    house.reload().succeeds();
    assert_eq!(variable(&house, "A"), "2");
    house.run(["rollback", "index"]).succeeds();
    assert_eq!(variable(&house, "A"), "1");
    house.replace("index", with_env("A=4\nB='hunter2\n"));
    let failed = house.reload();
    failed.exits(1).says("`env_file: .env`: line 2 has a quote");
    failed.says_nothing_of("hunter2");
    let checked = house.run(["check"]);
    checked
        .exits(78)
        .says("index: `env_file: .env`: line 2 has a quote")
        .says_nothing_of("hunter2");
    assert_eq!(variable(&house, "A"), "1");
}

/// A secret of the worker `index`.
fn secret(house: &House, name: &str, text: &str) {
    let file = house.path().join("config/credentials/index").join(name);
    write(&file, text);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod a secret");
}

/// The only service of `index`.
fn unit(house: &House) -> String {
    let mut units = house.loaded("tqserver-index@*.service");
    assert_eq!(units.len(), 1, "{units:?}");
    units.remove(0)
}

#[test]
fn a_secret_is_in_the_environment_of_the_program_and_not_in_its_unit() {
    let config = "credentials: [db-url]\nenv_file: .env\n\
                  env_from_credentials: {DATABASE_URL: db-url, AGAIN: db-url}";
    let worker = says("one")
        .config(config)
        .file(".env", "DATABASE_URL=file\n");
    let house = House::new().worker("index", worker);
    secret(&house, "db-url", "postgres://u:hunter2@h/d\n");
    let house = house.open();
    for name in ["DATABASE_URL", "AGAIN"] {
        assert_eq!(variable(&house, name), "postgres://u:hunter2@h/d");
    }
    let environment = house.get("/env").json();
    let unit = unit(&house);
    // It is the process that systemd has started, and so it could take its socket.
    let pid = house.get("/pid").text();
    assert_eq!(house.property(&unit, "MainPID"), pid);
    assert_eq!(environment["LISTEN_PID"], pid.as_str());
    assert_eq!(environment["SYSTEMD_EXEC_PID"], pid.as_str());
    for words in [&["show", &unit][..], &["cat", &unit]] {
        house
            .systemctl(words.iter().copied())
            .succeeds()
            .says("secret-env=DATABASE_URL:db-url")
            .says_nothing_of("hunter2");
    }
    let checked = house.run(["check", "--show-units"]);
    checked
        .says("secret-env=AGAIN:db-url")
        .says_nothing_of("hunter2");
    house.get("/exit?code=7").has_status(502);
    until("its exit status is told", || {
        house.run(["status"]).stdout.contains("exit code 7")
    });
    assert_eq!(variable(&house, "AGAIN"), "postgres://u:hunter2@h/d");
}

#[test]
fn a_secret_that_no_variable_can_hold_is_told_and_not_shown() {
    let worker = says("one").config("credentials: [key]\nenv_from_credentials: {KEY: key}");
    let house = House::new().worker("index", worker);
    secret(&house, "key", "hunter2\0");
    let house = house.open();
    house.server_says("'key'");
    let said = house.server().all_it_said().join("\n");
    assert!(
        said.contains("exit code 243") && said.contains("NUL"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}
