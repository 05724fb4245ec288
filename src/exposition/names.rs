//! Valid names of metrics and labels, and the suffixes of the series of histograms and summaries.
//!
//! The rules are those of the Prometheus data model. Names that begin with two underscores are valid here; callers decide
//! whether they are reserved.

use super::model::MetricType;

/// The label in which Prometheus stores the metric name.
pub(super) const METRIC_NAME_LABEL: &str = "__name__";

/// The family of the time of the last successful push to each group. The gateway sets it and ignores pushed ones.
pub const PUSH_TIME: &str = "push_time_seconds";
/// The family of the time of the last failed push to each group. The gateway sets it and ignores pushed ones.
pub const FAILURE_TIME: &str = "push_failure_time_seconds";

/// Whether the name is that of a family of push times.
pub(crate) fn is_push_time(name: &str) -> bool {
    name == PUSH_TIME || name == FAILURE_TIME
}

/// The characters that names may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameRules {
    /// ASCII letters, digits, underscores and, in metric names, colons. The first character is not a digit.
    #[default]
    Legacy,
    /// Any non-empty UTF-8.
    Utf8,
}

impl NameRules {
    /// Whether the rules allow a metric with this name.
    pub(super) fn allow_metric_name(self, name: &str) -> bool {
        match self {
            Self::Legacy => is_whole(name.as_bytes(), METRIC),
            Self::Utf8 => !name.is_empty(),
        }
    }

    /// Whether the rules allow a label with this name.
    pub fn allow_label_name(self, name: &str) -> bool {
        match self {
            Self::Legacy => is_whole(name.as_bytes(), LABEL),
            Self::Utf8 => !name.is_empty(),
        }
    }
}

/// A series of a histogram or summary whose name has a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `_bucket`, of histograms only.
    Bucket,
    /// `_sum`.
    Sum,
    /// `_count`.
    Count,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::Bucket, Self::Sum, Self::Count];

    /// The suffix after the name of the histogram or summary.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Bucket => "_bucket",
            Self::Sum => "_sum",
            Self::Count => "_count",
        }
    }

    /// Whether families of this type have the part.
    pub const fn is_part_of(self, kind: MetricType) -> bool {
        match kind {
            MetricType::Histogram | MetricType::GaugeHistogram => true,
            MetricType::Summary => !matches!(self, Self::Bucket),
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => false,
        }
    }
}

/// Splits a name into the name of a possible histogram or summary and the part. `None` if there is no suffix, or nothing
/// before it.
pub fn split_part(name: &str) -> Option<(&str, Part)> {
    let part = match name.as_bytes().last()? {
        b't' if name.ends_with("_count") => Part::Count,
        b't' if name.ends_with("_bucket") => Part::Bucket,
        b'm' if name.ends_with("_sum") => Part::Sum,
        _ => return None,
    };
    let base = &name[..name.len() - part.suffix().len()];
    (!base.is_empty()).then_some((base, part))
}

/// The characters of one kind of name, as bits in [`CLASSES`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Alphabet {
    first: u8,
    later: u8,
}

/// The characters of metric names.
pub(super) const METRIC: Alphabet = Alphabet { first: 1, later: 2 };
/// The characters of label names.
pub(super) const LABEL: Alphabet = Alphabet { first: 4, later: 8 };

/// For every byte, the kinds of names and the positions in which it is allowed.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => METRIC.first | METRIC.later | LABEL.first | LABEL.later,
            b'0'..=b'9' => METRIC.later | LABEL.later,
            b':' => METRIC.first | METRIC.later,
            _ => 0,
        };
        byte += 1;
    }
    classes
}

/// Whether the byte may continue a name.
#[inline]
pub(super) fn continues(byte: u8, alphabet: Alphabet) -> bool {
    CLASSES[usize::from(byte)] & alphabet.later != 0
}

/// The length of the unquoted name at the start of the text, or 0 if there is none.
#[inline]
pub(super) fn prefix_len(text: &[u8], alphabet: Alphabet) -> usize {
    match text.first() {
        Some(&byte) if CLASSES[usize::from(byte)] & alphabet.first != 0 => {}
        _ => return 0,
    }
    text.iter().position(|&byte| !continues(byte, alphabet)).unwrap_or(text.len())
}

fn is_whole(name: &[u8], alphabet: Alphabet) -> bool {
    !name.is_empty() && prefix_len(name, alphabet) == name.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_names_are_ascii_and_only_metrics_have_colons() {
        for (name, metric, label) in [
            ("", false, false),
            ("a", true, true),
            ("_", true, true),
            ("__a", true, true),
            ("a1", true, true),
            ("1a", false, false),
            (":x", true, false),
            ("a:b", true, false),
            ("a-b", false, false),
            ("a.b", false, false),
            ("a b", false, false),
            ("\u{e4}", false, false),
            ("a\0", false, false),
        ] {
            assert_eq!(NameRules::Legacy.allow_metric_name(name), metric, "{name:?}");
            assert_eq!(NameRules::Legacy.allow_label_name(name), label, "{name:?}");
            assert_eq!(NameRules::Utf8.allow_metric_name(name), !name.is_empty());
            assert_eq!(NameRules::Utf8.allow_label_name(name), !name.is_empty());
        }
    }

    #[test]
    fn a_part_needs_a_name_before_its_suffix() {
        for (name, split) in [
            ("h_bucket", Some(("h", Part::Bucket))),
            ("h_sum", Some(("h", Part::Sum))),
            ("h_count", Some(("h", Part::Count))),
            ("h_count_sum", Some(("h_count", Part::Sum))),
            ("_count", None),
            ("count", None),
            ("h_counts", None),
            ("", None),
        ] {
            assert_eq!(split_part(name), split, "{name:?}");
        }
    }
}
