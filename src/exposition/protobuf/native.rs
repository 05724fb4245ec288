//! What a native histogram must be so that no server chokes on it: the rules by which Prometheus takes samples in.
//!
//! The official Pushgateway passes on what it was given, and a scrape with one bad histogram in it can fail as a whole.

use super::message::{BucketSpan, Histogram};

/// Schemas that every Prometheus with native histograms knows.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// Whether it has anything but classic buckets.
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

/// Checks a native histogram.
///
/// # Errors
/// What does not fit, for the client.
pub(super) fn check(histogram: &Histogram) -> Result<(), &'static str> {
    if !SCHEMAS.contains(&histogram.schema()) {
        return Err("a native histogram's schema must be between -4 and 8");
    }
    if histogram.zero_threshold().is_nan() || histogram.zero_threshold() < 0.0 {
        return Err("a native histogram's zero threshold must not be negative");
    }
    // As Prometheus tells the two apart.
    if histogram.sample_count_float() > 0.0 || histogram.zero_count_float() > 0.0 {
        check_floats(histogram)
    } else {
        check_whole(histogram)
    }
}

fn check_floats(histogram: &Histogram) -> Result<(), &'static str> {
    check_spans(&histogram.positive_span, histogram.positive_count.len())?;
    check_spans(&histogram.negative_span, histogram.negative_count.len())?;
    let counts = histogram.positive_count.iter().chain(&histogram.negative_count);
    let totals = [histogram.sample_count_float(), histogram.zero_count_float()];
    // Whether they add up is not asked: sums of floats depend on their order.
    if counts.chain(&totals).any(|&count| count < 0.0) {
        return Err("a native histogram's counts must not be negative");
    }
    Ok(())
}

fn check_whole(histogram: &Histogram) -> Result<(), &'static str> {
    check_spans(&histogram.positive_span, histogram.positive_delta.len())?;
    check_spans(&histogram.negative_span, histogram.negative_delta.len())?;
    let observed = u128::from(histogram.zero_count())
        + total(&histogram.positive_delta)?
        + total(&histogram.negative_delta)?;
    let count = u128::from(histogram.sample_count());
    // Observations that are no number are counted, but fall into no bucket. They show in the sum.
    let fits = if histogram.sample_sum().is_nan() { observed <= count } else { observed == count };
    if fits { Ok(()) } else { Err("a native histogram's count does not fit its buckets") }
}

fn check_spans(spans: &[BucketSpan], buckets: usize) -> Result<(), &'static str> {
    let mut index = 0_i64;
    let mut length = 0_u64;
    for (place, span) in spans.iter().enumerate() {
        if place > 0 && span.offset() < 0 {
            return Err("a native histogram's spans overlap");
        }
        index = index.saturating_add(i64::from(span.offset())).saturating_add(i64::from(span.length()));
        length = length.saturating_add(u64::from(span.length()));
        if i32::try_from(index).is_err() {
            return Err("a native histogram's spans are out of range");
        }
    }
    if length != buckets as u64 {
        return Err("a native histogram's spans and buckets differ in number");
    }
    Ok(())
}

/// The sum of counts that are given as differences.
fn total(deltas: &[i64]) -> Result<u128, &'static str> {
    let mut count = 0_i64;
    let mut total = 0_u128;
    for delta in deltas {
        count = count.checked_add(*delta).ok_or("a native histogram's counts are out of range")?;
        total += u128::try_from(count).map_err(|_| "a native histogram's counts must not be negative")?;
    }
    Ok(total)
}
