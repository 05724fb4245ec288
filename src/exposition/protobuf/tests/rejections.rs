//! Inconsistent bodies are rejected and invalid bodies are errors, each with its text.

use super::message::{
    Bucket, BucketSpan, Counter, Exemplar, Histogram, LabelPair, Metric, MetricFamily, Summary,
};
use super::{delimited, gauge};
use crate::exposition::memory::Unlimited;
use crate::exposition::model::MetricType;
use crate::exposition::names::NameRules;
use crate::exposition::protobuf::{decode_family, parse, parse_within};
use crate::exposition::render::{RenderError, render};

fn label(name: &[u8], value: &[u8]) -> LabelPair {
    LabelPair { name: Some(name.into()), value: Some(value.into()) }
}

fn labelled(labels: &[(&[u8], &[u8])]) -> MetricFamily {
    let mut family = gauge("m", 1.0);
    family.metric[0].label = labels.iter().map(|(name, value)| label(name, value)).collect();
    family
}

fn histogram(histogram: Histogram) -> MetricFamily {
    let metric = Metric { histogram: Some(histogram), ..Default::default() };
    MetricFamily { name: Some("h".into()), kind: Some(4), metric: vec![metric], ..Default::default() }
}

/// Two positive buckets, two negative ones and the zero bucket, seven observations.
fn native() -> Histogram {
    let spans = vec![
        BucketSpan { offset: Some(-3), length: Some(1) },
        BucketSpan { offset: Some(2), length: Some(1) },
    ];
    Histogram {
        sample_count: Some(7),
        sample_sum: Some(1.0),
        zero_threshold: Some(0.001),
        zero_count: Some(1),
        positive_span: spans.clone(),
        positive_delta: vec![1, 1],
        negative_span: spans,
        negative_delta: vec![2, -1],
        ..Default::default()
    }
}

