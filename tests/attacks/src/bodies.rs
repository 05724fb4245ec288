//! What attackers send, built before the attack.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::http::request;

/// One gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("writing to memory does not fail")
}

/// One zstd frame.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 19).expect("writing to memory does not fail")
}

/// A snappy stream with its framing.
pub fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    let written = encoder.write_all(bytes);
    written
        .and_then(|()| encoder.into_inner().map_err(|error| std::io::Error::other(error.to_string())))
        .expect("writing to memory does not fail")
}

/// A PUT with a content coding.
pub fn put_encoded(path: &str, coding: &str, body: &[u8]) -> Vec<u8> {
    request("PUT", path, &[("Content-Encoding", coding)], body)
}

/// A PUT of delimited protobuf.
pub fn put_protobuf(path: &str, body: &[u8]) -> Vec<u8> {
    let kind = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    request("PUT", path, &[("Content-Type", kind)], body)
}

/// Comments of about this many bytes, and one sample: large to decode and to read, and almost nothing to store.
pub fn comments(bytes: usize) -> Vec<u8> {
    let line = format!("# {}\n", "x".repeat(1000));
    let mut body = line.repeat(bytes / line.len()).into_bytes();
    body.extend_from_slice(b"attack_comments 1\n");
    body
}

/// `count` series of one gauge.
pub fn series(name: &str, count: usize) -> String {
    let mut body = format!("# TYPE {name} gauge\n");
    for number in 0..count {
        let _ = writeln!(body, "{name}{{n=\"{number}\"}} {number}");
    }
    body
}

/// `count` families with one sample each, in random order.
pub fn families(count: usize) -> String {
    let mut numbers: Vec<usize> = (0..count).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut numbers);
    let mut body = String::new();
    for number in numbers {
        let _ = writeln!(body, "f{number:06} 1");
    }
    body
}

/// A protobuf field with bytes.
pub fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = varint(number << 3 | 2);
    out.extend_from_slice(&varint(bytes.len() as u64));
    out.extend_from_slice(bytes);
    out
}

/// A protobuf field with an integer.
pub fn integer(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// A protobuf field with a double.
pub fn double(number: u64, value: f64) -> Vec<u8> {
    let mut out = varint(number << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
    out
}

/// A delimited family with these metrics.
pub fn family(name: &str, kind: u64, metrics: &[Vec<u8>]) -> Vec<u8> {
    let mut message = [field(1, name.as_bytes()), integer(3, kind)].concat();
    for metric in metrics {
        message.extend_from_slice(&field(4, metric));
    }
    let mut out = varint(message.len() as u64);
    out.extend_from_slice(&message);
    out
}

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
