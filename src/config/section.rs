//! Reads the keys of one mapping. Asking for a key makes it known: what nobody asked for is, at the end, not a key.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Content, Document, Entry, Mark, Node};
use super::problem::Place;
use crate::limits::ByteSize;

/// The keys of one mapping, some of which have been asked for.
pub(super) struct Section<'d> {
    document: &'d Document,
    /// Names of the mappings around it and its own, joined by dots; empty for the whole file.
    path: String,
    entries: &'d [Entry],
    asked: Vec<&'static str>,
}

/// A key that is there, and its value, which is not null.
#[derive(Clone, Copy)]
pub(super) struct Item<'d> {
    document: &'d Document,
    key: &'d Entry,
    node: &'d Node,
}

/// A member of a list.
pub(super) enum Part<'d> {
    /// One value.
    Plain(&'d Node),
    /// A mapping, and where it stands.
    Keys(&'d Node, Section<'d>),
}

impl<'d> Section<'d> {
    /// The whole file.
    pub(super) fn root(document: &'d Document) -> Self {
        Self::of(document, String::new(), document.root())
    }

    fn of(document: &'d Document, path: String, entries: &'d [Entry]) -> Self {
        Self {
            document,
            path,
            entries,
            asked: Vec::new(),
        }
    }

    /// The mapping below `key`; an empty one if there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'d> {
        let path = self.path_of(key);
        let entries = match self.find(key) {
            Some(entry) => mapping(self.document, entry, &path),
            None => &[],
        };
        Self::of(self.document, path, entries)
    }

    /// The mappings below `key`, whose own keys are not fixed.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<(Item<'d>, Section<'d>)> {
        let (document, outer) = (self.document, self.section(key));
        let inner = outer.entries.iter().map(|entry| {
            let path = outer.path_of(&entry.key);
            let entries = mapping(document, entry, &path);
            (Item::of(document, entry), Self::of(document, path, entries))
        });
        inner.collect()
    }

    /// The mappings in the list at `key`, each with its node; `example` is how one is written.
    pub(super) fn list(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Vec<(&'d Node, Section<'d>)> {
        let (document, path) = (self.document, self.path_of(key));
        let Some(item) = self.item(key) else {
            return Vec::new();
        };
        let Content::List(nodes) = &item.node.content else {
            let what = item.node.description();
            let help = format!("write each below it after a dash, as in '- {example}'");
            item.problem(format!("'{path}' is a list, not {what}"), help);
            return Vec::new();
        };
        let read = |node: &'d Node| match &node.content {
            Content::Map(entries) => Some((node, Self::of(document, path.clone(), entries))),
            _ => {
                let message = format!("'{path}' holds mappings, not {}", node.description());
                document.problem(node.mark, message, format!("write it as {example}"));
                None
            }
        };
        nodes.iter().filter_map(read).collect()
    }

    /// Whether `key` is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// The keys below `key`, which are not fixed.
    pub(super) fn items(&mut self, key: &'static str) -> Vec<Item<'d>> {
        let document = self.document;
        let entries = self.section(key).entries.iter();
        entries.map(|entry| Item::of(document, entry)).collect()
    }

    /// The members of the list below `key`; what is no list is the only member of one. An empty list is a problem.
    pub(super) fn members(&mut self, key: &'static str) -> Option<(Item<'d>, Vec<Part<'d>>)> {
        let (document, path) = (self.document, self.path_of(key));
        let item = self.item(key)?;
        let part = |(number, node): (usize, &'d Node)| match &node.content {
            Content::Map(entries) => {
                let path = format!("{path}[{number}]");
                Part::Keys(node, Self::of(document, path, entries))
            }
            _ => Part::Plain(node),
        };
        let parts: Vec<Part<'d>> = match &item.node.content {
            Content::List(nodes) => nodes.iter().enumerate().map(part).collect(),
            _ => vec![part((0, item.node))],
        };
        if parts.is_empty() {
            item.problem(
                format!("'{path}' is an empty list"),
                "write at least one member, or remove the key",
            );
            return None;
        }
        Some((item, parts))
    }

    /// The value of `key`. A key without a value is a problem: was it meant to be unset, or forgotten?
    pub(super) fn item(&mut self, key: &'static str) -> Option<Item<'d>> {
        let entry = self.find(key)?;
        let item = Item::of(self.document, entry);
        if entry.value.is_null() {
            let message = format!("'{}' has no value", self.path_of(key));
            item.problem(message, "write one, or remove the line to get the default");
            return None;
        }
        Some(item)
    }

    /// The value of `key` without a judgement on it, for what concerns two keys.
    pub(super) fn peek(&self, key: &str) -> Option<Item<'d>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!entry.value.is_null()).then(|| Item::of(self.document, entry))
    }

    /// A whole number in `range`; `unit` follows it in messages.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        unit: &str,
    ) -> Option<u64> {
        let item = self.item(key)?;
        let (path, from, to) = (self.path_of(key), range.start(), range.end());
        match item.node.typed::<u64>() {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                let text: Option<String> = item.node.typed();
                let quoted = text.is_some_and(|text| text.parse::<u64>().is_ok());
                let quotes = if quoted { ", without quotes" } else { "" };
                let help = format!("write a whole number from {from} to {to}{unit}{quotes}");
                item.problem(format!("'{path}' can not be {}", item.shown()), help);
                None
            }
        }
    }

    /// A number of seconds in `range`.
    pub(super) fn seconds(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Duration> {
        let seconds = self.number(key, range, ", in seconds and without a unit");
        seconds.map(Duration::from_secs)
    }

    /// A number of milliseconds up to `most`.
    pub(super) fn milliseconds(&mut self, key: &'static str, most: u64) -> Option<Duration> {
        let milliseconds = self.number(key, 0..=most, ", in milliseconds and without a unit");
        milliseconds.map(Duration::from_millis)
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<(String, Item<'d>)> {
        let path = self.path_of(key);
        let item = self.item(key)?;
        Some((item.text(&path)?, item))
    }

    /// An amount of memory in `range`: a text with a unit, or a number of bytes.
    pub(super) fn size(
        &mut self,
        key: &'static str,
        range: RangeInclusive<ByteSize>,
    ) -> Option<ByteSize> {
        let item = self.item(key)?;
        let path = self.path_of(key);
        let size = match item.node.typed::<u64>() {
            Some(bytes) => ByteSize(bytes),
            None => match item.text(&path)?.parse() {
                Ok(size) => size,
                Err(error) => {
                    let help = format!("for example {path}: \"512MiB\"");
                    item.problem(format!("'{path}': {error}"), help);
                    return None;
                }
            },
        };
        if range.contains(&size) {
            return Some(size);
        }
        let help = format!("write a size from {} to {}", range.start(), range.end());
        item.problem(format!("'{path}' can not be {size}"), help);
        None
    }

    /// One of the words in `choices`; truth values are words here.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let item = self.item(key)?;
        let word = match &item.node.content {
            Content::Scalar(text, _) => text.as_str(),
            _ => "",
        };
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word) {
            return Some(*value);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let help = match nearest(word, &names) {
            Some(near) => format!("did you mean '{near}'? Allowed are {}", names.join(", ")),
            None => format!("allowed are {}", names.join(", ")),
        };
        let path = self.path_of(key);
        item.problem(format!("'{path}' can not be {}", item.shown()), help);
        None
    }

    /// A truth value.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.choice(key, &[("true", true), ("false", false)])
    }

    /// Names the keys that nobody asked for. `explain` may say more of one than that it is no key here:
    /// a message and help.
    pub(super) fn finish(self, explain: impl Fn(&str) -> Option<(String, String)>) {
        for entry in self.entries {
            if self.asked.iter().any(|asked| *asked == entry.key) {
                continue;
            }
            if self.document.is_full() {
                // It is only counted: to look for the nearest key of each of 100,000 takes long.
                self.document.problem(entry.mark, "", "");
                continue;
            }
            let (message, help) = explain(&entry.key).unwrap_or_else(|| {
                let of = match self.path.as_str() {
                    "" => self.document.name(),
                    path => format!("'{path}'"),
                };
                let message = format!("'{}' is not a key of {of}", entry.key);
                (message, self.unknown_help(&entry.key))
            });
            self.document.problem(entry.mark, message, help);
        }
    }

    /// The place of the value of `key`, if there is one.
    pub(super) fn place(&self, key: &str) -> Option<Place> {
        let item = self.peek(key)?;
        Some(self.document.place(item.mark()))
    }

    /// The key as it is spoken of: with the names of the mappings around it.
    pub(super) fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'d Entry> {
        self.asked.push(key);
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn unknown_help(&self, key: &str) -> String {
        if key == "<<" {
            return "merge keys are not read here; write the keys out".to_owned();
        }
        if let Some(near) = nearest(key, &self.asked) {
            return format!("did you mean '{near}'?");
        }
        let mut known = self.asked.clone();
        known.sort_unstable();
        known.dedup();
        format!("known keys are {}", known.join(", "))
    }
}

