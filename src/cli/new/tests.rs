//! Names, refusals, and what is left; that the workers run is for `tests/blackbox/new.rs` and `packaging/acceptance/types`.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::types::File;

fn name(text: &str) -> WorkerName {
    worker_name(text).unwrap()
}

fn template(kind: &str) -> &'static Template {
    templates().find(|(name, _)| *name == kind).unwrap().1
}

fn tree(directory: &Path) -> BTreeSet<String> {
    let entries = walkdir::WalkDir::new(directory).min_depth(1);
    let paths = entries.into_iter().map(|entry| entry.unwrap().into_path());
    paths
        .map(|path| {
            let relative = path.strip_prefix(directory).unwrap();
            relative.to_string_lossy().into_owned()
        })
        .collect()
}

#[test]
fn a_name_is_taken_with_dots_and_as_a_path() {
    for text in ["api.users", "api/users", "api/users/"] {
        assert_eq!(name(text).as_str(), "api.users", "{text}");
    }
    for bad in [
        "", "/", "/api", "../api", "./api", "api/../b", "a b", "v1.2/x", "_x", "api/.git",
    ] {
        assert!(worker_name(bad).is_err(), "'{bad}' was accepted");
    }
}

#[test]
fn the_files_that_lie_there_are_those_that_are_written() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/types");
    for (kind, template) in templates() {
        let embedded: BTreeSet<String> = template
            .files
            .iter()
            .map(|file| file.source.to_owned())
            .collect();
        let mut lying = tree(&here.join(kind));
        lying.retain(|path| here.join(kind).join(path).is_file());
        let lying = lying
            .iter()
            .map(|path| format!("{}/{path}", kind))
            .collect();
        assert_eq!(embedded, lying, "{}", kind);
    }
    let directories = here.read_dir().unwrap().flatten();
    let directories = directories.filter(|entry| entry.path().is_dir());
    assert_eq!(directories.count(), templates().count());
}

#[test]
fn all_words_are_put_in_and_every_type_has_what_a_worker_needs() {
    for (kind, template) in templates() {
        let project = TempDir::new().unwrap();
        let workers = project.path().join("workers");
        let written = write(template, &name("api/My-users"), &workers).unwrap();
        let directory = workers.join("api/My-users");
        let mut all = String::new();
        for file in &written {
            let text = fs::read_to_string(file).unwrap();
            let words = text.split("{{").skip(1);
            let left = words.filter(|after| after.starts_with(char::is_alphabetic));
            assert_eq!(left.count(), 0, "{}", file.display());
            assert!(
                text.ends_with('\n') && !text.ends_with("\n\n"),
                "{}",
                file.display()
            );
            all += &text;
        }
        assert!(all.contains("Hello from api.My-users"), "{}", kind);
        assert!(all.contains("workers/api/My-users/"), "{}", kind);
        let yaml = fs::read_to_string(directory.join("config/worker.yaml")).unwrap();
        assert!(yaml.contains(&format!("type: {}\n", kind)), "{yaml}");
        assert!(yaml.contains("path: \"/api/My-users/health\""), "{yaml}");
        let readme = fs::read_to_string(directory.join("README.md")).unwrap();
        assert!(readme.contains("Its test: `"), "{readme}");
        assert_eq!(tree(&workers.join("api")).first().unwrap(), "My-users");
    }
}

#[test]
fn the_route_of_index_is_the_root() {
    let words = Words::of(&name("index"), "workers");
    assert_eq!(words.put_into("{{route}} {{health}}"), "/ /health");
}

#[test]
fn packages_have_names_that_cargo_and_npm_take() {
    let packages = |text: &str| {
        let words = Words::of(&name(text), "workers");
        words.put_into("{{crate}} {{binary}} {{package}}")
    };
    assert_eq!(packages("api.Users"), "api-users Users api-users");
    assert_eq!(packages("2048"), "worker-2048 worker-2048 2048");
    assert_eq!(packages("a.test"), "a-test worker-test a-test");
    assert_eq!(packages("tokio"), "worker-tokio worker-tokio tokio");
}

