//! Damaged files: the engine returns the exact state, an older one with a warning, or an error. sled reacts differently to
//! each flipped byte, so these tests compare with what was acknowledged.

use std::path::Path;

use sluicegate_engine::suite::damage::{Outcomes, Trials, history};
use sluicegate_engine::suite::{Plan, State, Subject, commit, open, restore};
use sluicegate_engine::{Durability, EngineError, UnreadStore};
use sluicegate_sled::Sled;

const PLAN: Plan = Plan { seed: 12, keys: 5, record_bytes_max: 40 };
const BATCHES: u64 = 24;

struct SledEngine;

impl Subject for SledEngine {
    fn open(&self, folder: &Path) -> Result<UnreadStore, EngineError> {
        Sled::open(folder)
    }
}

fn store(durability: Durability, close: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let (mut engine, _, _) = open(&SledEngine, folder.path()).expect("the store opens");
    for number in 1..=BATCHES {
        commit(engine.as_mut(), &PLAN.batch(number), durability).expect("a batch is committed");
    }
    if close {
        engine.close().expect("the store closes");
    }
    folder
}

fn trials<'a>(folder: &'a Path, history: &'a [State], older_max: u64, step: usize) -> Trials<'a> {
    Trials { subject: &SledEngine, folder, history, older_max, step, copy: true }
}

fn is_mark(file: &Path) -> bool {
    file == Path::new("mark")
}

fn is_log(file: &Path) -> bool {
    file == Path::new("db/db")
}

#[test]
fn reports_a_flipped_byte() {
    let history = history(PLAN, BATCHES);
    // Batches that need to survive only the process may all be missing, but not without a warning.
    for (durability, close, older_max) in
        [(Durability::Process, false, BATCHES), (Durability::Disk, false, 0), (Durability::Process, true, 0)]
    {
        let folder = store(durability, close);
        let outcomes = trials(folder.path(), &history, older_max, STEP).flip_bytes(|file| !is_mark(file));
        println!("{durability:?} closed {close}: {outcomes:?}");
        assert!(outcomes.refused > 0);
    }
}

const STEP: usize = 101;

#[test]
fn reports_a_truncated_database() {
    let history = history(PLAN, BATCHES);
    for (durability, older_max) in [(Durability::Process, BATCHES), (Durability::Disk, 0)] {
        let folder = store(durability, false);
        let outcomes = trials(folder.path(), &history, older_max, STEP).cut_files(is_log);
        println!("{durability:?}: {outcomes:?}");
        assert!(outcomes.refused + outcomes.older > 50);
    }
}

#[test]
fn a_crash_between_batch_and_mark_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let mark = folder.path().join("mark");
    for number in 1..=5 {
        let before = std::fs::read(&mark).ok();
        let (mut engine, state, restored) = open(&SledEngine, folder.path()).expect("the store opens");
        assert_eq!((restored.sequence, restored.warnings), (number - 1, Vec::new()));
        assert_eq!(state, PLAN.state(number - 1));
        commit(engine.as_mut(), &PLAN.batch(number), Durability::Disk).expect("a batch is committed");
        drop(engine);
        if let Some(before) = before {
            std::fs::write(&mark, before).expect("the mark as it was");
        }
    }
    let (_, state, _) = open(&SledEngine, folder.path()).expect("the store opens");
    assert_eq!(state, PLAN.state(5));
}

#[test]
fn tolerates_a_flipped_byte_of_the_mark() {
    let history = history(PLAN, BATCHES);
    let folder = store(Durability::Disk, false);
    let outcomes = trials(folder.path(), &history, 0, 3).flip_bytes(is_mark);
    assert_eq!((outcomes.older, outcomes.refused), (0, 0), "{outcomes:?}");
}

#[test]
fn refuses_a_store_with_a_missing_file() {
    let history = history(PLAN, BATCHES);
    let folder = store(Durability::Disk, true);
    let which = |file: &Path| is_mark(file) || is_log(file);
    let outcomes = trials(folder.path(), &history, 0, 1).remove_files(which);
    assert_eq!(outcomes, Outcomes { exact: 0, older: 0, refused: 2 });
}

#[test]
fn refuses_records_that_were_not_committed() {
    type Harm = fn(&sled::Db, &[u8]) -> sled::Result<Option<sled::IVec>>;
    let harms: [Harm; 3] = [
        |db, key| db.remove(key),
        |db, key| db.insert(key, b"something else"),
        |db, _| db.insert(b"job=\"one too many\"", b"record"),
    ];
    for harm in harms {
        let folder = store(Durability::Disk, true);
        {
            let db = sled::open(folder.path().join("db")).expect("sled opens");
            let first = db.iter().keys().find(|key| key.as_ref().is_ok_and(|key| key[0] != 0));
            harm(&db, &first.expect("a record").expect("a key")).expect("sled writes");
            db.flush().expect("sled flushes");
        }
        // The header is intact, so only reading the records finds the difference.
        let store = SledEngine.open(folder.path()).expect("the store opens");
        let error = restore(store, 1).err();
        assert!(matches!(error, Some(EngineError::Damaged { .. })), "{error:?}");
    }
}

#[test]
fn refuses_an_older_copy_of_the_database() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let old = tempfile::tempdir().expect("a folder for a test");
    for number in 1..=10 {
        let (mut engine, _, _) = open(&SledEngine, folder.path()).expect("the store opens");
        commit(engine.as_mut(), &PLAN.batch(number), Durability::Disk).expect("a batch is committed");
        drop(engine);
        if number == 5 {
            copy(&folder.path().join("db"), &old.path().join("db"));
        }
    }
    std::fs::remove_dir_all(folder.path().join("db")).expect("a folder");
    copy(&old.path().join("db"), &folder.path().join("db"));
    let error = open(&SledEngine, folder.path()).err().expect("five batches are missing");
    assert!(error.to_string().contains("ends with batch 5, but batch 10 was on the disk"), "{error}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("a folder");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("a file")),
        }
    }
}
