//! Stores of format 1, which every later version must read.

use std::fs;
use std::path::{Path, PathBuf};

use sluicegate_engine::Durability;
use sluicegate_engine::suite::{Op, State, commit, open};

use super::WithOptions;
use crate::Options;

pub(super) const SMALL: Options = Options {
    partitions: 2,
    segment_bytes_min: 1024,
    segment_bytes_max: 1024,
    log_bytes: 1200,
    compaction_interval: None,
    background: false,
};

/// The batches in the stores. Their content must not change.
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

/// Opens a copy of a store of format 1, checks its content, and continues it.
fn check_store(name: &str, closed: bool, segments: usize) {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let copied = copy_files(&testdata("format-1").join(name), folder.path());
    assert_eq!(copied.iter().filter(|name| name.starts_with("log-")).count(), segments);
    let (mut engine, state, restored) =
        open(&WithOptions(Options::default()), folder.path()).expect("the store opens");
    assert_eq!(state, expected_state());
    assert_eq!((restored.sequence, restored.closed, restored.warnings), (32, closed, Vec::new()));
    commit(engine.as_mut(), &[Op::put("job=\"new\"", b"x")], Durability::Disk).expect("a batch is committed");
    drop(engine);
    let (_, state, _) = open(&WithOptions(SMALL), folder.path()).expect("the store opens again");
    let mut expected = expected_state();
    expected.insert("job=\"new\"".to_owned(), b"x".to_vec());
    assert_eq!(state, expected);
}

pub(super) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// Copies the files of a folder and returns their names.
pub(super) fn copy_files(from: &Path, to: &Path) -> Vec<String> {
    let files = fs::read_dir(from).expect("a readable folder");
    let copy = |file: std::io::Result<fs::DirEntry>| {
        let name = file.expect("a readable folder").file_name().into_string().expect("ASCII");
        fs::copy(from.join(&name), to.join(&name)).expect("a readable file");
        name
    };
    files.map(copy).collect()
}

#[test]
fn a_killed_store_of_format_1_is_read_and_continued() {
    check_store("killed", false, 2);
}

#[test]
fn a_closed_store_of_format_1_is_read_and_continued() {
    check_store("closed", true, 0);
}
