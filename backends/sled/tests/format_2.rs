//! A store of format 2, which added patches. Every later version must read it.

use std::fs;
use std::path::Path;

use sluicegate_engine::record::{Family, Kind, Numbers, Record};
use sluicegate_engine::suite::{Op, State, Subject, commit, open};
use sluicegate_engine::{Durability, EngineError, UnreadStore};
use sluicegate_sled::Sled;

/// If this variable names a folder, the store is written there, as testdata for a new format.
const OUTPUT_VARIABLE: &str = "SLUICEGATE_TESTDATA_OUTPUT";

struct SledEngine;

impl Subject for SledEngine {
    fn open(&self, folder: &Path) -> Result<UnreadStore, EngineError> {
        Sled::open(folder)
    }
}

fn record(push_seconds: f64, families: &[(&str, &str)]) -> Vec<u8> {
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

/// The batches in the store. Their content must not change.
fn batches() -> Vec<Vec<Op>> {
    let key = |number| format!("instance=\"{number}\",job=\"patched\"");
    let put = |number| vec![Op::Put(key(number), record(1.0, &[("a", "a 1\n"), ("b", "b 1\n")]))];
    let mut batches: Vec<Vec<Op>> = (0..4).map(put).collect();
    batches
        .push(vec![Op::Patch(key(0), record(2.0, &[("b", "b 2\n")])), Op::Patch(key(1), record(2.0, &[]))]);
    batches.push(vec![Op::Patch(key(0), record(3.0, &[("c", "c 3\n")])), Op::Delete(key(1))]);
    batches
        .push(vec![Op::Patch(key(2), record(4.0, &[("a", "a 4\n")])), Op::Patch(key(1), record(4.0, &[]))]);
    batches
}

fn expected_state() -> State {
    let mut state = State::new();
    batches().iter().flatten().for_each(|op| op.apply(&mut state));
    state
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder can be created");
    for entry in fs::read_dir(from).expect("the folder is readable") {
        let entry = entry.expect("the folder is readable");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("the entry has a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("the file can be copied");
        }
    }
}

#[test]
fn reads_and_continues_a_store_of_format_2() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/format-2");
    let folder = tempfile::tempdir().expect("a folder for a test");
    copy(&testdata, folder.path());
    let (mut engine, state, restored) = open(&SledEngine, folder.path()).expect("the store opens");
    assert_eq!(state, expected_state());
    assert_eq!((restored.sequence, restored.closed, restored.warnings), (7, true, Vec::new()));
    commit(engine.as_mut(), &[Op::put("job=\"new\"", b"x")], Durability::Disk).expect("a batch is committed");
    drop(engine);
    let (_, state, _) = open(&SledEngine, folder.path()).expect("the store opens again");
    let mut expected = expected_state();
    expected.insert("job=\"new\"".to_owned(), b"x".to_vec());
    assert_eq!(state, expected);
}

#[test]
#[ignore = "writes a store as testdata, into the folder SLUICEGATE_TESTDATA_OUTPUT if it is set"]
fn writes_and_reads_testdata() {
    let temporary = tempfile::tempdir().expect("a folder for a test");
    let output = std::env::var_os(OUTPUT_VARIABLE);
    let folder = output.as_ref().map_or(temporary.path(), Path::new);
    let (mut engine, _, _) = open(&SledEngine, folder).expect("the store opens");
    for batch in batches() {
        commit(engine.as_mut(), &batch, Durability::Process).expect("a batch is committed");
    }
    engine.close().expect("the store closes");
    let (_, state, _) = open(&SledEngine, folder).expect("the store opens again");
    assert_eq!(state, expected_state());
}

/// An earlier version would take patches for groups, or refuse those of numbers as damaged, so it must refuse the store. Without them it
/// can read it.
#[test]
fn only_a_store_with_patches_has_format_2_and_only_one_with_numbers_format_3() {
    let version = |folder: &Path| {
        let db = sled::open(folder.join("db")).expect("the database opens");
        let header = db.get(b"\0sluicegate").expect("readable").expect("there is a header");
        header[..4].to_vec()
    };
    let folder = tempfile::tempdir().expect("a folder for a test");
    let put = Op::Put("job=\"a\"".to_owned(), record(1.0, &[("a", "a 1\n")]));
    let patch = Op::Patch("job=\"a\"".to_owned(), record(2.0, &[]));
    let mut numbers = Vec::new();
    let times = record(3.0, &[]);
    let times = Record::decode(&times).expect("valid");
    Numbers::encode(&mut numbers, &times, [2.0].into_iter()).expect("one number");
    let numbers = Op::Patch("job=\"a\"".to_owned(), numbers);
    for (op, expected) in
        [(&put, 1_u32), (&patch, 2), (&numbers, 3), (&numbers, 3), (&patch, 3), (&put, 1), (&numbers, 3)]
    {
        let (mut engine, _, _) = open(&SledEngine, folder.path()).expect("the store opens");
        commit(engine.as_mut(), std::slice::from_ref(op), Durability::Process).expect("a batch is committed");
        engine.close().expect("the store closes");
        assert_eq!(version(folder.path()), expected.to_le_bytes());
    }
}
