//! Claims about server.yaml; how problems look is in tests/golden.

use super::*;

fn settings(text: &str) -> Result<Settings, Problems> {
    Settings::parse(Path::new("/srv/site/config/server.yaml"), text)
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let empty = settings("").unwrap();
    assert_eq!(empty, Settings::defaults_at(Path::new("/srv/site")));
    assert_eq!(empty.workers_directories, [Path::new("/srv/site/workers")]);
    assert_eq!(empty.front.listen, ["0.0.0.0:8080".parse().unwrap()]);
}

#[test]
fn the_shipped_file_gives_the_defaults_and_names_every_key() {
    let shipped = include_str!("../../../config/server.yaml");
    assert_eq!(settings(shipped).unwrap(), settings("").unwrap());
    // What is commented out must be right as well.
    let uncommented: String = shipped
        .lines()
        .map(|line| line.replacen("#: ", "", 1) + "\n")
        .collect();
    let settings = settings(&uncommented).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(settings.max.gomemlimit.is_some() && !settings.paths.is_empty());
}

#[test]
fn relative_paths_start_beside_config() {
    for (file, project) in [
        ("/srv/site/config/server.yaml", "/srv/site"),
        ("/etc/tqserver/server.yaml", "/etc/tqserver"),
        ("/config/server.yaml", "/"),
        ("/server.yaml", "/"),
    ] {
        assert_eq!(
            project_directory(Path::new(file)),
            Path::new(project),
            "{file}"
        );
    }
    let settings =
        settings("workers: {directory: ../other/./w, default: {log_file: 'logs/{name}.log'}}")
            .unwrap();
    assert_eq!(settings.workers_directories, [Path::new("/srv/other/w")]);
    assert_eq!(settings.default.log_file, "/srv/site/logs/{name}.log");
}

#[test]
fn a_missing_file_says_what_to_do() {
    let problems = Settings::load(Path::new("/nonexistent/server.yaml")).unwrap_err();
    assert!(problems.to_string().contains("--config"), "{problems}");
}

#[test]
fn addresses_are_one_or_many() {
    let listen = |text: &str| settings(text).unwrap().front.listen;
    assert_eq!(
        listen("server: {address: '::1', port: 0}"),
        ["[::1]:0".parse().unwrap()]
    );
    assert_eq!(
        listen("server: {address: [127.0.0.1, '[::1]']}"),
        [
            "127.0.0.1:8080".parse().unwrap(),
            "[::1]:8080".parse().unwrap()
        ]
    );
}
