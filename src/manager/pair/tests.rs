use std::fs;

use super::*;
use crate::config::Settings;
use crate::inventory::{self, Fingerprint, Status};
use crate::names::{Generation, Instance};

/// A server with one worker, `api/shop`, in a directory of its own.
struct House {
    root: PathBuf,
    settings: WorkerSettings,
    /// What was read of its `env_file`.
    from_files: BTreeMap<String, String>,
    /// The directories of its own programs.
    programs: Vec<PathBuf>,
}

impl House {
    fn new(name: &str) -> Self {
        let root =
            std::env::temp_dir().join(format!("tqserver-pair-{}-{name}", std::process::id()));
        let worker = root.join("workers/api/shop");
        fs::create_dir_all(worker.join("bin")).unwrap();
        fs::create_dir_all(root.join("config")).unwrap();
        fs::write(worker.join("bin/shop"), "#!/bin/sh\n").unwrap();
        let mut permissions = fs::metadata(worker.join("bin/shop")).unwrap().permissions();
        permissions.set_mode(0o755);
        fs::set_permissions(worker.join("bin/shop"), permissions).unwrap();
        let server = Settings::parse(&root.join("config/server.yaml"), "").unwrap();
        let found = inventory::scan(&server, Mode::Production).unwrap();
        let found = found.workers.into_values().next().expect("one worker");
        let Status::Enabled(settings) = found.status else {
            panic!("{:?}", found.status);
        };
        Self {
            root,
            settings: *settings,
            from_files: BTreeMap::new(),
            programs: Vec::new(),
        }
    }

