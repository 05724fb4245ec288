//! Logs: one line per event on stderr, in the two formats of the official program, so that existing log parsers work.
//!
//! Lines are written by a thread of their own ([`writer`]), so logging never waits. Before the program ends, [`flush`] waits for
//! the lines that are left.
//!
//! Values can come from clients. They are escaped in both formats, so that a value cannot end its line or its quotes, or send a
//! control character to a terminal.

mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write as _};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::process;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::faults::{self, panic_text};
use super::own_metric::OwnMetric;
use super::process::family;
use super::recorder::OwnFamily;
use writer::Queue;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `ts=… level=info caller=main.rs:10 msg="…" key=value`
    Logfmt,
    /// `{"ts":"…","level":"info","caller":"main.rs:10","msg":"…","key":"value"}`
    Json,
}

/// How long [`flush`] waits for a stderr that accepts nothing.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

const DROPPED_LINES: OwnMetric = OwnMetric::counter(
    "sluicegate_log_dropped_lines_total",
    "Total number of log lines dropped because stderr accepted them too slowly, or not at all.",
);

pub(crate) const METRICS: &[OwnMetric] = &[DROPPED_LINES];

/// The lines to stderr. Empty until logging is set up.
static STDERR: OnceLock<Queue> = OnceLock::new();

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The process already has a subscriber for logs.
    #[error("logging is already set up")]
    AlreadyInstalled,
    /// The thread that writes lines cannot be started.
    #[error("cannot start the log thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Writes events of this level and above, and panics, to stderr from now on, for the whole process.
///
/// # Errors
/// If logging is already set up, or its thread cannot be started.
pub fn install(level: LevelFilter, format: Format) -> Result<(), InstallError> {
    let queue = Queue::start(writer::write_to_stderr, move |lines| dropped_line(format, lines))?;
    let write = {
        let queue = queue.clone();
        move |line| queue.push(line)
    };
    tracing::subscriber::set_global_default(subscriber(level, format, write))
        .map_err(|_| InstallError::AlreadyInstalled)?;
    // Cannot be set already, because the subscriber was not.
    let _ = STDERR.set(queue);
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Waits until the lines logged so far are written, or for half a second if stderr accepts nothing. To be called before the program
/// ends.
pub fn flush() {
    if let Some(queue) = STDERR.get() {
        queue.flush(FLUSH_TIMEOUT);
    }
}

/// Ends the program, after [`flush`].
pub fn exit(status: i32) -> ! {
    flush();
    process::exit(status)
}

/// The families of this module with their values.
pub(super) fn families() -> Vec<OwnFamily> {
    vec![family(DROPPED_LINES, STDERR.get().map_or(0, Queue::dropped) as f64)]
}

/// Logs a panic, and makes the gateway unhealthy. The default hook would wait for stderr.
fn log_panic(info: &PanicHookInfo<'_>) {
    faults::notice(info.payload());
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let error = panic_text(info.payload());
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(thread, location, error, %backtrace, "panic");
    } else {
        tracing::error!(thread, location, error, "panic");
    }
}

fn subscriber<W>(level: LevelFilter, format: Format, write: W) -> impl Subscriber + Send + Sync
where
    W: Fn(String) + Send + Sync + 'static,
{
    tracing_subscriber::registry().with(Lines { format, write }.with_filter(level))
}

struct Lines<W> {
    format: Format,
    write: W,
}

impl<S: Subscriber, W: Fn(String) + Send + Sync + 'static> Layer<S> for Lines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        (self.write)(line(event, self.format, SystemTime::now()));
    }
}

/// Returns the line of an event, including LF.
fn line(event: &Event<'_>, format: Format, now: SystemTime) -> String {
    let metadata = event.metadata();
    let mut fields = Fields::new(format);
    event.record(&mut fields);
    assemble(&fields, *metadata.level(), metadata.file().zip(metadata.line()), now)
}

/// The line that says how many lines are missing.
fn dropped_line(format: Format, lines: u64) -> String {
    let mut fields = Fields::new(format);
    "dropped log lines because stderr did not accept them".clone_into(&mut fields.message);
    fields.bare("lines", lines);
    assemble(&fields, Level::WARN, Some((file!(), line!())), SystemTime::now())
}

