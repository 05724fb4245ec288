//! `Content-Type`, parsed as Go does.
//!
//! The official program takes a body for protobuf only if Go's parser accepts the header, so the rules are those of
//! `mime.ParseMediaType`: a parameter with two values or without a value makes the header invalid, and RFC 2231 applies.

use std::collections::BTreeMap;

/// The media type in lower case, and its parameters with names in lower case. `None` if Go rejects the header.
pub(super) fn parse(header: &str) -> Option<(String, BTreeMap<String, String>)> {
    let (media_type, _) = header.split_once(';').unwrap_or((header, ""));
    let parameters = &header[media_type.len()..];
    let media_type = media_type.trim().to_lowercase();
    let (kind, subtype) = media_type.split_once('/')?;
    (is_token(kind) && is_token(subtype)).then_some(())?;
    Some((media_type, read_parameters(parameters)?))
}

fn read_parameters(mut rest: &str) -> Option<BTreeMap<String, String>> {
    let (mut plain, mut extended) = (BTreeMap::new(), BTreeMap::new());
    while !rest.trim().is_empty() && rest.trim() != ";" {
        let (name, value, after) = parameter(rest)?;
        let map = if name.contains('*') { &mut extended } else { &mut plain };
        if map.get(&name).is_some_and(|other| *other != value) {
            return None;
        }
        map.insert(name, value);
        rest = after;
    }
    let names: Vec<_> = extended.keys().filter_map(|key| key.split_once('*')).map(|(name, _)| name).collect();
    for name in names {
        if let Some(value) = extended_value(name, &extended) {
            plain.insert(name.to_owned(), value);
        }
    }
    Some(plain)
}

/// Splits off the first parameter: its name, its value, and the rest.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let text = text.trim_start().strip_prefix(';')?.trim_start();
    let (name, text) = token(text)?;
    let text = text.trim_start().strip_prefix('=')?.trim_start();
    let (value, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted_value(quoted)?,
        None => {
            let (value, rest) = token(text)?;
            (value.to_owned(), rest)
        }
    };
    Some((name.to_lowercase(), value, rest))
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A value after its opening quote. A backslash escapes only what needs it.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => {
                let escaped = characters.next_if(|(_, next)| next.is_ascii() && is_special(*next as u8));
                value.push(escaped.map_or('\\', |(_, escaped)| escaped));
            }
            _ => value.push(character),
        }
    }
    None
}

/// The value of a parameter that is encoded, or split into numbered parts (RFC 2231).
fn extended_value(name: &str, extended: &BTreeMap<String, String>) -> Option<String> {
    if let Some(value) = extended.get(&format!("{name}*")) {
        return with_charset(value);
    }
    let mut value = None;
    for number in 0.. {
        let part = match extended.get(&format!("{name}*{number}")) {
            Some(part) => part.clone(),
            None => match (number, extended.get(&format!("{name}*{number}*"))) {
                (_, None) => break,
                (0, Some(part)) => with_charset(part).unwrap_or_default(),
                (_, Some(part)) => percent_decoded(part).unwrap_or_default(),
            },
        };
        value.get_or_insert_with(String::new).push_str(&part);
    }
    value
}

/// Decodes `charset'language'value`.
fn with_charset(text: &str) -> Option<String> {
    let mut parts = text.splitn(3, '\'');
    let (charset, _, value) = (parts.next()?, parts.next()?, parts.next()?);
    ["us-ascii", "utf-8"].contains(&&*charset.to_lowercase()).then(|| percent_decoded(value))?
}

fn percent_decoded(text: &str) -> Option<String> {
    let is_valid =
        |escape: &str| escape.len() >= 2 && escape.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    text.split('%')
        .skip(1)
        .all(is_valid)
        .then(|| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into())
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !is_special(byte)
}

fn is_special(byte: u8) -> bool {
    b"()<>@,;:\\\"/[]?=".contains(&byte)
}
