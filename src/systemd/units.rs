//! A generation's pair of units, described once and rendered twice: as D-Bus properties for `StartTransientUnit`, and as unit
//! files for people (`tqserver check --show-units`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use zbus::Variant;

use crate::config::{Limits, Mode, Network};
use crate::names::{Instance, worker_slice};
use crate::route::{Address, RoutePath};

/// The service's property that carries what the generation was made of, for the next manager. systemd would feed it to the worker
/// only with `StandardInput=data`, which we never set; it is not logged and not inherited.
pub(super) const RECORD: &str = "StandardInputData";
/// What a candidate's description ends with until it has passed its check.
pub(super) const UNPROVEN: &str = " (not yet accepted)";

/// First start included, systemd tries a worker this often ...
const START_LIMIT_BURST: u32 = 5;
/// ... within this time; after that its socket fails and the manager takes over with longer waits.
const START_LIMIT_INTERVAL: Duration = Duration::from_secs(10);
/// Wait before systemd's own restarts. Connections queue in the socket meanwhile.
const RESTART_WAIT: Duration = Duration::from_millis(200);
/// Connections that may queue while a worker starts; the kernel caps it at net.core.somaxconn.
const BACKLOG: u32 = 4096;

/// A generation as systemd is to run it.
#[derive(Clone, Debug)]
pub struct UnitPair {
    /// Which.
    pub instance: Instance,
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
    /// The directory it may write to; with a sandbox systemd makes one of its own (`StateDirectory=`).
    pub data: PathBuf,
    /// Program (absolute) and arguments.
    pub command: Vec<String>,
    /// What its configuration adds to its environment.
    pub env: BTreeMap<String, String>,
    /// What it may use.
    pub limits: Limits,
    /// An identity and walls of its own; `None` where systemd can not give them.
    pub sandbox: Option<Sandbox>,
    /// The secrets it is handed.
    pub credentials: Vec<Credential>,
    /// Whether it has passed its check already: it comes back from its snapshot.
    pub accepted: bool,
    /// Where its output goes; `None`: the journal.
    pub output: Option<PathBuf>,
    /// How long it may take to exit on SIGTERM.
    pub stop_timeout: Duration,
    /// What the next manager needs to know of it.
    pub record: String,
}

/// What the machine's systemd can put around a worker: a user of its own, and a view of the machine that ends at what it needs.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// What of the network it can reach.
    pub network: Network,
    /// Whether its memory may be writable and executable.
    pub jit: bool,
    /// Whether it has a cache directory.
    pub cache: bool,
    /// The directory of all workers' snapshots: of all that is below it the worker sees [`UnitPair::directory`] alone.
    pub snapshots: PathBuf,
    /// What else is ours and no business of a worker: configuration, sockets, other workers.
    pub hidden: Vec<PathBuf>,
}

/// A secret that systemd hands to a worker as a file (systemd.exec(5), `LoadCredential=`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The name of the file in `CREDENTIALS_DIRECTORY`.
    pub name: String,
    /// Where the administrator has put it.
    pub path: PathBuf,
    /// Whether it is encrypted with systemd-creds(1).
    pub encrypted: bool,
}

/// One line of a unit file, and the same as a D-Bus property. Their names and units differ here and there.
struct Directive {
    section: &'static str,
    key: &'static str,
    text: String,
    property: &'static str,
    value: Variant<'static>,
}

fn directive(
    section: &'static str,
    key: &'static str,
    text: impl Into<String>,
    value: impl Into<Variant<'static>>,
) -> Directive {
    Directive {
        section,
        key,
        text: text.into(),
        property: key,
        value: value.into(),
    }
}

/// A time span: `KeySec=` in a file, `KeyUSec` in microseconds on the bus.
fn span(
    section: &'static str,
    key: &'static str,
    property: &'static str,
    span: Duration,
) -> Directive {
    let usec = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    Directive {
        section,
        key,
        text: format!("{}ms", span.as_millis()),
        property,
        value: usec.into(),
    }
}

/// Properties as the bus takes them.
pub(super) type Properties = Vec<(&'static str, Variant<'static>)>;

