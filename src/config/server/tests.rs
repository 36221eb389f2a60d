//! Claims about server.yaml; how problems look is in tests/golden.

use super::*;
use crate::config::PemFile;
use crate::route::{Listen, Place};

fn plain(address: &str) -> Listen {
    Listen::from(address.parse::<SocketAddr>().unwrap())
}

fn settings(text: &str) -> Result<Settings, Problems> {
    Settings::parse(Path::new("/srv/site/config/server.yaml"), text)
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let empty = settings("").unwrap();
    assert_eq!(empty, Settings::defaults_at(Path::new("/srv/site")));
    assert_eq!(empty.workers_directories, [Path::new("/srv/site/workers")]);
    assert_eq!(empty.front.listen, [plain("0.0.0.0:8080")]);
}

/// What somebody makes of a line of the shipped file who uncomments the examples as its first lines say.
fn uncommented(line: &str) -> String {
    match line.trim_start().strip_prefix('#') {
        Some(example) if !example.starts_with(' ') => line.replacen('#', "", 1),
        _ => line.to_owned(),
    }
}

#[test]
fn the_shipped_file_gives_the_defaults_and_names_every_key() {
    let shipped = include_str!("../../../config/server.yaml");
    assert_eq!(settings(shipped).unwrap(), settings("").unwrap());
    // What is commented out must be right as well; 'listen' stands in place of two keys.
    let replaced = ["    #address: ", "    port: "];
    let uncommented: String = shipped
        .lines()
        .filter(|line| !replaced.iter().any(|key| line.starts_with(key)))
        .map(|line| uncommented(line) + "\n")
        .collect();
    let settings = settings(&uncommented).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(settings.max.gomemlimit.is_some() && !settings.paths.is_empty());
    assert!(settings.max.io_weight.is_some() && settings.default.io_weight.is_some());
    assert!(settings.front.listen.len() > 2 && settings.certificates.len() > 1);
    assert!(!settings.front.trusted_proxies.is_empty());
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
        [plain("[::1]:0")]
    );
    assert_eq!(
        listen("server: {address: [127.0.0.1, '[::1]']}"),
        [plain("127.0.0.1:8080"), plain("[::1]:8080")]
    );
}

#[test]
fn directories_of_workers_are_one_or_many() {
    let directories = |text: &str| settings(text).unwrap().workers_directories;
    let two = [
        Path::new("/srv/site/workers"),
        Path::new("/usr/lib/tqserver/workers"),
    ];
    assert_eq!(
        directories("workers: {directory: [workers, /usr/lib/tqserver/workers]}"),
        two
    );
    assert_eq!(
        directories("pages: {directory: [workers, /usr/lib/tqserver/workers]}"),
        two
    );
    assert_eq!(directories("workers: {directory: [workers]}"), two[..1]);
    for (bad, part) in [
        ("[]", "empty list"),
        ("[a, b, ./a]", "a second time"),
        ("[a, a/b]", "inside the other"),
        ("[a/b, a]", "inside the other"),
        ("[a, '']", "must name a directory"),
        ("[a, 7]", "must name a directory"),
        ("[a, [b]]", "must name a directory"),
        ("[a, /]", "can not be '/'"),
        ("{a: b}", "must be a text"),
        ("7", "must be a text"),
    ] {
        let problems = settings(&format!("workers: {{directory: {bad}}}")).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{problems}");
        assert!(problems.to_string().contains(part), "{problems}");
        assert!(problems.0[0].place.line == 1, "{problems}");
    }
    // '/ab' is not inside '/a'.
    assert_eq!(directories("workers: {directory: [a, ab]}").len(), 2);
}

#[test]
fn an_exposure_is_a_number_with_one_decimal() {
    let exposure = |text: &str| {
        let settings = settings(&format!("security: {{max_exposure: {text}}}"));
        settings.map(|settings| settings.max_exposure)
    };
    assert_eq!(settings("").unwrap().max_exposure, Exposure(20));
    for (text, tenths) in [("0.0", 0), ("0", 0), ("1.5", 15), ("2", 20), ("10.0", 100)] {
        assert_eq!(exposure(text).unwrap(), Exposure(tenths), "{text}");
    }
    for bad in [
        "10.1", "-1", "1.55", "'1.5'", "low", "1e0", ".5", "1.", "[1]", "100", "1_0", ".inf", "",
    ] {
        let problems = exposure(bad).unwrap_err();
        assert!(problems.to_string().contains("max_exposure"), "{problems}");
    }
    assert_eq!(Exposure(15).to_string(), "1.5");
    assert_eq!(Exposure(100).to_string(), "10.0");
}

#[test]
fn memory_is_not_slowed_down_above_where_it_kills() {
    for bad in [
        "workers: {default: {gomemlimit: 1GiB, memory_high: 2GiB}}",
        "workers: {paths: {/a: {gomemlimit: 1GiB, memory_high: 2GiB}}}",
    ] {
        let problems = settings(bad).unwrap_err();
        assert!(
            problems.to_string().contains("would never be reached"),
            "{problems}"
        );
    }
    for good in [
        "workers: {default: {gomemlimit: 1GiB, memory_high: 1GiB}}",
        "workers: {default: {gomemlimit: 1GiB}, paths: {/a: {memory_high: 2GiB}}}",
        "workers: {default: {memory_high: 2GiB}}",
    ] {
        assert!(settings(good).is_ok(), "{good}");
    }
}

