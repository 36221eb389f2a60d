//! A line of `watch: {ignore: ...}`, written as one of a `.gitignore`.

use std::fmt;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Longest pattern in bytes.
const LONGEST: usize = 1024;

/// A pattern as in a `.gitignore`, which has been understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It would name nothing.
    #[error("it names nothing")]
    Empty,
    /// In a `.gitignore` it would be a comment.
    #[error("a pattern that starts with '#' is a comment")]
    Comment,
    /// It is more than one line.
    #[error("it has a line break or another control character")]
    Control,
    /// It is too long.
    #[error("it is longer than {LONGEST} bytes")]
    Long,
    /// It has a part `.` or `..`, which no path of a file in the worker's directory has.
    #[error("it has a part '.' or '..', which the path of no file has")]
    Dots,
    /// It can not be read.
    #[error("{0}")]
    Glob(String),
}

impl PatternError {
    /// What to write instead.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Comment => {
                "write '\\\\#' in double quotes, or '\\#' in single ones, for a name that starts with '#'"
            }
            Self::Dots => {
                "paths start at the worker's directory: write \"/NAME\" for what lies directly in it, or \"NAME\" for what lies anywhere"
            }
            Self::Glob(_) => {
                "write '\\' before a character that is meant as itself, as in '\\[' (in single quotes)"
            }
            Self::Empty | Self::Control | Self::Long => {
                "write one as in a .gitignore: \"*.log\", \"/dist/\", \"!keep.log\""
            }
        }
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let bare = text.strip_prefix('!').unwrap_or(text);
        let bare = bare.trim_end_matches(' ');
        if bare.trim_matches('/').is_empty() {
            return Err(PatternError::Empty);
        }
        if text.starts_with('#') {
            return Err(PatternError::Comment);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        if text.len() > LONGEST {
            return Err(PatternError::Long);
        }
        if bare.split('/').any(|part| part == "." || part == "..") {
            return Err(PatternError::Dots);
        }
        let mut builder = GitignoreBuilder::new("");
        // git takes an open '[' for itself, which is seldom what was meant.
        builder.allow_unclosed_class(false);
        let read = builder.add_line(None, text).and_then(|read| read.build());
        match read {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(ignore::Error::Glob { err, .. }) => Err(PatternError::Glob(err)),
            Err(error) => Err(PatternError::Glob(error.to_string())),
        }
    }

    /// The one of the file at `path` from the worker's directory on, and no other; `None`: none can name it.
    pub fn of_path(path: &str) -> Option<Self> {
        let mut text = "/".to_owned();
        for c in path.chars() {
            if matches!(c, '\\' | '*' | '?' | '[' | ']' | '{' | '}' | ' ') {
                text.push('\\');
            }
            text.push(c);
        }
        Self::parse(&text).ok()
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `patterns` as they apply below `directory`.
pub(super) fn compiled(directory: &Path, patterns: &[Pattern]) -> Gitignore {
    let lines = patterns.iter().map(Pattern::as_str);
    read(directory, lines)
}

/// The lines of a `.gitignore` in `directory`. As for git, one that can not be read says nothing.
pub(super) fn read<'l>(directory: &Path, lines: impl Iterator<Item = &'l str>) -> Gitignore {
    let mut builder = GitignoreBuilder::new(directory);
    for line in lines {
        if let Err(error) = builder.add_line(None, line) {
            tracing::debug!(
                "a line of a .gitignore in {} is left out: {error}",
                directory.display()
            );
        }
    }
    builder.build().unwrap_or_else(|error| {
        tracing::warn!(
            "what a .gitignore in {} says is left out: {error}",
            directory.display()
        );
        Gitignore::empty()
    })
}
