//! Protobuf pushes and scrapes, compared with prost alone and with text.
//!
//! The body is what client_golang sends: counters with creation times, histograms without `+Inf`, gauges, labels.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use sluicegate::exposition::names::NameRules;
use sluicegate::exposition::protobuf::message::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, Timestamp,
};
use sluicegate::exposition::protobuf::{metrics_of_lines, parse};
use sluicegate::exposition::render::{render, write_header};
use sluicegate::exposition::text;

const FAMILIES: usize = 20;
const METRICS: usize = 10;
const BYTES_MAX: usize = 1 << 30;

fn label(name: &str, value: String) -> LabelPair {
    LabelPair { name: Some(name.into()), value: Some(value.into()) }
}

fn metric(kind: i32, index: usize, created: bool) -> Metric {
    let created_timestamp = created.then_some(Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 });
    let value = index as f64 * 1.25;
    let mut metric = Metric {
        label: vec![label("method", "GET".to_owned()), label("path", format!("/api/v1/things/{index}"))],
        ..Default::default()
    };
    match kind {
        0 => metric.counter = Some(Counter { value: Some(value), created_timestamp, ..Default::default() }),
        1 => metric.gauge = Some(Gauge { value: Some(value) }),
        _ => {
            let bucket = |bound: u64| Bucket {
                cumulative_count: Some(bound * 10),
                upper_bound: Some(bound as f64 / 8.0),
                ..Default::default()
            };
            metric.histogram = Some(Histogram {
                sample_count: Some(120),
                sample_sum: Some(value),
                bucket: (1..=11).map(bucket).collect(),
                created_timestamp,
                ..Default::default()
            });
        }
    }
    metric
}

/// A body, with or without creation times.
fn body(created: bool) -> Vec<u8> {
    let mut body = Vec::new();
    for family in 0..FAMILIES {
        let kind = [0, 1, 1, 4][family % 4];
        let family = MetricFamily {
            name: Some(format!("shop_things_{family}").into()),
            help: Some("Number of things.".into()),
            kind: Some(kind),
            metric: (0..METRICS).map(|index| metric(kind, index, created)).collect(),
            unit: None,
        };
        family.encode_length_delimited(&mut body).expect("encoding into a vector cannot fail");
    }
    body
}

fn decode_with_prost(mut body: &[u8]) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    while !body.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut body).expect("valid"));
    }
    families
}

fn benches(criterion: &mut Criterion) {
    let grouping = [("job".to_owned(), "shop".to_owned())];
    for (name, created) in [("plain", false), ("with creation times", true)] {
        let body = body(created);
        let families = parse(&body, NameRules::Legacy).expect("valid");
        let rendered = render(&families, &grouping, NameRules::Legacy, BYTES_MAX).expect("consistent");
        let mut group = criterion.benchmark_group(format!("protobuf body, {name}"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("prost alone", |b| b.iter(|| decode_with_prost(black_box(&body))));
        group.bench_function("parse", |b| b.iter(|| parse(black_box(&body), NameRules::Legacy)));
        group.bench_function("render", |b| {
            b.iter(|| render(black_box(&families), &grouping, NameRules::Legacy, BYTES_MAX));
        });
        group.finish();

        let mut text = Vec::new();
        for family in rendered.families() {
            write_header(&mut text, rendered.name(family), family.kind, rendered.help(family));
            text.extend_from_slice(rendered.text(family));
        }
        let mut group = criterion.benchmark_group(format!("text of the protobuf body, {name}"));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function("parse", |b| b.iter(|| text::parse(black_box(&text), NameRules::Legacy)));
        group.bench_function("to protobuf", |b| {
            let mut out = Vec::new();
            b.iter(|| {
                out.clear();
                for family in rendered.families() {
                    let (name, lines) = (rendered.name(family), rendered.text(family));
                    metrics_of_lines(&mut out, name, family.kind, lines).expect("written by the gateway");
                }
                out.len()
            });
        });
        group.finish();
    }
}

criterion_group!(all, benches);
criterion_main!(all);
