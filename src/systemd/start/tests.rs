use super::*;

fn read(words: &[&str]) -> Result<Start, String> {
    let words = words.iter().map(OsString::from);
    Start::read(words).map_err(|error| error.to_string())
}

#[test]
fn what_a_unit_is_told_is_what_is_run() {
    let command: Vec<String> = ["/bin/sh", "", ";", "a $b", "two\nlines"]
        .map(str::to_owned)
        .into();
    let before = Before {
        close_netlink: true,
        secrets: [("DB_URL".to_owned(), "db-url".to_owned())].into(),
        one_off: true,
        terminal: true,
        links: vec![("/apart".into(), "/here".into())],
        fills: vec![("/from".into(), "/to me".into())],
    };
    let line = command_line(Path::new("/usr/bin/tqserver"), &before, &command);
    assert_eq!(
        line[..14],
        [
            "/usr/bin/tqserver",
            "start-worker",
            "1",
            "close-netlink",
            "look-up",
            "terminal",
            "link",
            "/apart",
            "/here",
            "fill",
            "/from",
            "/to~20me",
            "secret-env=DB_URL:db-url",
            "--"
        ]
    );
    let start = Start::read(line.iter().skip(2).map(OsString::from)).unwrap();
    assert_eq!(start.before, before);
    let words = start.command.iter().map(|word| word.to_str().unwrap());
    assert_eq!(words.collect::<Vec<_>>(), command);
}

#[test]
fn another_verb_is_not_ours() {
    for line in [&["tqserver"][..], &["tqserver", "dev"], &[]] {
        assert_eq!(run(line.iter().map(OsString::from)), None);
    }
}

#[test]
fn a_unit_of_another_version_is_told_what_to_type() {
    assert!(
        read(&["2", "--", "/bin/true"])
            .unwrap_err()
            .contains("`tqserver reload --force`")
    );
    for strange in [
        &["1"][..],
        &["1", "--"],
        &["1", "x", "--", "/bin/true"],
        &["1", "fill", "/a"],
        &["1", "secret-env=A", "--", "/bin/true"],
        &["1", "secret-env=A:../b", "--", "/bin/true"],
    ] {
        assert!(read(strange).is_err(), "{strange:?}");
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_named_with_what_helps() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let said = |path: PathBuf, error| StartError::Execute(path, error).to_string();
    let script = file("script", "#! /usr/bin/nodejs-99 --x\n");
    for (said, parts) in [
        (
            said(script, Errno::ENOENT),
            ["/script': ", "names '/usr/bin/nodejs-99'"],
        ),
        (
            said(file("elf", "\x7fELF"), Errno::ENOENT),
            ["/elf': ", "its loader is not there"],
        ),
        (
            said(PathBuf::from("/home/x/app"), Errno::ENOENT),
            ["'/home/x/app'", "install it below /usr"],
        ),
        (
            said(PathBuf::from("/home/x/app"), Errno::EACCES),
            ["'/home/x/app': Permission denied", "install it below /usr"],
        ),
        (
            said(file("mine", ""), Errno::EACCES),
            ["Permission denied", "/mine`, and see that"],
        ),
        (
            said(PathBuf::from("/srv/app"), Errno::ENOEXEC),
            ["'/srv/app'", "'#!/bin/sh'"],
        ),
    ] {
        for part in parts {
            assert!(said.contains(part), "'{part}' is not in: {said}");
        }
    }
}
