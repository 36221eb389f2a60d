//! What is wrong in a file, shown as a compiler shows it: the place, the line, a caret, and what to type instead.
//!
//! The text comes from files that a deployer writes and goes to an operator's terminal: it is escaped here, once, when it is printed.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ansi;

/// Most characters of a source line that are shown; more are cut away around the place that matters.
const SHOWN: usize = 110;
/// Most characters of a message and of its help: what they quote can be as long as its file.
const LONGEST_MESSAGE: usize = 500;

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, as a sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// A place in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line, counted from 1; 0: the file as a whole.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// How many characters are meant.
    pub width: usize,
    /// The line itself, as it stands in the file; shared, since a whole file may be one line with many problems.
    pub source_line: Arc<str>,
}

impl Place {
    /// A file as a whole.
    pub fn file(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            ..Self::default()
        }
    }
}

impl Problem {
    /// A problem without help.
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            message: bounded(message.into()),
            help: None,
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(bounded(help.into()));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        write!(f, "{}", printable(&place.file.to_string_lossy()))?;
        if place.line > 0 {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        write!(f, ": {}", printable(&self.message))?;
        if place.line > 0 {
            let (text, before, width) = excerpt(&place.source_line, place.column, place.width);
            let gutter = place.line.to_string().len().max(3);
            write!(f, "\n{:>gutter$} | {text}", place.line)?;
            let (indent, carets) = (" ".repeat(before), "^".repeat(width));
            write!(f, "\n{:>gutter$} | {indent}{carets}", "")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {}", printable(help))?;
        }
        Ok(())
    }
}

/// All that is wrong, in the order of the files; never empty where it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// The value, if nothing was found to be wrong with it.
    ///
    /// # Errors
    /// These problems, if there are any.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }

    /// Panics if these could not be shown, or are not about `text`.
    #[cfg(any(fuzzing, test))]
    #[doc(hidden)]
    pub fn check(&self, text: &str) {
        assert!((1..100).contains(&self.0.len()), "{}", self.0.len());
        for problem in &self.0 {
            let place = &problem.place;
            let lines = super::document::lines(text).count();
            assert!(place.line <= lines + 1, "{problem:?}");
            assert!(!problem.message.is_empty());
        }
        let shown = self.to_string();
        let calm = |c: char| c == '\n' || !ansi::acts(c);
        assert!(shown.chars().all(calm), "{shown:?}");
        let longest = shown.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|longest| longest < 20 * LONGEST_MESSAGE));
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// `text`, cut off where nobody reads on.
fn bounded(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(LONGEST_MESSAGE) {
        text.truncate(at);
        text.push('…');
        // What was a page of text is not to stay in memory for each of its problems.
        text.shrink_to_fit();
    }
    text
}

/// `text` with what would move a terminal's cursor or turn the direction of writing shown as an escape.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(shown).collect()
}

/// One character as it is shown: itself, or its escape.
fn shown(c: char) -> Vec<char> {
    if ansi::acts(c) {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}

/// The part of `line` around `column`, how many characters stand before the place in it, and how many carets go below.
fn excerpt(line: &str, column: usize, width: usize) -> (String, usize, usize) {
    let chars: Vec<char> = line.chars().collect();
    let from = column.saturating_sub(1).min(chars.len());
    let to = (from + width.max(1)).min(chars.len().max(from + 1));
    // Keep what stands before the place if it fits, else a little of it.
    let first = if chars.len() <= SHOWN || from < SHOWN * 2 / 3 {
        0
    } else {
        from - SHOWN / 3
    };
    let last = (first + SHOWN).min(chars.len());
    let mut text = String::from(if first > 0 { "…" } else { "" });
    let (mut before, mut carets) = (text.chars().count(), 0);
    for (index, &c) in chars[first..last].iter().enumerate() {
        // A tab is shown as a space: its width is the terminal's own.
        let piece = if c == '\t' { vec![' '] } else { shown(c) };
        match index + first {
            at if at < from => before += piece.len(),
            at if at < to => carets += piece.len(),
            _ => {}
        }
        text.extend(piece);
    }
    if last < chars.len() {
        text.push('…');
    }
    (text, before, carets.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(source_line: &str, column: usize, width: usize) -> String {
        let place = Place {
            file: PathBuf::from("config/server.yaml"),
            line: 4,
            column,
            width,
            source_line: source_line.into(),
        };
        Problem::new(place, "wrong").help("right").to_string()
    }

    #[test]
    fn the_caret_stands_below_the_place() {
        assert_eq!(
            problem("    prot: 1", 5, 4),
            "config/server.yaml:4:5: wrong\n  4 |     prot: 1\n    |     ^^^^\n  help: right"
        );
    }

    #[test]
    fn a_problem_of_a_whole_file_has_no_line() {
        let problem = Problem::new(Place::file("a.yaml"), "gone");
        assert_eq!(problem.to_string(), "a.yaml: gone");
    }

    #[test]
    fn what_would_steer_a_terminal_is_escaped_and_the_caret_follows() {
        let text = problem("a\u{1b}[31m\u{202e}: x", 10, 1);
        assert!(text.contains("a\\u{1b}[31m\\u{202e}: x"), "{text}");
        assert!(!text.contains('\u{1b}'));
        let caret = text.lines().nth(2).unwrap().find('^').unwrap();
        assert_eq!(&text.lines().nth(1).unwrap()[caret..=caret], "x");
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let line = format!("{}wrong{}", "a".repeat(5000), "b".repeat(5000));
        let text = problem(&line, 5001, 5);
        assert!(
            text.lines().all(|line| line.chars().count() < 130),
            "{text}"
        );
        assert!(text.contains("wrong"), "{text}");
        assert!(text.contains("^^^^^"), "{text}");
    }

    #[test]
    fn what_a_message_quotes_can_not_make_it_long() {
        let long = "a".repeat(1 << 20);
        let problem = Problem::new(Place::file("x"), format!("'{long}'")).help(long.clone());
        assert!(problem.to_string().len() < 1100);
    }

    #[test]
    fn places_outside_the_line_do_not_panic() {
        for (line, column, width) in [
            ("", 0, 0),
            ("", 1, 9),
            ("ab", 9, 9),
            ("ab", 1, usize::MAX / 2),
        ] {
            let text = problem(line, column, width);
            assert!(text.contains('^'), "{text}");
        }
    }
}
