//! How much disk a store takes up, and what it leaves behind.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sluicegate_engine::Durability;
use sluicegate_engine::suite::{Op, commit, open};

use super::WithOptions;
use crate::Options;

const MIB: u64 = 1 << 20;

/// The bytes that the files in a folder occupy.
fn used_bytes(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).expect("a readable folder").flatten();
    // A file may be renamed or removed meanwhile.
    files.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512)).sum()
}

/// A batch that writes a quarter of a store of `groups` MiB again.
fn batch(number: u64, groups: u64) -> Vec<Op> {
    let count = groups * 16;
    (0..count / 4)
        .map(|at| {
            let group = (number * count / 4 + at) % count;
            Op::put(&format!("instance=\"{group}\",job=\"a\""), &vec![number as u8; 64 << 10])
        })
        .collect()
}

#[test]
fn a_small_store_takes_up_a_bounded_multiple_of_its_groups() {
    for (groups, used_max) in [(1, 16 + 3 * 4 + 2), (8, 32 + 3 * 8 + 2 * 8)] {
        let folder = tempfile::tempdir().expect("a folder for a test");
        let options = Options { background: false, ..Options::default() };
        let (mut engine, _, _) = open(&WithOptions(options), folder.path()).expect("the store opens");
        let mut used = 0;
        for number in 0..100 {
            commit(engine.as_mut(), &batch(number, groups), Durability::Process)
                .expect("a batch is committed");
            used = used.max(used_bytes(folder.path()));
        }
        let used_max = (used_max + 1) * MIB;
        assert!(used <= used_max, "{groups} MiB of groups took up {used} bytes, more than {used_max}");
        engine.close().expect("the store closes");
        let closed = used_bytes(folder.path());
        assert!(closed <= (groups + 1) * MIB * 5 / 4, "{closed} bytes after closing");
    }
}

#[test]
fn unfinished_files_are_removed_without_a_commit() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let subject = WithOptions(Options::default());
    let (mut engine, _, _) = open(&subject, folder.path()).expect("the store opens");
    commit(engine.as_mut(), &batch(0, 1), Durability::Process).expect("a batch is committed");
    engine.close().expect("the store closes");
    let unfinished = folder.path().join("blank-7.aside");
    for closes in [false, true] {
        fs::write(&unfinished, vec![0; 1 << 20]).expect("a writable folder");
        let (mut engine, state, _) = open(&subject, folder.path()).expect("the store opens");
        assert_eq!(state.len(), 4);
        assert!(unfinished.exists(), "opening changes nothing");
        if closes {
            engine.close().expect("the store closes");
        } else {
            engine.maintain().expect("nothing fails");
        }
        assert!(!unfinished.exists());
    }
}
