//! What a core has for the store: gathered as long as the core has something to do, then sent together.
//!
//! To wake a thread and to be woken by it costs more than a small commit. Who comes alone does not wait: then there is nothing
//! else to do.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::store::{Batch, GroupChange, Kept, NotKept, Store, Waits};

/// Above this a batch does not wait for the others.
const WAITING_BYTES_MAX: u64 = 1 << 20;
/// So much memory is kept for records that are to be written: for about as many as wait for a commit at a time,
const SPARES_MAX: usize = 64;
/// if they are no larger than most.
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// The outbox of a core.
#[derive(Debug)]
pub struct Outbox {
    store: Arc<Store>,
    inside: RefCell<Inside>,
}

#[derive(Debug)]
struct Inside {
    batch: Batch,
    /// Memory that came back: threads that free each other's memory wait for each other in the allocator.
    records: Vec<Vec<u8>>,
    batches: Vec<Vec<Kept>>,
}

impl Outbox {
    /// An empty one.
    pub fn new(core: usize, store: Arc<Store>) -> Rc<Self> {
        let inside = Inside { batch: Batch::new(core, Vec::new()), records: Vec::new(), batches: Vec::new() };
        Rc::new(Self { store, inside: RefCell::new(inside) })
    }

    /// Keeps what a command left behind. Must be called while the shard is still held.
    pub fn keep(self: &Rc<Self>, kept: Kept) {
        let mut inside = self.inside.borrow_mut();
        if inside.batch.kept.is_empty() {
            let outbox = self.clone();
            // Its turn comes when all that is under way has had its own.
            monoio::spawn(async move { outbox.send() });
        }
        inside.batch.push(kept);
        if inside.batch.bytes > WAITING_BYTES_MAX {
            drop(inside);
            self.send();
        }
    }

    /// Memory for a record.
    pub fn memory(&self) -> Vec<u8> {
        self.inside.borrow_mut().records.pop().unwrap_or_default()
    }

    /// Answers commands which the store has, or does not have.
    pub fn answer(&self, mut batch: Batch, kept: Result<(), NotKept>) {
        let mut inside = self.inside.borrow_mut();
        for Kept { waits, change, .. } in batch.kept.drain(..) {
            match waits {
                Waits::Client(reply, outcome) => reply.send(kept.map(|()| outcome)),
                Waits::Wipe(answer) => {
                    // A client that left does not wait any more.
                    let _ = answer.send(kept);
                }
                Waits::Nobody => {}
            }
            if let GroupChange::Put(record) = change
                && inside.records.len() < SPARES_MAX
                && (1..=SPARE_BYTES_MAX).contains(&record.capacity())
            {
                inside.records.push(record);
            }
        }
        if inside.batches.len() < SPARES_MAX && batch.kept.capacity() <= SPARES_MAX {
            inside.batches.push(batch.kept);
        }
    }

    fn send(&self) {
        let inside = &mut *self.inside.borrow_mut();
        if inside.batch.kept.is_empty() {
            return;
        }
        let next = Batch::new(inside.batch.core, inside.batches.pop().unwrap_or_default());
        self.store.keep(std::mem::replace(&mut inside.batch, next));
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.send();
    }
}
