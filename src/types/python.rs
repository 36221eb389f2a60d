//! Python.

use super::descriptor::{Build, Installer, Run, Script, Sign, Signs, Type, WorkerType};
use super::omitted;
use super::template::Template;

/// What is known of it.
pub static TYPE: Type = Type {
    kind: WorkerType::Python,
    name: "python",
    signs: Signs {
        here: &[
            Sign::Program("main.py"),
            Sign::Program("app.py"),
            Sign::Project("requirements.txt"),
            Sign::Project("pyproject.toml"),
        ],
        in_source: &["main.py", "app.py"],
        // Of a package.
        ..Signs::NONE
    },
    run: Run::Script(Script {
        interpreter: "python3",
        own_interpreter: Some(".venv/bin/python"),
        arguments: &[],
        entries: &["main.py", "app.py", "src/main.py", "src/app.py"],
        package_json: false,
    }),
    build: Build::Dependencies(Installer::Pip),
    tools: &[("python3", "apt install python3")],
    jit: true,
    omits: &[omitted::DATA],
    package: Some("python3"),
    template: Some(Template {
        language: "Python",
        tool: Some(("python3", "run apt install python3")),
        files: files!("python":
            "gitignore" => ".gitignore",
            "README.md" => "README.md",
            "config/worker.yaml" => "config/worker.yaml",
            "main.py" => "main.py",
            "test_main.py" => "test_main.py",
        ),
    }),
};
