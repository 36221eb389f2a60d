use super::*;
use crate::config::{Exposure, KernelPart, Limits, Network};
use crate::limits::{ByteSize, CpuQuota};
use crate::names::{Generation, WorkerName};
use crate::route::Timeouts;

fn pair(address: Address) -> UnitPair {
    let second = Duration::from_secs(1);
    UnitPair {
        number: 1,
        instance: Instance::new(WorkerName::parse("api.a-b").unwrap(), Generation(7)),
        route: RoutePath::parse("/api/a-b").unwrap(),
        mode: Mode::Production,
        address,
        socket_group: Some("tqserver".to_owned()),
        directory: "/srv/x".into(),
        data: "/var/lib/x".into(),
        cache: None,
        stored: Vec::new(),
        persisted: Vec::new(),
        command: vec!["/srv/x/bin/a-b".to_owned(), "100% sure".to_owned()],
        starter: "/usr/bin/true".into(),
        env: BTreeMap::from([("GREETING".to_owned(), "a \"b\" $c".to_owned())]),
        limits: Limits {
            gomaxprocs: Some(CpuQuota { cores: 2 }),
            gomemlimit: Some(ByteSize(100 << 20)),
            tasks_max: Some(64),
            memory_high: None,
            state_max: None,
            cpu_weight: None,
            io_weight: None,
            instances: 1,
            access_log: false,
            compression: true,
            max_requests: 0,
            timeouts: Timeouts {
                read: second,
                write: second,
                idle: second,
            },
            flow: crate::route::Flow::default(),
            log_file: String::new(),
        },
        sandbox: None,
        credentials: Vec::new(),
        secret_env: BTreeMap::new(),
        written: None,
        stop_signal: None,
        accepted: false,
        output: None,
        stop_timeout: second,
        record: "{}".to_owned(),
    }
}

