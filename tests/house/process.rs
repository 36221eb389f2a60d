//! Processes the tests start: a server that runs, commands that end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{LONG, lock, until};

/// Variables by which the surroundings of the tests could decide what they see.
const FOREIGN: [&str; 8] = [
    "TQ_CONFIG",
    "TQ_MANAGER",
    "TQ_MODE",
    "DEPLOYMENT_MODE",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "NOTIFY_SOCKET",
    "JOURNAL_STREAM",
];

/// `tqserver` with these arguments, in surroundings of ours.
pub fn tqserver<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tqserver"));
    FOREIGN.iter().for_each(|name| {
        command.env_remove(name);
    });
    command.args(arguments);
    command
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ran {
    /// Runs a command to its end, for at most a while.
    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        Running::start(command).ends()
    }

    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    #[track_caller]
    pub fn succeeds(&self) -> &Self {
        self.exits(0)
    }

    /// It ended with exit code 1 and says this.
    #[track_caller]
    pub fn fails_with(&self, text: &str) -> &Self {
        self.exits(1).says(text)
    }

    /// This is in what it printed, wherever.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(
            self.stdout.contains(text) || self.stderr.contains(text),
            "'{text}' is not in what it printed\n{self}"
        );
        self
    }

    #[track_caller]
    pub fn says_nothing_of(&self, text: &str) -> &Self {
        assert!(
            !self.stdout.contains(text) && !self.stderr.contains(text),
            "'{text}' is in what it printed\n{self}"
        );
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            code,
            stdout,
            stderr,
            took,
        } = self;
        write!(
            f,
            "exit code {code:?} after {took:?}\n-- its output:\n{stdout}\n-- its messages:\n{stderr}"
        )
    }
}

/// A command under way.
pub struct Running {
    child: Child,
    began: Instant,
    stdout: std::thread::JoinHandle<String>,
    stderr: std::thread::JoinHandle<String>,
}

impl Running {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let began = Instant::now();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("run {command:?}: {error}"));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let stdout =
            std::thread::spawn(move || stdout.map(super::http::read_all).unwrap_or_default());
        let stderr =
            std::thread::spawn(move || stderr.map(super::http::read_all).unwrap_or_default());
        Self {
            child,
            began,
            stdout,
            stderr,
        }
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    #[track_caller]
    pub fn ends(mut self) -> Ran {
        let status = wait(&mut self.child, 2 * LONG);
        let took = self.began.elapsed();
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let text = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
        let ran = Ran {
            code: status.and_then(|status| status.code()),
            stdout: text(self.stdout),
            stderr: text(self.stderr),
            took,
        };
        assert!(
            status.is_some(),
            "a command did not end within {:?}: {ran}",
            2 * LONG
        );
        ran
    }
}

/// Waits for the end of a child; `None`: it did not come.
pub fn wait(child: &mut Child, longest: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + longest;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            _ => return None,
        }
    }
}

/// A server and what it says.
pub struct Server {
    child: Child,
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    /// All lines, and how many of the two streams have ended.
    lines: Mutex<(Vec<String>, u8)>,
    more: Condvar,
}

impl Server {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("run {command:?}: {error}"));
        let said = Arc::new(Said::default());
        // They end when the last process that has the pipe does.
        let stdout = child
            .stdout
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
        let stderr = child
            .stderr
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
        for pipe in stdout.into_iter().chain(stderr) {
            let said = Arc::clone(&said);
            std::thread::spawn(move || said.listen(BufReader::new(pipe)));
        }
        Self { child, said }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for a line that holds `text`; `Err`: it ended without.
    pub fn said(&self, text: &str) -> Result<String, String> {
        self.said_within(text, LONG)
    }

    /// The same, for what takes as long as a compiler may.
    pub fn said_within(&self, text: &str, most: Duration) -> Result<String, String> {
        let lines = lock(&self.said.lines);
        let found = |lines: &[String]| lines.iter().find(|line| line.contains(text)).cloned();
        let waiting = |state: &mut (Vec<String>, u8)| found(&state.0).is_none() && state.1 < 2;
        let waited = self.said.more.wait_timeout_while(lines, most, waiting);
        let (lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        found(&lines.0)
            .ok_or_else(|| format!("it did not say '{text}' but\n{}", lines.0.join("\n")))
    }

    pub fn all_it_said(&self) -> Vec<String> {
        lock(&self.said.lines).0.clone()
    }

    /// Waits for its end.
    pub fn end(&mut self) -> Option<ExitStatus> {
        wait(&mut self.child, 2 * LONG)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        if self.end().is_none() {
            eprintln!("the server did not end on SIGTERM");
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Said {
    fn listen(&self, pipe: impl BufRead) {
        for line in pipe.lines().map_while(Result::ok) {
            lock(&self.lines).0.push(line);
            self.more.notify_all();
        }
        lock(&self.lines).1 += 1;
        self.more.notify_all();
    }
}

/// Waits until no process has this id; one that only waits to be reaped is none.
#[track_caller]
pub fn gone(pid: u32) {
    until(&format!("process {pid} ends"), || !is_alive(pid));
}

pub fn is_alive(pid: u32) -> bool {
    state(&format!("/proc/{pid}/stat")).is_some_and(|state| state != 'Z' && state != 'X')
}

/// Stops a process, and waits until each of its threads has stopped.
#[track_caller]
pub fn freeze(pid: u32) {
    kill(pid, Signal::STOP);
    until(&format!("all threads of {pid} have stopped"), || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is there");
        let mut threads = threads.map(|thread| thread.expect("a thread").path().join("stat"));
        threads.all(|stat| state(&stat.to_string_lossy()) == Some('T'))
    });
}

/// The letter of a process or a thread, from its stat file (proc(5)).
fn state(stat: &str) -> Option<char> {
    let stat = std::fs::read_to_string(stat).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap_or_else(|| panic!("{pid} is no process"));
    kill_process(pid, signal)
        .unwrap_or_else(|error| panic!("signal {signal:?} to {pid:?}: {error}"));
}
