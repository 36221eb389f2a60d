//! `worker.yaml`, the deployer's file: what belongs to the program. What would reach beyond the worker is no key here.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::document::{Content, Document, Node};
use super::problem::Problems;
use super::section::{Item, Section};
use super::source::{self, Owner};
use super::words::words;
use super::{Enabled, Health, LimitsPatch, Listen, WorkerFile, WorkerType};
use crate::route::RoutePath;

/// The types as a file spells them.
pub(super) const TYPES: [(&str, WorkerType); 6] = [
    ("rust", WorkerType::Rust),
    ("go", WorkerType::Go),
    ("node", WorkerType::Node),
    ("python", WorkerType::Python),
    ("exec", WorkerType::Exec),
    ("static", WorkerType::Static),
];
/// Longest value of an environment variable in bytes; the kernel refuses to start a program with one of 128KiB or more.
const LONGEST_VALUE: usize = 32 << 10;
/// Most environment variables.
const MOST_VARIABLES: usize = 256;
/// Variables that systemd or TQServer sets; a worker that set them itself would be lied to about its sockets or limits.
const RESERVED: [&str; 17] = [
    "CREDENTIALS_DIRECTORY",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "MAINPID",
    "NOTIFY_SOCKET",
    "PORT",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];
/// Keys that people may look for here, and that would let who deploys a worker reach beyond it. Compared without '_' and '-'.
const ADMINISTRATORS: [&str; 22] = [
    "ambientcapabilities",
    "bindpaths",
    "capabilities",
    "dynamicuser",
    "environmentfile",
    "execreload",
    "execstart",
    "execstartpost",
    "execstartpre",
    "execstop",
    "group",
    "networknamespace",
    "nonewprivileges",
    "readwritepaths",
    "rootdirectory",
    "sandbox",
    "service",
    "slice",
    "systemd",
    "unit",
    "user",
    "workingdirectory",
];

impl Default for Health {
    fn default() -> Self {
        Self {
            path: None,
            timeout: Duration::from_secs(5),
            interval: Duration::from_secs(10),
            start_timeout: Duration::from_secs(30),
            failures: 3,
        }
    }
}

impl WorkerFile {
    /// Reads `file`; one that is not there says nothing.
    ///
    /// # Errors
    /// All that is wrong in it.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        match source::read(file, Owner::Deployer)? {
            Some(text) => Self::parse(file, &text),
            None => Ok(Self::default()),
        }
    }

    /// Reads `text`, which stands in `file`; nothing is looked up on disk.
    ///
    /// # Errors
    /// All that is wrong in it.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        let document = Document::parse(file, text);
        let mut root = Section::root(&document);
        let path = root.text("path").and_then(|(text, item)| {
            let route = RoutePath::parse(&text);
            if let Err(error) = &route {
                item.problem(format!("'path': {error}"), "write a route, as in \"/api\"");
            }
            route.ok()
        });
        let enabled = [
            ("true", Enabled::Always),
            ("false", Enabled::Never),
            ("development", Enabled::Development),
        ];
        let listen = [("socket", Listen::Socket), ("port", Listen::Port)];
        let worker = Self {
            path,
            kind: root.choice("type", &TYPES),
            command: root.item("command").and_then(|item| command(&item)),
            build: root.item("build").and_then(|item| command(&item)),
            listen: root.choice("listen", &listen).unwrap_or_default(),
            health: health(root.section("health")),
            env: environment(&root.items("env")),
            enabled: root.choice("enabled", &enabled).unwrap_or_default(),
            network: super::Network::default(),
            jit: None,
            cache: false,
            credentials: Vec::new(),
            autostart: false,
            limits: LimitsPatch::read(&mut root),
            places: ["gomaxprocs", "gomemlimit", "tasks_max"].map(|key| root.place(key)),
        };
        if worker.kind == Some(WorkerType::Static)
            && let Some(item) = root.peek("command")
        {
            let help = "remove 'command', or give the type of the program";
            item.key_problem("a worker of type 'static' has no program", help);
        }
        root.finish(explain);
        document.finish(worker)
    }
}

impl Default for WorkerFile {
    fn default() -> Self {
        Self {
            path: None,
            kind: None,
            command: None,
            build: None,
            listen: Listen::default(),
            health: Health::default(),
            env: BTreeMap::new(),
            enabled: Enabled::default(),
            network: super::Network::default(),
            jit: None,
            cache: false,
            credentials: Vec::new(),
            autostart: false,
            limits: LimitsPatch::default(),
            places: [const { None }; 3],
        }
    }
}

/// Why a key that is none may have been expected to be one.
fn explain(key: &str) -> Option<(String, String)> {
    let plain = key.to_lowercase().replace(['_', '-'], "");
    if plain == "logfile" {
        let message = format!(
            "a worker can not set '{key}': where files are written is the administrator's choice"
        );
        let help = "remove it; server.yaml sets it in 'workers.default' or 'workers.paths'";
        return Some((message, help.to_owned()));
    }
    if ADMINISTRATORS.contains(&plain.as_str()) {
        let message =
            format!("a worker can not set '{key}': it runs as its own user, in its own sandbox");
        let help = "remove it; a worker.yaml says what runs ('command') and within which limits";
        return Some((message, help.to_owned()));
    }
    let health = [
        "timeout_seconds",
        "interval_seconds",
        "start_timeout_seconds",
        "failures",
    ];
    health.contains(&key).then(|| {
        let message = format!("'{key}' is a key of 'health', not of the whole file");
        (message, "move it below 'health:', indented".to_owned())
    })
}

