//! Node.js.

use super::descriptor::{Build, Installer, Run, Script, Sign, Signs, Type, WorkerType};
use super::omitted;
use super::template::Template;

/// What is known of it.
pub static TYPE: Type = Type {
    kind: WorkerType::Node,
    name: "node",
    signs: Signs {
        here: &[
            Sign::Project("package.json"),
            Sign::Program("server.js"),
            Sign::Program("index.js"),
        ],
        in_source: &["server.js", "index.js"],
        // Beside PHP scripts a package.json is of the tools that make their stylesheets.
        tools_beside: Some("composer.json"),
        ..Signs::NONE
    },
    run: Run::Script(Script {
        interpreter: "node",
        own_interpreter: None,
        arguments: &[],
        entries: ENTRIES,
        package_json: true,
    }),
    build: Build::Dependencies(Installer::JavaScript { usual: "npm" }),
    tools: &[
        ("node", "apt install nodejs"),
        ("npm", "apt install npm"),
        ("pnpm", "npm install --global pnpm"),
        ("yarn", "npm install --global yarn"),
    ],
    jit: true,
    omits: &[omitted::DATA],
    package: Some("nodejs"),
    template: Some(Template {
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
    }),
};

/// Where a program starts if its package.json does not say.
pub const ENTRIES: &[&str] = &["server.js", "index.js", "src/server.js", "src/index.js"];
