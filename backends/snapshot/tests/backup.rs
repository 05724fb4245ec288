//! A copy that is taken while the store is written, as `docs/operations.md` says it, opens with a state that was.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sluicegate_engine::{Change, Durability, Engine, EngineError};
use sluicegate_snapshot::{Options, Snapshot};

const COPIES: usize = 20;
/// The keys of batch `n` are `n % KEYS` and this one; both get `n` as their record.
const LAST: &str = "last=\"\"";
const KEYS: u64 = 50;

fn options() -> Options {
    // Merges and new segments all the time.
    Options {
        partitions: 8,
        segment_bytes_min: 1 << 14,
        segment_bytes_max: 1 << 16,
        log_bytes: 1 << 18,
        archive_interval: Some(Duration::from_millis(50)),
        background: true,
    }
}

fn write(folder: &Path, acknowledged: &AtomicU64, stop: &AtomicBool) -> Result<(), EngineError> {
    let mut backend = Snapshot::open(folder, options())?;
    backend.restore(NonZeroUsize::MIN, &|_, _| ())?;
    while !stop.load(Ordering::Acquire) {
        let number = acknowledged.load(Ordering::Acquire) + 1;
        let (key, record) = (format!("job=\"{}\"", number % KEYS), number.to_string().repeat(20));
        let record = record.as_bytes();
        let batch = [Change::Put { key: &key, record }, Change::Put { key: LAST, record }];
        backend.commit(&batch, Durability::Process)?;
        acknowledged.store(number, Ordering::Release);
        // A gateway has other things to do, too.
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Copies the manifest, then all that it may name. False if it names something else by now.
fn copy(from: &Path, to: &Path) -> io::Result<bool> {
    fs::copy(from.join("manifest"), to.join("manifest"))?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if ["archive-", "log-"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            fs::copy(from.join(&name), to.join(&name))?;
        }
    }
    Ok(fs::read(from.join("manifest"))? == fs::read(to.join("manifest"))?)
}

/// The records of a copy by key, as the numbers of their batches.
fn read(folder: &Path) -> Result<BTreeMap<String, u64>, EngineError> {
    let found = Mutex::new(BTreeMap::new());
    Snapshot::open(folder, Options::default())?.restore(NonZeroUsize::MIN, &|key, record| {
        let text = std::str::from_utf8(&record[..record.len() / 20]).expect("it was text");
        let number = text.parse().expect("it was a number");
        found.lock().expect("no panic while it was held").insert(key.to_owned(), number);
    })?;
    Ok(found.into_inner().expect("no panic while it was held"))
}

#[test]
fn a_copy_of_a_store_in_use_opens_with_all_that_was_acknowledged_before() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(folder.path(), &acknowledged, &stop));
        let (mut good, mut tries) = (0, 0);
        while good < COPIES {
            tries += 1;
            // So that merges come in between, and now and then while files are copied.
            thread::sleep(Duration::from_millis(13));
            assert!(tries < 10_000, "the store does not hold still for a copy");
            assert!(!writer.is_finished(), "{:?}", writer.join());
            let least = acknowledged.load(Ordering::Acquire);
            let to = tempfile::tempdir().expect("a folder for a test");
            // What went away meanwhile is an error, and a reason to begin again.
            if least == 0 || !copy(folder.path(), to.path()).unwrap_or(false) {
                continue;
            }
            let found = read(to.path()).unwrap_or_else(|error| panic!("copy {tries}: {error}"));
            let last = found[LAST];
            assert!(last >= least, "copy {tries} has batch {last}, but {least} was acknowledged before");
            for (key, number) in &found {
                let expected =
                    (last.saturating_sub(KEYS - 1)..=last).find(|n| format!("job=\"{}\"", n % KEYS) == *key);
                assert!(
                    key == LAST || expected == Some(*number),
                    "copy {tries}: {key} is {number} of {last}"
                );
            }
            good += 1;
        }
        stop.store(true, Ordering::Release);
        writer.join().expect("no panic").expect("every batch is kept");
    });
}
