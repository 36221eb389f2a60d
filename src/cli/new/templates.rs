//! What `tqserver new` has files for, and what is put into them: each type's lie beside what else is known of it (`src/types/`).
//!
//! In them `{{name}}` and the like stand for what is different from worker to worker; see [`Words`].

use crate::names::WorkerName;
use crate::route::RoutePath;
use crate::types::rust::NOT_FOR_CARGO;
use crate::types::{self, Template};

/// All templates, by the names of their types.
pub(super) fn templates() -> impl Iterator<Item = (&'static str, &'static Template)> {
    let of = |kind: &&'static types::Type| Some((kind.name, kind.template.as_ref()?));
    types::ALL.iter().filter_map(of)
}

/// What is put into a template's files, by name.
pub(super) struct Words(Vec<(&'static str, String)>);

impl Words {
    /// For the worker `name` in a directory of workers called `workers`.
    pub(super) fn of(name: &WorkerName, workers: &str) -> Self {
        let route = RoutePath::of_worker(name);
        // npm wants no capital letters, and Cargo no dots.
        let package = name.as_str().to_ascii_lowercase().replace('.', "-");
        Self(vec![
            ("name", name.to_string()),
            ("program", name.program().to_owned()),
            (
                "directory",
                format!("{workers}/{}", name.directory().display()),
            ),
            ("health", format!("{}/health", route.prefix())),
            ("route", route.to_string()),
            ("crate", for_cargo(&package)),
            ("binary", for_cargo(name.program())),
            ("package", package),
        ])
    }

    /// `template` with the words put in.
    pub(super) fn put_into(&self, template: &str) -> String {
        let words = self.0.iter();
        words.fold(template.to_owned(), |text, (word, value)| {
            text.replace(&format!("{{{{{word}}}}}"), value)
        })
    }
}

/// The builder takes the only program there is, if none has the worker's name.
fn for_cargo(name: &str) -> String {
    if NOT_FOR_CARGO.contains(&name) || name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("worker-{name}")
    } else {
        name.to_owned()
    }
}
