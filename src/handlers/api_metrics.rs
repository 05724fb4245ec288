//! `GET /api/v1/metrics`: all groups, as the official API v1 shows them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::exposition::labels::read_labels;
use crate::exposition::model::{Families, Metric, MetricType, Point, Value};
use crate::exposition::names::NameRules;
use crate::exposition::number::write_float_keeping_zero_sign;
use crate::exposition::protobuf::{
    decode_family, histogram_of, is_float, message::Histogram, native_buckets,
};
use crate::exposition::render::write_header;
use crate::exposition::text::parse;
use crate::shard::key::GroupingKey;
use crate::shard::{FAILURE_TIME_METRIC, FamilyView, GroupView, PUSH_TIME_METRIC};
use crate::telemetry::OwnMetric;

use super::api::{json, to_json};
use super::time::rfc3339;
use super::{Error, Handlers, Request, streamed};
use crate::http::response::Response;
use crate::http::slots::ResponseGuard;

/// All groups with their families. Streams, so that the response is never in memory as a whole.
pub(super) async fn metrics(handlers: &Handlers, request: Request) -> Result<Response, Error> {
    let slot = handlers.group_list_slot(&request).await?;
    let mut is_first = true;
    let groups = handlers.all_groups().map(move |views| {
        let mut chunk = Vec::new();
        for view in &views {
            if !std::mem::replace(&mut is_first, false) {
                chunk.push(b',');
            }
            chunk.extend_from_slice(&group(view));
        }
        Bytes::from(chunk)
    });
    let start = Bytes::from_static(br#"{"status":"success","data":["#);
    let mut response = json(streamed(start, groups, Bytes::from_static(b"]}")));
    response.extensions_mut().insert(ResponseGuard::new(slot, ()));
    Ok(response)
}

/// The document of one group.
fn group(view: &GroupView) -> Bytes {
    let labels: BTreeMap<Cow<'_, str>, Cow<'_, str>> = read_labels(&view.key).into_iter().collect();
    let successful = view.failure_seconds == 0.0 || view.push_seconds > view.failure_seconds;
    let mut document: BTreeMap<&str, Box<dyn ErasedJson + '_>> = BTreeMap::new();
    document.insert("labels", Box::new(labels));
    document.insert("last_push_successful", Box::new(successful));
    for family in &view.families {
        document.insert(&family.shared.name, Box::new(FamilyDocument(family)));
    }
    for (metric, seconds) in
        [(PUSH_TIME_METRIC, view.push_seconds), (FAILURE_TIME_METRIC, view.failure_seconds)]
    {
        let changed_seconds = if seconds == 0.0 { view.created_seconds } else { seconds };
        document
            .insert(metric.name, Box::new(TimeDocument { metric, key: &view.key, seconds, changed_seconds }));
    }
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    for (index, (name, value)) in document.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&to_json(name));
        out.push(b':');
        out.extend_from_slice(&value.json());
    }
    out.push(b'}');
    out.into()
}

/// A JSON value of any type, so that a map can hold different types.
trait ErasedJson {
    fn json(&self) -> Bytes;
}

impl<T: Serialize> ErasedJson for T {
    fn json(&self) -> Bytes {
        to_json(self)
    }
}

/// A number as the official API prints it: a string, in Go's shortest form.
struct Number(f64);

impl Number {
    fn text(&self) -> String {
        let mut out = Vec::with_capacity(24);
        write_float_keeping_zero_sign(&mut out, self.0);
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

struct FamilyDocument<'a>(&'a FamilyView);

impl Serialize for FamilyDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let view = self.0;
        let mut text = Vec::with_capacity(view.text.len() + 64);
        write_header(&mut text, &view.shared.name, view.kind, None);
        text.extend_from_slice(&view.text);
        let families = match &view.exact {
            Some(exact) => decode_family(exact).unwrap_or_default(),
            None => parse(&text, NameRules::Utf8).unwrap_or_default(),
        };
        let metrics: Vec<MetricDocument<'_>> = families
            .families
            .iter()
            .flat_map(|family| families.metrics_of(family))
            .map(|metric| MetricDocument { families: &families, metric })
            .collect();
        let mut map = serializer.serialize_map(None)?;
        if let Some(help) = view.help.as_ref().filter(|help| !help.is_empty()) {
            map.serialize_entry("help", &**help)?;
        }
        map.serialize_entry("metrics", &metrics)?;
        map.serialize_entry("time_stamp", &rfc3339(view.push_seconds))?;
        map.serialize_entry("type", type_name(view.kind))?;
        map.end()
    }
}

