//! Claims about directories on disk.

use std::fs;

use super::*;

/// A repository with a directory of workers.
struct Yard {
    directory: tempfile::TempDir,
}

impl Yard {
    fn with(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let yard = Self { directory };
        fs::create_dir(yard.path(".git")).unwrap();
        for (file, text) in files {
            yard.write(file, text);
        }
        yard
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn worker(&self, ignore: &[&str]) -> Developed {
        let patterns = ignore.iter().map(|text| Pattern::parse(text).unwrap());
        Developed {
            directory: self.path("workers/a"),
            ignore: patterns.collect(),
            ..Developed::default()
        }
    }
}

/// Which of `paths` below the worker's directory count; those that end in '/' are directories. As who walks would find them: nothing
/// in an ignored directory does.
fn counting<'p>(worker: &Developed, paths: &[&'p str]) -> Vec<&'p str> {
    let rules = Rules::new(worker, &Rc::default());
    let counts = |path: &&&str| {
        let is_directory = path.ends_with('/');
        let path = worker.directory.join(path.trim_end_matches('/'));
        let around = path.ancestors().skip(1);
        let around = around.take_while(|around| *around != worker.directory);
        let mut around = around.collect::<Vec<_>>().into_iter().rev();
        !around.any(|around| rules.ignores(around, true)) && !rules.ignores(&path, is_directory)
    };
    paths.iter().filter(counts).copied().collect()
}

#[test]
fn what_editors_leave_does_not_count_and_what_looks_like_it_does() {
    let yard = Yard::with(&[]);
    let none: &[&str] = &[
        "app.py~",
        ".app.py.swp",
        ".app.py.swo",
        ".swp",
        ".env.swx",
        "src/4913",
        ".#app.py",
        "#app.py#",
        ".DS_Store",
        ".~lock.x.ods#",
        "x.py___jb_tmp___",
        ".git/",
        ".hg/",
        ".svn/x",
        ".idea/x.xml",
        "src/.cache/x",
        ".gitignore",
        "src/x.pyc",
        "src/__pycache__/x",
        "node_modules/x/index.js",
        "lib/node_modules/x",
        "data/x",
        "data/",
        "target/x",
        "public/4913",
        "public/.x.css.swp",
        "public/x.css~",
        "public/.git/x",
    ];
    assert_eq!(counting(&yard.worker(&[]), none), [""; 0]);
    let all: &[&str] = &[
        "app.py",
        "4914",
        "a~b",
        "#",
        "#a",
        "app.swp",
        ".env",
        ".swc.json",
        "x.tmp",
        "vendor/x.php",
        "dist/app.js",
        "build/x",
        "src/target/mod.rs",
        "src/data/x",
        "env/x.py",
        "lib/public/x",
        "bin/a",
        "config/worker.yaml",
        "public/",
        "public/x.css",
        "public/.well-known/x",
        "public/node_modules/x.js",
        "public/target/x",
    ];
    assert_eq!(counting(&yard.worker(&[]), all), all);
}

#[test]
fn a_directory_of_a_build_is_known_by_what_lies_beside_or_in_it() {
    let yard = Yard::with(&[
        ("workers/a/crate/Cargo.toml", ""),
        ("workers/a/crate/target/x", ""),
        ("workers/a/venv/pyvenv.cfg", ""),
    ]);
    let paths = ["crate/target/x", "venv/bin/python", "crate/src/target/x"];
    assert_eq!(counting(&yard.worker(&[]), &paths), paths[2..]);
}

#[test]
fn what_is_built_is_a_consequence() {
    let yard = Yard::with(&[]);
    let built = Developed {
        is_built: true,
        ..yard.worker(&[])
    };
    let paths = ["src/main.go", "lib/bin/x", "bin/a"];
    assert_eq!(counting(&built, &paths), paths[..2]);
    assert_eq!(counting(&yard.worker(&[]), &paths), paths);
}

