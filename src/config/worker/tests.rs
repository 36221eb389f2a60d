//! Claims about worker.yaml; how problems look is in tests/golden.

use std::time::Duration;

use super::bounds::LONGEST_VALUE;
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
    let env =
        worker("env: {A: 1.10, b_2: yes, C: true, D: '', E: 0x10, F: ' x ', G: \"x\\ny\\n\"}")
            .unwrap()
            .env;
    let values: Vec<&str> = env.values().map(String::as_str).collect();
    assert_eq!(values, ["1.10", "true", "", "0x10", " x ", "x\ny\n", "yes"]);
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
        "A: \"x\\0y\"",
    ] {
        refused(&format!("env:\n  {bad}\n"));
    }
    refused(&format!("env: {{A: {}}}", "x".repeat(LONGEST_VALUE + 1)));
}

#[test]
fn arguments_and_values_can_name_what_the_worker_is_told() {
    let text = "listen: port\ncommand: serve --bind 127.0.0.1:$PORT --db '${STATE_DIRECTORY}/a b'\nenv: {URL: 'http://localhost:${PORT}', PRICE: 5$$}";
    let worker = worker(text).unwrap();
    // Each instance has values of its own: they are put in when its units are written.
    assert_eq!(
        worker.command.unwrap(),
        [
            "serve",
            "--bind",
            "127.0.0.1:$PORT",
            "--db",
            "${STATE_DIRECTORY}/a b"
        ]
    );
    assert_eq!(worker.env["URL"], "http://localhost:${PORT}");
    assert_eq!(worker.env["PRICE"], "5$$");
}

