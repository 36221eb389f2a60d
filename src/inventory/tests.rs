//! Claims about directories on disk; what is printed of them is in tests/golden.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{DocumentRoot, Mode, Settings, WorkerType};
use crate::names::WorkerName;

/// A directory of workers to play with.
struct Yard {
    directory: tempfile::TempDir,
}

impl Yard {
    fn with(files: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let yard = Self { directory };
        fs::create_dir(yard.path("")).unwrap();
        for file in files {
            yard.write(file, "");
        }
        yard
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join("workers").join(file)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn scan(&self, mode: Mode) -> Inventory {
        scan(&Settings::defaults_at(self.directory.path()), mode).unwrap()
    }

    /// The settings with `workers` and `more` beside it as directories of workers.
    fn two(&self) -> Settings {
        let project = self.directory.path();
        Settings {
            workers_directories: vec![project.join("workers"), project.join("more")],
            ..Settings::defaults_at(project)
        }
    }

    fn names(&self) -> Vec<String> {
        let inventory = self.scan(Mode::Production);
        inventory
            .workers
            .keys()
            .map(WorkerName::to_string)
            .collect()
    }

    fn fingerprint(&self, mode: Mode) -> Fingerprint {
        let inventory = self.scan(mode);
        inventory
            .workers
            .values()
            .next()
            .unwrap()
            .fingerprint
            .clone()
    }

    /// Which parts of the only worker's fingerprint change when `file` is written.
    fn changes(&self, mode: Mode, file: &str) -> String {
        let before = self.fingerprint(mode);
        self.write(file, "changed, and longer than before");
        let after = self.fingerprint(mode);
        // A second look without a change must find none.
        assert_eq!(after, self.fingerprint(mode));
        let mut changed = String::new();
        for (name, before, after) in [
            ("program ", before.program, after.program),
            ("assets ", before.assets, after.assets),
            ("config ", before.config, after.config),
        ] {
            changed += if before == after { "" } else { name };
        }
        changed.trim_end().to_owned()
    }
}

#[test]
fn a_directory_of_workers_that_is_not_there_is_not_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::defaults_at(directory.path());
    assert!(scan(&settings, Mode::Production).is_err());
    assert_eq!(Yard::with(&[]).scan(Mode::Production), Inventory::default());
}

#[test]
fn inside_a_worker_only_a_directory_with_a_configuration_is_another_one() {
    let yard = Yard::with(&[
        "api/package.json",
        "api/lib/index.js",
        "api/packages/lib/package.json",
        "api/users/src/main.rs",
        "api/users/config/worker.yaml",
        "api/users/inner/config/worker.yaml",
        "api/old/main.go",
        "api/old/bin/old",
        "api/app/main.py",
        "api/report/public/x",
        "api/misspelt/config/worker.yml",
        "api/.cache/x/config/worker.yaml",
        "api/node_modules/x/config/worker.yaml",
        "api/src/deep/config/worker.yaml",
        "blog/index.php",
        "blog/plugins/x/composer.json",
        "blog/api/config/worker.yaml",
        "blog/api/main.py",
        "group/a/bin/a",
        "group/b/config/worker.yaml",
        "node_modules/x/package.json",
        ".hidden/src/main.rs",
        "nothing/readme.txt",
    ]);
    assert_eq!(
        yard.names(),
        [
            "api",
            "api.users",
            "api.users.inner",
            "blog",
            "blog.api",
            "group.a",
            "group.b"
        ]
    );
    let inventory = yard.scan(Mode::Production);
    let api = &inventory.workers[&WorkerName::parse("api").unwrap()];
    assert_eq!(api.directory, yard.path("api"));
}

