//! Stores that were closed.

use std::fs;
use std::path::{Path, PathBuf};

use sluicegate_engine::suite::{Op, State, commit, open};
use sluicegate_engine::{Durability, EngineError};

use super::{TINY, WithOptions};

fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("a readable folder");
    files
        .map(|file| file.expect("a readable folder").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-")))
        .collect()
}

#[test]
fn a_close_leaves_a_short_log_which_the_next_start_needs() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let mut state = State::new();
    for round in 0..3 {
        let (mut engine, found, restored) = open(&WithOptions(TINY), folder.path()).expect("the store opens");
        assert_eq!(found, state);
        assert_eq!((restored.closed, restored.sequence), (true, round));
        // A long log, which is compacted, and then short ones.
        let record = vec![7; if round == 0 { 50_000 } else { 10 }];
        let op = Op::Put(format!("job=\"{round}\""), record);
        op.apply(&mut state);
        commit(engine.as_mut(), &[op], Durability::Process).expect("a batch is committed");
        engine.close().expect("the store closes");
        assert_eq!(segments(folder.path()).len(), round as usize);
    }
    let is_damaged = || matches!(open(&WithOptions(TINY), folder.path()), Err(EngineError::Damaged { .. }));
    for segment in segments(folder.path()) {
        let bytes = fs::read(&segment).expect("a readable file");
        fs::write(&segment, vec![0; bytes.len()]).expect("a writable file");
        assert!(is_damaged(), "{} with zeros only", segment.display());
        fs::remove_file(&segment).expect("a file that can be removed");
        assert!(is_damaged(), "{} removed", segment.display());
        fs::write(&segment, bytes).expect("a writable file");
    }
    let (_, found, _) = open(&WithOptions(TINY), folder.path()).expect("the restored store opens");
    assert_eq!(found, state);
}