#[test]
fn a_generation_is_shown_as_its_unit_files() {
    let text = pair(Address::Unix("/run/tqserver/api.a-b@7.sock".into())).to_unit_files();
    for line in [
        "# tqserver-api.a-b@7.socket",
        "ListenStream=/run/tqserver/api.a-b@7.sock",
        "SocketMode=0660",
        "SocketGroup=tqserver",
        "# tqserver-api.a-b@7.service",
        "ExecStart=/usr/bin/true start-worker 1 -- /srv/x/bin/a-b \"100~25~20sure\"",
        "Slice=tqserver-api.a\\x2db.slice",
        "CPUQuota=200%",
        "MemoryMax=104857600",
        "TasksMax=64",
        "LogExtraFields=TQ_WORKER=api.a-b TQ_GENERATION=7 TQ_ROUTE=/api/a-b",
        "StandardOutput=journal",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(
        text.contains(
            r#"GOMAXPROCS=2 GOMEMLIMIT=94371840B "GREETING=a \"b\" $c" HOME=/var/lib/x STATE_DIRECTORY=/var/lib/x WORKER_INSTANCE=1 WORKER_MODE=production"#
        ),
        "{text}"
    );
}

#[test]
fn each_further_instance_has_units_of_its_own_name_and_is_told_its_number() {
    let mut pair = pair(Address::Unix("/run/tqserver/api.a-b@7.2.sock".into()));
    pair.number = 2;
    let text = pair.to_unit_files();
    for part in [
        "# tqserver-api.a-b@7.2.socket",
        "# tqserver-api.a-b@7.2.service",
        "Description=TQServer worker api.a-b, generation 7, instance 2\n",
        "Description=TQServer worker api.a-b, generation 7, instance 2 (not yet accepted)",
        " WORKER_INSTANCE=2 ",
        "Slice=tqserver-api.a\\x2db.slice",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn a_worker_on_a_port_has_no_socket_unit() {
    let pair = pair(Address::Tcp(([127, 0, 0, 1], 9000).into()));
    assert!(pair.socket_properties().is_empty());
    let text = pair.to_unit_files();
    assert!(
        !text.contains("[Socket]")
            && text.contains("PORT=9000")
            && text.contains("WORKER_PORT=9000")
            && text.contains(" HOST=127.0.0.1 "),
        "{text}"
    );
}

fn sandboxed(network: Network, jit: bool) -> UnitPair {
    let mut pair = pair(Address::Unix("/run/tqserver/api.a-b@7.sock".into()));
    pair.directory = "/var/lib/tqserver/.snapshots/api.a-b/7".into();
    pair.command = vec!["/bin/true".to_owned()];
    pair.limits.memory_high = Some(ByteSize(80 << 20));
    pair.limits.cpu_weight = Some(50);
    pair.limits.io_weight = Some(60);
    pair.credentials = vec![
        Credential {
            name: "db".to_owned(),
            path: "/etc/tqserver/credentials/api.a-b/db".into(),
            encrypted: false,
        },
        Credential {
            name: "key".to_owned(),
            path: "/etc/tqserver/credentials/api.a-b/key.cred".into(),
            encrypted: true,
        },
    ];
    pair.sandbox = Some(Sandbox {
        user: "tqw-api_a-b".to_owned(),
        network,
        jit,
        kernel: Vec::new(),
        ports: 9000..=9999,
        cache: true,
        snapshots: "/var/lib/tqserver/.snapshots".into(),
        hidden: vec!["/etc/tqserver".into(), "/srv/my workers".into()],
    });
    pair
}

fn has(pair: &UnitPair, lines: &[&str]) {
    let (_, text) = pair.service_file();
    for line in lines {
        assert!(
            text.lines().any(|found| found == *line),
            "{line} is not in\n{text}"
        );
    }
}

#[test]
fn a_worker_of_the_machine_has_a_user_and_directories_of_its_own() {
    let mut pair = sandboxed(Network::Full, false);
    pair.secret_env = [("KEY", "a.b-c"), ("DB_URL", "db")]
        .map(|(name, secret)| (name.to_owned(), secret.to_owned()))
        .into();
    has(
        &pair,
        &[
            "DynamicUser=yes",
            "User=tqw-api_a-b",
            "StateDirectory=tqserver/api.a-b",
            "StateDirectoryMode=0700",
            "CacheDirectory=tqserver/api.a-b",
            "UMask=0077",
            "CapabilityBoundingSet=",
            "TemporaryFileSystem=/var/lib/tqserver/.snapshots:ro /dev/shm:mode=1777,nosuid,nodev",
            "BindReadOnlyPaths=/var/lib/tqserver/.snapshots/api.a-b/7",
            "InaccessiblePaths=-/etc/tqserver \"-/srv/my workers\" -/run/dbus -/run/systemd/private -/run/systemd/notify -/run/systemd/journal -/run/systemd/transient -/run/systemd/units -/run/systemd/io.systemd.Credentials -/run/systemd/io.systemd.Hostname -/run/systemd/io.system.ManagedOOM",
            "SystemCallFilter=~@privileged @resources io_uring_setup io_uring_enter io_uring_register @keyring",
            "SystemCallFilter=sched_setaffinity sched_setattr sched_setparam sched_setscheduler setpriority",
            "RestrictRealtime=yes",
            "ExecStart=/usr/bin/true start-worker 1 close-netlink secret-env=DB_URL:db secret-env=KEY:a.b-c -- /bin/true",
            "MemoryHigh=83886080",
            "CPUWeight=50",
            "IOWeight=60",
            "LoadCredential=db:/etc/tqserver/credentials/api.a-b/db",
            "LoadCredentialEncrypted=key:/etc/tqserver/credentials/api.a-b/key.cred",
        ],
    );
    // systemd tells it where they are.
    assert!(!pair.service_file().1.contains("STATE_DIRECTORY="));
}

#[test]
fn what_it_reaches_of_the_network_is_what_it_asks_for() {
    let internet = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK";
    has(&sandboxed(Network::Full, false), &[internet]);
    has(
        &sandboxed(Network::Loopback, false),
        &[internet, "IPAddressDeny=any", "IPAddressAllow=localhost"],
    );
    let none = sandboxed(Network::None, false);
    has(
        &none,
        &["PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX"],
    );
    // Nor is it to ask those who reach it.
    assert!(none.service_file().1.contains("-/run/systemd/resolve"));
}

#[test]
fn of_the_ports_of_workers_each_has_its_own() {
    let mut pair = sandboxed(Network::Full, false);
    has(&pair, &["SocketBindDeny=tcp:9000-9999"]);
    assert!(!pair.service_file().1.contains("SocketBindAllow"));
    pair.address = Address::Tcp(([127, 0, 0, 1], 9007).into());
    pair.env.insert("HOST".to_owned(), "::1".to_owned());
    has(
        &pair,
        &["SocketBindDeny=tcp:9000-9999", "SocketBindAllow=tcp:9007"],
    );
    assert!(pair.service_file().1.contains(" HOST=::1 "));
    // There is no port where there is no network.
    assert!(
        !sandboxed(Network::None, false)
            .service_file()
            .1
            .contains("SocketBind")
    );
}

#[test]
fn what_makes_machine_code_may_and_sees_the_machine_it_makes_it_for() {
    has(
        &sandboxed(Network::Full, false),
        &["MemoryDenyWriteExecute=yes", "ProcSubset=pid"],
    );
    let jit = sandboxed(Network::Full, true);
    has(&jit, &["ProcSubset=all"]);
    assert!(!jit.service_file().1.contains("MemoryDenyWriteExecute"));
}

#[test]
fn what_of_the_kernel_few_need_is_open_to_those_that_name_it() {
    let mut pair = sandboxed(Network::None, false);
    pair.sandbox.as_mut().unwrap().kernel = vec![KernelPart::IoUring];
    has(
        &pair,
        &["SystemCallFilter=~@privileged @resources @keyring"],
    );
    pair.sandbox.as_mut().unwrap().kernel = vec![KernelPart::IoUring, KernelPart::Keyrings];
    has(&pair, &["SystemCallFilter=~@privileged @resources"]);
}

#[test]
fn a_worker_is_shown_the_program_that_starts_it_wherever_that_lies() {
    let mut pair = sandboxed(Network::None, false);
    pair.starter = "/home/ann/my projects/tqserver".into();
    has(
        &pair,
        &[
            "ExecStart=/var/lib/tqserver/.snapshots/.start start-worker 1 -- /bin/true",
            "BindReadOnlyPaths=/var/lib/tqserver/.snapshots/api.a-b/7 \"/home/ann/my projects/tqserver\":/var/lib/tqserver/.snapshots/.start",
        ],
    );
    // Without a sandbox it sees all there is.
    pair.sandbox = None;
    has(
        &pair,
        &["ExecStart=\"/home/ann/my projects/tqserver\" start-worker 1 -- /bin/true"],
    );
}

#[test]
fn without_a_sandbox_the_worker_is_told_its_directories() {
    let mut pair = pair(Address::Unix("/run/tqserver/api.a-b@7.sock".into()));
    pair.cache = Some("/var/cache/x".into());
    let (_, text) = pair.service_file();
    assert!(
        text.contains("STATE_DIRECTORY=/var/lib/x")
            && text.contains("CACHE_DIRECTORY=/var/cache/x"),
        "{text}"
    );
}

#[test]
fn in_production_a_worker_is_at_home_where_it_can_write() {
    let mut pair = sandboxed(Network::Full, false);
    pair.data = "/var/lib/tqserver/api.a-b".into();
    let told = |pair: &UnitPair, name: &str| {
        let environment = pair.environment();
        let mut values = environment.iter().filter_map(|entry| entry.split_once('='));
        values
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.to_owned())
    };
    let home = Some("/var/lib/tqserver/api.a-b".to_owned());
    assert_eq!(told(&pair, "HOME"), home);
    assert_eq!(told(&pair, "XDG_CACHE_HOME"), None);
    pair.cache = Some("/var/cache/tqserver/api.a-b".into());
    let cache = Some("/var/cache/tqserver/api.a-b".to_owned());
    assert_eq!(told(&pair, "XDG_CACHE_HOME"), cache);
    for name in ["HOME", "XDG_CACHE_HOME"] {
        pair.env.insert(name.to_owned(), "/tmp".to_owned());
        assert_eq!(told(&pair, name), Some("/tmp".to_owned()));
    }
    // A developer's toolchains keep their own there.
    pair.env.clear();
    pair.mode = Mode::Development;
    assert_eq!(told(&pair, "HOME"), None);
    assert_eq!(told(&pair, "XDG_CACHE_HOME"), None);
}

/// The property that carries a directive on the bus, where its name is another.
fn on_the_bus(key: &str) -> &str {
    match key {
        "CPUQuota" => "CPUQuotaPerSecUSec",
        "RestartSec" => "RestartUSec",
        "TimeoutStopSec" => "TimeoutStopUSec",
        "StartLimitIntervalSec" => "StartLimitIntervalUSec",
        other => other,
    }
}

#[test]
fn what_is_shown_is_what_the_bus_is_told() {
    for network in [Network::Full, Network::Loopback, Network::None] {
        let pair = sandboxed(network, false);
        let (_, text) = pair.service_file();
        let shown: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once('=').map(|(key, _)| on_the_bus(key)))
            .collect();
        let told: Vec<&str> = pair
            .service_properties(257)
            .iter()
            .map(|(property, _)| *property)
            .filter(|property| *property != RECORD)
            .collect();
        assert_eq!(shown, told);
    }
}

#[test]
fn a_quota_of_the_state_is_sent_to_systemds_that_have_it() {
    let quota = |pair: &UnitPair, version| {
        let properties = pair.service_properties(version).into_iter();
        let mut quotas = properties.filter(|(name, _)| *name == "StateDirectoryQuota");
        quotas.next().map(|(_, value)| value)
    };
    let mut pair = sandboxed(Network::Full, false);
    assert_eq!(quota(&pair, 258), None, "no limit");
    pair.limits.state_max = Some(ByteSize(2 << 30));
    for version in [0, 252, 257] {
        assert_eq!(quota(&pair, version), None, "{version}");
    }
    let value = quota(&pair, 258).unwrap();
    assert_eq!(value.value_signature().to_string(), "(tus)");
    assert_eq!(value, (2_u64 << 30, u32::MAX, "yes").into());
    assert!(quota(&pair, 261).is_some());
    // It cannot be set while a service runs.
    let lowered = limit_properties(&pair.limits);
    assert!(
        lowered
            .iter()
            .all(|(name, _)| *name != "StateDirectoryQuota")
    );
    // Without a sandbox the directory is not systemd's.
    pair.sandbox = None;
    assert_eq!(quota(&pair, 258), None);
}

#[test]
fn systemd_knows_every_directive_of_the_sandbox() {
    let directory = std::env::temp_dir().join(format!("tqserver-verify-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let mut files = Vec::new();
    for (number, network) in [Network::Full, Network::Loopback, Network::None]
        .into_iter()
        .enumerate()
    {
        let mut pair = sandboxed(network, number == 0);
        pair.instance.generation = Generation(number as u64);
        let (name, text) = pair.service_file();
        let file = directory.join(name);
        std::fs::write(&file, text).unwrap();
        files.push(file);
    }
    let verify = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&files)
        .env("SYSTEMD_LOG_LEVEL", "warning")
        .output()
        .expect("systemd-analyze, of the package systemd");
    let _ = std::fs::remove_dir_all(&directory);
    let said = String::from_utf8_lossy(&verify.stderr);
    let complaints: Vec<_> = said
        .lines()
        .filter(|line| line.contains("tqserver-api"))
        .collect();
    assert_eq!(complaints, Vec::<&str>::new());
}

#[test]
fn the_exposure_of_a_worker_is_what_was_promised() {
    for (network, jit, most) in [
        (Network::Full, false, 15),
        (Network::Full, true, 15),
        (Network::Loopback, false, 13),
        (Network::None, false, 6),
        (Network::None, true, 6),
    ] {
        let pair = sandboxed(network, jit);
        let found = crate::systemd::security::exposures(std::slice::from_ref(&pair)).unwrap();
        let exposed = &found[&pair.instance];
        assert!(
            exposed.exposure <= Exposure(most) && exposed.exposure > Exposure(0),
            "{network:?}, jit {jit}: {exposed}: {}",
            exposed.weights()
        );
    }
}

#[test]
fn a_line_break_in_a_variable_ends_no_line_of_the_text() {
    assert_eq!(
        super::directive::quote("KEY=-----BEGIN-----\na\tb\r%\u{1}\u{85}\n"),
        r#""KEY=-----BEGIN-----\na\tb\r%%\x01\xc2\x85\n""#
    );
}

#[test]
fn what_the_proxy_serves_of_the_state_lies_apart_and_the_rest_is_closed() {
    let mut pair = sandboxed(Network::Full, false);
    has(&pair, &["StateDirectoryMode=0700", "UMask=0077"]);
    pair.data = "/var/lib/tqserver/api.a-b".into();
    pair.stored = vec!["media".to_owned(), "site/up".to_owned()];
    has(
        &pair,
        &[
            "StateDirectory=tqserver/api.a-b tqserver/.files/api.a-b/media tqserver/.files/api.a-b/site/up",
            "StateDirectoryMode=0711",
            "UMask=0022",
        ],
    );
    let start = "link /var/lib/private/tqserver/.files/api.a-b/site/up /var/lib/tqserver/api.a-b/site/up --";
    assert!(pair.command_line().join(" ").contains(start));
    let environment = pair.environment();
    let state = "STATE_DIRECTORY=/var/lib/tqserver/api.a-b".to_owned();
    assert!(environment.contains(&state), "{environment:?}");
}

#[test]
fn what_persists_is_filled_with_what_was_deployed() {
    let mut pair = sandboxed(Network::Full, false);
    pair.data = "/var/lib/tqserver/api.a-b".into();
    pair.persisted = vec!["wp/plugins".to_owned()];
    let files = "/var/lib/tqserver/.snapshots/api.a-b/7";
    let start = format!(
        "fill {files}/.tqserver-shipped/wp/plugins {}/wp/plugins --",
        pair.data.display()
    );
    assert!(pair.command_line().join(" ").contains(&start));
    has(&pair, &["StateDirectory=tqserver/api.a-b"]);
}
