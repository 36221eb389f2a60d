//! The state of a service, in few words.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zbus::OwnedVariant;

use super::properties::{number, text};
use super::start::{EXIT_CREDENTIALS, EXIT_EXEC};

/// How the last process of a service ended, if not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It exited with this status.
    ExitCode(i32),
    /// This signal ended it.
    Signal(i32),
    /// The kernel ended it for want of memory.
    OomKill,
    /// A start or stop took longer than systemd lets it.
    Timeout,
    /// systemd's word (`Result=`) for anything else.
    Other(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExitCode(code) if *code == i32::from(EXIT_EXEC) => write!(
                f,
                "exit code {code} (the program could not be executed; the log says why)"
            ),
            Self::ExitCode(code) if *code == i32::from(EXIT_CREDENTIALS) => write!(
                f,
                "exit code {code} (its credentials could not be handed over; the log says why)"
            ),
            Self::ExitCode(code) => match before_the_program(*code) {
                Some(what) => write!(f, "exit code {code} (systemd could not {what})"),
                None => write!(f, "exit code {code}"),
            },
            Self::Signal(9) => write!(
                f,
                "signal 9 (KILL; the memory limit ends this way too where the kernel does not tell)"
            ),
            Self::Signal(number) => write!(f, "signal {number}{}", signal_name(*number)),
            Self::OomKill => write!(f, "oom-kill: it used more memory than its limit"),
            Self::Timeout => write!(f, "timeout: systemd gave up waiting for it"),
            Self::Other(result) => write!(f, "{result}"),
        }
    }
}

/// What systemd does before the program runs, by the exit code that tells it failed (systemd.exec(5), "Process Exit Codes").
fn before_the_program(code: i32) -> Option<&'static str> {
    Some(match code {
        200 => "enter its directory",
        209 | 222 => "open where its output goes",
        217 => "make its user",
        226 => "make its view of the file system",
        228 => "filter its system calls",
        238 => "make its state directory",
        239 => "make its cache directory",
        _ => return None,
    })
}

fn signal_name(number: i32) -> &'static str {
    match number {
        3 => " (QUIT)",
        4 => " (ILL)",
        6 => " (ABRT)",
        7 => " (BUS)",
        8 => " (FPE)",
        11 => " (SEGV)",
        15 => " (TERM)",
        31 => " (SYS)",
        _ => "",
    }
}

/// `ActiveState=` of a service, with the one sub-state that matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// No process.
    #[default]
    Inactive,
    /// On its way up.
    Activating,
    /// Its process runs.
    Active,
    /// On its way down.
    Deactivating,
    /// It died and systemd will start it again (`auto-restart`).
    Restarting,
    /// It died and systemd has given up.
    Failed,
}

impl Activity {
    pub(super) fn read(active_state: &str, sub_state: &str) -> Self {
        match (active_state, sub_state) {
            (_, "auto-restart" | "auto-restart-queued") => Self::Restarting,
            ("active" | "reloading", _) => Self::Active,
            ("activating", _) => Self::Activating,
            ("deactivating", _) => Self::Deactivating,
            ("failed", _) => Self::Failed,
            _ => Self::Inactive,
        }
    }
}

/// The state of a generation's service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// Where it is.
    pub activity: Activity,
    /// How its last process ended, if it did not end well.
    pub failure: Option<Ending>,
    /// Status its last process exited with, if it did.
    pub exit_code: Option<i32>,
    /// Its main process; 0: none.
    pub pid: u32,
    /// How often systemd has restarted it.
    pub restarts: u32,
    /// The user its process is, if that is one of its own.
    pub user: Option<u32>,
    /// Seconds since 1970 at which its last process was started; 0: none was.
    pub since: u64,
}

/// The properties a [`ServiceState`] is read from, as they came last.
#[derive(Clone, Debug, Default)]
pub(super) struct RawService {
    pub(super) active_state: String,
    pub(super) sub_state: String,
    pub(super) result: String,
    pub(super) main_pid: u32,
    pub(super) restarts: u32,
    /// In microseconds since 1970.
    pub(super) started: u64,
    /// `si_code` of the last child (waitid(2)): 1 exited, 2 killed, 3 dumped.
    pub(super) main_code: i32,
    pub(super) main_status: i32,
    /// `UID=`, if there is one.
    pub(super) user: Option<u32>,
    /// How the last process ended that did not end well.
    pub(super) ended: Option<Ending>,
}

