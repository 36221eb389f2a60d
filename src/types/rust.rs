//! Rust: a Cargo package.

use super::descriptor::{Build, Compiler, Run, Sign, Signs, Type, WorkerType};
use super::omitted;
use super::template::Template;

/// What is known of it.
pub static TYPE: Type = Type {
    kind: WorkerType::Rust,
    name: "rust",
    signs: Signs {
        here: &[Sign::Project("Cargo.toml")],
        in_source: &["main.rs"],
        ..Signs::NONE
    },
    run: Run::Program {
        built_by: "tqserver build --release",
    },
    build: Build::Program(Compiler::Cargo),
    tools: &[("cargo", "apt install cargo")],
    jit: false,
    omits: &[omitted::DATA, "src", "target"],
    package: None,
    template: Some(Template {
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
    }),
};

/// Where a package's manifest lies, the first of these.
pub const MANIFESTS: [&str; 2] = ["Cargo.toml", "src/Cargo.toml"];

/// Names a Cargo package or its program can not have: directories in Cargo's target directory, crates that come with the compiler, and
/// those the template depends on.
pub const NOT_FOR_CARGO: [&str; 14] = [
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
