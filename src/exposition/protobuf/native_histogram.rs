//! Native histograms: the checks that keep servers able to ingest them, and their buckets.
//!
//! The rules are those of Prometheus for ingesting samples. The official Pushgateway passes on any native histogram, and one
//! invalid histogram can make a whole scrape fail.

use super::message::{BucketSpan, Histogram};
use super::native_bounds::bound;

/// The schemas that every Prometheus release with native histograms supports.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// A bucket of a native histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NativeBucket {
    /// Which of the bounds are inclusive.
    pub boundary_rule: BoundaryRule,
    /// The lower bound.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// Number of observations in this bucket alone.
    pub count: f64,
}

/// Which bounds of a bucket are inclusive. The names and numbers are those of the HTTP API of Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundaryRule {
    /// Only the upper bound is inclusive: a bucket of positive observations.
    OpenLeft = 0,
    /// Only the lower bound is inclusive: a bucket of negative observations.
    OpenRight = 1,
    /// Both bounds are inclusive: the zero bucket.
    ClosedBoth = 3,
}

/// Why a native histogram would make servers reject the scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum NativeHistogramError {
    #[error("a native histogram's schema must be between -4 and 8")]
    Schema,
    #[error("a native histogram's zero threshold must not be negative")]
    ZeroThreshold,
    #[error("a native histogram's counts must not be negative")]
    NegativeCount,
    #[error("a native histogram's counts are out of range")]
    CountRange,
    #[error("a native histogram's count does not match its buckets")]
    CountMismatch,
    #[error("a native histogram's spans overlap")]
    SpanOverlap,
    #[error("a native histogram's spans are out of range")]
    SpanRange,
    #[error("a native histogram's spans and buckets differ in number")]
    SpanLength,
}

/// The non-empty buckets of a native histogram, from the lowest to the highest. `None` for a classic histogram.
pub fn native_buckets(histogram: &Histogram) -> Option<Vec<NativeBucket>> {
    if !is_native(histogram) {
        return None;
    }
    let schema = histogram.schema();
    let side = |spans, deltas, counts: &[f64]| -> Vec<(i64, f64)> {
        let counts = if is_float(histogram) { counts.to_vec() } else { counts_of(deltas) };
        indices(spans).zip(counts).filter(|(_, count)| *count != 0.0).collect()
    };
    let negative = side(&histogram.negative_span, &histogram.negative_delta, &histogram.negative_count);
    let positive = side(&histogram.positive_span, &histogram.positive_delta, &histogram.positive_count);
    let mut buckets = Vec::with_capacity(negative.len() + 1 + positive.len());
    buckets.extend(negative.into_iter().rev().map(|(index, count)| {
        let (lower, upper) = (-bound(index, schema), -bound(index - 1, schema));
        NativeBucket { boundary_rule: BoundaryRule::OpenRight, lower, upper, count }
    }));
    let zero_count =
        if is_float(histogram) { histogram.zero_count_float() } else { histogram.zero_count() as f64 };
    if zero_count > 0.0 {
        let threshold = histogram.zero_threshold();
        let (lower, upper) = (-threshold, threshold);
        buckets.push(NativeBucket {
            boundary_rule: BoundaryRule::ClosedBoth,
            lower,
            upper,
            count: zero_count,
        });
    }
    buckets.extend(positive.into_iter().map(|(index, count)| {
        let (lower, upper) = (bound(index - 1, schema), bound(index, schema));
        NativeBucket { boundary_rule: BoundaryRule::OpenLeft, lower, upper, count }
    }));
    Some(buckets)
}

/// The indices of the buckets in these spans.
fn indices(spans: &[BucketSpan]) -> impl Iterator<Item = i64> {
    let mut next = 0;
    spans.iter().flat_map(move |span| {
        let start = next + i64::from(span.offset());
        next = start + i64::from(span.length());
        start..next
    })
}

fn counts_of(deltas: &[i64]) -> Vec<f64> {
    let counts = deltas.iter().scan(0_i64, |count, delta| {
        *count = count.wrapping_add(*delta);
        Some(*count as f64)
    });
    counts.collect()
}

/// Whether the histogram has more than classic buckets.
pub(super) fn is_native(histogram: &Histogram) -> bool {
    !histogram.positive_span.is_empty()
        || !histogram.negative_span.is_empty()
        || !histogram.positive_delta.is_empty()
        || !histogram.negative_delta.is_empty()
        || !histogram.positive_count.is_empty()
        || !histogram.negative_count.is_empty()
        || histogram.zero_threshold() > 0.0
        || histogram.zero_count() > 0
        || histogram.zero_count_float() > 0.0
}

/// Checks that servers can ingest a native histogram.
pub(super) fn check(histogram: &Histogram) -> Result<(), NativeHistogramError> {
    if !SCHEMAS.contains(&histogram.schema()) {
        return Err(NativeHistogramError::Schema);
    }
    if histogram.zero_threshold().is_nan() || histogram.zero_threshold() < 0.0 {
        return Err(NativeHistogramError::ZeroThreshold);
    }
    if is_float(histogram) { check_floats(histogram) } else { check_whole(histogram) }
}

/// Whether the counts are floats. The rule is that of Prometheus.
pub fn is_float(histogram: &Histogram) -> bool {
    histogram.sample_count_float() > 0.0 || histogram.zero_count_float() > 0.0
}

