//! A store that was written by a released format, and is read for ever.

use std::path::{Path, PathBuf};

use sluicegate_engine::suite::{Op, State, Subject, commit, open};
use sluicegate_engine::{Durability, Engine, EngineError};
use sluicegate_sled::Sled;

struct EngineUnderTest;

impl Subject for EngineUnderTest {
    fn open(&self, folder: &Path) -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(Sled::open(folder)?))
    }
}

/// What the kept store holds.
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
fn a_store_of_format_1_is_read_and_gone_on_with() {
    let mut expected = State::new();
    batches().iter().flatten().for_each(|op| op.apply(&mut expected));
    let folder = tempfile::tempdir().expect("a folder for a test");
    copy(&kept(), folder.path());
    let (mut backend, state, restored) = open(&EngineUnderTest, folder.path()).expect("it opens");
    assert_eq!(state, expected);
    assert_eq!((restored.sequence, restored.closed, restored.warnings), (32, true, Vec::new()));
    commit(backend.as_mut(), &[Op::Wipe, Op::put("job=\"new\"", b"x")], Durability::Disk)
        .expect("it goes on");
    drop(backend);
    let (_, state, _) = open(&EngineUnderTest, folder.path()).expect("it opens again");
    assert_eq!(state.len(), 1);
}

#[test]
#[ignore = "writes the files that are kept, when a new format is made: into the folder that SLUICEGATE_KEEP names"]
fn write_store_to_keep() {
    let Some(to) = std::env::var_os("SLUICEGATE_KEEP") else { return };
    let (mut backend, _, _) = open(&EngineUnderTest, Path::new(&to)).expect("it opens");
    for batch in batches() {
        commit(backend.as_mut(), &batch, Durability::Process).expect("a batch is kept");
    }
    backend.close().expect("it closes");
}
