//! Every byte flipped, every file cut or taken away.

use std::path::Path;

use sluicegate_engine::suite::damage::{Outcomes, Trials, history};
use sluicegate_engine::suite::{Plan, Subject, commit, open};
use sluicegate_engine::{Durability, Engine, EngineError};

use crate::{Options, Snapshot};

const PLAN: Plan = Plan { seed: 12, keys: 5, record_bytes_max: 40 };
const BATCHES: u64 = 24;

struct Small;

impl Subject for Small {
    fn open(&self, folder: &Path) -> Result<Box<dyn Engine>, EngineError> {
        let options = Options {
            partitions: 2,
            segment_bytes_min: 512,
            segment_bytes_max: 1024,
            log_bytes: 1500,
            archive_interval: None,
            background: false,
        };
        Ok(Box::new(Snapshot::open(folder, options)?))
    }
}

/// A store with archives and several segments, left by a kill or by a close.
fn store(durability: Durability, close: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let (mut backend, _, _) = open(&Small, folder.path()).expect("the store opens");
    for number in 1..=BATCHES {
        commit(backend.as_mut(), &PLAN.batch(number), durability).expect("a batch is kept");
    }
    if close {
        backend.close().expect("the store closes");
    }
    let names = names(folder.path());
    let count = |prefix| names.iter().filter(|name: &&String| name.starts_with(prefix)).count();
    assert_eq!(count("archive-"), 2, "{names:?}");
    assert!(if close { count("log-") == 0 } else { count("log-") > 1 }, "{names:?}");
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a readable folder");
    entries.map(|entry| entry.expect("a readable folder").file_name().into_string().expect("ASCII")).collect()
}

fn trials<'a>(
    folder: &'a Path,
    history: &'a [sluicegate_engine::suite::State],
    older_max: u64,
) -> Trials<'a> {
    Trials { subject: &Small, folder, history, older_max, step: 1, copy: false }
}

/// Whether a file counts: blank segments and the lock may be anything.
fn is_data(file: &Path) -> bool {
    file != Path::new("lock") && file.extension().is_none()
}

/// The last batches, which are in the log only and of which nothing says that they were on the disk.
const OPEN_MAX: u64 = BATCHES;

#[test]
fn a_flipped_byte_is_never_silent() {
    let history = history(PLAN, BATCHES);
    for (durability, close, older_max) in [
        (Durability::Process, false, OPEN_MAX),
        // That the last batch was on the disk, only the next one would say.
        (Durability::Disk, false, 1),
        (Durability::Disk, true, 0),
        (Durability::Process, true, 0),
    ] {
        let folder = store(durability, close);
        let Outcomes { exact, older, refused } =
            trials(folder.path(), &history, older_max).flip_bytes(|_| true);
        println!("{durability:?} closed {close}: {exact} exact, {older} older, {refused} refused");
        assert!(refused > 500);
        assert_eq!(older > 0, !close);
        assert_eq!(exact > 0, !close, "zeros behind the end of a log may change, nothing else");
    }
}

#[test]
fn a_file_that_was_cut_is_refused() {
    let history = history(PLAN, BATCHES);
    for close in [false, true] {
        let folder = store(Durability::Process, close);
        let outcomes = trials(folder.path(), &history, 0).cut_files(is_data);
        println!("{outcomes:?}");
        assert!(outcomes.refused > 500);
        assert_eq!((outcomes.exact, outcomes.older), (0, 0));
    }
}

#[test]
fn a_file_that_is_gone_is_missed() {
    let history = history(PLAN, BATCHES);
    for close in [false, true] {
        let folder = store(Durability::Process, close);
        let outcomes = trials(folder.path(), &history, 0).remove_files(is_data);
        assert_eq!((outcomes.exact, outcomes.older), (0, 0), "{outcomes:?}");
    }
}

#[test]
fn an_older_manifest_or_archive_is_noticed() {
    let early = store(Durability::Disk, true);
    let late = tempfile::tempdir().expect("a folder for a test");
    for name in names(early.path()) {
        std::fs::copy(early.path().join(&name), late.path().join(&name)).expect("a copy");
    }
    {
        let (mut backend, _, _) = open(&Small, late.path()).expect("the store opens");
        commit(backend.as_mut(), &PLAN.batch(BATCHES + 1), Durability::Disk).expect("a batch is kept");
    }
    std::fs::copy(early.path().join("manifest"), late.path().join("manifest")).expect("a copy");
    let error = open(&Small, late.path()).err().expect("the manifest is an old one");
    assert!(error.to_string().contains("an old one"), "{error}");
}

#[test]
fn what_was_cut_once_is_no_trouble_again() {
    let history = history(PLAN, BATCHES);
    let folder = store(Durability::Process, false);
    let trials = Trials { copy: true, step: 7, ..trials(folder.path(), &history, OPEN_MAX) };
    assert!(trials.flip_bytes(|_| true).older > 20);
}

#[test]
fn a_later_version_is_named() {
    let folder = store(Durability::Disk, true);
    let path = folder.path().join("manifest");
    let mut bytes = std::fs::read(&path).expect("a manifest");
    bytes[8] = 2;
    let end = bytes.len() - 4;
    let checksum = crc32c::crc32c(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&checksum);
    std::fs::write(&path, bytes).expect("a manifest");
    let error = open(&Small, folder.path()).err();
    assert!(matches!(error, Some(EngineError::TooNew { found: 2, known: 1, .. })), "{error:?}");
}