impl<'d> Item<'d> {
    fn of(document: &'d Document, key: &'d Entry) -> Self {
        Self {
            document,
            key,
            node: &key.value,
        }
    }

    /// The key.
    pub(super) fn key(&self) -> &'d str {
        &self.key.key
    }

    /// The value.
    pub(super) fn node(&self) -> &'d Node {
        self.node
    }

    /// Keeps a problem with the value.
    pub(super) fn problem(&self, message: impl Into<String>, help: impl Into<String>) {
        self.document.problem(self.mark(), message, help);
    }

    /// Keeps a problem with the key.
    pub(super) fn key_problem(&self, message: impl Into<String>, help: impl Into<String>) {
        self.document.problem(self.key.mark, message, help);
    }

    /// Keeps a problem with a part of the value.
    pub(super) fn part_problem(
        &self,
        part: &Node,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.document.problem(part.mark, message, help);
    }

    /// The value as a text; a problem if it is something else.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let text = self.node.typed();
        if text.is_none() {
            let help = match &self.node.content {
                Content::Scalar(text, _) => {
                    format!("write it in quotes: \"{}\"", shortened(text))
                }
                _ => "write a text in quotes".to_owned(),
            };
            let what = self.node.description();
            self.problem(format!("'{path}' must be a text, not {what}"), help);
        }
        text
    }

    /// The value as a message shows it.
    pub(super) fn shown(&self) -> String {
        match &self.node.content {
            Content::Scalar(text, _) if self.node.typed::<String>().is_some() => {
                format!("the text \"{}\"", shortened(text))
            }
            Content::Scalar(text, _) => shortened(text),
            _ => self.node.description().to_owned(),
        }
    }

    /// Where the value is to be pointed at: itself if it is one word, else its key.
    fn mark(&self) -> Mark {
        match &self.node.content {
            Content::Scalar(..) if !self.node.is_null() => self.node.mark,
            _ => self.key.mark,
        }
    }
}

