//! What is promised of the thread with the engine, on an engine that does what the test says.

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};

use futures_util::StreamExt;
use sluicegate_engine::{Change, Commit, EngineError, Receipt, Restored, Sink};

use super::*;
use crate::cores::mailbox::Inbox;
use crate::cores::shard_task::Order;
use crate::storage::outbox::Outbox;

/// An engine whose commits wait until they may go on; without the other end of the channel they all may.
struct Held(Receiver<()>);

impl Engine for Held {
    fn restore(&mut self, _threads: NonZeroUsize, _sink: Sink<'_>) -> Result<Restored, EngineError> {
        Ok(Restored::default())
    }

    fn commit(&mut self, _batch: &[Change<'_>], _durability: Durability) -> Result<Commit, EngineError> {
        let _ = self.0.recv();
        Ok(Commit::Kept(Receipt { sequence: 1 }))
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed().as_secs() < 20, "waited for {what}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// A store with such an engine, the end of a channel that holds its commits, and the inbox of its one core.
fn held_store() -> (Arc<Store>, Sender<()>, Inbox) {
    let (release, held) = channel();
    let registry = Arc::new(Registry::default());
    let (mailboxes, mut inboxes) = Mailboxes::new(1, None);
    let store = Store::start(Start {
        open: Box::new(|| Ok(Box::new(Held(held)))),
        import: Box::new(|_| Ok(Records::new())),
        durability: Durability::Process,
        shards: vec![Arc::new(async_lock::Mutex::new(Shard::new(0, registry.clone(), true)))],
        registry,
        mailboxes,
        shutdown: Shutdown::new(),
    })
    .expect("a thread");
    wait_until("the restore", || store.is_ready());
    (Arc::new(store), release, inboxes.remove(0))
}

fn kept(record: Vec<u8>, waits: Waits) -> Kept {
    Kept { key: "job=\"a\"".into(), change: GroupChange::Put(record), commit: None, waits }
}

#[test]
fn a_store_that_cannot_keep_up_is_full_until_it_has() {
    const CHANGE_BYTES: u64 = 16 << 20;
    let (store, release, _inbox) = held_store();
    for sent in 0..=QUEUE_BYTES_MAX / CHANGE_BYTES {
        assert!(!store.is_full(), "after {sent} changes");
        let overhead = kept(Vec::new(), Waits::Nobody).bytes();
        let mut batch = Batch::new(0, Vec::new());
        batch.push(kept(vec![0; (CHANGE_BYTES - overhead) as usize], Waits::Nobody));
        store.keep(batch);
    }
    assert!(store.is_full());
    drop(release);
    wait_until("the commits", || store.waiting() == (0, 0));
    assert!(!store.is_full());
    store.close().expect("it closes");
}

#[test]
fn an_outbox_goes_when_the_core_has_had_its_turn_or_when_it_is_heavy() {
    let (store, release, mut inbox) = held_store();
    let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().expect("a runtime");
    runtime.block_on(async {
        let outbox = Outbox::new(0, store.clone());
        let mut told = Vec::new();
        for number in 0..3 {
            let (answer, told_then) = oneshot::channel();
            outbox.keep(kept(vec![number], Waits::Wipe(answer)));
            told.push(told_then);
        }
        assert_eq!(store.waiting().0, 0, "the core may have more");
        monoio::spawn(async {}).await;
        assert_eq!(store.waiting().0, 3);
        outbox.keep(kept(vec![9; 2 << 20], Waits::Nobody));
        assert_eq!(store.waiting().0, 4, "what is heavy does not wait");

        drop(release);
        wait_until("the commits", || store.waiting() == (0, 0));
        let Some(Order::Kept(batch, result)) = inbox.next().await else { panic!("the batch comes back") };
        let records = batch.kept.iter().map(|kept| match &kept.change {
            GroupChange::Put(record) => record.clone(),
            other => panic!("{other:?}"),
        });
        assert_eq!(records.collect::<Vec<_>>(), [[0], [1], [2]], "in their order");
        outbox.answer(batch, result);
        for told in told {
            assert_eq!(told.await, Ok(Ok(())));
        }
        assert_eq!(outbox.memory(), [2], "a record's memory is used again");

        outbox.keep(kept(vec![7], Waits::Nobody));
    });
    // The core has ended before the turn of its outbox came.
    drop(runtime);
    store.close().expect("it closes");
    let mut last = None;
    while let Ok(Order::Kept(batch, _)) = inbox.try_recv() {
        last = batch.kept.into_iter().next_back();
    }
    let is_last = matches!(last, Some(Kept { change: GroupChange::Put(record), .. }) if record == [7]);
    assert!(is_last, "what was left in it was kept all the same");
}
