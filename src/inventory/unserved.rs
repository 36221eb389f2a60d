//! Which names in a worker's `public/` are not served.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// The one hidden name that is served, at the top (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// Names below `public` that begin with a dot, and that the proxy therefore does not serve: at most `most` of them, with their path below
/// it. What only keeps a directory in version control is nothing that anybody misses.
pub fn unserved(public: &Path, most: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut walk = WalkDir::new(public)
        .min_depth(1)
        .sort_by_file_name()
        .into_iter();
    while let Some(entry) = walk.next() {
        let Ok(entry) = entry else {
            continue;
        };
        let name = entry.file_name().to_string_lossy();
        let is_served = !name.starts_with('.') || (entry.depth() == 1 && name == WELL_KNOWN);
        if is_served {
            continue;
        }
        if entry.file_type().is_dir() {
            walk.skip_current_dir();
        }
        if !matches!(&*name, ".gitkeep" | ".gitignore" | ".keep") {
            found.extend(entry.path().strip_prefix(public).map(Path::to_owned));
        }
        if found.len() == most {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_are_told_and_the_well_known_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        for file in [
            ".env",
            ".git/config",
            ".well-known/security.txt",
            ".well-known/.draft",
            "a/.well-known/x",
            "a/.gitkeep",
            "a/b.css",
        ] {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let told = unserved(directory.path(), 9);
        let told: Vec<_> = told.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            told,
            [".env", ".git", ".well-known/.draft", "a/.well-known"]
        );
        assert_eq!(unserved(directory.path(), 1).len(), 1);
        assert!(unserved(&directory.path().join("none"), 1).is_empty());
    }
}