/// The name of a type in the protobuf format.
fn type_name(kind: MetricType) -> &'static str {
    match kind {
        MetricType::Counter => "COUNTER",
        MetricType::Gauge => "GAUGE",
        MetricType::Summary => "SUMMARY",
        MetricType::Untyped => "UNTYPED",
        MetricType::Histogram => "HISTOGRAM",
        MetricType::GaugeHistogram => "GAUGE_HISTOGRAM",
    }
}

struct MetricDocument<'a> {
    families: &'a Families<'a>,
    metric: &'a Metric,
}

impl Serialize for MetricDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let labels = self.families.labels_of(self.metric);
        let labels: BTreeMap<&str, &str> = labels.iter().map(|label| (&*label.name, &*label.value)).collect();
        let points = |points: &[Point], value: fn(f64) -> String| -> BTreeMap<String, String> {
            points.iter().map(|point| (Number(point.at).text(), value(point.value))).collect()
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("labels", &labels)?;
        match &self.metric.value {
            Value::Single(value) => map.serialize_entry("value", &Number(*value))?,
            Value::Summary { count, sum, quantiles } => {
                let quantiles = points(self.families.points_of(*quantiles), |value| Number(value).text());
                map.serialize_entry("quantiles", &quantiles)?;
                map.serialize_entry("count", &count.to_string())?;
                map.serialize_entry("sum", &Number(*sum))?;
            }
            Value::Histogram { count, sum, buckets } => {
                match histogram_of(self.families, self.metric) {
                    Some(histogram) => write_histogram(&mut map, &histogram)?,
                    None => {
                        let buckets = points(self.families.points_of(*buckets), count_text);
                        map.serialize_entry("buckets", &buckets)?;
                        map.serialize_entry("count", &count_text(*count))?;
                    }
                }
                map.serialize_entry("sum", &Number(*sum))?;
            }
        }
        map.end()
    }
}

/// Writes the buckets and the count of a histogram that text lines cannot express. Native buckets are a list, classic buckets a map.
fn write_histogram<M: SerializeMap>(map: &mut M, histogram: &Histogram) -> Result<(), M::Error> {
    let text = |whole: u64, float: f64, is_float: bool| {
        if is_float { Number(float).text() } else { whole.to_string() }
    };
    let (whole, float) = (histogram.sample_count(), histogram.sample_count_float());
    let has_spans = !histogram.positive_span.is_empty() || !histogram.negative_span.is_empty();
    match native_buckets(histogram).filter(|_| has_spans) {
        Some(buckets) => {
            let is_float = is_float(histogram);
            let bucket_text = |count: f64| if is_float { Number(count).text() } else { count_text(count) };
            let buckets: Vec<_> = buckets
                .iter()
                .map(|bucket| {
                    let (lower, upper) = (Number(bucket.lower), Number(bucket.upper));
                    (bucket.boundary_rule as u8, lower, upper, bucket_text(bucket.count))
                })
                .collect();
            map.serialize_entry("buckets", &buckets)?;
            map.serialize_entry("count", &text(whole, float, is_float))
        }
        None => {
            let buckets = histogram.bucket.iter().map(|bucket| {
                let (whole, float) = (bucket.cumulative_count(), bucket.cumulative_count_float());
                (Number(bucket.upper_bound()).text(), text(whole, float, float > 0.0))
            });
            map.serialize_entry("buckets", &buckets.collect::<BTreeMap<_, _>>())?;
            map.serialize_entry("count", &text(whole, float, float > 0.0))
        }
    }
}

/// A count that may be a float. A whole number is printed in full, as Go does.
fn count_text(count: f64) -> String {
    /// 2^64, the first float that is not a `u64`.
    const END: f64 = 18_446_744_073_709_551_616.0;
    if (0.0..END).contains(&count) && count.trunc() == count {
        (count as u64).to_string()
    } else {
        Number(count).text()
    }
}

/// A group's push time or failure time, as a family.
struct TimeDocument<'a> {
    metric: OwnMetric,
    key: &'a Arc<str>,
    seconds: f64,
    changed_seconds: f64,
}

impl Serialize for TimeDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct TimeMetric<'a> {
            labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
            value: Number,
        }
        let labels = GroupingKey::from_text(self.key.clone()).series_labels();
        let labels = read_labels(&labels).into_iter().collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("help", self.metric.help)?;
        map.serialize_entry("metrics", &[TimeMetric { labels, value: Number(self.seconds) }])?;
        map.serialize_entry("time_stamp", &rfc3339(self.changed_seconds))?;
        map.serialize_entry("type", "GAUGE")?;
        map.end()
    }
}