#[test]
fn git_ignore_means_what_it_means_for_git() {
    let yard = Yard::with(&[
        (
            ".gitignore",
            "# a comment\n*.log\n/top\n/workers/a/anchored\nbuild/\nfrom-root\n",
        ),
        ("workers/.gitignore", "!from-root\r\n"),
        (
            "workers/a/.gitignore",
            "*.gen\n!kept.gen\n/own\nclosed/\n!closed/x\ntrailing   \n\\#x\n[\n",
        ),
        ("workers/a/src/.gitignore", "!*.log\ndeep\n"),
    ]);
    let paths = [
        "x.log",
        "src/x.log",
        "lib/src/y.log",
        "top",
        "anchored",
        "lib/anchored",
        "build/x",
        "src/build/",
        "build",
        "from-root",
        "x.gen",
        "kept.gen",
        "src/x.gen",
        "own",
        "lib/own",
        "closed/x",
        "trailing",
        "#x",
        "deep",
        "src/deep",
        "src/lib/deep",
    ];
    let counted = [
        "src/x.log",
        "top",
        "lib/anchored",
        "build",
        "from-root",
        "kept.gen",
        "lib/own",
        "deep",
    ];
    assert_eq!(counting(&yard.worker(&[]), &paths), counted);
}

/// Git itself, where it is there, is asked the same.
#[test]
fn git_says_the_same() {
    let lines = "*.log\n!keep.log\n/anchored\nbuild/\n**/any/x\nlib/**/end\nfoo/*\n!foo/bar\na?c\n[xyz]1\n\\!bang\nsp ace \ntail\\ \n";
    let yard = Yard::with(&[
        ("workers/a/.gitignore", lines),
        (".gitignore", "workers/a/up\n*.o\n"),
    ]);
    fs::remove_dir(yard.path(".git")).unwrap();
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        git.env("HOME", yard.directory.path())
            .env("GIT_CONFIG_NOSYSTEM", "1");
        git.current_dir(yard.directory.path())
            .args(arguments)
            .output()
    };
    let made = git(&["init", "--quiet"]);
    let made = made.expect("git is needed for this test (Debian: git)");
    assert!(made.status.success(), "{made:?}");
    let paths = [
        "x.log",
        "keep.log",
        "s/x.log",
        "s/keep.log",
        "anchored",
        "s/anchored",
        "build/x",
        "s/build/y",
        "any/x",
        "s/any/x",
        "lib/end",
        "lib/s/t/end",
        "foo/x",
        "foo/bar",
        "abc",
        "ac",
        "x1",
        "w1",
        "!bang",
        "sp ace",
        "tail ",
        "tail",
        "up",
        "s/up",
        "x.o",
        "s/x.o",
        "plain",
    ];
    for path in paths {
        yard.write(&format!("workers/a/{path}"), "");
    }
    let listed = git(&[
        "ls-files",
        "-z",
        "--others",
        "--exclude-standard",
        "workers/a",
    ])
    .unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names = listed
        .split('\0')
        .filter_map(|path| path.strip_prefix("workers/a/"));
    let mut known: Vec<&str> = names.filter(|name| *name != ".gitignore").collect();
    let mut counted = counting(&yard.worker(&[]), &paths);
    known.sort_unstable();
    counted.sort_unstable();
    assert_eq!(counted, known);
    assert!(counted.len() > 8 && counted.len() < paths.len());
}

#[test]
fn a_repository_ends_at_its_root_and_outside_of_one_only_the_workers_own_file_counts() {
    let yard = Yard::with(&[
        (".gitignore", "one\n"),
        ("workers/.gitignore", "two\n"),
        ("workers/a/.gitignore", "three\n"),
        ("workers/.git", "gitdir: elsewhere"),
    ]);
    let paths = ["one", "two", "three"];
    assert_eq!(counting(&yard.worker(&[]), &paths), ["one"]);
    assert_eq!(
        above(&yard.path("workers/a")),
        [yard.path("workers/.gitignore")]
    );
    fs::create_dir(yard.path("workers/a/.git")).unwrap();
    assert_eq!(counting(&yard.worker(&[]), &paths), ["one", "two"]);
    assert_eq!(above(&yard.path("workers/a")), Vec::<PathBuf>::new());
    fs::remove_dir(yard.path("workers/a/.git")).unwrap();
    fs::remove_file(yard.path("workers/.git")).unwrap();
    fs::remove_dir(yard.path(".git")).unwrap();
    assert_eq!(counting(&yard.worker(&[]), &paths), ["one", "two"]);
}

