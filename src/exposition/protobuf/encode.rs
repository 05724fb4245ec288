//! Encodes families as protobuf, in pieces that can be concatenated.

use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::message::Timestamp;
use crate::exposition::model::{Families, MetricType, Point, Value};

/// The key of a field: its number and wire type in one byte.
const fn key(number: u8, wire_type: u8) -> u8 {
    number << 3 | wire_type
}

const VARINT: u8 = 0;
const DOUBLE: u8 = 1;
const BYTES: u8 = 2;
/// The key of the field for the metrics of a family.
pub(super) const METRIC: u8 = key(4, BYTES);
/// The size of a double field with its key.
const DOUBLE_FIELD_BYTES: usize = 9;

/// The fields of a family before its metrics.
#[derive(Debug, Clone, Copy)]
pub struct FamilyHeader<'a> {
    /// The metric name.
    pub name: &'a str,
    /// The HELP text, unescaped.
    pub help: Option<&'a str>,
    /// The type.
    pub kind: MetricType,
    /// The unit.
    pub unit: Option<&'a str>,
}

/// The number of a type in the format.
pub(super) const fn number_of(kind: MetricType) -> u8 {
    match kind {
        MetricType::Counter => 0,
        MetricType::Gauge => 1,
        MetricType::Summary => 2,
        MetricType::Untyped => 3,
        MetricType::Histogram => 4,
        MetricType::GaugeHistogram => 5,
    }
}

/// The number of the field for the value of a metric of this type.
pub(super) const fn value_field(kind: MetricType) -> u8 {
    match kind {
        MetricType::Gauge => 2,
        MetricType::Counter => 3,
        MetricType::Summary => 4,
        MetricType::Untyped => 5,
        MetricType::Histogram | MetricType::GaugeHistogram => 7,
    }
}

/// Appends the fields of a family before its metrics.
pub(crate) fn write_header_fields(out: &mut Vec<u8>, header: FamilyHeader<'_>) {
    write_bytes(out, 1, header.name.as_bytes());
    if let Some(help) = header.help {
        write_bytes(out, 2, help.as_bytes());
    }
    out.extend_from_slice(&[key(3, VARINT), number_of(header.kind)]);
    if let Some(unit) = header.unit {
        write_bytes(out, 5, unit.as_bytes());
    }
}

fn header_len(header: FamilyHeader<'_>) -> usize {
    let texts = [Some(header.name), header.help, header.unit];
    2 + texts.into_iter().flatten().map(|text| field_len(text.len())).sum::<usize>()
}

/// Appends the start of a delimited family: its length and header. The caller appends `metrics_bytes` bytes of metrics, in
/// any number of pieces.
pub fn write_family_header(out: &mut Vec<u8>, header: FamilyHeader<'_>, metrics_bytes: usize) {
    encode_varint((header_len(header) + metrics_bytes) as u64, out);
    write_header_fields(out, header);
}

/// Appends a metric as a field of its family, with the labels in the given order. `scratch` is overwritten.
pub(crate) fn write_metric<'l>(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    kind: MetricType,
    labels: impl Iterator<Item = (&'l str, &'l str)> + Clone,
    families: &Families<'_>,
    metric: &crate::exposition::model::Metric,
) {
    let value = match families.exact(metric) {
        Some(value) => value,
        None => {
            scratch.clear();
            write_value(scratch, kind, families, &metric.value, None);
            scratch
        }
    };
    let labels_bytes: usize = labels.clone().map(|label| field_len(label_len(label))).sum();
    out.push(METRIC);
    encode_varint((labels_bytes + value.len()) as u64, out);
    labels.for_each(|label| write_label(out, label));
    out.extend_from_slice(value);
}

/// Appends a label as a field of its metric.
pub(super) fn write_label(out: &mut Vec<u8>, label: (&str, &str)) {
    out.push(key(1, BYTES));
    encode_varint(label_len(label) as u64, out);
    write_bytes(out, 1, label.0.as_bytes());
    write_bytes(out, 2, label.1.as_bytes());
}