#[test]
fn what_nobody_recognises_among_workers_is_told_once_and_what_groups_them_is_not() {
    let yard = Yard::with(&[
        "rails/Gemfile",
        "rails/lib/tasks/x",
        "container/Dockerfile",
        "group/README",
        "group/a/bin/a",
        "group/a/lib/x",
        "group/b/x",
        "misspelt/main.py",
        "misspelt/config/worker.yml",
        "alone/config/worker.yml",
        "both/main.py",
        "both/config/worker.yml",
        "both/config/worker.yaml",
        "only/directories/x.txt",
        "kept/.gitkeep",
        ".hidden/x",
        "node_modules/x/y",
        "../more/rails/Gemfile",
        "../more/misspelt/config/worker.yml",
    ]);
    fs::create_dir(yard.path("empty")).unwrap();
    let inventory = scan(&yard.two(), Mode::Production).unwrap();
    let told: Vec<(&Path, bool)> = inventory
        .unrecognised
        .iter()
        .map(|stray| (&*stray.directory, stray.reason.contains("rename it")))
        .collect();
    let more = yard.directory.path().join("more");
    let expected = [
        (more.join("rails"), false),
        (yard.path("alone/config/worker.yml"), true),
        (yard.path("container"), false),
        (yard.path("group/b"), false),
        (yard.path("misspelt/config/worker.yml"), true),
        (yard.path("only/directories"), false),
        (yard.path("rails"), false),
    ];
    let expected: Vec<(&Path, bool)> = expected.iter().map(|(path, is)| (&**path, *is)).collect();
    assert_eq!(told, expected);
}

#[test]
fn a_worker_inside_another_one_is_a_part_of_its_files() {
    let yard = Yard::with(&[
        "a/app.py",
        "a/inner/src/app.py",
        "a/inner/config/worker.yaml",
        "a/inner/lib/Cargo.toml",
    ]);
    for enabled in ["true", "false"] {
        yard.write("a/inner/config/worker.yaml", &format!("enabled: {enabled}"));
        for (file, development, production) in [
            ("a/inner/src/app.py", "program", "program"),
            ("a/inner/lib/x", "program", "program"),
            // What its own work leaves behind, and what is no news for its parent.
            ("a/inner/data/x", "", ""),
            ("a/inner/lib/target/x", "", ""),
            ("a/inner/target/x", "", "program"),
            ("a/inner/config/worker.yaml", "", ""),
            ("a/inner/public/x.css", "", "program"),
        ] {
            let text = format!("{file} {enabled}");
            assert_eq!(yard.changes(Mode::Development, file), development, "{text}");
            assert_eq!(yard.changes(Mode::Production, file), production, "{text}");
        }
    }
    // What the one or the other says does not count.
    yard.write("a/inner/config/worker.yaml", "watch: {ignore: [\"*.md\"]}");
    yard.write("a/config/worker.yaml", "watch: {ignore: [\"*.txt\"]}");
    for file in ["a/inner/README.md", "a/inner/x.txt"] {
        assert_eq!(yard.changes(Mode::Development, file), "", "{file}");
    }
}

#[test]
fn in_production_a_program_reads_its_assets_and_in_development_they_are_not_its_own() {
    let yard = Yard::with(&["a/bin/a", "a/public/x.css"]);
    for file in ["a/public/x.css", "a/public/.well-known/new"] {
        assert_eq!(yard.changes(Mode::Production, file), "program assets");
    }
    assert_eq!(yard.changes(Mode::Development, "a/public/x.js"), "assets");
    assert_eq!(yard.changes(Mode::Production, "a/bin/a"), "program");
    assert_eq!(yard.changes(Mode::Production, "a/views/x.html"), "program");
    assert_eq!(
        yard.changes(Mode::Production, "a/config/app.toml"),
        "program"
    );
    let pages = Yard::with(&["a/public/x"]);
    assert_eq!(pages.changes(Mode::Production, "a/public/x"), "assets");
}

