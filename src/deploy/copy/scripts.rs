//! Scripts of a Python environment, which name its interpreter by the path at which the environment was made. In a copy they name the
//! one beside them, wherever that lies.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::{Errno, pread, retry_on_intr};

use super::links::SYSTEM_PROGRAMS;

/// What makes a directory an environment, from its `bin/` on.
pub(super) const MARK: &str = "../pyvenv.cfg";
/// The directory of its programs.
pub(super) const PROGRAMS: &str = "bin";
/// Larger ones are no script that pip has written.
const MOST: u64 = 1 << 20;
/// How a script starts its interpreter by way of a shell, as pip writes it where a path is long or has spaces. To Python the second and
/// third line are a text.
const SHELL: &str = "#!/bin/sh\n";
const EXEC: &str = "'''exec' ";
const ARGUMENTS: &str = " \"$0\" \"$@\"\n";
const END: &str = "' '''\n";
/// The directory a script is in, links to it followed.
const BESIDE: &str = "\"$(dirname -- \"$(realpath -- \"$0\")\")\"/";

/// What the copy of `script`, a file of `size` bytes among the programs of an environment, has in it; `None`: the same. `is_beside` says
/// whether there is a program of this name in the same directory.
pub(super) fn relocated(
    script: &OwnedFd,
    size: u64,
    is_beside: impl Fn(&str) -> bool,
) -> Result<Option<Vec<u8>>, Errno> {
    if size > MOST || read(script, SHELL.len())?.get(..2) != Some(b"#!") {
        return Ok(None);
    }
    let text = read(script, usize::try_from(size).unwrap_or(0))?;
    Ok(rewritten(&text, is_beside))
}

fn read(script: &OwnedFd, most: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; most];
    let mut filled = 0;
    while filled < most {
        let at = filled as u64;
        match retry_on_intr(|| pread(script, &mut bytes[filled..], at))? {
            0 => break,
            more => filled += more,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn rewritten(text: &[u8], is_beside: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let (line, rest) = match text.strip_prefix(SHELL.as_bytes()) {
        Some(after) => {
            let after = after.strip_prefix(EXEC.as_bytes())?;
            let (line, rest) = line(after)?;
            let line = line.strip_suffix(ARGUMENTS)?;
            (line, rest.strip_prefix(END.as_bytes())?)
        }
        None => line(text.strip_prefix(b"#!")?)?,
    };
    let (interpreter, options) = parted(line.trim())?;
    let interpreter = Path::new(interpreter);
    let name = interpreter.file_name()?.to_str()?;
    let directory = interpreter.parent()?;
    let is_system = SYSTEM_PROGRAMS
        .iter()
        .any(|programs| directory == Path::new(programs));
    let is_python = name.starts_with("python") || name.starts_with("pypy");
    if !interpreter.is_absolute() || !directory.ends_with(PROGRAMS) || is_system || !is_python {
        return None;
    }
    // Links for each version are not always there.
    let mut names = [name, "python"].into_iter();
    let name = names.find(|name| is_plain(name) && is_beside(name))?;
    let options: String = options
        .split_whitespace()
        .map(|word| format!(" {word}"))
        .collect();
    if !is_plain(&options.replace(' ', "")) {
        return None;
    }
    let head = format!("{SHELL}{EXEC}{BESIDE}{name}{options}{ARGUMENTS}{END}");
    Some([head.as_bytes(), rest].concat())
}

/// The first line, its end included, and what follows.
fn line(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = text.iter().position(|byte| *byte == b'\n')? + 1;
    let (line, rest) = text.split_at(end);
    Some((std::str::from_utf8(line).ok()?, rest))
}

/// A program, in quotes or not, and its options.
fn parted(line: &str) -> Option<(&str, &str)> {
    let Some(quote) = line
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''))
    else {
        return Some(line.split_once([' ', '\t']).unwrap_or((line, "")));
    };
    line[1..].split_once(quote)
}

/// Whether a shell takes it as it is written.
fn is_plain(word: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.=:/".contains(c);
    word.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Option<String> {
        let text = rewritten(text.as_bytes(), |name| name.starts_with("python"))?;
        String::from_utf8(text).ok()
    }

    #[test]
    fn a_script_names_the_interpreter_beside_it() {
        let beside = |options: &str| {
            format!(
                "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/{options} \"$0\" \"$@\"\n' '''\nx\n"
            )
        };
        for (text, program) in [
            ("#!/w/.venv/bin/python\nx\n", "python"),
            (
                "#! /w/.venv/bin/python3 -I -X  utf8\nx\n",
                "python3 -I -X utf8",
            ),
            ("#!/w/.venv/bin/pypy3\nx\n", "python"),
            (
                "#!/bin/sh\n'''exec' '/a b/bin/python3' -E \"$0\" \"$@\"\n' '''\nx\n",
                "python3 -E",
            ),
        ] {
            assert_eq!(head(text), Some(beside(program)), "{text}");
        }
    }

    #[test]
    fn what_is_no_script_of_an_environment_stays_as_it_is() {
        for text in [
            "",
            "#!",
            "#!\n",
            "#!/w/.venv/bin/python",
            "#!/usr/bin/python3\nx\n",
            "#!/usr/bin/env python3\nx\n",
            "#!python\nx\n",
            "#!/w/.venv/bin/ruby\nx\n",
            "#!/w/.venv/python\nx\n",
            "#!/w/bin/python $(id)\nx\n",
            "#!/bin/sh\necho x\n",
            "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/python \"$0\" \"$@\"\n' '''\n",
            "#!/bin/sh\n'''exec' \"/w/bin/python\" \"$0\" \"$@\"\nx\n",
            "#!/bin/sh\n'''exec' \"/w/bin/python \"$0\" \"$@\"\n' '''\n",
        ] {
            assert_eq!(head(text), None, "{text}");
        }
        assert_eq!(rewritten(b"#!/w/bin/pyth\xffon\nx\n", |_| true), None);
        assert_eq!(rewritten(b"#!/w/bin/python\nx\n", |_| false), None);
    }
}
