//! Cases, read from their files. The form is told in README.md.

use std::path::Path;

/// What is sent, and what must come of it.
#[derive(Debug, Default)]
pub(crate) struct Case {
    /// The file's stem and the case's own name.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// The lines that say what must come: their mark and their text.
    pub(crate) expected: Vec<(char, String)>,
}

/// All cases below a directory of `tests/smuggling/`.
pub(crate) fn read(directory: &str) -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/smuggling")
        .join(directory);
    let files = std::fs::read_dir(&directory).unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut cases: Vec<Case> = Vec::new();
    for file in files {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let Some((mark, text)) = line
                .split_once(' ')
                .or((!line.is_empty()).then_some((line, "")))
            else {
                continue;
            };
            if mark == "==" {
                cases.push(Case {
                    name: format!("{stem}/{text}"),
                    ..Case::default()
                });
                continue;
            }
            let bad = || panic!("{}: {line:?} is no line of a case", file.display());
            let Some(case) = cases.last_mut().filter(|_| mark != "#") else {
                continue;
            };
            match mark {
                ">" => {
                    case.bytes.extend(unescape(text));
                    case.bytes.extend(b"\r\n");
                }
                ">>" => case.bytes.extend(unescape(text)),
                "<" | "=" | "+" | "-" | "?" | "~" => {
                    let mark = mark.chars().next().unwrap();
                    case.expected.push((mark, text.to_owned()));
                }
                _ => bad(),
            }
        }
    }
    let mut names: Vec<_> = cases.iter().map(|case| case.name.clone()).collect();
    names.sort();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "two cases have one name");
    cases
}

/// Makes bytes of a line: `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH`, and `\{N*TEXT}`, which is TEXT N times.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend(before.as_bytes());
        let mut used = 1;
        match after.as_bytes()[0] {
            b'r' => bytes.push(b'\r'),
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'0' => bytes.push(0),
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                bytes.push(u8::from_str_radix(&after[1..3], 16).unwrap());
                used = 3;
            }
            b'{' => {
                let (repeated, _) = after[1..].split_once('}').unwrap();
                let (count, piece) = repeated.split_once('*').unwrap();
                bytes.extend(unescape(piece).repeat(count.parse().unwrap()));
                used = repeated.len() + 2;
            }
            other => panic!("{text:?}: \\{} is no escape", char::from(other)),
        }
        rest = &after[used..];
    }
    bytes.extend(rest.as_bytes());
    bytes
}

/// Bytes as a line that can be read.
pub(crate) fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
