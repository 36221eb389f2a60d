//! All that the command line prints goes through here: colours get to the terminal, and nothing else that acts on it, whoever's words
//! are printed.
//!
//! The macros have the names of the standard library's, so that nobody can forget to use them.

use std::fmt;
use std::io::{self, Write};

use crate::ansi;

/// As `println!`.
macro_rules! println {
    () => { $crate::cli::say::stdout(format_args!("\n")) };
    ($($words:tt)*) => { $crate::cli::say::stdout(format_args!("{}\n", format_args!($($words)*))) };
}

/// As `print!`.
macro_rules! print {
    ($($words:tt)*) => { $crate::cli::say::stdout(format_args!($($words)*)) };
}

/// As `eprintln!`.
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::cli::say::stderr(format_args!("{}\n", format_args!($($words)*))) };
}

/// As `eprint!`.
macro_rules! eprint {
    ($($words:tt)*) => { $crate::cli::say::stderr(format_args!($($words)*)) };
}

/// Prints what a reader may have had enough of before its end, as `head` does.
pub(super) fn stdout(words: fmt::Arguments<'_>) {
    let _ = io::stdout()
        .lock()
        .write_all(ansi::keep_colours(&words.to_string()).as_bytes());
}

pub(super) fn stderr(words: fmt::Arguments<'_>) {
    // Should nobody read it, there is nobody to tell.
    let _ = io::stderr()
        .lock()
        .write_all(ansi::keep_colours(&words.to_string()).as_bytes());
}

/// Prints what a reader may have had enough of before its end, as `head` does.
pub(super) fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    // A script for a shell and the history: text of ours, and others' words in it.
    let text = ansi::keep_colours(&String::from_utf8_lossy(text));
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// JSON as it can be printed: what acts is escaped as JSON does it.
pub(super) fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c != '\n' && ansi::acts(c) {
            true => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_json_and_does_not_act() {
        let evil = "\u{1b}[2J\u{9b}\u{202e}x\n";
        let text = json(&serde_json::to_string_pretty(&[evil]).unwrap());
        assert!(
            !text.chars().any(|c| c != '\n' && ansi::acts(c)),
            "{text:?}"
        );
        assert_eq!(ansi::keep_colours(&text), text);
        let read: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, [evil]);
    }
}
