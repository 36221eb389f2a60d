//! The ways in which this worker misbehaves when told so.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// What the file `behaviour` says: a line for each, `key value` or `key` alone; `#` starts a comment. No file: it behaves.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// `says TEXT`: the body of each plain answer; default: its WORKER_NAME.
    pub(crate) says: Option<String>,
    /// `page FILE`: the body of each plain answer is what this file held at the start, as a page for browsers.
    pub(crate) page: Option<String>,
    /// `delay_ms N`: time before each plain answer.
    pub(crate) delay: Duration,
    /// `status N`: the status of every answer.
    pub(crate) status: Option<u16>,
    /// `never_ready`: connections are accepted and get no answer.
    pub(crate) never_ready: bool,
    /// `start_delay_ms N`: time before it begins to accept.
    pub(crate) start_delay: Duration,
    /// `ignore_term`: SIGTERM is not heeded.
    pub(crate) ignore_term: bool,
    /// `log TEXT`: a line on standard error at start; may be there several times.
    log: Vec<String>,
    /// `exit N`: exit at once with this code.
    exit: Option<i32>,
    /// `crash_signal [N]`: die at once of this signal; default: 6, SIGABRT.
    crash_signal: Option<i32>,
}

impl Behaviour {
    /// Reads the file.
    pub(crate) fn load(file: &str) -> Result<Self, String> {
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(&text).map_err(|line| format!("{file}: what is '{line}'?")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("read {file}: {error}")),
        }
    }

    /// Reads its text. The error is the line that makes no sense: a test with a mistake must not pass.
    fn parse(text: &str) -> Result<Self, String> {
        let mut behaviour = Self::default();
        for line in text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        {
            behaviour.read(line).ok_or(line)?;
        }
        Ok(behaviour)
    }

    fn read(&mut self, line: &str) -> Option<()> {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let millis = || value.parse().ok().map(Duration::from_millis);
        match key {
            "says" => self.says = Some(value.to_owned()),
            "page" => self.page = Some(fs::read_to_string(value).ok()?),
            "delay_ms" => self.delay = millis()?,
            "status" => self.status = Some(value.parse().ok()?),
            "never_ready" => self.never_ready = true,
            "start_delay_ms" => self.start_delay = millis()?,
            "ignore_term" => self.ignore_term = true,
            "log" => self.log.push(value.to_owned()),
            "exit" => self.exit = Some(value.parse().ok()?),
            "crash_signal" if value.is_empty() => self.crash_signal = Some(6),
            "crash_signal" => self.crash_signal = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }

    /// Does what is to happen before anything is served; it may not return.
    pub(crate) fn act_at_start(&self) {
        for line in &self.log {
            eprintln!("{line}");
        }
        if let Some(code) = self.exit {
            std::process::exit(code);
        }
        if let Some(signal) = self.crash_signal.and_then(Signal::from_named_raw) {
            // Twice: Rust's own handler takes the first SIGSEGV and puts itself away.
            let _ = kill_process(getpid(), signal);
            let _ = kill_process(getpid(), signal);
        }
    }
}
