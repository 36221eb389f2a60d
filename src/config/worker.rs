//! `worker.yaml`, the deployer's file: what belongs to the program. What would reach beyond the worker is no key here.

mod bounds;
mod command;
mod env_file;
mod environment;
mod explain;
mod routing;
mod sticky;
mod stored;

use std::collections::BTreeMap;
use std::path::Path;

use super::document::{Content, Document, Node};
use super::limits::LimitsPatch;
use super::problem::{Place, Problems};
use super::program::{Enabled, Health, KernelPart, Listen, Network, Sticky, TYPES, WorkerType};
use super::section::{Item, Section};
use super::source::{self, Owner};
use super::variables::Known;

use crate::ignored::Pattern;
use crate::route::{RoutePath, RouteSettings};
use bounds::LONGEST_PATH;
use command::{build, command};
use environment::{environment, from_credentials};
use explain::explain;

pub use env_file::{EnvFileError, parse as parse_env_file, read as read_env_files};

/// Keys that are judged together with server.yaml, of which the place is kept.
const JUDGED_LATER: [&str; 19] = [
    "persist",
    "gomaxprocs",
    "gomemlimit",
    "tasks_max",
    "memory_high",
    "state_max",
    "cpu_weight",
    "io_weight",
    "max_body_size",
    "max_concurrency",
    "queue_size",
    "instances",
    "command",
    "build",
    "env_file",
    "front_controller",
    "listen",
    "hosts",
    "path",
];
/// Most patterns of files that do not count.
const MOST_PATTERNS: usize = 256;
/// Most secrets, and the longest name of one in bytes.
const CREDENTIALS: (usize, usize) = (32, 64);

