//! The bodies of the pushes that the reference implementation plays.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::PushedFamily;
use crate::exposition::escape::NameKind;
use crate::exposition::names::NameRules;
use crate::exposition::render::{RenderError, render};
use crate::exposition::text::parse;
use crate::shard::key::GroupingKey;
use crate::shard::push::{Content, Mode, Push};

/// Names that are parts of each other, and names that collide or are parts of each other when escaped.
pub(super) const NAMES: [[&str; 4]; 2] =
    [["m", "m_count", "m_sum", "n"], ["m.x", "m_x", "m-x_count", "m_dot_x"]];
const TYPES: [&str; 4] = ["gauge", "counter", "histogram", "summary"];
/// Those with the same label names as the second one can be in one shape.
const LABELS: [&str; 6] =
    ["", "zone=\"x\"", "rack=\"1\"", "rack=\"1\",zone=\"x\"", "zone=\"y\"", "zone=\"z\""];
const HELPS: [&str; 3] = ["one", "another\\n", "a longer text, which is the same in several groups"];

/// A body in the text format. Of several families with one name, the first is used.
pub(super) fn body(names: [&str; 4], families: &[PushedFamily], value: usize) -> String {
    // Writing to a string cannot fail.
    let mut body = String::new();
    let mut named = BTreeSet::new();
    for family in families {
        let name = names[family.name % names.len()];
        if !named.insert(name) {
            continue;
        }
        let kind = TYPES[family.kind % TYPES.len()];
        let is_plain = NameKind::Metric.is_plain(name);
        let quoted = if is_plain { name.to_owned() } else { format!("\"{name}\"") };
        if family.help > 0 {
            let _ = writeln!(body, "# HELP {quoted} {}", HELPS[family.help % HELPS.len()]);
        }
        let _ = writeln!(body, "# TYPE {quoted} {kind}");
        let suffix = if matches!(kind, "histogram" | "summary") { "_count" } else { "" };
        let start = if is_plain { format!("{name}{suffix}{{") } else { format!("{{\"{name}{suffix}\",") };
        for labels in &family.labels {
            let _ = writeln!(body, "{start}{}}} {value}", LABELS[labels % LABELS.len()]);
        }
        for number in 0..family.bulk {
            let _ = writeln!(
                body,
                "{start}number=\"{number}\",text=\"a value that makes lines longer\"}} {value}"
            );
        }
    }
    body
}

/// `None` if the body does not parse, because a name is a part of its own histogram.
pub(crate) fn push_of(mode: Mode, key: &GroupingKey, body: &str) -> Option<Push> {
    let families = parse(body.as_bytes(), NameRules::Utf8).ok()?;
    let content = match render(&families, &key.labels(), NameRules::Utf8, usize::MAX) {
        Ok(rendered) => Content::new(rendered),
        Err(RenderError::Inconsistent(reason)) => Content::Inconsistent(reason),
        Err(error) => unreachable!("there is no limit: {error}"),
    };
    Some(Push { key: key.clone(), mode, source: None, content, shape: None, disposal: None })
}