fn check_floats(histogram: &Histogram) -> Result<(), NativeHistogramError> {
    check_spans(&histogram.positive_span, histogram.positive_count.len())?;
    check_spans(&histogram.negative_span, histogram.negative_count.len())?;
    let counts = histogram.positive_count.iter().chain(&histogram.negative_count);
    let totals = [histogram.sample_count_float(), histogram.zero_count_float()];
    // The total is not checked, because sums of floats depend on their order.
    if counts.chain(&totals).any(|&count| count < 0.0) {
        return Err(NativeHistogramError::NegativeCount);
    }
    Ok(())
}

fn check_whole(histogram: &Histogram) -> Result<(), NativeHistogramError> {
    check_spans(&histogram.positive_span, histogram.positive_delta.len())?;
    check_spans(&histogram.negative_span, histogram.negative_delta.len())?;
    let observed = u128::from(histogram.zero_count())
        + total(&histogram.positive_delta)?
        + total(&histogram.negative_delta)?;
    let count = u128::from(histogram.sample_count());
    // NaN observations are counted but are in no bucket. They make the sum NaN.
    let matches = if histogram.sample_sum().is_nan() { observed <= count } else { observed == count };
    if matches { Ok(()) } else { Err(NativeHistogramError::CountMismatch) }
}

fn check_spans(spans: &[BucketSpan], buckets: usize) -> Result<(), NativeHistogramError> {
    let mut index = 0_i64;
    let mut length = 0_u64;
    for (position, span) in spans.iter().enumerate() {
        if position > 0 && span.offset() < 0 {
            return Err(NativeHistogramError::SpanOverlap);
        }
        index = index.saturating_add(i64::from(span.offset())).saturating_add(i64::from(span.length()));
        length = length.saturating_add(u64::from(span.length()));
        if i32::try_from(index).is_err() {
            return Err(NativeHistogramError::SpanRange);
        }
    }
    if length != buckets as u64 {
        return Err(NativeHistogramError::SpanLength);
    }
    Ok(())
}

/// The sum of counts that are encoded as differences.
fn total(deltas: &[i64]) -> Result<u128, NativeHistogramError> {
    let mut count = 0_i64;
    let mut total = 0_u128;
    for delta in deltas {
        count = count.checked_add(*delta).ok_or(NativeHistogramError::CountRange)?;
        total += u128::try_from(count).map_err(|_| NativeHistogramError::NegativeCount)?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::exposition::names::NameRules;
    use crate::exposition::protobuf::histogram_of;
    use crate::exposition::protobuf::message::{self, MetricFamily};
    use crate::exposition::protobuf::parse;

    fn buckets(histogram: Histogram) -> Option<Vec<NativeBucket>> {
        let metric = message::Metric { histogram: Some(histogram), ..Default::default() };
        let family = MetricFamily {
            name: Some("h".into()),
            kind: Some(4),
            metric: vec![metric],
            ..Default::default()
        };
        let body = family.encode_length_delimited_to_vec();
        let families = parse(&body, NameRules::Legacy).expect("valid");
        assert_eq!(families.rejection, None);
        native_buckets(&histogram_of(&families, &families.metrics[0])?)
    }

    fn span(offset: i32, length: u32) -> BucketSpan {
        BucketSpan { offset: Some(offset), length: Some(length) }
    }

    #[test]
    fn buckets_are_listed_from_the_lowest_to_the_highest() {
        let histogram = Histogram {
            sample_count: Some(12),
            zero_threshold: Some(0.25),
            zero_count: Some(1),
            negative_span: vec![span(0, 1), span(2, 1)],
            negative_delta: vec![1, 2],
            // The bucket with index 1 is empty; index 2 is a gap.
            positive_span: vec![span(0, 2), span(1, 1)],
            positive_delta: vec![2, -2, 5],
            ..Default::default()
        };
        let bucket = |boundary_rule, lower, upper, count| NativeBucket { boundary_rule, lower, upper, count };
        let expected = vec![
            bucket(BoundaryRule::OpenRight, -8.0, -4.0, 3.0),
            bucket(BoundaryRule::OpenRight, -1.0, -0.5, 1.0),
            bucket(BoundaryRule::ClosedBoth, -0.25, 0.25, 1.0),
            bucket(BoundaryRule::OpenLeft, 0.5, 1.0, 2.0),
            bucket(BoundaryRule::OpenLeft, 4.0, 8.0, 5.0),
        ];
        assert_eq!(buckets(histogram), Some(expected));
    }

    #[test]
    fn counts_may_be_floats() {
        let histogram = Histogram {
            sample_count_float: Some(2.5),
            schema: Some(-1),
            positive_span: vec![span(1, 2)],
            positive_count: vec![0.5, 2.0],
            ..Default::default()
        };
        let buckets = buckets(histogram).expect("native");
        let found: Vec<_> = buckets.iter().map(|bucket| (bucket.lower, bucket.upper, bucket.count)).collect();
        assert_eq!(found, [(1.0, 4.0, 0.5), (4.0, 16.0, 2.0)]);
    }

    #[test]
    fn a_classic_histogram_has_no_native_buckets() {
        assert_eq!(buckets(Histogram { sample_count_float: Some(1.0), ..Default::default() }), None);
        assert_eq!(buckets(Histogram::default()), None);
        // A histogram with only a threshold is native and empty.
        assert_eq!(buckets(Histogram { zero_threshold: Some(0.1), ..Default::default() }), Some(Vec::new()));
    }
}
