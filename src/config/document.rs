//! YAML text -> nodes that know where they stand. Only this file and its `raw` know the YAML crates.
//!
//! Two parsers read each text. `serde_yaml` decides: what it refuses is a syntax error, and what a plain word means (a number, a
//! truth value, a text) is its judgement. `yaml-rust2` only says where each node begins. Both see the same nodes in the same order, so
//! one list of places is dealt out to the other's tree.
//!
//! Refused, each with its place: anchors and aliases (a small file could grow without bound), tags, a second document, deep nesting.

mod raw;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_yaml::Value;
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::Marker;

use super::problem::{Place, Problem, Problems};
use raw::Raw;

/// Deepest nesting; the deepest key there is has four levels.
const MAX_DEPTH: usize = 32;
/// Most values, lists and mappings: a file that has more is no configuration, and each of them costs time and memory.
const MAX_NODES: usize = 16_384;
/// Most problems that are kept of one file; the others are counted. Nobody reads more, and a file of nothing but problems must not
/// cost more than its size, nor push everything else off the terminal.
const MAX_PROBLEMS: usize = 40;

/// A parsed file and what was found wrong in it so far.
#[derive(Debug)]
pub(super) struct Document {
    file: PathBuf,
    lines: Vec<Arc<str>>,
    root: Node,
    problems: RefCell<Vec<Problem>>,
    /// How many more there are.
    more: Cell<usize>,
}

/// Where a node begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Line, counted from 1.
    pub(super) line: usize,
    /// Column in characters, counted from 1.
    pub(super) column: usize,
    /// Characters of the node, without quotes.
    pub(super) width: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) content: Content,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A single value: its text as written (unquoted), and what it means.
    Scalar(String, Value),
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in the order of the file; no key is there twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) mark: Mark,
    pub(super) value: Node,
}

impl Document {
    /// Parses `text`. What is wrong with it is kept; the root is then empty.
    pub(super) fn parse(file: &Path, text: &str) -> Self {
        let mut document = Self {
            file: file.to_owned(),
            lines: lines(text).map(Arc::from).collect(),
            root: Node::empty(),
            problems: RefCell::default(),
            more: Cell::default(),
        };
        if let Some(root) = document.read(text) {
            document.root = root;
        }
        document
    }

