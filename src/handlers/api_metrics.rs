//! `GET /api/v1/metrics`: all groups, as the official API v1 shows them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
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
use crate::shard::list::last_push_failed;
use crate::shard::{FAILURE_TIME_METRIC, FamilyView, GroupView, LargeGroup, PUSH_TIME_METRIC};
use crate::telemetry::OwnMetric;

use super::all_groups::{CopiedFamily, GroupReader, Piece, Pieces, Writer};
use super::api::{json, to_json};
use super::time::rfc3339;
use super::{Error, Handlers, Request};
use crate::http::produced::Aborted;
use crate::http::response::Response;

/// How much of a HELP text is written at a time.
const STRING_BYTES: usize = 16 * 1024;

/// All groups with their families. The document is made while the client reads it, so it is never in memory as a whole.
pub(super) async fn metrics(handlers: &Handlers, request: Request<'_>) -> Result<Response, Error> {
    let response = handlers.group_list(&request, write_groups).await?;
    Ok(json(response))
}

pub(super) async fn write_groups(mut reader: GroupReader, mut writer: Writer) -> Result<(), Aborted> {
    writer.write(br#"{"status":"success","data":["#).await;
    let mut separator: &[u8] = b"";
    while let Some(slice) = reader.next().await? {
        for view in &slice.groups {
            writer.write(separator).await;
            writer.write(&group(view)).await;
            separator = b",";
        }
        if let Some(large) = slice.large {
            writer.write(separator).await;
            write_large_group(&mut reader, &mut writer, &Arc::new(large)).await?;
            separator = b",";
        }
    }
    writer.write(b"]}").await;
    writer.flush().await;
    Ok(())
}

/// Writes the document that [`group`] makes, in parts.
async fn write_large_group(
    reader: &mut GroupReader,
    writer: &mut Writer,
    group: &Arc<LargeGroup>,
) -> Result<(), Aborted> {
    let own = own_entries(&group.head);
    let mut own = own.iter().map(|(name, value)| (*name, value.json())).peekable();
    let mut separator: &[u8] = b"{";
    let mut order = reader.by_name(group).await?;
    loop {
        let names = reader.families(group, &mut order).await?;
        if names.is_empty() {
            break;
        }
        let mut names = &names[..];
        while !names.is_empty() {
            let views = reader.copy(group, names).await?;
            let (copied, rest) = names.split_at(views.len());
            names = rest;
            for (name, family) in copied.iter().zip(views) {
                let Some(family) = family else { continue };
                while let Some((key, value)) = own.next_if(|(key, _)| **key < *name.shared.name) {
                    write_entry(writer, &mut separator, key, &value).await;
                }
                // A family hides an entry of the same name.
                own.next_if(|(key, _)| **key == *name.shared.name);
                write_entry(writer, &mut separator, &name.shared.name, b"").await;
                write_family(reader, writer, family).await?;
            }
        }
    }
    for (key, value) in own {
        write_entry(writer, &mut separator, key, &value).await;
    }
    writer.write(b"}").await;
    reader.end_large()
}

async fn write_entry(writer: &mut Writer, separator: &mut &[u8], key: &str, value: &[u8]) {
    writer.write(std::mem::replace(separator, b",")).await;
    writer.write(&to_json(key)).await;
    writer.write(b":").await;
    writer.write(value).await;
}

/// Writes the document of a family, in parts.
async fn write_family(
    reader: &GroupReader,
    writer: &mut Writer,
    family: CopiedFamily,
) -> Result<(), Aborted> {
    let view = &family.view;
    let (name, kind, seconds) = (view.shared.name.clone(), view.kind, view.push_seconds);
    writer.write(b"{").await;
    if let Some(help) = view.help.as_deref().filter(|help| !help.is_empty()) {
        writer.write(b"\"help\":\"").await;
        write_string(writer, help).await;
        writer.write(b"\",").await;
    }
    writer.write(b"\"metrics\":[").await;
    let mut separator: &[u8] = b"";
    for piece in Pieces::of(family) {
        let name = name.clone();
        let metrics = reader.convert(piece, move |piece| metrics_of_piece(&name, kind, piece)).await?;
        // Without brackets.
        if let Some(metrics) = metrics.get(1..metrics.len() - 1).filter(|metrics| !metrics.is_empty()) {
            writer.write(std::mem::replace(&mut separator, b",")).await;
            writer.write(metrics).await;
        }
    }
    writer.write(b"],\"time_stamp\":").await;
    writer.write(&to_json(&rfc3339(seconds))).await;
    writer.write(b",\"type\":").await;
    writer.write(&to_json(kind.protobuf_name())).await;
    writer.write(b"}").await;
    Ok(())
}

/// Writes what is between the quotes of a string, in parts.
async fn write_string(writer: &mut Writer, text: &str) {
    let mut rest = text;
    while !rest.is_empty() {
        let end = (0..=rest.len().min(STRING_BYTES)).rev().find(|end| rest.is_char_boundary(*end));
        let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
        let quoted = to_json(part);
        writer.write(&quoted[1..quoted.len() - 1]).await;
        rest = after;
    }
}

/// The metrics of a piece as a list.
fn metrics_of_piece(name: &str, kind: MetricType, piece: &Piece) -> Vec<u8> {
    let (families, mut text) = (|exact| decode_family(exact).unwrap_or_default(), Vec::new());
    let families = match piece {
        Piece::Exact(exact) => families(exact),
        Piece::Lines(_) | Piece::Segment(_) => {
            write_header(&mut text, name, kind, None);
            text.extend_from_slice(piece.bytes());
            parse(&text, NameRules::Utf8).unwrap_or_default()
        }
    };
    to_json(&metrics_of(&families)).into()
}

fn metrics_of<'a>(families: &'a Families<'a>) -> Vec<MetricDocument<'a>> {
    families
        .families
        .iter()
        .flat_map(|family| families.metrics_of(family))
        .map(|metric| MetricDocument { families, metric })
        .collect()
}

/// The document of one group.
pub(super) fn group(view: &GroupView) -> Bytes {
    let mut document = own_entries(view);
    for family in &view.families {
        document.insert(&family.shared.name, Box::new(FamilyDocument(family)));
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

/// The entries of a group that are not pushed families. A family can have the name of the first two and then hides them; the names of
/// the others are reserved.
fn own_entries(view: &GroupView) -> BTreeMap<&str, Box<dyn ErasedJson + '_>> {
    let labels: BTreeMap<Cow<'_, str>, Cow<'_, str>> = read_labels(&view.key).into_iter().collect();
    let successful = !last_push_failed(view.push_seconds, view.failure_seconds);
    let mut entries: BTreeMap<&str, Box<dyn ErasedJson + '_>> = BTreeMap::new();
    entries.insert("labels", Box::new(labels));
    entries.insert("last_push_successful", Box::new(successful));
    for (metric, seconds) in
        [(PUSH_TIME_METRIC, view.push_seconds), (FAILURE_TIME_METRIC, view.failure_seconds)]
    {
        let changed_seconds = if seconds == 0.0 { view.created_seconds } else { seconds };
        let time = TimeDocument { metric, key: &view.key, seconds, changed_seconds };
        entries.insert(metric.name, Box::new(time));
    }
    entries
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
        let mut text = Vec::with_capacity(256);
        write_header(&mut text, &view.shared.name, view.kind, None);
        view.text.pieces().for_each(|piece| text.extend_from_slice(piece));
        let families = match &view.exact {
            Some(exact) => decode_family(exact).unwrap_or_default(),
            None => parse(&text, NameRules::Utf8).unwrap_or_default(),
        };
        let mut map = serializer.serialize_map(None)?;
        if let Some(help) = view.help.as_ref().filter(|help| !help.is_empty()) {
            map.serialize_entry("help", &**help)?;
        }
        map.serialize_entry("metrics", &metrics_of(&families))?;
        map.serialize_entry("time_stamp", &rfc3339(view.push_seconds))?;
        map.serialize_entry("type", view.kind.protobuf_name())?;
        map.end()
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