/// `workers/NAME/config/worker.yaml`, checked; all of it is optional.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerFile {
    /// Route instead of the one the directory gives.
    pub path: Option<RoutePath>,
    /// What it says of its route.
    pub on_route: RouteSettings,
    /// Where each of its redirects stands.
    pub redirect_places: Vec<Place>,
    /// Type instead of the one found.
    pub kind: Option<WorkerType>,
    /// Program and arguments instead of what the type runs. A relative program is taken from the worker's directory. Arguments may name
    /// variables (see [`super::expand`]).
    pub command: Option<Vec<String>>,
    /// Program and arguments that build the worker instead of what the type does.
    pub build: Option<Vec<String>>,
    /// The PHP script, below the document root, that answers whatever names no other.
    pub front_controller: Option<String>,
    /// How it gets its connections.
    pub listen: Listen,
    /// It is spoken to over HTTP/2 without TLS, by prior knowledge (RFC 9113, 3.3).
    pub h2c: bool,
    /// How its health is asked.
    pub health: Health,
    /// What is added to its environment. Values may name variables.
    pub env: BTreeMap<String, String>,
    /// See [`super::WorkerSettings::env_files`].
    pub env_files: Vec<String>,
    /// See [`super::WorkerSettings::env_from_credentials`].
    pub env_from_credentials: BTreeMap<String, String>,
    /// In which modes it is there.
    pub enabled: Enabled,
    /// What of the network it can reach.
    pub network: Network,
    /// Whether it makes machine code while it runs; `None`: as its type does.
    pub jit: Option<bool>,
    /// See [`super::WorkerSettings::kernel`].
    pub kernel: Vec<KernelPart>,
    /// Whether it has a cache directory.
    pub cache: bool,
    /// The secrets it is handed, by name.
    pub credentials: Vec<String>,
    /// Directories of its own whose content is in its state.
    pub persisted: Vec<String>,
    /// Whether it is started with the server instead of with its first request.
    pub autostart: bool,
    /// The cookie by which a client stays with one instance.
    pub sticky: Sticky,
    /// Which of its files do not count in development, beside those that are known.
    pub watch_ignore: Vec<Pattern>,
    /// The limits it asks for.
    pub limits: LimitsPatch,
    /// Where the keys stand that are judged later, together with server.yaml: limits, and what names a program.
    pub places: BTreeMap<&'static str, Place>,
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
        let path = root
            .text("path")
            .and_then(|(text, item)| route(&text, &item));
        let enabled = [
            ("true", Enabled::Always),
            ("false", Enabled::Never),
            ("development", Enabled::Development),
        ];
        let listen = [("socket", Listen::Socket), ("port", Listen::Port)];
        let protocol = [("http", false), ("h2c", true)];
        let networks = [
            ("none", Network::None),
            ("loopback", Network::Loopback),
            ("full", Network::Full),
        ];
        let (on_route, redirect_places) = routing::on_route(&mut root, &document);
        let listen = root.choice("listen", &listen).unwrap_or_default();
        let cache = root.flag("cache").unwrap_or_default();
        let credentials = root
            .item("credentials")
            .map(|item| credentials(&item))
            .unwrap_or_default();
        let known = Known {
            listen,
            cache,
            credentials: !credentials.is_empty(),
        };
        let env = environment(&root.items("env"), &known);
        let secret = root.items("env_from_credentials");
        let env_from_credentials = from_credentials(&secret, &credentials, &env);
        let worker = Self {
            path,
            on_route,
            redirect_places,
            kind: root.choice("type", &TYPES),
            command: root.item("command").and_then(|item| command(&item, &known)),
            build: root.item("build").and_then(|item| build(&item)),
            front_controller: root
                .text("front_controller")
                .and_then(|(script, item)| front_controller(script, &item)),
            listen,
            h2c: root.choice("protocol", &protocol).unwrap_or_default(),
            health: health(root.section("health")),
            env,
            env_files: root
                .item("env_file")
                .map(|item| env_file::names(&item))
                .unwrap_or_default(),
            env_from_credentials,
            enabled: root.choice("enabled", &enabled).unwrap_or_default(),
            network: root.choice("network", &networks).unwrap_or_default(),
            jit: root.flag("jit"),
            kernel: root
                .item("kernel")
                .map(|item| kernel(&item))
                .unwrap_or_default(),
            cache,
            credentials,
            persisted: stored::persisted(&mut root),
            autostart: root.flag("autostart").unwrap_or_default(),
            sticky: root
                .item("sticky")
                .map(|item| sticky::read(&item))
                .unwrap_or_default(),
            watch_ignore: watch(root.section("watch")),
            limits: LimitsPatch::read(&mut root),
            places: JUDGED_LATER
                .into_iter()
                .filter_map(|key| Some((key, root.place(key)?)))
                .collect(),
        };
        if (worker.listen, worker.network) == (Listen::Port, Network::None)
            && let Some(item) = root.peek("network")
        {
            let help = "write 'network: loopback', or 'listen: socket': a socket is handed over open and needs no network";
            item.problem(
                "with 'listen: port' and no network it could not be reached",
                help,
            );
        }
        if worker.kind == Some(WorkerType::Static)
            && let Some(item) = root.peek("command")
        {
            let help = "remove 'command', or give the type of the program";
            item.key_problem("a worker of type 'static' has no program", help);
        }
        if worker.kind == Some(WorkerType::Static)
            && let Some(item) = root.peek("files").or_else(|| root.peek("persist"))
        {
            let help = "put the files into 'public/', which is served as it is";
            item.key_problem("a worker of type 'static' has no state", help);
        }
        root.finish(|key| match key {
            "ignore" => {
                let message = "'ignore' is a key of 'watch', not of the whole file";
                let help = "move it below 'watch:', indented";
                Some((message.to_owned(), help.to_owned()))
            }
            _ => explain(key),
        });
        document.finish(worker)
    }
}

fn route(text: &str, item: &Item<'_>) -> Option<RoutePath> {
    let help = "write a route, as in \"/api\"";
    match RoutePath::parse(text) {
        Ok(route) if route.as_str().len() <= LONGEST_PATH => return Some(route),
        Ok(_) => item.problem(format!("'path' is longer than {LONGEST_PATH} bytes"), help),
        Err(error) => item.problem(format!("'path': {error}"), help),
    }
    None
}

