//! A worker's output: where it goes, and its last lines when something went wrong.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::disk::{Disk, SMALL};
use crate::ansi;
use crate::calendar::date;
use crate::config::WorkerSettings;
use crate::names::{Instance, Pair};

/// How many lines explain a failure.
const LINES: usize = 10;
/// Among so many of its last ones: what went wrong can stand above a long stack.
const READ: usize = 200;
/// As much of a file as can hold them.
const TAIL: u64 = 64 << 10;
/// Longest wait for journalctl.
const JOURNALCTL: Duration = Duration::from_secs(5);
/// Where there is no journal a generation's output goes to a file that is emptied when it is longer than this.
const FILE_MAX: u64 = 16 << 20;

/// Where the output of workers goes that have no `log_file`.
#[derive(Clone, Debug)]
pub enum Journal {
    /// The machine's journal; `--user` units are asked for as such.
    Journald {
        /// Whether the units are a user manager's.
        user: bool,
    },
    /// Files in this directory: a private systemd has no journal.
    Files(PathBuf),
}

impl Journal {
    /// The file an instance's output goes to; `None`: the journal. `project` is where a relative `log_file` starts.
    pub fn output(
        &self,
        pair: &Pair,
        settings: &WorkerSettings,
        project: &Path,
    ) -> Option<PathBuf> {
        let template = &settings.limits.log_file;
        if !template.is_empty() {
            // systemd takes no path with "./" or "//" in it.
            let file = project.join(fill(template, settings, &pair.instance));
            return Some(file.components().collect());
        }
        match self {
            Self::Journald { .. } => None,
            Self::Files(directory) => Some(directory.join(pair.file_name("log"))),
        }
    }

    /// What an instance wrote last that explains its end.
    pub(super) async fn tail(
        &self,
        disk: &Disk,
        pair: &Pair,
        output: Option<PathBuf>,
    ) -> Vec<String> {
        match output {
            Some(file) => {
                let what = || format!("read {}", pair.service_unit());
                let read = disk.run(SMALL, what, move |_| tail_of(&file));
                // It explains a failure, and is not to be another.
                read.await.ok().and_then(Result::ok).unwrap_or_default()
            }
            None => self.ask(pair).await,
        }
    }

    async fn ask(&self, pair: &Pair) -> Vec<String> {
        let unit = match self {
            Self::Journald { user: true } => "--user-unit",
            _ => "--unit",
        };
        let mut journalctl = tokio::process::Command::new("journalctl");
        journalctl.arg(format!("{unit}={}", pair.service_unit()));
        journalctl.args([
            "--quiet",
            "--no-pager",
            "--output=cat",
            &format!("--lines={READ}"),
        ]);
        // systemd's own lines about the unit carry its word for the failure, which is known already.
        journalctl.arg(format!(
            "SYSLOG_IDENTIFIER=tqserver-{}",
            pair.instance.worker
        ));
        journalctl
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        match tokio::time::timeout(JOURNALCTL, journalctl.output()).await {
            Ok(Ok(output)) => explanation(&String::from_utf8_lossy(&output.stdout)),
            _ => Vec::new(),
        }
    }

    /// Forgets the output of an instance that is gone.
    pub(super) fn forget(&self, pair: &Pair) {
        if let Self::Files(directory) = self {
            let _ = fs::remove_file(directory.join(pair.file_name("log")));
        }
    }

    /// Whether there are such files.
    pub(super) fn is_trimmed(&self) -> bool {
        matches!(self, Self::Files(_))
    }

    /// Empties files that have grown too long. Workers append, so their next line stands at the beginning.
    pub(super) fn trim(&self) {
        let Self::Files(directory) = self else { return };
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.metadata().is_ok_and(|found| found.len() > FILE_MAX) {
                let _ = fs::OpenOptions::new()
                    .write(true)
                    .open(entry.path())
                    .and_then(|file| file.set_len(0));
            }
        }
    }
}

fn tail_of(file: &Path) -> std::io::Result<Vec<String>> {
    let mut file = fs::File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(explanation(&String::from_utf8_lossy(&bytes)))
}

/// The last lines, of a stack the first alone, with their colours and nothing else that a terminal would act on.
fn explanation(text: &str) -> Vec<String> {
    let mut lines: Vec<&str> = Vec::new();
    let mut in_stack = false;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let deeper = in_stack;
        in_stack = is_frame(line);
        if !(in_stack && deeper) {
            lines.push(line);
        }
    }
    lines[lines.len().saturating_sub(LINES)..]
        .iter()
        .map(|line| ansi::keep_colours(line))
        .collect()
}

/// Whether a line is one of a stack's: `    at f (a.js:1:2)` of JavaScript and Java, `\tfrom a.rb:1` of Ruby, `#1 a.php(2): f()` of PHP.
fn is_frame(line: &str) -> bool {
    let text = line.trim_start();
    let indented = text.len() < line.len();
    let numbered = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    (indented && (text.starts_with("at ") || text.starts_with("from ")))
        || text.strip_prefix('#').is_some_and(numbered)
}

/// A `log_file` template with its placeholders filled in; the date is the day the generation starts, in UTC.
fn fill(template: &str, settings: &WorkerSettings, instance: &Instance) -> String {
    let path = match settings.route.prefix() {
        "" => "index",
        prefix => prefix.trim_start_matches('/'),
    };
    let today = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
        / 86_400;
    let (year, month, day) = date(today);
    template
        .replace("{path}", path)
        .replace("{name}", instance.worker.as_str())
        .replace("{date}", &format!("{year:04}-{month:02}-{day:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_told_though_it_stands_above_a_stack() {
        let frames = |frame: &str| {
            (0..30)
                .map(|number| format!("{frame}{number}\n"))
                .collect::<String>()
        };
        for (text, told) in [
            (
                format!(
                    "node:internal/modules:1\n  throw err;\n  ^\n\nError: Cannot find module 'x'\n{}{}\n",
                    frames("    at Module._load (node:internal:"),
                    "  code: 'MODULE_NOT_FOUND'\n}\n\nNode.js v20"
                ),
                vec![
                    "node:internal/modules:1",
                    "  throw err;",
                    "  ^",
                    "Error: Cannot find module 'x'",
                    "    at Module._load (node:internal:0",
                    "  code: 'MODULE_NOT_FOUND'",
                    "}",
                    "Node.js v20",
                ],
            ),
            (
                format!(
                    "a.rb:1: cannot load such file -- x (LoadError)\n{}",
                    frames("\tfrom b.rb:")
                ),
                vec![
                    "a.rb:1: cannot load such file -- x (LoadError)",
                    "\tfrom b.rb:0",
                ],
            ),
        ] {
            assert_eq!(explanation(&text), told);
        }
    }

    #[test]
    fn only_the_last_lines_are_told_and_none_can_move_the_cursor() {
        let text: String = (0..20)
            .map(|number| format!("line {number}\u{1b}[2J\n"))
            .collect();
        let lines = explanation(&text);
        assert_eq!(lines.len(), LINES);
        assert!(
            lines[0].starts_with("line 10") && !lines[0].contains('\u{1b}'),
            "{:?}",
            lines[0]
        );
    }
}
