//! The start verb: what a worker's unit executes, `tqserver start-worker 1 [close-netlink] [look-up] [terminal] [link TO FROM]... [fill FROM TO]... [secret-env=VARIABLE:SECRET]... -- WORD...`.
//! It closes what no property of a unit can tell apart, prepares the worker's state, reads what no unit is to have, and becomes the worker's program: the same process, so descriptors, credentials and `LISTEN_PID` stay right.
//!
//! It also carries the program's arguments past systemd, which reads `$` in them as a variable and, in version 252, makes `\;` of a
//! `;` when it reads its own transient units again. So words are written in letters that systemd passes on as they are.

mod secrets;
mod state;
mod words;

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::netlink::{self, Protocol};

/// The hidden verb of the command line.
pub const VERB: &str = "start-worker";
/// How what follows the verb is written. A unit that was made by another version of this program restarts by the present one, so
/// whoever changes the form takes another number, and goes on reading this one.
const FORM: &str = "1";
/// Closes all of netlink but what tells about addresses and routes.
const CLOSE_NETLINK: &str = "close-netlink";
/// The program may be a name that is looked up in PATH.
const LOOK_UP: &str = "look-up";
/// Standard input is a terminal that becomes the program's own.
const TERMINAL: &str = "terminal";
/// Before two directories: the second becomes a link to the first.
const LINK: &str = "link";
/// Before two directories: the second is filled from the first, once.
const FILL: &str = "fill";
/// Before `VARIABLE:SECRET`: the value of this variable is this secret. Their names are letters that systemd passes on as they are.
const SECRET_ENV: &str = "secret-env=";
/// Ends what is for us.
const END: &str = "--";
/// What systemd itself exits with when it cannot execute a program (systemd.exec(5), "Process Exit Codes").
pub(super) const EXIT_EXEC: u8 = 203;
/// Our command line is not one of ours (sysexits.h).
const EXIT_USAGE: u8 = 64;
/// The worker's state could not be prepared (sysexits.h).
const EXIT_IO: u8 = 74;
/// A secret could not be had; systemd exits with this when it cannot hand one over.
pub(super) const EXIT_CREDENTIALS: u8 = 243;
/// A wall could not be built; systemd exits with this when its own cannot.
const EXIT_SECCOMP: u8 = 228;
/// As much of a script is read to say what its first line asks for.
const FIRST_LINE: u64 = 256;

/// What is done before the program runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Before {
    /// See [`CLOSE_NETLINK`].
    pub(super) close_netlink: bool,
    /// The name of each variable that is a secret, and that of the secret.
    pub(super) secrets: BTreeMap<String, String>,
    /// See [`LOOK_UP`].
    pub(super) one_off: bool,
    /// See [`TERMINAL`].
    pub(super) terminal: bool,
    /// See [`LINK`].
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    /// See [`FILL`].
    pub(super) fills: Vec<(PathBuf, PathBuf)>,
}

/// The command line of a unit that starts `command` by way of `program`, which is this program.
pub(super) fn command_line(program: &Path, before: &Before, command: &[String]) -> Vec<String> {
    let mut line = vec![
        program.display().to_string(),
        VERB.to_owned(),
        FORM.to_owned(),
    ];
    let words = [
        (before.close_netlink, CLOSE_NETLINK),
        (before.one_off, LOOK_UP),
        (before.terminal, TERMINAL),
    ];
    let words = words.into_iter().filter(|(wanted, _)| *wanted);
    line.extend(words.map(|(_, word)| word.to_owned()));
    for (word, pairs) in [(LINK, &before.links), (FILL, &before.fills)] {
        for (from, to) in pairs {
            let path = |path: &PathBuf| words::write(path.as_os_str().as_bytes());
            line.extend([word.to_owned(), path(from), path(to)]);
        }
    }
    let secrets = before.secrets.iter();
    line.extend(secrets.map(|(variable, secret)| format!("{SECRET_ENV}{variable}:{secret}")));
    line.push(END.to_owned());
    line.extend(command.iter().map(|word| words::write(word.as_bytes())));
    line
}

/// What is to be done before the program runs, and the program.
#[derive(Debug, PartialEq, Eq)]
struct Start {
    before: Before,
    command: Vec<CString>,
}

