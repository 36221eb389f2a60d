//! A pair of units of a generation, described once and rendered twice: as D-Bus properties for `StartTransientUnit`, and as unit
//! files for people (`tqserver check --show-units`).

mod directive;
mod one_off;
mod sandbox;
mod state;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zbus::Variant;

use self::directive::{Directive, directive, properties, quote, render, span};
use self::state::State;
use crate::config::{Limits, Mode};
use crate::names::{Instance, Pair, worker_slice};
use crate::route::{Address, RoutePath};
use crate::systemd::start::{self, Before};

pub(super) use self::directive::Properties;
pub use self::one_off::OneOff;
pub use self::sandbox::{Credential, Sandbox};
pub use self::state::{SHIPPED, STORED};
pub use self::written::{StopSignal, Written};

/// The service's property that carries what the generation was made of, for the next manager. systemd would feed it to the worker
/// only with `StandardInput=data`, which we never set; it is not logged and not inherited.
pub(super) const RECORD: &str = "StandardInputData";
/// What a candidate's description ends with until it has passed its check.
pub(super) const UNPROVEN: &str = " (not yet accepted)";

/// What stands between workers and the proxy when the machine goes down: the proxy ends its requests first. Not the proxy's unit itself:
/// whenever a worker were slow to stop, a start of the proxy would wait for it. This has no job but when all goes down.
const WORKERS: &str = "tqserver-workers.target";
/// First start included, systemd tries a worker this often ...
const START_LIMIT_BURST: u32 = 5;
/// ... within this time; after that its socket fails and the manager takes over with longer waits.
const START_LIMIT_INTERVAL: Duration = Duration::from_secs(10);
/// The first systemd with `StateDirectoryQuota=`.
pub(super) const QUOTA_SINCE: u32 = 258;
/// Wait before systemd's own restarts. Connections queue in the socket meanwhile.
const RESTART_WAIT: Duration = Duration::from_millis(200);
/// Connections that may queue while a worker starts; the kernel caps it at net.core.somaxconn.
const BACKLOG: u32 = 4096;

/// One instance of a generation as systemd is to run it.
#[derive(Clone, Debug)]
pub struct UnitPair {
    /// Of which generation.
    pub instance: Instance,
    /// Which of its instances, from 1; told to the worker.
    pub number: u8,
    /// Its place in the URL space, told to the worker.
    pub route: RoutePath,
    /// Told to the worker.
    pub mode: Mode,
    /// Where it listens.
    pub address: Address,
    /// Group that may connect, if not the manager's own alone.
    pub socket_group: Option<String>,
    /// Where its files are.
    pub directory: PathBuf,
    /// The directory it may write to; with a sandbox systemd makes it (`StateDirectory=`).
    pub data: PathBuf,
    /// The directory for what it can make again, if it is to have one; with a sandbox likewise (`CacheDirectory=`).
    pub cache: Option<PathBuf>,
    /// Directories below `data` whose files the proxy serves; with a sandbox systemd makes them, too.
    pub stored: Vec<String>,
    /// Directories below `data` that are seen in the place of its files of that name, and are filled from those at first.
    pub persisted: Vec<String>,
    /// Program (absolute) and arguments.
    pub command: Vec<String>,
    /// This program, which becomes `command` (see [`start`]).
    pub starter: PathBuf,
    /// What its configuration adds to its environment.
    pub env: BTreeMap<String, String>,
    /// What it may use.
    pub limits: Limits,
    /// An identity and walls of its own; `None` where systemd can not give them.
    pub sandbox: Option<Sandbox>,
    /// The secrets it is handed.
    pub credentials: Vec<Credential>,
    /// Variables whose values are among them: the name of each, and that of the secret. No value is a part of the unit.
    pub secret_env: BTreeMap<String, String>,
    /// The configuration that we write for it, if its program needs one.
    pub written: Option<Written>,
    /// The signal that asks it to finish and exit; `None`: SIGTERM.
    pub stop_signal: Option<StopSignal>,
    /// Whether it has passed its check already: it comes back from its snapshot.
    pub accepted: bool,
    /// Where its output goes; `None`: the journal.
    pub output: Option<PathBuf>,
    /// How long it may take to exit on SIGTERM.
    pub stop_timeout: Duration,
    /// What the next manager needs to know of it.
    pub record: String,
}

