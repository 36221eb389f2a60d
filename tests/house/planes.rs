//! Manager and proxy as two services of a private systemd, and that systemd's own command line.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::House;
use super::process::{Ran, Server, tqserver};

const MANAGER: &str = "tqserver.service";
const PROXY: &str = "tqserver-proxy.service";

impl House {
    #[track_caller]
    pub(super) fn open_planes(&mut self) {
        let units = self.path().join("units");
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/units/user");
        let (program, house) = (env!("CARGO_BIN_EXE_tqserver"), self.path().display());
        let config = format!("--manager=private --config={house}/config/server.yaml");
        let mode = self.mode.unwrap_or("--mode=development");
        // What is shipped names the installed program and the user's own directories.
        let manager = format!(
            "[Service]\nStateDirectory=\nExecStart=\nExecStart={program} manager {config} {mode} --state-directory={house}/state\n\
             ExecReload=\nExecReload={program} reload {config}\n\
             ExecStopPost=\nExecStopPost={program} end-workers {config}\nStandardOutput=append:{house}/manager.log\n\
             StandardError=append:{house}/manager.log\n"
        );
        let proxy = format!(
            "[Service]\nExecStart=\nExecStart={program} proxy --link=%t/tqserver/link.sock --threads=1\n\
             ExecStop=\nExecStop={program} end-proxy {config}\n\
             StandardOutput=append:{house}/proxy.log\nStandardError=append:{house}/proxy.log\n"
        );
        for (unit, changes) in [(MANAGER, manager), (PROXY, proxy)] {
            let directory = units.join(format!("{unit}.d"));
            fs::create_dir_all(&directory).expect("make a directory of units");
            fs::copy(format!("{shipped}/{unit}"), units.join(unit)).expect("copy a unit");
            fs::write(directory.join("house.conf"), changes).expect("write a drop-in");
        }
        self.start_systemd(&units);
        self.systemctl(["start", MANAGER]).succeeds();
        self.systemctl(["start", PROXY]).succeeds();
        let status = self.property(PROXY, "StatusText");
        self.address = status
            .strip_prefix("listens on ")
            .and_then(|address| address.parse().ok());
        assert!(self.address.is_some(), "the proxy's status is '{status}'");
        super::until("all workers were tried", || {
            let status = self.property(MANAGER, "StatusText");
            status.contains("worker")
                && !status.starts_with("starting")
                && !status.starts_with("manages")
        });
    }

    /// Starts the manager as a user's session does, from the unit that is shipped, for a user whose home is `home/`. Without the proxy,
    /// which would listen at the port that everybody has.
    #[track_caller]
    pub fn open_for_user(mut self) -> Self {
        let units = self.path().join("units");
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/units/user");
        let directory = units.join(format!("{MANAGER}.d"));
        fs::create_dir_all(&directory).expect("make a directory of units");
        let unit = fs::read_to_string(format!("{shipped}/{MANAGER}")).expect("read the unit");
        let program = env!("CARGO_BIN_EXE_tqserver");
        let home = self.path().join("home");
        fs::create_dir(&home).expect("make a home");
        let configs = home.join(".config").display().to_string();
        let unit = unit.replace("/usr/bin/tqserver", program);
        fs::write(units.join(MANAGER), unit.replace("%E", &configs)).expect("write the unit");
        let environment: Vec<String> = self
            .users_environment()
            .into_iter()
            .map(|(name, value)| format!("Environment={name}={value}\n"))
            .collect();
        let house = self.path().display();
        let changes = format!(
            "[Service]\nStateDirectory=\nEnvironment=STATE_DIRECTORY={house}/state\n{}\
             StandardOutput=append:{house}/manager.log\nStandardError=append:{house}/manager.log\n",
            environment.concat()
        );
        fs::write(directory.join("house.conf"), changes).expect("write a drop-in");
        self.start_systemd(&units);
        self
    }

    /// Starts a private systemd with these units.
    #[track_caller]
    fn start_systemd(&mut self, units: &Path) {
        let mut command = tqserver(["systemd", "--manager=private"]);
        command
            .arg("--config")
            .arg(self.config())
            .arg("--units")
            .arg(units);
        let server = self.server.insert(Server::start(&mut command));
        server
            .said("unix:path=")
            .unwrap_or_else(|error| panic!("no private systemd: {error}"));
    }

