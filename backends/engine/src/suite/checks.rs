//! What an engine does when nothing goes wrong.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Change, Durability, Engine, EngineError, FirstRead};

use crate::record::{Family, Kind, Numbers, Record};

use super::{ChangingGroups, Op, Plan, State, Subject, commit, open, read, restore};

const PLAN: Plan = Plan { seed: 1, keys: 30, record_bytes_max: 300 };

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for a test")
}

fn opened(subject: &dyn Subject, folder: &Path) -> (Box<dyn Engine>, State) {
    let (engine, state, restored) = open(subject, folder).expect("the store opens");
    assert_eq!(restored.warnings, Vec::<String>::new());
    (engine, state)
}

/// What a store returns in which `state` was committed.
fn stored(subject: &dyn Subject, state: &State) -> State {
    if subject.is_persistent() { state.clone() } else { State::new() }
}

/// Closes or drops the engine, depending on the number. Both keep what was committed.
fn leave(engine: Box<dyn Engine>, number: u64) {
    if number.is_multiple_of(2) {
        engine.close().expect("the store closes");
    } else {
        drop(engine);
    }
}

/// A store without commits contains nothing.
pub fn a_new_store_is_empty(subject: &dyn Subject) {
    let folder = folder();
    for number in 0..4 {
        let (engine, state, restored) = open(subject, folder.path()).expect("the store opens");
        assert_eq!((state.len(), restored.sequence, restored.warnings), (0, 0, Vec::new()));
        leave(engine, number);
    }
}

/// After any number of batches and restarts, the store contains the result of the batches in their order.
pub fn returns_batches_in_commit_order(subject: &dyn Subject) {
    let folder = folder();
    let mut expected = State::new();
    let mut number = 0;
    for round in 0..12 {
        let (mut engine, state) = opened(subject, folder.path());
        assert_eq!(state, stored(subject, &expected), "after {number} batches");
        let durability = if round % 3 == 0 { Durability::Disk } else { Durability::Process };
        for _ in 0..25 {
            number += 1;
            commit(engine.as_mut(), &PLAN.batch(number), durability).expect("a batch is committed");
        }
        expected = PLAN.state(number);
        leave(engine, round);
    }
}

/// A later change of a group in the same batch overrides an earlier one.
pub fn applies_the_changes_of_a_batch_in_order(subject: &dyn Subject) {
    let (a, b, c) = ("job=\"a\"", "job=\"b\"", "job=\"c\"");
    let delete = |key: &str| Op::Delete(key.to_owned());
    let batches = [
        vec![Op::put(a, b"1"), Op::put(a, b"2"), Op::put(b, b"1"), delete(b)],
        vec![delete(a), Op::put(a, b"3"), Op::put(a, b"")],
        vec![Op::put(b, b"4"), delete(a), delete(b), Op::put(c, b"5")],
        vec![Op::put(c, b"6"), delete(c), delete(b)],
        vec![],
        vec![Op::put(c, b"7")],
        vec![delete(c), delete(c)],
        vec![Op::put(b, b"8")],
    ];
    for close in 0..2 {
        let folder = folder();
        let mut expected = State::new();
        for batch in &batches {
            let (mut engine, state) = opened(subject, folder.path());
            assert_eq!(state, stored(subject, &expected));
            commit(engine.as_mut(), batch, Durability::Process).expect("a batch is committed");
            batch.iter().for_each(|op| op.apply(&mut expected));
            let state = read(engine.as_mut(), 1).expect("the store can be read between batches");
            assert_eq!(state, stored(subject, &expected));
            leave(engine, close);
        }
    }
}

/// A record of families with a text each.
fn record(push_seconds: f64, families: &[(&str, &[u8])]) -> Vec<u8> {
    let families = families.iter().map(|(name, text)| Family {
        name,
        kind: Kind::Gauge,
        help: None,
        push_seconds,
        text,
        exact: None,
    });
    let record = Record {
        revision: 0,
        push_seconds,
        failure_seconds: 0.0,
        created_seconds: 1.0,
        expires_seconds: None,
        families: families.collect(),
    };
    let mut out = Vec::new();
    record.encode(&mut out).expect("a small record");
    out
}