/// The variable and the secret that `word` names, if it names any.
fn secret_env(word: &OsStr) -> Option<(String, String)> {
    let (variable, secret) = word.to_str()?.strip_prefix(SECRET_ENV)?.split_once(':')?;
    let is_name = !secret.is_empty() && !secret.contains('/') && !secret.starts_with('.');
    (is_name && !variable.is_empty()).then(|| (variable.to_owned(), secret.to_owned()))
}

/// The two paths that follow `word`.
fn two_paths(
    word: &OsStr,
    arguments: &mut impl Iterator<Item = OsString>,
) -> Result<(PathBuf, PathBuf), StartError> {
    let mut path = || {
        let read = words::read(arguments.next()?.as_bytes())?;
        Some(PathBuf::from(OsString::from_vec(read)))
    };
    path()
        .zip(path())
        .ok_or_else(|| StartError::Usage(format!("'{}' has no two paths", word.display())))
}

/// Why a worker could not be started.
#[derive(Debug)]
enum StartError {
    Usage(String),
    Secret(String),
    Filter(String),
    State(PathBuf, io::Error),
    NotInPath(OsString),
    Execute(PathBuf, Errno),
}

/// Runs the verb if `arguments`, with the program's own name before them, ask for it: returns only when it could not, with the exit
/// code. It is asked before anything else is set up, for each start of a worker waits for it.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> Option<u8> {
    arguments.next();
    if arguments.next()? != VERB {
        return None;
    }
    let error = match Start::read(arguments).map(Start::run) {
        Ok(error) | Err(error) => error,
    };
    // Standard error is the worker's log.
    eprintln!("tqserver: {error}");
    Some(error.code())
}

