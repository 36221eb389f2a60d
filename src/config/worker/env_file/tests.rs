use std::fs;
use std::os::unix::fs::symlink;

use super::super::bounds::LONGEST_VALUE;
use super::*;

fn parsed(text: &str) -> Vec<(String, String)> {
    parse(text.as_bytes()).unwrap_or_else(|wrong| panic!("{text:?}: {wrong:?}"))
}

fn value(text: &str) -> String {
    let parsed = parsed(&format!("A={text}"));
    assert_eq!(parsed.len(), 1, "{text:?}: {parsed:?}");
    assert_eq!(parsed[0].0, "A");
    parsed[0].1.clone()
}

/// The line it is refused for, and why.
fn refused(text: &[u8]) -> (usize, String) {
    let wrong = parse(text).expect_err(&String::from_utf8_lossy(text));
    (wrong.line, format!("{}; {}", wrong.what, wrong.help))
}

#[test]
fn comments_blank_lines_and_export_are_what_a_shell_takes_them_for() {
    let text = "\u{feff}# one\n\n  # two\nA=1\n\texport B=2\nexport\tC = 3 \nexported=4\r\nD=5";
    let expected = [
        ("A", "1"),
        ("B", "2"),
        ("C", "3"),
        ("exported", "4"),
        ("D", "5"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(parsed(text), expected);
    assert_eq!(parsed(""), []);
    assert_eq!(parsed("#"), []);
}

#[test]
fn a_plain_value_ends_with_its_line_or_before_a_comment() {
    for (text, expected) in [
        ("", ""),
        ("  ", ""),
        (" # nothing", ""),
        ("a", "a"),
        ("  a b \t", "a b"),
        ("a # b", "a"),
        ("a\t# b", "a"),
        ("a#b", "a#b"),
        ("#b", "#b"),
        ("postgres://u:p@h/d?x=1#y", "postgres://u:p@h/d?x=1#y"),
        ("it's \"so\"", "it's \"so\""),
        (r"C:\new", r"C:\new"),
        ("$HOME ${PORT} $$", "$HOME ${PORT} $$"),
        ("ä=ö", "ä=ö"),
    ] {
        assert_eq!(value(text), expected, "{text:?}");
    }
}

#[test]
fn single_quotes_keep_what_is_between_them() {
    for (text, expected) in [
        ("''", ""),
        (r"' a \n # $B '", r" a \n # $B "),
        ("'a\nB=2\n'", "a\nB=2\n"),
        ("'a\r\nb'", "a\nb"),
        ("'a' # b", "a"),
        ("'\"'", "\""),
    ] {
        assert_eq!(value(text), expected, "{text:?}");
    }
}

#[test]
fn double_quotes_know_a_few_escapes() {
    for (text, expected) in [
        ("\"\"", ""),
        (r#"" a # b ""#, " a # b "),
        (r#""a\nb\tc\"d\\e\$f\rg""#, "a\nb\tc\"d\\e$f\rg"),
        (r#""\d\'$A${B}""#, r"\d\'$A${B}"),
        ("\"a\nb\"  # c", "a\nb"),
        (r#""\\""#, "\\"),
    ] {
        assert_eq!(value(text), expected, "{text:?}");
    }
}

#[test]
fn what_follows_a_value_of_many_lines_is_read_as_ever() {
    let text = "KEY=\"-----BEGIN-----\nabc=\n-----END-----\"\nB=2\n";
    let parsed = parsed(text);
    assert_eq!(parsed[0].1, "-----BEGIN-----\nabc=\n-----END-----");
    assert_eq!(parsed[1], ("B".to_owned(), "2".to_owned()));
    assert_eq!(refused(b"KEY='a\nb'\nC").0, 3);
}

#[test]
fn what_is_no_assignment_is_told_by_its_line_and_never_shown() {
    for (text, line, part) in [
        (&b"A=1\nhunter2\n"[..], 2, "NAME=value"),
        (b"A=1\n\nhunter2: x", 3, "NAME=value"),
        (b"export hunter2", 1, "NAME=value"),
        (b"=hunter2", 1, "letters, digits and '_'"),
        (b"1hunter2=x", 1, "letters, digits and '_'"),
        (b"MIIE+hunter2/==", 1, "letters, digits and '_'"),
        (b"A.B=hunter2", 1, "letters, digits and '_'"),
        (b"A=1\nB='hunter2\nC=3\n", 2, "quote"),
        (b"A=\"hunter2\\\"", 1, "quote"),
        (b"A='x'hunter2", 1, "after the closing quote"),
        (b"A=\"x\" hunter2", 1, "after the closing quote"),
        (b"A=hunter2\0x", 1, "NUL"),
        (b"A=1\nB=hunter2\xff", 2, "UTF-8"),
        (b"PORT=31337", 1, "'PORT' is set by systemd or TQServer"),
        (b"A=1\nexport WORKER_NAME=hunter2", 2, "'WORKER_"),
        (b"GOMEMLIMIT=31337", 1, "the limit 'gomemlimit'"),
    ] {
        let (found, said) = refused(text);
        assert_eq!(found, line, "{said}");
        assert!(said.contains(part), "'{part}' is not in: {said}");
        assert!(
            !said.contains("hunter2") && !said.contains("31337"),
            "{said}"
        );
    }
    let long = format!("A=1\nB={}", "x".repeat(LONGEST_VALUE + 1));
    assert_eq!(refused(long.as_bytes()).0, 2);
    assert_eq!(value(&"x".repeat(LONGEST_VALUE)).len(), LONGEST_VALUE);
}

/// A directory of a worker.
struct Lying(tempfile::TempDir);

impl Lying {
    fn new(files: &[(&str, &str)]) -> Self {
        let lying = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            lying.write(name, text);
        }
        lying
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, names: &[&str]) -> Result<BTreeMap<String, String>, EnvFileError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        read(self.0.path(), &names)
    }

    fn refuses(&self, names: &[&str], parts: &[&str]) {
        let said = self.read(names).expect_err(&names.join(" ")).to_string();
        for part in parts {
            assert!(said.contains(part), "'{part}' is not in: {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_later_file_and_a_later_line_win() {
    let lying = Lying::new(&[(".env", "A=1\nB=1\nB=2\n"), ("config/more.env", "A=3\nC=4")]);
    let read = lying.read(&[".env", "config/more.env"]).unwrap();
    let expected = [("A", "3"), ("B", "2"), ("C", "4")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(read, expected.into());
    assert!(lying.read(&[]).unwrap().is_empty());
}

#[test]
fn an_error_names_the_file_and_the_line() {
    let lying = Lying::new(&[(".env", "A=1\n"), ("b.env", "# b\nhunter2\n")]);
    lying.refuses(
        &[".env", "b.env"],
        &["`env_file: b.env`", "line 2", "NAME=value"],
    );
    lying.refuses(&[".env", "c.env"], &["`env_file: c.env`", "not found"]);
}

#[test]
fn no_link_is_followed_and_nothing_is_waited_for() {
    let lying = Lying::new(&[("real/.env", "A=hunter2")]);
    let at = |name: &str| lying.0.path().join(name);
    symlink("real/.env", at("link.env")).unwrap();
    symlink("real", at("linked")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo.env"), fifo, mode, 0).unwrap();
    assert!(lying.read(&["real/.env"]).is_ok());
    lying.refuses(&["link.env"], &["`env_file: link.env`", "symbolic link"]);
    lying.refuses(&["linked/.env"], &["symbolic link"]);
    lying.refuses(&["fifo.env"], &["not a regular file"]);
    lying.refuses(&["real"], &["not a regular file"]);
    lying.refuses(&["real/.env/x"], &["`env_file: real/.env/x`"]);
}

#[test]
fn what_is_too_much_is_refused() {
    let lying = Lying::new(&[]);
    lying.write("large", &"#".repeat(64 << 10));
    assert!(lying.read(&["large"]).is_ok());
    lying.write("large", &"#".repeat((64 << 10) + 1));
    lying.refuses(&["large"], &["larger than 64KiB"]);
    let many = |from: usize, to: usize| (from..to).map(|n| format!("V{n}=1\n")).collect::<String>();
    lying.write("a", &many(0, 200));
    lying.write("b", &many(100, 256));
    assert_eq!(lying.read(&["a", "b"]).unwrap().len(), 256);
    lying.write("c", "V256=1");
    lying.refuses(
        &["a", "b", "c"],
        &["`env_file: c`", "more than 256 variables"],
    );
}
