//! Label sets as the text format writes them: `a="x",b="y"`.
//!
//! The rendered form is canonical (sorted by name, escaped in one way only), so equal text means equal labels. That is
//! what lets the rest of the gateway compare series without parsing them.

use std::borrow::Cow;

/// Appends `name="value"`, escaped.
pub fn write_label(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    write_escaped(out, value);
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
pub fn write_help(out: &mut Vec<u8>, help: &str) {
    let bytes = help.as_bytes();
    let mut done = 0;
    for at in memchr::memchr2_iter(b'\\', b'\n', bytes) {
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(if bytes[at] == b'\n' { b"\\n" } else { b"\\\\" });
        done = at + 1;
    }
    out.extend_from_slice(&bytes[done..]);
}

/// Reads labels which [`write_label`] wrote, separated by commas.
///
/// Ends at the first byte that cannot continue them; the text comes from the gateway itself, never from a stranger.
pub fn read_labels(text: &str) -> Vec<(&str, Cow<'_, str>)> {
    let mut labels = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let Some((value, after)) = read_value(after) else { break };
        labels.push((name, value));
        rest = after.strip_prefix(',').unwrap_or("");
    }
    labels
}

/// Reads an escaped value up to its closing quote; returns it with what follows the quote.
fn read_value(text: &str) -> Option<(Cow<'_, str>, &str)> {
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
        fn what_is_written_is_read_back(labels in prop::collection::vec(("[a-z_]{1,5}", any::<String>()), 0..5)) {
            let mut text = Vec::new();
            for (index, (name, value)) in labels.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                write_label(&mut text, name, value);
            }
            let text = String::from_utf8(text).expect("labels are UTF-8");
            let read: Vec<_> = read_labels(&text).into_iter().map(|(n, v)| (n.to_owned(), v.into_owned())).collect();
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