/// A patch changes a part of a record, in its place among the other changes of a batch and of later ones.
pub fn applies_patches_in_commit_order(subject: &dyn Subject) {
    let (a, b, missing) = ("job=\"a\"", "job=\"a\",x=\"\u{0}\"", "job=\"missing\"");
    let put = |key: &str, seconds, families: &[(&str, &[u8])]| Op::put(key, &record(seconds, families));
    let patch =
        |key: &str, seconds, families: &[(&str, &[u8])]| Op::Patch(key.to_owned(), record(seconds, families));
    let delete = |key: &str| Op::Delete(key.to_owned());
    let batches = [
        vec![put(a, 1.0, &[("m", b"1"), ("n", b"1")]), put(b, 1.0, &[]), patch(missing, 1.0, &[("m", b"1")])],
        vec![patch(a, 2.0, &[("m", b"2")]), patch(b, 2.0, &[("m", b"2")])],
        vec![patch(a, 3.0, &[]), patch(a, 4.0, &[("n", b"4"), ("o", b"4")]), patch(missing, 4.0, &[])],
        vec![patch(b, 5.0, &[("m", b"5")]), put(b, 5.5, &[("x", b"")]), patch(b, 6.0, &[("y", b"6")])],
        vec![patch(a, 7.0, &[("m", b"7")]), delete(a), patch(a, 8.0, &[("m", b"8")])],
        vec![put(a, 9.0, &[("m", b"9")]), delete(b)],
        vec![patch(a, 10.0, &[("n", b"10")]), patch(b, 10.0, &[("n", b"10")])],
        vec![delete(a), put(a, 11.0, &[("z", b"11")]), patch(a, 12.0, &[("z", b"12")])],
        vec![put(b, 13.0, &[])],
    ];
    for close in 0..2 {
        let folder = folder();
        let mut expected = State::new();
        for batch in &batches {
            let (mut engine, state) = opened(subject, folder.path());
            assert_eq!(state, stored(subject, &expected));
            commit(engine.as_mut(), batch, Durability::Process).expect("a batch is committed");
            batch.iter().for_each(|op| op.apply(&mut expected));
            let state = read(engine.as_mut(), 1).expect("the store can be read between batches");
            assert_eq!(state, stored(subject, &expected));
            leave(engine, close);
        }
    }
}

/// A patch of numbers changes all lines, in its place among the other changes of a batch and of later ones.
pub fn applies_numbers_in_commit_order(subject: &dyn Subject) {
    let (a, b) = ("job=\"a\"", "job=\"b\"");
    let texts: [(&str, &[u8]); 2] = [("m", b"m 1\n"), ("n", b"n{x=\"1\"} 1\nn{x=\"2\"} 2\n")];
    let put = |key: &str, seconds| Op::put(key, &record(seconds, &texts));
    let patch = |key: &str, seconds| Op::Patch(key.to_owned(), record(seconds, &texts[1..]));
    let numbers = |key: &str, seconds: f64| {
        let times = record(seconds, &[]);
        let times = Record::decode(&times).expect("valid");
        let mut out = Vec::new();
        Numbers::encode(&mut out, &times, [seconds, 0.5, -seconds].into_iter()).expect("few numbers");
        Op::Patch(key.to_owned(), out)
    };
    let batches = [
        vec![put(a, 1.0), numbers(b, 1.0)],
        vec![numbers(a, 2.0)],
        vec![numbers(a, 3.0), numbers(a, 4.0), put(b, 4.0), numbers(b, 4.5)],
        vec![numbers(a, 5.0), put(a, 6.0), numbers(a, 7.0)],
        vec![numbers(a, 8.0), patch(a, 9.0), numbers(a, 10.0), numbers(a, 11.0)],
        vec![patch(a, 12.0), numbers(b, 12.0)],
        vec![numbers(a, 13.0), Op::Delete(a.to_owned()), numbers(a, 14.0)],
        vec![put(a, 15.0), numbers(a, 16.0), Op::Delete(b.to_owned())],
        vec![numbers(a, 17.0), Op::Delete(a.to_owned()), put(a, 18.0)],
        vec![numbers(a, 19.0), numbers(b, 19.0)],
    ];
    for close in 0..2 {
        let folder = folder();
        let mut expected = State::new();
        for batch in &batches {
            let (mut engine, state) = opened(subject, folder.path());
            assert_eq!(state, stored(subject, &expected));
            commit(engine.as_mut(), batch, Durability::Process).expect("a batch is committed");
            batch.iter().for_each(|op| op.apply(&mut expected));
            let state = read(engine.as_mut(), 1).expect("the store can be read between batches");
            assert_eq!(state, stored(subject, &expected));
            leave(engine, close);
        }
    }
}

/// Many small changes of a large group cost about as many bytes as the changes, not as the group.
pub fn a_patch_of_a_large_group_writes_little(subject: &dyn Subject) {
    const GROUP_BYTES: usize = 8 << 20;
    let folder = folder();
    let (mut engine, _) = opened(subject, folder.path());
    let large = record(1.0, &[("large", &vec![b'x'; GROUP_BYTES]), ("small", b"1")]);
    let mut expected = State::new();
    let mut apply = |engine: &mut dyn Engine, op: Op| {
        commit(engine, std::slice::from_ref(&op), Durability::Process).expect("a batch is committed");
        op.apply(&mut expected);
    };
    apply(engine.as_mut(), Op::put("job=\"a\"", &large));
    let written_before = written_bytes();
    for number in 0..20_u8 {
        let patch = record(2.0 + f64::from(number), &[("small", &[number])]);
        apply(engine.as_mut(), Op::Patch("job=\"a\"".to_owned(), patch));
    }
    if let (Some(before), Some(after)) = (written_before, written_bytes()) {
        assert!(after - before < 20 * GROUP_BYTES as u64 / 2, "{} bytes written", after - before);
    }
    drop(engine);
    let (_, state) = opened(subject, folder.path());
    assert!(state == stored(subject, &expected));
}

