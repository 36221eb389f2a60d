//! Deno.

use super::descriptor::{Build, Installer, Run, Script, Sign, Signs, Type, WorkerType};
use super::omitted;
use super::template::Template;

/// Its own files, JSON with comments.
pub const CONFIGURATIONS: [&str; 2] = ["deno.json", "deno.jsonc"];

/// What is known of it.
pub static TYPE: Type = Type {
    kind: WorkerType::Deno,
    name: "deno",
    signs: Signs {
        here: &[
            Sign::Project(CONFIGURATIONS[0]),
            Sign::Project(CONFIGURATIONS[1]),
        ],
        // It reads package.json as well, and a file of its own only where it is meant.
        over: &[WorkerType::Node],
        ..Signs::NONE
    },
    run: Run::Script(Script {
        interpreter: "deno",
        own_interpreter: None,
        // What a worker may do is systemd's to say, and there is nobody to be asked.
        arguments: &["run", "--allow-all", "--no-prompt"],
        entries: ENTRIES,
        package_json: false,
    }),
    build: Build::Dependencies(Installer::Deno),
    tools: &[("deno", "npm install --global deno")],
    jit: true,
    omits: &[omitted::DATA],
    // Debian has none.
    package: None,
    template: Some(Template {
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
    }),
};

/// Where a program starts.
pub const ENTRIES: &[&str] = &[
    "main.ts",
    "server.ts",
    "src/main.ts",
    "src/server.ts",
    "main.js",
    "src/main.js",
];
