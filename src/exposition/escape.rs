//! Escaping of UTF-8 names for scrapers that do not support them, and in URLs.
//!
//! The rules are those of `prometheus/common`, with one difference: a colon is escaped in a label name, because only metric
//! names may contain one. A name that needs no quotes is never escaped.
//!
//! Two names can become equal when they are escaped. Pushes and grouping keys are checked for a [`collision`], so that no
//! scrape contains a name twice.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::labels::read_quoted;
use super::names::{METRIC_NAME_LABEL, NameRules};

/// How to write names that contain more than ASCII letters, digits, underscores and colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Escaping {
    /// Unchanged; in quotes in the text format.
    AllowUtf8,
    /// An underscore replaces every other character.
    Underscores,
    /// `_dot_` replaces a dot; two underscores replace an underscore and every other character.
    Dots,
    /// `U__` comes first; the hexadecimal number of every other character is written between underscores.
    Values,
}

impl Escaping {
    /// All schemes.
    pub const ALL: [Self; 4] = [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values];

    /// The name in `Accept` and `Content-Type` headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }
}

/// The kind of item that a name belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A metric.
    Metric,
    /// A label.
    Label,
}

impl NameKind {
    /// Whether the name can be written without quotes.
    pub fn is_plain(self, name: &str) -> bool {
        match self {
            Self::Metric => NameRules::Legacy.allow_metric_name(name),
            Self::Label => NameRules::Legacy.allow_label_name(name),
        }
    }
}

/// The schemes that change names.
pub const SCHEMES: [Escaping; 3] = [Escaping::Underscores, Escaping::Dots, Escaping::Values];

/// Escapes a name.
pub fn escape(name: &str, escaping: Escaping, kind: NameKind) -> Cow<'_, str> {
    if escaping == Escaping::AllowUtf8 || kind.is_plain(name) {
        return Cow::Borrowed(name);
    }
    let mut escaped = String::with_capacity(name.len() + 8);
    if escaping == Escaping::Values {
        escaped.push_str("U__");
    }
    for (at, c) in name.char_indices() {
        let is_allowed = c.is_ascii_alphabetic()
            || (c.is_ascii_digit() && at > 0)
            || (c == ':' && kind == NameKind::Metric);
        match (escaping, c) {
            _ if is_allowed => escaped.push(c),
            (Escaping::AllowUtf8 | Escaping::Underscores, _) => escaped.push('_'),
            (Escaping::Dots, '.') => escaped.push_str("_dot_"),
            (Escaping::Dots, _) | (Escaping::Values, '_') => escaped.push_str("__"),
            (Escaping::Values, _) => {
                let _ = write!(escaped, "_{:x}_", u32::from(c));
            }
        }
    }
    Cow::Owned(escaped)
}

/// Reverses [`Escaping::Values`], as used in URLs. A name that is not a valid escaped name is returned unchanged.
pub fn unescape_values(name: &str) -> Cow<'_, str> {
    let unescaped = name.strip_prefix("U__").and_then(unescape);
    unescaped.map_or(Cow::Borrowed(name), Cow::Owned)
}

fn unescape(escaped: &str) -> Option<String> {
    /// The official program rejects more digits, although the last code points of Unicode have six.
    const DIGITS_MAX: usize = 5;
    let mut unescaped = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((plain, after)) = rest.split_once('_') {
        unescaped.push_str(plain);
        let (digits, after) = after.split_once('_')?;
        rest = after;
        if digits.is_empty() {
            unescaped.push('_');
            continue;
        }
        if digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        unescaped.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
    }
    unescaped.push_str(rest);
    Some(unescaped)
}

