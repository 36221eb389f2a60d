//! `env_file`: dotenv files in the worker's directory, whose variables are added to the environment of its program.
//!
//! worker.yaml names them; they are read when a generation is made, from the files that it runs from. They are a deployer's, so
//! nothing on the way to one is a symbolic link, and an error never shows what is in one (see [`parse`]).

mod parse;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::super::document::{Content, Node};
use super::super::section::Item;
use super::super::source::{Unread, read_below};
use super::bounds::LONGEST_PATH;
use super::environment::MOST_VARIABLES;

pub use parse::parse;

/// Most files.
const MOST_FILES: usize = 4;
/// Largest file in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Why the variables of the files cannot be had. It shows no value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`env_file: {file}`: {what}")]
pub struct EnvFileError {
    file: String,
    /// What and what to do, as a sentence without a full stop.
    what: String,
}

/// The variables in the files `names` of a worker whose files are in `directory`, a later file over an earlier.
///
/// # Errors
/// The first file that cannot be read, or is no dotenv file.
pub fn read(directory: &Path, names: &[String]) -> Result<BTreeMap<String, String>, EnvFileError> {
    let mut variables = BTreeMap::new();
    for name in names {
        let failed = |what: String| EnvFileError {
            file: name.clone(),
            what,
        };
        let text = read_below(directory, Path::new(name), MAX_BYTES);
        let text = text.map_err(|unread| failed(explain(&unread)))?;
        let said = parse(&text).map_err(|wrong| {
            failed(format!(
                "line {} {}; {}",
                wrong.line, wrong.what, wrong.help
            ))
        })?;
        variables.extend(said);
        if variables.len() > MOST_VARIABLES {
            return Err(failed(format!(
                "with it there are more than {MOST_VARIABLES} variables; have the program read a file of its own instead"
            )));
        }
    }
    Ok(variables)
}

fn explain(unread: &Unread) -> String {
    match unread {
        Unread::Missing => "the file was not found; create it, or remove its name".to_owned(),
        Unread::Link => {
            "it is a symbolic link, or in a directory that is one; put a real file there".to_owned()
        }
        Unread::NoFile => "it is not a regular file; put one there".to_owned(),
        Unread::Large => "it is larger than 64KiB; this is probably another file".to_owned(),
        Unread::Failed(error) => format!("it cannot be read: {error}"),
    }
}

/// The names of the files, in their order.
pub(super) fn names(item: &Item<'_>) -> Vec<String> {
    let nodes = match &item.node().content {
        Content::List(nodes) => nodes.as_slice(),
        Content::Map(_) => {
            let help =
                "write the names of files, as in [.env]; variables themselves belong below 'env'";
            item.problem("'env_file' is a list of files, not a mapping", help);
            return Vec::new();
        }
        Content::Scalar(..) => std::slice::from_ref(item.node()),
    };
    let mut names: Vec<String> = Vec::new();
    for node in nodes.iter().take(MOST_FILES) {
        match name(node) {
            Ok(name) if names.contains(&name) => {
                item.part_problem(node, "this file is here a second time", "keep one of them");
            }
            Ok(name) => names.push(name),
            Err((message, help)) => item.part_problem(node, message, help),
        }
    }
    if let Some(node) = nodes.get(MOST_FILES) {
        let message = format!("'env_file' has more than {MOST_FILES} files");
        item.part_problem(node, message, "put their variables into one");
    }
    names
}

/// The path of one, from the worker's directory on; or what is wrong with it and what to write.
fn name(node: &Node) -> Result<String, (String, &'static str)> {
    const INSIDE: &str = "write the path of a file inside the worker's directory, as in .env";
    let Some(text) = node.scalar() else {
        let message = format!("'env_file' names files; this is {}", node.description());
        return Err((message, INSIDE));
    };
    let text = text.strip_prefix("./").unwrap_or(text);
    let refused = |why: &str, help| Err((format!("'env_file' cannot name this: {why}"), help));
    let path = PathBuf::from(text);
    let is_plain = |part| matches!(part, Component::Normal(_));
    if text.starts_with('/') {
        return refused("it is an absolute path", INSIDE);
    }
    if text.split('/').any(|part| part == "..") {
        return refused("'..' leads out of what a snapshot has", INSIDE);
    }
    let is_odd = |part: &str| part.is_empty() || part == ".";
    if text.split('/').any(is_odd) || !path.components().all(is_plain) {
        return refused("it is not the path of a file", INSIDE);
    }
    if text.chars().any(char::is_control) || text.len() > LONGEST_PATH {
        return refused("it is too long, or has a control character", INSIDE);
    }
    match text.split('/').next() {
        Some("data") => refused(
            "data/ is what the worker keeps, and no snapshot has it",
            "put the file elsewhere in the worker's directory, as in .env",
        ),
        Some("public") => refused(
            "browsers can fetch what is in public/",
            "put the file elsewhere in the worker's directory, as in .env",
        ),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests;
