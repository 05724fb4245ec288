//! The loop of the storage thread: open, restore, then batch after batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use sluicegate_backend::{Backend, Change, Commit, Durability};

use crate::shard::registry::{Moment, Registry};
use crate::telemetry::names;

use super::restore::{Restoring, restore};
use super::{GroupChange, Item, Kept, NOT_STARTED, NotKept, POISONED, READY, Shared, Start, Waits};
use crate::runtime::home::{Answer, Order};
use crate::runtime::mailbox::Mailboxes;

/// A batch is closed above this, so that nobody waits for the commit of a great many others.
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// Where several came together, more are on their way: so long is waited for them. One commit for many costs each of them less than
/// the wait, and who comes alone does not wait.
const COMPANY_WAIT: Duration = Duration::from_micros(100);
/// With at least so many changes in a batch on average, more are waited for.
const COMPANY_MIN: f64 = 1.5;
/// Batches over which the average is taken, about.
const COMPANY_MEMORY: f64 = 8.0;
/// How old what the engine says about itself may become.
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);

/// Does all that the thread does.
pub(super) fn run(start: Start, shared: &Shared, items: &Receiver<Item>) {
    let Start { open, import, durability, shards, registry, mailboxes, shutdown } = start;
    let restoring = Restoring { shards, registry: registry.clone(), shared };
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
                trouble: None,
                figures_at: Instant::now(),
                commit_seconds: metrics::histogram!(names::STORAGE_COMMIT_DURATION),
                batch_changes: metrics::histogram!(names::STORAGE_BATCH),
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
    backend: Box<dyn Backend>,
    durability: Durability,
    registry: &'s Registry,
    mailboxes: &'s Mailboxes,
    shared: &'s Shared,
    /// What the engine complains of, as logged last.
    trouble: Option<String>,
    figures_at: Instant,
    commit_seconds: metrics::Histogram,
    batch_changes: metrics::Histogram,
}

impl Writer<'_> {
    fn serve(&mut self, items: &Receiver<Item>) {
        let mut batch = Vec::new();
        // How many came together lately; a short memory, so that one who came alone among many does not end the waiting.
        let mut company = 1.0;
        loop {
            if company >= COMPANY_MIN {
                std::thread::sleep(COMPANY_WAIT);
            }
            match items.recv_timeout(FIGURES_INTERVAL) {
                Ok(Item::Kept(kept)) => batch.push(kept),
                Err(RecvTimeoutError::Timeout) => self.tend(),
                Ok(Item::Close) | Err(RecvTimeoutError::Disconnected) => return,
            }
            let mut bytes: u64 = batch.iter().map(Kept::bytes).sum();
            let mut closes = false;
            while bytes < BATCH_BYTES_MAX {
                match items.try_recv() {
                    Ok(Item::Kept(kept)) => {
                        bytes += kept.bytes();
                        batch.push(kept);
                    }
                    Ok(Item::Close) => {
                        closes = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            if !batch.is_empty() {
                company += (batch.len() as f64 - company) / COMPANY_MEMORY;
                self.keep(&mut batch, bytes);
            }
            if closes {
                return;
            }
            if self.figures_at.elapsed() >= FIGURES_INTERVAL {
                self.tend();
            }
        }
    }

    /// Commits a batch and tells everybody.
    fn keep(&mut self, batch: &mut Vec<Kept>, bytes: u64) {
        let kept = self.commit(batch);
        // What the batch gave up is free now, also if it failed: then nothing can claim it any more.
        let mut moments: Vec<Moment> = batch.iter().filter_map(|kept| kept.commit).collect();
        if !moments.is_empty() {
            moments.sort_unstable();
            self.registry.end(&moments);
        }
        self.shared.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
        self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        // One message a core, so that a core is woken once.
        let mut answers: Vec<Vec<_>> = (0..self.mailboxes.cores()).map(|_| Vec::new()).collect();
        for Kept { waits, change, .. } in batch.drain(..) {
            match waits {
                Waits::Client(core, reply, outcome) => {
                    let spare = if let GroupChange::Put(record) = change { record } else { Vec::new() };
                    answers[core].push(Answer { reply, outcome: kept.map(|()| outcome), spare });
                }
                Waits::Wipe(answer) => {
                    let _ = answer.send(kept);
                }
                Waits::Nobody => {}
            }
        }
        for (core, answers) in answers.into_iter().enumerate().filter(|(_, answers)| !answers.is_empty()) {
            self.mailboxes.order(core, Order::Answer(answers));
        }
    }

    fn commit(&mut self, batch: &[Kept]) -> Result<(), NotKept> {
        if self.shared.failure.get().is_some() {
            return Err(NotKept);
        }
        let changes: Vec<Change<'_>> = batch
            .iter()
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
        self.poison(why);
        Err(NotKept)
    }

    fn poison(&self, why: String) {
        tracing::error!(error = %why, "the store failed and takes nothing more until a restart; scrapes go on");
        let _ = self.shared.failure.set(why);
        self.shared.phase.store(POISONED, Ordering::Release);
    }

    /// What is due about once a second.
    fn tend(&mut self) {
        if self.shared.failure.get().is_none() {
            let backend = &mut self.backend;
            match catch_unwind(AssertUnwindSafe(|| backend.tend())) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.poison(error.to_string()),
                Err(_) => self.poison("the storage engine panicked".to_owned()),
            }
        }
        self.note_figures();
    }

    fn note_figures(&mut self) {
        self.figures_at = Instant::now();
        let figures = self.backend.figures();
        if figures.trouble != self.trouble {
            match &figures.trouble {
                Some(trouble) => {
                    tracing::warn!(trouble, "the store has trouble; what was acknowledged is kept");
                }
                None => tracing::info!("the store has no trouble any more"),
            }
            self.trouble.clone_from(&figures.trouble);
        }
        *self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
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