impl UnitPair {
    /// What its units are called.
    pub fn name(&self) -> Pair {
        self.instance.pair(self.number)
    }

    /// Whether systemd listens for the worker.
    pub fn has_socket(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// The socket's properties.
    pub(super) fn socket_properties(&self) -> Properties {
        properties(self.socket())
    }

    /// The service's properties for a systemd of this version.
    pub(super) fn service_properties(&self, version: u32) -> Properties {
        let mut properties = properties(self.service());
        properties.extend(self.state_quota(version));
        properties.push((RECORD, self.record.clone().into_bytes().into()));
        properties
    }

    /// What bounds the state directory, which systemd makes for those in a sandbox. It is no line of the unit files, in which systemds
    /// before that version would complain of it.
    ///
    /// The property is `(tus)`: bytes, or else a share of the file system (of 2^32 - 1), and whether to enforce it. All generations of a
    /// worker have the same directory, and so the bound of the one that was started last. Where the file system has no project quotas
    /// systemd goes on without.
    fn state_quota(&self, version: u32) -> Option<(&'static str, Variant<'static>)> {
        let most = self.limits.state_max?;
        let bounded = self.sandbox.is_some() && version >= QUOTA_SINCE;
        bounded.then(|| ("StateDirectoryQuota", (most.0, u32::MAX, "yes").into()))
    }

    /// The description of a pair whose generation has passed its check.
    pub fn accepted_description(pair: &Pair) -> String {
        let Instance { worker, generation } = &pair.instance;
        let of = format!("TQServer worker {worker}, generation {generation}");
        match pair.number {
            1 => of,
            number => format!("{of}, instance {number}"),
        }
    }

    /// Both as unit files, each behind a comment with its name.
    pub fn to_unit_files(&self) -> String {
        let mut text = String::new();
        if self.has_socket() {
            render(&mut text, &self.name().socket_unit(), self.socket());
            text.push('\n');
        }
        render(&mut text, &self.name().service_unit(), self.service());
        text
    }

    /// The service as a unit file: its name and its text.
    pub(super) fn service_file(&self) -> (String, String) {
        let (name, mut text) = (self.name().service_unit(), String::new());
        render(&mut text, &name, self.service());
        (name, text)
    }

    fn socket(&self) -> Vec<Directive> {
        let Address::Unix(path) = &self.address else {
            return Vec::new();
        };
        let path = path.display().to_string();
        let listen = vec![("Stream".to_owned(), path.clone())];
        let mode: u32 = if self.socket_group.is_some() {
            0o660
        } else {
            0o600
        };
        let description = Self::accepted_description(&self.name());
        let mut lines = vec![
            directive("Unit", "Description", description.clone(), description),
            directive("Unit", "Before", WORKERS, vec![WORKERS.to_owned()]),
            Directive {
                section: "Socket",
                key: "ListenStream",
                text: path,
                property: "Listen",
                value: listen.into(),
            },
            directive("Socket", "SocketMode", format!("{mode:04o}"), mode),
            directive("Socket", "Backlog", BACKLOG.to_string(), BACKLOG),
            directive("Socket", "RemoveOnStop", "yes", true),
            directive(
                "Socket",
                "Slice",
                worker_slice(&self.instance.worker),
                worker_slice(&self.instance.worker),
            ),
        ];
        if let Some(group) = &self.socket_group {
            lines.push(directive(
                "Socket",
                "SocketGroup",
                group.clone(),
                group.clone(),
            ));
        }
        lines
    }

    fn service(&self) -> Vec<Directive> {
        let mut description = Self::accepted_description(&self.name());
        if !self.accepted {
            description += UNPROVEN;
        }
        let slice = worker_slice(&self.instance.worker);
        let directory = self.directory.display().to_string();
        let command = self.command_line();
        let exec = vec![(command[0].clone(), command.clone(), false)];
        let environment = self.environment();
        let fields = self.log_fields();
        let mut lines = vec![
            directive("Unit", "Description", description.clone(), description),
            directive("Unit", "Before", WORKERS, vec![WORKERS.to_owned()]),
            span(
                "Unit",
                "StartLimitIntervalSec",
                "StartLimitIntervalUSec",
                START_LIMIT_INTERVAL,
            ),
            directive(
                "Unit",
                "StartLimitBurst",
                START_LIMIT_BURST.to_string(),
                START_LIMIT_BURST,
            ),
            // The unit is up once the program was executed, so a program that can not be is told apart from one that fails.
            directive("Service", "Type", "exec", "exec"),
            Directive {
                section: "Service",
                key: "ExecStart",
                text: command
                    .iter()
                    .map(|word| quote(word))
                    .collect::<Vec<_>>()
                    .join(" "),
                property: "ExecStart",
                value: exec.into(),
            },
            directive("Service", "WorkingDirectory", directory.clone(), directory),
            directive(
                "Service",
                "Environment",
                environment
                    .iter()
                    .map(|entry| quote(entry))
                    .collect::<Vec<_>>()
                    .join(" "),
                environment,
            ),
            // What a user's or private manager would hand down of its own.
            directive(
                "Service",
                "UnsetEnvironment",
                UNSET.join(" "),
                UNSET.map(str::to_owned).to_vec(),
            ),
            directive("Service", "Slice", slice.clone(), slice),
            directive(
                "Service",
                "SyslogIdentifier",
                self.identifier(),
                self.identifier(),
            ),
            directive(
                "Service",
                "LogExtraFields",
                fields.join(" "),
                fields
                    .into_iter()
                    .map(String::into_bytes)
                    .collect::<Vec<_>>(),
            ),
            directive("Service", "Restart", "on-failure", "on-failure"),
            span("Service", "RestartSec", "RestartUSec", RESTART_WAIT),
            span(
                "Service",
                "TimeoutStopSec",
                "TimeoutStopUSec",
                self.stop_timeout.max(Duration::from_secs(1)),
            ),
            directive("Service", "CPUAccounting", "yes", true),
            directive("Service", "MemoryAccounting", "yes", true),
        ];
        match &self.output {
            Some(path) => {
                for (key, property) in [
                    ("StandardOutput", "StandardOutputFileToAppend"),
                    ("StandardError", "StandardErrorFileToAppend"),
                ] {
                    let path = path.display().to_string();
                    lines.push(Directive {
                        section: "Service",
                        key,
                        text: format!("append:{path}"),
                        property,
                        value: path.into(),
                    });
                }
            }
            None => {
                lines.push(directive("Service", "StandardOutput", "journal", "journal"));
                lines.push(directive("Service", "StandardError", "journal", "journal"));
            }
        }
        lines.extend(self.limits());
        lines.extend(self.credentials.iter().map(Credential::directive));
        lines.extend(self.written.iter().filter_map(Written::directive));
        lines.extend(self.stop_signal.map(StopSignal::directive));
        if let Some(sandbox) = &self.sandbox {
            let files = (self.directory.as_path(), self.starter.as_path());
            let own = sandbox.directives(self.state(), files, &self.address);
            lines.extend(own);
        }
        lines
    }

    /// What systemd executes. It cannot be trusted with the words of `command` as they are.
    fn command_line(&self) -> Vec<String> {
        start::command_line(&self.starter(), &self.before(), &self.command)
    }

    /// Where it finds this program.
    fn starter(&self) -> PathBuf {
        match &self.sandbox {
            Some(sandbox) => sandbox.starter(&self.starter),
            None => self.starter.clone(),
        }
    }

    fn state(&self) -> State<'_> {
        State {
            worker: &self.instance.worker,
            directory: &self.data,
            stored: &self.stored,
            persisted: &self.persisted,
        }
    }