    /// The keys and values of the whole file.
    pub(super) fn root(&self) -> &[Entry] {
        match &self.root.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The file's last component, as it is spoken of.
    pub(super) fn name(&self) -> String {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// The place in the file that `mark` means.
    pub(super) fn place(&self, mark: Mark) -> Place {
        let line = self.line(mark.line);
        // Looked up here and not for each node: a file may be one long line.
        let mut rest = line.chars().skip(mark.column.saturating_sub(1));
        let width = match rest.next() {
            Some(quote @ ('"' | '\'')) => 2 + rest.take_while(|&c| c != quote).count(),
            _ => mark.width,
        };
        Place {
            file: self.file.clone(),
            line: mark.line,
            column: mark.column,
            width,
            source_line: line,
        }
    }

    fn line(&self, number: usize) -> Arc<str> {
        let index = number.wrapping_sub(1);
        self.lines.get(index).cloned().unwrap_or_default()
    }

    /// Keeps a problem, or counts it.
    pub(super) fn problem(&self, mark: Mark, message: impl Into<String>, help: impl Into<String>) {
        if self.is_full() {
            self.more.set(self.more.get() + 1);
        } else {
            let problem = Problem::new(self.place(mark), message).help(help);
            self.problems.borrow_mut().push(problem);
        }
    }

    /// `value`, if nothing is wrong; else all that is, in the order of the file.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Problems> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
        if self.more.get() > 0 {
            let message = format!("has {} more problems", self.more.get());
            let help = "correct these first; the next look shows others";
            problems.push(Problem::new(Place::file(&self.file), message).help(help));
        }
        Problems(problems).or(value)
    }

    /// Whether problems are only counted from now on.
    pub(super) fn is_full(&self) -> bool {
        self.problems.borrow().len() >= MAX_PROBLEMS
    }

    fn read(&self, text: &str) -> Option<Node> {
        if bracket_depth(text) > MAX_DEPTH {
            // Before either parser: their look-ahead costs the square of the depth.
            self.problem(
                Mark::default(),
                "is nested too deeply",
                "close the brackets",
            );
            return None;
        }
        let marks = self.marks(text);
        if !self.problems.borrow().is_empty() {
            return None;
        }
        if let Err(error) = &marks
            && text.contains('*')
        {
            // What one parser could not walk through, the other must not expand: there may be aliases in it.
            self.scan_error(error);
            return None;
        }
        let raw: Raw = match serde_yaml::from_str(text) {
            Ok(raw) => raw,
            Err(error) => {
                self.syntax_error(&error);
                return None;
            }
        };
        let marks = match marks {
            Ok(marks) => marks,
            Err(error) => {
                self.scan_error(&error);
                return None;
            }
        };
        let mut marks = marks.into_iter();
        let root = self.node(raw, &mut marks);
        match root {
            Some(node) if matches!(node.content, Content::Map(_)) => Some(node),
            Some(node) if node.is_null() => None,
            Some(node) => {
                let help = "begin with a key, as in 'name: value'";
                self.problem(
                    node.mark,
                    "a configuration file is made of keys and values",
                    help,
                );
                None
            }
            None => {
                let help = "write it in a simpler way: one 'key: value' on a line";
                self.problem(Mark::default(), "can be read in more than one way", help);
                None
            }
        }
    }

    /// Where the nodes begin, in the order of the file, with the text of those that are single values.
    fn marks(&self, text: &str) -> Result<Vec<Begin>, yaml_rust2::ScanError> {
        let mut parser = Parser::new_from_str(text);
        let (mut marks, mut depth, mut documents) = (Vec::new(), 0_usize, 0);
        loop {
            let (event, marker) = parser.next_token()?;
            let mark = mark_of(&marker);
            let (anchor, tag) = match &event {
                Event::Scalar(_, _, anchor, tag)
                | Event::SequenceStart(anchor, tag)
                | Event::MappingStart(anchor, tag) => (*anchor > 0, tag.is_some()),
                Event::Alias(_) => (true, false),
                _ => (false, false),
            };
            if anchor {
                let help = "write the value out in each place ('&' and '*' in a text need quotes)";
                let mark = self.sign_before(mark, &['&', '*']);
                self.problem(mark, "anchors and aliases are not read here", help);
            }
            if tag {
                let help = "leave the '!' out, or put the text in quotes";
                let mark = self.sign_before(mark, &['!']);
                self.problem(mark, "tags are not read here", help);
            }
            match event {
                Event::Scalar(text, ..) => marks.push(Begin::Scalar(mark, text)),
                Event::SequenceStart(..) | Event::MappingStart(..) => {
                    depth += 1;
                    marks.push(Begin::Collection(mark));
                }
                Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
                Event::DocumentStart => documents += 1,
                Event::StreamEnd => return Ok(marks),
                _ => {}
            }
            if marks.len() > MAX_NODES {
                let message = format!("has more than {MAX_NODES} values");
                self.problem(mark, message, "leave out what is not configuration");
                return Ok(marks);
            }
            if depth > MAX_DEPTH {
                self.problem(mark, "is nested too deeply", "no key needs that");
                return Ok(marks);
            }
            if documents > 1 {
                let help = "keep one, and remove the line '---'";
                self.problem(mark, "here begins a second document", help);
                return Ok(marks);
            }
        }
    }

    /// The nearest of `signs` at or before `mark`: an anchor or a tag stands before the node that carries it, if need be in the line
    /// before.
    fn sign_before(&self, mark: Mark, signs: &[char]) -> Mark {
        if self.is_full() {
            // It will not be shown, and a line can be as long as the file.
            return mark;
        }
        for line in (mark.line.saturating_sub(1)..=mark.line).rev() {
            let text = self.line(line);
            let length = if line == mark.line {
                mark.column
            } else {
                usize::MAX
            };
            let before: Vec<char> = text.chars().take(length).collect();
            if let Some(mut at) = before.iter().rposition(|c| signs.contains(c)) {
                while at > 0 && signs.contains(&before[at - 1]) {
                    at -= 1;
                }
                let name = text.chars().skip(at);
                let width = name.take_while(|c| !c.is_whitespace()).count();
                return Mark {
                    line,
                    column: at + 1,
                    width,
                };
            }
        }
        mark
    }

    /// Deals the places out to the tree; `None` if the two parsers did not see the same nodes.
    fn node(&self, raw: Raw, marks: &mut std::vec::IntoIter<Begin>) -> Option<Node> {
        let begin = match marks.next() {
            Some(begin) => begin,
            // An empty file has no node at all for one parser, and a null for the other.
            None if matches!(raw, Raw::Scalar(Value::Null)) => return Some(Node::empty()),
            None => return None,
        };
        let (mark, content) = match (begin, raw) {
            (Begin::Scalar(mut mark, text), Raw::Scalar(value)) => {
                mark.width = text.chars().count().max(1);
                // Numbers are kept as they are written; what a text is, quotes and folds undone, the parser of record says.
                let text = value.as_str().map(str::to_owned).unwrap_or(text);
                (mark, Content::Scalar(text, value))
            }
            (Begin::Collection(mark), Raw::List(items)) => {
                let nodes = items.into_iter().map(|item| self.node(item, marks));
                (mark, Content::List(nodes.collect::<Option<_>>()?))
            }
            (Begin::Collection(mark), Raw::Map(pairs)) => {
                let entries = self.entries(pairs, marks)?;
                // A mapping in lines of its own begins, for the parser, at the first colon; for a reader, at the first key.
                let begins = |entry: &&Entry| {
                    (entry.mark.line, entry.mark.column) < (mark.line, mark.column)
                };
                let first = entries.first().filter(begins);
                (
                    first.map_or(mark, |entry| entry.mark),
                    Content::Map(entries),
                )
            }
            _ => return None,
        };
        Some(Node { mark, content })
    }

    fn entries(
        &self,
        pairs: Vec<(Raw, Raw)>,
        marks: &mut std::vec::IntoIter<Begin>,
    ) -> Option<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
        let mut lines = HashMap::new();
        for (key, value) in pairs {
            let key = self.node(key, marks)?;
            let value = self.node(value, marks)?;
            let Content::Scalar(name, _) = key.content else {
                let message = "a key is a plain text, not a list or a mapping";
                self.problem(key.mark, message, "write 'key: value'");
                continue;
            };
            if let Some(line) = lines.get(&name) {
                let help = format!("keep one of them; the first is in line {line}");
                self.problem(key.mark, format!("'{name}' is here a second time"), help);
                continue;
            }
            lines.insert(name.clone(), key.mark.line);
            entries.push(Entry {
                key: name,
                mark: key.mark,
                value,
            });
        }
        Some(entries)
    }

