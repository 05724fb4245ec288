//! Syncs and compactions in the background, and what a restore holds open.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use sluicegate_engine::Durability;
use sluicegate_engine::suite::{Op, commit, open};

use super::{TINY, WithOptions};
use crate::{Options, Snapshot};

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("no {what} within 30 s");
}

#[test]
fn a_batch_with_durability_process_reaches_the_disk_soon() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let (mut engine, _, _) = open(&WithOptions(Options::default()), folder.path()).expect("the store opens");
    for number in 1..4 {
        commit(engine.as_mut(), &[], Durability::Process).expect("a batch is committed");
        wait_until(&format!("sync of batch {number}"), || engine.stats().sequence_on_disk == number);
    }
}

#[test]
fn the_log_is_compacted_after_the_interval_however_small_it_is() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let options = Options { compaction_interval: Some(Duration::ZERO), ..Options::default() };
    let put = |key: &str| Op::put(key, b"a record");
    let (mut engine, _, _) = open(&WithOptions(options), folder.path()).expect("the store opens");
    engine.maintain().expect("there is nothing to compact");
    assert_eq!(engine.stats().archive_bytes, 0);
    commit(engine.as_mut(), &[put("a")], Durability::Process).expect("a batch is committed");
    engine.maintain().expect("a compaction starts");
    // Commits continue in the meantime.
    commit(engine.as_mut(), &[put("b")], Durability::Process).expect("a batch is committed");
    wait_until("compaction", || engine.stats().archive_bytes > 0);
    drop(engine);

    let (mut engine, state, _) = open(&WithOptions(options), folder.path()).expect("the store opens");
    assert_eq!(state.len(), 2);
    engine.maintain().expect("a compaction starts");
    wait_until("compaction of the log of an earlier run", || engine.stats().log_bytes == Some(0));
    drop(engine);
    let (_, state, _) = open(&WithOptions(options), folder.path()).expect("the store opens");
    assert_eq!(state.len(), 2);
}

/// A gateway that is killed again and again leaves a segment each time.
#[test]
fn a_log_of_many_segments_needs_one_open_file() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let options = Options { segment_bytes_max: 4096, log_bytes: 1 << 30, ..TINY };
    let (mut engine, _, _) = open(&WithOptions(options), folder.path()).expect("the store opens");
    for number in 0..100 {
        let put = Op::put(&format!("job=\"{number}\""), &[b'x'; 4000]);
        commit(engine.as_mut(), &[put], Durability::Process).expect("a batch is committed");
    }
    drop(engine);

    let store = Snapshot::open(folder.path(), options).expect("the store opens");
    let (records, open_max) = (AtomicUsize::new(0), AtomicUsize::new(open_segments(folder.path())));
    let sink = |_: &str, _: &[u8]| {
        records.fetch_add(1, Ordering::Relaxed);
        open_max.fetch_max(open_segments(folder.path()), Ordering::Relaxed);
    };
    store.read_all(NonZeroUsize::MIN, &sink).expect("the store is intact");
    assert_eq!((records.into_inner(), open_max.into_inner()), (100, 1));
}

/// The number of log segments that this process has open.
fn open_segments(folder: &Path) -> usize {
    let files = std::fs::read_dir("/proc/self/fd").expect("the open files").flatten();
    let paths = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    paths.filter(|path| path.starts_with(folder) && path.to_string_lossy().contains("log-")).count()
}
