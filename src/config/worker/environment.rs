//! `env` and `env_from_credentials`: variables that are added to the environment of a worker's program.

use std::collections::BTreeMap;

use super::super::section::{Item, nearest};
use super::super::variables::Known;
use super::bounds::LONGEST_VALUE;

/// Most environment variables.
pub(super) const MOST_VARIABLES: usize = 256;
/// Variables that systemd or TQServer sets; a worker that set them itself would be lied to about its sockets or limits.
const RESERVED: [&str; 23] = [
    "CACHE_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "FPM_SOCKETS",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LOGS_DIRECTORY",
    "MAINPID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "PORT",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Why a variable of some name is not a worker's to set.
pub(super) enum Refused {
    /// It is not the name of one.
    NoName {
        /// What to write.
        help: &'static str,
    },
    /// TQServer or systemd sets it.
    Ours {
        /// What that is, with the name.
        what: String,
        /// What to do instead.
        help: &'static str,
    },
}

/// Why a worker may not set the variable `name`, if it may not.
pub(super) fn refused(name: &str) -> Option<Refused> {
    let start = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !start || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let help = "use letters, digits and '_', starting with a letter or '_'";
        return Some(Refused::NoName { help });
    }
    let limit = match name {
        "GOMAXPROCS" => Some("set the limit 'gomaxprocs' instead"),
        "GOMEMLIMIT" => Some("set the limit 'gomemlimit' instead"),
        _ => None,
    };
    if let Some(help) = limit {
        let what = format!("'{name}' is set by TQServer");
        return Some(Refused::Ours { what, help });
    }
    (RESERVED.contains(&name) || name.starts_with("WORKER_")).then(|| Refused::Ours {
        what: format!("'{name}' is set by systemd or TQServer"),
        help: "choose another name",
    })
}

/// Whether the key is the name of a variable that a worker may set; if not, that is a problem.
fn is_free(item: &Item<'_>) -> bool {
    match refused(item.key()) {
        Some(Refused::NoName { help }) => {
            item.key_problem("this is not the name of an environment variable", help);
            false
        }
        Some(Refused::Ours { what, help }) => {
            item.key_problem(what, help);
            false
        }
        None => true,
    }
}

/// The variables, those that TQServer or systemd sets excepted.
pub(super) fn environment(items: &[Item<'_>], known: &Known) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for item in items {
        let name = item.key();
        if is_free(item)
            && let Some(value) = value(item, known)
        {
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

/// The variables that are secrets, each with the name of its secret, which is one of `credentials`. No variable is in `env`, too.
pub(super) fn from_credentials(
    items: &[Item<'_>],
    credentials: &[String],
    env: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for item in items {
        let name = item.key();
        if !is_free(item) {
            continue;
        }
        if env.contains_key(name) {
            let message = format!("'{name}' is in 'env', too");
            item.key_problem(message, "remove one of them: it has one value");
        } else if let Some(secret) = secret(item, credentials) {
            variables.insert(name.to_owned(), secret);
        }
    }
    if let Some(item) = items.get(MOST_VARIABLES) {
        let message = format!("'env_from_credentials' has more than {MOST_VARIABLES} variables");
        item.key_problem(message, "have the program read its secrets as files");
    }
    variables
}

/// The name of a secret, which is one of `credentials`.
fn secret(item: &Item<'_>, credentials: &[String]) -> Option<String> {
    let key = format!("env_from_credentials.{}", item.key());
    let Some(secret) = item.node().scalar() else {
        let what = item.node().description();
        let help = "write the name of a credential, as in DATABASE_URL: db-url";
        item.problem(
            format!("'{key}' is the name of a credential, not {what}"),
            help,
        );
        return None;
    };
    if credentials.iter().any(|name| name == secret) {
        return Some(secret.to_owned());
    }
    let names: Vec<&str> = credentials.iter().map(String::as_str).collect();
    let help = match (nearest(secret, &names), names.as_slice()) {
        (Some(near), _) => format!("did you mean '{near}'?"),
        (None, []) => "name the secrets it needs, as in credentials: [db]".to_owned(),
        (None, names) => format!(
            "'credentials' has {}; name it there as well, or one of them here",
            names.join(", ")
        ),
    };
    item.problem(
        format!(
            "'{key}' names {}, which is not in 'credentials'",
            item.shown()
        ),
        help,
    );
    None
}

/// A variable's value, as it is written: `1.10` stays `1.10`. What it names is for later.
fn value(item: &Item<'_>, known: &Known) -> Option<String> {
    let name = item.key();
    if item.node().is_null() {
        item.problem(
            format!("'env.{name}' has no value"),
            "write \"\" for an empty one",
        );
        return None;
    }
    let Some(text) = item.node().scalar() else {
        let what = item.node().description();
        let help = "write a text, a number or a truth value";
        item.problem(format!("'env.{name}' can not be {what}"), help);
        return None;
    };
    // Any other character can be carried, a line break among them.
    if text.contains('\0') {
        let help = "no program can be handed one; put the text into a file of the worker";
        item.problem(format!("'env.{name}' has a NUL"), help);
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
    if let Some((message, help)) = known.problem(text) {
        item.problem(format!("'env.{name}': {message} in '{text}'"), help);
        return None;
    }
    Some(text.to_owned())
}
