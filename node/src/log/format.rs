//! From an event to a line.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onionring_proto::torrc::log::Severity;
use time::OffsetDateTime;
use tracing::Event;
use tracing::field::{Field, Visit};

/// A severity as torrc and the log itself write it.
pub fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Err => "err",
        Severity::Warn => "warn",
        Severity::Notice => "notice",
        Severity::Info => "info",
        Severity::Debug => "debug",
    }
}

/// The message of an event and its other fields after it, on one line; with `{DOMAIN}` before it if asked for.
pub fn message(event: &Event<'_>, domain: Option<&str>) -> String {
    let mut text = Text::default();
    event.record(&mut text);
    let mut message = match domain {
        Some(domain) => format!("{{{}}} ", domain.to_ascii_uppercase()),
        None => String::new(),
    };
    message.push_str(&text.message);
    message.push_str(&text.fields);
    one_line(message)
}

/// The whole line, as it goes to files and terminals.
pub fn line(now: SystemTime, granularity: Duration, severity: Severity, message: &str) -> String {
    format!("{} [{}] {message}\n", timestamp(now, granularity), name(severity))
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Month, day and time to the millisecond, rounded down to the granularity.
fn timestamp(now: SystemTime, granularity: Duration) -> String {
    let step = (granularity.as_millis() as u64).max(1);
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let rounded = since - since % step;
    // Only dates before the year 10000 can be written; the clock would have to be off by 8000 years.
    let at =
        OffsetDateTime::from_unix_timestamp((rounded / 1000) as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let month = MONTHS[usize::from(u8::from(at.month())) - 1];
    let (hour, minute, second) = at.to_hms();
    format!("{month} {:02} {hour:02}:{minute:02}:{second:02}.{:03}", at.day(), rounded % 1000)
}

/// Whoever chose a part of the text must not be able to write lines of their own, or to move the cursor of a terminal.
fn one_line(text: String) -> String {
    if !text.chars().any(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    line
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => {
                let _ = write!(self.fields, " {name}={value}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_like_those_of_c_tor() {
        let now = UNIX_EPOCH + Duration::from_millis(1_795_344_831_789);
        let at = |ms| line(now, Duration::from_millis(ms), Severity::Notice, "Opened OR listener");
        assert_eq!(at(1000), "Nov 22 10:53:51.000 [notice] Opened OR listener\n");
        assert_eq!(at(1), "Nov 22 10:53:51.789 [notice] Opened OR listener\n");
        assert_eq!(at(100), "Nov 22 10:53:51.700 [notice] Opened OR listener\n");
        assert_eq!(at(60_000), "Nov 22 10:53:00.000 [notice] Opened OR listener\n");
        assert_eq!(at(0), at(1), "a granularity of nothing is that of the clock");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(one_line("a\nNov 22 [err] b\u{1b}[2J é".into()), "a\\nNov 22 [err] b\\u{1b}[2J é");
    }
}
