//! The writer thread, which owns the engine: it restores the groups, then commits batches.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use sluicegate_engine::{Change, Durability, Engine, EngineError, Groups, Receipt};

use super::completion::{CommitFailed, Completion};
use super::metrics::{BATCH_CHANGES, COMMIT_DURATION};
use super::recovery::{self, Attempts};
use super::restore::{RestoreError, Restoring, restore};
use super::store::{
    Batch, CloseError, Deliver, GroupChange, PendingChange, Phase, Shared, Start, WriterCommand,
};
use crate::runtime::scheduling::use_batch_scheduling;
use crate::shard::registry::Registry;
use crate::shard::sides::CoreShards;
use crate::telemetry::faults;

/// A commit of more bytes does not wait for further batches, so that its clients do not wait for the changes of many others.
const COMMIT_BYTES_MAX: u64 = 16 << 20;
/// How often the engine maintains itself, and how old its statistics may be.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// The body of the writer thread.
pub(super) fn run(
    start: Start,
    shared: &Shared,
    commands: &Receiver<WriterCommand>,
) -> Result<(), CloseError> {
    let Start { open, import, deliver, durability, shards, registry, shutdown } = start;
    // The longer the cores run before this thread does, the more changes go into one commit.
    use_batch_scheduling();
    let restoring = Restoring::new(shards.clone(), shared);
    let started = faults::contain(|| restore(open, import, durability, &restoring))
        .unwrap_or_else(|panic| Err(RestoreError::Panicked(panic)));
    let engine = match started {
        Ok(engine) => engine,
        Err(error) => {
            // A change that arrives now is dropped with the channel, and its client gets 503.
            shared.enter(Phase::NotStarted);
            shutdown.request();
            return Err(CloseError::NotStarted(error.to_string()));
        }
    };
    for (quantity, total, max) in registry.limited().filter(|(_, total, max)| total > max) {
        let limit = quantity.flag();
        tracing::warn!(
            limit,
            max,
            total,
            "the restored groups exceed a limit; pushes that add to them are rejected"
        );
    }
    shared.enter(Phase::Ready);
    let mut writer = Writer {
        engine: Some(engine),
        commands,
        shards,
        attempts: Attempts::new(),
        closing: false,
        durability,
        unstored: HashSet::new(),
        changed: Vec::new(),
        in_flight: VecDeque::new(),
        registry: &registry,
        deliver: &deliver,
        shared,
        background_error: None,
        maintained_at: Instant::now(),
        commit_seconds: metrics::histogram!(COMMIT_DURATION.name),
        batch_changes: metrics::histogram!(BATCH_CHANGES.name),
    };
    writer.publish_stats();
    // A panic fails the changes that were in flight and all later ones, instead of leaving their clients without a response.
    while let Err(panic) = faults::contain(|| writer.serve()) {
        writer.fail(panic);
        writer.deliver_in_flight(Err(CommitFailed));
    }
    writer.close()
}

