//! Background tasks that panic.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use sluicegate_engine::suite::commit;
use sluicegate_engine::{Durability, Engine, EngineError};

use super::{PLAN, TINY, check_state, open_on};
use crate::Options;
use crate::files::simulated_disk::{Fault, Operation, SimulatedDisk};

/// Enough for several segments, and for a log so large that commits wait for compactions.
const BATCHES: u64 = 250;
const TIMEOUT: Duration = Duration::from_secs(60);

fn open(disk: &SimulatedDisk) -> Box<dyn Engine> {
    let options = Options { background: true, ..TINY };
    open_on(Arc::new(disk.clone()), options).expect("the store opens").engine
}

/// Commits `count` batches after `last`. Stops at the first error.
fn commit_after(last: u64, count: u64, engine: &mut dyn Engine) -> Result<(), EngineError> {
    (last + 1..=last + count)
        .try_for_each(|number| commit(engine, &PLAN.batch(number), Durability::Process).map(drop))
}

/// Runs `test` on a thread of its own, and panics if it does not end in time: a hang must fail the test, not block it.
fn within_timeout<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let (tx, rx) = mpsc::channel();
    let thread = thread::spawn(move || tx.send(test()));
    match rx.recv_timeout(TIMEOUT) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("still waiting after {TIMEOUT:?}"),
        Err(RecvTimeoutError::Disconnected) => panic!("{:?}", thread.join().map(drop)),
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..TIMEOUT.as_millis() / 10 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("no {what} within {TIMEOUT:?}");
}

#[test]
fn a_panicking_compaction_blocks_no_commit_and_is_tried_again() {
    let disk = SimulatedDisk::new(1);
    disk.set_fault(Fault::Panic(Operation::Create, "store-compact"));
    let mut engine = open(&disk);
    let mut engine = within_timeout(move || {
        commit_after(0, BATCHES, engine.as_mut()).expect("every batch is committed");
        engine
    });
    assert!(disk.panics() > 1, "{} compactions panicked", disk.panics());
    assert!(engine.stats().log_bytes > Some(4 * TINY.log_bytes), "no commit waited for a compaction");
    wait_until("report of the panic", || {
        let stats = engine.stats();
        stats.background_panic
            && stats.background_error.is_some_and(|error| error.contains("panicked: injected panic"))
    });
    check_state(Arc::new(disk.after_kill(1)), BATCHES..=BATCHES, "killed while compactions panic");

    disk.clear_fault();
    let engine = within_timeout(move || {
        commit_after(BATCHES, BATCHES, engine.as_mut()).expect("every batch is committed");
        engine
    });
    wait_until("compaction", || {
        let stats = engine.stats();
        stats.archive_bytes > 0 && stats.background_error.is_none()
    });
    drop(engine);
    check_state(Arc::new(disk.after_kill(2)), 2 * BATCHES..=2 * BATCHES, "killed after a compaction");
}

#[test]
fn a_panic_while_a_blank_segment_is_prepared_stops_no_commit_and_no_sync() {
    let disk = SimulatedDisk::new(2);
    disk.set_fault(Fault::Panic(Operation::Create, "store-disk"));
    // Without compactions no segment is recycled, so the thread has to create each blank.
    let options = Options { background: true, log_bytes: u64::MAX / 8, ..TINY };
    let mut engine = open_on(Arc::new(disk.clone()), options).expect("the store opens").engine;
    let panicking_disk = disk.clone();
    let (engine, last) = within_timeout(move || {
        let mut last = 0;
        while panicking_disk.panics() == 0 {
            commit_after(last, BATCHES, engine.as_mut()).expect("every batch is committed");
            last += BATCHES;
            thread::sleep(Duration::from_millis(1));
        }
        commit_after(last, BATCHES, engine.as_mut()).expect("every batch is committed");
        (engine, last + BATCHES)
    });
    wait_until("sync", || engine.stats().sequence_on_disk == last);
}

/// The caller learns of it from `maintain`, although nothing more is committed.
#[test]
fn a_failed_background_sync_is_found_without_a_commit() {
    let disk = SimulatedDisk::new(4);
    let mut engine = open(&disk);
    commit_after(0, 1, engine.as_mut()).expect("a batch is committed");
    engine.maintain().expect("nothing has failed yet");
    disk.set_fault(Fault::Panic(Operation::Sync, "store-disk"));
    let error = within_timeout(move || {
        loop {
            if let Err(error) = engine.maintain() {
                return error;
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    assert!(error.to_string().contains("injected panic"), "{error}");
}

#[test]
fn a_panicking_sync_fails_the_engine() {
    let disk = SimulatedDisk::new(3);
    disk.set_fault(Fault::Panic(Operation::Sync, "store-disk"));
    let mut engine = open(&disk);
    let (last, error) = within_timeout(move || {
        for last in 0.. {
            if let Err(error) = commit_after(last, 1, engine.as_mut()) {
                return (last, error);
            }
            thread::sleep(Duration::from_millis(10));
        }
        unreachable!("the numbers do not end");
    });
    assert!(matches!(error, EngineError::Failed { .. }), "{error:?}");
    assert!(error.to_string().contains("panicked: injected panic"), "{error}");
    check_state(Arc::new(disk.after_kill(3)), last..=last, "killed after a panic");
}