#[test]
fn listeners_are_addresses_and_sockets_with_what_is_spoken_there() {
    let front = |text: &str| settings(text).unwrap().front;
    let listen = "listen: [\"0.0.0.0:80\", {address: \"[::]:443\", tls: true}, {address: \"unix:/run/t/w.sock\", proxy_protocol: true, trusted: true}]";
    let tls = "tls: {certificates: [{certificate: tls/a.crt, key: \"credential:a.key\"}], redirect_http: true, min_version: \"1.3\"}";
    let front = front(&format!("server:\n  {listen}\n  {tls}\n"));
    let with = |place, tls, proxy_protocol, redirect| Listen {
        place,
        tls,
        proxy_protocol,
        trusted: proxy_protocol,
        redirect,
    };
    let tcp = |address: &str| Place::Tcp(address.parse().unwrap());
    assert_eq!(
        front.listen,
        [
            with(tcp("0.0.0.0:80"), false, false, Some(443)),
            with(tcp("[::]:443"), true, false, None),
            with(Place::Unix("/run/t/w.sock".into()), false, true, Some(443)),
        ]
    );
    assert!(front.tls.unwrap().only_tls13);
}

#[test]
fn certificates_are_files_of_the_project_or_credentials() {
    let text = "server: {listen: [{address: \"0.0.0.0:443\", tls: true}], tls: {certificates: [{certificate: tls/a.crt, key: \"credential:a.key\"}]}}";
    let settings = settings(text).unwrap();
    let [files] = settings.certificates.as_slice() else {
        panic!("{:?}", settings.certificates);
    };
    assert_eq!(
        files.certificate,
        PemFile::File("/srv/site/tls/a.crt".into())
    );
    assert_eq!(files.key, PemFile::Credential("a.key".to_owned()));
}

#[test]
fn listeners_that_can_not_be_are_told_with_what_to_write() {
    for (bad, part) in [
        ("listen: []", "empty list"),
        ("listen: [80]", "0.0.0.0:80"),
        ("listen: [127.0.0.1]", "127.0.0.1:80"),
        ("listen: [\"unix:web.sock\"]", "absolute path"),
        ("listen: [\"0.0.0.0:80\", \"0.0.0.0:80\"]", "second time"),
        ("listen: [{tls: true}]", "address"),
        ("listen: [{address: \"0.0.0.0:443\", tsl: true}]", "tls"),
        (
            "listen: [{address: \"0.0.0.0:443\", tls: true}]",
            "no certificate",
        ),
        ("listen: [\"0.0.0.0:80\"]\n  port: 80", "'server.port'"),
        (
            "listen: [{address: \"0.0.0.0:80\", proxy_protocol: true}]",
            "trusted_proxies",
        ),
        (
            "listen: [{address: \"0.0.0.0:80\", trusted: true}]",
            "'server.listen[0].trusted' is for unix sockets",
        ),
        (
            "listen: [{address: \"unix:/run/w.sock\", proxy_protocol: true}]",
            "would refuse every client",
        ),
        (
            "tls: {certificates: [{certificate: a, key: b}]}",
            "nothing listens",
        ),
        (
            "tls: {certificates: [{certificate: a}]}",
            "'server.tls.certificates[0].key' is missing",
        ),
        ("tls: {certificates: [a]}", "certificates: [{"),
        ("trusted_proxies: [10.0.0.0/33]", "10.0.0.0/8"),
        ("max_connections: 1", "16"),
        (
            "min_read_rate: fast",
            "in bytes per second; 0 is no such rule",
        ),
        ("min_write_rate: 2000000", "from 0 to 1048576"),
    ] {
        let problems = settings(&format!("server:\n  {bad}\n")).unwrap_err();
        assert!(problems.to_string().contains(part), "{bad}: {problems}");
    }
}

#[test]
fn there_are_no_more_listeners_than_systemd_keeps() {
    let listen = |count: u16| {
        let all: Vec<_> = (1..=count).map(|port| format!("\"[::]:{port}\"")).collect();
        settings(&format!("server: {{listen: [{}]}}", all.join(", ")))
    };
    assert_eq!(listen(60).unwrap().front.listen.len(), 60);
    let problems = listen(61).unwrap_err();
    assert!(problems.to_string().contains("at most 60"), "{problems}");
}

#[test]
fn trusted_proxies_are_addresses_and_networks() {
    let front = |text: &str| settings(text).unwrap().front;
    let front = front("server: {trusted_proxies: [10.1.2.3/8, \"2001:db8::1\"]}");
    let trusts = |address: &str| front.trusts(address.parse().unwrap());
    assert!(trusts("10.9.9.9") && trusts("::ffff:10.0.0.1") && trusts("2001:db8::1"));
    assert!(!trusts("11.0.0.1") && !trusts("2001:db8::2"));
}

#[test]
fn the_kept_copy_is_no_wider_than_the_file() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let directory = tempfile::tempdir().unwrap();
    let (file, copy) = (directory.path().join("s.yaml"), directory.path().join(".s"));
    std::fs::write(&file, "server: {port: 80}").unwrap();
    let mode_of_copy = |mode| {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        Settings::load(&file).unwrap().keep(&copy).unwrap();
        copy.metadata().unwrap().mode() & 0o777
    };
    assert_eq!(mode_of_copy(0o644), 0o640);
    assert_eq!(mode_of_copy(0o600), 0o600);
}
