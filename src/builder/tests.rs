//! Builds, in directories of the tests' own, of programs that are everywhere.

use super::process::OUTPUT_MAX;
use super::*;
use serde_json::json;
use std::time::Instant;

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
        "bin/users is missing; build it with go build, or deploy it"
    );
    assert_eq!(
        says("python", json!({})),
        "no file to start from: one of main.py, app.py, src/main.py, src/app.py is needed, or a command: in config/worker.yaml"
    );
    assert!(says("exec", json!({"command": ["bin/x"]})).starts_with("bin/x is missing; "));
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
    let entry =
        || node_entry(there.path()).map(|path| text(path.strip_prefix(there.path()).unwrap()));
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
fn go_builds_what_is_there() {
    let go = settings("go", json!({}));
    let builds = |files: &[&str]| {
        build_command(&go, directory(files).path())
            .unwrap()
            .join(" ")
    };
    assert_eq!(
        builds(&["go.mod", "main.go"]),
        "go build -o bin/.users.new ."
    );
    assert_eq!(
        builds(&["go.mod", "src/main.go"]),
        "go build -o bin/.users.new ./src"
    );
    assert_eq!(
        builds(&["src/b.go", "src/a.go", "src/a_test.go"]),
        "go build -o bin/.users.new src/a.go src/b.go"
    );
    assert_eq!(
        builds(&["src/go.mod", "src/main.go"]),
        "go -C src build -o ../bin/.users.new ."
    );
}

#[test]
fn npm_runs_only_for_dependencies_that_are_not_installed() {
    let there = directory(&["package.json", "index.js"]);
    let node = settings("node", json!({}));
    let builds = || build_command(&node, there.path()).map(|words| words[..2].join(" "));
    assert_eq!(builds(), None);
    fs::write(
        there.path().join("package.json"),
        r#"{"dependencies": {"x": "1"}}"#,
    )
    .unwrap();
    assert_eq!(builds().as_deref(), Some("npm install"));
    fs::write(there.path().join("package-lock.json"), "{}").unwrap();
    assert_eq!(builds().as_deref(), Some("npm ci"));
    fs::create_dir(there.path().join("node_modules")).unwrap();
    touch(&there.path().join("node_modules")).unwrap();
    assert_eq!(builds(), None);
}

#[test]
fn a_python_worker_is_not_built() {
    assert_eq!(
        build_command(&settings("python", json!({})), Path::new("/")),
        None
    );
}

async fn sh(script: &str, deadline: Duration) -> Result<Built, BuildError> {
    let there = directory(&[]);
    let exec = settings("exec", json!({ "build": ["sh", "-c", script] }));
    build(&exec, there.path(), Path::new("/nowhere"), deadline).await
}

#[tokio::test]
async fn a_build_runs_in_the_workers_directory() {
    let there = directory(&["source"]);
    let exec = settings("exec", json!({ "build": ["cp", "source", "made"] }));
    let built = build(&exec, there.path(), Path::new("/nowhere"), MINUTE).await;
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
    assert!(error.to_string().ends_with("killed by signal 9"), "{error}");
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
    let error = build(
        &exec,
        there.path(),
        Path::new("/nowhere"),
        Duration::from_secs(2),
    )
    .await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.ends_with("still running after 2 s, killed"),
        "{error}"
    );
    eventually(|| all_gone(&there.path().join("ids"))).await;
}

#[tokio::test]
async fn a_build_that_is_dropped_is_killed_with_its_children() {
    let there = directory(&[]);
    let ids = there.path().join("ids");
    let script = format!("{FORKS} wait)");
    let exec = settings("exec", json!({ "build": ["sh", "-c", script] }));
    let started = || fs::read_to_string(&ids).is_ok_and(|ids| ids.lines().count() == 2);
    tokio::select! {
        built = build(&exec, there.path(), Path::new("/nowhere"), MINUTE) => panic!("{built:?}"),
        () = eventually(started) => {}
    }
    eventually(|| all_gone(&ids)).await;
}

#[tokio::test]
async fn a_build_ends_though_it_left_something_running() {
    let there = directory(&[]);
    let script = format!("{FORKS} true)");
    let exec = settings("exec", json!({ "build": ["sh", "-c", script] }));
    build(&exec, there.path(), Path::new("/nowhere"), MINUTE)
        .await
        .unwrap();
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
    let builds = || build(&rust, there.path(), target.path(), MINUTE);
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