    /// What is done before its program runs.
    fn before(&self) -> Before {
        Before {
            close_netlink: self.sandbox.as_ref().is_some_and(Sandbox::closes_netlink),
            secrets: self.secret_env.clone(),
            // Without a sandbox what the proxy serves lies where it is seen.
            links: match &self.sandbox {
                Some(_) => self.state().links(),
                None => Vec::new(),
            },
            fills: self.state().fills(&self.directory),
            ..Before::default()
        }
    }

    fn limits(&self) -> Vec<Directive> {
        limits(&self.limits)
    }

    fn identifier(&self) -> String {
        format!("tqserver-{}", self.instance.worker)
    }

    fn log_fields(&self) -> Vec<String> {
        vec![
            format!("TQ_WORKER={}", self.instance.worker),
            format!("TQ_GENERATION={}", self.instance.generation),
            format!("TQ_ROUTE={}", self.route),
        ]
    }

    /// The worker contract's environment, and what its configuration adds.
    fn environment(&self) -> Vec<String> {
        let mut environment = self.env.clone();
        let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
        set("WORKER_NAME", self.instance.worker.to_string());
        set("WORKER_INSTANCE", self.number.to_string());
        set("WORKER_ROUTE", self.route.to_string());
        set("WORKER_MODE", self.mode.to_string());
        // With a sandbox systemd makes the directories, and tells the worker where.
        if self.sandbox.is_none() || self.state().directories().len() > 1 {
            // Of several directories systemd would name all.
            set("STATE_DIRECTORY", self.data.display().to_string());
        }
        if let (None, Some(cache)) = (&self.sandbox, &self.cache) {
            set("CACHE_DIRECTORY", cache.display().to_string());
        }
        if let Some(quota) = self.limits.gomaxprocs {
            set("GOMAXPROCS", quota.cores.to_string());
        }
        if let Some(memory) = self.limits.gomemlimit {
            // Go's soft limit stays below the hard one, so that its collector works before the kernel kills.
            set("GOMEMLIMIT", format!("{}B", memory.0 / 10 * 9));
        }
        if let Address::Tcp(address) = &self.address {
            set("PORT", address.port().to_string());
            set("WORKER_PORT", address.port().to_string());
            // Many a program listens on all addresses unless it is told one.
            let host = environment.entry("HOST".to_owned());
            host.or_insert_with(|| address.ip().to_string());
        }
        // Many a program keeps files at home, and its user here has none. In development the home is the developer's, with what
        // toolchains keep there.
        if self.mode == Mode::Production {
            let mut home = |name: &str, directory: &Path| {
                let home = environment.entry(name.to_owned());
                home.or_insert_with(|| directory.display().to_string());
            };
            home("HOME", &self.data);
            if let Some(cache) = &self.cache {
                home("XDG_CACHE_HOME", cache);
            }
        }
        environment
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }
}

