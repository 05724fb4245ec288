//! Label sets in the text format: `a="x",b="y"`.
//!
//! The rendered form is canonical: labels are sorted by name, and there is only one way to escape a value. Equal text
//! therefore means equal labels, so the gateway compares series without parsing them.

use std::borrow::Cow;

use super::escape::NameKind;

/// Appends `name="value"` with the value escaped, and the name in quotes if it needs them.
pub fn write_label(out: &mut Vec<u8>, name: &str, value: &str) {
    if NameKind::Label.is_plain(name) {
        write_plain_label(out, name, value);
    } else {
        write_quoted(out, name);
        out.push(b'=');
        write_quoted(out, value);
    }
}

/// Like [`write_label`], for a name that is known to need no quotes.
pub(super) fn write_plain_label(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    write_escaped(out, value);
    out.push(b'"');
}

/// Appends the start of a sample, before its labels: `name{`, or `{"name",` if the name needs quotes.
pub fn write_series_start(out: &mut Vec<u8>, name: &str, suffix: &str) {
    if NameKind::Metric.is_plain(name) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
        out.push(b'{');
    } else {
        out.extend_from_slice(b"{\"");
        write_escaped(out, name);
        write_escaped(out, suffix);
        out.extend_from_slice(b"\",");
    }
}

/// Appends a metric name as in comments: in quotes if it needs them.
pub(super) fn write_metric_name(out: &mut Vec<u8>, name: &str) {
    if NameKind::Metric.is_plain(name) {
        out.extend_from_slice(name.as_bytes());
    } else {
        write_quoted(out, name);
    }
}

/// Appends a label name as before `=`: in quotes if it needs them.
pub fn write_label_name(out: &mut Vec<u8>, name: &str) {
    if NameKind::Label.is_plain(name) {
        out.extend_from_slice(name.as_bytes());
    } else {
        write_quoted(out, name);
    }
}

fn write_quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// Appends a label value with `\`, `"` and LF escaped.
fn write_escaped(out: &mut Vec<u8>, value: &str) {
    let bytes = value.as_bytes();
    let mut done = 0;
    for at in memchr::memchr3_iter(b'\\', b'"', b'\n', bytes) {
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(&[b'\\', if bytes[at] == b'\n' { b'n' } else { bytes[at] }]);
        done = at + 1;
    }
    out.extend_from_slice(&bytes[done..]);
}

/// Appends a HELP text with `\` and LF escaped.
pub(super) fn write_help(out: &mut Vec<u8>, help: &str) {
    let bytes = help.as_bytes();
    let mut done = 0;
    for at in memchr::memchr2_iter(b'\\', b'\n', bytes) {
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(if bytes[at] == b'\n' { b"\\n" } else { b"\\\\" });
        done = at + 1;
    }
    out.extend_from_slice(&bytes[done..]);
}

/// Parses labels that [`write_label`] wrote, separated by commas.
///
/// Parsing ends at the first byte that cannot continue the labels: the text was written by the gateway itself and needs no
/// error messages.
pub fn read_labels(text: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    each_label(text).collect()
}

/// Like [`read_labels`], as an iterator.
pub fn each_label(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (name, after) = read_label_name(rest)?;
        let (value, after) = after.strip_prefix("=\"").and_then(read_quoted)?;
        rest = after.strip_prefix(',').unwrap_or("");
        Some((name, value))
    })
}

/// Parses a name that [`write_label_name`] wrote, and returns it with the rest of the text.
pub fn read_label_name(text: &str) -> Option<(Cow<'_, str>, &str)> {
    match text.strip_prefix('"') {
        Some(quoted) => read_quoted(quoted),
        None => {
            let end = text.find('=').unwrap_or(text.len());
            (end > 0).then(|| (Cow::Borrowed(&text[..end]), &text[end..]))
        }
    }
}

/// Parses an escaped text up to its closing quote, and returns it with the rest of the text after the quote.
pub fn read_quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let bytes = text.as_bytes();
    let first = memchr::memchr2(b'\\', b'"', bytes)?;
    if bytes[first] == b'"' {
        return Some((Cow::Borrowed(&text[..first]), &text[first + 1..]));
    }
    let mut value = String::with_capacity(text.len().min(first + 64));
    let mut done = 0;
    let mut at = first;
    loop {
        value.push_str(&text[done..at]);
        if bytes[at] == b'"' {
            return Some((Cow::Owned(value), &text[at + 1..]));
        }
        value.push(match bytes.get(at + 1)? {
            b'n' => '\n',
            b'"' => '"',
            _ => '\\',
        });
        done = at + 2;
        at = done + memchr::memchr2(b'\\', b'"', &bytes[done..])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn labels_round_trip(labels in prop::collection::vec(("[a-z_]{1,5}|[a-z.\"\\\\=,\n]{1,4}", any::<String>()), 0..5)) {
            let mut text = Vec::new();
            for (index, (name, value)) in labels.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                write_label(&mut text, name, value);
            }
            let text = String::from_utf8(text).expect("labels are UTF-8");
            let read: Vec<_> = read_labels(&text).into_iter().map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
            prop_assert_eq!(read, labels);
        }
    }

    #[test]
    fn help_escapes_backslash_and_line_feed_only() {
        let mut out = Vec::new();
        write_help(&mut out, "a\\b\n\"c\"");
        assert_eq!(out, b"a\\\\b\\n\"c\"");
    }
}
