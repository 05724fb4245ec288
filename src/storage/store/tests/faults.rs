//! What the writer thread does when its engine fails.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_engine::Durability;

use super::*;
use crate::runtime::permits::Permits;
use crate::shard::outcome::{Outcome, Rejection};
use crate::storage::completion::{CommandReply, CommandResult};

/// The largest record of a [`FaultyEngine`].
const RECORD_BYTES_MAX: usize = 100;

/// What goes wrong in a [`FaultyEngine`], and what it stores.
#[derive(Debug, Default)]
struct Faults {
    commit: Option<&'static str>,
    panic: Option<&'static str>,
    maintain: Option<&'static str>,
    close: Option<&'static str>,
    background_panic: bool,
    /// Whether starting anew waits for a changed group.
    waits_for_change: bool,
    /// The keys of the groups that starting anew has written or found missing.
    asked: BTreeSet<String>,
    sequence: u64,
    records: BTreeMap<String, Vec<u8>>,
}

/// An engine with a limit on its batches, which fails as the test demands.
struct FaultyEngine(Arc<Mutex<Faults>>);

impl FaultyEngine {
    fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fail(why: Option<&'static str>) -> Result<(), EngineError> {
    why.map_or(Ok(()), |why| Err(EngineError::Failed { why: why.to_owned() }))
}

impl Engine for FaultyEngine {
    fn read(
        &mut self,
        _threads: NonZeroUsize,
        _sink: Sink<'_>,
    ) -> Result<ControlFlow<(), Restored>, EngineError> {
        let sequence = self.faults().sequence;
        Ok(ControlFlow::Continue(Restored { sequence, ..Restored::default() }))
    }