#[test]
fn what_names_no_variable_is_refused_where_it_stands() {
    for (text, place, parts) in [
        (
            "command: [bin/app, -x, '${FOO}']",
            ":1:24:",
            ["unknown variable 'FOO' in '${FOO}'", "write '$$'"],
        ),
        (
            "command: bin/app -x $FOO",
            ":1:10:",
            ["unknown variable 'FOO'", "STATE_DIRECTORY"],
        ),
        (
            "command: [sh, -c, 'echo $(date)']",
            ":1:19:",
            ["no name follows a '$'", "$$HOME"],
        ),
        (
            "env:\n  A: x\n  B: '${PORT'\n",
            ":3:6:",
            ["'env.B': '${' is not closed", "write '$$'"],
        ),
        (
            "command: bin/app -p ${PORT}",
            ":1:10:",
            ["has no 'PORT'", "'listen: port'"],
        ),
        (
            "env: {A: $CACHE_DIRECTORY}",
            ":1:10:",
            ["has no 'CACHE_DIRECTORY'", "'cache: true'"],
        ),
        (
            "{credentials: [], env: {A: $CREDENTIALS_DIRECTORY/x}}",
            ":1:28:",
            ["has no 'CREDENTIALS_DIRECTORY'", "'credentials'"],
        ),
        (
            "command: ['$STATE_DIRECTORY/app']",
            ":1:11:",
            ["can not run '$STATE_DIRECTORY/app'", "for its arguments"],
        ),
    ] {
        let said = refused(text);
        assert!(said.contains(place), "{said}");
        for part in parts {
            assert!(said.contains(part), "'{part}' is not in: {said}");
        }
    }
    assert!(worker("{cache: true, env: {A: $CACHE_DIRECTORY}}").is_ok());
    assert!(worker("{credentials: [a], env: {A: $CREDENTIALS_DIRECTORY}}").is_ok());
    // A build's are for the shell that it names, and a text names none.
    assert!(worker("build: [sh, -c, 'echo $HOME']").is_ok());
    assert!(refused("build: echo $PORT").contains("to a shell"));
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

#[test]
fn what_systemd_has_a_word_for_is_led_to_our_key() {
    for (key, ours) in [
        ("cpu_quota", "'gomaxprocs'"),
        ("CPUQuotaPeriodSec", "'gomaxprocs'"),
        ("memory_max", "'gomemlimit'"),
        ("private_network", "'network'"),
        ("IPAddressDeny", "'network'"),
        ("load_credential", "'credentials'"),
        ("LoadCredentialEncrypted", "'credentials'"),
        ("state_directory", "STATE_DIRECTORY"),
        ("cache_directory", "'cache: true'"),
        ("MemoryDenyWriteExecute", "'jit: true'"),
        ("exec_start", "'command'"),
        ("environment", "'env'"),
        ("EnvironmentFile", "'env_file'"),
        ("supplementary_groups", "remove it"),
        ("exec_start_pre", "remove it"),
        ("ProtectSystem", "remove it"),
        ("bind_read_only_paths", "remove it"),
        ("capability_bounding_set", "remove it"),
        ("limit_nofile", "remove it"),
        ("gzip", "'compression': true or false"),
        ("brotli_level", "'compression': true or false"),
    ] {
        let text = refused(&format!("{key}: x"));
        assert!(text.contains("a worker can not set"), "{text}");
        assert!(text.contains(ours), "{text}");
    }
}

#[test]
fn network_jit_cache_and_autostart_are_words() {
    let none = worker("").unwrap();
    assert_eq!(none.network, Network::Full);
    assert_eq!((none.jit, none.cache, none.autostart), (None, false, false));
    let all = worker("{network: loopback, jit: false, cache: true, autostart: true}").unwrap();
    assert_eq!(all.network, Network::Loopback);
    assert_eq!(
        (all.jit, all.cache, all.autostart),
        (Some(false), true, true)
    );
    for bad in [
        "network: localhost",
        "jit: 1",
        "cache: yes",
        "autostart: []",
    ] {
        assert!(refused(bad).contains("help:"), "{bad}");
    }
}

#[test]
fn a_port_without_a_network_could_not_be_reached() {
    let text = refused("listen: port\nnetwork: none\n");
    assert!(text.contains("worker.yaml:2:10"), "{text}");
    assert!(text.contains("network: loopback"), "{text}");
    assert!(worker("{listen: port, network: loopback}").is_ok());
    assert!(worker("{listen: socket, network: none}").is_ok());
}

#[test]
fn credentials_are_names_and_no_paths() {
    let names = |text: &str| worker(text).unwrap().credentials;
    assert_eq!(
        names("credentials: [tls.key, db_password, 4-you]"),
        ["4-you", "db_password", "tls.key"]
    );
    assert!(names("credentials: []").is_empty());
    for (bad, column) in [
        ("credentials: ../db", 1),
        ("credentials: [a, ../db]", 18),
        ("credentials: [/etc/shadow]", 15),
        ("credentials: [.hidden]", 15),
        ("credentials: [a, a]", 18),
        ("credentials: ['']", 15),
        ("credentials: ['a b']", 15),
        ("credentials: ['a:b']", 15),
        ("credentials: [ä]", 15),
        ("credentials: [[a]]", 15),
        ("credentials: {a: b}", 1),
    ] {
        let text = refused(bad);
        assert!(text.contains('^') && text.contains("help:"), "{text}");
        if bad.contains('[') {
            assert!(text.contains(&format!(":1:{column}:")), "{text}");
        }
    }
    refused(&format!("credentials: [{}]", "a".repeat(65)));
    let many = |count: usize| {
        let names: Vec<String> = (0..count).map(|name| format!("c{name}")).collect();
        format!("credentials: [{}]", names.join(", "))
    };
    assert_eq!(names(&many(32)).len(), 32);
    refused(&many(33));
}

#[test]
fn env_files_are_paths_inside_the_worker_that_no_browser_sees() {
    let names = |text: &str| worker(text).unwrap().env_files;
    assert_eq!(names("env_file: .env"), [".env"]);
    assert_eq!(
        names("env_file: [./.env, config/b.env]"),
        [".env", "config/b.env"]
    );
    assert!(names("env_file: []").is_empty());
    for (bad, column, part) in [
        ("env_file: /etc/passwd", 11, "inside the worker's directory"),
        ("env_file: [.env, ../other/.env]", 18, "'..'"),
        ("env_file: a/../.env", 11, "'..'"),
        ("env_file: data/.env", 11, "data/"),
        ("env_file: public/.env", 11, "browsers"),
        ("env_file: ./public/a.env", 11, "browsers"),
        ("env_file: config/", 11, "a file"),
        ("env_file: a//b", 11, "a file"),
        ("env_file: ''", 11, "a file"),
        ("env_file: [.env, ./.env]", 18, "a second time"),
        ("env_file: [a, b, c, d, e]", 24, "more than 4"),
        ("env_file: [[a]]", 12, "a list"),
        ("env_file: {A: b}", 1, "'env'"),
    ] {
        let text = refused(bad);
        assert!(text.contains(&format!(":1:{column}:")), "{text}");
        assert!(text.contains(part) && text.contains("help:"), "{text}");
    }
    refused("env_file: \"a\\nb\"");
    refused(&format!("env_file: {}", "a".repeat(LONGEST_PATH + 1)));
}

#[test]
fn a_variable_can_be_one_of_the_workers_secrets() {
    let text =
        "credentials: [db-url, key]\nenv_from_credentials: {DATABASE_URL: db-url, A: db-url}";
    let variables = worker(text).unwrap().env_from_credentials;
    let expected = [("A", "db-url"), ("DATABASE_URL", "db-url")];
    let expected = expected.map(|(name, secret)| (name.to_owned(), secret.to_owned()));
    assert_eq!(variables, expected.into());
    let with = |variable: &str| {
        format!("credentials: [db-url, key]\nenv_from_credentials: {{{variable}}}")
    };
    for (bad, place, parts) in [
        (
            "A: db-urk",
            ":2:27:",
            ["\"db-urk\"", "did you mean 'db-url'?"],
        ),
        (
            "A: other",
            ":2:27:",
            ["\"other\"", "'credentials' has db-url, key"],
        ),
        ("A: [key]", ":2:24:", ["'env_from_credentials.A'", "a list"]),
        ("A: ~", ":2:24:", ["'env_from_credentials.A'", "nothing"]),
        (
            "1A: key",
            ":2:24:",
            ["name of an environment variable", "letters"],
        ),
        ("PORT: key", ":2:24:", ["'PORT' is set", "another name"]),
        (
            "GOMEMLIMIT: key",
            ":2:24:",
            ["'GOMEMLIMIT' is set", "'gomemlimit'"],
        ),
    ] {
        let said = refused(&with(bad));
        for part in [place].iter().chain(&parts) {
            assert!(said.contains(part), "'{part}' is not in: {said}");
        }
    }
    let none = refused("env_from_credentials: {A: db}");
    assert!(none.contains("credentials: [db]"), "{none}");
    let twice = refused("credentials: [a]\nenv: {A: x, B: y}\nenv_from_credentials: {B: a}");
    assert!(
        twice.contains(":3:24:") && twice.contains("'env'"),
        "{twice}"
    );
    let listed = refused("credentials: [a]\nenv_from_credentials: [a]");
    assert!(listed.contains("keys and values"), "{listed}");
}

#[test]
fn no_key_that_takes_a_path_leads_out_of_the_worker() {
    for bad in [
        "command: [../../bin/sh]",
        "command: ../../bin/sh",
        "command: [bin/../../sh]",
        "command: [/srv/../bin/sh]",
        "command: [bin/]",
        "command: [node, ../other/main.js]",
        "command: python3 src/../../other/app.py",
        "build: [../make]",
        "path: /../admin",
        "path: ../admin",
        "credentials: [../../etc/shadow]",
    ] {
        let text = refused(bad);
        assert!(text.contains('^') && text.contains("help:"), "{text}");
    }
    for good in [
        "command: [/usr/bin/ruby, src/main.rb]",
        "command: [git, log, v1..v2]",
        "command: [sh, -c, 'a && b']",
        "build: [make, -C, ../..]",
    ] {
        assert!(worker(good).is_ok(), "{good}");
    }
}

#[test]
fn the_message_for_a_hostile_file_is_short_and_soon_there() {
    let begun = std::time::Instant::now();
    let lines = |line: &dyn Fn(usize) -> String| (0..8_000).map(line).collect::<String>();
    let bomb = |levels: usize| {
        let first = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        let next = |level: usize| {
            let alias = format!("*a{}", level - 1);
            format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "))
        };
        first + &(1..levels).map(next).collect::<String>()
    };
    for (what, text) in [
        ("unknown keys", lines(&|line| format!("key{line}: x\n"))),
        ("one key again", lines(&|_| "user: root\n".to_owned())),
        (
            "variables",
            lines(&|line| {
                format!(
                    "{}LISTEN_FDS{line}: [1]\n",
                    if line == 0 { "env:\n  " } else { "  " }
                )
            }),
        ),
        ("words", format!("command: [a{}]", ", a".repeat(10_000))),
        (
            "items that are none",
            format!("command: [a{}]", ", {}".repeat(10_000)),
        ),
        (
            "names",
            format!("credentials: [{}]", "../x, ".repeat(10_000)),
        ),
        ("aliases", bomb(10)),
        (
            "aliases after what only one parser reads",
            format!("a: |#\n  b\n{}", bomb(10)),
        ),
        ("brackets", "[".repeat(1 << 20)),
        ("maps", "{a: ".repeat(1 << 18)),
        (
            "lines inside lines",
            (0..500)
                .map(|depth| format!("{}a:\n", " ".repeat(depth)))
                .collect(),
        ),
        ("a long key", format!("{}: x", "k".repeat(1000))),
        ("a long text", format!("path: {}", "p".repeat(1 << 20))),
        ("a long route", format!("path: /{}", "p".repeat(1 << 20))),
        (
            "a long program",
            format!("command: ../{}", "p".repeat(1 << 20)),
        ),
        ("a long type", format!("type: {}", "p".repeat(1 << 20))),
        (
            "a long health path",
            format!("health: {{path: /{}}}", "p".repeat(1 << 20)),
        ),
        ("a number as text", format!("path: {}", "1".repeat(1 << 19))),
    ] {
        let problems = match worker(&text) {
            Ok(_) => panic!("{what} was accepted"),
            Err(problems) => problems,
        };
        assert!(problems.0.len() <= 41, "{what}: {}", problems.0.len());
        let printed = problems.to_string();
        assert!(printed.len() < 40_000, "{what}: {} bytes", printed.len());
        assert!(!printed.contains('\0'), "{what}");
    }
    let text = refused(&lines(&|line| format!("key{line}: x\n")));
    assert!(text.contains("has 7960 more problems"), "{text}");
    // A bound that a debug build on a loaded machine keeps; the cost that is guarded against would be hours.
    assert!(begun.elapsed().as_secs() < 60, "took {:?}", begun.elapsed());
}

#[test]
fn what_the_proxy_serves_of_the_state_is_below_it_and_no_directory_is_in_another() {
    let files = |text: &str| worker(text).unwrap().on_route.files;
    let read = files("files: {/media: media, /wp/uploads/: site/up-loads, /old: media}");
    let read: Vec<_> = read
        .iter()
        .map(|(place, directory)| format!("{place} {directory}"))
        .collect();
    assert_eq!(
        read,
        ["/media media", "/old media", "/wp/uploads site/up-loads"]
    );
    assert!(files("files: {}").is_empty());
    for text in [
        "files: {media: media}",
        "files: {/../x: media}",
        "files: {/.git: media}",
        "files: {/media: ..}",
        "files: {/media: a/../..}",
        "files: {/media: /etc}",
        "files: {/media: .}",
        "files: {/media: ''}",
        "files: {/media: a//b}",
        "files: {/media: .hidden}",
        "files: {/media: 'a b'}",
        "files: {/media: 'a:b'}",
        "files: {/media: 'a%n'}",
        "files: {/media: [a]}",
        "files: [media]",
        "files: {/a: media, /b: media/small}",
        "{files: {/a: media}, type: static}",
    ] {
        refused(text);
    }
    let many: Vec<String> = (0..17).map(|n| format!("/{n}: d{n}")).collect();
    refused(&format!("files: {{{}}}", many.join(", ")));
}

#[test]
fn what_persists_is_a_directory_of_the_workers_own() {
    let persist = |text: &str| worker(text).unwrap().persisted;
    assert_eq!(persist("persist: wp-content"), ["wp-content"]);
    assert_eq!(
        persist("persist: [public/wp-content/plugins, conf]"),
        ["public/wp-content/plugins", "conf"]
    );
    for text in [
        "persist: []",
        "persist: /etc",
        "persist: [a, ../b]",
        "persist: [.]",
        "persist: [.git]",
        "persist: [config]",
        "persist: [config/worker.yaml]",
        "persist: [data]",
        "persist: [a, a]",
        "persist: [a, a/b]",
        "persist: ['a b']",
        "persist: {a: b}",
        "{persist: [a], type: static}",
    ] {
        refused(text);
    }
    let many: Vec<String> = (0..17).map(|n| format!("d{n}")).collect();
    refused(&format!("persist: [{}]", many.join(", ")));
}
