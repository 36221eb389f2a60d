//! Variables whose values are secrets: they are read inside the worker's sandbox, as its user, so that no unit has them.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest value in bytes; the kernel refuses to start a program with one of 128KiB or more.
const LONGEST: u64 = 64 << 10;
/// Where systemd, or we in its place, say that the worker's secrets are.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The environment `all`, in which each variable of `secrets` has the value of the secret that it names.
///
/// # Errors
/// A sentence, without anything that is in a secret.
pub(super) fn environment(
    all: impl Iterator<Item = (OsString, OsString)>,
    secrets: &BTreeMap<String, String>,
) -> Result<Vec<CString>, String> {
    let all: Vec<_> = all.collect();
    let directory = all.iter().find(|(name, _)| name == DIRECTORY);
    let directory = directory.map(|(_, directory)| Path::new(directory));
    let is_secret = |name: &OsStr| name.to_str().is_some_and(|name| secrets.contains_key(name));
    let others = all.iter().filter(|(name, _)| !is_secret(name));
    // What came by an environment has no NUL.
    let others = others.filter_map(|(name, value)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    });
    let mut environment: Vec<CString> = others.collect();
    for (variable, secret) in secrets {
        let Some(directory) = directory else {
            return Err(format!("{DIRECTORY} is not set: no secret was handed over"));
        };
        environment.push(entry(directory, variable, secret)?);
    }
    Ok(environment)
}

/// Reads the secret `name` in `directory` as the value of `variable`: an entry of an environment.
fn entry(directory: &Path, variable: &str, name: &str) -> Result<CString, String> {
    let refused = |why: String| {
        Err(format!(
            "cannot set {variable} to the credential '{name}': {why}"
        ))
    };
    let mut entry = format!("{variable}=").into_bytes();
    let before = entry.len();
    let file = File::open(directory.join(name));
    let read = file.and_then(|file| file.take(LONGEST + 2).read_to_end(&mut entry));
    if let Err(error) = read {
        return refused(error.to_string());
    }
    // As an editor or `echo` ends a file.
    if entry.ends_with(b"\n") {
        entry.pop();
    }
    if (entry.len() - before) as u64 > LONGEST {
        return refused(format!(
            "it is longer than {LONGEST} bytes; have the program read it as a file"
        ));
    }
    match CString::new(entry) {
        Ok(entry) => Ok(entry),
        Err(_) => refused(
            "it has a NUL, which no variable can hold; have the program read it as a file"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_secret_takes_the_place_of_a_variable_and_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("db"), "x\n").unwrap();
        let secrets = [("A".to_owned(), "db".to_owned())].into();
        let given = [
            ("A".into(), "old".into()),
            ("AB".into(), OsString::from_vec(b"\xff".to_vec())),
            (DIRECTORY.into(), directory.path().into()),
        ];
        let environment = environment(given.clone().into_iter(), &secrets).unwrap();
        let [ab, place, a] = &environment[..] else {
            panic!("{environment:?}");
        };
        assert_eq!(
            (ab.as_bytes(), a.as_bytes()),
            (&b"AB=\xff"[..], &b"A=x"[..])
        );
        assert!(place.as_bytes().starts_with(b"CREDENTIALS_DIRECTORY=/"));
        let without = given.into_iter().take(2);
        let said = super::environment(without, &secrets).unwrap_err();
        assert!(said.contains("CREDENTIALS_DIRECTORY is not set"), "{said}");
    }

    /// What becomes of a secret that lies there as `bytes`.
    fn read(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("db"), bytes).unwrap();
        entry(directory.path(), "A", "db").map(CString::into_bytes)
    }

    #[test]
    fn a_secret_is_what_lies_there_without_one_line_break_at_its_end() {
        for (bytes, expected) in [
            (&b"x"[..], &b"A=x"[..]),
            (b"x\n", b"A=x"),
            (b"x\n\n", b"A=x\n"),
            (b"-----BEGIN-----\nab=\n", b"A=-----BEGIN-----\nab="),
            (b" $HOME 'x' \xff", b"A= $HOME 'x' \xff"),
            (b"", b"A="),
        ] {
            assert_eq!(read(bytes).unwrap(), expected);
        }
    }

    #[test]
    fn what_no_program_can_be_handed_is_refused_and_not_shown() {
        for (bytes, part) in [
            (&b"hunter2\0"[..], "NUL"),
            (&[b'h'; (64 << 10) + 1], "longer than 65536 bytes"),
        ] {
            let said = read(bytes).unwrap_err();
            assert!(said.contains("'db'") && said.contains(part), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        let directory = tempfile::tempdir().unwrap();
        let said = entry(directory.path(), "A", "db").unwrap_err();
        assert!(
            said.contains("'db'") && said.contains("No such file"),
            "{said}"
        );
        assert_eq!(read(&[b'h'; 64 << 10]).unwrap().len(), 2 + (64 << 10));
    }
}
