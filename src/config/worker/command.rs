//! What a worker runs and is built with, as `worker.yaml` says it.
//!
//! A program is inside the worker's directory, or one of the system's by its name or absolute path: a worker runs as its own user in
//! its own sandbox, so that one does no harm. No word leads out of the directory with `..`: what runs in production is a snapshot,
//! beside which there is nothing. That an absolute path does not lead into a directory of workers is judged where these are known.

use super::super::document::{Content, Node};
use super::super::section::Item;
use super::super::variables::Known;
use super::super::words::words;
use super::bounds::LONGEST_VALUE;

/// Most words of a command; its arguments share the kernel's limit for all of them with the environment.
const MOST_WORDS: usize = 256;

/// A word and, if it has a place of its own, its node.
type Word<'d> = (String, Option<&'d Node>);

/// A program and its arguments, which can name variables: a list of them, or a text that is split at spaces (see [`words`]).
pub(super) fn command(item: &Item<'_>, known: &Known) -> Option<Vec<String>> {
    let list = read(item, true)?;
    let key = item.key();
    let (program, arguments) = list.split_first()?;
    let (name, node) = program;
    if name.contains('$') {
        let message = format!("'{key}' can not run '{name}'");
        let help = "name the program by its path or its name; variables are for its arguments";
        problem(item, *node, message, help);
        return None;
    }
    for (word, node) in arguments {
        if climbs(word) {
            let message = format!("'{key}' can not be given '{word}'");
            let help = "write a path inside the worker's directory: in production it runs from a snapshot, which has nothing beside it";
            problem(item, *node, message, help);
            return None;
        }
        if let Some((message, help)) = known.problem(word) {
            problem(
                item,
                *node,
                format!("'{key}': {message} in '{word}'"),
                &help,
            );
            return None;
        }
    }
    Some(list.into_iter().map(|(word, _)| word).collect())
}

/// The same for what builds the worker, where it lies: its arguments may name what is beside it, such as a workspace, and no variables,
/// which have no value before it runs.
pub(super) fn build(item: &Item<'_>) -> Option<Vec<String>> {
    let list = read(item, false)?;
    Some(list.into_iter().map(|(word, _)| word).collect())
}

fn read<'d>(item: &Item<'d>, names_variables: bool) -> Option<Vec<Word<'d>>> {
    let key = item.key();
    let list = match &item.node().content {
        Content::List(nodes) => listed(item, nodes)?,
        _ => match words(&item.text(key)?, names_variables) {
            Ok(list) => list.into_iter().map(|word| (word, None)).collect(),
            Err(error) => {
                item.problem(
                    format!("'{key}': {error}"),
                    "write a list, as in [sh, -c, \"a && b\"]",
                );
                return None;
            }
        },
    };
    let (program, node) = list
        .first()
        .map_or(("", None), |(word, node)| (word.as_str(), *node));
    if program.is_empty() {
        item.problem(
            format!("'{key}' names no program"),
            "write one, as in [bin/app, --quiet]",
        );
    } else if climbs(program) || program.ends_with('/') {
        let help =
            "write a path inside the worker's directory, or a name that is looked up in PATH";
        problem(item, node, format!("'{key}' can not run '{program}'"), help);
    } else if list.iter().any(|(word, _)| word.contains('\0')) {
        item.problem(
            format!("'{key}' has a NUL character"),
            "no argument can carry it; remove it",
        );
    } else if list.len() > MOST_WORDS || list.iter().any(|(word, _)| word.len() > LONGEST_VALUE) {
        item.problem(
            format!(
                "'{key}' has more than {MOST_WORDS} words, or one longer than {LONGEST_VALUE} bytes"
            ),
            "put what it says into a file of the worker",
        );
    } else {
        return Some(list);
    }
    None
}

fn listed<'d>(item: &Item<'d>, nodes: &'d [Node]) -> Option<Vec<Word<'d>>> {
    let mut list = Vec::new();
    for node in nodes {
        match node.scalar() {
            Some(text) => list.push((text.to_owned(), Some(node))),
            None => {
                let message = format!("an item of '{}' is {}", item.key(), node.description());
                item.part_problem(node, message, "write texts, as in [bin/app, --quiet]");
            }
        }
    }
    (list.len() == nodes.len()).then_some(list)
}

/// Whether `word` is a path with a `..` in it.
fn climbs(word: &str) -> bool {
    word.split('/').any(|part| part == "..")
}

fn problem(item: &Item<'_>, node: Option<&Node>, message: String, help: &str) {
    match node {
        Some(node) => item.part_problem(node, message, help),
        None => item.problem(message, help),
    }
}