/// Variables of the service manager or of the user's session that are no business of a worker.
const UNSET: [&str; 6] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
    "MANAGERPID",
    "SYSTEMD_UNIT_PATH",
    "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE",
    "SYSTEMD_PROC_CMDLINE",
];

/// The lines that bound what a service uses.
fn limits(limits: &Limits) -> Vec<Directive> {
    let number =
        |key, value: Option<u64>| Some(directive("Service", key, value?.to_string(), value?));
    let quota = limits.gomaxprocs.map(|quota| Directive {
        section: "Service",
        key: "CPUQuota",
        text: quota.to_string(),
        property: "CPUQuotaPerSecUSec",
        value: quota.per_second_usec().into(),
    });
    let lines = [
        quota,
        number("MemoryMax", limits.gomemlimit.map(|memory| memory.0)),
        number("MemoryHigh", limits.memory_high.map(|memory| memory.0)),
        number("TasksMax", limits.tasks_max),
        number("CPUWeight", limits.cpu_weight),
        number("IOWeight", limits.io_weight),
    ];
    lines.into_iter().flatten().collect()
}

/// The properties that bound what a service uses, to be set while it runs.
pub(super) fn limit_properties(of: &Limits) -> Properties {
    properties(limits(of))
}

#[cfg(test)]
mod tests;
