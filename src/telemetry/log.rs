//! Logs: one line per event on stderr, in the two formats of the official program, so that its parsers keep working.
//!
//! Values can come from clients. In neither format can a value end its line, end its quotes or reach the terminal as a
//! control character.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `time=… level=INFO source=main.rs:10 msg="…" key=value`
    Logfmt,
    /// `{"time":"…","level":"INFO","source":"main.rs:10","msg":"…","key":"value"}`
    Json,
}

/// There is a subscriber for logs already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlreadyInstalled;

impl fmt::Display for AlreadyInstalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("logging is set up already")
    }
}

impl std::error::Error for AlreadyInstalled {}

/// Sends what is logged from now on, at this level and above, to stderr.
pub fn install(level: LevelFilter, format: Format) -> Result<(), AlreadyInstalled> {
    tracing::subscriber::set_global_default(subscriber(level, format, to_stderr))
        .map_err(|_| AlreadyInstalled)
}

/// In one write, so that lines of several threads do not mix. If stderr is gone there is nobody to tell.
fn to_stderr(line: &str) {
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

fn subscriber<W>(level: LevelFilter, format: Format, write: W) -> impl Subscriber + Send + Sync
where
    W: Fn(&str) + Send + Sync + 'static,
{
    tracing_subscriber::registry().with(Lines { format, write }.with_filter(level))
}

struct Lines<W> {
    format: Format,
    write: W,
}

impl<S: Subscriber, W: Fn(&str) + Send + Sync + 'static> Layer<S> for Lines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        (self.write)(&line(event, self.format, SystemTime::now()));
    }
}

