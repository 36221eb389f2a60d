//! What a dotenv file says. There is no standard of it; this is what its readers have in common.
//!
//! Such a file often holds what nobody else is to see, and a line that is wrong may be the middle of a key. So an error says where and
//! what, and shows nothing of the text but names that are known here.

use super::super::bounds::LONGEST_VALUE;
use super::super::environment::{Refused, refused};

/// Why a file cannot be read as assignments.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// In which line, counted from 1.
    pub line: usize,
    /// What is wrong in it.
    pub what: String,
    /// What to write.
    pub help: &'static str,
}

/// What is left of the text, and in which line that begins.
struct Rest<'t> {
    text: &'t str,
    line: usize,
}

/// The variables in their order, one for each assignment: of two with the same name the later one counts.
///
/// # Errors
/// The first line that is no assignment, or is one that no program can be handed.
pub fn parse(text: &[u8]) -> Result<Vec<(String, String)>, Wrong> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|error| {
        let before = &text[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        wrong(
            line,
            "has a byte that is not UTF-8",
            "save the file as UTF-8 text",
        )
    })?;
    let text = text.replace("\r\n", "\n");
    let mut rest = Rest {
        text: &text,
        line: 1,
    };
    let mut variables = Vec::new();
    while !rest.text.is_empty() {
        let (text, line) = rest.line();
        let text = text.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        variables.push(assignment(text, line, &mut rest)?);
    }
    Ok(variables)
}

/// The assignment in the line `text`; `rest` follows it, and is read on where a quoted value is longer than a line.
fn assignment(text: &str, line: usize, rest: &mut Rest<'_>) -> Result<(String, String), Wrong> {
    let exported = text.strip_prefix("export");
    let exported = exported.filter(|rest| rest.starts_with([' ', '\t']));
    let Some((name, value)) = exported.unwrap_or(text).split_once('=') else {
        let help = "write NAME=value, or begin a comment with '#'";
        return Err(wrong(line, "is no assignment", help));
    };
    let name = name.trim();
    match refused(name) {
        None => {}
        // It may be anything, the middle of a key among them.
        Some(Refused::NoName { help }) => {
            return Err(wrong(
                line,
                "has no name of an environment variable before '='",
                help,
            ));
        }
        Some(Refused::Ours { what, help }) => return Err(wrong(line, what, help)),
    }
    let begun = value.trim_start_matches([' ', '\t']);
    let value = match begun.chars().next() {
        Some(quote @ ('\'' | '"')) => quoted(quote, &begun[1..], line, rest)?,
        _ => plain(value).to_owned(),
    };
    if value.contains('\0') {
        let help = "no program can be handed one; put the text into a file of the worker";
        return Err(wrong(line, "has a NUL", help));
    }
    if value.len() > LONGEST_VALUE {
        let what = format!("has a value longer than {LONGEST_VALUE} bytes");
        return Err(wrong(line, what, "put the text into a file of the worker"));
    }
    Ok((name.to_owned(), value))
}

/// A value without quotes ends with its line, or before a space and `#`.
fn plain(text: &str) -> &str {
    let mut before = ' ';
    let comment = text.char_indices().find(|&(at, c)| {
        let begins = c == '#' && at > 0 && matches!(before, ' ' | '\t');
        before = c;
        begins
    });
    let end = comment.map_or(text.len(), |(at, _)| at);
    text[..end].trim()
}

/// A value whose opening `quote`, in `line`, stands before `text`: the end of that line.
fn quoted(quote: char, text: &str, line: usize, rest: &mut Rest<'_>) -> Result<String, Wrong> {
    let mut value = String::new();
    let mut text = text;
    let mut at = line;
    loop {
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' if quote == '"' => escaped(&mut value, chars.next()),
                c if c == quote => return ended(chars.as_str(), at).map(|()| value),
                c => value.push(c),
            }
        }
        if rest.text.is_empty() {
            let what = format!("has a quote ({quote}) that is not closed");
            return Err(wrong(
                line,
                what,
                "close it where the value ends, or remove it",
            ));
        }
        value.push('\n');
        (text, at) = rest.line();
    }
}

/// What a `\` and the character behind it mean in double quotes. What has no meaning stays as it is; so does one at the end of a line.
fn escaped(value: &mut String, behind: Option<char>) {
    match behind {
        Some('n') => value.push('\n'),
        Some('r') => value.push('\r'),
        Some('t') => value.push('\t'),
        Some(itself @ ('"' | '\\' | '$')) => value.push(itself),
        other => {
            value.push('\\');
            value.extend(other);
        }
    }
}

/// Behind a closing quote there can be a comment.
fn ended(text: &str, line: usize) -> Result<(), Wrong> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(());
    }
    let help = "put all of the value between the quotes; in double quotes \\\" is a quote";
    Err(wrong(line, "has text after the closing quote", help))
}

impl<'t> Rest<'t> {
    /// The next line, without its end, and its number.
    fn line(&mut self) -> (&'t str, usize) {
        let number = self.line;
        let (line, rest) = self.text.split_once('\n').unwrap_or((self.text, ""));
        self.text = rest;
        self.line += 1;
        (line, number)
    }
}

fn wrong(line: usize, what: impl Into<String>, help: &'static str) -> Wrong {
    Wrong {
        line,
        what: what.into(),
        help,
    }
}
