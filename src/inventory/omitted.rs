//! What no snapshot has, asked of files on disk.

use std::path::{Component, Path, PathBuf};

use crate::config::WorkerType;
use crate::types;

/// Whether no snapshot of a worker of this type has what is at `path`; `on_top`: directly in the worker's directory.
pub(super) fn is_omitted(kind: Option<WorkerType>, path: &Path, on_top: bool) -> bool {
    let name = path.file_name().unwrap_or_default();
    let beside = |file: &str| path.with_file_name(file).symlink_metadata().is_ok();
    let omits = kind.map_or(&[types::DATA][..], |kind| types::of(kind).omits);
    types::is_omitted(name, beside) || on_top && omits.iter().any(|omitted| name == *omitted)
}

/// The part of the path `inside`, from the worker's directory on, that no snapshot has and all below it neither. `None`: a snapshot has what is
/// there, or nothing is.
pub fn omitted(directory: &Path, kind: WorkerType, inside: &Path) -> Option<PathBuf> {
    directory.join(inside).symlink_metadata().ok()?;
    let mut part = PathBuf::new();
    for name in inside.components() {
        match name {
            Component::CurDir => continue,
            Component::Normal(name) => part.push(name),
            _ => return None,
        }
        let on_top = part.components().count() == 1;
        if is_omitted(Some(kind), &directory.join(&part), on_top) {
            return Some(part);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_omitted_with_the_first_part_of_it_that_is() {
        let directory = tempfile::tempdir().unwrap();
        for file in ["data/a/b", "lib/x", "lib/.cache/y", "src/main"] {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let part = |kind, path: &str| {
            let part = omitted(directory.path(), kind, Path::new(path));
            part.map(|part| part.display().to_string())
        };
        let exec = |path| part(WorkerType::Exec, path);
        assert_eq!(exec("./data/a/b").as_deref(), Some("data"));
        assert_eq!(exec("lib/.cache/y").as_deref(), Some("lib/.cache"));
        for path in [
            "lib/x",
            "src/main",
            "data/missing",
            "",
            "/etc/passwd",
            "../x",
        ] {
            assert_eq!(exec(path), None, "{path}");
        }
        assert_eq!(part(WorkerType::Go, "src/main").as_deref(), Some("src"));
    }
}
