//! The loop of the storage thread: open, restore, then batch after batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use sluicegate_engine::{Change, Commit, Durability, Engine};

use crate::shard::registry::Registry;

use super::metrics::{BATCH_CHANGES, COMMIT_DURATION};
use super::restore::{Restoring, restore};
use super::store::{Batch, FAILED, GroupChange, Item, NOT_STARTED, NotKept, READY, Shared, Start};
use crate::cores::mailbox::Mailboxes;
use crate::cores::shard_task::Order;
use crate::runtime::scheduling::interrupt_nobody;

/// A batch is closed above this, so that nobody waits for the commit of a great many others.
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// How old what the engine says about itself may become.
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);

/// Does all that the thread does.
pub(crate) fn run(start: Start, shared: &Shared, items: &Receiver<Item>) {
    let Start { open, import, durability, shards, registry, mailboxes, shutdown } = start;
    // The more the cores have done before it has its turn, the more goes into one commit.
    interrupt_nobody();
    let restoring = Restoring { shards, shared };
    let started = catch_unwind(AssertUnwindSafe(|| restore(open, import, durability, &restoring)))
        .unwrap_or_else(|_| Err("the storage engine panicked, see above".to_owned()));
    match started {
        Ok(backend) => {
            shared.phase.store(READY, Ordering::Release);
            let mut writer = Writer {
                backend,
                durability,
                registry: &registry,
                mailboxes: &mailboxes,
                shared,
                background_error: None,
                figures_at: Instant::now(),
                commit_seconds: metrics::histogram!(COMMIT_DURATION.name),
                batch_changes: metrics::histogram!(BATCH_CHANGES.name),
            };
            writer.note_figures();
            writer.serve(items);
            writer.close();
        }
        Err(why) => {
            let _ = shared.failure.set(why);
            shared.phase.store(NOT_STARTED, Ordering::Release);
            shutdown.request();
        }
    }
    // Who comes now is answered by the channel's end.
}

struct Writer<'s> {
    backend: Box<dyn Engine>,
    durability: Durability,
    registry: &'s Registry,
    mailboxes: &'s Mailboxes,
    shared: &'s Shared,
    /// What the engine complains of, as logged last.
    background_error: Option<String>,
    figures_at: Instant,
    commit_seconds: metrics::Histogram,
    batch_changes: metrics::Histogram,
}

impl Writer<'_> {
    fn serve(&mut self, items: &Receiver<Item>) {
        let mut batches = Vec::new();
        loop {
            match items.recv_timeout(FIGURES_INTERVAL) {
                Ok(Item::Keep(batch)) => batches.push(batch),
                Err(RecvTimeoutError::Timeout) => self.maintain(),
                Ok(Item::Close) | Err(RecvTimeoutError::Disconnected) => return,
            }
            let mut bytes: u64 = batches.iter().map(|batch| batch.bytes).sum();
            let mut closes = false;
            while bytes < BATCH_BYTES_MAX {
                match items.try_recv() {
                    Ok(Item::Keep(batch)) => {
                        bytes += batch.bytes;
                        batches.push(batch);
                    }
                    Ok(Item::Close) => {
                        closes = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            if !batches.is_empty() {
                self.keep(&mut batches, bytes);
            }
            if closes {
                return;
            }
            if self.figures_at.elapsed() >= FIGURES_INTERVAL {
                self.maintain();
            }
        }
    }

    /// Commits some batches at once and sends them back.
    fn keep(&mut self, batches: &mut Vec<Batch>, bytes: u64) {
        let kept = self.commit(batches);
        // Also after a failed commit, because nothing can be claimed any more then.
        let all = batches.iter_mut().flat_map(|batch| &mut batch.kept);
        self.registry.end_all(all.filter_map(|kept| kept.commit.take()));
        let changes = batches.iter().map(|batch| batch.kept.len()).sum();
        self.shared.waiting.fetch_sub(changes, Ordering::Relaxed);
        self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        for batch in batches.drain(..) {
            self.mailboxes.order(batch.core, Order::Kept(batch, kept));
        }
    }

    fn commit(&mut self, batches: &[Batch]) -> Result<(), NotKept> {
        if self.shared.failure.get().is_some() {
            return Err(NotKept);
        }
        let changes: Vec<Change<'_>> = batches
            .iter()
            .flat_map(|batch| &batch.kept)
            .filter_map(|kept| match &kept.change {
                GroupChange::Put(record) => Some(Change::Put { key: &kept.key, record }),
                GroupChange::Delete => Some(Change::Delete { key: &kept.key }),
                GroupChange::Nothing => None,
            })
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let (backend, durability) = (&mut self.backend, self.durability);
        let done = catch_unwind(AssertUnwindSafe(|| backend.commit(&changes, durability)));
        self.commit_seconds.record(begun.elapsed().as_secs_f64());
        self.batch_changes.record(changes.len() as f64);
        let why = match done {
            Ok(Ok(Commit::Kept(_))) => return Ok(()),
            Ok(Ok(Commit::Conflict(_))) => "somebody else writes to the store".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the storage engine panicked".to_owned(),
        };
        self.fail(why);
        Err(NotKept)
    }

    fn fail(&self, why: String) {
        tracing::error!(error = %why, "the store failed and takes nothing more until a restart; scrapes go on");
        let _ = self.shared.failure.set(why);
        self.shared.phase.store(FAILED, Ordering::Release);
    }

    /// What is due about once a second.
    fn maintain(&mut self) {
        if self.shared.failure.get().is_none() {
            let backend = &mut self.backend;
            match catch_unwind(AssertUnwindSafe(|| backend.maintain())) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.fail(error.to_string()),
                Err(_) => self.fail("the storage engine panicked".to_owned()),
            }
        }
        self.note_figures();
    }

    fn note_figures(&mut self) {
        self.figures_at = Instant::now();
        let stats = self.backend.stats();
        if stats.background_error != self.background_error {
            match &stats.background_error {
                Some(error) => {
                    tracing::warn!(error, "the store has trouble; what was acknowledged is kept");
                }
                None => tracing::info!("the store has no trouble any more"),
            }
            self.background_error.clone_from(&stats.background_error);
        }
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn close(self) {
        let begun = Instant::now();
        if self.shared.failure.get().is_some() {
            // Dropped as by a kill: what was acknowledged is there.
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| self.backend.close())) {
            Ok(Ok(())) => tracing::info!(seconds = begun.elapsed().as_secs_f64(), "closed the store"),
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot close the store; what was acknowledged is kept");
            }
            Err(_) => {
                tracing::error!("the storage engine panicked as it closed; what was acknowledged is kept");
            }
        }
    }
}
