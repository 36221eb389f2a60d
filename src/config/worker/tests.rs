//! Claims about worker.yaml; how problems look is in tests/golden.

use super::*;

fn worker(text: &str) -> Result<WorkerFile, Problems> {
    WorkerFile::parse(Path::new("worker.yaml"), text)
}

fn refused(text: &str) -> String {
    match worker(text) {
        Ok(worker) => panic!("{text:?} was accepted: {worker:?}"),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn no_file_and_an_empty_file_say_nothing() {
    let none = WorkerFile::load(Path::new("/nonexistent/config/worker.yaml")).unwrap();
    assert_eq!(none, WorkerFile::default());
    assert_eq!(worker("").unwrap(), none);
}

#[test]
fn a_command_is_a_list_or_words() {
    let command = |text: &str| worker(text).unwrap().command.unwrap();
    assert_eq!(
        command("command: bin/app -p 'a b'"),
        ["bin/app", "-p", "a b"]
    );
    assert_eq!(
        command("command: [bin/app, -p, 8080, 'a b']"),
        ["bin/app", "-p", "8080", "a b"]
    );
    for bad in [
        "command: ''",
        "command: []",
        "command: {a: b}",
        "command: [[a]]",
        "command: [a, ~]",
        "command: 7",
        "command: ../other/bin/app",
        "command: a && b",
        "command: [\"a\", \"\\0\"]",
    ] {
        assert!(refused(bad).contains("help:"), "{bad}");
    }
}

#[test]
fn environment_values_stay_as_they_are_written() {
    let env = worker("env: {A: 1.10, b_2: yes, C: true, D: '', E: 0x10, F: ' x '}")
        .unwrap()
        .env;
    let values: Vec<&str> = env.values().map(String::as_str).collect();
    assert_eq!(values, ["1.10", "true", "", "0x10", " x ", "yes"]);
}

#[test]
fn environment_names_and_values_that_can_not_be_carried_are_refused() {
    for bad in [
        "LISTEN_FDS: 1",
        "NOTIFY_SOCKET: x",
        "PORT: 1",
        "WORKER_X: 1",
        "GOMAXPROCS: 4",
        "1A: x",
        "A-B: x",
        "'': x",
        "A=B: x",
        "A: ",
        "A: [1]",
        "A: \"x\\ny\"",
        "A: \"x\\0y\"",
    ] {
        refused(&format!("env:\n  {bad}\n"));
    }
    refused(&format!("env: {{A: {}}}", "x".repeat(LONGEST_VALUE + 1)));
}

#[test]
fn what_is_the_administrators_is_said_to_be() {
    for key in [
        "user",
        "systemd",
        "exec_start",
        "ExecStartPre",
        "dynamic-user",
        "log_file",
    ] {
        let text = refused(&format!("{key}: x"));
        assert!(text.contains("a worker can not set"), "{text}");
    }
}

#[test]
fn health_paths_are_whole_request_paths() {
    let health = worker("health: {path: '/a?b=c', interval_seconds: 0}")
        .unwrap()
        .health;
    assert_eq!(health.path.as_deref(), Some("/a?b=c"));
    assert_eq!(health.interval, Duration::ZERO);
    for bad in ["a", "'/a b'", "\"/a\\r\\nX: y\"", "/ä", "'/a#b'", "7"] {
        refused(&format!("health: {{path: {bad}}}"));
    }
}

#[test]
fn a_static_worker_has_no_command() {
    refused("{type: static, command: bin/app}");
    assert_eq!(
        worker("enabled: development").unwrap().enabled,
        Enabled::Development
    );
}
