//! Bun.

use super::descriptor::{Build, Installer, Run, Script, Sign, Signs, Type, WorkerType};
use super::omitted;
use super::template::Template;

/// What is known of it.
pub static TYPE: Type = Type {
    kind: WorkerType::Bun,
    name: "bun",
    signs: Signs {
        here: &[Sign::Project("bunfig.toml")],
        // It reads package.json as well, and a file of its own only where it is meant.
        over: &[WorkerType::Node],
        ..Signs::NONE
    },
    run: Run::Script(Script {
        interpreter: "bun",
        own_interpreter: None,
        arguments: &["run"],
        entries: ENTRIES,
        package_json: true,
    }),
    build: Build::Dependencies(Installer::JavaScript { usual: "bun" }),
    tools: &[("bun", "npm install --global bun")],
    jit: true,
    omits: &[omitted::DATA],
    // Debian has none.
    package: None,
    template: Some(Template {
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
    }),
};

/// Where a program starts if its package.json does not say.
pub const ENTRIES: &[&str] = &[
    "server.ts",
    "index.ts",
    "src/server.ts",
    "src/index.ts",
    "server.js",
    "index.js",
    "src/server.js",
    "src/index.js",
];
