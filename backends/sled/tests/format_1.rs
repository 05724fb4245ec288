//! A store of format 1, which every later version must read.

use std::fs;
use std::path::Path;

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

/// The batches in the store. Their content must not change.
fn batches() -> Vec<Vec<Op>> {
    let key = |number| format!("instance=\"{number}\",job=\"kept\"");
    let mut batches: Vec<Vec<Op>> = (0..30)
        .map(|number: u8| vec![Op::Put(key(number), format!("record {number}").repeat(5).into_bytes())])
        .collect();
    batches.push(vec![Op::Delete(key(3)), Op::put(&key(4), b"overwritten"), Op::put(&key(31), &[0, 255])]);
    batches.push(vec![]);
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
fn reads_and_continues_a_store_of_format_1() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/format-1");
    let folder = tempfile::tempdir().expect("a folder for a test");
    copy(&testdata, folder.path());
    let (mut engine, state, restored) = open(&SledEngine, folder.path()).expect("the store opens");
    assert_eq!(state, expected_state());
    assert_eq!((restored.sequence, restored.closed, restored.warnings), (32, true, Vec::new()));
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
