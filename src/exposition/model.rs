//! What a push body says, in flat tables that borrow from the body.
//!
//! One table per kind of thing, so that a body costs a handful of allocations however many series it has.

use std::borrow::Cow;
use std::ops::Range;

/// The type of a metric family, as the protobuf exposition format knows it.
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
    /// As a histogram, but its counts may fall. Shown as a histogram in text.
    GaugeHistogram,
}

impl MetricType {
    /// The word after `# TYPE name ` in the text format 0.0.4.
    pub const fn text_name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
            Self::Histogram | Self::GaugeHistogram => "histogram",
        }
    }
}

/// The parsed families of one body. The tables belong together: spans point from one into the next.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Families<'a> {
    /// In the order in which the body first names them; names are unique.
    pub families: Vec<Family<'a>>,
    /// The metrics of all families; those of one family stand together, in body order.
    pub metrics: Vec<Metric>,
    /// The labels of all metrics, in body order, names unique within a metric.
    pub labels: Vec<Label<'a>>,
    /// The buckets and quantiles of all metrics.
    pub points: Vec<Point>,
    /// Protobuf of all values that text cannot show, see [`Families::beyond_text`].
    pub beyond_text: Vec<u8>,
    /// Why a push of this is to be refused, where the body can be read but not be kept. The families do not count then.
    pub refusal: Option<Box<str>>,
}

/// One metric family; of text with at least one metric, of protobuf perhaps with none.
#[derive(Debug, Clone, PartialEq)]
pub struct Family<'a> {
    /// The metric name, valid by the rules the parser was given.
    pub name: Cow<'a, str>,
    /// The unescaped HELP text. In text an empty one is none, in protobuf it is not.
    pub help: Option<Cow<'a, str>>,
    /// The unit, which only protobuf has.
    pub unit: Option<Cow<'a, str>>,
    /// The type; untyped where none was given.
    pub kind: MetricType,
    /// Where its metrics stand in [`Families::metrics`].
    pub metrics: Span,
}

/// One metric: a series, or all series of one histogram or summary.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Where its labels stand in [`Families::labels`], without `le` and `quantile` of a bucket or quantile.
    pub labels: Span,
    /// What it measures.
    pub value: Value,
    /// Milliseconds; a push with one is refused, so it is kept only to say so.
    pub timestamp: Option<i64>,
    /// Where its value stands in [`Families::beyond_text`]; empty if `value` says it all.
    pub beyond_text: Span,
}

/// A metric's value. Its kind fits the family's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a counter, gauge or untyped metric.
    Single(f64),
    /// Of a summary. The count is a whole number, quantiles stand in [`Families::points`].
    Summary {
        /// Number of observations, truncated.
        count: u64,
        /// Sum of observations.
        sum: f64,
        /// Quantiles in body order.
        quantiles: Span,
    },
    /// Of a histogram or gauge histogram. Counts may be fractions, never negative.
    Histogram {
        /// Number of observations.
        count: f64,
        /// Sum of observations.
        sum: f64,
        /// Buckets in body order, without those whose `le` is NaN; `+Inf` only if the body had it.
        buckets: Span,
    },
}

/// A bucket (`at` is its upper bound) or a quantile (`at` is its rank).
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
    /// The name, valid by the rules the parser was given.
    pub name: Cow<'a, str>,
    /// Any UTF-8.
    pub value: Cow<'a, str>,
}

/// A range in one of the tables, half as wide as a `Range<usize>`.
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
    /// The metrics of a family.
    pub fn metrics_of(&self, family: &Family<'a>) -> &[Metric] {
        &self.metrics[family.metrics.range()]
    }

    /// The labels of a metric.
    pub fn labels_of(&self, metric: &Metric) -> &[Label<'a>] {
        &self.labels[metric.labels.range()]
    }

    /// The value as protobuf, if there is more to it than text can show: native buckets, exemplars, times of creation,
    /// counts that are no float or that were sent as one. It is the field of a metric message which goes with the type.
    pub fn beyond_text(&self, metric: &Metric) -> Option<&[u8]> {
        (!metric.beyond_text.is_empty()).then(|| &self.beyond_text[metric.beyond_text.range()])
    }

    /// Buckets or quantiles.
    pub fn points_of(&self, span: Span) -> &[Point] {
        &self.points[span.range()]
    }
}