    fn users_environment(&self) -> [(&'static str, String); 4] {
        let (home, place) = (self.path().join("home"), self.place());
        [
            ("HOME", home.display().to_string()),
            ("XDG_CONFIG_HOME", String::new()),
            ("XDG_RUNTIME_DIR", place.display().to_string()),
            (
                "DBUS_SESSION_BUS_ADDRESS",
                format!("unix:path={}/bus", place.display()),
            ),
        ]
    }

    /// `tqserver` as that user types it, where no project is above: the house may stand in one.
    #[track_caller]
    pub fn user_runs<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        let mut command = tqserver(arguments);
        command.envs(self.users_environment()).current_dir("/");
        Ran::of(&mut command)
    }

    /// Clients connect elsewhere from now on.
    pub fn moved_to(&mut self, address: std::net::SocketAddr) {
        self.address = Some(address);
    }

    /// Changes a unit by a further drop-in.
    #[track_caller]
    pub fn changes_unit(&self, unit: &str, lines: &str) {
        let file = self.path().join(format!("units/{unit}.d/test.conf"));
        fs::write(file, lines).expect("write a drop-in");
        self.systemctl(["daemon-reload"]).succeeds();
    }

    /// `systemctl` of the house's systemd.
    #[track_caller]
    pub fn systemctl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        let options = ["--user", "--no-pager"];
        self.asks_systemd("systemctl", options.into_iter().chain(arguments))
    }

    /// Runs something by the house's systemd that its manager knows nothing of, as `unit` in `slice`.
    #[track_caller]
    pub fn runs_a_stray(&self, unit: &str, slice: &str) {
        let (unit, slice) = (format!("--unit={unit}"), format!("--slice={slice}"));
        let stray = ["--user", "--quiet", &unit, &slice, "sleep", "1000"];
        self.asks_systemd("systemd-run", stray).succeeds();
    }

    /// Runs a program by the house's systemd as a service with these properties, until it ends.
    #[track_caller]
    pub fn runs_as_service(&self, properties: &[String], program: &[&str]) -> Ran {
        let options = ["--user", "--quiet", "--wait", "--collect", "--pipe"];
        let properties = properties.iter().flat_map(|line| ["-p", line]);
        let line = options.into_iter().chain(properties);
        self.asks_systemd("systemd-run", line.chain(program.iter().copied()))
    }

    #[track_caller]
    fn asks_systemd<'a>(&self, tool: &str, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        let mut command = Command::new(tool);
        let place = self.place();
        command.env(
            "DBUS_SESSION_BUS_ADDRESS",
            format!("unix:path={}/bus", place.display()),
        );
        command.env("XDG_RUNTIME_DIR", place).args(arguments);
        Ran::of(&mut command)
    }

    /// A unit's property, as `systemctl show` prints it.
    #[track_caller]
    pub fn property(&self, unit: &str, name: &str) -> String {
        let ran = self.systemctl(["show", "--value", "--property", name, unit]);
        ran.succeeds().stdout.trim().to_owned()
    }

    /// Names of the loaded units like `pattern`, by number.
    #[track_caller]
    pub fn loaded(&self, pattern: &str) -> Vec<String> {
        let ran = self.systemctl([
            "list-units",
            "--all",
            "--plain",
            "--no-legend",
            "--full",
            pattern,
        ]);
        let names = ran
            .succeeds()
            .stdout
            .lines()
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        names
    }

    #[track_caller]
    pub fn manager_pid(&self) -> u32 {
        self.main_pid(MANAGER)
    }

    #[track_caller]
    pub fn proxy_pid(&self) -> u32 {
        self.main_pid(PROXY)
    }

    /// The main process of a unit that has one, or soon has.
    #[track_caller]
    fn main_pid(&self, unit: &str) -> u32 {
        let mut pid = 0;
        super::until(&format!("{unit} has a process"), || {
            pid = self.property(unit, "MainPID").parse().unwrap_or(0);
            pid != 0
        });
        pid
    }

    /// Waits until a manager other than this one answers.
    #[track_caller]
    pub fn manager_is_back(&self, other_than: u32) {
        super::until("another manager answers", || {
            self.manager_pid() != other_than && self.try_status().is_some()
        });
    }
}
