//! The files of a new worker, as they lie beside this one: a directory for each type.
//!
//! In them `{{name}}` and the like stand for what is different from worker to worker; see [`Words`].

use crate::names::WorkerName;
use crate::route::RoutePath;

/// What a worker of one type begins with.
pub(super) struct Template {
    /// The type, as worker.yaml spells it.
    pub(super) kind: &'static str,
    /// Its name for people.
    pub(super) language: &'static str,
    /// The program that builds or runs it, and how it is installed.
    pub(super) tool: Option<(&'static str, &'static str)>,
    pub(super) files: &'static [File],
}

/// One file of a template.
pub(super) struct File {
    /// Where it lies beside this file.
    #[cfg(test)]
    pub(super) source: &'static str,
    /// Where it goes in the worker's directory; words in braces are put in.
    pub(super) place: &'static str,
    /// What stands in it; words in braces are put in.
    pub(super) text: &'static str,
}

macro_rules! files {
    ($kind:literal: $($source:literal => $place:literal,)*) => {
        &[
            // Git would obey a file of this name here, and Cargo would take a template for a package.
            $(File {
                #[cfg(test)]
                source: concat!($kind, "/", $source),
                place: $place,
                text: include_str!(concat!($kind, "/", $source)),
            },)*
        ]
    };
}

/// All types there is a template for.
pub(super) const TEMPLATES: [Template; 8] = [
    Template {
        kind: "rust",
        language: "Rust",
        tool: Some((
            "cargo",
            "see https://rustup.rs, or run apt install cargo where that is Rust 1.85 or newer",
        )),
        files: files!("rust":
            "gitignore" => ".gitignore",
            "Cargo.toml.in" => "Cargo.toml",
            "README.md" => "README.md",
            "config/worker.yaml" => "config/worker.yaml",
            "src/main.rs" => "src/main.rs",
        ),
    },
    Template {
        kind: "go",
        language: "Go",
        tool: Some(("go", "run apt install golang-go")),
        files: files!("go":
            "gitignore" => ".gitignore",
            "README.md" => "README.md",
            "config/worker.yaml" => "config/worker.yaml",
            "go.mod" => "go.mod",
            "main.go" => "main.go",
            "main_test.go" => "main_test.go",
        ),
    },
    Template {
        kind: "node",
        language: "Node.js",
        tool: Some(("node", "run apt install nodejs")),
        files: files!("node":
            "gitignore" => ".gitignore",
            "README.md" => "README.md",
            "app.js" => "app.js",
            "app.test.js" => "app.test.js",
            "config/worker.yaml" => "config/worker.yaml",
            "package.json" => "package.json",
            "server.js" => "server.js",
        ),
    },
    Template {
        kind: "python",
        language: "Python",
        tool: Some(("python3", "run apt install python3")),
        files: files!("python":
            "gitignore" => ".gitignore",
            "README.md" => "README.md",
            "config/worker.yaml" => "config/worker.yaml",
            "main.py" => "main.py",
            "test_main.py" => "test_main.py",
        ),
    },
    Template {
        kind: "php",
        language: "PHP",
        tool: Some(("php", "run apt install php-fpm php-cli")),
        files: files!("php":
            "gitignore" => ".gitignore",
            "README.md" => "README.md",
            "config/worker.yaml" => "config/worker.yaml",
            "lib/answer.php" => "lib/answer.php",
            "src/index.php" => "src/index.php",
            "tests/answer_test.php" => "tests/answer_test.php",
        ),
    },
    Template {
        kind: "bun",
        language: "TypeScript, for Bun",
        tool: Some(("bun", "see https://bun.sh, or run npm install --global bun")),
        files: files!("bun":
            "gitignore" => ".gitignore",
            "README.md" => "README.md",
            "app.test.ts" => "app.test.ts",
            "app.ts" => "app.ts",
            "config/worker.yaml" => "config/worker.yaml",
            "package.json" => "package.json",
            "server.ts" => "server.ts",
        ),
    },
    Template {
        kind: "deno",
        language: "TypeScript, for Deno",
        tool: Some((
            "deno",
            "see https://deno.com, or run npm install --global deno",
        )),
        files: files!("deno":
            "gitignore" => ".gitignore",
            "README.md" => "README.md",
            "app.ts" => "app.ts",
            "app_test.ts" => "app_test.ts",
            "config/worker.yaml" => "config/worker.yaml",
            "deno.json" => "deno.json",
            "server.ts" => "server.ts",
        ),
    },
    Template {
        kind: "exec",
        language: "any language",
        // Perl is an essential package of Debian.
        tool: None,
        files: files!("exec":
            "gitignore" => ".gitignore",
            "README.md" => "README.md",
            "bin/program" => "bin/{{program}}",
            "config/worker.yaml" => "config/worker.yaml",
            "tests/answers.sh" => "tests/answers.sh",
        ),
    },
];

/// Names a Cargo package or its program can not have: directories in Cargo's target directory, crates that come with the compiler, and
/// those the template depends on.
const NOT_FOR_CARGO: [&str; 14] = [
    "alloc",
    "axum",
    "build",
    "core",
    "deps",
    "examples",
    "http-body-util",
    "incremental",
    "listenfd",
    "proc_macro",
    "std",
    "test",
    "tokio",
    "tower",
];

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