/// The keys and values of a mapping; a key with nothing below it is an empty mapping, as left behind by commenting all of it out.
fn mapping<'d>(document: &'d Document, entry: &'d Entry, path: &str) -> &'d [Entry] {
    match &entry.value.content {
        Content::Map(entries) => entries,
        _ if entry.value.is_null() => &[],
        _ => {
            let message = format!(
                "'{path}' holds keys and values, not {}",
                entry.value.description()
            );
            let help = "put its keys into the following lines, indented further than itself";
            document.problem(entry.mark, message, help);
            &[]
        }
    }
}

/// A text for a message; values can be as long as their file.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The one of `names` that `word` may have been meant to be.
pub(super) fn nearest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let distance = |name: &str| strsim::damerau_levenshtein(&word, name);
    let near = names.iter().min_by_key(|name| distance(name))?;
    (distance(near) <= near.len().max(3) / 3).then_some(*near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_key_and_another_word_does_not() {
        let keys = ["port", "read_timeout_seconds", "directory"];
        assert_eq!(nearest("prot", &keys), Some("port"));
        assert_eq!(
            nearest("Read-Timeout-Seconds", &keys),
            Some("read_timeout_seconds")
        );
        assert_eq!(nearest("colour", &keys), None);
        assert_eq!(nearest("", &keys), None);
        assert_eq!(nearest(&"port".repeat(1000), &keys), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
