//! The contents of a push body, in flat tables that borrow from the body.
//!
//! There is one table per kind of item, so that a body costs a handful of allocations, however many series it has.

use std::borrow::Cow;
use std::ops::Range;

use super::consistency::Inconsistency;
use super::names::is_push_time;

/// The type of a metric family, as in the protobuf exposition format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricType {
    /// A cumulative value.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Quantiles, sum and count.
    Summary,
    /// No type given.
    Untyped,
    /// Cumulative buckets, sum and count.
    Histogram,
    /// A histogram whose counts may also decrease. In text it is written as a histogram.
    GaugeHistogram,
}

impl MetricType {
    /// The type in a TYPE line of the text format 0.0.4.
    pub const fn text_name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
            Self::Histogram | Self::GaugeHistogram => "histogram",
        }
    }

    /// The name of the type in the protobuf format.
    pub const fn protobuf_name(self) -> &'static str {
        match self {
            Self::Counter => "COUNTER",
            Self::Gauge => "GAUGE",
            Self::Summary => "SUMMARY",
            Self::Untyped => "UNTYPED",
            Self::Histogram => "HISTOGRAM",
            Self::GaugeHistogram => "GAUGE_HISTOGRAM",
        }
    }
}

/// The parsed families of one body. The tables belong together: spans point from one into the next.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Families<'a> {
    /// The families, in the order in which the body first names them. Names are unique.
    pub families: Vec<Family<'a>>,
    /// The metrics of all families. Those of one family are contiguous and in body order.
    pub metrics: Vec<Metric>,
    /// The labels of all metrics, in body order. Names are unique within a metric.
    pub labels: Vec<Label<'a>>,
    /// The buckets and quantiles of all metrics.
    pub points: Vec<Point>,
    /// The protobuf of all values that text cannot represent, see [`Families::exact`].
    pub exact: Vec<u8>,
    /// Whether a metric has a timestamp, for which the push must be rejected before all other reasons.
    pub has_timestamp: bool,
    /// Why the push must be rejected although the body can be parsed. If set, the families are not used.
    pub rejection: Option<Box<Inconsistency>>,
}

/// One metric family. From text it has at least one metric; from protobuf it may have none.
#[derive(Debug, Clone, PartialEq)]
pub struct Family<'a> {
    /// The metric name, valid by the parser's rules.
    pub name: Cow<'a, str>,
    /// The unescaped HELP text. An empty HELP is `None` in text but not in protobuf.
    pub help: Option<Cow<'a, str>>,
    /// The unit, which only protobuf can express.
    pub unit: Option<Cow<'a, str>>,
    /// The type; untyped if the body has none.
    pub kind: MetricType,
    /// Its metrics in [`Families::metrics`].
    pub metrics: Span,
}

/// One metric: a series, or all series of one histogram or summary.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its labels in [`Families::labels`], without the `le` or `quantile` of a bucket or quantile.
    pub labels: Span,
    /// The value.
    pub value: Value,
    /// The timestamp in milliseconds since 1970. A push with one is rejected; the field exists for the error.
    pub timestamp: Option<i64>,
    /// Its value in the table [`Families::exact`]; empty if `value` is complete.
    pub exact: Span,
}

/// A metric's value. Its variant matches the family's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// The value of a counter, a gauge or an untyped metric.
    Single(f64),
    /// The value of a summary.
    Summary {
        /// Number of observations, truncated to an integer.
        count: u64,
        /// Sum of observations.
        sum: f64,
        /// Quantiles in [`Families::points`], in body order.
        quantiles: Span,
    },
    /// The value of a histogram or gauge histogram. Counts may be fractions but are never negative.
    Histogram {
        /// Number of observations.
        count: f64,
        /// Sum of observations.
        sum: f64,
        /// Buckets in [`Families::points`], in body order. From text, buckets whose `le` is NaN are dropped. `+Inf` is there only
        /// if the body has it.
        buckets: Span,
    },
}

/// A bucket (`at` is its inclusive upper bound) or a quantile (`at` is its rank).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// `le` or `quantile`.
    pub at: f64,
    /// Cumulative count, or the quantile's value.
    pub value: f64,
}

/// A label name with its unescaped value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label<'a> {
    /// The name, valid by the parser's rules.
    pub name: Cow<'a, str>,
    /// The value, any UTF-8.
    pub value: Cow<'a, str>,
}

/// A range in one of the tables, in half the size of a `Range<usize>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First index.
    pub start: u32,
    /// Index after the last.
    pub end: u32,
}

impl Span {
    /// The span as a range, to index with.
    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Number of items.
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are no items.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

impl<'a> Families<'a> {
    /// Removes the families of push times, which the gateway sets itself. Whether they have timestamps still counts.
    pub fn remove_push_times(&mut self) {
        self.families.retain(|family| !is_push_time(&family.name));
    }

    /// The metrics of a family.
    pub fn metrics_of(&self, family: &Family<'a>) -> &[Metric] {
        &self.metrics[family.metrics.range()]
    }

    /// The labels of a metric.
    pub fn labels_of(&self, metric: &Metric) -> &[Label<'a>] {
        &self.labels[metric.labels.range()]
    }

    /// The value as protobuf, if text cannot represent all of it: native buckets, exemplars, creation times, counts that a
    /// float cannot represent or that were sent as floats. It is the field of a `Metric` message that belongs to the type.
    pub fn exact(&self, metric: &Metric) -> Option<&[u8]> {
        (!metric.exact.is_empty()).then(|| &self.exact[metric.exact.range()])
    }

    /// The buckets or quantiles in a span.
    pub fn points_of(&self, span: Span) -> &[Point] {
        &self.points[span.range()]
    }
}
