//! Strategies for property tests: families like those that clients send, and unusual ones.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::exposition::protobuf::message::{
    Bucket, BucketSpan, Counter, Exemplar, Gauge, Histogram, LabelPair, Metric, MetricFamily, Quantile,
    Summary, Timestamp, Untyped,
};

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (0..1000u32).prop_map(f64::from),
        2 => any::<f64>(),
        1 => prop::sample::select(&[0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 0.1][..]),
    ]
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..1000u64, 1 => any::<u64>(), 1 => (1u64 << 53) - 2..(1 << 53) + 3, 1 => Just(u64::MAX)]
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
}

fn labels() -> impl Strategy<Value = Vec<LabelPair>> {
    prop::collection::btree_map("[a-d]|instance", "[ab\"\\\\\n\u{e4}]{0,3}", 0..4).prop_map(|labels| {
        labels
            .into_iter()
            .map(|(name, value)| LabelPair { name: Some(name.into()), value: Some(value.into()) })
            .collect()
    })
}

fn exemplar() -> impl Strategy<Value = Exemplar> {
    (labels(), option::of(float()), option::of(timestamp())).prop_map(|(label, value, timestamp)| Exemplar {
        label,
        value,
        timestamp,
    })
}

fn rare<S: Strategy>(strategy: S) -> impl Strategy<Value = Option<S::Value>> {
    option::weighted(0.1, strategy)
}

fn counter() -> impl Strategy<Value = Counter> {
    (option::of(float()), rare(exemplar()), rare(timestamp()))
        .prop_map(|(value, exemplar, created_timestamp)| Counter { value, exemplar, created_timestamp })
}

fn summary() -> impl Strategy<Value = Summary> {
    let quantile =
        (option::of(float()), option::of(float())).prop_map(|(quantile, value)| Quantile { quantile, value });
    (option::of(count()), option::of(float()), vec(quantile, 0..3), rare(timestamp())).prop_map(
        |(sample_count, sample_sum, quantile, created_timestamp)| Summary {
            sample_count,
            sample_sum,
            quantile,
            created_timestamp,
        },
    )
}

fn bucket() -> impl Strategy<Value = Bucket> {
    (option::of(count()), rare(float()), option::of(float()), rare(exemplar())).prop_map(
        |(cumulative_count, cumulative_count_float, upper_bound, exemplar)| Bucket {
            cumulative_count,
            cumulative_count_float,
            upper_bound,
            exemplar,
        },
    )
}

fn classic() -> impl Strategy<Value = Histogram> {
    let infinite =
        Bucket { cumulative_count: Some(7), upper_bound: Some(f64::INFINITY), ..Default::default() };
    let buckets = (vec(bucket(), 0..4), any::<bool>()).prop_map(move |(mut buckets, has_infinite)| {
        if has_infinite {
            buckets.push(infinite.clone());
        }
        buckets
    });
    (option::of(count()), rare(float()), option::of(float()), buckets, rare(timestamp())).prop_map(
        |(sample_count, sample_count_float, sample_sum, bucket, created_timestamp)| Histogram {
            sample_count,
            sample_count_float,
            sample_sum,
            bucket,
            created_timestamp,
            ..Default::default()
        },
    )
}

/// A valid native histogram with integer counts.
fn native() -> impl Strategy<Value = Histogram> {
    let side = || vec((0..100i32, vec(0..50i64, 0..4)), 0..4);
    (side(), side(), 0..10u64, -4..9i32, vec(exemplar(), 0..2)).prop_map(
        |(positive, negative, zero_count, schema, exemplars)| {
            let spans = |side: &[(i32, Vec<i64>)]| -> Vec<BucketSpan> {
                let spans = side.iter();
                spans
                    .map(|(offset, counts)| BucketSpan {
                        offset: Some(*offset),
                        length: Some(counts.len() as u32),
                    })
                    .collect()
            };
            let deltas = |side: &[(i32, Vec<i64>)]| -> Vec<i64> {
                let mut last = 0;
                let counts = side.iter().flat_map(|(_, counts)| counts);
                counts.map(|count| count - std::mem::replace(&mut last, *count)).collect()
            };
            let both = positive.iter().chain(&negative).flat_map(|(_, counts)| counts).sum::<i64>();
            Histogram {
                sample_count: Some(both as u64 + zero_count),
                sample_sum: Some(1.5),
                schema: Some(schema),
                zero_threshold: Some(0.001),
                zero_count: Some(zero_count),
                positive_span: spans(&positive),
                positive_delta: deltas(&positive),
                negative_span: spans(&negative),
                negative_delta: deltas(&negative),
                exemplars,
                ..Default::default()
            }
        },
    )
}

/// A metric of this type.
fn metric(kind: i32) -> BoxedStrategy<Metric> {
    let value: BoxedStrategy<Metric> = match kind {
        0 => counter().prop_map(|it| Metric { counter: Some(it), ..Default::default() }).boxed(),
        1 => float()
            .prop_map(|it| Metric { gauge: Some(Gauge { value: Some(it) }), ..Default::default() })
            .boxed(),
        2 => summary().prop_map(|it| Metric { summary: Some(it), ..Default::default() }).boxed(),
        3 => float()
            .prop_map(|it| Metric { untyped: Some(Untyped { value: Some(it) }), ..Default::default() })
            .boxed(),
        _ => prop_oneof![3 => classic(), 1 => native()]
            .prop_map(|it| Metric { histogram: Some(it), ..Default::default() })
            .boxed(),
    };
    (value, labels()).prop_map(|(value, label)| Metric { label, ..value }).boxed()
}

/// A family with this name, in which all series differ.
fn family(name: String) -> impl Strategy<Value = MetricFamily> {
    (0..6i32).prop_flat_map(move |kind| {
        let name = name.clone();
        (vec(metric(kind), 0..5), rare("[ a\\\\\n]{0,3}"), rare("[a-z]{0,3}")).prop_map(
            move |(mut metric, help, unit)| {
                for (index, metric) in metric.iter_mut().enumerate() {
                    let label = LabelPair { name: Some("i".into()), value: Some(index.to_string().into()) };
                    metric.label.push(label);
                }
                MetricFamily {
                    name: Some(name.clone().into()),
                    help: help.map(Into::into),
                    kind: Some(kind),
                    metric,
                    unit: unit.map(Into::into),
                }
            },
        )
    })
}

/// Families that the gateway accepts.
pub(in crate::exposition) fn families() -> impl Strategy<Value = Vec<MetricFamily>> {
    vec(any::<()>(), 0..4)
        .prop_flat_map(|names| (0..names.len()).map(|index| family(format!("m{index}"))).collect::<Vec<_>>())
}