struct Writer<'s> {
    /// `None` only during an attempt to recover.
    engine: Option<Box<dyn Engine>>,
    commands: &'s Receiver<WriterCommand>,
    /// By core.
    shards: Vec<Arc<CoreShards>>,
    attempts: Attempts,
    /// Whether the store is to be closed.
    closing: bool,
    durability: Durability,
    /// The groups whose changes arrived during an attempt to recover.
    changed: Vec<Arc<str>>,
    /// The groups whose records were too large for the engine.
    unstored: HashSet<Arc<str>>,
    /// The batches that are being committed.
    in_flight: VecDeque<Batch>,
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
    fn serve(&mut self) {
        while !self.closing {
            match self.commands.recv_timeout(self.until_due()) {
                Ok(command) => self.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let mut bytes: u64 = self.in_flight.iter().map(|batch| batch.bytes).sum();
            while bytes < COMMIT_BYTES_MAX && !self.closing {
                let Ok(command) = self.commands.try_recv() else { break };
                self.take(command);
                bytes += self.in_flight.back().map_or(0, |batch| batch.bytes);
            }
            if !self.in_flight.is_empty() {
                let committed = self.commit();
                self.deliver_in_flight(committed);
            }
            if self.until_due().is_zero() && !self.closing {
                self.maintain();
            }
        }
    }

    fn take(&mut self, command: WriterCommand) {
        match command {
            WriterCommand::Commit(batch) => self.in_flight.push_back(batch),
            WriterCommand::Close => self.closing = true,
        }
    }

    /// The time until [`Self::maintain`] is due.
    fn until_due(&self) -> Duration {
        if self.shared.is(Phase::Failed) {
            self.attempts.until_next()
        } else {
            MAINTENANCE_INTERVAL.saturating_sub(self.maintained_at.elapsed())
        }
    }

    /// Sends the batches in flight back to their cores.
    fn deliver_in_flight(&mut self, committed: Result<(), CommitFailed>) {
        // Names that the changes released are free from now on. This also holds after a failed commit, because no later change that
        // claims them can be committed before the store has recovered.
        let changes = self.in_flight.iter_mut().flat_map(|batch| &mut batch.changes);
        self.registry.end_all(changes.filter_map(|change| change.commit.take()));
        while let Some(batch) = self.in_flight.pop_front() {
            self.shared.queued.fetch_sub(batch.changes.len(), Ordering::Relaxed);
            self.shared.queued_bytes.fetch_sub(batch.bytes, Ordering::Relaxed);
            (self.deliver)(batch, committed);
        }
    }

    /// Commits the batches in flight together.
    fn commit(&mut self) -> Result<(), CommitFailed> {
        if self.shared.failure().is_some() {
            return Err(CommitFailed);
        }
        let Some(engine) = &mut self.engine else { return Err(CommitFailed) };
        if !self.unstored.is_empty() {
            let changes = self.in_flight.iter_mut().flat_map(|batch| &mut batch.changes);
            changes.for_each(|pending| reject_patch_of_unstored(pending, &mut self.unstored));
        }
        let durability = self.durability;
        let changes: Vec<Change<'_>> = self
            .in_flight
            .iter()
            .flat_map(|batch| &batch.changes)
            .filter_map(PendingChange::stored)
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        self.shared.set_commit_began(Some(started));
        let mut result = faults::contain(|| engine.commit(&changes, durability));
        self.commit_seconds.record(started.elapsed().as_secs_f64());
        self.batch_changes.record(changes.len() as f64);
        if matches!(result, Ok(Err(EngineError::TooLarge { .. }))) {
            let (batches, unstored) = (&mut self.in_flight, &mut self.unstored);
            result = faults::contain(|| commit_one_by_one(engine.as_mut(), durability, batches, unstored));
        }
        self.shared.set_commit_began(None);
        match result {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => self.fail(error.to_string()),
            Err(panic) => self.fail(panic),
        }
        Err(CommitFailed)
    }

    fn fail(&mut self, reason: String) {
        // The official message. The official program goes on without its file, so its log does not say what follows.
        let effect = "writes are rejected until storage recovers, scrapes continue";
        tracing::error!(err = %reason, effect, "error persisting metrics");
        self.shared.set_failure(Some(reason));
        self.shared.enter(Phase::Failed);
        self.attempts = Attempts::new();
    }

    /// Lets the engine maintain itself, or tries to recover a failed store.
    fn maintain(&mut self) {
        self.maintained_at = Instant::now();
        if self.shared.failure().is_some() {
            self.recover();
        } else if let Some(engine) = &mut self.engine {
            match faults::contain(|| engine.maintain()) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.fail(error.to_string()),
                Err(panic) => self.fail(panic),
            }
        }
        self.publish_stats();
    }

    fn recover(&mut self) {
        let Some(mut engine) = self.engine.take() else { return };
        let began = Instant::now();
        let mut groups = GroupsInMemory { writer: self, is_first: true };
        let started = faults::contain(|| {
            engine.start_anew(&mut groups)?;
            // Only a commit shows that the store accepts writes again. With the higher durability, because the cause of the failure may
            // only show when files are synced.
            engine.commit(&[], Durability::Disk)
        });
        self.engine = Some(engine);
        let reason = match started {
            Ok(Ok(_)) => {
                self.unstored.clear();
                self.shared.set_failure(None);
                self.shared.enter(Phase::Ready);
                let seconds = began.elapsed().as_secs_f64();
                tracing::info!(seconds, "storage recovered; accepting writes again");
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic,
        };
        self.attempts.add_failed(began);
        // Not once per attempt.
        if self.shared.failure().as_ref() != Some(&reason) {
            tracing::warn!(err = reason, "storage cannot recover yet");
            self.shared.set_failure(Some(reason));
        }
    }

    /// Rejects the changes that have arrived. They are in memory.
    fn reject_waiting(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.take(command);
        }
        let changes = self.in_flight.iter().flat_map(|batch| &batch.changes);
        self.changed.extend(changes.map(|pending| pending.key.clone()));
        self.deliver_in_flight(Err(CommitFailed));
    }

    /// Publishes the engine's statistics, and logs a change of its background error.
    fn publish_stats(&mut self) {
        let Some(engine) = &self.engine else { return };
        let stats = engine.stats();
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

    fn close(self) -> Result<(), CloseError> {
        if let Some(reason) = self.shared.failure() {
            // Dropping the engine equals a kill: it loses nothing that was committed.
            return Err(CloseError::NotClosed(reason));
        }
        let Some(engine) = self.engine else { return Ok(()) };
        let started = Instant::now();
        match faults::contain(|| engine.close()) {
            Ok(Ok(())) => {
                tracing::info!(seconds = started.elapsed().as_secs_f64(), "metrics persisted");
                Ok(())
            }
            Ok(Err(error)) => Err(CloseError::NotClosed(error.to_string())),
            Err(panic) => Err(CloseError::NotClosed(panic)),
        }
    }
}