#[test]
fn what_a_generation_does_not_run_from_changes_nothing() {
    let rust = Yard::with(&["a/Cargo.toml", "a/src/main.rs", "a/bin/a"]);
    for file in [
        "a/data/x",
        "a/.git/x",
        "a/target/x",
        "a/views/__pycache__/x",
    ] {
        assert_eq!(rust.changes(Mode::Production, file), "", "{file}");
        assert_eq!(rust.changes(Mode::Development, file), "", "{file}");
    }
    assert_eq!(rust.changes(Mode::Production, "a/src/main.rs"), "");
    assert_eq!(rust.changes(Mode::Development, "a/src/main.rs"), "program");
    assert_eq!(rust.changes(Mode::Production, "a/bin/a"), "program");
    assert_eq!(rust.changes(Mode::Development, "a/bin/a"), "");
    let python = Yard::with(&["a/src/app.py"]);
    assert_eq!(python.changes(Mode::Production, "a/src/app.py"), "program");
    let pages = Yard::with(&["a/public/x", "a/README"]);
    assert_eq!(pages.changes(Mode::Production, "a/README"), "");
}

#[test]
fn what_a_build_has_left_in_a_hidden_directory_is_what_runs_in_production() {
    let node = Yard::with(&["a/server.js", "a/native/Cargo.toml"]);
    for file in [
        "a/.next/BUILD_ID",
        "a/.output/server/index.mjs",
        "a/.yarn/cache/x.zip",
        "a/lib/.x/y",
        "a/target/app.jar",
    ] {
        assert_eq!(node.changes(Mode::Production, file), "program", "{file}");
        assert_eq!(node.changes(Mode::Development, file), "", "{file}");
    }
    for file in [
        "a/.git/x",
        "a/.cache/x",
        "a/node_modules/.cache/x",
        "a/.idea/x",
        "a/native/target/x",
    ] {
        assert_eq!(node.changes(Mode::Production, file), "", "{file}");
    }
}

#[test]
fn the_configuration_counts_as_what_it_says() {
    let yard = Yard::with(&["a/bin/a"]);
    let before = yard.fingerprint(Mode::Production);
    // What it is as a file is kept apart, for rollbacks.
    let same = |found: &Fingerprint| {
        assert_eq!(found.program, before.program);
        found.config == before.config
    };
    yard.write("a/config/worker.yaml", "# a comment\nlisten: socket\n");
    assert!(same(&yard.fingerprint(Mode::Production)));
    yard.write("a/config/worker.yaml", "listen: port\n");
    let after = yard.fingerprint(Mode::Production);
    assert_ne!(after.config, before.config);
    assert_eq!(after.program, before.program);
}

#[test]
fn mode_and_inode_are_part_of_a_file() {
    let yard = Yard::with(&["a/bin/a"]);
    let before = yard.fingerprint(Mode::Production);
    fs::set_permissions(yard.path("a/bin/a"), fs::Permissions::from_mode(0o700)).unwrap();
    let chmod = yard.fingerprint(Mode::Production);
    assert_ne!(before.program, chmod.program);
    fs::rename(yard.path("a/bin/a"), yard.path("a/bin/old")).unwrap();
    fs::copy(yard.path("a/bin/old"), yard.path("a/bin/a")).unwrap();
    fs::remove_file(yard.path("a/bin/old")).unwrap();
    assert_ne!(chmod.program, yard.fingerprint(Mode::Production).program);
}

#[test]
fn links_lead_to_no_worker_and_no_assets_outside() {
    let yard = Yard::with(&["a/bin/a", "b/bin/b", "b/dist/x"]);
    symlink("a", yard.path("linked")).unwrap();
    symlink("/etc", yard.path("a/public")).unwrap();
    symlink("dist", yard.path("b/public")).unwrap();
    symlink("nowhere", yard.path("dangling")).unwrap();
    let inventory = yard.scan(Mode::Production);
    assert_eq!(yard.names(), ["a", "b"]);
    assert_eq!(inventory.strays.len(), 1, "{:?}", inventory.strays);
    assert_eq!(inventory.strays[0].directory, yard.path("linked"));
    let found = |name: &str| &inventory.workers[&WorkerName::parse(name).unwrap()];
    assert!(matches!(found("a").status, Status::Refused(_)) && found("a").public.is_none());
    assert!(found("b").settings().is_some() && found("b").public.is_some());
}

