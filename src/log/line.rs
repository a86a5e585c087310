//! An event as one line of text or one JSON object, bounded and harmless in a terminal.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::cli::LogFormat;
use crate::secret::is_unsafe;

/// Bytes of the message or of one field that are kept.
pub(super) const MAX_VALUE_BYTES: usize = 1024;

/// Bytes of the message and all fields together that are kept, before escaping.
pub(super) const MAX_EVENT_BYTES: usize = 4 * 1024;

/// What a line looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) format: LogFormat,
    /// Whether the line begins with the time. RFC 3339, UTC.
    pub(super) time: bool,
}

/// An event, read once for all sinks.
#[derive(Debug)]
pub(super) struct Line {
    level: Level,
    time: SystemTime,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    /// A number or a truth value, in JSON's own form.
    Plain(String),
}

impl Line {
    /// Takes the parts of an event that are logged.
    pub(super) fn read(event: &Event<'_>) -> Self {
        let mut reader = Reader { line: Self::new(*event.metadata().level()), left: MAX_EVENT_BYTES };
        event.record(&mut reader);
        reader.line
    }

    /// Tells that lines are missing at this place.
    pub(super) fn dropped(count: u64) -> Self {
        let mut line = Self::new(Level::WARN);
        line.message.push_str("log lines were dropped, the reader was too slow");
        line.fields.push(("count", Value::Plain(count.to_string())));
        line
    }

    fn new(level: Level) -> Self {
        Self { level, time: SystemTime::now(), message: String::new(), fields: Vec::new() }
    }

    /// The line with its line end.
    pub(super) fn render(&self, style: Style) -> String {
        let mut text = String::new();
        // Writing to a `String` does not fail.
        let _ = match style.format {
            LogFormat::Text => self.text(&mut text, style.time),
            LogFormat::Json => self.json(&mut text, style.time),
        };
        text.push('\n');
        text
    }

    fn text(&self, out: &mut String, time: bool) -> fmt::Result {
        if time {
            write!(out, "{} ", Utc(self.time))?;
        }
        write!(out, "mcp-drawbridge[{}] {}", std::process::id(), self.level)?;
        if !self.message.is_empty() {
            out.push(' ');
            escape(out, &self.message, false)?;
        }
        for (name, value) in &self.fields {
            write!(out, " {name}=")?;
            match value {
                Value::Plain(value) => out.push_str(value),
                Value::Text(value) if value.is_empty() || value.contains([' ', '"', '=']) => {
                    out.push('"');
                    escape(out, value, true)?;
                    out.push('"');
                }
                Value::Text(value) => escape(out, value, false)?,
            }
        }
        Ok(())
    }

    fn json(&self, out: &mut String, time: bool) -> fmt::Result {
        out.push('{');
        if time {
            write!(out, "\"time\":\"{}\",", Utc(self.time))?;
        }
        let level = self.level.as_str().to_ascii_lowercase();
        write!(out, "\"level\":\"{level}\",\"pid\":{},\"message\":", std::process::id())?;
        json_string(out, &self.message)?;
        for (name, value) in &self.fields {
            out.push(',');
            json_string(out, name)?;
            out.push(':');
            match value {
                Value::Plain(value) => out.push_str(value),
                Value::Text(value) => json_string(out, value)?,
            }
        }
        out.push('}');
        Ok(())
    }
}

fn escape(out: &mut String, text: &str, quoted: bool) -> fmt::Result {
    for character in text.chars() {
        if is_unsafe(character) {
            write!(out, "{}", character.escape_unicode())?;
        } else if quoted && character == '"' {
            out.push_str("\\\"");
        } else {
            out.push(character);
        }
    }
    Ok(())
}

/// RFC 8259 §7, and what could steer a terminal escaped as well.
fn json_string(out: &mut String, text: &str) -> fmt::Result {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
            out.push(character);
        } else if is_unsafe(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
        } else {
            out.push(character);
        }
    }
    out.push('"');
    Ok(())
}

/// Collects the fields of an event within the limits.
struct Reader {
    line: Line,
    left: usize,
}