    fn commit(&mut self, batch: &[Change<'_>], _durability: Durability) -> Result<Receipt, EngineError> {
        let mut faults = self.faults();
        if let Some(why) = faults.panic {
            panic!("{why}");
        }
        fail(faults.commit)?;
        let bytes =
            |change: &Change<'_>| if let Change::Put { record, .. } = change { record.len() } else { 0 };
        let bytes: usize = batch.iter().map(bytes).sum();
        if bytes > RECORD_BYTES_MAX {
            let (bytes, bytes_max) = (bytes as u64, RECORD_BYTES_MAX as u64);
            return Err(EngineError::TooLarge { bytes, bytes_max });
        }
        for change in batch {
            match change {
                Change::Put { key, record } => faults.records.insert((*key).to_owned(), record.to_vec()),
                Change::Patch { key, patch } => faults.records.insert(format!("{key}+"), patch.to_vec()),
                Change::Delete { key } => faults.records.remove(*key),
            };
        }
        faults.sequence += 1;
        Ok(Receipt { sequence: faults.sequence })
    }

    fn start_anew(&mut self, groups: &mut dyn Groups) -> Result<Receipt, EngineError> {
        let mut keys = groups.changed();
        fail(self.faults().commit)?;
        let waits_for_change = self.faults().waits_for_change;
        let before = keys.len();
        wait_until("a change", || {
            keys.extend(groups.changed());
            !waits_for_change || keys.len() > before
        });
        let mut faults = self.faults();
        faults.records.clear();
        for key in keys {
            let mut record = Vec::new();
            if groups.record(&key, &mut record) {
                faults.records.insert(key.to_string(), record);
            }
            faults.asked.insert(key.to_string());
        }
        faults.sequence += 1;
        Ok(Receipt { sequence: faults.sequence })
    }

    fn maintain(&mut self) -> Result<(), EngineError> {
        fail(self.faults().maintain)
    }

    fn stats(&self) -> Stats {
        let faults = self.faults();
        Stats {
            sequence: faults.sequence,
            background_error: faults.background_panic.then(|| "merging panicked".to_owned()),
            background_panic: faults.background_panic,
            ..Stats::default()
        }
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        fail(self.faults().close)
    }
}

fn faulty_store() -> (Arc<Store>, Arc<Mutex<Faults>>, Delivered) {
    let faults = Arc::new(Mutex::new(Faults::default()));
    let engine = faults.clone();
    let (store, delivered) = started(Box::new(move || Ok(UnreadStore::new(FaultyEngine(engine.clone())))));
    (store, faults, delivered)
}

fn set(faults: &Mutex<Faults>, change: impl FnOnce(&mut Faults)) {
    change(&mut faults.lock().unwrap_or_else(PoisonError::into_inner));
}

/// A push of a group, and its result.
fn push(key: &str, record: &[u8]) -> (PendingChange, oneshot::Receiver<CommandResult>) {
    let permit = Permits::new(None).try_acquire().expect("there is no limit");
    let (tx, rx) = oneshot::channel();
    let completion = Completion::Command(CommandReply { permit, tx }, Outcome::Applied);
    let change = PendingChange {
        key: key.into(),
        change: GroupChange::Put(record.to_vec()),
        commit: None,
        completion,
    };
    (change, rx)
}

/// Commits changes in one batch and completes them as their core would.
fn commit(store: &Store, delivered: &Delivered, changes: impl IntoIterator<Item = PendingChange>) {
    let mut batch = Batch::new(0, Vec::new());
    changes.into_iter().for_each(|change| batch.push(change));
    store.enqueue(batch);
    let timeout = Duration::from_secs(20);
    let (batch, committed) = delivered.recv_timeout(timeout).expect("every batch comes back");
    batch.changes.into_iter().for_each(|change| change.completion.complete(committed));
}

fn result(mut rx: oneshot::Receiver<CommandResult>) -> CommandResult {
    rx.try_recv().expect("the sender was not dropped").expect("the result was sent")
}

#[test]
fn a_change_that_is_too_large_fails_alone() {
    let (store, faults, delivered) = faulty_store();
    let (small, small_rx) = push("job=\"small\"", &[1; 60]);
    let (large, large_rx) = push("job=\"large\"", &[1; RECORD_BYTES_MAX + 1]);
    let (other, other_rx) = push("job=\"other\"", &[1; 60]);
    commit(&store, &delivered, [small, large, other]);
    assert_eq!(result(small_rx), Ok(Outcome::Applied));
    assert_eq!(result(large_rx), Ok(Outcome::Rejected(Rejection::TooLarge)));
    assert_eq!(result(other_rx), Ok(Outcome::Applied));
    assert_eq!(store.state(), State::Ready);
    // The record to which this patch applies was not stored.
    let (mut patch, rx) = push("job=\"large\"", b"");
    patch.change = GroupChange::Patch(vec![1]);
    commit(&store, &delivered, [patch]);
    assert_eq!(result(rx), Ok(Outcome::Rejected(Rejection::TooLarge)));
    let (next, rx) = push("job=\"next\"", &[1; 60]);
    commit(&store, &delivered, [next]);
    assert_eq!(result(rx), Ok(Outcome::Applied));
    let stored: Vec<String> = faults.lock().expect("no panic").records.keys().cloned().collect();
    assert_eq!(stored, ["job=\"next\"", "job=\"other\"", "job=\"small\""]);
    store.close().expect("the store closes");
}

#[test]
fn a_fault_is_found_without_a_push() {
    let (store, faults, _delivered) = faulty_store();
    set(&faults, |faults| faults.maintain = Some("the folder is gone"));
    // So that it does not recover.
    set(&faults, |faults| faults.commit = Some("the folder is gone"));
    wait_until("the fault", || !store.is_ready());
    assert!(store.fault().is_some_and(|fault| fault.contains("the folder is gone")), "{:?}", store.fault());
    let error = store.close().expect_err("a failed store cannot be closed");
    assert!(error.to_string().contains("the folder is gone"), "{error}");
}

#[test]
fn a_panic_in_the_background_is_a_fault_although_writes_are_accepted() {
    let (store, faults, _delivered) = faulty_store();
    set(&faults, |faults| faults.background_panic = true);
    wait_until("the fault", || store.fault().is_some());
    assert!(store.is_ready());
    set(&faults, |faults| faults.background_panic = false);
    wait_until("the end of the fault", || store.fault().is_none());
}

#[test]
fn a_failure_to_close_is_an_error() {
    let (store, faults, _delivered) = faulty_store();
    set(&faults, |faults| faults.close = Some("cannot write the manifest"));
    let error = store.close().expect_err("the store is not closed");
    assert!(error.to_string().contains("cannot write the manifest"), "{error}");
}

#[test]
fn a_panic_of_the_engine_fails_the_changes_in_flight_and_all_later_ones() {
    let (store, faults, delivered) = faulty_store();
    set(&faults, |faults| faults.panic = Some("on purpose"));
    for _ in 0..3 {
        let (change, rx) = push("job=\"a\"", b"1");
        commit(&store, &delivered, [change]);
        assert_eq!(result(rx), Err(CommitFailed));
    }
    wait_until("an attempt", || store.fault().is_some_and(|fault| fault.contains("on purpose")));
}

#[test]
fn a_panic_of_the_writer_thread_fails_the_store_and_does_not_end_the_thread() {
    let delivered = Arc::new(Mutex::new(Vec::new()));
    let registry = Arc::new(Registry::default());
    let results = delivered.clone();
    let engine = Arc::new(Mutex::new(Faults { commit: Some("still broken"), ..Faults::default() }));
    let store = Store::start(Start {
        open: Box::new(move || Ok(UnreadStore::new(FaultyEngine(engine.clone())))),
        import: Box::new(|_| Ok(Records::new())),
        deliver: Box::new(move |batch, committed| {
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            results.push(committed);
            drop(results);
            assert!(batch.core == 0, "injected panic");
        }),
        durability: Durability::Process,
        shards: vec![Arc::new(CoreShards::new(Shard::new(0, registry.clone(), Persistence::Stored)))],
        registry,
        shutdown: Shutdown::new(),
    })
    .expect("the thread starts");
    wait_until("the restore", || store.is_ready());
    let unchanged = |core| {
        let mut batch = Batch::new(core, Vec::new());
        batch.push(PendingChange {
            key: "".into(),
            change: GroupChange::Unchanged,
            commit: None,
            completion: Completion::None,
        });
        batch
    };
    store.enqueue(unchanged(1));
    // The first attempt to recover follows at once.
    wait_until("an attempt", || store.fault().is_some_and(|fault| fault.contains("still broken")));
    store.enqueue(unchanged(0));
    let count = || delivered.lock().expect("no panic while it is locked").len();
    wait_until("the next batch", || count() == 2);
    assert_eq!(*delivered.lock().expect("no panic"), [Ok(()), Err(CommitFailed)]);
    assert_eq!(store.queued(), (0, 0));
}

#[test]
fn a_failed_store_recovers_without_a_restart() {
    let (store, faults, delivered) = faulty_store();
    let (first, rx) = push("job=\"a\"", b"1");
    commit(&store, &delivered, [first]);
    assert_eq!(result(rx), Ok(Outcome::Applied));
    set(&faults, |faults| faults.commit = Some("no space left"));
    let (second, rx) = push("job=\"a\"", b"2");
    commit(&store, &delivered, [second]);
    assert_eq!(result(rx), Err(CommitFailed));
    assert!(!store.is_ready());
    set(&faults, |faults| faults.commit = None);
    wait_until("the recovery", || store.is_ready());
    assert_eq!(store.fault(), None);
    // The group is not in the shard, so the store must not contain it either.
    assert!(faults.lock().expect("no panic").records.is_empty());
    let (third, rx) = push("job=\"b\"", b"3");
    commit(&store, &delivered, [third]);
    assert_eq!(result(rx), Ok(Outcome::Applied));
    store.close().expect("the store closes");
}

#[test]
fn a_change_during_a_recovery_is_rejected_and_its_group_written_as_it_is_in_memory() {
    let (store, faults, delivered) = faulty_store();
    set(&faults, |faults| (faults.commit, faults.waits_for_change) = (Some("no space left"), true));
    let (first, rx) = push("job=\"a\"", b"1");
    commit(&store, &delivered, [first]);
    assert_eq!(result(rx), Err(CommitFailed));
    set(&faults, |faults| faults.commit = None);
    // While the store recovers, or between two attempts.
    while !store.is_ready() {
        let (late, rx) = push("job=\"late\"", b"2");
        commit(&store, &delivered, [late]);
        let is_late = result(rx) == Err(CommitFailed);
        assert!(is_late || store.is_ready());
    }
    assert!(faults.lock().expect("no panic").asked.contains("job=\"late\""));
    wait_until("the end of the queue", || store.queued() == (0, 0));
}
