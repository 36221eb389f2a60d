//! One line of a unit, once as text and once as the bus takes it, and how lines become either.

use std::fmt::Write as _;
use std::time::Duration;

use zbus::Variant;

/// One line of a unit file, and the same as a D-Bus property. Their names and units differ here and there.
pub(super) struct Directive {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    pub(super) text: String,
    pub(super) property: &'static str,
    pub(super) value: Variant<'static>,
}

pub(super) fn directive(
    section: &'static str,
    key: &'static str,
    text: impl Into<String>,
    value: impl Into<Variant<'static>>,
) -> Directive {
    Directive {
        section,
        key,
        text: text.into(),
        property: key,
        value: value.into(),
    }
}

/// A line of `[Service]` whose words are a list of strings on the bus.
pub(super) fn words(key: &'static str, words: Vec<String>) -> Directive {
    let text: Vec<_> = words.iter().map(|word| quote(word)).collect();
    directive("Service", key, text.join(" "), words)
}

/// A line of `[Service]` that is on or off.
pub(super) fn switch(key: &'static str, on: bool) -> Directive {
    directive("Service", key, if on { "yes" } else { "no" }, on)
}

/// A time span: `KeySec=` in a file, `KeyUSec` in microseconds on the bus.
pub(super) fn span(
    section: &'static str,
    key: &'static str,
    property: &'static str,
    span: Duration,
) -> Directive {
    let usec = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    Directive {
        section,
        key,
        text: format!("{}ms", span.as_millis()),
        property,
        value: usec.into(),
    }
}

/// Properties as the bus takes them.
pub(in crate::systemd) type Properties = Vec<(&'static str, Variant<'static>)>;

pub(super) fn properties(lines: Vec<Directive>) -> Properties {
    lines
        .into_iter()
        .map(|line| (line.property, line.value))
        .collect()
}

pub(super) fn render(text: &mut String, unit: &str, lines: Vec<Directive>) {
    let _ = writeln!(text, "# {unit}");
    let mut section = "";
    for line in lines {
        if line.section != section {
            let _ = writeln!(text, "[{}]", line.section);
            section = line.section;
        }
        let _ = writeln!(text, "{}={}", line.key, line.text);
    }
}

/// Control characters as escapes: a line break would end a line.
fn in_a_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control if control.is_control() => {
                // Of more than one byte are those behind ASCII.
                for byte in control.to_string().bytes() {
                    let _ = write!(line, "\\x{byte:02x}");
                }
            }
            other => line.push(other),
        }
    }
    line
}

/// A word as systemd.syntax(7) reads it back, specifiers included.
pub(super) fn quote(word: &str) -> String {
    let escaped = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%");
    let escaped = in_a_line(&escaped);
    let plain = !escaped.is_empty()
        && escaped
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-=:@%,+".contains(c));
    if plain {
        escaped
    } else {
        format!("\"{escaped}\"")
    }
}
