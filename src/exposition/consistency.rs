//! Why a push that can be parsed must be rejected, and the checks of its metric names.

use std::collections::HashMap;

use super::escape::{NameKind, SCHEMES, escape};
use super::model::{Families, MetricType};
use super::names::{NameRules, split_part};
use super::protobuf::NativeHistogramError;

/// Why the metrics of a push contradict each other, other metrics, or the rules of the exposition.
///
/// The push gets an error with this text, and its group a failure time. Where the official Pushgateway rejects the same
/// push, the text is its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say what the fields are")]
pub enum Inconsistency {
    /// A sample has a timestamp.
    #[error("pushed metrics must not have timestamps")]
    Timestamp,
    /// A metric has another type than its family.
    #[error("collected metric {metric:?} is not a {}", .kind.protobuf_name())]
    WrongType { metric: String, kind: MetricType },
    /// A label name begins with two underscores.
    #[error("collected metric {metric:?} has a label with an invalid name: {label}")]
    ReservedLabel { metric: String, label: String },
    /// A histogram has a label `le`, or a summary a label `quantile`, of its own.
    #[error("collected metric {metric:?} must not have an explicit {label:?} label")]
    ExplicitLabel { metric: String, label: &'static str },
    /// A metric has a label twice.
    #[error("collected metric {metric:?} has two or more labels with the same name: {label}")]
    DuplicateLabel { metric: String, label: String },
    /// A label value is not UTF-8.
    #[error("collected metric {metric:?} has a label named {label:?} whose value is not utf8: {value}")]
    LabelNotUtf8 { metric: String, label: String, value: String },
    /// A metric name of a protobuf body is invalid. The name is in quotes.
    #[error("invalid metric name {0}")]
    MetricName(String),
    /// A label name of a protobuf body is invalid. The name is in quotes.
    #[error("collected metric {metric:?} has a label with an invalid name: {label}")]
    LabelName { metric: String, label: String },
    /// The type of a protobuf body does not exist. The name is in quotes.
    #[error("collected metric family {family} has the unknown type {number}")]
    UnknownType { family: String, number: i32 },
    /// An exemplar has a label that is not UTF-8.
    #[error("collected metric {metric:?}: an exemplar has a label that is not utf8")]
    ExemplarNotUtf8 { metric: String },
    /// A native histogram would make servers reject the scrape.
    #[error("collected metric {metric:?}: {reason}")]
    NativeHistogram { metric: String, reason: NativeHistogramError },
    /// A metric that text cannot represent is too large to be decoded.
    #[error("collected metric {metric:?}: the metric is too large")]
    MetricTooLarge { metric: String },
    /// The metrics that text cannot represent are too large together.
    #[error("collected metric {metric:?}: the metrics that text cannot represent are too large")]
    ExactTooLarge { metric: String },
    /// Two metrics have the same name and labels.
    #[error(
        "collected metric {metric:?} {{ {labels} }} was collected before with the same name and label values"
    )]
    DuplicateSeries { metric: String, labels: String },
    /// A family has another type in other groups.
    #[error("gathered metric family {family} has type {} but should be {}", .pushed.protobuf_name(), .existing.protobuf_name())]
    TypeConflict { family: String, existing: MetricType, pushed: MetricType },
    /// A metric has the name of a series of a histogram or summary.
    #[error("collected metric named {name:?} collides with previously collected {} named {base:?}", .kind.text_name())]
    SuffixCollision { name: String, base: String, kind: MetricType },
    /// Two names become equal when they are escaped.
    #[error("names {name:?} and {other:?} collide after escaping for scrapers without UTF-8 support")]
    EscapedNames { name: String, other: String },
    /// Two label names of a metric become equal when they are escaped.
    #[error(
        "collected metric {metric:?}: label names {label:?} and {other:?} collide after escaping for scrapers without \
         UTF-8 support"
    )]
    EscapedLabels { metric: String, label: String, other: String },
    /// Two series become equal when their label names are escaped.
    #[error("collected metric {metric:?}: series collide after escaping for scrapers without UTF-8 support")]
    EscapedSeries { metric: String },
}

impl Inconsistency {
    /// The metric `name` has the name of a series of the histogram or summary `base`.
    pub fn suffix_collision(name: &str, base: &str, kind: MetricType) -> Self {
        Self::SuffixCollision { name: name.to_owned(), base: base.to_owned(), kind }
    }

    /// Other groups have the family with the type `existing`.
    pub fn type_conflict(family: &str, existing: MetricType, pushed: MetricType) -> Self {
        Self::TypeConflict { family: family.to_owned(), existing, pushed }
    }

    /// The two names become equal when they are escaped.
    pub fn escaped_names(name: &str, other: &str) -> Self {
        Self::EscapedNames { name: name.to_owned(), other: other.to_owned() }
    }
}

/// Checks the metric names of a body against each other, as they are and as scrapers without UTF-8 support see them.
pub(super) fn check_names(families: &Families<'_>, rules: NameRules) -> Result<(), Inconsistency> {
    check_suffixes(families)?;
    if rules == NameRules::Utf8 { check_escaped_names(families) } else { Ok(()) }
}

fn check_suffixes(families: &Families<'_>) -> Result<(), Inconsistency> {
    use MetricType::{GaugeHistogram, Histogram, Summary};
    if !families.families.iter().any(|f| matches!(f.kind, Histogram | GaugeHistogram | Summary)) {
        return Ok(());
    }
    let kinds: HashMap<&str, MetricType, foldhash::fast::RandomState> =
        families.families.iter().map(|family| (&*family.name, family.kind)).collect();
    for family in &families.families {
        if let Some((base, part)) = split_part(&family.name)
            && let Some(&kind) = kinds.get(base)
            && part.is_part_of(kind)
        {
            return Err(Inconsistency::suffix_collision(&family.name, base, kind));
        }
    }
    Ok(())
}

fn check_escaped_names(families: &Families<'_>) -> Result<(), Inconsistency> {
    if families.families.iter().all(|family| NameKind::Metric.is_plain(&family.name)) {
        return Ok(());
    }
    for scheme in SCHEMES {
        let mut escaped = HashMap::with_capacity(families.families.len());
        for family in &families.families {
            if let Some(other) = escaped.insert(escape(&family.name, scheme, NameKind::Metric), family) {
                return Err(Inconsistency::escaped_names(&family.name, &other.name));
            }
        }
        for (name, family) in &escaped {
            let Some((base, part)) = split_part(name) else { continue };
            if let Some(other) = escaped.get(base).filter(|other| part.is_part_of(other.kind)) {
                return Err(Inconsistency::suffix_collision(&family.name, &other.name, other.kind));
            }
        }
    }
    Ok(())
}
