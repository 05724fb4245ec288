//! Protobuf bodies written field by field, so that they can be as wrong as they like.

/// The header of delimited protobuf.
pub const CONTENT_TYPE: &[(&str, &str)] = &[(
    "content-type",
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
)];
/// Numbers of metric types.
pub const COUNTER: u64 = 0;
/// See above.
pub const GAUGE: u64 = 1;
/// See above.
pub const HISTOGRAM: u64 = 4;

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field with an unsigned number.
pub fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field with a number in zigzag: `sint64`.
pub fn zigzag(field: u64, value: i64) -> Vec<u8> {
    number(field, ((value << 1) ^ (value >> 63)) as u64)
}

/// A field with a number in zigzag of 32 bits: `sint32`.
pub fn signed(field: u64, value: i32) -> Vec<u8> {
    zigzag(field, i64::from(value))
}

/// A field with a float.
pub fn double(field: u64, value: f64) -> Vec<u8> {
    [varint(field << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

/// A field with bytes, text or a message.
pub fn message(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

/// A `Metric`: labels, and a message in the field of its kind.
pub fn metric(labels: &[(&[u8], &[u8])], kind: u64, value: &[u8]) -> Vec<u8> {
    let mut metric = message(kind, value);
    for (name, value) in labels {
        metric = with_label(&metric, name, value);
    }
    metric
}

/// The metric with one more label.
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
