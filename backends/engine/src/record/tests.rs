//! Encoding and decoding of records, and bytes that are not records.

use super::*;
use proptest::prelude::*;

/// A record in format 1. It must stay readable forever, so these bytes never change.
const FORMAT_1: &[u8] = include_bytes!("../../testdata/record-1.bin");

fn example() -> Record<'static> {
    Record {
        revision: 3,
        push_seconds: 1.7e9,
        failure_seconds: 0.0,
        created_seconds: 1.6e9 + 0.25,
        expires_seconds: Some(1.8e9),
        families: vec![
            Family {
                name: "backup_seconds",
                kind: Kind::Gauge,
                help: Some("How long it took.\n"),
                push_seconds: 1.7e9,
                text: b"backup_seconds{instance=\"\",job=\"backup\"} 12.5\n",
                exact: None,
            },
            Family {
                name: "pauses",
                kind: Kind::GaugeHistogram,
                help: None,
                push_seconds: 1.65e9,
                text: b"",
                exact: Some(b"\x0a\x06pauses"),
            },
        ],
    }
}

fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    record.encode(&mut out).expect("no text is that large");
    out
}

#[test]
fn reads_and_writes_format_1() {
    assert_eq!(Record::decode(FORMAT_1), Ok(example()));
    assert_eq!(encoded(&example()), FORMAT_1);
}

#[test]
fn reports_a_later_version() {
    let mut bytes = FORMAT_1.to_vec();
    bytes[0] = 3;
    assert_eq!(Record::decode(&bytes), Err(RecordError::TooNew { found: 3 }));
    assert_eq!(Numbers::decode(&bytes), Err(RecordError::TooNew { found: 3 }));
}

/// A patch of numbers. It must stay readable forever, so these bytes never change.
const FORMAT_2: &[u8] = include_bytes!("../../testdata/numbers-2.bin");

fn numbers(group: &Record<'_>, numbers: &[f64]) -> Vec<u8> {
    let mut out = Vec::new();
    Numbers::encode(&mut out, group, numbers.iter().copied()).expect("few numbers");
    out
}

#[test]
fn reads_and_writes_format_2() {
    assert!(is_numbers(FORMAT_2) && !is_numbers(FORMAT_1) && !is_numbers(b""));
    assert_eq!(numbers(&example(), &[0.5, -2e9, f64::INFINITY]), FORMAT_2);
    let mut lines = example();
    lines.families.pop();
    lines.families.push(Family {
        name: "x",
        text: b"x{a=\" \"} 1\nx{a=\"\"} 2\n",
        ..lines.families[0].clone()
    });
    let mut patched = Vec::new();
    apply_patches(&encoded(&lines), &[FORMAT_2], &mut patched).expect("three lines");
    let patched = Record::decode(&patched).expect("valid");
    lines.families[0].text = b"backup_seconds{instance=\"\",job=\"backup\"} 0.5\n";
    lines.families[1].text = b"x{a=\" \"} -2e+09\nx{a=\"\"} +Inf\n";
    assert_eq!(patched, lines);
}

#[test]
fn numbers_set_the_times_of_the_group_and_of_all_families() {
    let before = Record { families: example().families[..1].to_vec(), ..example() };
    let times = Record { push_seconds: 2e9, failure_seconds: 3e9, created_seconds: 1.0, ..example() };
    let mut patched = Vec::new();
    apply_patches(&encoded(&before), &[&numbers(&times, &[7.0])], &mut patched).expect("one line");
    let patched = Record::decode(&patched).expect("valid");
    assert_eq!((patched.push_seconds, patched.failure_seconds, patched.created_seconds), (2e9, 3e9, 1.0));
    assert_eq!((patched.expires_seconds, patched.families[0].push_seconds), (Some(1.8e9), 2e9));
}

#[test]
fn a_patch_is_not_a_record_and_a_record_is_not_a_patch_of_numbers() {
    assert!(matches!(Record::decode(FORMAT_2), Err(RecordError::Damaged { at: 0, .. })));
    assert!(matches!(Numbers::decode(FORMAT_1), Err(RecordError::Damaged { at: 0, .. })));
}

#[test]
fn rejects_numbers_of_other_lines() {
    let mut lines = example();
    let exact = encoded(&lines);
    lines.families.pop();
    let one_line = encoded(&lines);
    lines.families[0].text = b"no_number\n";
    let no_number = encoded(&lines);
    lines.families[0].text = b"m 1";
    let no_end = encoded(&lines);
    for (record, numbers_len) in
        [(&exact, 1), (&one_line, 0), (&one_line, 2), (&no_number, 1), (&no_end, 1), (&no_end, 0)]
    {
        let patch = numbers(&lines, &vec![1.0; numbers_len]);
        let result = apply_patches(record, &[&patch], &mut Vec::new());
        assert!(matches!(result, Err(RecordError::Damaged { .. })), "{numbers_len}");
    }
    for length in 0..FORMAT_2.len() {
        assert!(Numbers::decode(&FORMAT_2[..length]).is_err(), "truncated at {length}");
    }
    assert!(Numbers::decode(&[FORMAT_2, &[0]].concat()).is_err());
}

#[test]
fn rejects_a_truncated_or_longer_record() {
    for length in 0..FORMAT_1.len() {
        assert!(
            matches!(Record::decode(&FORMAT_1[..length]), Err(RecordError::Damaged { .. })),
            "truncated at {length}"
        );
    }
    let longer = [FORMAT_1, &[0]].concat();
    assert!(matches!(Record::decode(&longer), Err(RecordError::Damaged { .. })));
}

#[test]
fn rejects_more_families_than_the_bytes_can_contain() {
    let mut bytes = FORMAT_1.to_vec();
    bytes[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Record::decode(&bytes), Err(RecordError::Damaged { at: 2, .. })));
}

prop_compose! {
    fn texts()(
        name in "[a-z_]{1,8}", kind in 0..6_usize, help in prop::option::of(".{0,9}"), seconds in any::<f64>(),
        text in prop::collection::vec(any::<u8>(), 0..50), exact in prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
    ) -> (String, Kind, Option<String>, f64, Vec<u8>, Option<Vec<u8>>) {
        (name, Kind::ALL[kind], help, seconds, text, exact)
    }
}

proptest! {
    #[test]
    fn decodes_what_was_encoded(
        revision in any::<u64>(),
        times in [-1e10..1e10, -1e10..1e10, -1e10..1e10],
        expires_seconds in prop::option::of(0.0..1e10),
        families in prop::collection::vec(texts(), 0..5),
    ) {
        let families = families.iter().map(|(name, kind, help, seconds, text, exact)| Family {
            name,
            kind: *kind,
            help: help.as_deref(),
            push_seconds: if seconds.is_nan() { 0.0 } else { *seconds },
            text,
            exact: exact.as_deref(),
        });
        let record = Record {
            revision,
            push_seconds: times[0],
            failure_seconds: times[1],
            created_seconds: times[2],
            expires_seconds,
            families: families.collect(),
        };
        let bytes = encoded(&record);
        prop_assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn never_panics_on_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::decode(&bytes);
        let _ = apply_patches(FORMAT_1, &[&bytes], &mut Vec::new());
        if bytes.len() > 1 {
            (bytes[0], bytes[1]) = (2, 0);
            let _ = apply_patches(FORMAT_1, &[&bytes], &mut Vec::new());
        }
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
            if let Ok(record) = Record::decode(&bytes) {
                prop_assert_eq!(encoded(&record), bytes);
            }
        }
    }
}