/// The bytes that the system calls of this thread have written, if the operating system counts them.
fn written_bytes() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok())
}

/// Reading changes nothing, before and between commits.
pub fn reading_again_returns_the_same_records(subject: &dyn Subject) {
    let folder = folder();
    for round in 0..6 {
        let (mut engine, first) = opened(subject, folder.path());
        for threads in [1, 3] {
            assert_eq!(read(engine.as_mut(), threads).expect("a second read"), first);
        }
        for number in 1..20 {
            commit(engine.as_mut(), &PLAN.batch(round * 100 + number), Durability::Process)
                .expect("a batch is committed");
            if number % 7 == 0 {
                let one = read(engine.as_mut(), 1).expect("a read between batches");
                let two = read(engine.as_mut(), 2).expect("a read between batches");
                assert_eq!(one, two);
            }
        }
        leave(engine, round);
    }
}

/// Each batch has the next number, also after a restart.
pub fn continues_the_numbers_after_a_restart(subject: &dyn Subject) {
    let folder = folder();
    let mut last = 0;
    for round in 0..6 {
        let (mut engine, _, restored) = open(subject, folder.path()).expect("the store opens");
        assert_eq!(restored.sequence, if subject.is_persistent() { last } else { 0 });
        if subject.is_persistent() && round > 0 {
            assert_eq!(restored.closed, (round - 1) % 2 == 0, "whether the last run was closed");
        }
        last = restored.sequence;
        for _ in 0..3 {
            let batch = [Op::put("job=\"a\"", &[round as u8])];
            let number = commit(engine.as_mut(), &batch, Durability::Process).expect("a batch is committed");
            assert_eq!(number, last + 1);
            last = number;
        }
        leave(engine, round);
    }
}

/// Keys are any text and records any bytes, both of any size that a push can have.
pub fn stores_unusual_keys_and_records(subject: &dyn Subject) {
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
        let (mut engine, state) = opened(subject, folder.path());
        assert!(state == stored(subject, &expected), "in round {round}");
        commit(engine.as_mut(), &batch, Durability::Disk).expect("a batch is committed");
        batch.iter().for_each(|op| op.apply(&mut expected));
        leave(engine, round);
    }
}

/// A sink that stops ends the read early. The store stays unread if it was, and usable otherwise.
pub fn a_sink_can_stop_a_read(subject: &dyn Subject) {
    const RECORDS: u64 = 5000;
    if !subject.is_persistent() {
        return;
    }
    let folder = folder();
    let (mut engine, _) = opened(subject, folder.path());
    let batch: Vec<_> = (0..RECORDS).map(|number| Op::put(&format!("job=\"{number}\""), b"1")).collect();
    commit(engine.as_mut(), &batch, Durability::Process).expect("a batch is committed");
    for threads in [1, 2].map(|threads| NonZeroUsize::new(threads).expect("not 0")) {
        let passed = AtomicU64::new(0);
        let stop = |key: &str, _: &[u8]| {
            passed.fetch_add(1, Ordering::Relaxed);
            ControlFlow::Break(key.to_owned())
        };
        let reason = engine.read_until(threads, &stop).expect("the store can be read").break_value();
        assert!(reason.is_some_and(|key| key.starts_with("job=")), "the reason comes back");
        assert!(passed.swap(0, Ordering::Relaxed) < RECORDS, "the read stops early");
        drop(engine);
        let store = subject.open(folder.path()).expect("the store opens");
        let FirstRead::Stopped { store, .. } =
            store.read_until(threads, &stop).expect("the store can be read")
        else {
            panic!("the sink did not stop the read");
        };
        assert!(passed.into_inner() < RECORDS, "the first read stops early");
        let (again, state, _) = restore(store, 2).expect("the store can be read after all");
        assert_eq!(state.len() as u64, RECORDS);
        engine = again;
    }
    commit(engine.as_mut(), &[Op::put("job=\"0\"", b"2")], Durability::Process)
        .expect("a batch is committed");
}

