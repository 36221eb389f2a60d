//! Where our own messages go: natively into the journal when systemd connected us to it, else to the terminal.

use std::fmt;
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Sends all messages to the right place. To be called once, by the command line.
pub fn start(quiet: bool) {
    let level = if quiet {
        LevelFilter::WARN
    } else {
        LevelFilter::INFO
    };
    // Fields become TQ_WORKER= and so on, without a prefix.
    if libsystemd::logging::connected_to_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        let journal = journal
            .with_field_prefix(None)
            .with_syslog_identifier("tqserver".to_owned());
        let _ = tracing_subscriber::registry()
            .with(level)
            .with(journal)
            .try_init();
        return;
    }
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let terminal = tracing_subscriber::fmt::layer()
        .event_format(Line { colour })
        .with_writer(std::io::stderr);
    let _ = tracing_subscriber::registry()
        .with(level)
        .with(terminal)
        .try_init();
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
        if self.colour && !colour.is_empty() {
            writeln!(writer, "{colour}{word}\u{1b}[0m{}", message.0)
        } else {
            writeln!(writer, "{word}{}", message.0)
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