#[test]
fn a_linked_configuration_is_refused_without_showing_what_it_leads_to() {
    let yard = Yard::with(&["a/bin/a", "a/config/x"]);
    symlink("/etc/passwd", yard.path("a/config/worker.yaml")).unwrap();
    let inventory = yard.scan(Mode::Production);
    let Status::Refused(problems) = &inventory.workers.values().next().unwrap().status else {
        panic!("{inventory:?}");
    };
    assert!(!problems.to_string().contains("root:"), "{problems}");
}

#[test]
fn enabled_in_development_is_disabled_in_production() {
    let yard = Yard::with(&["a/bin/a"]);
    yard.write("a/config/worker.yaml", "enabled: development");
    let status = |mode| yard.scan(mode).workers.into_values().next().unwrap().status;
    assert_eq!(status(Mode::Production), Status::Disabled);
    assert!(matches!(status(Mode::Development), Status::Enabled(_)));
}

#[test]
fn files_that_come_and_go_during_a_scan_are_no_error() {
    let yard = Yard::with(&["a/bin/a", "a/public/x"]);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                yard.write("b/bin/deep/x", "");
                yard.write("a/bin/y", "");
                let _ = fs::remove_dir_all(yard.path("b"));
                let _ = fs::remove_file(yard.path("a/bin/y"));
            }
        });
        for _ in 0..200 {
            let inventory = yard.scan(Mode::Production);
            assert!(
                inventory.workers[&WorkerName::parse("a").unwrap()]
                    .settings()
                    .is_some()
            );
            assert!(inventory.strays.is_empty(), "{:?}", inventory.strays);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_worker_in_an_earlier_directory_hides_the_same_name_in_a_later_one() {
    let yard = Yard::with(&[
        "a/bin/a",
        "off/bin/off",
        "../more/a/bin/a",
        "../more/a/inner/config/worker.yaml",
        "../more/b/bin/b",
        "../more/linked/bin/linked",
        "../more/off/bin/off",
    ]);
    yard.write("off/config/worker.yaml", "enabled: false");
    symlink("a", yard.path("linked")).unwrap();
    let settings = yard.two();
    let inventory = scan(&settings, Mode::Production).unwrap();
    let more = yard.directory.path().join("more");
    let found: Vec<(&str, &Path)> = inventory
        .workers
        .iter()
        .map(|(name, found)| (name.as_str(), found.directory.as_path()))
        .collect();
    assert_eq!(
        found,
        [
            ("a", yard.path("a").as_path()),
            ("a.inner", more.join("a/inner").as_path()),
            ("b", more.join("b").as_path()),
            ("off", yard.path("off").as_path()),
        ]
    );
    let name = |name: &str| WorkerName::parse(name).unwrap();
    assert_eq!(inventory.workers[&name("off")].status, Status::Disabled);
    assert_eq!(
        inventory.hidden,
        ["a", "linked", "off"].map(|name| more.join(name))
    );
    assert_eq!(inventory.strays.len(), 1, "{:?}", inventory.strays);

    assert_eq!(directory_of(&settings, &name("a")), yard.path("a"));
    assert_eq!(directory_of(&settings, &name("b")), more.join("b"));
    assert_eq!(directory_of(&settings, &name("gone")), yard.path("gone"));
}

#[test]
fn a_directory_in_the_list_may_be_missing_and_not_unreadable() {
    let yard = Yard::with(&["a/bin/a"]);
    let settings = yard.two();
    let more = yard.directory.path().join("more");
    assert_eq!(scan(&settings, Mode::Production).unwrap().workers.len(), 1);

    let refused = || scan(&settings, Mode::Production).unwrap_err();
    fs::write(&more, "").unwrap();
    assert_eq!(refused().directories, [more.as_path()]);
    fs::remove_file(&more).unwrap();
    symlink("unmounted", &more).unwrap();
    assert_eq!(refused().directories, [more.as_path()]);
    fs::remove_file(&more).unwrap();

    fs::rename(yard.path(""), &more).unwrap();
    let inventory = scan(&settings, Mode::Production).unwrap();
    let found: Vec<_> = inventory.workers.values().collect();
    assert_eq!(found[0].directory, more.join("a"));
    fs::remove_dir_all(&more).unwrap();
    let text = refused().to_string();
    assert!(
        text.contains("workers', '") && text.contains("more'"),
        "{text}"
    );
}

#[test]
fn a_hostile_configuration_is_refused_and_no_other_worker_suffers() {
    let yard = Yard::with(&[
        "good/bin/good",
        "fifo/config/x",
        "link/config/x",
        "outside/config/x",
    ]);
    let mut random = fastrand::Rng::with_seed(7);
    let garbage: Vec<u8> = (0..1 << 20).map(|_| random.u8(..)).collect();
    let text: Vec<u8> = garbage.iter().map(|byte| byte & 0x7f).collect();
    let larger = vec![b'#'; (1 << 20) + 1];
    let lines: String = (0..10_000)
        .map(|line| format!("key{line}: root\n"))
        .collect();
    for (name, content) in [
        ("garbage", garbage.as_slice()),
        ("text", &text),
        ("larger", &larger),
        ("lines", lines.as_bytes()),
        ("user", b"user: root"),
        ("climber", b"command: [../../bin/sh]"),
        (
            "thief",
            format!("command: [{}]", yard.path("good/bin/good").display()).as_bytes(),
        ),
    ] {
        yard.write(&format!("{name}/bin/{name}"), "");
        fs::create_dir(yard.path(name).join("config")).unwrap();
        fs::write(yard.path(name).join("config/worker.yaml"), content).unwrap();
    }
    let permissions = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = yard.path("fifo/config/worker.yaml");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        permissions,
        0,
    )
    .unwrap();
    symlink("/etc/passwd", yard.path("link/config/worker.yaml")).unwrap();
    fs::remove_dir_all(yard.path("outside/config")).unwrap();
    symlink("/etc", yard.path("outside/config")).unwrap();

    let inventory = yard.scan(Mode::Production);
    for (name, found) in &inventory.workers {
        match &found.status {
            Status::Refused(problems) => {
                let text = problems.to_string();
                assert!(text.len() < 40_000, "{name}: {} bytes", text.len());
                assert!(
                    !text.contains("root:") && !text.contains('\0'),
                    "{name}: {text}"
                );
            }
            status => assert_eq!(name.as_str(), "good", "{status:?}"),
        }
    }
    assert_eq!(
        inventory.workers.len(),
        10,
        "{:?}",
        inventory.workers.keys()
    );
}