/// Finds two label names that one of the schemes makes equal, or one that becomes equal to the label of the metric name. The common
/// case is fast: without a name that needs quotes there is no collision.
pub fn collision<'n>(names: &(impl Iterator<Item = &'n str> + Clone)) -> Option<(&'n str, &'n str)> {
    if names.clone().all(|name| NameKind::Label.is_plain(name)) {
        return None;
    }
    SCHEMES.into_iter().find_map(|scheme| {
        let escaped = |name: &'n str| (escape(name, scheme, NameKind::Label), name);
        let mut escaped: Vec<_> = names.clone().map(escaped).chain([escaped(METRIC_NAME_LABEL)]).collect();
        escaped.sort_unstable();
        escaped.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| (pair[0].1, pair[1].1))
    })
}

/// Whether rendered lines may contain quoted names. A label value can look like one, so this may be true without any.
pub fn may_have_quoted_names(lines: &[u8]) -> bool {
    [&b"{\""[..], b",\""].into_iter().any(|start| memchr::memmem::find(lines, start).is_some())
}

/// Appends rendered lines of one family with all names escaped. The rest of a line is copied unchanged from the first byte
/// that rendering does not write.
pub fn escape_lines(out: &mut Vec<u8>, lines: &str, name: &str, escaping: Escaping) {
    for line in lines.split_inclusive('\n') {
        let rest = escape_line(out, line, name, escaping);
        out.extend_from_slice(rest.as_bytes());
    }
}

