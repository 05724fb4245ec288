//! The outbox of a core: changes that wait to be sent to the writer thread together.
//!
//! Waking the writer thread and being woken by it costs more than a small commit. So the outbox collects changes while the core has
//! other tasks to run, and sends them when it has none. A single change on an idle core is sent at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::completion::CommitFailed;
use super::store::{Batch, GroupChange, PendingChange, Store};

/// A larger batch is sent at once.
const BATCH_BYTES_MAX: u64 = 1 << 20;
/// How many buffers are kept for reuse; about as many changes wait for a commit at a time.
const SPARES_MAX: usize = 64;
/// Larger buffers are freed.
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// Collects the changes of one core.
#[derive(Debug)]
pub(crate) struct Outbox {
    store: Arc<Store>,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    batch: Batch,
    /// Buffers that came back with their batch. They are reused on the core that allocated them: threads that free each other's
    /// memory wait for the allocator's locks.
    spare_records: Vec<Vec<u8>>,
    spare_batches: Vec<Vec<PendingChange>>,
}

impl Outbox {
    pub(crate) fn new(core: usize, store: Arc<Store>) -> Rc<Self> {
        let inner = Inner {
            batch: Batch::new(core, Vec::new()),
            spare_records: Vec::new(),
            spare_batches: Vec::new(),
        };
        Rc::new(Self { store, inner: RefCell::new(inner) })
    }

    /// Whether so many bytes wait for the engine that a push of this size is rejected.
    pub(crate) fn is_full(&self, push_bytes: u64) -> bool {
        self.store.is_full(push_bytes)
    }

    /// Adds a change. The caller must still hold the shard.
    pub(crate) fn enqueue(self: &Rc<Self>, change: PendingChange) {
        let mut inner = self.inner.borrow_mut();
        if inner.batch.changes.is_empty() {
            let outbox = self.clone();
            // Runs after everything that is ready to run now.
            crate::runtime::spawn(async move { outbox.send() });
        }
        inner.batch.push(change);
        if inner.batch.bytes > BATCH_BYTES_MAX {
            drop(inner);
            self.send();
        }
    }

    /// A buffer for a record; it may contain an old record.
    pub(crate) fn spare_record(&self) -> Vec<u8> {
        self.inner.borrow_mut().spare_records.pop().unwrap_or_default()
    }

    /// Completes the changes of a batch that came back from the writer thread.
    pub(crate) fn complete(&self, mut batch: Batch, committed: Result<(), CommitFailed>) {
        let mut inner = self.inner.borrow_mut();
        for PendingChange { completion, change, .. } in batch.changes.drain(..) {
            completion.complete(committed);
            if let GroupChange::Put(record) | GroupChange::Patch(record) = change
                && inner.spare_records.len() < SPARES_MAX
                && (1..=SPARE_BYTES_MAX).contains(&record.capacity())
            {
                inner.spare_records.push(record);
            }
        }
        if inner.spare_batches.len() < SPARES_MAX && batch.changes.capacity() <= SPARES_MAX {
            inner.spare_batches.push(batch.changes);
        }
    }

    fn send(&self) {
        let inner = &mut *self.inner.borrow_mut();
        if inner.batch.changes.is_empty() {
            return;
        }
        let next = Batch::new(inner.batch.core, inner.spare_batches.pop().unwrap_or_default());
        self.store.enqueue(std::mem::replace(&mut inner.batch, next));
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.send();
    }
}
