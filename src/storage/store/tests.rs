//! The writer thread and the outbox, with an engine whose commits the test controls.

mod faults;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};

use futures_channel::oneshot;
use sluicegate_engine::{Change, Engine, EngineError, Groups, Receipt, Restored, Sink};

use super::*;
use crate::shard::sides::CoreShards;
use crate::shard::{Persistence, Shard};
use crate::storage::outbox::Outbox;

/// An engine whose commits block until the channel is closed.
struct BlockedEngine(Receiver<()>);

impl Engine for BlockedEngine {
    fn read(
        &mut self,
        _threads: NonZeroUsize,
        _sink: Sink<'_>,
    ) -> Result<ControlFlow<(), Restored>, EngineError> {
        Ok(ControlFlow::Continue(Restored::default()))
    }

    fn commit(&mut self, _batch: &[Change<'_>], _durability: Durability) -> Result<Receipt, EngineError> {
        let _ = self.0.recv();
        Ok(Receipt { sequence: 1 })
    }

    fn start_anew(&mut self, _groups: &mut dyn Groups) -> Result<Receipt, EngineError> {
        self.commit(&[], Durability::Disk)
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed().as_secs() < 20, "waited for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What the writer thread delivers.
type Delivered = Receiver<(Batch, Result<(), CommitFailed>)>;

/// A store whose commits wait until the sender is dropped, and the batches that it delivers.
fn blocked_store() -> (Arc<Store>, Sender<()>, Delivered) {
    let (release, blocked) = channel();
    let open = move || Ok(UnreadStore::new(BlockedEngine(blocked)));
    let (store, delivered) = started(Box::new(open));
    (store, release, delivered)
}

/// A store with one core and this engine, and the batches that it delivers.
fn started(open: Open) -> (Arc<Store>, Delivered) {
    let (deliver, delivered) = channel();
    let registry = Arc::new(Registry::default());
    let store = Store::start(Start {
        open,
        import: Box::new(|_| Ok(Records::new())),
        deliver: Box::new(move |batch, committed| {
            let _ = deliver.send((batch, committed));
        }),
        durability: Durability::Process,
        shards: vec![Arc::new(CoreShards::new(Shard::new(0, registry.clone(), Persistence::Stored)))],
        registry,
        shutdown: Shutdown::new(),
    })
    .expect("the thread starts");
    wait_until("the restore", || store.is_ready());
    (Arc::new(store), delivered)
}

fn put(record: Vec<u8>, completion: Completion) -> PendingChange {
    PendingChange { key: "job=\"a\"".into(), change: GroupChange::Put(record), commit: None, completion }
}

#[test]
fn a_commit_that_does_not_end_is_a_fault() {
    let (store, release, delivered) = blocked_store();
    let mut batch = Batch::new(0, Vec::new());
    batch.push(put(b"1".to_vec(), Completion::None));
    store.enqueue(batch);
    let later = || store.fault_at(Instant::now() + 2 * COMMIT_STUCK);
    wait_until("the commit", || later().is_some_and(|fault| fault.contains("a commit has been running for")));
    drop(release);
    let _ = delivered.recv_timeout(Duration::from_secs(20)).expect("the batch comes back");
    assert_eq!(later(), None);
}

#[test]
fn a_store_is_full_until_the_engine_catches_up() {
    const CHANGE_BYTES: u64 = 16 << 20;
    let (store, release, _delivered) = blocked_store();
    let is_full = || (store.is_full(SMALL_PUSH_BYTES_MAX), store.is_full(SMALL_PUSH_BYTES_MAX + 1));
    for sent in 0..=QUEUE_BYTES_MAX / CHANGE_BYTES {
        // A large push leaves room for small ones.
        let is_full_for_large = sent > QUEUE_BYTES_OF_LARGE_MAX / CHANGE_BYTES;
        assert_eq!(is_full(), (false, is_full_for_large), "after {sent} changes");
        let overhead = put(Vec::new(), Completion::None).bytes();
        let mut batch = Batch::new(0, Vec::new());
        batch.push(put(vec![0; (CHANGE_BYTES - overhead) as usize], Completion::None));
        store.enqueue(batch);
    }
    assert_eq!(is_full(), (true, true));
    drop(release);
    wait_until("the commits", || store.queued() == (0, 0));
    assert_eq!(is_full(), (false, false));
    store.close().expect("the store closes");
}

#[test]
fn an_outbox_sends_its_changes_when_the_core_is_idle_or_the_batch_is_large() {
    let (store, release, delivered) = blocked_store();
    let last_record = crate::runtime::threads::block_on_epoll(async {
        let outbox = Outbox::new(0, store.clone());
        let mut results = Vec::new();
        for number in 0..3 {
            let (tx, rx) = oneshot::channel();
            outbox.enqueue(put(vec![number], Completion::Committed(tx)));
            results.push(rx);
        }
        assert_eq!(store.queued().0, 0, "the core may have more changes");
        for _ in 0..1000 {
            if store.queued().0 == 0 {
                crate::runtime::sleep(Duration::from_millis(1)).await;
            }
        }
        assert_eq!(store.queued().0, 3);
        outbox.enqueue(put(vec![9; 2 << 20], Completion::None));
        assert_eq!(store.queued().0, 4, "a large batch is sent at once");

        drop(release);
        wait_until("the commits", || store.queued() == (0, 0));
        let (batch, committed) = delivered.recv().expect("the batch is delivered");
        let records = batch.changes.iter().map(|pending| match &pending.change {
            GroupChange::Put(record) => record.clone(),
            other => panic!("{other:?}"),
        });
        assert_eq!(records.collect::<Vec<_>>(), [[0], [1], [2]], "in order");
        outbox.complete(batch, committed);
        for rx in results {
            assert_eq!(rx.await, Ok(Ok(())));
        }
        assert_eq!(outbox.spare_record(), [2], "a record's buffer is reused");

        let last = vec![7];
        outbox.enqueue(put(last.clone(), Completion::None));
        last
    });
    // The core ended before its outbox was sent.
    store.close().expect("the store closes");
    let (batch, committed) = delivered.try_iter().last().expect("the outbox was sent when it was dropped");
    assert_eq!(committed, Ok(()));
    let change = batch.changes.into_iter().next_back().expect("the batch contains a change").change;
    assert!(matches!(change, GroupChange::Put(record) if record == last_record));
}
