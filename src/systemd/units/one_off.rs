//! A command in the surroundings of a worker, as a unit of its own: its user, files, sandbox, environment, secrets and limits, without its
//! socket.

use std::os::fd::OwnedFd;

use zbus::Variant;

use super::directive::{Properties, properties};
use super::{Before, UnitPair};
use crate::systemd::start;

/// What a generation has and a command has not: it is not started again, and its output goes to who runs it.
const NOT_FOR_ONE: [&str; 12] = [
    "Description",
    "ExecStart",
    "KillSignal",
    "Restart",
    "RestartUSec",
    "StandardError",
    "StandardErrorFileToAppend",
    "StandardOutput",
    "StandardOutputFileToAppend",
    "StartLimitBurst",
    "StartLimitIntervalUSec",
    "Type",
];

/// One command.
#[derive(Clone, Debug)]
pub struct OneOff {
    /// The name of its unit.
    pub unit: String,
    /// A generation in whose surroundings it runs; its `command` is this one, whose program may be a name that is looked up in PATH.
    pub pair: UnitPair,
    /// Its standard input is a terminal that is to be its own, of this type (`TERM`).
    pub terminal: Option<String>,
}

impl OneOff {
    /// Its properties for a systemd of this version; `ends` are its standard input, output and error.
    pub(in crate::systemd) fn properties(&self, version: u32, ends: [OwnedFd; 3]) -> Properties {
        let mut pair = self.pair.clone();
        if let Some(terminal) = &self.terminal {
            pair.env.insert("TERM".to_owned(), terminal.clone());
        }
        let mut all = properties(pair.service());
        all.retain(|(property, _)| !NOT_FOR_ONE.contains(property));
        all.extend(pair.state_quota(version));
        let before = Before {
            one_off: true,
            terminal: self.terminal.is_some(),
            ..pair.before()
        };
        let words = start::command_line(&pair.starter(), &before, &pair.command);
        let description = format!("TQServer command in worker {}", pair.instance.worker);
        let [input, output, errors] = ends.map(|end| Variant::Fd(end.into()));
        all.extend([
            ("Description", description.into()),
            // Its end is that of the job, which knows how it went.
            ("Type", "oneshot".into()),
            ("TimeoutStartUSec", u64::MAX.into()),
            ("ExecStart", vec![(words[0].clone(), words, false)].into()),
            ("StandardInputFileDescriptor", input),
            ("StandardOutputFileDescriptor", output),
            ("StandardErrorFileDescriptor", errors),
        ]);
        all
    }
}
