//! What an engine does when nothing goes wrong.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Change, Durability, Engine, EngineError};

use super::{Op, Plan, State, Subject, commit, open, restore};

const PLAN: Plan = Plan { seed: 1, keys: 30, record_bytes_max: 300 };

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for a test")
}

fn opened(subject: &dyn Subject, folder: &Path) -> (Box<dyn Engine>, State) {
    let (backend, state, restored) = open(subject, folder).expect("the store opens");
    assert_eq!(restored.warnings, Vec::<String>::new());
    (backend, state)
}

fn kept(subject: &dyn Subject, state: State) -> State {
    if subject.keeps() { state } else { State::new() }
}

/// Closes or drops, whatever the number says: both keep what was committed.
fn leave(backend: Box<dyn Engine>, number: u64) {
    if number.is_multiple_of(2) {
        backend.close().expect("the store closes");
    } else {
        drop(backend);
    }
}

/// Nothing comes out of a store in which nothing was put.
pub fn a_new_store_is_empty(subject: &dyn Subject) {
    let folder = folder();
    for number in 0..4 {
        let (backend, state, restored) = open(subject, folder.path()).expect("the store opens");
        assert_eq!((state.len(), restored.sequence, restored.warnings), (0, 0, Vec::new()));
        leave(backend, number);
    }
}

/// After any number of batches and restarts there is what the batches say, in the order they came.
pub fn batches_come_back_in_their_order(subject: &dyn Subject) {
    let folder = folder();
    let mut expected = State::new();
    let mut number = 0;
    for round in 0..12 {
        let (mut backend, state) = opened(subject, folder.path());
        assert_eq!(state, kept(subject, expected.clone()), "after {number} batches");
        let durability = if round % 3 == 0 { Durability::Disk } else { Durability::Process };
        for _ in 0..25 {
            number += 1;
            commit(backend.as_mut(), &PLAN.batch(number), durability).expect("a batch is kept");
        }
        expected = PLAN.state(number);
        leave(backend, round);
    }
}

/// Within a batch the changes count in their order.
pub fn the_last_change_of_a_group_counts(subject: &dyn Subject) {
    let (a, b, c) = ("job=\"a\"", "job=\"b\"", "job=\"c\"");
    let batches = [
        vec![Op::put(a, b"1"), Op::put(a, b"2"), Op::put(b, b"1"), Op::Delete(b.to_owned())],
        vec![Op::Delete(a.to_owned()), Op::put(a, b"3"), Op::put(a, b"")],
        vec![Op::put(b, b"4"), Op::Wipe, Op::put(c, b"5")],
        vec![Op::put(c, b"6"), Op::Delete(c.to_owned()), Op::Delete(b.to_owned())],
        vec![],
        vec![Op::put(c, b"7")],
        vec![Op::Wipe, Op::Wipe],
        vec![Op::put(b, b"8")],
    ];
    for close in 0..2 {
        let folder = folder();
        let mut expected = State::new();
        for batch in &batches {
            let (mut backend, state) = opened(subject, folder.path());
            assert_eq!(state, kept(subject, expected.clone()));
            commit(backend.as_mut(), batch, Durability::Process).expect("a batch is kept");
            batch.iter().for_each(|op| op.apply(&mut expected));
            let (state, _) = restore(backend.as_mut(), 1).expect("the store can be read between batches");
            assert_eq!(state, kept(subject, expected.clone()));
            leave(backend, close);
        }
    }
}

/// A restore changes nothing, wherever it comes.
pub fn restoring_twice_gives_the_same(subject: &dyn Subject) {
    let folder = folder();
    for round in 0..6 {
        let (mut backend, first) = opened(subject, folder.path());
        for threads in [1, 3] {
            let (again, _) = restore(backend.as_mut(), threads).expect("a second restore");
            assert_eq!(again, first);
        }
        for number in 1..20 {
            commit(backend.as_mut(), &PLAN.batch(round * 100 + number), Durability::Process)
                .expect("a batch is kept");
            if number % 7 == 0 {
                let (one, _) = restore(backend.as_mut(), 1).expect("a restore between batches");
                let (two, _) = restore(backend.as_mut(), 2).expect("a restore between batches");
                assert_eq!(one, two);
            }
        }
        leave(backend, round);
    }
}

/// Each batch has the next number, also after a restart.
pub fn numbers_go_on_after_a_restart(subject: &dyn Subject) {
    let folder = folder();
    let mut last = 0;
    for round in 0..6 {
        let (mut backend, _, restored) = open(subject, folder.path()).expect("the store opens");
        assert_eq!(restored.sequence, if subject.keeps() { last } else { 0 });
        if subject.keeps() && round > 0 {
            assert_eq!(restored.closed, (round - 1) % 2 == 0, "whether the last run was closed");
        }
        last = restored.sequence;
        for _ in 0..3 {
            let batch = [Op::put("job=\"a\"", &[round as u8])];
            let number = commit(backend.as_mut(), &batch, Durability::Process).expect("a batch is kept");
            assert_eq!(number, last + 1);
            last = number;
        }
        leave(backend, round);
    }
}