#[test]
fn a_worker_that_git_ignores_is_developed_all_the_same() {
    for line in ["/workers/a/", "workers", "/workers/**", "a"] {
        let yard = Yard::with(&[(".gitignore", line), ("workers/a/.gitignore", "own\n")]);
        assert_eq!(
            counting(&yard.worker(&[]), &["app.py", "own"]),
            ["app.py"],
            "{line}"
        );
    }
}

#[test]
fn git_hides_no_assets_no_configuration_and_no_program() {
    let yard = Yard::with(&[(
        "workers/a/.gitignore",
        "*.css\nbin/\nconfig/\npublic/\nbuild\n",
    )]);
    let worker = Developed {
        programs: vec!["bin/a".into(), "build/out/app".into()],
        ..yard.worker(&[])
    };
    let paths = [
        "public/x.css",
        "bin/a",
        "config/worker.yaml",
        "build/out/app",
        "x.css",
        "bin/b",
        "config/other",
        "build/y",
        "build/out/z",
        "build/out/deep/app",
    ];
    assert_eq!(counting(&worker, &paths), paths[..4]);
    let assets = Rules::new(&yard.worker(&["/public/x.css", "bin"]), &Rc::default());
    assert!(assets.ignores_asset(&yard.path("workers/a/public/x.css"), false));
    let worker = Developed {
        ignore: vec![Pattern::parse("bin").unwrap()],
        ..worker
    };
    assert_eq!(
        counting(&worker, &["bin/a", "build/out/app"]),
        ["build/out/app"]
    );
}

#[test]
fn a_linked_directory_of_assets_counts_where_it_lies() {
    let yard = Yard::with(&[("workers/a/.gitignore", "build\n")]);
    let worker = Developed {
        public: Some(yard.path("workers/a/build/site")),
        ..yard.worker(&["*.map"])
    };
    let paths = [
        "build/",
        "build/site/",
        "build/site/x.css",
        "build/site/sub/x",
        "build/x.o",
        "build/other/x",
        "build/site/x.map",
    ];
    assert_eq!(counting(&worker, &paths), paths[..4]);
}

#[test]
fn a_workers_own_word_goes_over_gits_and_over_what_is_known() {
    let yard = Yard::with(&[("workers/a/.gitignore", "/dist/\n*.bak\n")]);
    let worker = yard.worker(&[
        "!/dist/",
        "*.md",
        "!README.md",
        "/src/gen/",
        "!*.pyc",
        "!.cache/",
        "!data/",
    ]);
    let paths = [
        "dist/app.js",
        "README.md",
        "x.pyc",
        "x.bak",
        "src/x.md",
        "src/gen/x",
        ".cache/x",
        "data/x",
    ];
    assert_eq!(counting(&worker, &paths), paths[..3]);
}

#[test]
fn what_is_no_pattern_is_refused_with_what_to_write() {
    for (bad, expected) in [
        ("", PatternError::Empty),
        ("!", PatternError::Empty),
        ("/", PatternError::Empty),
        ("  ", PatternError::Empty),
        ("# note", PatternError::Comment),
        ("a\nb", PatternError::Control),
        ("../other/*.py", PatternError::Dots),
        ("./dist", PatternError::Dots),
        ("!a/../b", PatternError::Dots),
    ] {
        assert_eq!(Pattern::parse(bad), Err(expected), "{bad:?}");
    }
    assert_eq!(Pattern::parse(&"a".repeat(1025)), Err(PatternError::Long));
    for bad in ["a[", "{a,b", "[b-a]"] {
        let error = Pattern::parse(bad).unwrap_err();
        assert!(matches!(error, PatternError::Glob(_)), "{bad}: {error:?}");
        assert!(!error.help().is_empty());
    }
    for good in [
        "*.log", "!/dist/", "\\#x", "a/**/b", "..x", "a..b", "*.tmp ",
    ] {
        assert!(Pattern::parse(good).is_ok(), "{good}");
    }
}