/// Appends a line up to the end of its labels, and returns the rest.
fn escape_line<'l>(out: &mut Vec<u8>, line: &'l str, name: &str, escaping: Escaping) -> &'l str {
    let mut rest = match line.strip_prefix("{\"") {
        Some(quoted) => {
            let Some((full_name, after)) = read_quoted(quoted) else { return line };
            // The suffix of a part follows the escaped name; it is not escaped with it.
            let suffix = full_name.strip_prefix(name).unwrap_or_default();
            out.extend_from_slice(escape(name, escaping, NameKind::Metric).as_bytes());
            out.extend_from_slice(suffix.as_bytes());
            out.push(b'{');
            after.strip_prefix(',').unwrap_or(after)
        }
        None => {
            let Some(open) = line.find('{') else { return line };
            let (start, after) = line.split_at(open + 1);
            out.extend_from_slice(start.as_bytes());
            after
        }
    };
    while !rest.starts_with('}') {
        let label = match rest.strip_prefix('"') {
            Some(quoted) => read_quoted(quoted),
            None => rest.find('=').map(|at| (Cow::Borrowed(&rest[..at]), &rest[at..])),
        };
        let Some((label, value)) = label.filter(|(_, value)| value.starts_with("=\"")) else { return rest };
        let Some((_, after)) = read_quoted(&value[2..]) else { return rest };
        out.extend_from_slice(escape(&label, escaping, NameKind::Label).as_bytes());
        let value = &value[..value.len() - after.len()];
        out.extend_from_slice(value.as_bytes());
        rest = after;
        if let Some(after) = rest.strip_prefix(',') {
            out.push(b',');
            rest = after;
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::labels::{write_label, write_series_start};
    use proptest::prelude::*;

    #[test]
    fn names_are_escaped_as_in_the_official_program() {
        use Escaping::{AllowUtf8, Dots, Underscores, Values};
        for (name, underscores, dots, values) in [
            ("http.status:sum", "http_status:sum", "http_dot_status:sum", "U__http_2e_status:sum"),
            ("label with \u{1f600}", "label_with__", "label__with____", "U__label_20_with_20__1f600_"),
            ("a_b.c", "a_b_c", "a__b_dot_c", "U__a__b_2e_c"),
            ("0a", "_a", "__a", "U___30_a"),
            ("a_plain_name", "a_plain_name", "a_plain_name", "a_plain_name"),
        ] {
            for (scheme, expected) in [(Underscores, underscores), (Dots, dots), (Values, values)] {
                assert_eq!(escape(name, scheme, NameKind::Metric), expected);
            }
            assert_eq!(escape(name, AllowUtf8, NameKind::Metric), name);
        }
        assert_eq!(escape("a:b", Underscores, NameKind::Label), "a_b");
    }

    #[test]
    fn unescaping_leaves_other_names_unchanged() {
        for (escaped, name) in [
            ("U__x_2e_y", "x.y"),
            ("U__x_2E_y", "x.y"),
            ("U__x__y", "x_y"),
            ("U__x", "x"),
            ("U__", ""),
            ("U__\u{e4}", "\u{e4}"),
            ("U___1f600_", "\u{1f600}"),
            ("x_2e_y", "x_2e_y"),
            ("u__x_2e_y", "u__x_2e_y"),
            ("U__x_2e", "U__x_2e"),
            ("U__x_", "U__x_"),
            ("U__x_zz_", "U__x_zz_"),
            ("U__x_d800_", "U__x_d800_"),
            ("U__x_10ffff_", "U__x_10ffff_"),
        ] {
            assert_eq!(unescape_values(escaped), name, "{escaped}");
        }
    }

    #[test]
    fn finds_names_that_become_equal() {
        let collision = |names: &[&'static str]| collision(&names.iter().copied());
        assert_eq!(collision(&["a.b", "a_b"]), Some(("a.b", "a_b")));
        assert_eq!(collision(&["a.b", "a-b"]), Some(("a-b", "a.b")));
        assert_eq!(collision(&["a.b", "a_dot_b"]), Some(("a.b", "a_dot_b")));
        assert_eq!(collision(&["a.b", "U__a_2e_b"]), Some(("U__a_2e_b", "a.b")));
        assert_eq!(collision(&["..name.."]), Some(("..name..", "__name__")));
        assert_eq!(collision(&["a.b", "a.c", "ab", "_a.b"]), None);
    }

    proptest! {
        #[test]
        fn the_values_scheme_is_reversible(name in "[a-z_.:\u{e4}\u{fffd}\"\\\\\n -]{1,8}") {
            let escaped = escape(&name, Escaping::Values, NameKind::Metric);
            prop_assert!(NameKind::Metric.is_plain(&escaped));
            if !NameKind::Metric.is_plain(&name) {
                prop_assert_eq!(unescape_values(&escaped), name.as_str());
            }
        }

        #[test]
        fn escaping_lines_equals_rendering_escaped_names(
            name in "[a-c._\"\\\\\n{}=,-]{1,6}",
            suffix in "(_sum)?",
            labels in prop::collection::vec(("[a-c._\"\\\\\n{}=,-]{1,6}", "[a-c._\"\\\\\n{}=,]{0,6}"), 1..4),
        ) {
            let render = |escaping| {
                let mut line = Vec::new();
                let name = escape(&name, escaping, NameKind::Metric);
                write_series_start(&mut line, &name, &suffix);
                for (index, (label, value)) in labels.iter().enumerate() {
                    if index > 0 {
                        line.push(b',');
                    }
                    write_label(&mut line, &escape(label, escaping, NameKind::Label), value);
                }
                line.extend_from_slice(b"} 1\n");
                String::from_utf8(line).expect("UTF-8")
            };
            let lines = render(Escaping::AllowUtf8).repeat(2);
            for scheme in SCHEMES {
                let mut escaped = Vec::new();
                escape_lines(&mut escaped, &lines, &name, scheme);
                prop_assert_eq!(String::from_utf8(escaped).expect("UTF-8"), render(scheme).repeat(2));
            }
            let needs_quotes =
                !NameKind::Metric.is_plain(&name) || labels.iter().any(|(l, _)| !NameKind::Label.is_plain(l));
            prop_assert!(may_have_quoted_names(lines.as_bytes()) || !needs_quotes);
        }

        #[test]
        fn arbitrary_lines_do_not_panic(lines in "[a{}\"=,\\\\\n ]{0,40}") {
            escape_lines(&mut Vec::new(), &lines, "a", Escaping::Dots);
        }
    }
}
