//! The names that a histogram or summary makes beside its own: `x_bucket`, `x_sum`, `x_count`.

use super::model::MetricType;

/// A made name, by its suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `_bucket`
    Bucket,
    /// `_sum`
    Sum,
    /// `_count`
    Count,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::Bucket, Self::Sum, Self::Count];

    /// What the part appends to the family's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Bucket => "_bucket",
            Self::Sum => "_sum",
            Self::Count => "_count",
        }
    }

    /// Whether families of this type have the part.
    pub const fn is_made_by(self, kind: MetricType) -> bool {
        match kind {
            MetricType::Histogram | MetricType::GaugeHistogram => true,
            MetricType::Summary => !matches!(self, Self::Bucket),
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => false,
        }
    }
}

/// Splits a name into a base and the part it would be of that base. An empty base does not count.
pub fn part_of(name: &str) -> Option<(&str, Part)> {
    Part::ALL.into_iter().find_map(|part| {
        let base = name.strip_suffix(part.suffix())?;
        (!base.is_empty()).then_some((base, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_base_does_not_count() {
        assert_eq!(part_of("_count"), None);
        assert_eq!(part_of("x_count"), Some(("x", Part::Count)));
        assert_eq!(part_of("x_count_sum"), Some(("x_count", Part::Sum)));
    }

    #[test]
    fn summaries_have_no_buckets() {
        assert!(!Part::Bucket.is_made_by(MetricType::Summary));
        assert!(Part::Bucket.is_made_by(MetricType::Histogram));
    }
}
