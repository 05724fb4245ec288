//! A copy of a store in use, taken as `docs/operations.md` describes, opens with a state that was committed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sluicegate_engine::{Change, Durability, EngineError};
use sluicegate_snapshot::{Options, Snapshot};

const COPIES: usize = 20;
const ATTEMPTS_MAX: usize = 10_000;
/// Batch `n` puts the record `n` under two keys: `n % KEYS` and this one.
const LAST_KEY: &str = "last=\"\"";
const KEYS: u64 = 50;
/// Records repeat the number of their batch, to make them longer.
const REPETITIONS: usize = 20;
/// Compactions and new segments occur all the time.
const OPTIONS: Options = Options {
    partitions: 8,
    segment_bytes_min: 1 << 14,
    segment_bytes_max: 1 << 16,
    log_bytes: 1 << 18,
    compaction_interval: Some(Duration::from_millis(50)),
    background: true,
};

fn key_of(number: u64) -> String {
    format!("job=\"{}\"", number % KEYS)
}

/// Commits batches until `stop` is set.
fn write(folder: &Path, acknowledged: &AtomicU64, stop: &AtomicBool) -> Result<(), EngineError> {
    let (mut engine, _) = Snapshot::open(folder, OPTIONS)?.read_all(NonZeroUsize::MIN, &|_, _| ())?;
    while !stop.load(Ordering::Acquire) {
        let number = acknowledged.load(Ordering::Acquire) + 1;
        let (key, record) = (key_of(number), number.to_string().repeat(REPETITIONS));
        let record = record.as_bytes();
        let batch = [Change::Put { key: &key, record }, Change::Put { key: LAST_KEY, record }];
        engine.commit(&batch, Durability::Process)?;
        acknowledged.store(number, Ordering::Release);
        // Leaves time for the copies.
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Copies the manifest, then all files that it may list. Returns false if the manifest has changed in the meantime.
fn copy(from: &Path, to: &Path) -> io::Result<bool> {
    fs::copy(from.join("manifest"), to.join("manifest"))?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if ["archive-", "log-"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            fs::copy(from.join(&name), to.join(&name))?;
        }
    }
    Ok(fs::read(from.join("manifest"))? == fs::read(to.join("manifest"))?)
}

/// Reads a store: for each key, the number of the batch that put its record.
fn read(folder: &Path) -> Result<BTreeMap<String, u64>, EngineError> {
    let found = Mutex::new(BTreeMap::new());
    Snapshot::open(folder, Options::default())?.read_all(NonZeroUsize::MIN, &|key, record| {
        let text = std::str::from_utf8(&record[..record.len() / REPETITIONS]).expect("records are text");
        let number = text.parse().expect("records are numbers");
        found.lock().expect("no thread panicked").insert(key.to_owned(), number);
    })?;
    Ok(found.into_inner().expect("no thread panicked"))
}

/// Checks that the records are those after some batch, which is not before `least`.
fn check_state(found: &BTreeMap<String, u64>, least: u64, case: &str) {
    let last = found[LAST_KEY];
    assert!(last >= least, "{case} ends with batch {last}, but {least} was acknowledged before");
    for (key, number) in found.iter().filter(|(key, _)| *key != LAST_KEY) {
        let expected = (last.saturating_sub(KEYS - 1)..=last).find(|number| key_of(*number) == *key);
        assert_eq!(Some(*number), expected, "{case} ends with batch {last}, record of {key}");
    }
}

#[test]
fn a_copy_of_a_store_in_use_contains_every_batch_acknowledged_before() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(folder.path(), &acknowledged, &stop));
        let (mut copies, mut attempts) = (0, 0);
        while copies < COPIES {
            attempts += 1;
            // Lets compactions run between copies, and now and then during one.
            thread::sleep(Duration::from_millis(13));
            assert!(attempts < ATTEMPTS_MAX, "the manifest changes during every copy");
            assert!(!writer.is_finished(), "{:?}", writer.join());
            let least = acknowledged.load(Ordering::Acquire);
            let to = tempfile::tempdir().expect("a folder for a test");
            // Copying a file that is removed in the meantime is an error, and a reason to start over.
            if least == 0 || !copy(folder.path(), to.path()).unwrap_or(false) {
                continue;
            }
            let case = format!("copy {attempts}");
            let found = read(to.path()).unwrap_or_else(|error| panic!("{case}: {error}"));
            check_state(&found, least, &case);
            copies += 1;
        }
        stop.store(true, Ordering::Release);
        writer.join().expect("the writer does not panic").expect("every batch is committed");
    });
}