#[test]
fn in_development_what_git_ignores_does_not_count_and_in_production_it_does() {
    let yard = Yard::with(&["a/app.py", "a/public/x.css"]);
    yard.write("a/.gitignore", "*.gen\n/public/\n/build/\n");
    for file in [
        "a/x.gen",
        "a/build/x",
        "a/node_modules/x.js",
        "a/.app.py.swp",
    ] {
        assert_eq!(yard.changes(Mode::Development, file), "", "{file}");
        assert_eq!(yard.changes(Mode::Production, file), "program", "{file}");
    }
    assert_eq!(yard.changes(Mode::Development, "a/public/x.css"), "assets");
    assert_eq!(yard.changes(Mode::Development, "a/public/x.css~"), "");
    assert_eq!(
        yard.changes(Mode::Production, "a/public/x.css~"),
        "program assets"
    );
    // What begins or ceases to count has changed what there is.
    let before = yard.fingerprint(Mode::Development);
    yard.write("a/.gitignore", "/build/\n");
    assert_ne!(before.program, yard.fingerprint(Mode::Development).program);
}

#[test]
fn a_worker_says_itself_what_does_not_count() {
    let yard = Yard::with(&["a/app.py", "a/public/x.css"]);
    yard.write("a/.gitignore", "/dist/\n");
    let before = yard.fingerprint(Mode::Development);
    let ignore = "watch: {ignore: [\"*.md\", \"/public/gen/\", \"!/dist/\"]}";
    yard.write("a/config/worker.yaml", ignore);
    let after = yard.fingerprint(Mode::Development);
    assert_eq!(
        before.config, after.config,
        "it is no reason for a new generation"
    );
    let settings = |yard: &Yard| {
        let found = yard.scan(Mode::Development).workers.into_values().next();
        found.unwrap().settings().unwrap().clone()
    };
    let with = settings(&yard);
    assert_eq!(yard.changes(Mode::Development, "a/README.md"), "");
    assert_eq!(yard.changes(Mode::Development, "a/public/gen/x"), "");
    assert_eq!(yard.changes(Mode::Development, "a/dist/x.js"), "program");
    assert_eq!(yard.changes(Mode::Production, "a/README.md"), "program");
    fs::remove_file(yard.path("a/config/worker.yaml")).unwrap();
    assert_eq!(settings(&yard), with);
}

