//! The snapshot engine passes what every engine passes, with its own sizes and with small ones.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluicegate_engine::suite::{Op, Subject, commit, open};
use sluicegate_engine::{Durability, Engine, EngineError};
use sluicegate_snapshot::{Options, Snapshot};

struct EngineUnderTest(Options);

impl Subject for EngineUnderTest {
    fn open(&self, folder: &Path) -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(Snapshot::open(folder, self.0)?))
    }
}

fn small(background: bool) -> Options {
    Options {
        partitions: 4,
        segment_bytes_min: 4096,
        segment_bytes_max: 1 << 16,
        log_bytes: 1 << 17,
        archive_interval: None,
        background,
    }
}

#[test]
fn what_is_for_the_process_only_reaches_the_disk_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let (mut backend, _, _) =
        open(&EngineUnderTest(Options::default()), folder.path()).expect("the store opens");
    for number in 1..4 {
        commit(backend.as_mut(), &[Op::Wipe], Durability::Process).expect("a batch is kept");
        let reached = (0..3000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            backend.stats().sequence_on_disk == number
        });
        assert!(reached, "nobody syncs batch {number}");
    }
}

/// A gateway that is killed again and again leaves a segment each time.
#[test]
fn a_log_of_many_segments_needs_few_open_files() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let options = Options { segment_bytes_max: 4096, log_bytes: 1 << 30, ..small(false) };
    let (mut backend, _, _) = open(&EngineUnderTest(options), folder.path()).expect("the store opens");
    for number in 0..100 {
        let put = Op::put(&format!("job=\"{number}\""), &[b'x'; 4000]);
        commit(backend.as_mut(), &[put], Durability::Process).expect("a batch is kept");
    }
    drop(backend);
    let segments = || {
        let files = std::fs::read_dir("/proc/self/fd").expect("the open files").flatten();
        let paths = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        paths
            .filter(|path| path.starts_with(folder.path()) && path.to_string_lossy().contains("log-"))
            .count()
    };
    let mut backend = Snapshot::open(folder.path(), options).expect("the store opens");
    let (records, most) = (AtomicUsize::new(0), AtomicUsize::new(segments()));
    let each = |_: &str, _: &[u8]| {
        records.fetch_add(1, Ordering::Relaxed);
        most.fetch_max(segments(), Ordering::Relaxed);
    };
    backend.restore(NonZeroUsize::MIN, &each).expect("it is whole");
    assert_eq!((records.into_inner(), most.into_inner()), (100, 1));
}

#[test]
fn a_log_is_folded_when_it_is_time_however_small_it_is() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let options = Options { archive_interval: Some(std::time::Duration::ZERO), ..Options::default() };
    let put = |key: &str| Op::put(key, b"a record");
    let (mut backend, _, _) = open(&EngineUnderTest(options), folder.path()).expect("the store opens");
    backend.maintain().expect("there is nothing to do yet");
    assert_eq!(backend.stats().archive_bytes, 0);
    commit(backend.as_mut(), &[put("a")], Durability::Process).expect("a batch is kept");
    backend.maintain().expect("the log is left for a new one");
    // Batches go on meanwhile.
    commit(backend.as_mut(), &[put("b")], Durability::Process).expect("a batch is kept");
    let folded = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        backend.stats().archive_bytes > 0
    });
    assert!(folded, "nobody folds the log");
    drop(backend);
    // What a killed run has left is folded, too.
    let (mut backend, state, _) = open(&EngineUnderTest(options), folder.path()).expect("the store opens");
    assert_eq!(state.len(), 2);
    backend.maintain().expect("the log of the run before is left");
    let folded = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        backend.stats().log_bytes == Some(0)
    });
    assert!(folded, "nobody folds the log of an earlier run");
    drop(backend);
    let (_, state, _) = open(&EngineUnderTest(options), folder.path()).expect("the store opens");
    assert_eq!(state.len(), 2);
}

mod usual {
    use sluicegate_engine::conformance;

    conformance!(super::EngineUnderTest(super::Options::default()));
}

mod small_with_threads {
    use sluicegate_engine::conformance;

    conformance!(super::EngineUnderTest(super::small(true)); short);
}

mod small_without_threads {
    use sluicegate_engine::conformance;

    conformance!(super::EngineUnderTest(super::small(false)); short);
}
