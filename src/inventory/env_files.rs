//! Judges the files that `env_file` names by where they lie.

use std::path::Path;

use super::omitted::omitted;
use crate::config::{DocumentRoot, Problem, WorkerFile, WorkerSettings};

/// What is wrong with those of a worker in `directory`; `public` is where its `public/` leads if that is a symbolic link. What is in
/// them is read when a generation is made.
pub(super) fn problems(
    directory: &Path,
    public: Option<&Path>,
    file: &WorkerFile,
    settings: &WorkerSettings,
) -> Vec<Problem> {
    let place = || file.places.get("env_file").cloned().unwrap_or_default();
    let names = settings.env_files.iter();
    let refused = names.filter_map(|name| {
        let (why, help) = refused(directory, public, settings, name)?;
        let message = format!("'env_file' names {name}, {why}");
        Some(Problem::new(place(), message).help(help))
    });
    refused.collect()
}

/// Why the file `name` is none for variables, and what to do.
fn refused(
    directory: &Path,
    public: Option<&Path>,
    settings: &WorkerSettings,
    name: &str,
) -> Option<(String, &'static str)> {
    const ELSEWHERE: &str = "put the file elsewhere in the worker's directory, as in .env";
    let file = directory.join(name);
    if public.is_some_and(|public| file.starts_with(public)) {
        return Some(("and browsers can fetch what is there".to_owned(), ELSEWHERE));
    }
    match settings.document_root {
        Some(DocumentRoot::Src) if name.starts_with("src/") => {
            let why = "which is in the document root of its PHP scripts";
            return Some((why.to_owned(), ELSEWHERE));
        }
        // What is hidden is never sent, and there is no other place in the worker's directory.
        Some(DocumentRoot::Worker) if !name.split('/').any(|part| part.starts_with('.')) => {
            let why = "which is in the document root of its PHP scripts";
            let help = "begin its name with a dot, as in .env, or put the scripts into public/";
            return Some((why.to_owned(), help));
        }
        _ => {}
    }
    if let Some(part) = omitted(directory, settings.kind, Path::new(name)) {
        let why = format!("and no snapshot has {}", part.display());
        return Some((why, ELSEWHERE));
    }
    let is_missing = file.symlink_metadata().is_err();
    is_missing.then(|| {
        let help = "create it in the worker's directory, or remove its name";
        ("which was not found".to_owned(), help)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::*;
    use crate::config::{Mode, Settings};

    /// What is said of the only worker, `a`, with these files.
    fn said(files: &[(&str, &str)]) -> String {
        let project = tempfile::tempdir().unwrap();
        let worker = project.path().join("workers/a");
        for (name, text) in files {
            let path = worker.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match name.strip_suffix("->") {
                Some(link) => symlink(text, worker.join(link)).unwrap(),
                None => fs::write(path, text).unwrap(),
            }
        }
        let settings = Settings::defaults_at(project.path());
        let inventory = scan(&settings, Mode::Production).unwrap();
        let found = inventory.workers.into_values().next().expect("a worker");
        match found.status {
            Status::Refused(problems) => problems.to_string(),
            _ => String::new(),
        }
    }

    #[test]
    fn a_file_that_a_generation_would_not_find_is_told_where_it_is_named() {
        let config = "env_file:\n  - .env\n  - config/b.env\n";
        let worker = [("app.py", ""), ("config/worker.yaml", config), (".env", "")];
        let missing = said(&worker);
        assert!(missing.contains("worker.yaml:1:1"), "{missing}");
        assert!(
            missing.contains("config/b.env, which was not found"),
            "{missing}"
        );
        let [app, config, env] = worker;
        assert_eq!(said(&[app, config, env, ("config/b.env", "")]), "");
        let omitted = said(&[
            app,
            ("config/worker.yaml", "env_file: lib/.cache/x"),
            ("lib/.cache/x", ""),
        ]);
        assert!(omitted.contains("no snapshot has lib/.cache"), "{omitted}");
        let omitted = said(&[
            ("go.mod", ""),
            ("config/worker.yaml", "env_file: src/.env"),
            ("src/.env", ""),
        ]);
        assert!(omitted.contains("no snapshot has src"), "{omitted}");
    }

    #[test]
    fn a_file_that_browsers_could_fetch_is_refused() {
        let named = |name: &'static str| [("config/worker.yaml", name)];
        let linked = [("app.py", ""), ("dist/x.env", ""), ("public->", "dist")];
        let linked = said(&[&linked[..], &named("env_file: dist/x.env")].concat());
        assert!(linked.contains("browsers"), "{linked}");
        let php = |root: &'static str, named: &'static str, file: &'static str| {
            said(&[("config/worker.yaml", named), (root, ""), (file, "")])
        };
        for (root, name, file) in [
            ("src/index.php", "env_file: src/.env", "src/.env"),
            ("index.php", "env_file: prod.env", "prod.env"),
            ("index.php", "env_file: config/prod.env", "config/prod.env"),
        ] {
            let said = php(root, name, file);
            assert!(
                said.contains("document root") && said.contains("help:"),
                "{file}: {said}"
            );
        }
        // Nothing that is hidden is ever sent.
        assert_eq!(php("index.php", "env_file: .env", ".env"), "");
        assert_eq!(
            php("public/index.php", "env_file: prod.env", "prod.env"),
            ""
        );
        assert_eq!(php("src/index.php", "env_file: prod.env", "prod.env"), "");
    }

    #[test]
    fn a_change_of_one_is_a_change_of_the_program_though_git_ignores_it() {
        let project = tempfile::tempdir().unwrap();
        let worker = project.path().join("workers/a");
        fs::create_dir_all(worker.join("config")).unwrap();
        fs::create_dir(worker.join(".hidden")).unwrap();
        fs::write(worker.join(".gitignore"), ".env\nCargo.lock\n").unwrap();
        // What is built counts for nothing, these files do.
        fs::write(worker.join("Cargo.toml"), "").unwrap();
        let program = || {
            let settings = Settings::defaults_at(project.path());
            let inventory = scan(&settings, Mode::Development).unwrap();
            let found = inventory.workers.into_values().next().expect("a worker");
            assert!(found.settings().is_some(), "{:?}", found.status);
            found.fingerprint.program
        };
        let write = |name: &str, text: &str| fs::write(worker.join(name), text).unwrap();
        write(".env", "A=1");
        write(".hidden/.env", "A=1");
        let config = |text: &str| write("config/worker.yaml", text);
        config("");
        let unnamed = program();
        write(".env", "A=12");
        assert_eq!(program(), unnamed);
        config("env_file: [.env, .hidden/.env]");
        let mut before = program();
        for name in [".env", ".hidden/.env"] {
            write(name, "A=123");
            let after = program();
            assert_ne!(before, after, "{name}");
            before = after;
        }
    }
}