/// The whole line of an event, LF included.
fn line(event: &Event<'_>, format: Format, now: SystemTime) -> String {
    let metadata = event.metadata();
    let mut fields = Fields { format, message: String::new(), rest: String::new() };
    event.record(&mut fields);

    let mut line =
        Fields { format, message: String::new(), rest: String::with_capacity(128 + fields.rest.len()) };
    line.text("time", &rfc3339_millis(now));
    line.text("level", level_name(*metadata.level()));
    if let (Some(file), Some(number)) = (metadata.file(), metadata.line()) {
        let file = Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or(file);
        line.text("source", &format!("{file}:{number}"));
    }
    line.text("msg", &fields.message);
    match format {
        Format::Logfmt => format!("{}{}\n", line.rest.trim_start(), fields.rest),
        Format::Json => format!("{{{}{}}}\n", line.rest.trim_start_matches(','), fields.rest),
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// The fields of an event, each with its separator in front; the message apart.
struct Fields {
    format: Format,
    message: String,
    rest: String,
}

impl Fields {
    fn text(&mut self, key: &str, value: &str) {
        match self.format {
            Format::Logfmt => {
                self.key(key);
                push_logfmt(&mut self.rest, value);
            }
            Format::Json => {
                self.key(key);
                push_json(&mut self.rest, value);
            }
        }
    }

    /// A number or a boolean, which needs no quotes in either format.
    fn bare(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        let _ = write!(self.rest, "{value}"); // writing to a String cannot fail
    }

    fn key(&mut self, key: &str) {
        match self.format {
            Format::Logfmt => {
                self.rest.push(' ');
                self.rest.push_str(key);
                self.rest.push('=');
            }
            Format::Json => {
                self.rest.push(',');
                push_json(&mut self.rest, key);
                self.rest.push(':');
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.text(name, value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for NaN and infinities.
        match value.is_finite() {
            true => self.bare(field.name(), value),
            false => self.text(field.name(), &value.to_string()),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &value.to_string());
    }
}

/// `2024-11-01T10:00:00.000Z`.
fn rfc3339_millis(time: SystemTime) -> String {
    format!("{:.3}", Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// As it is where a reader cannot mistake it, else in quotes with escapes.
fn push_logfmt(out: &mut String, value: &str) {
    let plain = |c: char| !matches!(c, ' ' | '"' | '=' | '\\') && is_printable(c);
    if !value.is_empty() && value.chars().all(plain) {
        out.push_str(value);
        return;
    }
    push_quoted(out, value, |out, c| {
        let code = u32::from(c);
        // Writing to a String cannot fail.
        let _ = if code <= 0xffff { write!(out, "\\u{code:04x}") } else { write!(out, "\\U{code:08x}") };
    });
}

fn push_json(out: &mut String, value: &str) {
    // JSON escapes are UTF-16.
    push_quoted(out, value, |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}"); // writing to a String cannot fail
        }
    });
}

/// In quotes; `escape` writes what no terminal shows.
fn push_quoted(out: &mut String, value: &str, escape: impl Fn(&mut String, char)) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => escape(out, c),
        }
    }
    out.push('"');
}

/// Whether a terminal shows this character and nothing else happens. Line separators, marks that turn the direction of
/// text and the like do not pass.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        c if c.is_ascii() => false,
        // The standard library knows what is printable, and says so only by escaping it.
        c => !c.is_control() && c.escape_debug().len() == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::{Arc, Mutex};

    /// What the events inside `body` look like, without the time, which differs.
    fn logged(level: LevelFilter, format: Format, body: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(String::new()));
        let writer = Arc::clone(&lines);
        let write = move |line: &str| writer.lock().expect("no panic while writing").push_str(line);
        tracing::subscriber::with_default(subscriber(level, format, write), body);
        lines.lock().expect("no panic while writing").clone()
    }

    fn logfmt_of(value: &str) -> String {
        let mut out = String::new();
        push_logfmt(&mut out, value);
        out
    }

    #[test]
    fn times_have_milliseconds_and_begin_in_1970() {
        let millis =
            |millis| rfc3339_millis(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(millis));
        assert_eq!(millis(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(millis(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(millis(1_730_455_200_007), "2024-11-01T10:00:00.007Z");
    }

    #[test]
    fn logfmt_lines_look_like_the_official_ones() {
        let number = line!() + 2;
        let text = logged(LevelFilter::INFO, Format::Logfmt, || {
            tracing::info!(address = "[::]:9091", count = 3, ratio = 0.5, on = true, err = %"it broke", "listening on");
        });
        let (time, rest) = text.split_once(' ').expect("several fields");
        assert_eq!(time.len(), "time=2024-11-01T10:00:00.000Z".len());
        assert_eq!(
            rest,
            format!(
                "level=INFO source=log.rs:{number} msg=\"listening on\" address=[::]:9091 count=3 ratio=0.5 on=true \
                 err=\"it broke\"\n"
            )
        );
    }

    #[test]
    fn json_lines_are_json() {
        let text = logged(LevelFilter::DEBUG, Format::Json, || {
            tracing::debug!(job = "a\"\n\u{202e}\u{7f}", ratio = f64::NAN, count = -1, "pushed \\");
        });
        assert_eq!(text.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(object["level"], "DEBUG");
        assert_eq!(object["msg"], "pushed \\");
        assert_eq!(object["job"], "a\"\n\u{202e}\u{7f}");
        assert_eq!(object["ratio"], "NaN");
        assert_eq!(object["count"], -1);
        assert!(text.starts_with("{\"time\":\"20"), "{text}");
    }

    #[test]
    fn lower_levels_are_left_out() {
        let text = logged(LevelFilter::WARN, Format::Logfmt, || {
            tracing::info!("no");
            tracing::warn!("yes");
            tracing::error!("yes");
        });
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains("msg=no"));
    }

    #[test]
    fn values_are_quoted_where_a_reader_could_be_misled() {
        for (value, expected) in [
            ("plain", "plain"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a=b", "\"a=b\""),
            ("a\"b", "\"a\\\"b\""),
            ("C:\\x", "\"C:\\\\x\""),
            ("x\nlevel=ERROR msg=forged", "\"x\\nlevel=ERROR msg=forged\""),
            ("\r\t\u{1b}[31m", "\"\\r\\t\\u001b[31m\""),
            ("\u{85}\u{2028}\u{202e}\u{e0001}", "\"\\u0085\\u2028\\u202e\\U000e0001\""),
            ("größe", "größe"),
        ] {
            assert_eq!(logfmt_of(value), expected);
        }
    }

    proptest! {
        #[test]
        fn no_value_can_forge_a_line(value: String) {
            for text in [logfmt_of(&value), { let mut out = String::new(); push_json(&mut out, &value); out }] {
                prop_assert!(!text.chars().any(char::is_control));
                if let Some(inner) = text.strip_prefix('"') {
                    let inner = inner.strip_suffix('"').expect("closed");
                    // Once escapes are taken out, no quote is left that could end the value.
                    prop_assert!(!inner.replace("\\\\", "").replace("\\\"", "").contains('"'));
                }
            }
        }

        #[test]
        fn json_text_reads_back(value: String) {
            let mut out = String::new();
            push_json(&mut out, &value);
            prop_assert_eq!(serde_json::from_str::<String>(&out).expect("JSON"), value);
        }
    }
}
