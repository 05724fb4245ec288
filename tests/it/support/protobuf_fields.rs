//! An encoder of protobuf bodies, field by field, so that tests can write invalid messages.

/// The `Content-Type` header of delimited protobuf.
pub const CONTENT_TYPE: &[(&str, &str)] = &[(
    "content-type",
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
)];
/// `MetricType` of a counter.
pub const COUNTER: u64 = 0;
/// `MetricType` of a gauge.
pub const GAUGE: u64 = 1;
/// `MetricType` of a summary.
pub const SUMMARY: u64 = 2;
/// `MetricType` of a histogram.
pub const HISTOGRAM: u64 = 4;
/// `MetricType` of a gauge histogram.
pub const GAUGE_HISTOGRAM: u64 = 5;

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A varint field: `uint32`, `uint64` or an enum.
pub fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A `sint64` field (zigzag).
pub fn zigzag(field: u64, value: i64) -> Vec<u8> {
    number(field, ((value << 1) ^ (value >> 63)) as u64)
}

/// A `sint32` field (zigzag).
pub fn signed(field: u64, value: i32) -> Vec<u8> {
    zigzag(field, i64::from(value))
}

/// A `double` field.
pub fn double(field: u64, value: f64) -> Vec<u8> {
    [varint(field << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

/// A length-delimited field: `bytes`, `string` or a message.
pub fn message(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

/// A `Metric` with labels, and with `value` in the field `kind` (2 for a gauge, 7 for a histogram, …).
pub fn metric(labels: &[(&[u8], &[u8])], kind: u64, value: &[u8]) -> Vec<u8> {
    let mut metric = message(kind, value);
    for (name, value) in labels {
        metric = with_label(&metric, name, value);
    }
    metric
}

/// Adds a label to a `Metric`.
pub fn with_label(metric: &[u8], name: &[u8], value: &[u8]) -> Vec<u8> {
    [message(1, &[message(1, name), message(2, value)].concat()), metric.to_vec()].concat()
}

/// A delimited `MetricFamily`.
pub fn family(name: &[u8], kind: u64, metrics: &[Vec<u8>]) -> Vec<u8> {
    let mut family = [message(1, name), number(3, kind)].concat();
    for metric in metrics {
        family.extend(message(4, metric));
    }
    [varint(family.len() as u64), family].concat()
}
