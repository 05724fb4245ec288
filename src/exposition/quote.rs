//! Quoting for error texts, like that of Go.

/// Longer tokens are truncated in an error, which could otherwise be as long as the body.
const QUOTED_BYTES_MAX: usize = 1024;

/// A token in double quotes, escaped like Go's `%q`.
pub(crate) fn quote(token: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in token[..token.len().min(QUOTED_BYTES_MAX)].utf8_chunks() {
        for character in chunk.valid().chars() {
            push_escaped(&mut out, character, '"');
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// A byte in single quotes. As in Go, it is shown as the character with that number.
pub(crate) fn quote_byte(byte: u8) -> String {
    let mut out = String::from("'");
    push_escaped(&mut out, char::from(byte), '\'');
    out.push('\'');
    out
}

fn push_escaped(out: &mut String, character: char, delimiter: char) {
    match character {
        _ if character == delimiter || character == '\\' => out.extend(['\\', character]),
        ' '..='~' => out.push(character),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        '\0'..='\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(character))),
        _ if is_printable(character) => out.push(character),
        '\0'..='\u{ffff}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
        _ => out.push_str(&format!("\\U{:08x}", u32::from(character))),
    }
}

/// Whether a character is printable. The standard library reveals this only by what it escapes, and it treats the first
/// character of a text differently.
fn is_printable(character: char) -> bool {
    let mut probe = String::from("a");
    probe.push(character);
    probe.escape_debug().nth(1) == Some(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_quoted_like_in_go() {
        for (token, quoted) in [
            (&b""[..], r#""""#),
            (b"abc", r#""abc""#),
            (b"a\"b'c\\d", r#""a\"b'c\\d""#),
            (b"\x07\x08\x0c\n\r\t\x0b\0\x1f\x7f", r#""\a\b\f\n\r\t\v\x00\x1f\x7f""#),
            ("\u{e4}\u{20ac}\u{1f602}".as_bytes(), "\"\u{e4}\u{20ac}\u{1f602}\""),
            ("e\u{301}".as_bytes(), "\"e\u{301}\""),
            ("\u{a0}\u{feff}\u{e0001}".as_bytes(), r#""\u00a0\ufeff\U000e0001""#),
            (b"a\xffb\xe2\x82", r#""a\xffb\xe2\x82""#),
        ] {
            assert_eq!(quote(token), quoted);
        }
    }

    #[test]
    fn a_byte_is_quoted_as_a_character() {
        for (byte, quoted) in
            [(b'x', "'x'"), (b'\'', r"'\''"), (b'"', "'\"'"), (0xff, "'\u{ff}'"), (0x80, r"'\u0080'")]
        {
            assert_eq!(quote_byte(byte), quoted);
        }
    }

    #[test]
    fn a_long_token_is_truncated() {
        assert_eq!(quote(&[b'x'; 5000]).len(), QUOTED_BYTES_MAX + 2);
    }
}
