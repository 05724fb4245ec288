//! Every byte flipped, every file cut at each length, every file removed.

use std::path::Path;

use sluicegate_engine::suite::damage::{Outcomes, Trials, history};
use sluicegate_engine::suite::{Plan, State, commit, open};
use sluicegate_engine::{Durability, EngineError};

use super::WithOptions;
use crate::Options;

const PLAN: Plan = Plan { seed: 17, keys: 5, record_bytes_max: 40 };
const BATCHES: u64 = 24;

const SMALL: WithOptions = WithOptions(Options {
    partitions: 2,
    segment_bytes_min: 512,
    segment_bytes_max: 1024,
    log_bytes: 6000,
    compaction_interval: None,
    background: false,
});

/// How the store was left.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    Closed,
    Killed,
}

/// A store with archives and, if it was killed, several segments.
fn store(durability: Durability, left: Left) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let (mut engine, _, _) = open(&SMALL, folder.path()).expect("the store opens");
    for number in 1..=BATCHES {
        commit(engine.as_mut(), &PLAN.batch(number), durability).expect("a batch is committed");
    }
    if left == Left::Closed {
        engine.close().expect("the store closes");
    }
    let names = names(folder.path());
    let count = |prefix| names.iter().filter(|name: &&String| name.starts_with(prefix)).count();
    assert_eq!(count("archive-"), 2, "{names:?}");
    match left {
        Left::Closed => assert_eq!(count("log-"), 0, "{names:?}"),
        Left::Killed => assert!(count("log-") > 1, "{names:?}"),
    }
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("a readable folder");
    files.map(|file| file.expect("a readable folder").file_name().into_string().expect("ASCII")).collect()
}

fn trials<'a>(folder: &'a Path, history: &'a [State], older_max: u64) -> Trials<'a> {
    Trials { subject: &SMALL, folder, history, older_max, step: 1, copy: false }
}

/// Whether a file contains data. The lock and temporary files may have any content.
fn is_data(file: &Path) -> bool {
    file != Path::new("lock") && file.extension().is_none()
}

/// Flips every byte of a store. Batches that no mark covers may be lost, at most `older_max` of them.
fn check_flipped_bytes(durability: Durability, left: Left, older_max: u64) {
    let history = history(PLAN, BATCHES);
    let folder = store(durability, left);
    let Outcomes { exact, older, refused } = trials(folder.path(), &history, older_max).flip_bytes(|_| true);
    println!("{exact} exact, {older} older, {refused} refused");
    assert!(refused > 500, "{refused} refused");
    assert_eq!(older > 0, left == Left::Killed, "{older} older");
    // Only the zeros between the end of the log and the end of a segment may change without an effect.
    assert_eq!(exact > 0, left == Left::Killed, "{exact} exact");
}

#[test]
fn a_flipped_byte_in_a_killed_store_is_detected() {
    // Only the log contains the last batches, and no mark covers them.
    check_flipped_bytes(Durability::Process, Left::Killed, BATCHES);
}

#[test]
fn a_flipped_byte_in_a_killed_store_with_durability_disk_is_detected() {
    // Only the next batch would record that the last one was on the disk.
    check_flipped_bytes(Durability::Disk, Left::Killed, 1);
}

#[test]
fn a_flipped_byte_in_a_closed_store_is_refused() {
    for durability in [Durability::Process, Durability::Disk] {
        check_flipped_bytes(durability, Left::Closed, 0);
    }
}

#[test]
fn a_shortened_file_is_refused() {
    let history = history(PLAN, BATCHES);
    for left in [Left::Killed, Left::Closed] {
        let folder = store(Durability::Process, left);
        let outcomes = trials(folder.path(), &history, 0).cut_files(is_data);
        assert!(outcomes.refused > 500, "{outcomes:?}");
        assert_eq!((outcomes.exact, outcomes.older), (0, 0), "{outcomes:?}");
    }
}

#[test]
fn a_missing_file_is_refused() {
    let history = history(PLAN, BATCHES);
    for left in [Left::Killed, Left::Closed] {
        let folder = store(Durability::Process, left);
        let outcomes = trials(folder.path(), &history, 0).remove_files(is_data);
        assert!(outcomes.refused > 2, "{outcomes:?}");
        assert_eq!((outcomes.exact, outcomes.older), (0, 0), "{outcomes:?}");
    }
}

#[test]
fn an_older_copy_of_the_manifest_is_refused() {
    let early = store(Durability::Disk, Left::Closed);
    let late = tempfile::tempdir().expect("a folder for a test");
    for name in names(early.path()) {
        std::fs::copy(early.path().join(&name), late.path().join(&name)).expect("a readable file");
    }
    {
        let (mut engine, _, _) = open(&SMALL, late.path()).expect("the store opens");
        commit(engine.as_mut(), &PLAN.batch(BATCHES + 1), Durability::Disk).expect("a batch is committed");
    }
    std::fs::copy(early.path().join("manifest"), late.path().join("manifest")).expect("a readable file");
    let error = open(&SMALL, late.path()).err().expect("the manifest is older than the log");
    assert!(error.to_string().contains("an older copy"), "{error}");
}

#[test]
fn a_store_whose_log_was_cut_can_be_continued() {
    let history = history(PLAN, BATCHES);
    let folder = store(Durability::Process, Left::Killed);
    // With a copy for each trial, each store that opens with a warning is written and opened again.
    let trials = Trials { copy: true, step: 7, ..trials(folder.path(), &history, BATCHES) };
    let outcomes = trials.flip_bytes(|_| true);
    assert!(outcomes.older > 20, "{outcomes:?}");
}

#[test]
fn a_later_version_is_reported_as_such() {
    let folder = store(Durability::Disk, Left::Closed);
    let path = folder.path().join("manifest");
    let mut bytes = std::fs::read(&path).expect("a readable file");
    // The version is after the magic number, the checksum at the end.
    bytes[8] = 2;
    let end = bytes.len() - 4;
    let checksum = crc32c::crc32c(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&checksum);
    std::fs::write(&path, bytes).expect("a writable file");
    let error = open(&SMALL, folder.path()).err();
    assert!(matches!(error, Some(EngineError::TooNew { found: 2, known: 1, .. })), "{error:?}");
}
