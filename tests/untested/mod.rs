//! What tests could not test here, since something is missing that nobody needs to build or run a server: noted by each of them, and told by
//! `what_was_not_tested` at the end of `cargo test`.
//!
//! Which of the notes are of this run follows from who runs the tests: all of their programs are children of one `cargo test`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// Set in a run that is to test everything.
const ALL: &str = "TQ_TEST_ALL";

/// Notes that the present test is left out, because of `missing`; `how`: what helps. Fails if everything is to be tested.
#[allow(dead_code, reason = "the summary leaves out nothing itself")]
#[track_caller]
pub(crate) fn not_tested(missing: &str, how: &str) {
    assert!(
        std::env::var_os(ALL).is_none(),
        "{ALL} is set, and {missing}: {how}"
    );
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let note = format!("{}\t{test}\t{missing}: {how}\n", run());
    let noted = OpenOptions::new().create(true).append(true).open(file());
    // One call: several programs may write at a time.
    let written = noted.and_then(|mut file| file.write_all(note.as_bytes()));
    // Not by a macro: what those print is not shown of a test that passes.
    if let Err(error) = written {
        let _ = writeln!(
            std::io::stderr(),
            "NOT TESTED: {test}: {missing}: {how} ({error})"
        );
    }
}

/// What was left out in this run, and why, in a few lines; none: nothing was. The notes are gone then.
#[allow(dead_code, reason = "only the summary tells")]
pub(crate) fn told() -> Vec<String> {
    let notes = fs::read_to_string(file()).unwrap_or_default();
    let _ = fs::remove_file(file());
    told_of(&notes, &run())
}

/// The notes of one run, those with the same reason in one line.
fn told_of(notes: &str, run: &str) -> Vec<String> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for note in notes.lines() {
        let mut parts = note.splitn(3, '\t');
        let (Some(of), Some(test), Some(reason)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        if of != run {
            continue;
        }
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, tests)) => tests.push(test),
            None => reasons.push((reason, vec![test])),
        }
    }
    let told = reasons.into_iter().map(|(reason, mut tests)| {
        tests.sort_unstable();
        tests.dedup();
        let few = match tests.len() {
            1..=3 => tests.join(", "),
            many => format!("{many} tests, {} among them", tests[0]),
        };
        format!("{reason} ({few})")
    });
    told.collect()
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("not-tested")
}

/// Who runs the tests: a process, and when it was started, since numbers come again (proc_pid_stat(5)).
fn run() -> String {
    let parent = std::os::unix::process::parent_id();
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let started = fields.split(' ').nth(19).unwrap_or_default();
    format!("{parent}.{started}")
}

#[cfg(test)]
mod tests {
    #[allow(unused_imports, reason = "without the harness there are no tests")]
    use super::*;

    #[test]
    fn what_is_told_is_of_this_run_and_short() {
        let notes = "1.2\tb\tno php: apt install php\n1.2\ta\tno php: apt install php\n9.9\tc\tno php: apt install php\n\
                     1.2\td\tno root: run it as root\nnonsense\n";
        assert_eq!(
            told_of(notes, "1.2"),
            [
                "no php: apt install php (a, b)",
                "no root: run it as root (d)"
            ]
        );
        assert_eq!(told_of("", "1.2"), [""; 0]);
        let many: String = ["a", "b", "c", "d"]
            .map(|test| format!("1.2\t{test}\tr\n"))
            .concat();
        assert_eq!(told_of(&many, "1.2"), ["r (4 tests, a among them)"]);
    }
}
