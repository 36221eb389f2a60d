//! Directories of a worker's state: `files`, which the proxy serves, and `persist`, which takes the place of the worker's own.

use std::collections::BTreeMap;

use super::super::section::{Item, Part, Section};
use super::bounds::LONGEST_PATH;
use crate::route::RoutePath;

/// Most places: they are looked through one by one for each request.
const MOST_PLACES: usize = 16;
/// Most bytes of a directory's path: it is a part of systemd's settings several times.
const LONGEST_DIRECTORY: usize = 128;

/// The directories, by their place below the worker's route.
pub(super) fn stored(items: &[Item<'_>]) -> BTreeMap<RoutePath, String> {
    let mut stored: BTreeMap<RoutePath, String> = BTreeMap::new();
    if let Some(item) = items.get(MOST_PLACES) {
        let help = "serve one directory with others in it";
        item.key_problem(format!("'files' has more than {MOST_PLACES} places"), help);
    }
    for item in items.iter().take(MOST_PLACES) {
        let key = item.key();
        let place = match RoutePath::parse(key) {
            Ok(place) if key.len() <= LONGEST_PATH && !has_hidden(key) => place,
            _ => {
                let help = "write where its files are found, below the worker's route, as in {/media: media}";
                item.key_problem("this is no path for files", help);
                continue;
            }
        };
        let Some(directory) = item.text(&format!("files.{key}")) else {
            continue;
        };
        if !is_plain(&directory) {
            let help = "write a directory below STATE_DIRECTORY, as in media or site/uploads: letters, digits, '-', '_' and '.'";
            item.problem(format!("'files.{key}' cannot be {}", item.shown()), help);
            continue;
        }
        let nested = stored.values().find(|other| {
            **other != directory && (is_below(other, &directory) || is_below(&directory, other))
        });
        if let Some(other) = nested {
            let message = format!("'{directory}' and '{other}' are one inside the other");
            item.problem(message, "serve the outer one, or put them side by side");
            continue;
        }
        stored.insert(place, directory);
    }
    stored
}

/// The directories of the worker's own that its state takes the place of.
pub(super) fn persisted(root: &mut Section<'_>) -> Vec<String> {
    let mut persisted: Vec<String> = Vec::new();
    let Some((item, parts)) = root.members("persist") else {
        return persisted;
    };
    for (number, part) in parts.into_iter().enumerate() {
        let (Part::Plain(node) | Part::Keys(node, _)) = part;
        let directory = node.scalar().unwrap_or_default().to_owned();
        let first = directory.split('/').next();
        if number == MOST_PLACES {
            let help = "name one directory with others in it";
            item.part_problem(
                node,
                format!("'persist' has more than {MOST_PLACES} directories"),
                help,
            );
            break;
        }
        if !is_plain(&directory) || matches!(first, Some("config" | "data")) {
            let help = "name a directory inside the worker's, as in wp-content/plugins: letters, digits, '-', '_' and '.'; not config or data";
            item.part_problem(node, "this is no directory whose content can be kept", help);
            continue;
        }
        let is_nested = |other: &String| {
            *other == directory || is_below(other, &directory) || is_below(&directory, other)
        };
        if let Some(other) = persisted.iter().find(|other| is_nested(other)) {
            let message =
                format!("'{directory}' and '{other}' are the same, or one inside the other");
            item.part_problem(node, message, "name the outer one alone");
            continue;
        }
        persisted.push(directory);
    }
    persisted
}

/// Whether a part of the path is hidden. Files there are not served.
fn has_hidden(path: &str) -> bool {
    path.contains("/.")
}

/// Whether it is a relative path of plain names.
fn is_plain(directory: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    directory.len() <= LONGEST_DIRECTORY && directory.split('/').all(is_name)
}

fn is_below(inner: &str, outer: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.starts_with('/'))
}
