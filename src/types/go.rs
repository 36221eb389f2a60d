//! Go: a module, or files in `src/`.

use super::descriptor::{Build, Compiler, Run, Sign, Signs, Type, WorkerType};
use super::omitted;
use super::template::Template;

/// What is known of it.
pub static TYPE: Type = Type {
    kind: WorkerType::Go,
    name: "go",
    signs: Signs {
        here: &[Sign::Project("go.mod"), Sign::Project("main.go")],
        source_extension: Some("go"),
        ..Signs::NONE
    },
    run: Run::Program {
        built_by: "tqserver build --release",
    },
    build: Build::Program(Compiler::Go),
    tools: &[("go", "apt install golang-go")],
    jit: false,
    omits: &[omitted::DATA, "src"],
    package: None,
    template: Some(Template {
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
    }),
};