#[test]
fn every_crate_of_the_template_is_one_a_worker_is_not_called() {
    let manifest = template("rust").files.iter();
    let manifest = manifest.clone().find(|file| file.place == "Cargo.toml");
    let lines = manifest.unwrap().text.lines();
    let sections = lines.skip_while(|line| *line != "[dependencies]");
    let crates: Vec<&str> = sections
        .take_while(|line| !line.starts_with("[profile"))
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
        .collect();
    assert!(crates.len() >= 3, "{crates:?}");
    for one in crates {
        let words = Words::of(&name(one), "workers");
        assert_eq!(words.put_into("{{binary}}"), format!("worker-{one}"));
    }
}

#[test]
fn a_directory_that_is_not_empty_is_left_as_it_is() {
    let project = TempDir::new().unwrap();
    let workers = project.path().join("workers");
    fs::create_dir_all(workers.join("hello")).unwrap();
    fs::write(workers.join("hello/notes"), "mine").unwrap();
    let error = write(template("python"), &name("hello"), &workers).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error:#}");
    fs::write(workers.join("file"), "mine").unwrap();
    let error = write(template("python"), &name("file"), &workers).unwrap_err();
    assert!(
        error.to_string().contains("a file is in its place"),
        "{error:#}"
    );
    let left = tree(project.path());
    assert_eq!(
        left.iter().map(String::as_str).collect::<Vec<_>>(),
        [
            "workers",
            "workers/file",
            "workers/hello",
            "workers/hello/notes"
        ]
    );
}

#[test]
fn an_empty_directory_is_taken() {
    let project = TempDir::new().unwrap();
    fs::create_dir(project.path().join("hello")).unwrap();
    write(template("exec"), &name("hello"), project.path()).unwrap();
    assert!(project.path().join("hello/bin/hello").is_file());
}

#[test]
fn programs_are_executable_and_nothing_else_is() {
    let project = TempDir::new().unwrap();
    for file in write(template("exec"), &name("hello"), project.path()).unwrap() {
        let executable = fs::metadata(&file).unwrap().permissions().mode() & 0o100 != 0;
        assert_eq!(
            executable,
            file.ends_with("bin/hello"),
            "{}",
            file.display()
        );
    }
}

#[test]
fn where_no_worker_is_looked_for_none_is_written() {
    let project = TempDir::new().unwrap();
    let workers = project.path();
    write(template("python"), &name("api"), workers).unwrap();
    fs::create_dir(workers.join("elsewhere")).unwrap();
    symlink(workers.join("elsewhere"), workers.join("link")).unwrap();
    let before = tree(workers);
    for closed in [
        "api/src",
        "api/data/x",
        "target",
        "node_modules/x",
        "link",
        "link/x",
    ] {
        let error = write(template("python"), &name(closed), workers).unwrap_err();
        assert!(
            error.to_string().contains("no worker is looked for"),
            "{closed}: {error:#}"
        );
    }
    assert_eq!(tree(workers), before);
    // A name that means nothing where it stands.
    write(template("python"), &name("src"), workers).unwrap();
    write(template("python"), &name("api/users"), workers).unwrap();
}

#[test]
fn nothing_is_left_of_what_could_not_be_written() {
    let project = TempDir::new().unwrap();
    let workers = project.path().join("workers");
    let files = [
        &template("go").files[0],
        // It is there a second time, which a new file must not be.
        &template("go").files[0],
    ];
    let twice: Vec<File> = files.iter().map(|file| File { ..**file }).collect();
    let broken = Template {
        files: Vec::leak(twice),
        ..*template("go")
    };
    let error = write(&broken, &name("a/b/c"), &workers).unwrap_err();
    assert!(error.to_string().contains("write "), "{error:#}");
    assert_eq!(tree(project.path()), BTreeSet::new());
}

#[test]
fn who_was_quicker_keeps_the_place() {
    let project = TempDir::new().unwrap();
    let place = project.path().join("hello");
    let stage = Stage::beside(&place).unwrap();
    fs::create_dir(&place).unwrap();
    fs::write(place.join("notes"), "mine").unwrap();
    let error = stage.take(&place).unwrap_err();
    assert!(format!("{error:#}").contains("not empty"), "{error:#}");
    assert_eq!(tree(project.path()).len(), 2);
}