#[test]
fn a_program_that_nothing_builds_counts_even_if_git_ignores_it() {
    let yard = Yard::with(&["a/bin/a", "a/bin/other", "a/tools/run"]);
    yard.write("a/.gitignore", "bin/\ntools/\n");
    assert_eq!(yard.changes(Mode::Development, "a/bin/a"), "program");
    assert_eq!(yard.changes(Mode::Development, "a/bin/other"), "");
    assert_eq!(yard.changes(Mode::Development, "a/tools/run"), "");
    yard.write("a/config/worker.yaml", "command: [tools/run]");
    assert_eq!(yard.changes(Mode::Development, "a/tools/run"), "program");
    yard.write("a/config/worker.yaml", "build: [make]");
    assert_eq!(yard.changes(Mode::Development, "a/bin/a"), "");
    let developed = yard.scan(Mode::Development).developed();
    assert!(
        developed.len() == 1 && developed[0].is_built,
        "{developed:?}"
    );
}

#[test]
fn what_the_build_of_its_type_fetches_is_no_source_even_where_it_is_run() {
    let yard = Yard::with(&["a/app.py", "a/requirements.txt"]);
    yard.write(
        "a/config/worker.yaml",
        "command: [./.venv/bin/gunicorn, \"app:app\"]",
    );
    let changes = |yard: &Yard, file: &str| yard.changes(Mode::Development, file);
    assert_eq!(changes(&yard, "a/.venv/bin/gunicorn"), "");
    assert_eq!(
        yard.changes(Mode::Production, "a/.venv/bin/gunicorn"),
        "program"
    );
    // Nothing of ours fetches for this one.
    yard.write(
        "a/config/worker.yaml",
        "command: [.venv/bin/gunicorn]\ntype: exec",
    );
    assert_eq!(changes(&yard, "a/.venv/bin/gunicorn"), "program");

    let yard = Yard::with(&["a/index.php", "a/vendor/x.php"]);
    assert_eq!(changes(&yard, "a/vendor/x.php"), "program");
    yard.write("a/composer.json", "{}");
    assert_eq!(changes(&yard, "a/vendor/x.php"), "");
}

