//! Which of a worker's scripts answers a path.
//!
//! A path with a segment that is called like a script leads to that, whether it is there or not: php-fpm says so if not. Which directories
//! have an index of their own is known of a snapshot; where people work in the directory, it is looked for.

use std::borrow::Cow;

use crate::route::Scripts;
use crate::types::php::INDEX;

/// The script that answers, and what of the path is for it to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script<'a> {
    /// Its path below the document root, with the slash.
    pub(super) name: Cow<'a, str>,
    /// The path behind it.
    pub(super) rest: &'a str,
}

/// What a path leads to by the names in it.
enum Named<'a> {
    /// What is called like a script, and what is behind it.
    Script(&'a str, &'a str),
    /// What may be a directory: its path without slashes at the ends.
    Plain(&'a str),
    /// Nothing: a name on the way is hidden, or could be read in two ways.
    Odd,
}

impl<'a> Script<'a> {
    /// The script for `path`, decoded and below the route: the one it names, the index of the directory it names, else the front controller.
    pub(super) fn of(path: &'a str, scripts: &Scripts) -> Self {
        let (name, rest) = match Named::of(path, scripts) {
            Named::Script(name, rest) => (name.into(), rest),
            Named::Plain(directory) if has_index(scripts, directory) => {
                let slash = if directory.is_empty() { "" } else { "/" };
                (format!("/{directory}{slash}{INDEX}").into(), "")
            }
            Named::Plain(_) | Named::Odd => (format!("/{}", scripts.front_controller).into(), ""),
        };
        Self { name, rest }
    }
}

impl<'a> Named<'a> {
    fn of(path: &'a str, scripts: &Scripts) -> Self {
        if matches!(path, "" | "/") {
            return Self::Plain("");
        }
        let Some(inner) = path.strip_prefix('/') else {
            return Self::Odd;
        };
        let directory = inner.strip_suffix('/').unwrap_or(inner);
        let mut end = 0;
        for segment in directory.split('/') {
            // A slash that is escaped is still so.
            let is_odd = segment.is_empty()
                || segment.starts_with('.')
                || segment.contains(['\\', '%'])
                || segment.contains(char::is_control);
            if is_odd {
                return Self::Odd;
            }
            end += 1 + segment.len();
            if segment.ends_with(".php") && !has_index(scripts, &path[1..end]) {
                return Self::Script(&path[..end], &path[end..]);
            }
        }
        Self::Plain(directory)
    }
}

/// Whether `path`, decoded and below the route, names a directory with an index, and has no slash at its end: links that are relative to
/// that directory would lead beside it. The route itself is a directory.
pub(crate) fn lacks_slash(path: &str, scripts: &Scripts) -> bool {
    match Named::of(path, scripts) {
        Named::Plain("") => path.is_empty(),
        Named::Plain(directory) => !path.ends_with('/') && has_index(scripts, directory),
        Named::Script(..) | Named::Odd => false,
    }
}

/// Whether the directory at this path from the document root has an index.
fn has_index(scripts: &Scripts, directory: &str) -> bool {
    match &scripts.indexes {
        Some(known) => known.has(directory),
        None => scripts.root.join(directory).join(INDEX).is_file(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Indexes, RoutePath};

    fn scripts(front_controller: &str, indexes: &[&str]) -> Scripts {
        let indexes = indexes.iter().map(|one| (*one).to_owned());
        Scripts {
            root: "/srv/w/public".into(),
            front_controller: front_controller.to_owned(),
            route: RoutePath::root(),
            indexes: Some(Indexes::new(indexes).unwrap()),
        }
    }

    #[test]
    fn a_path_that_names_a_script_leads_to_it_and_any_other_to_the_front_controller() {
        let scripts = scripts("index.php", &[""]);
        for (path, name, rest) in [
            ("/", "/index.php", ""),
            ("", "/index.php", ""),
            ("/a/b", "/index.php", ""),
            ("/a.php", "/a.php", ""),
            ("/a.php/", "/a.php", "/"),
            ("/a/b.php/c/d", "/a/b.php", "/c/d"),
            ("/a.php/b.php", "/a.php", "/b.php"),
            ("/index.php", "/index.php", ""),
            ("/index.php/foo/bar", "/index.php", "/foo/bar"),
            ("/a.phpx", "/index.php", ""),
            ("/a.PHP", "/index.php", ""),
            ("/.a.php", "/index.php", ""),
            ("/.git/a.php", "/index.php", ""),
            ("//", "/index.php", ""),
            ("//a.php", "/index.php", ""),
            ("/a%2Fb.php", "/index.php", ""),
            ("/a\\b.php", "/index.php", ""),
            ("/a\n.php", "/index.php", ""),
            ("a.php", "/index.php", ""),
        ] {
            let script = Script::of(path, &scripts);
            assert_eq!((&*script.name, script.rest), (name, rest), "{path:?}");
        }
    }

    #[test]
    fn a_path_that_names_a_directory_leads_to_its_index() {
        let scripts = scripts("index.php", &["", "admin", "admin/a b", "v1.php", ".git"]);
        for (path, name, lacks) in [
            ("/admin/", "/admin/index.php", false),
            ("/admin", "/admin/index.php", true),
            ("/admin/a b/", "/admin/a b/index.php", false),
            ("/admin//", "/index.php", false),
            ("//admin", "/index.php", false),
            ("/admin/x", "/index.php", false),
            ("/admin/x/", "/index.php", false),
            ("/admi", "/index.php", false),
            ("/.git/", "/index.php", false),
            ("/.git", "/index.php", false),
            ("/v1.php", "/v1.php/index.php", true),
            ("/v1.php/", "/v1.php/index.php", false),
            ("/v1.php/x.php", "/v1.php/x.php", false),
            ("/admin/index.php", "/admin/index.php", false),
            ("", "/index.php", true),
            ("/", "/index.php", false),
        ] {
            assert_eq!(Script::of(path, &scripts).name, name, "{path:?}");
            assert_eq!(lacks_slash(path, &scripts), lacks, "{path:?}");
        }
    }

    #[test]
    fn what_names_nothing_is_for_the_front_controller_whatever_it_is_called() {
        for (indexes, root) in [(&[""][..], "/index.php"), (&[], "/app/doku.php")] {
            let scripts = scripts("app/doku.php", indexes);
            for path in ["/", ""] {
                assert_eq!(Script::of(path, &scripts).name, root, "{path:?}");
            }
            for path in ["/start", "/wiki/start/", "/.x", "//"] {
                assert_eq!(Script::of(path, &scripts).name, "/app/doku.php", "{path:?}");
            }
            assert_eq!(Script::of("/lib/exe.php", &scripts).name, "/lib/exe.php");
        }
    }

    #[test]
    fn where_people_work_directories_are_looked_for() {
        let directory = tempfile::tempdir().unwrap();
        let scripts = Scripts {
            root: directory.path().to_owned(),
            indexes: None,
            ..scripts("index.php", &[])
        };
        assert_eq!(Script::of("/admin/", &scripts).name, "/index.php");
        assert!(!lacks_slash("/admin", &scripts));
        std::fs::create_dir(directory.path().join("admin")).unwrap();
        std::fs::write(directory.path().join("admin/index.php"), "").unwrap();
        assert_eq!(Script::of("/admin/", &scripts).name, "/admin/index.php");
        assert!(lacks_slash("/admin", &scripts));
    }
}
