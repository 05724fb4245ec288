//! The writer thread, which owns the engine: it restores the groups, then commits batches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use sluicegate_engine::{Change, Durability, Engine};

use super::completion::CommitFailed;
use super::metrics::{BATCH_CHANGES, COMMIT_DURATION};
use super::restore::{RestoreError, Restoring, restore};
use super::store::{Batch, Deliver, GroupChange, Phase, Shared, Start, WriterCommand};
use crate::runtime::scheduling::use_batch_scheduling;
use crate::shard::registry::Registry;

/// A commit of more bytes does not wait for further batches, so that its clients do not wait for the changes of many others.
const COMMIT_BYTES_MAX: u64 = 16 << 20;
/// How often the engine maintains itself, and how old its statistics may be.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

const PANICKED: &str = "the storage engine panicked, see the log";

/// The body of the writer thread.
pub(super) fn run(start: Start, shared: &Shared, commands: &Receiver<WriterCommand>) {
    let Start { open, import, deliver, durability, shards, registry, shutdown } = start;
    // The longer the cores run before this thread does, the more changes go into one commit.
    use_batch_scheduling();
    let restoring = Restoring { shards, shared };
    let started = catch_unwind(AssertUnwindSafe(|| restore(open, import, durability, &restoring)))
        .unwrap_or(Err(RestoreError::Panicked));
    match started {
        Ok(engine) => {
            shared.enter(Phase::Ready);
            let mut writer = Writer {
                engine,
                durability,
                registry: &registry,
                deliver: &deliver,
                shared,
                background_error: None,
                maintained_at: Instant::now(),
                commit_seconds: metrics::histogram!(COMMIT_DURATION.name),
                batch_changes: metrics::histogram!(BATCH_CHANGES.name),
            };
            writer.publish_stats();
            writer.serve(commands);
            writer.close();
        }
        Err(error) => {
            let _ = shared.failure.set(error.to_string());
            shared.enter(Phase::NotStarted);
            shutdown.request();
        }
    }
    // A change that arrives now is dropped with the channel, and its client gets 503.
}

struct Writer<'s> {
    engine: Box<dyn Engine>,
    durability: Durability,
    registry: &'s Registry,
    deliver: &'s Deliver,
    shared: &'s Shared,
    /// The engine's background error as last logged.
    background_error: Option<String>,
    maintained_at: Instant,
    commit_seconds: metrics::Histogram,
    batch_changes: metrics::Histogram,
}

impl Writer<'_> {
    fn serve(&mut self, commands: &Receiver<WriterCommand>) {
        let mut batches = Vec::new();
        loop {
            match commands.recv_timeout(MAINTENANCE_INTERVAL) {
                Ok(WriterCommand::Commit(batch)) => batches.push(batch),
                Err(RecvTimeoutError::Timeout) => self.maintain(),
                Ok(WriterCommand::Close) | Err(RecvTimeoutError::Disconnected) => return,
            }
            let mut bytes: u64 = batches.iter().map(|batch| batch.bytes).sum();
            let mut closing = false;
            while bytes < COMMIT_BYTES_MAX {
                match commands.try_recv() {
                    Ok(WriterCommand::Commit(batch)) => {
                        bytes += batch.bytes;
                        batches.push(batch);
                    }
                    Ok(WriterCommand::Close) => {
                        closing = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            if !batches.is_empty() {
                self.commit_and_deliver(&mut batches, bytes);
            }
            if closing {
                return;
            }
            if self.maintained_at.elapsed() >= MAINTENANCE_INTERVAL {
                self.maintain();
            }
        }
    }

    /// Commits the batches together and sends them back to their cores.
    fn commit_and_deliver(&mut self, batches: &mut Vec<Batch>, bytes: u64) {
        let committed = self.commit(batches);
        // Names that the changes released are free from now on. This also holds after a failed commit, because no later change that
        // claims them can be committed.
        let changes = batches.iter_mut().flat_map(|batch| &mut batch.changes);
        self.registry.end_all(changes.filter_map(|change| change.commit.take()));
        let count = batches.iter().map(|batch| batch.changes.len()).sum();
        self.shared.queued.fetch_sub(count, Ordering::Relaxed);
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        for batch in batches.drain(..) {
            (self.deliver)(batch, committed);
        }
    }

    fn commit(&mut self, batches: &[Batch]) -> Result<(), CommitFailed> {
        if self.has_failed() {
            return Err(CommitFailed);
        }
        let changes: Vec<Change<'_>> = batches
            .iter()
            .flat_map(|batch| &batch.changes)
            .filter_map(|pending| match &pending.change {
                GroupChange::Put(record) => Some(Change::Put { key: &pending.key, record }),
                GroupChange::Delete => Some(Change::Delete { key: &pending.key }),
                GroupChange::Unchanged => None,
            })
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let (engine, durability) = (&mut self.engine, self.durability);
        let result = catch_unwind(AssertUnwindSafe(|| engine.commit(&changes, durability)));
        self.commit_seconds.record(started.elapsed().as_secs_f64());
        self.batch_changes.record(changes.len() as f64);
        let reason = match result {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => PANICKED.to_owned(),
        };
        self.fail(reason);
        Err(CommitFailed)
    }

    fn has_failed(&self) -> bool {
        self.shared.failure.get().is_some()
    }

    fn fail(&self, reason: String) {
        tracing::error!(error = %reason, "storage failed; rejecting writes until a restart (scrapes continue)");
        let _ = self.shared.failure.set(reason);
        self.shared.enter(Phase::Failed);
    }

    /// Lets the engine maintain itself.
    fn maintain(&mut self) {
        if !self.has_failed() {
            let engine = &mut self.engine;
            match catch_unwind(AssertUnwindSafe(|| engine.maintain())) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.fail(error.to_string()),
                Err(_) => self.fail(PANICKED.to_owned()),
            }
        }
        self.publish_stats();
    }

    /// Publishes the engine's statistics, and logs a change of its background error.
    fn publish_stats(&mut self) {
        self.maintained_at = Instant::now();
        let stats = self.engine.stats();
        if stats.background_error != self.background_error {
            match &stats.background_error {
                Some(error) => {
                    tracing::warn!(
                        error,
                        "background work of the storage engine failed; acknowledged pushes are safe"
                    );
                }
                None => tracing::info!("background work of the storage engine succeeds again"),
            }
            self.background_error.clone_from(&stats.background_error);
        }
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn close(self) {
        if self.has_failed() {
            // Dropping the engine equals a kill: acknowledged pushes are safe.
            return;
        }
        let started = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| self.engine.close())) {
            Ok(Ok(())) => tracing::info!(seconds = started.elapsed().as_secs_f64(), "store closed"),
            Ok(Err(error)) => tracing::error!(%error, "cannot close the store; acknowledged pushes are safe"),
            Err(_) => tracing::error!(
                "the storage engine panicked while the store was closed; acknowledged pushes are safe"
            ),
        }
    }
}