    fn secret(&self, name: &str, mode: u32) -> PathBuf {
        let directory = self.root.join("config/credentials/api.shop");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn pair(&self, kind: Kind, mode: Mode) -> Result<UnitPair, Reason> {
        let address = Address::Unix("/run/tqserver/api.shop@7.sock".into());
        self.instance(kind, mode, 1, address)
    }

    fn instance(
        &self,
        kind: Kind,
        mode: Mode,
        number: u8,
        address: Address,
    ) -> Result<UnitPair, Reason> {
        let file = self.root.join("config/server.yaml");
        let ground = Ground {
            kind,
            mode,
            file: &file,
            project: &self.root,
            state: (mode == Mode::Production).then_some(Path::new("/var/lib/tqserver")),
            group: Some("tqserver"),
            journal: &Journal::Journald { user: false },
            starter: Path::new("/usr/bin/tqserver"),
        };
        let spec = Spec {
            settings: self.settings.clone(),
            fingerprint: Fingerprint::default(),
            directory: self.root.join("workers/api/shop"),
            public: None,
            passed_over: None,
        };
        let instance = Instance::new(self.settings.name.clone(), Generation(7));
        let run = Run {
            address,
            files: "/var/lib/tqserver/.snapshots/api.shop/7".into(),
            command: match &self.settings.command {
                Some(command) => command.clone(),
                None => vec!["/srv/$PORT/true".to_owned(), "$PORT".to_owned()],
            },
            programs: self.programs.clone(),
            workers: vec![self.root.join("workers")],
            ports: 9000..=9999,
            accepted: false,
            stop_timeout: Duration::from_secs(1),
            user: None,
            from_files: self.from_files.clone(),
            one_off: None,
            record: String::new(),
            pair: instance.pair(number),
        };
        ground.pair(&spec, run)
    }

    fn refuses(&self, parts: &[&str]) {
        let reason = self.pair(Kind::System, Mode::Production).unwrap_err();
        let said = reason.to_string();
        for part in parts {
            assert!(said.contains(part), "'{part}' is not in: {said}");
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[test]
fn only_the_machines_systemd_in_production_gives_a_sandbox() {
    let house = House::new("kinds");
    let has = |kind, mode| house.pair(kind, mode).unwrap().sandbox.is_some();
    assert!(has(Kind::System, Mode::Production));
    assert!(!has(Kind::System, Mode::Development));
    assert!(!has(Kind::User, Mode::Production));
    assert!(!has(Kind::Private, Mode::Production));
}

#[test]
fn a_worker_does_not_see_what_is_ours_or_anothers() {
    let house = House::new("hidden");
    let pair = house.pair(Kind::System, Mode::Production).unwrap();
    let sandbox = pair.sandbox.unwrap();
    assert_eq!(sandbox.snapshots, Path::new("/var/lib/tqserver/.snapshots"));
    for path in [
        house.root.join("config"),
        house.root.join("workers"),
        "/run/tqserver".into(),
        "/var/lib/tqserver/.public".into(),
    ] {
        assert!(sandbox.hidden.contains(&path), "{}", path.display());
    }
}

#[test]
fn a_server_yaml_among_other_files_hides_itself_alone() {
    let house = House::new("shared");
    let ground = Ground {
        kind: Kind::System,
        mode: Mode::Production,
        file: Path::new("/etc/server.yaml"),
        project: Path::new("/etc"),
        state: Some(Path::new("/var/lib/tqserver")),
        group: None,
        journal: &Journal::Journald { user: false },
        starter: Path::new("/usr/bin/tqserver"),
    };
    let run = Run {
        pair: Instance::new(house.settings.name.clone(), Generation(7)).pair(1),
        address: Address::Unix("/run/tqserver/api.shop@7.sock".into()),
        files: "/var/lib/tqserver/.snapshots/api.shop/7".into(),
        command: Vec::new(),
        programs: Vec::new(),
        workers: vec!["/srv".into(), "/usr/lib/workers".into()],
        ports: 9000..=9999,
        accepted: false,
        stop_timeout: Duration::from_secs(1),
        user: None,
        from_files: BTreeMap::new(),
        one_off: None,
        record: String::new(),
    };
    let hidden = ground.hidden(Path::new("/var/lib/tqserver"), &run);
    assert!(hidden.contains(&"/etc/server.yaml".into()) && !hidden.contains(&"/etc".into()));
    assert!(hidden.contains(&"/srv".into()) && hidden.contains(&"/usr/lib/workers".into()));
}

#[test]
fn the_directories_of_a_worker_lie_beside_each_other() {
    let mut house = House::new("data");
    house.settings.cache = true;
    let pair = house.pair(Kind::User, Mode::Production).unwrap();
    assert_eq!(pair.data, Path::new("/var/lib/tqserver/api.shop"));
    assert_eq!(
        pair.cache.unwrap(),
        Path::new("/var/lib/tqserver/.cache/api.shop")
    );
    let pair = house.pair(Kind::User, Mode::Development).unwrap();
    assert_eq!(pair.data, house.root.join("workers/api/shop/data"));
}

#[test]
fn each_instance_has_what_its_arguments_and_variables_name() {
    let mut house = House::new("variables");
    house.secret("db", 0o600);
    house.settings.listen = Listen::Port;
    house.settings.cache = true;
    house.settings.credentials = vec!["db".to_owned()];
    let command = [
        "/srv/$PORT/serve",
        "-p$PORT",
        "$$PORT",
        "${STATE_DIRECTORY}/db",
    ];
    house.settings.command = Some(command.map(str::to_owned).into());
    let names = "${CACHE_DIRECTORY} ${CREDENTIALS_DIRECTORY} ${WORKER_NAME} ${WORKER_ROUTE}";
    let env = [("NAMES".to_owned(), names.to_owned())];
    house.settings.env = env.into();
    let mode = Mode::Production;
    let pair = |kind, number: u8| {
        let address = Address::loopback(9000 + u16::from(number));
        house.instance(kind, mode, number, address).unwrap()
    };
    for (number, unit) in [(1, "api.shop@7"), (2, "api.shop@7.2")] {
        let system = pair(Kind::System, number);
        assert_eq!(
            system.command,
            [
                "/srv/$PORT/serve",
                &format!("-p900{number}"),
                "$PORT",
                "/var/lib/tqserver/api.shop/db"
            ]
        );
        assert_eq!(
            system.env["NAMES"],
            format!(
                "/var/cache/tqserver/api.shop /run/credentials/tqserver-{unit}.service api.shop /api/shop"
            )
        );
    }
    let private = pair(Kind::Private, 1);
    let secrets = house.root.join("config/credentials/api.shop");
    let cache = "/var/lib/tqserver/.cache/api.shop";
    assert_eq!(
        private.env["NAMES"],
        format!("{cache} {} api.shop /api/shop", secrets.display())
    );
}

#[test]
fn what_is_in_files_stays_as_it_is_and_worker_yaml_is_over_it() {
    let mut house = House::new("files");
    let variables = |all: [(&str, &str); 2]| {
        all.map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    };
    house.from_files = variables([("A", "$WORKER_NAME"), ("B", "file")]);
    house.settings.env = variables([("B", "$WORKER_NAME"), ("C", "yaml")]);
    let pair = house.pair(Kind::System, Mode::Production).unwrap();
    let expected = [("A", "$WORKER_NAME"), ("B", "api.shop"), ("C", "yaml")];
    for (name, value) in expected {
        assert_eq!(pair.env[name], value, "{name}");
    }
}

#[test]
fn the_value_of_a_secret_is_not_in_the_units() {
    let mut house = House::new("valueless");
    house.secret("db-url", 0o600);
    house.settings.credentials = vec!["db-url".to_owned()];
    let variable = ("DATABASE_URL".to_owned(), "db-url".to_owned());
    house.settings.env_from_credentials = [variable].into();
    house.from_files = [("DATABASE_URL".to_owned(), "a developer's".to_owned())].into();
    for kind in [Kind::System, Kind::User, Kind::Private] {
        let text = house.pair(kind, Mode::Production).unwrap().to_unit_files();
        let told = " secret-env=DATABASE_URL:db-url ";
        assert!(text.contains(told), "{text}");
        assert!(
            !text.contains("DATABASE_URL=a dev") && !text.contains("\nsecret"),
            "{text}"
        );
    }
}

#[test]
fn its_own_programs_come_first_unless_it_says_so_itself() {
    let mut house = House::new("programs");
    let env = |house: &House, name: &str| {
        let pair = house.pair(Kind::System, Mode::Production).unwrap();
        pair.env.get(name).cloned()
    };
    assert_eq!(env(&house, "PATH"), None);
    let files = "/var/lib/tqserver/.snapshots/api.shop/7";
    house.programs = [".venv/bin", "node_modules/.bin"]
        .map(|programs| Path::new(files).join(programs))
        .to_vec();
    assert_eq!(
        env(&house, "PATH").unwrap(),
        format!(
            "{files}/.venv/bin:{files}/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        )
    );
    let environment = env(&house, "VIRTUAL_ENV");
    assert_eq!(environment, Some(format!("{files}/.venv")));
    let own = ("PATH".to_owned(), "/opt/bin".to_owned());
    house.settings.env = [own].into();
    assert_eq!(env(&house, "PATH").unwrap(), "/opt/bin");
}

#[test]
fn what_a_type_runs_has_no_variables() {
    let house = House::new("literal");
    let address = Address::loopback(9001);
    let pair = house.instance(Kind::System, Mode::Production, 1, address);
    assert_eq!(pair.unwrap().command, ["/srv/$PORT/true", "$PORT"]);
}

#[test]
fn a_secret_is_found_plain_or_encrypted() {
    let mut house = House::new("secrets");
    house.settings.credentials = vec!["db".to_owned(), "key".to_owned()];
    let plain = house.secret("db", 0o600);
    // Nobody reads anything in an encrypted one.
    let sealed = house.secret("key.cred", 0o644);
    let pair = house.pair(Kind::System, Mode::Production).unwrap();
    let credential = |name: &str, path: PathBuf, encrypted| Credential {
        name: name.to_owned(),
        path,
        encrypted,
    };
    assert_eq!(
        pair.credentials,
        [
            credential("db", plain, false),
            credential("key", sealed, true)
        ]
    );
}

#[test]
fn a_private_systemd_hands_nothing_over_and_the_worker_is_told_where_to_look() {
    let mut house = House::new("private");
    house.settings.credentials = vec!["db".to_owned()];
    let path = house.secret("db", 0o600);
    let pair = house.pair(Kind::Private, Mode::Development).unwrap();
    assert_eq!(pair.credentials, []);
    assert_eq!(
        pair.env["CREDENTIALS_DIRECTORY"],
        path.parent().unwrap().display().to_string()
    );
    fs::remove_file(path).unwrap();
    house.secret("db.cred", 0o600);
    let refused = house.pair(Kind::Private, Mode::Development).unwrap_err();
    assert!(refused.to_string().contains("can not decrypt"), "{refused}");
}

#[test]
fn a_missing_secret_is_told_with_the_command_that_makes_it() {
    let mut house = House::new("missing");
    house.settings.credentials = vec!["db".to_owned()];
    house.refuses(&[
        "`credentials: db`",
        "config/credentials/api.shop/db.cred",
        "systemd-creds encrypt --name=db - ",
    ]);
}

#[test]
fn a_secret_that_others_can_read_is_none() {
    let mut house = House::new("readable");
    house.settings.credentials = vec!["db".to_owned()];
    let path = house.secret("db", 0o640);
    house.refuses(&[
        "others can read",
        "0640",
        &format!("chmod 600 {}", path.display()),
    ]);
}

#[test]
fn a_secret_in_two_places_is_not_chosen_from() {
    let mut house = House::new("both");
    house.settings.credentials = vec!["db".to_owned()];
    house.secret("db", 0o600);
    house.secret("db.cred", 0o600);
    house.refuses(&["there are both", "remove one"]);
}

#[test]
fn a_port_that_nobody_could_reach_is_refused() {
    let mut house = House::new("port");
    house.settings.listen = Listen::Port;
    house.settings.network = Network::None;
    house.refuses(&["`network: none` and `listen: port`"]);
}

#[test]
fn a_promise_about_the_network_is_kept_or_not_made() {
    let mut house = House::new("network");
    let enforce = |settings: &WorkerSettings, kind| {
        let ground = Ground {
            kind,
            mode: Mode::Production,
            file: Path::new("/etc/tqserver/server.yaml"),
            project: Path::new("/etc/tqserver"),
            state: Some(Path::new("/var/lib/tqserver")),
            group: None,
            journal: &Journal::Journald { user: false },
            starter: Path::new("/usr/bin/tqserver"),
        };
        ground.enforce_network(settings)
    };
    house.settings.network = Network::Loopback;
    let kept = enforce(&house.settings, Kind::System);
    assert_eq!(kept.is_ok(), filters_addresses(), "{kept:?}");
    // Nobody promised anything.
    assert!(enforce(&house.settings, Kind::Private).is_ok());
    // A name space is not a filter: it holds everywhere.
    house.settings.network = Network::None;
    assert!(enforce(&house.settings, Kind::System).is_ok());
}

#[test]
fn php_fpm_is_handed_its_configuration_and_ends_by_its_own_signal() {
    let mut house = House::new("php");
    let plain = house.pair(Kind::System, Mode::Production).unwrap();
    assert_eq!((plain.written, plain.stop_signal), (None, None));
    house.settings.document_root = Some(crate::config::DocumentRoot::Public);
    let pair = house.pair(Kind::System, Mode::Production).unwrap();
    assert_eq!(pair.stop_signal, Some(StopSignal::Quit));
    assert_eq!(
        pair.env.get("FPM_SOCKETS").map(String::as_str),
        Some("/dev/null/worker=3")
    );
    let word = "/run/credentials/tqserver-api.shop@7.service/.php-fpm.conf".to_owned();
    assert!(pair.command.contains(&word), "{:?}", pair.command);
    assert!(!pair.command.contains(&"--allow-to-run-as-root".to_owned()));
    let text = pair.to_unit_files();
    for line in [
        "KillSignal=SIGQUIT",
        "SetCredential=.php-fpm.conf:[global]\\nerror_log = /dev/null\\n",
        "session.save_path] = \"/var/lib/tqserver/api.shop\"\\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    // Where systemd can not hand it over it lies beside the socket.
    let pair = house.pair(Kind::Private, Mode::Production).unwrap();
    let Written {
        path, credential, ..
    } = pair.written.as_ref().expect("one is written");
    assert_eq!(*credential, None);
    assert!(
        path.ends_with("api.shop@7.php-fpm.conf"),
        "{}",
        path.display()
    );
    assert!(pair.command.contains(&path.display().to_string()));
}
