//! Which systemd: the machine's, the user's, or a private one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::place::Place;

/// Where the machine's bus is (the D-Bus specification, "Well-known Message Bus Instances").
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// Where the policy in `packaging/dbus-1/` is installed (dbus-daemon(1)).
const POLICIES: [&str; 2] = [
    "/etc/dbus-1/system.d/org.tqserver.Manager1.conf",
    "/usr/share/dbus-1/system.d/org.tqserver.Manager1.conf",
];

/// A systemd to run workers by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The machine's, which runs as PID 1.
    System,
    /// The user's, `systemd --user`.
    User,
    /// One of our own.
    Private,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "system" => Ok(Self::System),
            "user" => Ok(Self::User),
            "private" => Ok(Self::Private),
            other => Err(format!("'{other}' is none of system, user, private")),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::User => "user",
            Self::Private => "private",
        })
    }
}

impl Kind {
    /// What is there: a user's session, the machine's when root, else a private one.
    pub fn detect() -> Self {
        if Self::User.is_there() {
            Self::User
        } else if Self::System.is_there() {
            Self::System
        } else {
            Self::Private
        }
    }

    /// Whether this one runs, and we may ask it for units.
    pub fn is_there(self) -> bool {
        match self {
            Self::User => session().is_some_and(|session| session.join("systemd/private").exists()),
            // On the machine's bus a name may only be taken by whom a policy allows it.
            Self::System => {
                rustix::process::geteuid().is_root()
                    && sd_notify::booted().unwrap_or(false)
                    && POLICIES.iter().any(|file| Path::new(file).exists())
            }
            Self::Private => true,
        }
    }

    /// The address of its bus. A private one belongs to the configuration in `file`.
    pub fn bus(self, file: &Path) -> String {
        let given = |variable: &str| {
            std::env::var(variable)
                .ok()
                .filter(|address| !address.is_empty())
        };
        match self {
            Self::System => {
                given("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| SYSTEM_BUS.to_owned())
            }
            Self::User => given("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| {
                format!("unix:path={}/bus", users_runtime_directory().display())
            }),
            Self::Private => Place::of(file).bus_address(),
        }
    }

    /// Where sockets of workers are made.
    pub fn runtime_directory(self, file: &Path) -> PathBuf {
        if let Some(given) = std::env::var_os("RUNTIME_DIRECTORY") {
            return PathBuf::from(given);
        }
        match self {
            Self::System => PathBuf::from("/run/tqserver"),
            Self::User => users_runtime_directory().join("tqserver"),
            Self::Private => Place::of(file).runtime_directory(),
        }
    }

    /// Where the service `unit` finds what it is handed as credentials (`CREDENTIALS_DIRECTORY`); `None`: it is handed nothing.
    pub fn credentials_directory(self, unit: &str) -> Option<PathBuf> {
        let runtime = match self {
            Self::System => PathBuf::from("/run"),
            Self::User => users_runtime_directory(),
            Self::Private => return None,
        };
        Some(runtime.join("credentials").join(unit))
    }

    /// Where snapshots and workers' own files are kept in production.
    pub fn state_directory(self, file: &Path) -> PathBuf {
        if let Some(given) = std::env::var_os("STATE_DIRECTORY") {
            return PathBuf::from(given);
        }
        let home = || {
            std::env::var_os("HOME")
                .map(PathBuf::from)
                .unwrap_or_default()
        };
        match self {
            Self::System => PathBuf::from("/var/lib/tqserver"),
            Self::User => match std::env::var_os("XDG_STATE_HOME") {
                Some(state) => PathBuf::from(state).join("tqserver"),
                None => home().join(".local/state/tqserver"),
            },
            // It goes with its systemd, as everything private does.
            Self::Private => Place::of(file).runtime_directory().join("state"),
        }
    }
}

/// The user's runtime directory, which logind makes at this place also for who was not told (pam_systemd(8)). Never one in /tmp,
/// where anybody could have made it first.
fn users_runtime_directory() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    session().unwrap_or_else(|| PathBuf::from(format!("/run/user/{user}")))
}

/// The user's runtime directory, if there is a session.
fn session() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}
