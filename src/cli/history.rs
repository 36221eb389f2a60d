//! `tqserver history`: what became of the generations of a worker, or of all, from the manager's messages in the journal, and which of
//! them can be rolled back to, from the manager.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::arguments::Common;
use super::client::{ANSWER, Client, plain};
use super::columns::columns;
use super::exit::{self, refused};
use super::journal::{self, Entries};
use super::say;
use crate::calendar::date;
use crate::config::printable;
use crate::messages;
use crate::names::WorkerName;

/// The events of a worker, and what each is called here.
const EVENTS: [(&str, &str); 8] = [
    (messages::GENERATION_ACCEPTED, "serves"),
    (messages::GENERATION_FAILED, "failed"),
    (messages::GENERATION_ENDED, "ended"),
    (messages::GENERATION_STOPPED, "stopped"),
    (messages::ASSETS_ACCEPTED, "assets"),
    (messages::WORKER_REMOVED, "removed"),
    (messages::WORKER_DOWN, "down"),
    (messages::HEALTH_FAILED, "unhealthy"),
];

/// As much as is kept of what journalctl says went wrong.
const COMPLAINT: u64 = 16 << 10;

const HEAD: [&str; 6] = ["TIME", "WORKER", "GENERATION", "EVENT", "CAUSE", "REASON"];

/// The generations that can be rolled back to, by worker, the newest first.
type Rollbacks = BTreeMap<String, Vec<u64>>;

#[derive(Debug, clap::Args)]
pub(super) struct History {
    /// Of this worker. Default: of all.
    #[arg(value_name = "WORKER", value_parser = WorkerName::parse)]
    worker: Option<WorkerName>,
    /// So many events, the last ones.
    #[arg(long = "lines", short = 'n', value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    number: u32,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// One event of a worker.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Event {
    /// When, in UTC.
    time: String,
    /// Of which worker.
    worker: Option<String>,
    /// Of which generation.
    generation: Option<u64>,
    /// What happened, in a word.
    event: &'static str,
    /// What it was made for: `start`, `reload`, `rollback`, `retry`, `replacement`.
    cause: Option<String>,
    /// The generation before it.
    from: Option<u64>,
    /// Why.
    reason: Option<String>,
    /// The manager's message.
    message: Option<String>,
    /// Whether the generation can be rolled back to; `None`: the manager did not say.
    can_roll_back: Option<bool>,
}