#[test]
fn stylesheets_are_told_from_other_assets_in_development_alone() {
    let yard = Yard::with(&["a/app.py", "a/public/x.css", "a/public/x.js"]);
    let parts = |mode| {
        let found = yard.fingerprint(mode);
        [found.assets, found.styles, found.other_assets]
    };
    let before = parts(Mode::Development);
    yard.write("a/public/sub/y.CSS", "");
    let styled = parts(Mode::Development);
    let same = |one: &[String; 3], two: &[String; 3]| [0, 1, 2].map(|part| one[part] == two[part]);
    assert_eq!(same(&before, &styled), [false, false, true]);
    yard.write("a/public/x.js", "changed");
    assert_eq!(
        same(&styled, &parts(Mode::Development)),
        [false, true, false]
    );
    let [assets, styles, others] = parts(Mode::Production);
    assert!(!assets.is_empty() && styles.is_empty() && others.is_empty());
}

#[test]
fn a_linked_directory_of_assets_is_known_where_it_lies() {
    let yard = Yard::with(&["a/app.py", "a/dist/site/x"]);
    symlink("dist/site", yard.path("a/public")).unwrap();
    let developed = yard.scan(Mode::Development).developed();
    assert_eq!(developed[0].public, Some(yard.path("a/dist/site")));
}

#[test]
fn php_scripts_are_known_by_where_they_start() {
    let root = |files: &[&str]| {
        let yard = Yard::with(files);
        let inventory = yard.scan(Mode::Production);
        let found = inventory.workers.values().next().expect("a worker");
        let settings = found.settings().expect("it can run");
        assert_eq!(settings.kind, WorkerType::Php, "{files:?}");
        settings.document_root
    };
    assert_eq!(root(&["a/index.php"]), Some(DocumentRoot::Worker));
    assert_eq!(root(&["a/src/index.php"]), Some(DocumentRoot::Src));
    assert_eq!(
        root(&["a/public/index.php", "a/index.php"]),
        Some(DocumentRoot::Public)
    );
    assert_eq!(
        root(&["a/composer.json", "a/public/index.php", "a/public/a.css"]),
        Some(DocumentRoot::Public)
    );
}