fn label_len((name, value): (&str, &str)) -> usize {
    field_len(name.len()) + field_len(value.len())
}

/// The number of the field for the creation time of a value of this type.
const fn created_field(kind: MetricType) -> Option<u8> {
    match kind {
        MetricType::Counter => Some(3),
        MetricType::Summary => Some(4),
        MetricType::Histogram | MetricType::GaugeHistogram => Some(15),
        MetricType::Gauge | MetricType::Untyped => None,
    }
}

/// Appends a metric's value as the field for its type.
pub(super) fn write_value(
    out: &mut Vec<u8>,
    kind: MetricType,
    families: &Families<'_>,
    value: &Value,
    created: Option<Timestamp>,
) {
    let created = created_field(kind).zip(created);
    let created_bytes = created.map_or(0, |(_, created)| field_len(created.encoded_len()));
    out.push(key(value_field(kind), BYTES));
    match value {
        Value::Single(value) => {
            encode_varint((DOUBLE_FIELD_BYTES + created_bytes) as u64, out);
            write_double(out, 1, *value);
        }
        Value::Summary { count, sum, quantiles } => {
            let quantiles = families.points_of(*quantiles);
            let count_bytes = 1 + encoded_len_varint(*count);
            let bytes =
                count_bytes + DOUBLE_FIELD_BYTES + quantiles.len() * field_len(2 * DOUBLE_FIELD_BYTES);
            encode_varint((bytes + created_bytes) as u64, out);
            write_varint(out, 1, *count);
            write_double(out, 2, *sum);
            for quantile in quantiles {
                out.extend_from_slice(&[key(3, BYTES), 2 * DOUBLE_FIELD_BYTES as u8]);
                write_double(out, 1, quantile.at);
                write_double(out, 2, quantile.value);
            }
        }
        Value::Histogram { count, sum, buckets } => {
            let buckets = families.points_of(*buckets);
            let bytes = count_len(*count)
                + DOUBLE_FIELD_BYTES
                + buckets.iter().map(|bucket| field_len(bucket_len(*bucket))).sum::<usize>();
            encode_varint((bytes + created_bytes) as u64, out);
            write_count(out, *count);
            write_double(out, 2, *sum);
            for bucket in buckets {
                out.extend_from_slice(&[key(3, BYTES), bucket_len(*bucket) as u8]);
                write_count(out, bucket.value);
                write_double(out, 2, bucket.at);
            }
        }
    }
    if let Some((number, created)) = created {
        out.push(key(number, BYTES));
        created.encode_length_delimited(out).expect("a vector grows as needed");
    }
}

/// The size of an encoded bucket: at most 20 bytes, so its length needs one byte.
fn bucket_len(bucket: Point) -> usize {
    count_len(bucket.value) + DOUBLE_FIELD_BYTES
}

/// Appends a count of a histogram or of its bucket: field 1 if it is an integer, otherwise field 4.
fn write_count(out: &mut Vec<u8>, count: f64) {
    match as_integer(count) {
        Some(count) => write_varint(out, 1, count),
        None => write_double(out, 4, count),
    }
}

fn count_len(count: f64) -> usize {
    as_integer(count).map_or(DOUBLE_FIELD_BYTES, |count| 1 + encoded_len_varint(count))
}

/// The number as an integer, if it is one.
pub(super) fn as_integer(count: f64) -> Option<u64> {
    /// 2^64, the first float that exceeds 64 bits.
    const END: f64 = 18_446_744_073_709_551_616.0;
    ((0.0..END).contains(&count) && count.trunc() == count).then_some(count as u64)
}

fn write_varint(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(key(number, VARINT));
    encode_varint(value, out);
}

fn write_double(out: &mut Vec<u8>, number: u8, value: f64) {
    out.push(key(number, DOUBLE));
    out.extend_from_slice(&value.to_le_bytes());
}

fn write_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(key(number, BYTES));
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The size of a field with that many bytes of content, including key and length.
fn field_len(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}
