//! A store that a released version wrote must stay readable forever.

use std::path::{Path, PathBuf};

use sluicegate_engine::suite::{Op, State, Subject, commit, open};
use sluicegate_engine::{Durability, EngineError, UnreadStore};
use sluicegate_sled::Sled;

struct SledEngine;

impl Subject for SledEngine {
    fn open(&self, folder: &Path) -> Result<UnreadStore, EngineError> {
        Sled::open(folder)
    }
}

/// The content of the stored files.
fn batches() -> Vec<Vec<Op>> {
    let key = |number| format!("instance=\"{number}\",job=\"kept\"");
    let mut batches: Vec<Vec<Op>> = (0..30)
        .map(|number: u8| vec![Op::Put(key(number), format!("record {number}").repeat(5).into_bytes())])
        .collect();
    batches.push(vec![Op::Delete(key(3)), Op::put(&key(4), b"overwritten"), Op::put(&key(31), &[0, 255])]);
    batches.push(vec![]);
    batches
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/format-1")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("a folder");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("a file")),
        }
    }
}

#[test]
fn reads_and_continues_a_store_of_format_1() {
    let mut expected = State::new();
    batches().iter().flatten().for_each(|op| op.apply(&mut expected));
    let folder = tempfile::tempdir().expect("a folder for a test");
    copy(&kept(), folder.path());
    let (mut engine, state, restored) = open(&SledEngine, folder.path()).expect("it opens");
    assert_eq!(state, expected);
    assert_eq!((restored.sequence, restored.closed, restored.warnings), (32, true, Vec::new()));
    commit(engine.as_mut(), &[Op::put("job=\"new\"", b"x")], Durability::Disk).expect("a batch is committed");
    drop(engine);
    let (_, state, _) = open(&SledEngine, folder.path()).expect("it opens again");
    assert_eq!(state.len(), expected.len() + 1);
}

#[test]
#[ignore = "writes the files of testdata for a new format, into the folder SLUICEGATE_KEEP"]
fn writes_testdata() {
    let Some(to) = std::env::var_os("SLUICEGATE_KEEP") else { return };
    let (mut engine, _, _) = open(&SledEngine, Path::new(&to)).expect("it opens");
    for batch in batches() {
        commit(engine.as_mut(), &batch, Durability::Process).expect("a batch is committed");
    }
    engine.close().expect("it closes");
}
