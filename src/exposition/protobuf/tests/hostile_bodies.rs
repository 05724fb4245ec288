//! Bytes of strangers: nothing panics, memory follows the body, and prost agrees on what is a message.

use proptest::prelude::*;
use prost::Message;

use super::strategies::families;
use super::{delimited, said};
use crate::exposition::names::NameRules;
use crate::exposition::protobuf::message::MetricFamily;
use crate::exposition::protobuf::{decode_family, parse};
use crate::exposition::render::render;

/// The slow twin: all messages by prost, `None` where it refuses.
fn decode_all(mut body: &[u8]) -> Option<Vec<MetricFamily>> {
    let mut families = Vec::new();
    while !body.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut body).ok()?);
    }
    Some(families)
}

/// Parses and renders; what is taken must be readable for prost, and be the same after a detour through it.
fn check(body: &[u8]) -> Result<(), TestCaseError> {
    let Ok(families) = parse(body, NameRules::Legacy) else { return Ok(()) };
    let rendered = render(&families, &[("job".to_owned(), "a".to_owned())], NameRules::Legacy, 1 << 24);
    let Ok(rendered) = rendered else { return Ok(()) };
    for family in rendered.families() {
        let Some(exact) = rendered.exact(family) else { continue };
        prop_assert!(MetricFamily::decode(exact).is_ok());
        prop_assert!(decode_family(exact).is_ok());
    }
    // An unknown type does not replace a known one before it; prost, which takes it for a number, forgets the other.
    let knows_types =
        |messages: &Vec<MetricFamily>| messages.iter().all(|family| (0..6).contains(&family.kind()));
    if let Some(messages) = decode_all(body).filter(knows_types) {
        let again = delimited(&messages);
        let again = parse(&again, NameRules::Legacy).expect("what prost wrote");
        prop_assert_eq!(again.families.len(), families.families.len());
        for (left, right) in families.families.iter().zip(&again.families) {
            prop_assert_eq!(said(&families, left), said(&again, right));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes(body in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&body)?;
    }

    #[test]
    fn damaged_bodies(
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

    /// Damage within one message, its length being right: this gets further in.
    #[test]
    fn damaged_messages(
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

    /// What prost reads, we read: names apart, which prost does not look at, and what only it must look into.
    #[test]
    fn whole_messages_are_read(messages in families()) {
        prop_assert!(parse(&delimited(&messages), NameRules::Legacy).is_ok());
    }
}

/// A family named `m` of that type, whose only other content is one field 4 after the other.
fn family_of(kind: u8, metrics: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    prost::encoding::encode_varint((5 + metrics.len()) as u64, &mut body);
    body.extend_from_slice(&[0x0a, 1, b'm', 0x18, kind]);
    body.extend_from_slice(metrics);
    body
}

/// Bytes the tables take up.
fn table_bytes(body: &[u8]) -> usize {
    let families = parse(body, NameRules::Legacy).expect("valid");
    families.metrics.capacity() * size_of_val(&families.metrics[..1])
        + families.labels.capacity() * families.labels.first().map_or(0, size_of_val)
        + families.points.capacity() * families.points.first().map_or(0, size_of_val)
        + families.beyond_text.capacity()
}

#[test]
fn tables_stay_within_a_factor_of_the_body() {
    const COUNT: usize = 100_000;
    // A gauge that is there, without a value: four bytes for a metric.
    let gauges = [0x22, 2, 0x12, 0].repeat(COUNT);
    let body = family_of(1, &gauges);
    assert!(table_bytes(&body) <= 40 * body.len(), "{} of {}", table_bytes(&body), body.len());
    // A histogram of empty buckets: two bytes for each.
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

/// Metrics that are refused leave nothing in the tables, however many there are.
#[test]
fn refused_metrics_take_no_room() {
    let body = family_of(1, &[0x22, 0].repeat(100_000));
    let families = parse(&body, NameRules::Legacy).expect("can be read");
    assert!(families.refusal.is_some());
    assert_eq!(families.metrics.capacity(), 0);
}

/// An announced length is not believed.
#[test]
fn lengths_beyond_the_body_are_no_allocation() {
    for length in [u64::from(u32::MAX), u64::MAX, 1 << 40] {
        let mut body = Vec::new();
        prost::encoding::encode_varint(length, &mut body);
        body.extend_from_slice(b"\x0a\x01m");
        assert!(parse(&body, NameRules::Legacy).is_err());
    }
}

/// Groups are the only thing in protobuf that nests without bound.
#[test]
fn groups_are_refused() {
    let body = family_of(1, &[0x33; 100_000]);
    assert!(parse(&body, NameRules::Legacy).is_err());
}

/// A histogram that must be kept as protobuf is decoded whole, so its size has a bound.
#[test]
fn a_huge_metric_beyond_text_is_refused() {
    // A schema, so that text does not suffice, and then many empty spans.
    let mut histogram = vec![0x28, 0];
    histogram.extend_from_slice(&[0x62, 0].repeat(600_000));
    let mut metric = vec![0x3a];
    prost::encoding::encode_varint(histogram.len() as u64, &mut metric);
    metric.extend_from_slice(&histogram);
    let mut metrics = vec![0x22];
    prost::encoding::encode_varint(metric.len() as u64, &mut metrics);
    metrics.extend_from_slice(&metric);
    let body = family_of(4, &metrics);
    let families = parse(&body, NameRules::Legacy).expect("can be read");
    assert!(families.refusal.expect("refused").contains("too large"));
}