/// The groups of all shards.
struct GroupsInMemory<'w, 's> {
    writer: &'w mut Writer<'s>,
    is_first: bool,
}

impl Groups for GroupsInMemory<'_, '_> {
    fn changed(&mut self) -> Vec<Arc<str>> {
        // A change is in its shard before it arrives here, so the record that is written from now on contains it.
        self.writer.reject_waiting();
        let mut keys = std::mem::take(&mut self.writer.changed);
        if std::mem::take(&mut self.is_first) {
            keys.extend(recovery::keys(&self.writer.shards));
        }
        keys
    }

    fn record(&mut self, key: &Arc<str>, record: &mut Vec<u8>) -> bool {
        recovery::current_record(&self.writer.shards, key, record)
    }
}

impl PendingChange {
    /// The change for the engine.
    fn stored(&self) -> Option<Change<'_>> {
        match &self.change {
            GroupChange::Put(record) => Some(Change::Put { key: &self.key, record }),
            GroupChange::Patch(patch) => Some(Change::Patch { key: &self.key, patch }),
            GroupChange::Delete => Some(Change::Delete { key: &self.key }),
            GroupChange::Unchanged => None,
        }
    }
}

/// Rejects a patch of a record that the engine rejected. Once it gets a whole record or a delete, the group is as any other.
fn reject_patch_of_unstored(pending: &mut PendingChange, unstored: &mut HashSet<Arc<str>>) {
    match &pending.change {
        GroupChange::Put(_) | GroupChange::Delete => {
            unstored.remove(&pending.key);
        }
        GroupChange::Patch(_) if unstored.contains(&pending.key) => {
            pending.change = GroupChange::Unchanged;
            std::mem::replace(&mut pending.completion, Completion::None).reject_too_large();
        }
        GroupChange::Patch(_) | GroupChange::Unchanged => {}
    }
}

/// Commits each change as a batch of its own, because the engine cannot store all of them in one. Rejects those that are too large
/// even then.
fn commit_one_by_one(
    engine: &mut dyn Engine,
    durability: Durability,
    batches: &mut VecDeque<Batch>,
    unstored: &mut HashSet<Arc<str>>,
) -> Result<Receipt, EngineError> {
    let mut last = Receipt { sequence: engine.stats().sequence };
    for pending in batches.iter_mut().flat_map(|batch| &mut batch.changes) {
        reject_patch_of_unstored(pending, unstored);
        let Some(change) = pending.stored() else { continue };
        match engine.commit(&[change], durability) {
            Ok(receipt) => last = receipt,
            Err(error @ EngineError::TooLarge { .. }) => {
                tracing::error!(group = %pending.key, %error, "cannot store a group; its push was rejected");
                unstored.insert(pending.key.clone());
                std::mem::replace(&mut pending.completion, Completion::None).reject_too_large();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(last)
}
