//! Stores that were written by released formats, and are read for ever; and one way of closing that small stores never take.

use std::path::{Path, PathBuf};

use sluicegate_engine::suite::{Op, State, Subject, commit, open};
use sluicegate_engine::{Durability, Engine, EngineError};

use crate::{Options, Snapshot};

struct Of(Options);

impl Subject for Of {
    fn open(&self, folder: &Path) -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(Snapshot::open(folder, self.0)?))
    }
}

const SMALL: Options = Options {
    partitions: 2,
    segment_bytes_min: 1024,
    segment_bytes_max: 1024,
    log_bytes: 1200,
    archive_interval: None,
    background: false,
};

/// What the kept stores hold.
fn batches() -> Vec<Vec<Op>> {
    let key = |number| format!("instance=\"{number}\",job=\"kept\"");
    let mut batches: Vec<Vec<Op>> = (0..30)
        .map(|number: u8| vec![Op::Put(key(number), format!("record {number}").repeat(5).into_bytes())])
        .collect();
    batches.push(vec![Op::Delete(key(3)), Op::put(&key(4), b"overwritten"), Op::put(&key(31), &[0, 255])]);
    batches.push(vec![]);
    batches
}

fn expected() -> State {
    let mut state = State::new();
    batches().iter().flatten().for_each(|op| op.apply(&mut state));
    state
}

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/format-1").join(name)
}

#[test]
fn stores_of_format_1_are_read_and_gone_on_with() {
    for (name, closed, has_log) in [("killed", false, true), ("closed", true, false)] {
        let folder = tempfile::tempdir().expect("a folder for a test");
        let mut logs = 0;
        for entry in std::fs::read_dir(kept(name)).expect("the kept files") {
            let entry = entry.expect("the kept files");
            logs += usize::from(entry.file_name().to_string_lossy().starts_with("log-"));
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a copy");
        }
        assert_eq!(logs > 0, has_log);
        let (mut backend, state, restored) = open(&Of(Options::default()), folder.path()).expect("it opens");
        assert_eq!(state, expected());
        assert_eq!((restored.sequence, restored.closed, restored.warnings), (32, closed, Vec::new()));
        commit(backend.as_mut(), &[Op::Wipe, Op::put("job=\"new\"", b"x")], Durability::Disk)
            .expect("it goes on");
        drop(backend);
        let (_, state, _) = open(&Of(SMALL), folder.path()).expect("it opens again");
        assert_eq!(state.len(), 1);
    }
}

#[test]
#[ignore = "writes the files that are kept, when a new format is made: into the folder that SLUICEGATE_KEEP names"]
fn write_stores_to_keep() {
    let Some(to) = std::env::var_os("SLUICEGATE_KEEP") else { return };
    for (name, close) in [("killed", false), ("closed", true)] {
        let folder = Path::new(&to).join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let (mut backend, _, _) = open(&Of(SMALL), &folder).expect("it opens");
        for batch in batches() {
            commit(backend.as_mut(), &batch, Durability::Process).expect("a batch is kept");
        }
        if close {
            backend.close().expect("it closes");
        }
    }
}

#[test]
fn a_short_log_is_left_at_a_close_and_must_be_there() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let mut state = State::new();
    let mut logs = Vec::new();
    for round in 0..3 {
        let (mut backend, found, restored) = open(&Of(SMALL), folder.path()).expect("it opens");
        assert_eq!(found, state);
        assert_eq!((restored.closed, restored.sequence), (true, round));
        // First much, then little.
        let record = vec![7; if round == 0 { 50_000 } else { 10 }];
        let op = Op::Put(format!("job=\"{round}\""), record);
        op.apply(&mut state);
        commit(backend.as_mut(), &[op], Durability::Process).expect("a batch is kept");
        backend.close().expect("it closes");
        let names = std::fs::read_dir(folder.path()).expect("a folder");
        logs = names
            .map(|entry| entry.expect("a folder").path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-")))
            .collect();
        assert_eq!(logs.len(), round as usize);
    }
    for log in logs {
        let bytes = std::fs::read(&log).expect("a log");
        std::fs::write(&log, vec![0; bytes.len()]).expect("a log");
        assert!(matches!(open(&Of(SMALL), folder.path()), Err(EngineError::Damaged { .. })));
        std::fs::remove_file(&log).expect("a log");
        assert!(matches!(open(&Of(SMALL), folder.path()), Err(EngineError::Damaged { .. })));
        std::fs::write(&log, bytes).expect("a log");
    }
}
