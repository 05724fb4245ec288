//! Protobuf bodies survive rendering and scrapes, and invalid ones are rejected.

mod hostile_bodies;
mod rejections;
mod round_trip;
mod scrape_pieces;
mod strategies;

use prost::Message;

use super::message::{self, MetricFamily};
use crate::exposition::model::{Families, Family, MetricType, Value};

/// The contents of a family in a comparable form: metrics sorted by labels, floats as bits.
#[derive(Debug, PartialEq)]
pub(super) struct Contents {
    name: String,
    help: Option<String>,
    unit: Option<String>,
    kind: MetricType,
    metrics: Vec<MetricContents>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MetricContents {
    labels: Vec<(String, String)>,
    value: Vec<u64>,
    points: Vec<(u64, u64)>,
    exact: String,
}

/// The bits of a float, the same for all NaN.
fn bits(float: f64) -> u64 {
    if float.is_nan() { f64::NAN.to_bits() } else { float.to_bits() }
}

pub(super) fn contents(families: &Families<'_>, family: &Family<'_>) -> Contents {
    let metrics = families.metrics_of(family).iter().map(|metric| {
        let mut labels: Vec<(String, String)> = families
            .labels_of(metric)
            .iter()
            .map(|label| (label.name.to_string(), label.value.to_string()))
            .collect();
        // Rendering adds it, too.
        if !labels.iter().any(|(name, _)| name == "instance") {
            labels.push(("instance".to_owned(), String::new()));
        }
        labels.sort();
        let (value, points) = match &metric.value {
            Value::Single(value) => (vec![bits(*value)], Default::default()),
            Value::Summary { count, sum, quantiles } => (vec![*count, bits(*sum)], *quantiles),
            Value::Histogram { count, sum, buckets } => (vec![bits(*count), bits(*sum)], *buckets),
        };
        let points = families.points_of(points).iter().map(|point| (bits(point.at), bits(point.value)));
        let exact = families.exact(metric).unwrap_or_default();
        let exact = exact_parts(&message::Metric::decode(exact).expect("written by the gateway"));
        MetricContents { labels, value, points: points.collect(), exact }
    });
    let mut metrics: Vec<_> = metrics.collect();
    metrics.sort();
    let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_ref().map(ToString::to_string);
    Contents {
        name: family.name.to_string(),
        help: text(&family.help),
        unit: text(&family.unit),
        kind: family.kind,
        metrics,
    }
}

/// The parts of a metric that lines cannot represent, as text. Absent and empty fields are equal, because there are several
/// ways to encode the same value.
pub(super) fn exact_parts(metric: &message::Metric) -> String {
    let inexact = |count: u64| Some(count).filter(|count| *count > 1 << 53);
    let counter = metric.counter.clone().unwrap_or_default();
    let created = metric.summary.as_ref().and_then(|summary| summary.created_timestamp);
    let mut histogram = metric.histogram.clone().unwrap_or_default();
    let buckets: Vec<_> = std::mem::take(&mut histogram.bucket)
        .into_iter()
        .enumerate()
        .map(|(at, bucket)| {
            (at, inexact(bucket.cumulative_count()), bucket.cumulative_count_float, bucket.exemplar)
        })
        .filter(|(_, count, float, exemplar)| count.is_some() || float.is_some() || exemplar.is_some())
        .collect();
    histogram.sample_count = inexact(histogram.sample_count());
    // Lines represent it.
    histogram.sample_sum = None;
    format!("{:?} {:?} {created:?} {histogram:?} {buckets:?}", counter.exemplar, counter.created_timestamp)
}

/// Encodes a body of families.
pub(super) fn delimited(families: &[MetricFamily]) -> Vec<u8> {
    let mut body = Vec::new();
    for family in families {
        family.encode_length_delimited(&mut body).expect("writing to a vector cannot fail");
    }
    body
}

/// A family with one gauge, as a base for other families.
pub(super) fn gauge(name: &str, value: f64) -> MetricFamily {
    let gauge = Some(message::Gauge { value: Some(value) });
    MetricFamily {
        name: Some(name.into()),
        kind: Some(1),
        metric: vec![message::Metric { gauge, ..Default::default() }],
        ..Default::default()
    }
}