/// Keys are any text, records any bytes, both of any size that a push can have.
pub fn odd_keys_and_records_are_kept(subject: &dyn Subject) {
    let folder = folder();
    let long = format!("job=\"{}\"", "k".repeat(100_000));
    let batch = [
        Op::put("job=\"\"", b""),
        Op::put("job=\"\u{1F980}\\\"\\n\"", &[0; 1000]),
        Op::put(&long, b"long key"),
        Op::put("x", &vec![0xa5; 5 << 20]),
        Op::put("job=\"zeros\"", &vec![0; 70_000]),
    ];
    let mut expected = State::new();
    for round in 0..3 {
        let (mut backend, state) = opened(subject, folder.path());
        assert!(state == kept(subject, expected.clone()), "in round {round}");
        commit(backend.as_mut(), &batch, Durability::Disk).expect("a batch is kept");
        batch.iter().for_each(|op| op.apply(&mut expected));
        leave(backend, round);
    }
}

/// Who writes before reading could write over what was there.
pub fn a_batch_before_the_restore_is_refused(subject: &dyn Subject) {
    let folder = folder();
    let mut backend = subject.open(folder.path()).expect("the store opens");
    let refused = commit(backend.as_mut(), &[Op::Wipe], Durability::Process);
    assert!(matches!(refused, Err(EngineError::NotRestored)), "{refused:?}");
    restore(backend.as_mut(), 1).expect("nothing has failed by that");
    commit(backend.as_mut(), &[Op::Wipe], Durability::Process).expect("now it may");
}

/// Two writers would write over each other.
pub fn a_store_has_one_user(subject: &dyn Subject) {
    if !subject.keeps() {
        return;
    }
    let folder = folder();
    let (mut backend, _) = opened(subject, folder.path());
    commit(backend.as_mut(), &[Op::put("job=\"a\"", b"1")], Durability::Process).expect("a batch is kept");
    let second = subject.open(folder.path()).map(|_| ());
    assert!(matches!(second, Err(EngineError::InUse { .. })), "{second:?}");
    commit(backend.as_mut(), &[Op::put("job=\"b\"", b"1")], Durability::Process)
        .expect("the first goes on undisturbed");
    backend.close().expect("the store closes");
    let (_, state) = opened(subject, folder.path());
    assert_eq!(state.len(), 2);
}

/// Many records, restored by one, two and four threads.
pub fn thousands_of_records_come_back_once_each(subject: &dyn Subject) {
    many(subject, 20_000);
}

/// The same with a million.
pub fn a_million_records_come_back_once_each(subject: &dyn Subject) {
    many(subject, 1_000_000);
}

fn many(subject: &dyn Subject, count: u64) {
    let folder = folder();
    let (mut backend, _) = opened(subject, folder.path());
    let key = |number: u64| format!("instance=\"{number}\",job=\"many\"");
    let record = |number: u64| number.to_le_bytes().repeat(8);
    let (numbers, mut sums) = ((0..count).collect::<Vec<_>>(), (0_u64, 0_u64));
    for numbers in numbers.chunks(1000) {
        let texts: Vec<_> = numbers.iter().map(|number| (key(*number), record(*number))).collect();
        let batch: Vec<_> = texts.iter().map(|(key, record)| Change::Put { key, record }).collect();
        backend.commit(&batch, Durability::Process).expect("a batch is kept");
        let every_tenth: Vec<_> = texts.iter().step_by(10).map(|(key, _)| Change::Delete { key }).collect();
        backend.commit(&every_tenth, Durability::Process).expect("a batch is kept");
        sums.0 += (numbers.len() - every_tenth.len()) as u64;
        sums.1 += numbers.iter().enumerate().filter(|(at, _)| at % 10 != 0).map(|(_, n)| n).sum::<u64>();
    }
    let expected = if subject.keeps() { sums } else { (0, 0) };
    for (round, threads) in [1, 2, 4].into_iter().enumerate() {
        let (found, sum) = (AtomicU64::new(0), AtomicU64::new(0));
        let threads = NonZeroUsize::new(threads).expect("not 0");
        let restored = backend.restore(threads, &|key, record| {
            let Some(number) = record.first_chunk().copied().map(u64::from_le_bytes) else { return };
            if key.strip_prefix("instance=\"").and_then(|key| key.strip_suffix("\",job=\"many\""))
                == Some(number.to_string().as_str())
            {
                found.fetch_add(1, Ordering::Relaxed);
                sum.fetch_add(number, Ordering::Relaxed);
            }
        });
        let restored = restored.expect("the store can be read");
        assert_eq!(restored.records, expected.0);
        assert_eq!((found.into_inner(), sum.into_inner()), expected);
        leave(backend, round as u64);
        backend = subject.open(folder.path()).expect("the store opens again");
    }
}