#[test]
fn a_git_ignore_that_is_no_file_is_none_and_one_that_is_forgotten_is_read_anew() {
    let yard = Yard::with(&[("elsewhere", "x\n")]);
    let worker = yard.worker(&[]);
    fs::create_dir_all(yard.path("workers/a")).unwrap();
    let file = yard.path("workers/a/.gitignore");
    std::os::unix::fs::symlink(yard.path("elsewhere"), &file).unwrap();
    assert_eq!(counting(&worker, &["x"]), ["x"]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(counting(&worker, &["x"]), ["x"]);
    fs::remove_dir(&file).unwrap();
    let (fifo, mode) = (
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
    );
    rustix::fs::mknodat(rustix::fs::CWD, &file, fifo, mode, 0).unwrap();
    assert_eq!(counting(&worker, &["x"]), ["x"]);
    fs::remove_file(&file).unwrap();

    let git = Rc::new(GitFiles::default());
    let rules = Rules::new(&worker, &git);
    let x = worker.directory.join("x");
    assert!(!rules.ignores(&x, false));
    fs::write(&file, "\u{feff}x\n").unwrap();
    assert!(!rules.ignores(&x, false));
    git.forget(&worker.directory);
    assert!(rules.ignores(&x, false));
}

#[test]
fn what_a_build_fetches_counts_only_if_it_is_named() {
    let yard = Yard::with(&[]);
    let paths = ["vendor/a.php", "lib/vendor/b.php", "index.php"];
    let worker = |ignore: &[&str]| Developed {
        made: &["vendor"],
        ..yard.worker(ignore)
    };
    assert_eq!(counting(&worker(&[]), &paths), paths[1..]);
    assert_eq!(counting(&worker(&["!/vendor/"]), &paths), paths);
}

#[test]
fn what_programs_write_while_they_run_does_not_count_unless_it_is_named() {
    let yard = Yard::with(&[]);
    let written = [
        "db.sqlite3",
        "db.sqlite3-journal",
        "a/app.db-wal",
        "a/app.db-shm",
        "app.sqlite",
        "server.log",
        "server.log.1",
        "server.pid",
    ];
    let others = [
        "the-journal",
        "db.py",
        "log.txt",
        "a.log.py",
        "db.sqlite3/x",
        "public/a.db",
        "pid",
        "x-wal",
    ];
    assert_eq!(counting(&yard.worker(&[]), &written), [""; 0]);
    assert_eq!(counting(&yard.worker(&[]), &others), others);
    let named = yard.worker(&["!*.db"]);
    assert_eq!(counting(&named, &["app.db", "app.log"]), ["app.db"]);
    // A worker may be called like that.
    assert!(!is_left_out_between_workers("my.db".as_ref(), true));
}

#[test]
fn a_pattern_of_a_path_is_for_that_path_alone() {
    let yard = Yard::with(&[]);
    for (path, other) in [
        ("counter.txt", "a/counter.txt"),
        ("a/b.txt", "b.txt"),
        ("a*[b].txt", "axb.txt"),
        ("#x", "x"),
        ("!x", "x"),
        ("a b ", "a b"),
        ("a\\b", "ab"),
    ] {
        let worker = Developed {
            ignore: Pattern::of_path(path).into_iter().collect(),
            ..yard.worker(&[])
        };
        assert_eq!(counting(&worker, &[path, other]), [other], "{path}");
    }
    assert_eq!(Pattern::of_path("a\nb"), None);
}
