//! Which symbolic links may be in a copy: those that stay in it, and one that does not.

use std::path::{Component, Path};

/// Where the links of a Python environment to its interpreter may point.
pub(super) const SYSTEM_PROGRAMS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];

/// Whether a link `depth` directories below the top ends in the tree: it goes up at most to the top, and only at its start. A `..`
/// behind a name could be the parent of wherever another link leads.
pub(super) fn stays_inside(target: &Path, depth: usize) -> bool {
    let up = |part: &Component<'_>| *part == Component::ParentDir;
    let ups = target.components().take_while(up).count();
    let down = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    ups <= depth && target.components().skip(ups).all(down)
}

/// Whether a link is a Python environment's to the interpreter root has installed: the one link that has to leave.
pub(super) fn is_interpreter(link: &Path, target: &Path) -> bool {
    let plain = |parent: &Path| {
        SYSTEM_PROGRAMS
            .iter()
            .any(|programs| parent == Path::new(programs))
    };
    link.parent()
        .is_some_and(|parent| parent.ends_with(".venv/bin"))
        && target.parent().is_some_and(plain)
        && target.file_name().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_may_go_up_to_the_top_and_no_further() {
        for (target, depth, inside) in [
            ("x", 0, true),
            ("./x/y", 0, true),
            ("../x", 1, true),
            ("../../x", 2, true),
            ("..", 0, false),
            ("../x", 0, false),
            ("../../x", 1, false),
            ("x/../y", 2, false),
            ("/etc/passwd", 2, false),
        ] {
            assert_eq!(
                stays_inside(Path::new(target), depth),
                inside,
                "{target} at {depth}"
            );
        }
    }

    #[test]
    fn a_python_environment_may_name_the_systems_interpreter_and_nothing_else_does() {
        let link = |link: &str, target: &str| is_interpreter(Path::new(link), Path::new(target));
        assert!(link(".venv/bin/python3", "/usr/bin/python3.13"));
        assert!(link("inner/.venv/bin/python3", "/usr/bin/python3"));
        assert!(!link("bin/python3", "/usr/bin/python3"));
        assert!(!link("a.venv/bin/python3", "/usr/bin/python3"));
        assert!(!link(".venv/bin/python3", "/home/me/python3"));
        assert!(!link(".venv/bin/python3", "/usr/bin/../../etc/passwd"));
        assert!(!link(".venv/bin/python3", "/usr/bin/.."));
    }
}