/// A second user is refused, and does not disturb the first.
pub fn a_store_has_one_user(subject: &dyn Subject) {
    if !subject.is_persistent() {
        return;
    }
    let folder = folder();
    let (mut engine, _) = opened(subject, folder.path());
    commit(engine.as_mut(), &[Op::put("job=\"a\"", b"1")], Durability::Process)
        .expect("a batch is committed");
    let second = subject.open(folder.path()).map(|_| ());
    assert!(matches!(second, Err(EngineError::InUse { .. })), "{second:?}");
    commit(engine.as_mut(), &[Op::put("job=\"b\"", b"1")], Durability::Process)
        .expect("the first user continues undisturbed");
    engine.close().expect("the store closes");
    let (_, state) = opened(subject, folder.path());
    assert_eq!(state.len(), 2);
}

/// Many records, read by one, two and four threads.
pub fn returns_thousands_of_records_once_each(subject: &dyn Subject) {
    many(subject, 20_000);
}

/// The same with a million.
pub fn returns_a_million_records_once_each(subject: &dyn Subject) {
    many(subject, 1_000_000);
}

fn many(subject: &dyn Subject, count: u64) {
    let folder = folder();
    let (mut engine, _) = opened(subject, folder.path());
    let key = |number: u64| format!("instance=\"{number}\",job=\"many\"");
    let record = |number: u64| number.to_le_bytes().repeat(8);
    let (numbers, mut sums) = ((0..count).collect::<Vec<_>>(), (0_u64, 0_u64));
    for numbers in numbers.chunks(1000) {
        let texts: Vec<_> = numbers.iter().map(|number| (key(*number), record(*number))).collect();
        let batch: Vec<_> = texts.iter().map(|(key, record)| Change::Put { key, record }).collect();
        engine.commit(&batch, Durability::Process).expect("a batch is committed");
        let every_tenth: Vec<_> = texts.iter().step_by(10).map(|(key, _)| Change::Delete { key }).collect();
        engine.commit(&every_tenth, Durability::Process).expect("a batch is committed");
        sums.0 += (numbers.len() - every_tenth.len()) as u64;
        sums.1 += numbers.iter().enumerate().filter(|(at, _)| at % 10 != 0).map(|(_, n)| n).sum::<u64>();
    }
    leave(engine, 1);
    let expected = if subject.is_persistent() { sums } else { (0, 0) };
    for (round, threads) in [1, 2, 4].into_iter().enumerate() {
        let (found, sum) = (AtomicU64::new(0), AtomicU64::new(0));
        let threads = NonZeroUsize::new(threads).expect("not 0");
        let store = subject.open(folder.path()).expect("the store opens");
        let (engine, restored) = store
            .read_all(threads, &|key, record| {
                let Some(number) = record.first_chunk().copied().map(u64::from_le_bytes) else { return };
                if key.strip_prefix("instance=\"").and_then(|key| key.strip_suffix("\",job=\"many\""))
                    == Some(number.to_string().as_str())
                {
                    found.fetch_add(1, Ordering::Relaxed);
                    sum.fetch_add(number, Ordering::Relaxed);
                }
            })
            .expect("the store can be read");
        assert_eq!(restored.records, expected.0);
        assert_eq!((found.into_inner(), sum.into_inner()), expected);
        leave(engine, round as u64);
    }
}

/// Starting anew replaces whatever the store contained, also repeatedly, and batches continue from there.
pub fn starts_anew_with_other_groups(subject: &dyn Subject) {
    let folder = folder();
    let mut number = 0;
    for round in 0..6 {
        let (mut engine, _) = opened(subject, folder.path());
        let first = if subject.is_persistent() { engine.stats().sequence } else { 0 };
        for _ in 0..10 * (round % 3) {
            number += 1;
            commit(engine.as_mut(), &PLAN.batch(number), Durability::Process)
                .expect("the batch is committed");
        }
        // No group at first, then some, which change while they are written.
        let states =
            if round == 0 { vec![State::new()] } else { vec![PLAN.state(number), PLAN.state(number + 7)] };
        let mut expected = states.last().expect("there is one").clone();
        number += 7;
        let sequence = engine.start_anew(&mut ChangingGroups::new(states)).expect("a new start").sequence;
        assert!(sequence > first, "{sequence} after {first}");
        assert_eq!(engine.stats().sequence, sequence);
        assert_eq!(
            read(engine.as_mut(), 2).expect("it can be read"),
            stored(subject, &expected),
            "round {round}"
        );
        if round % 2 == 1 {
            let op = Op::put("job=\"after\"", b"1");
            let next = commit(engine.as_mut(), std::slice::from_ref(&op), Durability::Process);
            assert_eq!(next.expect("the batch is committed"), sequence + 1);
            op.apply(&mut expected);
        }
        leave(engine, round / 2);
        assert_eq!(
            opened(subject, folder.path()).1,
            stored(subject, &expected),
            "round {round}, opened again"
        );
    }
}