impl UnitPair {
    /// Whether systemd listens for the worker.
    pub fn has_socket(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// The socket's properties.
    pub(super) fn socket_properties(&self) -> Properties {
        properties(self.socket())
    }

    /// The service's properties.
    pub(super) fn service_properties(&self) -> Properties {
        let mut properties = properties(self.service());
        properties.push((RECORD, self.record.clone().into_bytes().into()));
        properties
    }

    /// The description of a generation that has passed its check.
    pub fn accepted_description(instance: &Instance) -> String {
        format!(
            "TQServer worker {}, generation {}",
            instance.worker, instance.generation
        )
    }

    /// Both as unit files, each behind a comment with its name.
    pub fn to_unit_files(&self) -> String {
        let mut text = String::new();
        if self.has_socket() {
            render(&mut text, &self.instance.socket_unit(), self.socket());
            text.push('\n');
        }
        render(&mut text, &self.instance.service_unit(), self.service());
        text
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
        let description = Self::accepted_description(&self.instance);
        let mut lines = vec![
            directive("Unit", "Description", description.clone(), description),
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
        let mut description = Self::accepted_description(&self.instance);
        if !self.accepted {
            description += UNPROVEN;
        }
        let slice = worker_slice(&self.instance.worker);
        let directory = self.directory.display().to_string();
        // The words are meant as they stand: no variables in them.
        let flags = vec!["no-env-expand".to_owned()];
        let exec = vec![(self.command[0].clone(), self.command.clone(), flags)];
        let environment = self.environment();
        let fields = self.log_fields();
        let mut lines = vec![
            directive("Unit", "Description", description.clone(), description),
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
                text: format!(
                    ":{}",
                    self.command
                        .iter()
                        .map(|word| quote(word))
                        .collect::<Vec<_>>()
                        .join(" ")
                ),
                property: "ExecStartEx",
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
        if let Some(quota) = self.limits.gomaxprocs {
            lines.push(Directive {
                section: "Service",
                key: "CPUQuota",
                text: quota.to_string(),
                property: "CPUQuotaPerSecUSec",
                value: quota.per_second_usec().into(),
            });
        }
        if let Some(memory) = self.limits.gomemlimit {
            lines.push(directive(
                "Service",
                "MemoryMax",
                memory.0.to_string(),
                memory.0,
            ));
        }
        if let Some(tasks) = self.limits.tasks_max {
            lines.push(directive("Service", "TasksMax", tasks.to_string(), tasks));
        }
        lines
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
        set("WORKER_ROUTE", self.route.to_string());
        set("WORKER_MODE", self.mode.to_string());
        set("STATE_DIRECTORY", self.data.display().to_string());
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

fn properties(lines: Vec<Directive>) -> Properties {
    lines
        .into_iter()
        .map(|line| (line.property, line.value))
        .collect()
}

fn render(text: &mut String, unit: &str, lines: Vec<Directive>) {
    let _ = writeln!(text, "# {unit}");
    let mut section = "";
    for line in lines {
        if line.section != section {
            let _ = writeln!(text, "[{}]", line.section);
            section = line.section;
        }
        let _ = writeln!(text, "{}={}", line.key, line.text);
    }
}

/// A word as systemd.syntax(7) reads it back, specifiers included.
fn quote(word: &str) -> String {
    let escaped = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%");
    let plain = !escaped.is_empty()
        && escaped
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-=:@%,+".contains(c));
    if plain {
        escaped
    } else {
        format!("\"{escaped}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::limits::{ByteSize, CpuQuota};
    use crate::names::{Generation, WorkerName};
    use crate::route::Timeouts;

    fn pair(address: Address) -> UnitPair {
        let second = Duration::from_secs(1);
        UnitPair {
            instance: Instance::new(WorkerName::parse("api.a-b").unwrap(), Generation(7)),
            route: RoutePath::parse("/api/a-b").unwrap(),
            mode: Mode::Production,
            address,
            socket_group: Some("tqserver".to_owned()),
            directory: "/srv/x".into(),
            data: "/var/lib/x".into(),
            command: vec!["/srv/x/bin/a-b".to_owned(), "100% sure".to_owned()],
            env: BTreeMap::from([("GREETING".to_owned(), "a \"b\" $c".to_owned())]),
            limits: Limits {
                gomaxprocs: Some(CpuQuota { cores: 2 }),
                gomemlimit: Some(ByteSize(100 << 20)),
                tasks_max: Some(64),
                memory_high: None,
                cpu_weight: None,
                io_weight: None,
                access_log: false,
                max_requests: 0,
                timeouts: Timeouts {
                    read: second,
                    write: second,
                    idle: second,
                },
                log_file: String::new(),
            },
            sandbox: None,
            credentials: Vec::new(),
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
            "ExecStart=:/srv/x/bin/a-b \"100%% sure\"",
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
                r#"GOMAXPROCS=2 GOMEMLIMIT=94371840B "GREETING=a \"b\" $c" STATE_DIRECTORY=/var/lib/x WORKER_MODE=production"#
            ),
            "{text}"
        );
    }

    #[test]
    fn a_worker_on_a_port_has_no_socket_unit() {
        let pair = pair(Address::Tcp(([127, 0, 0, 1], 9000).into()));
        assert!(pair.socket_properties().is_empty());
        let text = pair.to_unit_files();
        assert!(
            !text.contains("[Socket]")
                && text.contains("PORT=9000")
                && text.contains("WORKER_PORT=9000"),
            "{text}"
        );
    }
}
