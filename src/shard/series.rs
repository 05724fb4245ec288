//! Finding series in rendered lines without parsing values.
//!
//! Rendered label sets are canonical, so `name{labels}` identifies a series. A histogram or summary is identified by its `_count`
//! line, which it always has.

use crate::exposition::labels::{read_quoted, write_series_start};
use crate::exposition::model::MetricType;
use crate::exposition::names::Part;

use super::pace::Pace;

/// The `name{labels}` of each series in a family's lines, in order.
pub(super) fn series_of<'t>(
    name: &'t str,
    kind: MetricType,
    text: &'t [u8],
) -> impl Iterator<Item = &'t [u8]> {
    let suffix = if Part::Count.is_part_of(kind) { Part::Count.suffix() } else { "" };
    let mut start = Vec::with_capacity(name.len() + suffix.len() + 1);
    write_series_start(&mut start, name, suffix);
    text.split_inclusive(|byte| *byte == b'\n').filter_map(move |line| {
        line.strip_prefix(start.as_slice())?;
        // A value contains no space, so the last one ends the labels.
        Some(&line[..memchr::memrchr(b' ', line)?])
    })
}

/// Whether lines of a family end at the end of a metric.
pub(super) fn ends_metric(name: &str, kind: MetricType, lines: &[u8]) -> bool {
    let Some(before) = lines.len().checked_sub(1) else { return true };
    let last = &lines[memchr::memrchr(b'\n', &lines[..before]).map_or(0, |at| at + 1)..];
    !Part::Count.is_part_of(kind) || series_of(name, kind, last).next().is_some()
}

/// Whether `new` has a series that `old` does not have. Both are pieces of text in the official order; no piece ends within a line.
pub(super) async fn has_new_series<'t>(
    name: &'t str,
    kind: MetricType,
    old: impl IntoIterator<Item = &'t [u8]>,
    new: impl IntoIterator<Item = &'t [u8]>,
    pace: &Pace,
) -> bool {
    let mut old = old.into_iter().flat_map(|piece| series_of(name, kind, piece));
    for series in new.into_iter().flat_map(|piece| series_of(name, kind, piece)) {
        pace.spend(LINE + series.len()).await;
        // The order is the same, so one pass over `old` finds each series of `new`.
        loop {
            let Some(known) = old.next() else { return true };
            if known == series {
                break;
            }
            pace.spend(LINE + known.len()).await;
        }
    }
    false
}

/// The cost of reading a line beside its bytes.
const LINE: usize = 32;

/// Whether the lines contain a series, given as [`series_of`] yields it.
pub(super) fn contains_series(text: &[u8], series: &[u8]) -> bool {
    memchr::memmem::find_iter(text, series)
        .any(|at| (at == 0 || text[at - 1] == b'\n') && text.get(at + series.len()) == Some(&b' '))
}

/// The labels between the braces of `name{labels}`, or of `{"name",labels}`.
pub(super) fn labels_of(series: &[u8]) -> &str {
    if let Some(quoted) = series.strip_prefix(b"{\"") {
        let behind = str::from_utf8(quoted).ok().and_then(read_quoted).map(|(_, behind)| behind);
        return behind.and_then(|behind| behind.strip_prefix(',')?.strip_suffix('}')).unwrap_or_default();
    }
    let open = memchr::memchr(b'{', series).map_or(series.len(), |at| at + 1);
    let inner = series.get(open..series.len().saturating_sub(1)).unwrap_or_default();
    std::str::from_utf8(inner).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::pace::at_once;
    use super::*;

    const HISTOGRAM: &[u8] =
        b"h_bucket{a=\"1\",le=\"+Inf\"} 1\nh_sum{a=\"1\"} 1\nh_count{a=\"1\"} 1\nh_bucket{a=\"2 }\",le=\"+Inf\"} 1\nh_sum{a=\"2 }\"} 1\nh_count{a=\"2 }\"} 1\n";

    #[test]
    fn a_histogram_is_one_series_per_label_set() {
        let series: Vec<_> = series_of("h", MetricType::Histogram, HISTOGRAM).collect();
        assert_eq!(series, [&b"h_count{a=\"1\"}"[..], b"h_count{a=\"2 }\"}"]);
        assert_eq!(labels_of(series[1]), "a=\"2 }\"");
    }

    #[test]
    fn a_quoted_name_precedes_the_labels() {
        let text = b"{\"h {.x_sum\",a=\"1\"} 1\n{\"h {.x_count\",a=\"1\"} 1\n";
        let series: Vec<_> = series_of("h {.x", MetricType::Histogram, text).collect();
        assert_eq!(series, [&b"{\"h {.x_count\",a=\"1\"}"[..]]);
        assert_eq!(labels_of(series[0]), "a=\"1\"");
    }

    #[test]
    fn only_a_series_that_did_not_exist_is_new() {
        let old = b"m{a=\"1\"} 1\nm{a=\"2\"} 1\n";
        let pace = Pace::unlimited();
        let has_new = |old: &[u8], new: &[u8]| {
            let kind = MetricType::Gauge;
            let lines = |text| <[u8]>::split_inclusive(text, |byte| *byte == b'\n');
            let of_lines = at_once(has_new_series("m", kind, lines(old), lines(new), &pace));
            assert_eq!(of_lines, at_once(has_new_series("m", kind, [old], [new], &pace)));
            of_lines
        };
        assert!(!has_new(old, b"m{a=\"2\"} 9\n"));
        assert!(!has_new(old, old));
        assert!(has_new(old, b"m{a=\"1\"} 1\nm{a=\"3\"} 1\n"));
        assert!(has_new(b"", b"m{a=\"1\"} 1\n"));
    }

    #[test]
    fn only_a_whole_series_is_found() {
        let text = b"m{a=\"1\"} 1\nxm{a=\"2\"} 1\n";
        assert!(contains_series(text, b"m{a=\"1\"}"));
        assert!(!contains_series(text, b"m{a=\"2\"}"));
    }
}