/// A script that a path could name as well.
fn front_controller(script: String, item: &Item<'_>) -> Option<String> {
    let is_odd = |segment: &str| segment.is_empty() || segment.starts_with('.');
    let has_odd_sign = script.contains(|c: char| c.is_control() || "\\%".contains(c));
    let is_script = script.ends_with(".php") && !script.split('/').any(is_odd);
    if is_script && !has_odd_sign && script.len() <= LONGEST_PATH {
        return Some(script);
    }
    item.problem(
        format!("'front_controller' can not be {}", item.shown()),
        "write the path of a script from the document root, as in doku.php; it ends with '.php', and no part of it begins with '.'",
    );
    None
}

fn health(mut section: Section<'_>) -> Health {
    let default = Health::default();
    let path = section.text("path").and_then(|(path, item)| {
        let printable = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if path.starts_with('/') && printable && path.len() <= LONGEST_PATH {
            return Some(path);
        }
        item.problem(
            format!("'health.path' can not be {}", item.shown()),
            "write the full path of a request, as in \"/api/health\": it starts with '/', without spaces and '#', and is not too long",
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

/// The patterns of `watch`, in their order: a later one is over an earlier.
fn watch(mut section: Section<'_>) -> Vec<Pattern> {
    let item = section.item("ignore");
    section.finish(|_| None);
    let Some(item) = item else {
        return Vec::new();
    };
    let Content::List(nodes) = &item.node().content else {
        item.problem(
            format!(
                "'watch.ignore' is a list of patterns, not {}",
                item.node().description()
            ),
            "write one, as in [\"*.log\", \"/dist/\"]",
        );
        return Vec::new();
    };
    if let Some(node) = nodes.get(MOST_PATTERNS) {
        let message = format!("'watch.ignore' has more than {MOST_PATTERNS} patterns");
        item.part_problem(node, message, "name a directory instead of what is in it");
    }
    let read = |node: &Node| {
        let Some(text) = node.scalar() else {
            let message = format!("a pattern is a text, not {}", node.description());
            item.part_problem(node, message, "write it in quotes, as in \"*.log\"");
            return None;
        };
        let pattern = Pattern::parse(text).map_err(|error| {
            item.part_problem(node, format!("this is no pattern: {error}"), error.help());
        });
        pattern.ok()
    };
    nodes.iter().take(MOST_PATTERNS).filter_map(read).collect()
}

/// The parts of the kernel, in order: they are a set.
fn kernel(item: &Item<'_>) -> Vec<KernelPart> {
    let all = [KernelPart::IoUring, KernelPart::Keyrings];
    let help = format!("allowed are {}, {}", all[0], all[1]);
    let Content::List(nodes) = &item.node().content else {
        let what = item.node().description();
        item.problem(format!("'kernel' is a list of names, not {what}"), &help);
        return Vec::new();
    };
    let mut parts = Vec::new();
    for node in nodes {
        let name = node.scalar().unwrap_or_default();
        match all.iter().find(|part| part.to_string() == name) {
            Some(part) => parts.push(*part),
            None => item.part_problem(node, "no part of the kernel has this name here", &help),
        }
    }
    parts.sort_unstable();
    parts.dedup();
    parts
}

/// The names of secrets, in order: they are a set.
fn credentials(item: &Item<'_>) -> Vec<String> {
    let Content::List(nodes) = &item.node().content else {
        let what = item.node().description();
        item.problem(
            format!("'credentials' is a list of names, not {what}"),
            "write one, as in [db_password]",
        );
        return Vec::new();
    };
    let (most, longest) = CREDENTIALS;
    let mut names = Vec::new();
    for node in nodes.iter().take(most) {
        let name = node.scalar().unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(allowed) {
            let help = "use letters, digits, '-', '_' and '.', not starting with '.': it is a name, and no path";
            item.part_problem(node, "this is not the name of a credential", help);
        } else if name.len() > longest {
            let message = format!("the name of a credential has at most {longest} bytes");
            item.part_problem(node, message, "choose a shorter name");
        } else if names.iter().any(|other| other == name) {
            let message = format!("'{name}' is here a second time");
            item.part_problem(node, message, "keep one of them");
        } else {
            names.push(name.to_owned());
        }
    }
    if let Some(node) = nodes.get(most) {
        let message = format!("'credentials' has more than {most} names");
        item.part_problem(node, message, "put several secrets into one file");
    }
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests;