    /// What only the parser of positions can not read.
    fn scan_error(&self, error: &yaml_rust2::ScanError) {
        let help = "write it in a simpler way, for example with quotes";
        self.problem(mark_of(error.marker()), error.info().to_owned(), help);
    }

    fn syntax_error(&self, error: &serde_yaml::Error) {
        let mark = error.location().map_or(Mark::default(), |location| Mark {
            line: location.line(),
            column: location.column(),
            width: 1,
        });
        let mut message = error.to_string();
        // The place is shown in our own way.
        let place = format!(" at line {} column {}", mark.line, mark.column);
        message = message.replacen(&place, "", 1);
        let line = self.line(mark.line);
        let tab = line.trim_start_matches(' ').starts_with('\t');
        let help = if tab {
            "indent with spaces; YAML does not allow tabs there"
        } else {
            "check the indentation, the colons and the quotes of this line and the one before"
        };
        self.problem(mark, message, help);
    }
}

impl Node {
    fn empty() -> Self {
        Self {
            mark: Mark::default(),
            content: Content::Map(Vec::new()),
        }
    }

    /// Whether nothing stands there (`key:`), or `null`, or `~`.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.content, Content::Scalar(_, Value::Null))
    }

    /// The value as a `T`, if it is one: no text becomes a number, and no number a text.
    pub(super) fn typed<T: DeserializeOwned>(&self) -> Option<T> {
        match &self.content {
            Content::Scalar(_, value) => serde_yaml::from_value(value.clone()).ok(),
            _ => None,
        }
    }

    /// The text of a single value that is not null.
    pub(super) fn scalar(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(text, _) if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// What stands there, for a message.
    pub(super) fn description(&self) -> &'static str {
        match &self.content {
            Content::Scalar(_, Value::Null) => "nothing",
            Content::Scalar(_, Value::Bool(_)) => "a truth value",
            Content::Scalar(_, Value::Number(_)) => "a number",
            Content::Scalar(..) => "a text",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }
}

/// A node's beginning as the parser of positions sees it.
enum Begin {
    Scalar(Mark, String),
    Collection(Mark),
}

/// Where the parser of positions is; it counts columns from 0.
fn mark_of(marker: &Marker) -> Mark {
    Mark {
        line: marker.line(),
        column: marker.col() + 1,
        width: 1,
    }
}

/// How deep brackets are nested at most, those in texts and comments included: a bound, not a measure.
fn bracket_depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The lines of `text` as YAML counts them: a CR alone ends one too (YAML 1.2, 5.4).
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').flat_map(|line| {
        let line = line.strip_suffix('\n').unwrap_or(line);
        line.strip_suffix('\r').unwrap_or(line).split('\r')
    })
}

#[cfg(test)]
mod tests;