fn assemble(fields: &Fields, level: Level, source: Option<(&str, u32)>, now: SystemTime) -> String {
    let format = fields.format;
    let mut line = Fields { rest: String::with_capacity(128 + fields.rest.len()), ..Fields::new(format) };
    line.text("ts", &rfc3339_millis(now));
    line.text("level", level_name(level));
    if let Some((file, number)) = source {
        let file = Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or(file);
        line.text("caller", &format!("{file}:{number}"));
    }
    line.text("msg", &fields.message);
    match format {
        Format::Logfmt => format!("{}{}\n", line.rest.trim_start(), fields.rest),
        Format::Json => format!("{{{}{}}}\n", line.rest.trim_start_matches(','), fields.rest),
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// The fields of an event, each preceded by its separator, and the message.
struct Fields {
    format: Format,
    message: String,
    rest: String,
}

impl Fields {
    fn new(format: Format) -> Self {
        Self { format, message: String::new(), rest: String::new() }
    }

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

    /// Adds a number or a boolean, which needs no quotes in either format.
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
        // JSON has no NaN and no infinities.
        if value.is_finite() {
            self.bare(field.name(), value);
        } else {
            self.text(field.name(), &value.to_string());
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &value.to_string());
    }
}

/// Formats a time as `2024-11-01T10:00:00.000Z`.
fn rfc3339_millis(time: SystemTime) -> String {
    format!("{:.3}", Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Appends a value, in quotes and with escapes if a parser could misread it.
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

/// Appends a value in quotes; `escape` appends each character that is not printable.
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

/// Whether a terminal only shows this character. Not printable are, for example, control characters, line separators and marks
/// that change the direction of text.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        c if c.is_ascii() => false,
        // The standard library escapes exactly the characters that are not printable.
        c => !c.is_control() && c.escape_debug().len() == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::{Arc, Mutex};

    /// The lines of the events in `body`.
    fn logged(level: LevelFilter, format: Format, body: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(String::new()));
        let writer = Arc::clone(&lines);
        let write = move |line: String| writer.lock().expect("no panic while writing").push_str(&line);
        tracing::subscriber::with_default(subscriber(level, format, write), body);
        lines.lock().expect("no panic while writing").clone()
    }

    fn logfmt_of(value: &str) -> String {
        let mut out = String::new();
        push_logfmt(&mut out, value);
        out
    }

    #[test]
    fn formats_times_with_milliseconds() {
        let millis = |millis| rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(millis(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(millis(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(millis(1_730_455_200_007), "2024-11-01T10:00:00.007Z");
    }

    #[test]
    fn logfmt_lines_have_the_official_layout() {
        let number = line!() + 2;
        let text = logged(LevelFilter::INFO, Format::Logfmt, || {
            tracing::info!(address = "[::]:9091", count = 3, ratio = 0.5, on = true, err = %"it broke", "listening on");
        });
        let (time, rest) = text.split_once(' ').expect("several fields");
        assert_eq!(time.len(), "ts=2024-11-01T10:00:00.000Z".len());
        assert_eq!(
            rest,
            format!(
                "level=info caller=log.rs:{number} msg=\"listening on\" address=[::]:9091 count=3 ratio=0.5 on=true \
                 err=\"it broke\"\n"
            )
        );
    }

    #[test]
    fn json_lines_are_valid_json() {
        let text = logged(LevelFilter::DEBUG, Format::Json, || {
            tracing::debug!(job = "a\"\n\u{202e}\u{7f}", ratio = f64::NAN, count = -1, "pushed \\");
        });
        assert_eq!(text.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(object["level"], "debug");
        assert_eq!(object["msg"], "pushed \\");
        assert_eq!(object["job"], "a\"\n\u{202e}\u{7f}");
        assert_eq!(object["ratio"], "NaN");
        assert_eq!(object["count"], -1);
        assert!(text.starts_with("{\"ts\":\"20"), "{text}");
    }

    #[test]
    fn the_line_about_dropped_lines_has_the_usual_layout() {
        let logfmt = dropped_line(Format::Logfmt, 7);
        assert!(logfmt.starts_with("ts=") && logfmt.ends_with(" lines=7\n"), "{logfmt}");
        assert!(logfmt.contains(" level=warn caller=log.rs:"), "{logfmt}");
        let json: serde_json::Value = serde_json::from_str(&dropped_line(Format::Json, 7)).expect("JSON");
        assert_eq!(json["lines"], 7);
    }

    #[test]
    fn omits_lower_levels() {
        let text = logged(LevelFilter::WARN, Format::Logfmt, || {
            tracing::info!("no");
            tracing::warn!("yes");
            tracing::error!("yes");
        });
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains("msg=no"));
    }

    #[test]
    fn quotes_values_that_a_parser_could_misread() {
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
        fn a_value_cannot_forge_a_line(value: String) {
            for text in [logfmt_of(&value), { let mut out = String::new(); push_json(&mut out, &value); out }] {
                prop_assert!(!text.chars().any(char::is_control));
                if let Some(inner) = text.strip_prefix('"') {
                    let inner = inner.strip_suffix('"').expect("a closing quote");
                    // Without escape sequences, no quote remains that could end the value.
                    prop_assert!(!inner.replace("\\\\", "").replace("\\\"", "").contains('"'));
                }
            }
        }

        #[test]
        fn json_strings_parse_to_the_same_value(value: String) {
            let mut out = String::new();
            push_json(&mut out, &value);
            prop_assert_eq!(serde_json::from_str::<String>(&out).expect("JSON"), value);
        }
    }
}