impl Start {
    fn read(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, StartError> {
        let form = arguments.next().unwrap_or_default();
        if form != FORM {
            return Err(StartError::Usage(format!(
                "'{VERB} {}' was written by another version of TQServer; type `tqserver reload --force`",
                form.display()
            )));
        }
        let mut before = Before::default();
        loop {
            match arguments.next() {
                Some(word) if word == END => break,
                Some(word) if word == CLOSE_NETLINK => before.close_netlink = true,
                Some(word) if word == LOOK_UP => before.one_off = true,
                Some(word) if word == TERMINAL => before.terminal = true,
                Some(word) if word == LINK => before.links.push(two_paths(&word, &mut arguments)?),
                Some(word) if word == FILL => before.fills.push(two_paths(&word, &mut arguments)?),
                Some(word) if secret_env(&word).is_some() => {
                    before.secrets.extend(secret_env(&word))
                }
                Some(word) => {
                    return Err(StartError::Usage(format!(
                        "'{VERB}' does not know '{}'",
                        word.display()
                    )));
                }
                None => return Err(StartError::Usage(format!("'{VERB}' has no '{END}'"))),
            }
        }
        let mut command = Vec::new();
        for word in arguments {
            let read = words::read(word.as_bytes()).and_then(|word| CString::new(word).ok());
            let Some(read) = read else {
                return Err(StartError::Usage(format!(
                    "'{VERB}' cannot read '{}'",
                    word.display()
                )));
            };
            command.push(read);
        }
        if command.is_empty() {
            return Err(StartError::Usage(format!("'{VERB}' names no program")));
        }
        Ok(Self { before, command })
    }

    /// Becomes the program; returns when that failed.
    fn run(self) -> StartError {
        let (before, command) = (self.before, self.command);
        // As the worker's user, who alone can read them, and before anything of the program runs.
        let environment = secrets::environment(std::env::vars_os(), &before.secrets);
        let environment = match environment {
            Ok(environment) => environment,
            Err(error) => return StartError::Secret(error),
        };
        let links = before
            .links
            .iter()
            .map(|(from, to)| (to, state::link(from, to)));
        let fills = before
            .fills
            .iter()
            .map(|(from, to)| (to, state::fill(from, to)));
        for (directory, done) in links.chain(fills) {
            if let Err(error) = done {
                return StartError::State(directory.clone(), error);
            }
        }
        if before.terminal {
            // systemd made this process the first of a session, which has no terminal yet. Without one it goes on, with less comfort.
            let _ = rustix::process::ioctl_tiocsctty(io::stdin());
        }
        if before.close_netlink
            && let Err(error) = netlink::keep_only(Protocol::Route)
        {
            return StartError::Filter(error);
        }
        // Not by std::process::Command, which gives a program the default disposition of SIGPIPE; systemd ignores it for services.
        let program = &command[0];
        let Err(error) = match before.one_off {
            true => nix::unistd::execvpe(program, &command, &environment),
            false => nix::unistd::execve(program, &command, &environment),
        };
        let program = OsStr::from_bytes(program.to_bytes());
        if before.one_off && error == Errno::ENOENT && !program.as_bytes().contains(&b'/') {
            return StartError::NotInPath(program.to_owned());
        }
        StartError::Execute(PathBuf::from(program), error)
    }
}

impl StartError {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Secret(_) => EXIT_CREDENTIALS,
            Self::Filter(_) => EXIT_SECCOMP,
            Self::State(..) => EXIT_IO,
            Self::NotInPath(_) | Self::Execute(..) => EXIT_EXEC,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(sentence) => f.write_str(sentence),
            Self::Secret(error) => write!(f, "{error}"),
            Self::Filter(error) => write!(f, "cannot filter the worker's system calls: {error}"),
            Self::State(directory, error) => write!(
                f,
                "cannot prepare '{}', which 'files' or 'persist' names: {error}",
                directory.display()
            ),
            Self::NotInPath(program) => {
                let path = std::env::var("PATH").unwrap_or_default();
                let shown = program.display();
                write!(
                    f,
                    "program '{shown}' not found in the worker's PATH ({path}); for one in its directory type its path, as in bin/{shown}"
                )
            }
            Self::Execute(program, error) => {
                let shown = program.display();
                write!(f, "cannot execute '{shown}': {}", error.desc())?;
                match explain(program, *error) {
                    Some(why) => write!(f, "; {why}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What is behind the kernel's word for it, and what helps.
fn explain(program: &Path, error: Errno) -> Option<String> {
    let shown = program.display();
    // A home that is hidden cannot even be looked into.
    let is_seen = program.metadata().is_ok();
    match error {
        Errno::ENOENT | Errno::EACCES if !is_seen => Some(
            "it is not there, or the worker cannot see it: a worker with a sandbox sees its own directory, /usr and /opt, and nothing \
             of /home, /root and /tmp; put the program into the worker's directory, or install it below /usr"
                .to_owned(),
        ),
        Errno::ENOENT => Some(match interpreter(program) {
            Some(missing) => format!(
                "its first line names '{}', which is not there: install it, or name the program that runs the script in 'command'",
                missing.display()
            ),
            None => "it was built for another system: its loader is not there; build it for this one, or link it statically".to_owned(),
        }),
        Errno::EACCES => Some(format!(
            "the worker's user may not: type `chmod a+rx {shown}`, and see that each directory above it can be entered"
        )),
        Errno::ENOEXEC => Some(
            "it is no program of this machine, and a script needs a first line such as '#!/bin/sh'".to_owned(),
        ),
        Errno::E2BIG => Some(
            "'command' and 'env' are too long together: put some of it into a file of the worker".to_owned(),
        ),
        _ => None,
    }
}

/// The program that runs the script `script`, by its first line.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let file = std::fs::File::open(script).ok()?;
    first_line(file).ok().flatten()
}

fn first_line(file: impl Read) -> io::Result<Option<PathBuf>> {
    let mut start = Vec::new();
    file.take(FIRST_LINE).read_to_end(&mut start)?;
    let line = start.split(|byte| *byte == b'\n').next();
    let line = line.and_then(|line| line.strip_prefix(b"#!"));
    let mut words = line.into_iter().flat_map(|line| {
        let words = line.split(|byte| matches!(byte, b' ' | b'\t'));
        words.filter(|word| !word.is_empty())
    });
    let first = words.next().map(<[u8]>::to_vec);
    Ok(first.map(|word| PathBuf::from(OsString::from_vec(word))))
}

#[cfg(test)]
mod tests;