fn health(mut section: Section<'_>) -> Health {
    let default = Health::default();
    let path = section.text("path").and_then(|(path, item)| {
        let printable = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if path.starts_with('/') && printable {
            return Some(path);
        }
        item.problem(
            format!("'health.path' can not be {}", item.shown()),
            "write the full path of a request, as in \"/api/health\": it starts with '/', without spaces and '#'",
        );
        None
    });
    let health = Health {
        path,
        timeout: section
            .seconds("timeout_seconds", 1..=3600)
            .unwrap_or(default.timeout),
        interval: section
            .seconds("interval_seconds", 0..=86_400)
            .unwrap_or(default.interval),
        start_timeout: section
            .seconds("start_timeout_seconds", 1..=3600)
            .unwrap_or(default.start_timeout),
        failures: section
            .number("failures", 1..=1000, "")
            .and_then(|failures| u32::try_from(failures).ok())
            .unwrap_or(default.failures),
    };
    section.finish(|_| None);
    health
}

/// A program and its arguments: a list of them, or a text that is split at spaces (see [`words`]).
fn command(item: &Item<'_>) -> Option<Vec<String>> {
    let key = item.key();
    let mut complete = true;
    let list = match &item.node().content {
        Content::List(nodes) => {
            let mut list = Vec::new();
            for node in nodes {
                match scalar(node) {
                    Some(text) => list.push(text.to_owned()),
                    None => {
                        complete = false;
                        let message = format!("an item of '{key}' is {}", node.description());
                        item.part_problem(node, message, "write texts, as in [bin/app, --quiet]");
                    }
                }
            }
            list
        }
        _ => match words(&item.text(key)?) {
            Ok(list) => list,
            Err(error) => {
                item.problem(
                    format!("'{key}': {error}"),
                    "write a list, as in [sh, -c, \"a && b\"]",
                );
                return None;
            }
        },
    };
    let program = list.first().map_or("", String::as_str);
    if program.is_empty() {
        item.problem(
            format!("'{key}' names no program"),
            "write one, as in [bin/app, --quiet]",
        );
    } else if program.split('/').any(|part| part == "..") || program.ends_with('/') {
        let help =
            "write a path inside the worker's directory, or a name that is looked up in PATH";
        item.problem(format!("'{key}' can not run '{program}'"), help);
    } else if list.iter().any(|word| word.contains('\0')) {
        item.problem(
            format!("'{key}' has a NUL character"),
            "no argument can carry it; remove it",
        );
    } else if complete {
        return Some(list);
    }
    None
}

fn environment(items: &[Item<'_>]) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for item in items {
        let name = item.key();
        let start = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !start || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let help = "use letters, digits and '_', starting with a letter or '_'";
            item.key_problem("this is not the name of an environment variable", help);
        } else if matches!(name, "GOMAXPROCS" | "GOMEMLIMIT") {
            let help = format!("set the limit '{}' instead", name.to_lowercase());
            item.key_problem(format!("'{name}' is set by TQServer"), help);
        } else if RESERVED.contains(&name) || name.starts_with("WORKER_") {
            let help = "choose another name";
            item.key_problem(format!("'{name}' is set by systemd or TQServer"), help);
        } else if let Some(value) = value(item) {
            environment.insert(name.to_owned(), value);
        }
    }
    if let Some(item) = items.get(MOST_VARIABLES) {
        let help = "put them into a file of the worker";
        item.key_problem(
            format!("'env' has more than {MOST_VARIABLES} variables"),
            help,
        );
    }
    environment
}

/// A variable's value, as it is written: `1.10` stays `1.10`.
fn value(item: &Item<'_>) -> Option<String> {
    let name = item.key();
    if item.node().is_null() {
        item.problem(
            format!("'env.{name}' has no value"),
            "write \"\" for an empty one",
        );
        return None;
    }
    let Some(text) = scalar(item.node()) else {
        let what = item.node().description();
        let help = "write a text, a number or a truth value";
        item.problem(format!("'env.{name}' can not be {what}"), help);
        return None;
    };
    if text.contains(['\0', '\n']) {
        let help = "systemd can not carry those; put the text into a file of the worker";
        item.problem(format!("'env.{name}' has a NUL or a line break"), help);
        return None;
    }
    if text.len() > LONGEST_VALUE {
        let help = "put the text into a file of the worker";
        item.problem(
            format!("'env.{name}' is longer than {LONGEST_VALUE} bytes"),
            help,
        );
        return None;
    }
    Some(text.to_owned())
}

/// The text of a single value that is not null.
fn scalar(node: &Node) -> Option<&str> {
    match &node.content {
        Content::Scalar(text, _) if !node.is_null() => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