impl RawService {
    /// Takes over what systemd tells.
    pub(super) fn update(&mut self, properties: &HashMap<String, OwnedVariant>) {
        let int = |name: &str| {
            properties
                .get(name)
                .and_then(|value| i32::try_from(value).ok())
        };
        let count =
            |name: &str| number(properties, name).and_then(|value| u32::try_from(value).ok());
        if let Some(state) = text(properties, "ActiveState") {
            self.active_state = state;
        }
        if let Some(state) = text(properties, "SubState") {
            self.sub_state = state;
        }
        if let Some(result) = text(properties, "Result") {
            self.result = result;
        }
        self.main_pid = count("MainPID").unwrap_or(self.main_pid);
        self.restarts = count("NRestarts").unwrap_or(self.restarts);
        self.started = number(properties, "ExecMainStartTimestamp").unwrap_or(self.started);
        self.main_code = int("ExecMainCode").unwrap_or(self.main_code);
        self.main_status = int("ExecMainStatus").unwrap_or(self.main_status);
        if let Some(user) = count("UID") {
            // (uid_t) -1 is none.
            self.user = Some(user).filter(|user| *user != u32::MAX);
        }
        self.remember();
    }

    /// To be called with each change: a limit that is hit later hides how the processes ended that it counted.
    pub(super) fn remember(&mut self) {
        if !matches!(self.result.as_str(), "start-limit-hit") {
            self.ended = self.ending().or(self.ended.take());
        }
    }

    /// What `Result=` says.
    fn ending(&self) -> Option<Ending> {
        match self.result.as_str() {
            "" | "success" => None,
            "exit-code" => Some(Ending::ExitCode(self.main_status)),
            "signal" | "core-dump" => Some(Ending::Signal(self.main_status)),
            "oom-kill" => Some(Ending::OomKill),
            "timeout" => Some(Ending::Timeout),
            // One that was loaded before we looked still has its last process.
            "start-limit-hit" if matches!(self.main_code, 2 | 3) => {
                Some(Ending::Signal(self.main_status))
            }
            "start-limit-hit" if self.main_code == 1 && self.main_status != 0 => {
                Some(Ending::ExitCode(self.main_status))
            }
            other => Some(Ending::Other(other.to_owned())),
        }
    }

    pub(super) fn state(&self) -> ServiceState {
        let failure = match &self.ended {
            Some(ended) if self.result == "start-limit-hit" => Some(ended.clone()),
            _ => self.ending(),
        };
        ServiceState {
            activity: Activity::read(&self.active_state, &self.sub_state),
            failure,
            exit_code: (self.main_code == 1).then_some(self.main_status),
            pid: self.main_pid,
            restarts: self.restarts,
            user: self.user,
            since: self.started / 1_000_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_systemd_will_start_again_is_not_failed() {
        let raw = RawService {
            active_state: "activating".into(),
            sub_state: "auto-restart".into(),
            result: "exit-code".into(),
            main_code: 1,
            main_status: 3,
            ..RawService::default()
        };
        let state = raw.state();
        assert_eq!(state.activity, Activity::Restarting);
        assert_eq!(state.failure, Some(Ending::ExitCode(3)));
    }

    #[test]
    fn the_start_limit_does_not_hide_how_the_process_ended() {
        let raw = RawService {
            result: "start-limit-hit".into(),
            main_code: 2,
            main_status: 11,
            ..RawService::default()
        };
        assert_eq!(raw.state().failure.unwrap().to_string(), "signal 11 (SEGV)");
    }

    #[test]
    fn the_start_limit_tells_how_the_processes_ended_that_it_counted() {
        let mut raw = RawService {
            result: "exit-code".into(),
            main_code: 1,
            main_status: 4,
            ..RawService::default()
        };
        raw.remember();
        (raw.result, raw.main_code, raw.main_status) = ("start-limit-hit".into(), 0, 0);
        raw.remember();
        assert_eq!(raw.state().failure, Some(Ending::ExitCode(4)));
    }
}