/// The reason of the rejection, or `None` if the families are accepted.
fn rejection(families: &[MetricFamily]) -> Option<String> {
    let body = delimited(families);
    let families = parse(&body, NameRules::Legacy).expect("can be parsed");
    match render(&families, &[("job".to_owned(), "a".to_owned())], NameRules::Legacy, 1 << 20) {
        Ok(_) => None,
        Err(RenderError::Inconsistent(reason)) => Some(reason.to_string()),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_long_name_is_truncated_in_the_error() {
    let body = delimited(&[gauge(&"\u{1}".repeat(1 << 20), 1.0)]);
    let families = parse(&body, NameRules::Legacy).expect("can be parsed");
    let error = families.rejection.expect("the name is invalid").to_string();
    assert!(error.len() < 10_000, "{} bytes", error.len());
}

#[test]
fn rejects_inconsistent_families() {
    let mut other_kind = gauge("m", 1.0);
    other_kind.kind = Some(0);
    let mut no_value = gauge("m", 1.0);
    no_value.metric[0].gauge = None;
    let mut with_time = gauge("m", 1.0);
    with_time.metric[0].timestamp_ms = Some(0);
    let many: Vec<_> = (0..40).map(|index| (format!("l{}", index % 39), "")).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let bad_exemplar = Exemplar { label: vec![label(b"id", b"\xff")], ..Default::default() };
    let mut counter = gauge("c", 0.0);
    counter.kind = Some(0);
    counter.metric[0] = Metric {
        counter: Some(Counter { exemplar: Some(bad_exemplar.clone()), ..Default::default() }),
        ..Default::default()
    };
    let bucket = Bucket { exemplar: Some(bad_exemplar), ..Default::default() };
    for (family, text) in [
        (other_kind, "is not a COUNTER"),
        (no_value, "is not a GAUGE"),
        (with_time, "timestamps"),
        (labelled(&[(b"a", b"\xff")]), r#"not utf8: "\xff""#),
        (labelled(&[(b"a", b"1"), (b"a", b"1")]), "same name: a"),
        // Also if the grouping key replaces both.
        (labelled(&[(b"job", b"1"), (b"job", b"2")]), "same name: job"),
        (labelled(&many), "same name: l0"),
        (labelled(&[(b"__name__", b"n")]), "invalid name: __name__"),
        (counter, "exemplar"),
        (histogram(Histogram { bucket: vec![bucket], ..Default::default() }), "exemplar"),
    ] {
        let reason =
            rejection(std::slice::from_ref(&family)).unwrap_or_else(|| panic!("accepted: {family:?}"));
        assert!(reason.contains(text), "{reason}");
        // Of two families with one name, the last one is used, even if the first is inconsistent.
        let mut good = gauge("x", 1.0);
        good.name = family.name.clone();
        assert_eq!(rejection(&[family.clone(), good.clone()]), None);
        assert!(rejection(&[good, family]).is_some());
    }
}

#[test]
fn accepts_valid_native_histograms() {
    let floats = Histogram {
        sample_count_float: Some(6.5),
        positive_span: vec![BucketSpan { offset: Some(0), length: Some(2) }],
        positive_count: vec![1.5, 5.0],
        ..Default::default()
    };
    for good in [
        native(),
        floats,
        // NaN observations are in no bucket.
        Histogram { sample_count: Some(9), sample_sum: Some(f64::NAN), ..native() },
        Histogram { schema: Some(8), ..native() },
        Histogram { schema: Some(-4), ..native() },
        Histogram { zero_threshold: Some(0.001), ..Default::default() },
    ] {
        assert_eq!(rejection(&[histogram(good.clone())]), None, "{good:?}");
    }
}

#[test]
fn rejects_invalid_native_histograms() {
    let span = |offset, length| vec![BucketSpan { offset: Some(offset), length: Some(length) }];
    for (bad, text) in [
        (Histogram { sample_count: Some(6), ..native() }, "count"),
        (Histogram { sample_count: Some(6), sample_sum: Some(f64::NAN), ..native() }, "count"),
        (Histogram { positive_delta: vec![1, 1, 1], ..native() }, "differ in number"),
        (Histogram { positive_span: span(0, u32::MAX), ..native() }, "out of range"),
        (Histogram { positive_delta: vec![1, -2], ..native() }, "negative"),
        (Histogram { positive_delta: vec![i64::MAX, i64::MAX], ..native() }, "out of range"),
        (Histogram { positive_span: [span(0, 1), span(-1, 1)].concat(), ..native() }, "overlap"),
        (
            Histogram { positive_span: [span(i32::MAX, 1), span(i32::MAX, 1)].concat(), ..native() },
            "out of range",
        ),
        (Histogram { schema: Some(9), ..native() }, "schema"),
        (Histogram { schema: Some(-5), ..native() }, "schema"),
        (Histogram { zero_threshold: Some(f64::NAN), ..native() }, "zero threshold"),
        // A float count makes all counts floats, and the buckets have no float counts.
        (Histogram { sample_count_float: Some(1.0), ..native() }, "differ in number"),
        (
            Histogram {
                sample_count_float: Some(1.0),
                positive_span: span(0, 1),
                positive_count: vec![-1.0],
                ..Default::default()
            },
            "negative",
        ),
    ] {
        let reason = rejection(&[histogram(bad.clone())]).unwrap_or_else(|| panic!("accepted: {bad:?}"));
        assert!(reason.contains(text), "{reason}");
    }
}

#[test]
fn names_follow_the_same_rules_as_in_text() {
    for (name, label_name, legacy, utf8) in [
        (&b"m"[..], &b"a"[..], true, true),
        (b"m:n", b"a", true, true),
        (b"", b"a", false, false),
        (b"m", b"", false, false),
        (b"\xff", b"a", false, false),
        (b"m", b"\xff", false, false),
        (b"m.n", b"a", false, true),
        (b"m", b"a.b", false, true),
        (b"m", b"a:b", false, true),
    ] {
        let mut family = labelled(&[(label_name, b"1")]);
        family.name = Some(name.into());
        let body = delimited(&[family]);
        for (rules, accepted) in [(NameRules::Legacy, legacy), (NameRules::Utf8, utf8)] {
            let families = parse(&body, rules).expect("can be parsed");
            assert_eq!(families.rejection.is_none(), accepted, "{rules:?} {name:?} {label_name:?}");
        }
    }
}

#[test]
fn the_last_of_two_families_is_used_even_if_it_is_empty() {
    let empty = MetricFamily { metric: Vec::new(), ..gauge("m", 1.0) };
    let body = delimited(&[gauge("m", 1.0), gauge("n", 1.0), empty]);
    let families = parse(&body, NameRules::Legacy).expect("valid");
    let names: Vec<_> = families.families.iter().map(|family| &*family.name).collect();
    assert_eq!(names, ["m", "n"]);
    assert!(families.families[0].metrics.is_empty());
    assert_eq!(families.metrics_of(&families.families[1]).len(), 1);
}

#[test]
fn a_missing_type_means_counter_and_an_unknown_one_is_rejected() {
    let counter =
        Metric { counter: Some(Counter { value: Some(1.0), ..Default::default() }), ..Default::default() };
    for kind in [6, -1] {
        let family = MetricFamily { kind: Some(kind), metric: vec![counter.clone()], ..gauge("m", 1.0) };
        let reason = rejection(&[family]).expect("rejected");
        assert_eq!(reason, format!("collected metric family \"m\" has the unknown type {kind}"));
    }
    for kind in [None, Some(0)] {
        let family = MetricFamily { kind, metric: vec![counter.clone()], ..gauge("m", 1.0) };
        let body = delimited(&[family]);
        let families = parse(&body, NameRules::Legacy).expect("valid");
        assert_eq!(families.families[0].kind, MetricType::Counter);
        assert_eq!(families.rejection, None);
    }
}

/// A field: its number and wire type, and its content.
fn field(number: u8, wire_type: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | wire_type], content].concat()
}

/// A delimited family `m` of this type with one metric.
fn body_of(kind: u8, metric: &[u8]) -> Vec<u8> {
    let metric = [&[metric.len() as u8], metric].concat();
    let family = [field(1, 2, b"\x01m"), field(3, 0, &[kind]), field(4, 2, &metric)].concat();
    [&[family.len() as u8], &*family].concat()
}

/// As in Go.
#[test]
fn a_known_field_of_another_wire_type_is_ignored() {
    let (gauge, histogram) = (field(1, 1, &[0; 8]), field(2, 1, &[0; 8]));
    let message = |number: u8, content: &[u8]| field(number, 2, &[&[content.len() as u8], content].concat());
    for (kind, metric) in [
        (1, message(2, &[gauge.clone(), field(1, 0, b"\x05")].concat())),
        (1, [message(2, &gauge), field(1, 0, b"\x05"), field(6, 2, b"\0"), field(3, 5, &[0; 4])].concat()),
        // A schema makes a histogram native; it is decoded by generated code.
        (4, message(7, &[field(5, 0, b"\0"), histogram, field(1, 1, &[0; 8]), field(15, 0, b"\0")].concat())),
    ] {
        let body = body_of(kind, &metric);
        let families = parse(&body, NameRules::Legacy).expect("valid");
        assert_eq!((&families.rejection, families.has_timestamp), (&None, false), "{metric:?}");
        assert_eq!((families.metrics.len(), families.labels.len()), (1, 0), "{metric:?}");
    }
}

#[test]
fn an_unknown_group_is_skipped() {
    let groups =
        [field(8, 3, b""), field(1, 0, b"\x05"), field(9, 3, b""), field(9, 4, b""), field(8, 4, b"")];
    let with_value = [groups.concat(), field(2, 2, b"\0")].concat();
    let body = body_of(1, &with_value);
    let families = parse(&body, NameRules::Legacy).expect("valid");
    assert_eq!((&families.rejection, families.metrics.len()), (&None, 1));
    let body = body_of(1, &[field(8, 3, b""), field(9, 4, b""), field(2, 2, b"\0")].concat());
    assert!(parse(&body, NameRules::Legacy).is_err(), "another group ends");
}

#[test]
fn the_value_of_another_type_must_be_a_valid_message() {
    let gauge = field(2, 2, b"\0");
    for (number, value, is_valid) in [
        (3, &b"\x09\0\0\0\0\0\0\0\0"[..], true),
        (3, b"\x09\0", false),
        (7, b"\x1a\x01\x09", false),
        (7, b"\x52\x01\x80", false),
        (7, b"\x52\x01\x00", true),
        (8, b"\x09\0", true),
    ] {
        let other = field(number, 2, &[&[value.len() as u8], value].concat());
        let body = body_of(1, &[gauge.clone(), other].concat());
        assert_eq!(parse(&body, NameRules::Legacy).is_ok(), is_valid, "{number} {value:?}");
    }
}

/// The exemplar is looked at only if the metric is not rejected for its label.
#[test]
fn an_invalid_message_is_worse_than_an_inconsistent_label() {
    let label = field(1, 2, b"\x06\x0a\x01a\x12\x01\xff");
    for (exemplar, is_valid) in [(&b"\x12\0"[..], true), (b"\x12\x02\x09\0", false)] {
        let counter = field(3, 2, &[&[exemplar.len() as u8], exemplar].concat());
        let body = body_of(0, &[label.clone(), counter].concat());
        assert_eq!(parse(&body, NameRules::Legacy).is_ok(), is_valid, "{exemplar:?}");
    }
}

#[test]
fn a_label_that_the_group_replaces_need_not_be_utf8() {
    let body = delimited(&[labelled(&[(b"job", b"\xff")])]);
    let rejection = |grouping: &str| {
        let grouping = [(grouping.to_owned(), "a".to_owned())];
        parse_within(&body, NameRules::Legacy, &grouping, &mut Unlimited).expect("valid").rejection
    };
    assert_eq!(rejection("job"), None);
    assert!(rejection("zone").is_some());
}

#[test]
fn a_timestamp_is_the_first_reason_for_a_rejection() {
    let mut with_time = gauge("n", 1.0);
    with_time.metric[0].timestamp_ms = Some(0);
    let reason = rejection(&[labelled(&[(b"a", b"\xff")]), with_time.clone()]).expect("rejected");
    assert_eq!(reason, "pushed metrics must not have timestamps");
    assert_eq!(rejection(&[with_time, gauge("n", 1.0)]), None, "the last family counts");
}

#[test]
fn a_help_text_that_is_not_utf8_is_repaired() {
    let family = MetricFamily { help: Some(b"a\xffb".to_vec()), ..gauge("m", 1.0) };
    let body = delimited(&[family]);
    let families = parse(&body, NameRules::Legacy).expect("valid");
    assert_eq!(families.families[0].help.as_deref(), Some("a\u{fffd}b"));
}

#[test]
fn the_type_may_follow_the_metrics() {
    let message = prost::Message::encode_to_vec(&gauge("m", 1.5));
    // The type is the two bytes after the three bytes of the name.
    let late = [&message[..3], &message[5..], &message[3..5]].concat();
    assert_ne!(late, message);
    assert_eq!(decode_family(&late).expect("valid"), decode_family(&message).expect("valid"));
}

#[test]
fn errors_contain_the_message_number() {
    let good = delimited(&[gauge("m", 1.0)]);
    for (bad, text) in [
        (&b"m 1\n"[..], "message 2: unexpected end"),
        (b"\x80", "message 2: unexpected end"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "message 2: a number is too long"),
        (b"\x02\x22\x05", "message 2: unexpected end"),
        (b"\x02\x00\x00", "message 2: a field's number is out of range"),
        (b"\x01\x0e", "message 2: a field has an unknown wire type"),
        (b"\x01\x0b", "message 2: unexpected end"),
        (b"\x01\x0c", "message 2: a group ends that did not begin"),
        (b"\x02\x0b\x14", "message 2: a group ends that did not begin"),
    ] {
        let body = [good.as_slice(), bad].concat();
        let error = parse(&body, NameRules::Legacy).expect_err("invalid").to_string();
        assert_eq!(error, format!("protobuf parsing error in {text}"));
    }
    for end in 1..good.len() {
        assert!(parse(&good[..end], NameRules::Legacy).is_err(), "cut after {end} bytes");
    }
}

#[test]
fn a_summary_keeps_counts_that_a_float_cannot_represent() {
    let summary = Summary { sample_count: Some(u64::MAX), ..Default::default() };
    let metric = Metric { summary: Some(summary), ..Default::default() };
    let family = MetricFamily { kind: Some(2), metric: vec![metric], ..gauge("s", 1.0) };
    let body = delimited(&[family]);
    let families = parse(&body, NameRules::Legacy).expect("valid");
    let rendered = render(&families, &[], NameRules::Legacy, 1 << 20).expect("consistent");
    let exact = rendered.exact(&rendered.families()[0]).expect("text cannot represent the count");
    assert_eq!(
        decode_family(exact).expect("written by the gateway").metrics[0].value,
        families.metrics[0].value
    );
}

#[test]
fn names_and_texts_of_a_push_have_a_limit() {
    let text = |bytes: usize| "x".repeat(bytes);
    let families = |name: usize, value: usize| {
        let with_help = MetricFamily { help: Some(text(value).into()), ..gauge("m", 1.0) };
        let with_unit = MetricFamily { unit: Some(text(value).into()), ..gauge("m", 1.0) };
        [
            ("metric name longer than 65536 bytes", gauge(&text(name), 1.0)),
            ("label name longer than 65536 bytes", labelled(&[(text(name).as_bytes(), b"1")])),
            ("label value longer than 1048576 bytes", labelled(&[(b"a", text(value).as_bytes())])),
            ("HELP longer than 1048576 bytes", with_help),
            ("unit longer than 1048576 bytes", with_unit),
        ]
    };
    for (what, family) in families(64 << 10, 1 << 20) {
        let body = delimited(&[family]);
        assert!(parse_within(&body, NameRules::Legacy, &[], &mut Unlimited).is_ok(), "{what}");
    }
    for (reason, family) in families((64 << 10) + 1, (1 << 20) + 1) {
        let body = delimited(&[gauge("n", 1.0), family]);
        let error = parse_within(&body, NameRules::Legacy, &[], &mut Unlimited).expect_err("too long");
        assert_eq!(error.to_string(), format!("protobuf parsing error in message 2: {reason}"));
        assert!(parse(&body, NameRules::Legacy).is_ok(), "messages of the gateway have no limit");
    }
}
