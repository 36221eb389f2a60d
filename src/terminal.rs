//! What a person at the terminal sees: lines, and below them one that changes while something takes long. Whoever writes to standard output
//! or standard error while that line may be there, writes here.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Width of a terminal that does not say.
const COLUMNS: usize = 80;
/// To the beginning of the line, and nothing in it (console_codes(4)).
const CLEAR: &str = "\r\u{1b}[K";

/// The line that changes; empty: there is none.
static CHANGING: Mutex<String> = Mutex::new(String::new());

fn changing() -> MutexGuard<'static, String> {
    CHANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether what is written to `stream` may have colours: it is a terminal, and NO_COLOR does not forbid it (no-color.org).
pub fn takes_colours(stream: &impl IsTerminal) -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !forbidden
}

/// Shows `line` below all others, in the place of the one before; an empty one takes it away. Where standard error is no terminal there is
/// no such line.
pub fn show(line: &str) {
    if !io::stderr().is_terminal() {
        return;
    }
    let fitting: String = line.chars().take(columns().saturating_sub(1)).collect();
    let mut changing = changing();
    if *changing != fitting {
        let _ = write!(io::stderr().lock(), "{CLEAR}{fitting}");
        *changing = fitting;
    }
}

/// Prints a line to standard output.
///
/// # Errors
/// When nobody reads it.
pub fn print(line: &str) -> io::Result<()> {
    above(|| {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}")?;
        stdout.flush()
    })
}

/// Standard error, to which whole lines are written.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        above(|| io::stderr().lock().write_all(lines))?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes whole lines above the one that changes.
fn above(write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let changing = changing();
    if changing.is_empty() {
        return write();
    }
    let _ = io::stderr().lock().write_all(CLEAR.as_bytes());
    let written = write();
    let _ = io::stderr().lock().write_all(changing.as_bytes());
    written
}

fn columns() -> usize {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => COLUMNS,
    }
}
