//! Damaged files: read exactly, or older with a warning, or refused. What sled makes of a flipped byte differs from byte to
//! byte, so this holds its answers against what was acknowledged.

use std::path::Path;

use sluicegate_engine::suite::damage::{Outcomes, Trials, history};
use sluicegate_engine::suite::{Plan, State, Subject, commit, open};
use sluicegate_engine::{Durability, Engine, EngineError};
use sluicegate_sled::Sled;

const PLAN: Plan = Plan { seed: 12, keys: 5, record_bytes_max: 40 };
const BATCHES: u64 = 24;

struct EngineUnderTest;

impl Subject for EngineUnderTest {
    fn open(&self, folder: &Path) -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(Sled::open(folder)?))
    }
}

fn store(durability: Durability, close: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let (mut backend, _, _) = open(&EngineUnderTest, folder.path()).expect("the store opens");
    for number in 1..=BATCHES {
        commit(backend.as_mut(), &PLAN.batch(number), durability).expect("a batch is kept");
    }
    if close {
        backend.close().expect("the store closes");
    }
    folder
}

fn trials<'a>(folder: &'a Path, history: &'a [State], older_max: u64, step: usize) -> Trials<'a> {
    Trials { subject: &EngineUnderTest, folder, history, older_max, step, copy: true }
}

fn is_mark(file: &Path) -> bool {
    file == Path::new("mark")
}

fn is_log(file: &Path) -> bool {
    file == Path::new("db/db")
}

#[test]
fn a_flipped_byte_is_never_silent() {
    let history = history(PLAN, BATCHES);
    // Of what was only meant to survive the process, everything may be missing, but not without a word.
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
fn a_database_that_was_cut_is_never_silent() {
    let history = history(PLAN, BATCHES);
    for (durability, older_max) in [(Durability::Process, BATCHES), (Durability::Disk, 0)] {
        let folder = store(durability, false);
        let outcomes = trials(folder.path(), &history, older_max, STEP).cut_files(is_log);
        println!("{durability:?}: {outcomes:?}");
        assert!(outcomes.refused + outcomes.older > 50);
    }
}

#[test]
fn a_process_that_ends_between_the_batch_and_the_mark_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let mark = folder.path().join("mark");
    for number in 1..=5 {
        let before = std::fs::read(&mark).ok();
        let (mut backend, state, restored) = open(&EngineUnderTest, folder.path()).expect("the store opens");
        assert_eq!((restored.sequence, restored.warnings), (number - 1, Vec::new()));
        assert_eq!(state, PLAN.state(number - 1));
        commit(backend.as_mut(), &PLAN.batch(number), Durability::Disk).expect("a batch is kept");
        drop(backend);
        if let Some(before) = before {
            std::fs::write(&mark, before).expect("the mark as it was");
        }
    }
    let (_, state, _) = open(&EngineUnderTest, folder.path()).expect("the store opens");
    assert_eq!(state, PLAN.state(5));
}

#[test]
fn a_flipped_byte_of_the_mark_does_no_harm() {
    let history = history(PLAN, BATCHES);
    let folder = store(Durability::Disk, false);
    let outcomes = trials(folder.path(), &history, 0, 3).flip_bytes(is_mark);
    assert_eq!((outcomes.older, outcomes.refused), (0, 0), "{outcomes:?}");
}

#[test]
fn a_file_that_is_gone_is_missed() {
    let history = history(PLAN, BATCHES);
    let folder = store(Durability::Disk, true);
    let which = |file: &Path| is_mark(file) || is_log(file);
    let outcomes = trials(folder.path(), &history, 0, 1).remove_files(which);
    assert_eq!(outcomes, Outcomes { exact: 0, older: 0, refused: 2 });
}

#[test]
fn records_that_are_not_those_that_were_put_in_are_noticed() {
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
        // sled lets go of its files a moment later.
        let mut backend = EngineUnderTest.open(folder.path()).expect("the header is as it was");
        let refused = sluicegate_engine::suite::restore(backend.as_mut(), 1);
        assert!(matches!(refused, Err(EngineError::Damaged { .. })), "{refused:?}");
    }
}

#[test]
fn a_database_that_is_an_older_copy_is_refused() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let old = tempfile::tempdir().expect("a folder for a test");
    for number in 1..=10 {
        let (mut backend, _, _) = open(&EngineUnderTest, folder.path()).expect("the store opens");
        commit(backend.as_mut(), &PLAN.batch(number), Durability::Disk).expect("a batch is kept");
        drop(backend);
        if number == 5 {
            copy(&folder.path().join("db"), &old.path().join("db"));
        }
    }
    std::fs::remove_dir_all(folder.path().join("db")).expect("a folder");
    copy(&old.path().join("db"), &folder.path().join("db"));
    let error = open(&EngineUnderTest, folder.path()).err().expect("five batches are missing");
    assert!(error.to_string().contains("came back with batch 5, but batch 10 was on the disk"), "{error}");
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
