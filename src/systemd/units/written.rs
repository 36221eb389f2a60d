//! What a program needs besides its command line: a configuration that is written for it, and a signal of its own to end by.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::directive::{Directive, directive};

/// A file that is written for a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where it finds it. Not by `CREDENTIALS_DIRECTORY`: a command line that names a variable is another one after systemd 252 has read
    /// its units again.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
    /// Its name, if systemd hands it over beside the worker's secrets (systemd.exec(5), `SetCredential=`): the worker can then read it
    /// whatever user it is and whatever is hidden from it, and it goes with the unit. Else it lies at `path` for as long as the
    /// generation does.
    pub credential: Option<String>,
}

/// A signal that asks a program to finish and exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// For programs that take SIGTERM as "at once".
    Quit,
}

impl Written {
    /// How systemd is told of it, if it is.
    pub(super) fn directive(&self) -> Option<Directive> {
        let (name, text) = (self.credential.as_ref()?, &self.text);
        let mut line = format!("{name}:");
        for character in text.chars() {
            match character {
                '\\' => line.push_str("\\\\"),
                '\n' => line.push_str("\\n"),
                character if character.is_ascii_control() => {
                    let _ = write!(line, "\\x{:02x}", u32::from(character));
                }
                character => line.push(character),
            }
        }
        let value = vec![(name.clone(), text.clone().into_bytes())];
        Some(directive("Service", "SetCredential", line, value))
    }
}

impl StopSignal {
    pub(super) fn directive(self) -> Directive {
        match self {
            // SIGQUIT of signal(7).
            Self::Quit => directive("Service", "KillSignal", "SIGQUIT", 3_i32),
        }
    }
}
