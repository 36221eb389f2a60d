//! What workers write, shown in the terminal: each line behind its worker's name.

use std::io;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::ansi;
use crate::manager::Journal;
use crate::names::{Pair, WorkerName};
use crate::terminal;
use crate::watcher::Tails;

/// Colours that names are told apart by (ECMA-48, SGR); red is for what went wrong.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];
/// Names that are longer stand out to the right.
const WIDEST: usize = 20;

/// Where the lines come from.
pub(super) struct Output {
    source: Source,
    names: Names,
}

enum Source {
    /// Files, by a systemd without a journal.
    Files(Tails),
    /// journalctl, which follows the journal.
    Journal {
        lines: Lines<BufReader<ChildStdout>>,
        /// Killed when dropped.
        _journalctl: Box<Child>,
    },
    /// Nothing any more.
    Ended,
}

/// Names behind which lines have come, in the order in which they came.
struct Names {
    known: Vec<WorkerName>,
    coloured: bool,
}

/// A line of a worker.
#[derive(Debug)]
pub(super) struct Said {
    worker: WorkerName,
    text: String,
}

impl Output {
    /// Follows what workers write.
    ///
    /// # Errors
    /// When that can not be followed.
    pub(super) fn follow(journal: &Journal) -> io::Result<Self> {
        let source = match journal {
            Journal::Files(directory) => Source::Files(Tails::follow(directory.clone())?),
            Journal::Journald { user } => {
                let mut child = journalctl(*user).spawn()?;
                let stdout = child.stdout.take().expect("it is piped");
                Source::Journal {
                    lines: BufReader::new(stdout).lines(),
                    _journalctl: Box::new(child),
                }
            }
        };
        Ok(Self {
            source,
            names: Names {
                known: Vec::new(),
                coloured: terminal::takes_colours(&io::stdout()),
            },
        })
    }

    /// The next line of a worker. May be dropped and called again without losing one.
    pub(super) async fn next(&mut self) -> Said {
        loop {
            let said = match &mut self.source {
                Source::Files(tails) => tails.next().await.map(|line| {
                    let name = line.file.to_string_lossy().into_owned();
                    let (worker, _) = name.rsplit_once('@')?;
                    Some(Said {
                        worker: WorkerName::parse(worker).ok()?,
                        text: String::from_utf8_lossy(&line.bytes).into_owned(),
                    })
                }),
                Source::Journal { lines, .. } => match lines.next_line().await {
                    Ok(Some(line)) => Some(entry(&line)),
                    _ => None,
                },
                Source::Ended => std::future::pending().await,
            };
            match said {
                Some(Some(said)) => return said,
                Some(None) => {}
                None => {
                    tracing::warn!(
                        "what workers write is not shown any more; `tqserver logs -f` shows it"
                    );
                    self.source = Source::Ended;
                }
            }
        }
    }

    /// Prints it.
    pub(super) fn print(&mut self, said: &Said) {
        // Who closes our output does not want it.
        if terminal::print(&self.names.line(said)).is_err() {
            self.source = Source::Ended;
        }
    }
}

fn journalctl(user: bool) -> Command {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut command = Command::new("journalctl");
    if user {
        command.arg("--user");
    }
    command
        .args([
            "--follow",
            "--no-tail",
            "--output=json",
            "_TRANSPORT=stdout",
        ])
        // It takes a while to start, and the first workers do not wait for it.
        .arg(format!(
            "--since=@{}.{:06}",
            now.as_secs(),
            now.subsec_micros()
        ))
        .arg("--output-fields=MESSAGE,_SYSTEMD_UNIT,_SYSTEMD_USER_UNIT")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Ctrl-C is meant for us, and there is more to say until the end.
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// What a worker wrote, in an entry as journalctl prints it; which unit wrote it is journald's word and not the worker's.
fn entry(line: &str) -> Option<Said> {
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    let unit = |field: &str| Pair::from_unit(entry[field].as_str()?);
    let (pair, _) = unit("_SYSTEMD_USER_UNIT").or_else(|| unit("_SYSTEMD_UNIT"))?;
    let message = &entry["MESSAGE"];
    let text = match message.as_array() {
        // With bytes that are no text.
        Some(numbers) => {
            let bytes = numbers.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
            String::from_utf8_lossy(&bytes.collect::<Option<Vec<u8>>>()?).into_owned()
        }
        None => message.as_str()?.to_owned(),
    };
    Some(Said {
        worker: pair.instance.worker,
        text,
    })
}

impl Names {
    fn line(&mut self, said: &Said) -> String {
        let index = match self.known.iter().position(|name| *name == said.worker) {
            Some(index) => index,
            None => {
                self.known.push(said.worker.clone());
                self.known.len() - 1
            }
        };
        let widths = self.known.iter().map(|name| name.as_str().len());
        let width = widths.filter(|width| *width <= WIDEST).max().unwrap_or(0);
        let name = said.worker.as_str();
        if !self.coloured {
            return format!("{name:<width$} | {}", ansi::strip(&said.text));
        }
        let colour = COLOURS[index % COLOURS.len()];
        let text = ansi::keep_colours(&said.text);
        format!("\u{1b}[{colour}m{name:<width$} |\u{1b}[0m {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_workers_by_the_unit_that_journald_names() {
        let said = entry(r#"{"_SYSTEMD_UNIT":"tqserver-api.users@3.service","MESSAGE":"hello"}"#);
        let said = said.unwrap();
        assert_eq!((said.worker.as_str(), &*said.text), ("api.users", "hello"));
        let bytes = r#"{"_SYSTEMD_UNIT":"user@1.service","_SYSTEMD_USER_UNIT":"tqserver-a@1.service","MESSAGE":[104,105,255]}"#;
        assert_eq!(entry(bytes).unwrap().text, "hi\u{fffd}");
        for other in [
            r#"{"_SYSTEMD_UNIT":"ssh.service","MESSAGE":"hello"}"#,
            r#"{"_SYSTEMD_UNIT":"tqserver-proxy.service","MESSAGE":"hello"}"#,
            r#"{"TQ_WORKER":"a","MESSAGE":"hello"}"#,
            r#"{"_SYSTEMD_UNIT":"tqserver-a@1.service","MESSAGE":null}"#,
            "no entry",
        ] {
            assert!(entry(other).is_none(), "{other}");
        }
    }

    #[test]
    fn lines_stand_behind_the_names_of_their_workers_and_can_not_move_the_cursor() {
        let said = |worker: &str, text: &str| Said {
            worker: WorkerName::parse(worker).unwrap(),
            text: text.to_owned(),
        };
        let mut plain = Names {
            known: Vec::new(),
            coloured: false,
        };
        assert_eq!(plain.line(&said("api.users", "one")), "api.users | one");
        let line = plain.line(&said("a", "\u{1b}[31mtwo\u{1b}[2J"));
        assert_eq!(line, "a         | two");
        let mut coloured = Names {
            known: Vec::new(),
            coloured: true,
        };
        let line = coloured.line(&said("a", "\u{1b}[31mred\u{1b}[2J"));
        assert!(line.starts_with("\u{1b}[36ma |\u{1b}[0m "), "{line:?}");
        assert!(
            line.contains("[31mred") && !line.contains("[2J"),
            "{line:?}"
        );
        let other = coloured.line(&said("b", ""));
        assert!(other.starts_with("\u{1b}[33mb"), "{other:?}");
    }
}
