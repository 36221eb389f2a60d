//! What others have written, and is fetched: when that is done, and when again.

use super::*;

/// An environment whose interpreter writes down what it is told, and waits for the file `go` before it ends as `status` says.
fn environment() -> tempfile::TempDir {
    let there = directory(&["main.py", ".venv/bin/pip*", ".venv/bin/python*"]);
    let python =
        "#!/bin/sh\necho \"$@\" >>ran\nuntil test -e go; do sleep 0.01; done\nexit $(cat status)\n";
    write(there.path(), ".venv/bin/python", python);
    write(there.path(), "requirements.txt", "flask\n");
    write(there.path(), "status", "0");
    there
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).unwrap();
}

/// What was run since the last time.
fn ran(directory: &Path) -> Vec<String> {
    let ran = fs::read_to_string(directory.join("ran")).unwrap_or_default();
    let _ = fs::remove_file(directory.join("ran"));
    ran.lines().map(str::to_owned).collect()
}

async fn build_python(
    directory: &Path,
    abandoned: &CancellationToken,
) -> Result<Built, BuildError> {
    let python = settings("python", json!({}));
    let nowhere = Path::new("/nowhere");
    // A test has many of them, and a small stack.
    Box::pin(build_in(&python, directory, nowhere, MINUTE, abandoned)).await
}

/// Builds to the end.
async fn built(directory: &Path) -> Built {
    write(directory, "go", "");
    build_python(directory, &CancellationToken::new())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_build_that_was_killed_has_fetched_nothing_and_all_is_fetched_anew() {
    let there = environment();
    let there = there.path();
    let abandoned = CancellationToken::new();
    let build = build_python(there, &abandoned);
    let give_up = async {
        eventually(|| there.join("ran").exists()).await;
        // What pip makes first makes the directory newer than what it was made of.
        write(there, ".venv/new", "");
        abandoned.cancel();
    };
    let (killed, ()) = tokio::join!(build, give_up);
    assert!(killed.is_err());
    ran(there);
    assert_eq!(built(there).await, Built::Fresh);
    let again = ran(there);
    // A package that lies there by half seems to be installed.
    assert!(again[0].contains(" --ignore-installed "), "{again:?}");
    assert_eq!(built(there).await, Built::Nothing);
}

#[tokio::test]
async fn what_is_fetched_goes_by_what_the_files_say_and_not_by_their_times() {
    let there = environment();
    let there = there.path();
    // Nobody knows of what it was made.
    assert_eq!(built(there).await, Built::Fresh);
    let first = ran(there);
    assert!(first[0].starts_with("-m pip install ") && !first[0].contains("ignore-installed"));
    let requirements = fs::File::options()
        .append(true)
        .open(there.join("requirements.txt"))
        .unwrap();
    let now = std::time::SystemTime::now();
    requirements.set_modified(now + MINUTE).unwrap();
    assert_eq!(built(there).await, Built::Nothing);
    // As git brings back what was there before.
    write(there, "requirements.txt", "flask==1\n-r more.txt\n");
    requirements.set_modified(now - MINUTE * 60).unwrap();
    assert_eq!(built(there).await, Built::Fresh);
    assert_eq!(built(there).await, Built::Nothing);
    write(there, "more.txt", "django\n");
    assert_eq!(built(there).await, Built::Fresh);
    assert_eq!(built(there).await, Built::Nothing);
    fs::remove_dir_all(there.join(".venv")).unwrap();
    assert_eq!(
        builds("python", there, Purpose::Development)
            .lines()
            .count(),
        2
    );
}

#[tokio::test]
async fn a_build_that_fails_by_itself_leaves_the_word_of_the_one_before() {
    let there = environment();
    let there = there.path();
    assert_eq!(built(there).await, Built::Fresh);
    write(there, "requirements.txt", "flask\nnosuch\n");
    write(there, "status", "1");
    write(there, "go", "");
    let failed = build_python(there, &CancellationToken::new()).await;
    assert!(failed.is_err());
    ran(there);
    write(there, "requirements.txt", "flask\n");
    write(there, "status", "0");
    assert_eq!(built(there).await, Built::Nothing);
    assert!(ran(there).is_empty());
}

#[tokio::test]
async fn an_environment_that_was_moved_is_told_where_it_is() {
    let there = environment();
    assert_eq!(built(there.path()).await, Built::Fresh);
    let moved = there.path().with_extension("moved");
    fs::rename(there.path(), &moved).unwrap();
    let steps = builds("python", &moved, Purpose::Development);
    fs::rename(&moved, there.path()).unwrap();
    let steps: Vec<&str> = steps.lines().collect();
    assert_eq!(steps[0], "python3 -m venv .venv");
    assert!(steps[1].contains(" --ignore-installed "), "{steps:?}");
    // Its interpreter went with the system's upgrade.
    let python = there.path().join(".venv/bin/python");
    fs::remove_file(&python).unwrap();
    std::os::unix::fs::symlink("/usr/bin/python3.1", &python).unwrap();
    let steps = builds("python", there.path(), Purpose::Development);
    assert!(
        steps.starts_with("python3 -m venv --clear .venv\n"),
        "{steps}"
    );
}

#[test]
fn what_a_release_is_made_of_is_fetched_for_it() {
    let there = directory(&["index.js", "package-lock.json"]);
    let there = there.path();
    write(
        there,
        "package.json",
        r#"{"scripts": {"x": "1"}, "dependencies": {"x": "1"}}"#,
    );
    let stamp = |purpose| {
        let recipe = recipe(&settings("node", json!({})), there, purpose).unwrap();
        let fetched = recipe.fetched.unwrap();
        fetched.begin(there).unwrap();
        fetched.finish(there).unwrap();
    };
    stamp(Purpose::Development);
    assert_eq!(builds("node", there, Purpose::Development), "");
    assert!(builds("node", there, Purpose::Release).ends_with(" --omit=dev"));
    // What has nothing to do with modules brings no others.
    write(
        there,
        "package.json",
        r#"{"scripts": {"x": "2"}, "dependencies": {"x": "1"}}"#,
    );
    assert_eq!(builds("node", there, Purpose::Development), "");
    write(there, "package.json", r#"{"dependencies": {"x": "2"}}"#);
    assert!(builds("node", there, Purpose::Development).starts_with("npm ci "));
}

#[test]
fn modules_that_were_fetched_by_half_go_first_and_those_nobody_knows_of_are_completed() {
    let there = directory(&["index.js", "package-lock.json"]);
    let there = there.path();
    write(there, "package.json", r#"{"dependencies": {"x": "1"}}"#);
    let builds = || builds("node", there, Purpose::Development);
    assert_eq!(builds(), "npm ci --no-audit --no-fund");
    // npm writes this one last.
    fs::create_dir(there.join("node_modules")).unwrap();
    write(there, "node_modules/.package-lock.json", "{}");
    assert_eq!(builds(), "npm install --no-save --no-audit --no-fund");
    let recipe = recipe(&settings("node", json!({})), there, Purpose::Development);
    recipe.unwrap().fetched.unwrap().begin(there).unwrap();
    assert_eq!(
        builds(),
        "find node_modules -mindepth 1 -delete\nnpm ci --no-audit --no-fund"
    );
}