impl Reader {
    fn keep(&mut self, field: &Field, value: Value) {
        let (Value::Text(text) | Value::Plain(text)) = &value;
        self.left = self.left.saturating_sub(text.len());
        match value {
            Value::Text(text) if field.name() == "message" => self.line.message = text,
            value => self.line.fields.push((field.name(), value)),
        }
    }

    fn cut(&self, value: fmt::Arguments<'_>) -> Value {
        let mut cut = Cut { text: String::new(), left: self.left.min(MAX_VALUE_BYTES) };
        // An error of the writer ends the formatting of a value that is too long.
        if cut.write_fmt(value).is_err() {
            cut.text.push('…');
        }
        Value::Text(cut.text)
    }
}

impl Visit for Reader {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = self.cut(format_args!("{value:?}"));
        self.keep(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let value = self.cut(format_args!("{value}"));
        self.keep(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, Value::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, Value::Plain(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, Value::Plain(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        self.keep(field, if value.is_finite() { Value::Plain(text) } else { Value::Text(text) });
    }
}

/// A text that takes no more than its limit.
struct Cut {
    text: String,
    left: usize,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut end = self.left.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.text.push_str(text.get(..end).unwrap_or_default());
        self.left -= end;
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Shows a time as RFC 3339 in UTC, in milliseconds.
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: u64 = 24 * 60 * 60;
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, second) = (since.as_secs() / DAY, since.as_secs() % DAY);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let millisecond = since.subsec_millis();
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
    }
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar. Years are counted from March,
/// so that the leap day is the last of a year, in eras of 400 years, which all have the same number of days.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    #[test]
    fn times_are_rfc_3339() {
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_795_409_969_123, "2026-11-23T04:59:29.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ];
        for (milliseconds, text) in table {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
            assert_eq!(Utc(time).to_string(), text);
        }
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Utc(before).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_time_stands_first() {
        let mut line = Line::dropped(7);
        line.time = SystemTime::UNIX_EPOCH;
        let pid = std::process::id();
        let text = line.render(Style { format: LogFormat::Text, time: true });
        assert_eq!(
            text,
            format!(
                "1970-01-01T00:00:00.000Z mcp-drawbridge[{pid}] WARN log lines were dropped, the reader was too slow count=7\n"
            )
        );
        let text = line.render(Style { format: LogFormat::Json, time: true });
        assert!(text.starts_with("{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"warn\","), "{text}");
    }

    /// A value that formats itself for ever: the limit must stop it.
    struct Endless;

    impl fmt::Debug for Endless {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                out.write_str("é")?;
            }
        }
    }

    fn reader() -> Reader {
        Reader { line: Line::new(Level::INFO), left: MAX_EVENT_BYTES }
    }

    #[test]
    fn values_are_cut_at_their_limit() {
        fn kept(value: fmt::Arguments<'_>) -> String {
            match reader().cut(value) {
                Value::Text(text) | Value::Plain(text) => text,
            }
        }
        let longest = "a".repeat(MAX_VALUE_BYTES);
        assert_eq!(kept(format_args!("{longest}")), longest);
        assert_eq!(kept(format_args!("{longest}b")), format!("{longest}…"));
        assert_eq!(kept(format_args!("{Endless:?}")), format!("{}…", "é".repeat(MAX_VALUE_BYTES / 2)));
    }

    /// Keeps the last event as a line.
    struct Keep(Arc<Mutex<String>>);

    impl<S: tracing::Subscriber> Layer<S> for Keep {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let style = Style { format: LogFormat::Text, time: false };
            *self.0.lock().unwrap() = Line::read(event).render(style);
        }
    }

    #[test]
    fn an_event_is_cut_at_its_limit() {
        let kept = Arc::new(Mutex::new(String::new()));
        let subscriber = tracing_subscriber::registry().with(Keep(Arc::clone(&kept)));
        let long = "x".repeat(MAX_VALUE_BYTES);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(a = %long, b = %long, c = %long, d = ?Endless, e = %long, f = 5, "m");
        });
        let text = kept.lock().unwrap().clone();
        assert_eq!(text.matches('x').count(), 3 * MAX_VALUE_BYTES);
        assert!(text.len() < MAX_EVENT_BYTES + 100, "{}", text.len());
        assert!(text.ends_with(" e=… f=5\n"), "{text}");
    }
}
