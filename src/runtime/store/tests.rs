//! What is promised of the thread with the engine, on an engine that does what the test says.

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, channel};

use sluicegate_backend::{BackendError, Change, Commit, Receipt, Restored, Sink};

use super::*;

/// An engine whose commits wait until they may go on; without the other end of the channel they all may.
struct Held(Receiver<()>);

impl Backend for Held {
    fn restore(&mut self, _threads: NonZeroUsize, _sink: Sink<'_>) -> Result<Restored, BackendError> {
        Ok(Restored::default())
    }

    fn commit(&mut self, _batch: &[Change<'_>], _durability: Durability) -> Result<Commit, BackendError> {
        let _ = self.0.recv();
        Ok(Commit::Kept(Receipt { sequence: 1 }))
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }

    fn close(self: Box<Self>) -> Result<(), BackendError> {
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

#[test]
fn a_store_that_cannot_keep_up_is_full_until_it_has() {
    const CHANGE_BYTES: u64 = 16 << 20;
    let (release, held) = channel();
    let registry = Arc::new(Registry::default());
    let (mailboxes, _inboxes) = Mailboxes::new(1, None);
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
    for sent in 0..=QUEUE_BYTES_MAX / CHANGE_BYTES {
        assert!(!store.is_full(), "after {sent} changes");
        let mut kept = Kept {
            key: "job=\"a\"".into(),
            change: GroupChange::Put(Vec::new()),
            commit: None,
            waits: Waits::Nobody,
        };
        kept.change = GroupChange::Put(vec![0; (CHANGE_BYTES - kept.bytes()) as usize]);
        let mut batch = Batch { core: 0, kept: Vec::new(), bytes: 0 };
        batch.push(kept);
        store.keep(batch);
    }
    assert!(store.is_full());
    drop(release);
    wait_until("the commits", || store.waiting() == (0, 0));
    assert!(!store.is_full());
    store.close().expect("it closes");
}
