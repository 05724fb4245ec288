//! Background tasks that panic.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use sluicegate_engine::suite::{commit, restore};
use sluicegate_engine::{Durability, Engine, EngineError};

use super::{PLAN, check, tiny};
use crate::files::simulated_disk::{Fault, Faulty, Operation};
use crate::{Options, Snapshot};

/// Enough for several segments, and for a log beyond the size at which commits wait for a merge.
const BATCHES: u64 = 250;
const PATIENCE: Duration = Duration::from_secs(60);

fn open(files: &Faulty) -> Box<dyn Engine> {
    let options = Options { background: true, ..tiny() };
    let mut backend: Box<dyn Engine> =
        Box::new(Snapshot::on(Arc::new(files.clone()), options).expect("the store opens"));
    restore(backend.as_mut(), 1).expect("the store is read");
    backend
}

/// Commits the batches after `last`, and stops at the first error.
fn commit_after(last: u64, count: u64, backend: &mut dyn Engine) -> Result<u64, EngineError> {
    (last + 1..=last + count)
        .try_fold(last, |_, number| commit(backend, &PLAN.batch(number), Durability::Process))
}

/// Runs `test` on a thread of its own and panics if it has not ended in time: a hang must fail, not block.
fn within_patience<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let (tx, rx) = mpsc::channel();
    let thread = thread::spawn(move || tx.send(test()));
    match rx.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("still waiting after {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => panic!("{:?}", thread.join().map(|_| ())),
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 10 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not happen within {PATIENCE:?}");
}

#[test]
fn a_panicking_merge_blocks_no_commit_and_is_tried_again() {
    let files = Faulty::new(1);
    files.set_fault(Fault::Panic(Operation::Create, "store-archive"));
    let mut backend = open(&files);
    let mut backend = within_patience(move || {
        commit_after(0, BATCHES, backend.as_mut()).expect("every batch is committed");
        backend
    });
    assert!(files.panics() > 1, "{} merges panicked", files.panics());
    assert!(backend.stats().log_bytes > Some(4 * tiny().log_bytes), "no commit had to wait for a merge");
    wait_until("the report", || {
        backend.stats().background_error.is_some_and(|trouble| trouble.contains("panicked: made to panic"))
    });
    check(Arc::new(files.after_kill(1)), BATCHES, BATCHES, "killed while merges panic");

    files.clear_fault();
    let backend = within_patience(move || {
        commit_after(BATCHES, BATCHES, backend.as_mut()).expect("every batch is committed");
        backend
    });
    wait_until("a merge", || backend.stats().archive_bytes > 0 && backend.stats().background_error.is_none());
    drop(backend);
    check(Arc::new(files.after_kill(2)), 2 * BATCHES, 2 * BATCHES, "killed after a merge");
}

#[test]
fn a_panic_while_a_segment_is_prepared_stops_no_commit_and_no_sync() {
    let files = Faulty::new(2);
    files.set_fault(Fault::Panic(Operation::Create, "store-disk"));
    let mut backend = open(&files);
    let backend = within_patience(move || {
        commit_after(0, BATCHES, backend.as_mut()).expect("every batch is committed");
        backend
    });
    wait_until("a panic", || files.panics() > 0);
    wait_until("a sync", || backend.stats().sequence_on_disk == BATCHES);
}

#[test]
fn a_panicking_sync_fails_the_store() {
    let files = Faulty::new(3);
    files.set_fault(Fault::Panic(Operation::Sync, "store-disk"));
    let mut backend = open(&files);
    let (acknowledged, error) = within_patience(move || {
        for last in 0.. {
            if let Err(error) = commit_after(last, 1, backend.as_mut()) {
                return (last, error);
            }
            thread::sleep(Duration::from_millis(10));
        }
        unreachable!("there is no last number");
    });
    assert!(matches!(error, EngineError::Failed { .. }), "{error:?}");
    assert!(error.to_string().contains("panicked: made to panic"), "{error}");
    check(Arc::new(files.after_kill(3)), acknowledged, acknowledged, "killed after a panic");
}
