//! The directories of workers, as `workers.directory` says them. Nothing is looked up on disk.

use std::path::{Component, Path, PathBuf};

use super::super::document::{Content, Node};
use super::super::section::{Item, Section};

/// The directories of workers: a text, or a list of them.
pub(super) fn directories(section: &mut Section<'_>, project: &Path) -> Option<Vec<PathBuf>> {
    let path = section.path_of("directory");
    let item = section.item("directory")?;
    let Content::List(nodes) = &item.node().content else {
        item.text(&path)?;
        return Some(vec![directory(&item, item.node(), &path, project)?]);
    };
    if nodes.is_empty() {
        item.problem(
            format!("'{path}' is an empty list"),
            "write at least one directory",
        );
        return None;
    }
    let mut directories: Vec<PathBuf> = Vec::new();
    for node in nodes {
        let Some(found) = directory(&item, node, &path, project) else {
            continue;
        };
        let shown = found.display();
        if directories.contains(&found) {
            item.part_problem(
                node,
                format!("'{shown}' is here a second time"),
                "keep one of them",
            );
        } else if let Some(other) = directories
            .iter()
            .find(|other| found.starts_with(other) || other.starts_with(&found))
        {
            let message = format!(
                "of '{shown}' and '{}' one is inside the other",
                other.display()
            );
            let help = "keep one of them: each worker is to be found once";
            item.part_problem(node, message, help);
        }
        directories.push(found);
    }
    Some(directories)
}

/// The directory that `node`, the value of `item` or one of its list, names.
fn directory(item: &Item<'_>, node: &Node, path: &str, project: &Path) -> Option<PathBuf> {
    let text: Option<String> = node.typed();
    let text = text.unwrap_or_default();
    if text.is_empty() || text.chars().any(char::is_control) {
        let help = "write a path, relative to the directory that holds config/";
        item.part_problem(node, format!("'{path}' must name a directory"), help);
        return None;
    }
    // Purely by the text, so that the directory need not be there: 'a/../b' is 'b'.
    let mut clean = PathBuf::new();
    for component in project.join(text).components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    if clean == Path::new("/") {
        item.part_problem(
            node,
            format!("'{path}' can not be '/'"),
            "give the workers a directory of their own",
        );
        return None;
    }
    Some(clean)
}
