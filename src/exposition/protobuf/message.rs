//! The messages of the protobuf exposition format, `io.prometheus.client` in release 1 of its description.
//!
//! All fields are optional, as in the format itself: an absent field differs from zero. Texts are bytes, because clients can
//! send text that is not UTF-8, and a specific error is better than a failed decode.
//!
//! Whole bodies are not decoded into these structs, because a body of tiny messages would need many times its size.
//! [`super::parse`] uses them only for what text cannot represent.

use prost::Message;

use crate::exposition::model::{self, Families};

/// A metric family.
#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    /// The metric name.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub name: Option<Vec<u8>>,
    /// The HELP text.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub help: Option<Vec<u8>>,
    /// The number of the type, 0 to 5.
    #[prost(int32, optional, tag = "3")]
    pub kind: Option<i32>,
    /// The metrics.
    #[prost(message, repeated, tag = "4")]
    pub metric: Vec<Metric>,
    /// The unit, which text 0.0.4 cannot represent.
    #[prost(bytes = "vec", optional, tag = "5")]
    pub unit: Option<Vec<u8>>,
}

/// A metric. The family's type determines which value is set.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// The labels.
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    /// The value of a gauge.
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Gauge>,
    /// The value of a counter.
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Counter>,
    /// The value of a summary.
    #[prost(message, optional, tag = "4")]
    pub summary: Option<Summary>,
    /// The value of an untyped metric.
    #[prost(message, optional, tag = "5")]
    pub untyped: Option<Untyped>,
    /// The value of a histogram or gauge histogram.
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Histogram>,
    /// Milliseconds since 1970.
    #[prost(int64, optional, tag = "6")]
    pub timestamp_ms: Option<i64>,
}

/// A label.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LabelPair {
    /// The name.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub name: Option<Vec<u8>>,
    /// The value.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub value: Option<Vec<u8>>,
}

/// A gauge's value.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Gauge {
    /// The value.
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

/// A counter's value.
#[derive(Clone, PartialEq, Message)]
pub struct Counter {
    /// The value.
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
    /// An example of a counted event.
    #[prost(message, optional, tag = "2")]
    pub exemplar: Option<Exemplar>,
    /// When the counter started at 0.
    #[prost(message, optional, tag = "3")]
    pub created_timestamp: Option<Timestamp>,
}

/// The value of an untyped metric.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Untyped {
    /// The value.
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

/// A summary's value.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// Number of observations.
    #[prost(uint64, optional, tag = "1")]
    pub sample_count: Option<u64>,
    /// Sum of observations.
    #[prost(double, optional, tag = "2")]
    pub sample_sum: Option<f64>,
    /// Quantiles.
    #[prost(message, repeated, tag = "3")]
    pub quantile: Vec<Quantile>,
    /// When the counts started at 0.
    #[prost(message, optional, tag = "4")]
    pub created_timestamp: Option<Timestamp>,
}

/// A quantile of a summary.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Quantile {
    /// Its rank, 0 to 1.
    #[prost(double, optional, tag = "1")]
    pub quantile: Option<f64>,
    /// Its value.
    #[prost(double, optional, tag = "2")]
    pub value: Option<f64>,
}

/// A histogram's value: classic buckets, native buckets, or both. A float count above 0 replaces the integer count.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Number of observations.
    #[prost(uint64, optional, tag = "1")]
    pub sample_count: Option<u64>,
    /// The same count as a float.
    #[prost(double, optional, tag = "4")]
    pub sample_count_float: Option<f64>,
    /// Sum of observations.
    #[prost(double, optional, tag = "2")]
    pub sample_sum: Option<f64>,
    /// The classic buckets.
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    /// When the counts started at 0.
    #[prost(message, optional, tag = "15")]
    pub created_timestamp: Option<Timestamp>,
    /// Native: each power of two has `2^schema` buckets.
    #[prost(sint32, optional, tag = "5")]
    pub schema: Option<i32>,
    /// Native: half the width of the zero bucket.
    #[prost(double, optional, tag = "6")]
    pub zero_threshold: Option<f64>,
    /// Native: the number of observations in the zero bucket.
    #[prost(uint64, optional, tag = "7")]
    pub zero_count: Option<u64>,
    /// The same count as a float.
    #[prost(double, optional, tag = "8")]
    pub zero_count_float: Option<f64>,
    /// Native: the positions of the buckets of negative observations.
    #[prost(message, repeated, tag = "9")]
    pub negative_span: Vec<BucketSpan>,
    /// Native: their counts, each as the difference from the previous one.
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    pub negative_delta: Vec<i64>,
    /// Native: their counts as floats.
    #[prost(double, repeated, packed = "false", tag = "11")]
    pub negative_count: Vec<f64>,
    /// Native: the positions of the buckets of positive observations.
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<BucketSpan>,
    /// Native: their counts, each as the difference from the previous one.
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    pub positive_delta: Vec<i64>,
    /// Native: their counts as floats.
    #[prost(double, repeated, packed = "false", tag = "14")]
    pub positive_count: Vec<f64>,
    /// Examples of observations of the native histogram.
    #[prost(message, repeated, tag = "16")]
    pub exemplars: Vec<Exemplar>,
}

/// The complete histogram of a metric that text cannot represent exactly.
pub fn histogram_of(families: &Families<'_>, metric: &model::Metric) -> Option<Histogram> {
    Metric::decode(families.exact(metric)?).ok()?.histogram
}

/// A classic bucket.
#[derive(Clone, PartialEq, Message)]
pub struct Bucket {
    /// Number of observations up to and including the bound.
    #[prost(uint64, optional, tag = "1")]
    pub cumulative_count: Option<u64>,
    /// The same count as a float.
    #[prost(double, optional, tag = "4")]
    pub cumulative_count_float: Option<f64>,
    /// The inclusive upper bound.
    #[prost(double, optional, tag = "2")]
    pub upper_bound: Option<f64>,
    /// An example of an observation.
    #[prost(message, optional, tag = "3")]
    pub exemplar: Option<Exemplar>,
}

/// A span of consecutive native buckets.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct BucketSpan {
    /// The index of the first bucket; from the second span on, the gap to the previous span.
    #[prost(sint32, optional, tag = "1")]
    pub offset: Option<i32>,
    /// Number of buckets.
    #[prost(uint32, optional, tag = "2")]
    pub length: Option<u32>,
}

/// An example of an event that a metric counted. Usually the labels identify a trace.
#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    /// The labels of the exemplar.
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    /// The observed value.
    #[prost(double, optional, tag = "2")]
    pub value: Option<f64>,
    /// The time of the observation.
    #[prost(message, optional, tag = "3")]
    pub timestamp: Option<Timestamp>,
}

/// A point in time.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}
