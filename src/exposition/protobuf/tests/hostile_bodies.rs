//! Hostile bodies: nothing panics, memory is proportional to the body, and prost agrees on valid messages.

use proptest::prelude::*;
use prost::Message;

use super::strategies::families;
use super::{contents, delimited};
use crate::exposition::names::NameRules;
use crate::exposition::protobuf::message::MetricFamily;
use crate::exposition::protobuf::{decode_family, parse};
use crate::exposition::render::render;

/// Reference implementation: prost decodes all messages. `None` if one is invalid.
fn decode_all(mut body: &[u8]) -> Option<Vec<MetricFamily>> {
    let mut families = Vec::new();
    while !body.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut body).ok()?);
    }
    Some(families)
}

/// Parses and renders a body. If it is accepted, prost must decode its exact protobuf, and a body that prost re-encoded must
/// have the same contents.
fn check(body: &[u8]) -> Result<(), TestCaseError> {
    let Ok(families) = parse(body, NameRules::Legacy) else { return Ok(()) };
    let rendered = render(&families, &[("job".to_owned(), "a".to_owned())], NameRules::Legacy, 1 << 24);
    let Ok(rendered) = rendered else { return Ok(()) };
    for family in rendered.families() {
        let Some(exact) = rendered.exact(family) else { continue };
        prop_assert!(MetricFamily::decode(exact).is_ok());
        prop_assert!(decode_family(exact).is_ok());
    }
    if let Some(messages) = decode_all(body) {
        let again = delimited(&messages);
        let again = parse(&again, NameRules::Legacy).expect("written by prost");
        prop_assert_eq!(again.families.len(), families.families.len());
        for (left, right) in families.families.iter().zip(&again.families) {
            prop_assert_eq!(contents(&families, left), contents(&again, right));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_do_not_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&body)?;
    }

    #[test]
    fn damaged_bodies_do_not_panic(
        messages in families(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut body = delimited(&messages);
        for (at, byte) in changes.into_iter().filter(|_| !messages.is_empty()) {
            let at = at.index(body.len());
            body[at] = byte;
        }
        check(&body)?;
    }

    /// The length of the message is correct, so the parser gets further than with a damaged body.
    #[test]
    fn damaged_messages_do_not_panic(
        messages in families(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for message in messages {
            let mut message = message.encode_to_vec();
            for (at, byte) in &changes {
                let at = at.index(message.len());
                message[at] = *byte;
            }
            let mut body = Vec::new();
            prost::encoding::encode_varint(message.len() as u64, &mut body);
            body.extend_from_slice(&message);
            check(&body)?;
        }
    }

    #[test]
    fn valid_messages_are_parsed(messages in families()) {
        prop_assert!(parse(&delimited(&messages), NameRules::Legacy).is_ok());
    }
}

/// A family named `m` with this type and these encoded metrics.
fn family_of(kind: u8, metrics: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    prost::encoding::encode_varint((5 + metrics.len()) as u64, &mut body);
    body.extend_from_slice(&[0x0a, 1, b'm', 0x18, kind]);
    body.extend_from_slice(metrics);
    body
}

/// The size of the tables in bytes.
fn table_bytes(body: &[u8]) -> usize {
    let families = parse(body, NameRules::Legacy).expect("valid");
    families.metrics.capacity() * size_of_val(&families.metrics[..1])
        + families.labels.capacity() * families.labels.first().map_or(0, size_of_val)
        + families.points.capacity() * families.points.first().map_or(0, size_of_val)
        + families.exact.capacity()
}

#[test]
fn tables_stay_within_a_factor_of_the_body() {
    const COUNT: usize = 100_000;
    // An empty gauge: four bytes per metric.
    let gauges = [0x22, 2, 0x12, 0].repeat(COUNT);
    let body = family_of(1, &gauges);
    assert!(table_bytes(&body) <= 40 * body.len(), "{} of {}", table_bytes(&body), body.len());
    // A histogram of empty buckets: two bytes per bucket.
    let mut histogram = Vec::new();
    let buckets = [0x1a, 0].repeat(COUNT);
    prost::encoding::encode_varint(buckets.len() as u64, &mut histogram);
    histogram.extend_from_slice(&buckets);
    let mut metric = vec![0x3a];
    metric.extend_from_slice(&histogram);
    let mut metrics = vec![0x22];
    prost::encoding::encode_varint(metric.len() as u64, &mut metrics);
    metrics.extend_from_slice(&metric);
    let body = family_of(4, &metrics);
    assert!(parse(&body, NameRules::Legacy).is_ok());
    let families = parse(&body, NameRules::Legacy).expect("valid");
    assert_eq!(families.points.len(), COUNT);
    assert!(families.points.capacity() * 16 <= 40 * body.len());
}

#[test]
fn rejected_metrics_leave_nothing_in_the_tables() {
    let body = family_of(1, &[0x22, 0].repeat(100_000));
    let families = parse(&body, NameRules::Legacy).expect("can be parsed");
    assert!(families.rejection.is_some());
    assert_eq!(families.metrics.capacity(), 0);
}

#[test]
fn lengths_beyond_the_body_allocate_nothing() {
    for length in [u64::from(u32::MAX), u64::MAX, 1 << 40] {
        let mut body = Vec::new();
        prost::encoding::encode_varint(length, &mut body);
        body.extend_from_slice(b"\x0a\x01m");
        assert!(parse(&body, NameRules::Legacy).is_err());
    }
}

/// Groups are the only part of protobuf that nests without limit.
#[test]
fn groups_are_skipped_up_to_a_depth() {
    let nested = |depth: usize| family_of(1, &[vec![0x33; depth], vec![0x34; depth]].concat());
    assert!(parse(&nested(10_000), NameRules::Legacy).is_ok());
    assert!(parse(&nested(10_001), NameRules::Legacy).is_err());
    assert!(parse(&family_of(1, &[0x33; 100_000]), NameRules::Legacy).is_err(), "no end");
}

/// A histogram that needs exact protobuf is decoded as a whole, so its size is limited.
#[test]
fn rejects_a_huge_metric_that_text_cannot_represent() {
    // A schema, which text cannot represent, and then many empty spans.
    let mut histogram = vec![0x28, 0];
    histogram.extend_from_slice(&[0x62, 0].repeat(600_000));
    let mut metric = vec![0x3a];
    prost::encoding::encode_varint(histogram.len() as u64, &mut metric);
    metric.extend_from_slice(&histogram);
    let mut metrics = vec![0x22];
    prost::encoding::encode_varint(metric.len() as u64, &mut metrics);
    metrics.extend_from_slice(&metric);
    let body = family_of(4, &metrics);
    let families = parse(&body, NameRules::Legacy).expect("can be parsed");
    assert!(families.rejection.expect("rejected").to_string().contains("too large"));
}
