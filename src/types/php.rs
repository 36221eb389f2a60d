//! PHP: scripts, run by php-fpm.

use super::descriptor::{Build, Installer, Run, Sign, Signs, Type, WorkerType};
use super::omitted;
use super::template::Template;

/// The script that answers a path which names its directory; that of the document root, if no other is named, also what names nothing.
pub const INDEX: &str = "index.php";

/// What is known of it.
pub static TYPE: Type = Type {
    kind: WorkerType::Php,
    name: "php",
    signs: Signs {
        here: &[Sign::Program("composer.json"), Sign::Program(INDEX)],
        in_source: &[INDEX],
        below: &["public/index.php"],
        ..Signs::NONE
    },
    run: Run::PhpFpm,
    build: Build::Dependencies(Installer::Composer),
    tools: &[("composer", "apt install composer")],
    jit: true,
    omits: &[omitted::DATA],
    package: Some("php-fpm"),
    template: Some(Template {
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
    }),
};
