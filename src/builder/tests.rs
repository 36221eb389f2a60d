//! Builds, in directories of the tests' own, of programs that are everywhere.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::OUTPUT_MAX;
use super::program::{SYSTEM_PATH, text, tool};
use super::recipe::recipe;
use super::run::{first_file, script_entry};
use super::*;
use crate::config::{Mode, WorkerSettings};
use crate::types::{bun, deno, node};

mod dependencies;

const MINUTE: Duration = Duration::from_secs(60);

fn settings(kind: &str, rest: serde_json::Value) -> WorkerSettings {
    let second = json!({ "secs": 1, "nanos": 0 });
    let mut all = json!({
        "name": "api.users", "route": "/api/users", "kind": kind, "command": null, "build": null,
        "listen": "socket", "env": {},
        "health": { "path": null, "timeout": second, "interval": second, "start_timeout": second, "failures": 3 },
        "limits": { "gomaxprocs": null, "gomemlimit": null, "tasks_max": null, "max_requests": 0, "log_file": "",
                    "timeouts": { "read": second, "write": second, "idle": second } },
    });
    for (key, value) in rest.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

/// A directory with these files; a name that ends in `*` is made executable.
fn directory(files: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in files {
        let path = directory.path().join(file.trim_end_matches('*'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{}").unwrap();
        let mode = if file.ends_with('*') { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    directory
}

fn runs(settings: &WorkerSettings, directory: &Path) -> Result<Vec<String>, String> {
    run_command(settings, directory, Mode::Production).map_err(|error| error.to_string())
}

#[test]
fn a_built_worker_runs_the_program_of_its_name() {
    let there = directory(&["bin/users*"]);
    for kind in ["rust", "go", "exec"] {
        let command = runs(&settings(kind, json!({})), there.path()).unwrap();
        assert_eq!(command, [text(&there.path().join("bin/users"))]);
    }
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let empty = directory(&[]);
    let says = |kind, rest| runs(&settings(kind, rest), empty.path()).unwrap_err();
    assert_eq!(
        says("go", json!({})),
        "bin/users is missing; build it with tqserver build --release, or deploy it"
    );
    assert_eq!(
        says("python", json!({})),
        "no file to start from: one of main.py, app.py, src/main.py, src/app.py is needed, or a command: in config/worker.yaml"
    );
    assert!(says("exec", json!({"command": ["bin/x"]})).starts_with("bin/x is missing; "));
    let painted = says(
        "exec",
        json!({"command": ["bin/\u{1b}[31mx\nok: all is well"]}),
    );
    assert!(
        painted.starts_with("bin/\\u{1b}[31mx\\nok: all is well is missing; "),
        "{painted}"
    );
    assert!(says("exec", json!({"command": ["no-such-program"]})).contains(SYSTEM_PATH));
    assert!(says("exec", json!({"command": []})).contains("empty"));
    assert!(says("static", json!({})).contains("public/"));

    let plain = directory(&["bin/users"]);
    assert_eq!(
        runs(&settings("rust", json!({})), plain.path()).unwrap_err(),
        "bin/users is not an executable file; run chmod +x bin/users"
    );
    let missing = tool("go", &OsString::from("/nowhere")).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "go is not installed; run apt install golang-go"
    );
}

#[test]
fn a_command_can_not_leave_the_directory() {
    let there = directory(&["bin/x*"]);
    let with = |command| {
        runs(
            &settings("exec", json!({ "command": command })),
            there.path(),
        )
    };
    assert_eq!(
        with(json!(["./bin/x", "-v"])).unwrap(),
        [text(&there.path().join("bin/x")), "-v".into()]
    );
    assert_eq!(
        with(json!(["sh", "-c", "true"])).unwrap()[1..],
        ["-c", "true"]
    );
    assert_eq!(with(json!(["/bin/sh"])).unwrap(), ["/bin/sh"]);
    for outside in ["../x", "bin/../../x", "a/.."] {
        let error = with(json!([outside])).unwrap_err();
        assert!(error.contains("leaves the worker's directory"), "{error}");
    }
}

#[test]
fn node_starts_where_package_json_says() {
    let there = directory(&["index.js", "lib/web.js"]);
    let entry = || {
        script_entry(there.path(), node::ENTRIES)
            .map(|path| text(path.strip_prefix(there.path()).unwrap()))
    };
    assert_eq!(entry().unwrap(), "index.js");
    fs::write(there.path().join("package.json"), r#"{"main": "lib/web"}"#).unwrap();
    assert_eq!(entry().unwrap(), "lib/web.js");
    fs::write(
        there.path().join("package.json"),
        r#"{"main": "dist/x.js"}"#,
    )
    .unwrap();
    assert!(entry().unwrap_err().to_string().contains("\"main\""));
    fs::write(there.path().join("package.json"), r#"{"main": "../x.js"}"#).unwrap();
    assert!(entry().unwrap_err().to_string().contains("leaves"));
}

#[test]
fn python_prefers_its_own_environment() {
    let there = directory(&["app.py", ".venv/bin/python*"]);
    let command = runs(&settings("python", json!({})), there.path()).unwrap();
    let expected = [".venv/bin/python", "app.py"].map(|name| text(&there.path().join(name)));
    assert_eq!(command, expected);
}

#[test]
fn a_plain_word_is_a_program_of_the_workers_own_packages_first() {
    let own = [
        ".venv/bin/gunicorn*",
        "node_modules/.bin/sh*",
        "vendor/bin/x",
    ];
    let there = directory(&own);
    let runs = |word| {
        runs(
            &settings("exec", json!({ "command": [word, "app:app"] })),
            there.path(),
        )
    };
    let path = |name: &str| text(&there.path().join(name));
    assert_eq!(
        runs("gunicorn").unwrap(),
        [path(".venv/bin/gunicorn"), "app:app".to_owned()]
    );
    assert_eq!(runs("sh").unwrap()[0], path("node_modules/.bin/sh"));
    assert!(runs("env").unwrap()[0].ends_with("/bin/env"));
    let error = runs("x").unwrap_err();
    assert!(
        error.contains(".venv/bin") && error.contains("tqserver build"),
        "{error}"
    );
}

/// The commands that build a worker of this type, each in a line.
fn builds(kind: &str, directory: &Path, purpose: Purpose) -> String {
    let recipe = recipe(&settings(kind, json!({})), directory, purpose);
    let steps = recipe.map(|recipe| recipe.steps).unwrap_or_default();
    let lines: Vec<String> = steps.iter().map(|step| step.join(" ")).collect();
    lines.join("\n")
}

#[test]
fn go_builds_what_is_there() {
    let builds = |files: &[&str]| builds("go", directory(files).path(), Purpose::Development);
    for (files, command) in [
        (
            ["go.mod", "main.go"].as_slice(),
            "go build -o bin/.users.new .",
        ),
        (
            &["go.mod", "src/main.go"],
            "go build -o bin/.users.new ./src",
        ),
        (
            &["src/b.go", "src/a.go", "src/a_test.go"],
            "go build -o bin/.users.new src/a.go src/b.go",
        ),
        (
            &["src/go.mod", "src/main.go"],
            "go -C src build -o ../bin/.users.new .",
        ),
    ] {
        assert_eq!(builds(files), command);
    }
}

#[test]
fn a_release_is_optimised_and_without_what_developers_need() {
    let release = |kind, files: &[&str]| builds(kind, directory(files).path(), Purpose::Release);
    assert!(release("rust", &["Cargo.toml"]).ends_with(" --release"));
    assert_eq!(
        release("go", &["go.mod", "main.go"]),
        "go build -trimpath -ldflags -s -w -o bin/.users.new ."
    );
    let there = directory(&["package-lock.json"]);
    let package = there.path().join("package.json");
    fs::write(&package, r#"{"devDependencies": {"x": "1"}}"#).unwrap();
    assert_eq!(builds("node", there.path(), Purpose::Release), "");
    fs::write(&package, r#"{"dependencies": {"x": "1"}}"#).unwrap();
    assert_eq!(
        builds("node", there.path(), Purpose::Release),
        "npm ci --no-audit --no-fund --omit=dev"
    );
}

#[test]
fn modules_are_installed_by_the_package_manager_of_the_lock_file() {
    let with = r#"{"dependencies": {"x": "1"}}"#;
    let named = r#"{"packageManager": "pnpm@9.1.0", "devDependencies": {"x": "1"}}"#;
    for (kind, package, lock, command) in [
        ("node", "{}", "", ""),
        ("node", with, "", "npm install"),
        ("node", named, "", "pnpm install"),
        ("bun", with, "", "bun install"),
        ("node", with, "package-lock.json", "npm ci"),
        ("node", with, "npm-shrinkwrap.json", "npm ci"),
        (
            "node",
            with,
            "pnpm-lock.yaml",
            "pnpm install --frozen-lockfile",
        ),
        ("node", with, "yarn.lock", "yarn install --frozen-lockfile"),
        ("node", with, "bun.lock", "bun install --frozen-lockfile"),
        ("bun", with, "bun.lockb", "bun install --frozen-lockfile"),
    ] {
        let there = directory(&["index.js"]);
        fs::write(there.path().join("package.json"), package).unwrap();
        if !lock.is_empty() {
            fs::write(there.path().join(lock), "{}").unwrap();
        }
        let builds = || builds(kind, there.path(), Purpose::Development);
        assert!(
            builds().starts_with(command) && builds().is_empty() == command.is_empty(),
            "{kind} {lock}: {}",
            builds()
        );
    }
}

#[test]
fn python_gets_an_environment_for_its_requirements_alone() {
    let there = directory(&["main.py"]);
    let builds = || builds("python", there.path(), Purpose::Development);
    let requires = |text| fs::write(there.path().join("requirements.txt"), text).unwrap();
    assert_eq!(builds(), "");
    requires("# none yet\n\n");
    assert_eq!(builds(), "");
    requires("flask\n");
    assert!(
        builds().starts_with("python3 -m venv .venv\n.venv/bin/python -m pip install "),
        "{}",
        builds()
    );
    fs::create_dir_all(there.path().join(".venv/bin")).unwrap();
    fs::write(there.path().join(".venv/bin/python"), "").unwrap();
    // An environment whose making was broken off.
    assert!(builds().starts_with("python3 -m venv .venv\n"));
    fs::write(there.path().join(".venv/bin/pip"), "").unwrap();
    assert!(builds().starts_with(".venv/bin/python -m pip install "));
}

#[test]
fn composer_installs_packages_when_the_lock_file_is_another() {
    let there = directory(&["index.php"]);
    let composer = there.path().join("composer.json");
    let builds = |purpose| builds("php", there.path(), purpose);
    assert_eq!(builds(Purpose::Development), "");
    fs::write(
        &composer,
        r#"{"require": {"php": ">=8.2", "ext-curl": "*"}}"#,
    )
    .unwrap();
    assert_eq!(builds(Purpose::Development), "");
    fs::write(&composer, r#"{"require-dev": {"a/b": "1"}}"#).unwrap();
    assert_eq!(
        builds(Purpose::Development),
        "composer install --no-interaction --no-progress"
    );
    assert_eq!(builds(Purpose::Release), "");
    fs::write(&composer, r#"{"require": {"a/b": "1"}}"#).unwrap();
    assert!(builds(Purpose::Release).ends_with("--no-dev --classmap-authoritative"));
    fs::write(there.path().join("composer.lock"), "{}").unwrap();
    let fetched = recipe(
        &settings("php", json!({})),
        there.path(),
        Purpose::Development,
    );
    let fetched = fetched.unwrap().fetched.unwrap();
    fetched.begin(there.path()).unwrap();
    assert!(builds(Purpose::Development).starts_with("composer install"));
    fetched.finish(there.path()).unwrap();
    assert_eq!(builds(Purpose::Development), "");
    fs::write(there.path().join("composer.lock"), "{ }").unwrap();
    assert!(builds(Purpose::Development).starts_with("composer install"));
}

#[test]
fn deno_fetches_what_its_configuration_names() {
    let there = directory(&["main.ts", "deno.json"]);
    let builds = |purpose| builds("deno", there.path(), purpose);
    assert_eq!(builds(Purpose::Development), "");
    let configuration = "{ \"imports\": { \"x\": \"npm:x@1\" } } // with a comment";
    fs::write(there.path().join("deno.json"), configuration).unwrap();
    assert_eq!(builds(Purpose::Development), "deno install");
    fs::write(there.path().join("deno.lock"), "{}").unwrap();
    assert_eq!(builds(Purpose::Development), "deno install");
    assert_eq!(
        builds(Purpose::Release),
        "deno install --node-modules-dir=auto --vendor=true --frozen"
    );
}

#[test]
fn what_bun_and_deno_run_is_found() {
    let there = directory(&["index.ts", "main.ts", "tools/bun*", "tools/deno*"]);
    let path = OsString::from(there.path().join("tools"));
    let tool = |name| tool(name, &path).unwrap();
    assert!(tool("bun").ends_with("tools/bun") && tool("deno").ends_with("tools/deno"));
    let entry = script_entry(there.path(), bun::ENTRIES).unwrap();
    assert_eq!(entry, there.path().join("index.ts"));
    let entry = first_file(there.path(), deno::ENTRIES).unwrap();
    assert_eq!(entry, there.path().join("main.ts"));
}

/// Builds as a child of this process.
async fn build_in(
    settings: &WorkerSettings,
    directory: &Path,
    target: &Path,
    deadline: Duration,
    abandoned: &CancellationToken,
) -> Result<Built, BuildError> {
    let order = Order {
        shared_target: target,
        deadline,
        purpose: Purpose::Development,
        runner: Runner::Child,
        listener: &|_| {},
        abandoned,
    };
    build(settings, directory, order).await
}

async fn sh(script: &str, deadline: Duration) -> Result<Built, BuildError> {
    let there = directory(&[]);
    let exec = settings("exec", json!({ "build": ["sh", "-c", script] }));
    let abandoned = CancellationToken::new();
    build_in(
        &exec,
        there.path(),
        Path::new("/nowhere"),
        deadline,
        &abandoned,
    )
    .await
}

#[tokio::test]
async fn the_lines_of_a_build_are_heard_while_it_runs() {
    let heard = Mutex::new(Vec::new());
    let there = directory(&[]);
    // It goes on when its line was heard, and not before.
    let script = "echo one; printf two; until test -e go; do sleep 0.01; done";
    let exec = settings("exec", json!({ "build": ["sh", "-c", script] }));
    let listener = |line: &str| {
        heard.lock().unwrap().push(line.to_owned());
        fs::write(there.path().join("go"), "").unwrap();
    };
    let order = Order {
        shared_target: Path::new("/nowhere"),
        deadline: MINUTE,
        purpose: Purpose::Development,
        runner: Runner::Child,
        listener: &listener,
        abandoned: &CancellationToken::new(),
    };
    build(&exec, there.path(), order).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), ["one"]);
}

#[tokio::test]
async fn a_build_runs_in_the_workers_directory() {
    let there = directory(&["source"]);
    let exec = settings("exec", json!({ "build": ["cp", "source", "made"] }));
    let abandoned = CancellationToken::new();
    let built = build_in(
        &exec,
        there.path(),
        Path::new("/nowhere"),
        MINUTE,
        &abandoned,
    )
    .await;
    assert_eq!(built.unwrap(), Built::Fresh);
    assert!(there.path().join("made").exists());
}

#[tokio::test]
async fn a_failed_build_says_whose_how_and_why() {
    let error = sh("echo one; echo two >&2; exit 3", MINUTE)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "build worker 'api.users' with `sh -c echo one; echo two >&2; exit 3`: exit code 3\n    one\n    two"
    );
    let error = sh("kill -9 $$", MINUTE).await.unwrap_err();
    assert!(error.to_string().contains(": signal 9 (KILL"), "{error}");
}

#[tokio::test]
async fn only_the_end_of_a_long_output_is_kept() {
    let error = sh("yes line | head -c 1000000; echo last; exit 1", MINUTE)
        .await
        .unwrap_err();
    assert!(error.output.len() <= OUTPUT_MAX);
    assert!(error.output.starts_with("line\n") && error.output.ends_with("last\n"));
}

/// A script that leaves two processes and their ids, in the file `ids`.
const FORKS: &str = "(sleep 1000 & echo $! >> ids; sleep 1000 & echo $! >> ids; ";

fn all_gone(ids: &Path) -> bool {
    let ids = fs::read_to_string(ids).unwrap();
    assert_eq!(ids.lines().count(), 2);
    // A killed process is seen until its new parent has reaped it; its state says that it is dead.
    ids.lines()
        .all(|id| match fs::read_to_string(format!("/proc/{id}/stat")) {
            Ok(stat) => stat
                .rsplit(')')
                .next()
                .unwrap()
                .trim_start()
                .starts_with(['Z', 'X']),
            Err(_) => true,
        })
}

async fn eventually(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(Instant::now() < end, "it did not come to that within 10 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_build_past_its_deadline_is_killed_with_its_children() {
    let there = directory(&[]);
    let script = format!("{FORKS} wait)");
    let exec = settings("exec", json!({ "build": ["sh", "-c", script] }));
    let (nowhere, abandoned) = (Path::new("/nowhere"), CancellationToken::new());
    let limit = Duration::from_secs(2);
    let error = build_in(&exec, there.path(), nowhere, limit, &abandoned).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.ends_with("still running after 2 s, killed"),
        "{error}"
    );
    eventually(|| all_gone(&there.path().join("ids"))).await;
}

#[tokio::test]
async fn a_build_that_is_given_up_is_killed_with_its_children() {
    let there = directory(&[]);
    let ids = there.path().join("ids");
    let script = format!("{FORKS} wait)");
    let exec = settings("exec", json!({ "build": ["sh", "-c", script] }));
    let started = || fs::read_to_string(&ids).is_ok_and(|ids| ids.lines().count() == 2);
    let (nowhere, abandoned) = (Path::new("/nowhere"), CancellationToken::new());
    let build = build_in(&exec, there.path(), nowhere, MINUTE, &abandoned);
    let give_up = async {
        eventually(started).await;
        abandoned.cancel();
    };
    let (built, ()) = tokio::join!(build, give_up);
    assert!(matches!(
        built.unwrap_err().failure,
        BuildFailure::Abandoned
    ));
    eventually(|| all_gone(&ids)).await;
}

#[tokio::test]
async fn a_build_ends_though_it_left_something_running() {
    let there = directory(&[]);
    let script = format!("{FORKS} true)");
    let exec = settings("exec", json!({ "build": ["sh", "-c", script] }));
    let (nowhere, abandoned) = (Path::new("/nowhere"), CancellationToken::new());
    let built = build_in(&exec, there.path(), nowhere, MINUTE, &abandoned);
    built.await.unwrap();
    eventually(|| all_gone(&there.path().join("ids"))).await;
}

#[tokio::test]
async fn cargo_puts_a_program_of_any_name_into_bin_and_leaves_it_alone_when_nothing_changed() {
    let there = directory(&["src/main.rs"]);
    let rust = settings("rust", json!({}));
    let target = tempfile::tempdir().unwrap();
    fs::write(there.path().join("src/main.rs"), "fn main() {}").unwrap();
    fs::write(
        there.path().join("Cargo.toml"),
        "[package]\nname = \"another-name\"\nedition = \"2024\"\n[workspace]\n",
    )
    .unwrap();
    let abandoned = CancellationToken::new();
    let builds = || build_in(&rust, there.path(), target.path(), MINUTE, &abandoned);
    assert_eq!(builds().await.unwrap(), Built::Fresh);
    assert_eq!(builds().await.unwrap(), Built::UpToDate);
    assert!(!there.path().join("bin/.users.new").exists());
    assert!(runs(&rust, there.path()).is_ok());

    fs::write(there.path().join("src/main.rs"), "fn main() { nonsense }").unwrap();
    let error = builds().await.unwrap_err();
    let said = crate::ansi::strip(&error.output);
    assert!(
        said.contains("error[E0425]: ") && said.contains("--> src/main.rs:1:13"),
        "{error}"
    );
    assert_ne!(said, error.output, "its colours are gone");
    assert!(
        runs(&rust, there.path()).is_ok(),
        "the program of the last build is still there"
    );
}
