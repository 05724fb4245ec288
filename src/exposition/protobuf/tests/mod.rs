//! What protobuf says is kept, and what must not be kept is refused.

mod hostile_bodies;
mod rejections;
mod round_trip;
mod scrape_pieces;
mod strategies;

use prost::Message;

use super::message::{self, MetricFamily};
use crate::exposition::model::{Families, Family, MetricType, Value};

/// What a family says, in a form that can be compared: metrics sorted by their labels, floats by their bits.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    name: String,
    help: Option<String>,
    unit: Option<String>,
    kind: MetricType,
    metrics: Vec<SaidMetric>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SaidMetric {
    labels: Vec<(String, String)>,
    value: Vec<u64>,
    points: Vec<(u64, u64)>,
    beyond_text: String,
}

/// All NaN are one.
fn bits(float: f64) -> u64 {
    if float.is_nan() { f64::NAN.to_bits() } else { float.to_bits() }
}

pub(super) fn said(families: &Families<'_>, family: &Family<'_>) -> Said {
    let metrics = families.metrics_of(family).iter().map(|metric| {
        let mut labels: Vec<(String, String)> = families
            .labels_of(metric)
            .iter()
            .map(|label| (label.name.to_string(), label.value.to_string()))
            .collect();
        // As rendering does.
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
        let beyond_text = families.beyond_text(metric).unwrap_or_default();
        let beyond_text = words(&message::Metric::decode(beyond_text).expect("written by ourselves"));
        SaidMetric { labels, value, points: points.collect(), beyond_text }
    });
    let mut metrics: Vec<_> = metrics.collect();
    metrics.sort();
    let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_ref().map(ToString::to_string);
    Said {
        name: family.name.to_string(),
        help: text(&family.help),
        unit: text(&family.unit),
        kind: family.kind,
        metrics,
    }
}

/// What no line shows, in words: absent and empty are one, for the same thing may be spelled in several ways.
pub(super) fn words(metric: &message::Metric) -> String {
    let no_float = |count: u64| Some(count).filter(|count| *count > 1 << 53);
    let counter = metric.counter.clone().unwrap_or_default();
    let created = metric.summary.as_ref().and_then(|summary| summary.created_timestamp);
    let mut histogram = metric.histogram.clone().unwrap_or_default();
    let buckets: Vec<_> = std::mem::take(&mut histogram.bucket)
        .into_iter()
        .enumerate()
        .map(|(at, bucket)| {
            (at, no_float(bucket.cumulative_count()), bucket.cumulative_count_float, bucket.exemplar)
        })
        .filter(|(_, count, float, exemplar)| count.is_some() || float.is_some() || exemplar.is_some())
        .collect();
    histogram.sample_count = no_float(histogram.sample_count());
    // Shown by lines.
    histogram.sample_sum = None;
    format!("{:?} {:?} {created:?} {histogram:?} {buckets:?}", counter.exemplar, counter.created_timestamp)
}

/// A body of these families.
pub(super) fn delimited(families: &[MetricFamily]) -> Vec<u8> {
    let mut body = Vec::new();
    for family in families {
        family.encode_length_delimited(&mut body).expect("a vector grows as needed");
    }
    body
}

/// A family of one gauge, to be made more of.
pub(super) fn gauge(name: &str, value: f64) -> MetricFamily {
    let gauge = Some(message::Gauge { value: Some(value) });
    MetricFamily {
        name: Some(name.into()),
        kind: Some(1),
        metric: vec![message::Metric { gauge, ..Default::default() }],
        ..Default::default()
    }
}
