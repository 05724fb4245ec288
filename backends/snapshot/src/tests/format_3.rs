//! Stores whose log segments have format 3, which added patches of numbers. The other files have format 1.

use std::fs;
use std::path::PathBuf;

use sluicegate_engine::Durability;
use sluicegate_engine::record::{Numbers, Record};
use sluicegate_engine::suite::{Op, State, commit, open};

use super::WithOptions;
use super::format_1::{SMALL, copy_files, testdata};
use super::format_2::record;

/// If this variable names a folder, a store is written there, as testdata for a new format.
const OUTPUT_VARIABLE: &str = "SLUICEGATE_TESTDATA_OUTPUT";

fn numbers(push_seconds: f64, numbers: [f64; 2]) -> Vec<u8> {
    let times = record(push_seconds, &[]);
    let times = Record::decode(&times).expect("valid");
    let mut out = Vec::new();
    Numbers::encode(&mut out, &times, numbers.into_iter()).expect("few numbers");
    out
}

/// The batches in the store: numbers of records in archives and in the log. Their content must not change.
fn batches() -> Vec<Vec<Op>> {
    let key = |number| format!("instance=\"{number}\",job=\"numbers\"");
    let put = |number, seconds| Op::Put(key(number), record(seconds, &[("a", "a 1\n"), ("b", "b 1\n")]));
    let mut batches: Vec<Vec<Op>> = (0..12).map(|number| vec![put(number, f64::from(number))]).collect();
    batches.extend((0..12).step_by(2).map(|number| {
        let seconds = 20.0 + f64::from(number);
        vec![Op::Patch(key(number), numbers(seconds, [seconds, 0.1]))]
    }));
    batches.push(vec![
        Op::Patch(key(0), numbers(40.0, [1e9, -1.5])),
        Op::Patch(key(0), numbers(41.0, [f64::NAN, f64::NEG_INFINITY])),
        Op::Delete(key(2)),
        Op::Patch(key(2), numbers(42.0, [1.0, 2.0])),
        put(4, 43.0),
        Op::Patch(key(4), numbers(44.0, [3.0, 4.0])),
        Op::Patch(key(6), record(45.0, &[("b", "b 7\n")])),
        Op::Patch(key(6), numbers(46.0, [5.0, 6.0])),
    ]);
    batches
}

fn expected_state() -> State {
    let mut state = State::new();
    batches().iter().flatten().for_each(|op| op.apply(&mut state));
    state
}

#[test]
fn a_killed_store_of_format_3_is_read_and_continued() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    copy_files(&testdata("format-3").join("killed"), folder.path());
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

#[test]
fn this_version_writes_a_store_of_the_same_content() {
    let temporary = tempfile::tempdir().expect("a folder for a test");
    let output = std::env::var_os(OUTPUT_VARIABLE).map_or(temporary.path().to_owned(), PathBuf::from);
    let folder = output.join("killed");
    fs::create_dir_all(&folder).expect("a folder can be created");
    let (mut engine, _, _) = open(&WithOptions(SMALL), &folder).expect("the store opens");
    for batch in batches() {
        commit(engine.as_mut(), &batch, Durability::Process).expect("a batch is committed");
    }
    assert!(engine.stats().archive_bytes > 0 && engine.stats().log_bytes > Some(0), "both are covered");
    drop(engine);
    let (_, state, _) = open(&WithOptions(SMALL), &folder).expect("the store opens again");
    assert_eq!(state, expected_state());
}

/// A version before patches of numbers would refuse a group with one as damaged. So it must refuse the segment as too new.
#[test]
fn every_new_segment_has_format_3() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let (mut engine, _, _) = open(&WithOptions(SMALL), folder.path()).expect("the store opens");
    commit(engine.as_mut(), &[], Durability::Process).expect("a batch is committed");
    let segment = fs::read(folder.path().join("log-0000000001")).expect("the first segment");
    assert_eq!(segment[8..12], 3_u32.to_le_bytes());
}
