//! Where our own messages go: natively into the journal when systemd connected us to it, else to the terminal.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::sockopt;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::{ansi, terminal};

/// Longest wait for the journal to take a message, which is lost then: a journald that hangs must not take us along.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);

/// Sends all messages to the right place. To be called once, by the command line.
pub fn start(quiet: bool) {
    let level = if quiet {
        LevelFilter::WARN
    } else {
        LevelFilter::INFO
    };
    // What the libraries say to those who develop them is not for those who run us.
    let level = Targets::new().with_target(env!("CARGO_CRATE_NAME"), level);
    // Fields become TQ_WORKER= and so on, without a prefix.
    if libsystemd::logging::connected_to_journal()
        && let Ok(journal) = journal()
    {
        let journal = journal
            .with_field_prefix(None)
            .with_priority_mappings(PriorityMappings {
                info: Priority::Informational,
                debug: Priority::Debug,
                ..PriorityMappings::new()
            })
            .with_syslog_identifier("tqserver".to_owned());
        let _ = tracing_subscriber::registry()
            .with(level)
            .with(journal)
            .try_init();
        return;
    }
    let colour = terminal::takes_colours(&io::stderr());
    let terminal = tracing_subscriber::fmt::layer()
        .event_format(Line { colour })
        .with_writer(|| terminal::Stderr);
    let _ = tracing_subscriber::registry()
        .with(level)
        .with(terminal)
        .try_init();
}

/// The way into the journal, on which no message waits for long. The layer keeps its socket to itself: it is the descriptor that was not
/// there before.
fn journal() -> io::Result<tracing_journald::Layer> {
    let before = descriptors();
    let journal = tracing_journald::layer()?;
    for (socket, _) in descriptors().difference(&before) {
        #[allow(
            unsafe_code,
            reason = "the layer has it open, and one that is no socket refuses the option"
        )]
        let socket = unsafe { BorrowedFd::borrow_raw(*socket) };
        let _ = sockopt::set_socket_timeout(socket, sockopt::Timeout::Send, Some(SEND_TIMEOUT));
    }
    Ok(journal)
}

/// The open descriptors and what they are; the numbers alone are given again to others.
fn descriptors() -> BTreeSet<(RawFd, PathBuf)> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let known = entries.flatten().filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, std::fs::read_link(entry.path()).ok()?))
    });
    known.collect()
}

/// One message, one line, for people: the fields say nothing that the message does not.
struct Line {
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (word, colour) = match *event.metadata().level() {
            Level::ERROR => ("error: ", "\u{1b}[31m"),
            Level::WARN => ("warning: ", "\u{1b}[33m"),
            _ => ("", ""),
        };
        let mut message = Message(String::new());
        event.record(&mut message);
        // Whatever somebody else's words are in it.
        let text = ansi::keep_colours(&message.0);
        if self.colour && !colour.is_empty() {
            writeln!(writer, "{colour}{word}\u{1b}[0m{text}")
        } else {
            writeln!(writer, "{word}{text}")
        }
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
