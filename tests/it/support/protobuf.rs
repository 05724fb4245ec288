//! A parser of delimited protobuf expositions with its own message definitions, and a conversion to text expositions.

use prost::Message;
use std::collections::BTreeMap;

use super::exposition::{Exposition, Family, Sample};

#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, optional, tag = "2")]
    pub help: Option<String>,
    #[prost(int32, tag = "3")]
    pub kind: i32,
    #[prost(message, repeated, tag = "4")]
    pub metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<Label>,
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Single>,
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Single>,
    #[prost(message, optional, tag = "4")]
    pub summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    pub untyped: Option<Single>,
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Single {
    #[prost(double, tag = "1")]
    pub value: f64,
    /// The creation time of a counter.
    #[prost(message, optional, tag = "3")]
    pub created: Option<Time>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Time {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    #[prost(uint64, tag = "1")]
    pub count: u64,
    #[prost(double, tag = "2")]
    pub sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub quantile: Vec<Quantile>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Quantile {
    #[prost(double, tag = "1")]
    pub at: f64,
    #[prost(double, tag = "2")]
    pub value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    #[prost(uint64, tag = "1")]
    pub count: u64,
    #[prost(double, tag = "4")]
    pub count_float: f64,
    #[prost(double, tag = "2")]
    pub sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    pub schema: i32,
    #[prost(double, tag = "6")]
    pub zero_threshold: f64,
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<Span>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    pub positive_delta: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Bucket {
    #[prost(uint64, tag = "1")]
    pub count: u64,
    #[prost(double, tag = "4")]
    pub count_float: f64,
    #[prost(double, tag = "2")]
    pub at: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Span {
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// Decodes delimited families up to the last byte.
pub fn read(mut body: &[u8]) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    while !body.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut body).expect("a family"));
    }
    families
}

/// Encodes families as a delimited body.
pub fn write(families: &[MetricFamily]) -> Vec<u8> {
    families.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

/// Converts families to the exposition that text would show, with numbers spelled as [`number`] does.
pub fn as_text(families: Vec<MetricFamily>) -> Exposition {
    let families = families.into_iter().map(|family| {
        let (kind, suffixes): (_, &[&str]) = match family.kind {
            0 => ("counter", &[""]),
            1 => ("gauge", &[""]),
            2 => ("summary", &["_sum", "_count"]),
            3 => ("untyped", &[""]),
            _ => ("histogram", &["_sum", "_count"]),
        };
        let mut samples = Vec::new();
        for metric in &family.metric {
            let labels: BTreeMap<String, String> =
                metric.label.iter().map(|label| (label.name.clone(), label.value.clone())).collect();
            assert_eq!(labels.len(), metric.label.len(), "repeated labels in {}", family.name);
            let mut sample = |suffix: &str, added: Option<(&str, f64)>, value: f64| {
                let mut labels = labels.clone();
                labels.extend(added.map(|(name, at)| (name.to_owned(), number(at))));
                samples.push(Sample {
                    name: format!("{}{suffix}", family.name),
                    labels,
                    value: number(value),
                });
            };
            let totals = match (&metric.summary, &metric.histogram) {
                (Some(summary), _) => {
                    for quantile in &summary.quantile {
                        sample("", Some(("quantile", quantile.at)), quantile.value);
                    }
                    vec![summary.sum, summary.count as f64]
                }
                (_, Some(histogram)) => {
                    let float = |whole: u64, float: f64| if float > 0.0 { float } else { whole as f64 };
                    let count = float(histogram.count, histogram.count_float);
                    for bucket in &histogram.bucket {
                        let count = float(bucket.count, bucket.count_float);
                        sample("_bucket", Some(("le", bucket.at)), count);
                    }
                    if histogram.bucket.last().is_none_or(|bucket| bucket.at != f64::INFINITY) {
                        sample("_bucket", Some(("le", f64::INFINITY)), count);
                    }
                    vec![histogram.sum, count]
                }
                _ => {
                    let single = [&metric.gauge, &metric.counter, &metric.untyped];
                    vec![single.into_iter().flatten().next().expect("a value of the family's type").value]
                }
            };
            for (suffix, total) in suffixes.iter().zip(totals) {
                sample(suffix, None, total);
            }
        }
        Family { name: family.name, kind: kind.to_owned(), help: family.help, samples }
    });
    Exposition { families: families.collect() }
}

/// Spells a number the same way for both formats. Negative zero becomes zero.
pub fn number(value: f64) -> String {
    format!("{:?}", value + 0.0)
}

/// Respells the numbers of a text exposition as [`number`] does, for comparison with [`as_text`].
pub fn respelled(mut exposition: Exposition) -> Exposition {
    for sample in exposition.families.iter_mut().flat_map(|family| &mut family.samples) {
        sample.value = number(sample.number());
        for name in ["le", "quantile"] {
            if let Some(value) = sample.labels.get_mut(name) {
                *value = number(value.replace("Inf", "inf").parse().expect("a number"));
            }
        }
    }
    exposition
}
