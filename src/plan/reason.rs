//! Why something did not work, in the words an operator needs.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::printable;
use crate::names::Generation;
use crate::systemd::Ending;

/// Why something did not work, in the words an operator needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its process ended.
    Ended(Ending),
    /// It did not answer its health request in this time.
    NotReady(Duration),
    /// It answered its health request with this status.
    HttpStatus(u16),
    /// It did not speak HTTP on its socket.
    Broken(String),
    /// Somebody else listens on its port: a sentence.
    Taken(String),
    /// It could not be built: a sentence, and the compiler's last words.
    Build(String, Vec<String>),
    /// It is not in a state to be started: wrong configuration, missing program.
    Unusable(String),
    /// systemd or the file system refused: a sentence.
    Refused(String),
    /// The proxy is away and can not confirm.
    NoProxy,
    /// The worker was removed while it started.
    Removed,
    /// Development: its files were saved again before it was ready.
    Superseded,
    /// Production: its files were never accepted, and nobody has asked for them to be tried.
    Untried,
    /// It happened to this one of several instances.
    Instance(u8, Box<Reason>),
}

impl Reason {
    /// Whether another try of the same files can end otherwise. A build of the same source can not.
    pub fn may_pass(&self) -> bool {
        !matches!(
            self,
            Self::Build(..) | Self::Removed | Self::Superseded | Self::Untried
        )
    }

    /// Whether somebody else holds its port.
    pub(crate) fn is_taken(&self) -> bool {
        match self {
            Self::Taken(_) => true,
            Self::Instance(_, reason) => reason.is_taken(),
            _ => false,
        }
    }

    /// Whether nothing went wrong: it was not wanted any more.
    pub fn is_unwanted(&self) -> bool {
        matches!(self, Self::Removed | Self::Superseded)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(ending) => ending.fmt(f),
            Self::NotReady(after) => write!(
                f,
                "timeout: it did not become ready within {} s",
                after.as_secs_f64()
            ),
            Self::HttpStatus(status) => write!(f, "HTTP status {status} to its health request"),
            Self::Broken(how) => write!(f, "no HTTP on its socket: {}", printable(how)),
            Self::Build(sentence, _)
            | Self::Unusable(sentence)
            | Self::Refused(sentence)
            | Self::Taken(sentence) => {
                // What a deployer has named is shown, and colours nothing.
                let lines: Vec<String> = sentence.lines().map(printable).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::NoProxy => write!(f, "the proxy is not connected"),
            Self::Instance(number, reason) => write!(f, "instance {number}: {reason}"),
            Self::Removed => write!(f, "the worker was removed"),
            Self::Superseded => write!(f, "its files were saved again meanwhile"),
            Self::Untried => write!(
                f,
                "its files were not accepted yet; `tqserver reload` tries them"
            ),
        }
    }
}

/// A failure with what the worker said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which generation failed, if it came to one.
    pub generation: Option<Generation>,
    /// Why.
    pub reason: Reason,
    /// Its last log lines, oldest first.
    pub log: Vec<String>,
}

/// What is wrong with a worker whose port can be reached from outside the machine, and what helps.
pub const EXPOSED: &str = "listens on all addresses of the machine: whoever reaches its port gets past the proxy; let it listen on \
    127.0.0.1, which it finds in HOST, or on the socket it is handed (`listen: socket`)";