impl History {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let kind = journal::kind(common).await;
        let Some(entries) = Entries::of(kind) else {
            return Err(refused(
                exit::FAILED,
                "a history is read from the journal, and a private systemd has none",
                "see `tqserver status` for what is, or choose a systemd with --manager".to_owned(),
            ));
        };
        let mut events = self.read(entries)?;
        let rollbacks = match events.is_empty() {
            true => Ok(Rollbacks::new()),
            false => self.rollbacks(common).await,
        };
        if let Ok(rollbacks) = &rollbacks {
            mark(&mut events, rollbacks);
        }
        if self.json {
            let mut text = serde_json::to_string_pretty(&events)?;
            text.push('\n');
            say::print(text.as_bytes())?;
        } else if events.is_empty() {
            match &self.worker {
                Some(worker) => eprintln!("the journal has no events of a worker '{worker}'"),
                None => eprintln!("the journal has no events of workers"),
            }
        } else {
            say::print(table(&events).as_bytes())?;
            match rollbacks {
                Ok(rollbacks) => say::print(legend(&rollbacks).as_bytes())?,
                Err(error) if !common.quiet => {
                    let error = crate::manager::explain(error.as_ref());
                    eprintln!("which of them can be rolled back to is not known: {error}");
                }
                Err(_) => {}
            }
        }
        Ok(0)
    }

    /// What the manager says can be rolled back to.
    async fn rollbacks(&self, common: &Common) -> anyhow::Result<Rollbacks> {
        let client = Client::find(common).await?;
        let manager = client.manager().await?;
        let worker = self.worker.iter().map(ToString::to_string);
        let asked = manager.list_rollbacks(worker.collect());
        let answer = tokio::time::timeout(ANSWER, asked).await;
        let answer = answer.context("ask the manager")?.map_err(plain)?;
        Ok(answer.into_iter().collect())
    }

    /// The events, the newest last.
    fn read(&self, entries: Entries) -> anyhow::Result<Vec<Event>> {
        let mut command = Command::new("journalctl");
        command
            .args(["--output=json", "--no-pager"])
            .arg("--output-fields=MESSAGE,MESSAGE_ID,TQ_WORKER,TQ_GENERATION,TQ_CAUSE,TQ_FROM,TQ_REASON")
            .arg(format!("--lines={}", self.number))
            .args(entries.told_of(self.worker.as_ref(), EVENTS.map(|(id, _)| id)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("run journalctl")?;
        let complaints = child.stderr.take().map(|stderr| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let mut stderr = BufReader::new(stderr);
                let _ = stderr.by_ref().take(COMPLAINT).read_to_end(&mut text);
                let _ = std::io::copy(&mut stderr, &mut std::io::sink());
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        let events = events_of(&mut child);
        let ended = child.wait().context("wait for journalctl")?;
        let complaints = complaints.and_then(|thread| thread.join().ok());
        let mut complaints = complaints.unwrap_or_default();
        let events = events.context("read what journalctl prints")?;
        let anybody = !rustix::process::geteuid().is_root();
        if events.is_empty() && anybody && matches!(entries, Entries::System) {
            complaints += &hidden();
        }
        eprint!("{complaints}");
        if events.is_empty() && anybody && !complaints.is_empty() {
            let hint = "run it as root, or as a member of the group systemd-journal";
            let sentence = "the server's entries in the journal cannot be read";
            return Err(refused(exit::NOT_PERMITTED, sentence, hint.to_owned()));
        }
        // Without any journal file it fails and says so; without an entry that matches it does not.
        if !ended.success() {
            return Err(refused(exit::FAILED, format!("journalctl: {ended}"), None));
        }
        Ok(events)
    }
}

/// What journalctl says of entries this user may not see. With JSON it does not say it.
fn hidden() -> String {
    let mut command = Command::new("journalctl");
    command.args(["--lines=0", "--no-pager"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let stderr = command.output().map(|output| output.stderr);
    String::from_utf8_lossy(&stderr.unwrap_or_default()).into_owned()
}

/// One line, one entry; journalctl cuts what is long, so a line is bounded as their number is.
fn events_of(child: &mut Child) -> std::io::Result<Vec<Event>> {
    let Some(stdout) = child.stdout.take() else {
        return Ok(Vec::new());
    };
    let mut events = Vec::new();
    for line in BufReader::new(stdout).split(b'\n') {
        events.extend(event(&line?));
    }
    Ok(events)
}

/// The event of an entry as journalctl prints it; `None`: it is none.
fn event(line: &[u8]) -> Option<Event> {
    let entry: Value = serde_json::from_slice(line).ok()?;
    let id = field(&entry["MESSAGE_ID"])?;
    let (_, word) = EVENTS.iter().find(|(event, _)| *event == id)?;
    let number = |name: &str| field(&entry[name])?.parse::<u64>().ok();
    let microseconds = number("__REALTIME_TIMESTAMP").unwrap_or(0);
    Some(Event {
        time: utc(microseconds / 1_000_000),
        worker: field(&entry["TQ_WORKER"]),
        generation: number("TQ_GENERATION"),
        event: word,
        cause: field(&entry["TQ_CAUSE"]),
        // 0: there was none.
        from: number("TQ_FROM").filter(|from| *from != 0),
        reason: field(&entry["TQ_REASON"]),
        message: field(&entry["MESSAGE"]),
        can_roll_back: None,
    })
}

fn mark(events: &mut [Event], rollbacks: &Rollbacks) {
    for event in events {
        let kept = event.worker.as_ref().and_then(|name| rollbacks.get(name));
        let is_kept = |generation| kept.is_some_and(|kept| kept.contains(&generation));
        event.can_roll_back = Some(event.generation.is_some_and(is_kept));
    }
}

/// What the mark means, and all that is kept: it may be older than what the table shows.
fn legend(rollbacks: &Rollbacks) -> String {
    let mut text = String::new();
    for (worker, kept) in rollbacks.iter().filter(|(_, kept)| !kept.is_empty()) {
        let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
        let (worker, kept) = (printable(worker), kept.join(", "));
        text += &format!(
            "* {worker} can be rolled back to {kept}: `tqserver rollback {worker} GENERATION`\n"
        );
    }
    text
}

/// A field's text: a string, an array of bytes where it is no UTF-8 or has control characters, null where it is too long, an array
/// of those where the entry has it more than once (systemd's JOURNAL_EXPORT_FORMATS, "Journal JSON Format").
fn field(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => {
            let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
            match values.iter().map(byte).collect::<Option<Vec<u8>>>() {
                Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
                None => values.first().and_then(field),
            }
        }
        _ => None,
    }
}

fn table(events: &[Event]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(events.iter().map(row));
    columns(&rows)
}

fn row(event: &Event) -> [String; HEAD.len()] {
    let dash = || "-".to_owned();
    let reason = match (&event.reason, event.from) {
        (Some(reason), _) => printable(reason),
        (None, Some(from)) => format!("in place of generation {from}"),
        (None, None) => String::new(),
    };
    [
        event.time.replace('T', " "),
        event.worker.as_deref().map_or_else(dash, printable),
        match (event.generation, event.can_roll_back) {
            (Some(number), Some(true)) => format!("{number} *"),
            (Some(number), _) => number.to_string(),
            (None, _) => dash(),
        },
        event.event.to_owned(),
        event.cause.as_deref().map_or_else(dash, printable),
        reason,
    ]
}

/// So many seconds after 1970 as a date and a time in UTC (RFC 3339).
fn utc(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &str) -> Option<Event> {
        event(format!("{{\"__REALTIME_TIMESTAMP\":\"1795319893109926\",{fields}}}").as_bytes())
    }

    #[test]
    fn an_entry_of_the_journal_is_an_event() {
        let id = messages::GENERATION_ACCEPTED;
        let found = entry(&format!(
            r#""MESSAGE_ID":"{id}","TQ_WORKER":"api","TQ_GENERATION":"4","TQ_FROM":"3","TQ_CAUSE":"reload","MESSAGE":"m""#
        ));
        let found = found.unwrap();
        assert_eq!(found.time, "2026-11-22T03:58:13Z");
        assert_eq!(
            (found.generation, found.event, found.from),
            (Some(4), "serves", Some(3))
        );
        assert_eq!(
            row(&found)[1..],
            ["api", "4", "serves", "reload", "in place of generation 3"].map(str::to_owned)
        );
    }

    #[test]
    fn what_can_be_rolled_back_to_is_marked_for_each_worker() {
        let of = |worker: &str, generation: u64| {
            let id = messages::GENERATION_ACCEPTED;
            let fields = format!(
                r#""MESSAGE_ID":"{id}","TQ_WORKER":"{worker}","TQ_GENERATION":"{generation}""#
            );
            entry(&fields).unwrap()
        };
        let mut events = [of("api", 1), of("shop", 1), of("api", 3)];
        let kept = [("api", vec![1]), ("shop", vec![7, 2]), ("new", vec![])];
        let kept = kept.map(|(worker, kept)| (worker.to_owned(), kept)).into();
        let numbers = |events: &[Event]| events.iter().map(|one| row(one)[2].clone()).collect();
        let before: Vec<String> = numbers(&events);
        assert_eq!(before, ["1", "1", "3"], "nothing is known");
        mark(&mut events, &kept);
        let marked: Vec<String> = numbers(&events);
        assert_eq!(marked, ["1 *", "1", "3"]);
        assert_eq!(
            legend(&kept),
            "* api can be rolled back to 1: `tqserver rollback api GENERATION`\n\
             * shop can be rolled back to 7, 2: `tqserver rollback shop GENERATION`\n"
        );
    }

    #[test]
    fn fields_that_are_bytes_or_null_or_there_twice_are_read() {
        let id = messages::GENERATION_FAILED;
        let found = entry(&format!(
            r#""MESSAGE_ID":["{id}","other"],"TQ_GENERATION":null,"TQ_REASON":[104,105,255,27]"#
        ));
        let found = found.unwrap();
        assert_eq!(found.generation, None);
        assert_eq!(found.reason.as_deref(), Some("hi\u{fffd}\u{1b}"));
        let text = table(&[found]);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn what_is_no_event_is_passed_over() {
        for fields in [
            r#""MESSAGE":"m""#,
            r#""MESSAGE_ID":"0""#,
            r#""MESSAGE_ID":5"#,
        ] {
            assert_eq!(entry(fields), None);
        }
        assert_eq!(event(b""), None);
        assert_eq!(event(b"-- No entries --"), None);
    }

    #[test]
    fn dates_are_counted_through_leap_years() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }
}