#[test]
fn directories_of_scripts_that_have_an_index_are_known_in_production() {
    let has = |files: &[&str], mode: Mode| {
        let yard = Yard::with(files);
        let inventory = yard.scan(mode);
        let settings = inventory.workers.values().next().unwrap().settings();
        settings.expect("it can run").indexes.clone()
    };
    let files = [
        "a/public/index.php",
        "a/public/admin/index.php",
        "a/public/admin/users/list.php",
        "a/public/.hidden/index.php",
        "a/public/admin/index.html",
        "a/lib/index.php",
    ];
    let found = has(&files, Mode::Production);
    assert_eq!(
        found,
        crate::route::Indexes::new(["", "admin"].map(str::to_owned)).unwrap()
    );
    assert!(has(&files, Mode::Development).is_empty(), "the proxy looks");
    let found = has(
        &["a/index.php", "a/wp-admin/index.php", "a/data/x/index.php"],
        Mode::Production,
    );
    assert!(found.has("wp-admin") && !found.has("data/x"));
    let deep = "a/".to_owned() + &"long-name-of-a-directory/".repeat(100);
    let yard = Yard::with(&["a/index.php"]);
    for number in 0..250 {
        yard.write(&format!("{deep}{number}/index.php"), "");
    }
    match &yard
        .scan(Mode::Production)
        .workers
        .values()
        .next()
        .unwrap()
        .status
    {
        Status::Refused(problems) => {
            assert!(problems.to_string().contains("more than 524288 bytes"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_front_controller_is_a_script_of_the_document_root() {
    let yard = Yard::with(&["a/composer.json", "a/web.php", "a/public/app.php"]);
    let judged = |script: &str| {
        yard.write(
            "a/config/worker.yaml",
            &format!("front_controller: {script}"),
        );
        let inventory = yard.scan(Mode::Production);
        match &inventory.workers.values().next().unwrap().status {
            Status::Enabled(settings) => Ok(settings.document_root),
            Status::Refused(problems) => Err(problems.to_string()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(judged("app.php"), Ok(Some(DocumentRoot::Public)));
    assert_eq!(judged("web.php"), Ok(Some(DocumentRoot::Worker)));
    let missing = judged("none.php").unwrap_err();
    assert!(
        missing.contains(
            "worker.yaml:1:19: 'front_controller' is 'none.php', and there is no such script"
        ),
        "{missing}"
    );
    yard.write("a/server.py", "");
    let refused = {
        yard.write(
            "a/config/worker.yaml",
            "{front_controller: app.php, command: [python3, server.py]}",
        );
        match &yard
            .scan(Mode::Production)
            .workers
            .values()
            .next()
            .unwrap()
            .status
        {
            Status::Refused(problems) => problems.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert!(
        refused.contains("'front_controller' is for PHP scripts"),
        "{refused}"
    );
}

#[test]
fn what_a_site_is_built_from_counts_while_it_is_developed() {
    let yard = Yard::with(&["a/index.md", "a/public/index.html"]);
    yard.write("a/config/worker.yaml", "{type: static, build: [make]}");
    assert_eq!(yard.changes(Mode::Development, "a/index.md"), "program");
    assert_eq!(
        yard.changes(Mode::Development, "a/public/index.html"),
        "assets"
    );
    assert_eq!(yard.changes(Mode::Development, "a/node_modules/x.js"), "");
    assert_eq!(yard.changes(Mode::Production, "a/index.md"), "");
    // Also where it is built elsewhere.
    let yard = Yard::with(&["a/index.md", "a/site/index.html"]);
    yard.write("a/config/worker.yaml", "{type: static, build: [make]}");
    symlink("site", yard.path("a/public")).unwrap();
    assert_eq!(yard.changes(Mode::Development, "a/index.md"), "program");
    assert!(
        !yard
            .changes(Mode::Development, "a/site/index.html")
            .contains("program")
    );
    // Without a command there is nothing to do for it.
    let yard = Yard::with(&["a/index.md", "a/public/index.html"]);
    yard.write("a/config/worker.yaml", "type: static");
    assert_eq!(yard.changes(Mode::Development, "a/index.md"), "");
}

#[test]
fn php_without_a_script_to_start_from_is_refused_and_with_a_command_speaks_http() {
    let yard = Yard::with(&["a/composer.json"]);
    let refused = |yard: &Yard| match &yard
        .scan(Mode::Production)
        .workers
        .values()
        .next()
        .unwrap()
        .status
    {
        Status::Refused(problems) => problems.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused(&yard).contains("there is no index.php"));
    yard.write("a/config/worker.yaml", "command: [php, server.php]");
    let inventory = yard.scan(Mode::Production);
    let settings = inventory
        .workers
        .values()
        .next()
        .unwrap()
        .settings()
        .unwrap();
    assert_eq!(
        (settings.kind, settings.document_root),
        (WorkerType::Php, None)
    );
    yard.write("a/index.php", "");
    yard.write("a/config/worker.yaml", "type: php\nlisten: port");
    let said = refused(&yard);
    assert!(
        said.contains("worker.yaml:2:9: ") && said.contains("'listen: port'"),
        "{said}"
    );
}

#[test]
fn a_script_in_public_is_a_part_of_the_program_and_a_stylesheet_in_development_is_not() {
    let yard = Yard::with(&["a/public/index.php", "a/public/a.css"]);
    let seen = |mode| yard.fingerprint(mode).program;
    let both = || (seen(Mode::Development), seen(Mode::Production));
    let first = both();
    yard.write("a/public/a.css", "longer");
    let second = both();
    assert_eq!(first.0, second.0, "scripts read what lies there");
    assert_ne!(first.1, second.1, "scripts read a copy");
    yard.write("a/public/index.php", "longer");
    let third = both();
    assert!(second.0 != third.0 && second.1 != third.1);
    yard.write("a/public/.user.ini", "");
    assert_ne!(third.0, seen(Mode::Development));
}
