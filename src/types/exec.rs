//! Any program: `bin/NAME`, or what its worker.yaml names as its `command`. By that it is known, not by a file.

use super::descriptor::{Build, Run, Signs, Type, WorkerType};
use super::omitted;
use super::template::Template;

/// What is known of it.
pub static TYPE: Type = Type {
    kind: WorkerType::Exec,
    name: "exec",
    signs: Signs::NONE,
    run: Run::Program {
        built_by: "your own build",
    },
    build: Build::Nothing,
    tools: &[],
    jit: true,
    omits: &[omitted::DATA],
    package: None,
    template: Some(Template {
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
    }),
};
