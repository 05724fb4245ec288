//! Stores whose log segments have format 2, which added patches. The other files have format 1.

use sluicegate_engine::Durability;
use sluicegate_engine::record::{Family, Kind, Record};
use sluicegate_engine::suite::{Op, State, commit, open};

use super::WithOptions;
use super::format_1::{SMALL, copy_files, testdata};

/// A record with these families, which have one type.
pub(super) fn record(push_seconds: f64, families: &[(&str, &str)]) -> Vec<u8> {
    let families = families.iter().map(|(name, text)| Family {
        name,
        kind: Kind::Counter,
        help: Some("help"),
        push_seconds,
        text: text.as_bytes(),
        exact: None,
    });
    let record = Record {
        revision: 0,
        push_seconds,
        failure_seconds: 0.5,
        created_seconds: 0.25,
        expires_seconds: None,
        families: families.collect(),
    };
    let mut out = Vec::new();
    record.encode(&mut out).expect("a small record");
    out
}

/// The batches in the store: patches of records in archives and in the log. Their content must not change.
fn batches() -> Vec<Vec<Op>> {
    let key = |number| format!("instance=\"{number}\",job=\"patched\"");
    let mut batches: Vec<Vec<Op>> = (0..12)
        .map(|number| {
            vec![Op::Put(key(number), record(f64::from(number), &[("a", "a 1\n"), ("b", "b 1\n")]))]
        })
        .collect();
    batches.extend((0..12).step_by(2).map(|number| {
        vec![Op::Patch(key(number), record(20.0 + f64::from(number), &[("b", "b 2\n"), ("c", "c 2\n")]))]
    }));
    batches.push(vec![
        Op::Patch(key(0), record(40.0, &[])),
        Op::Delete(key(2)),
        Op::Patch(key(2), record(41.0, &[("a", "a 3\n")])),
        Op::Put(key(4), record(42.0, &[("d", "d 4\n")])),
        Op::Patch(key(4), record(43.0, &[("e", "e 5\n")])),
    ]);
    batches
}

fn expected_state() -> State {
    let mut state = State::new();
    batches().iter().flatten().for_each(|op| op.apply(&mut state));
    state
}

#[test]
fn a_killed_store_of_format_2_is_read_and_continued() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    copy_files(&testdata("format-2").join("killed"), folder.path());
    let (mut engine, state, restored) = open(&WithOptions(SMALL), folder.path()).expect("the store opens");
    assert_eq!(state, expected_state());
    assert_eq!((restored.closed, restored.warnings), (false, Vec::new()));
    commit(engine.as_mut(), &[Op::put("job=\"new\"", b"x")], Durability::Disk).expect("a batch is committed");
    engine.close().expect("the store closes");
    let (_, state, _) = open(&WithOptions(SMALL), folder.path()).expect("the store opens again");
    let mut expected = expected_state();
    expected.insert("job=\"new\"".to_owned(), b"x".to_vec());
    assert_eq!(state, expected);
}
