//! The cores' interface to the store: a queue of changes to the writer thread, and the thread's state.
//!
//! A core puts each change into its [outbox](super::outbox) while it still holds its shard, so changes reach the engine in the order
//! in which they were applied. The [writer thread](super::writer) drains the queue, commits once, and sends every batch back to its
//! core, which replies to the clients. Scrapes and health checks never wait for the store.
//!
//! After a failed commit the content of the disk is unknown. The store is then *failed*: it rejects every write, and scrapes continue,
//! until the writer thread has [recovered](super::recovery) it.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sluicegate_engine::{Durability, Stats, UnreadStore};

use super::completion::{CommitFailed, Completion};
use super::engines::OpenError;
use super::import::{ImportError, Records};
use crate::runtime::shutdown::Shutdown;
use crate::shard::registry::{Registry, RunningEpoch};
use crate::shard::sides::CoreShards;
use crate::telemetry::faults;

/// How many bytes of changes may wait for the engine; beyond it pushes get 503.
const QUEUE_BYTES_MAX: u64 = 256 << 20;
/// Beyond this, only small pushes are accepted, so that a few clients with large ones cannot use up the room of all others.
const QUEUE_BYTES_OF_LARGE_MAX: u64 = QUEUE_BYTES_MAX / 2;
/// A larger push is large. As many smaller ones as may wait for a core, 4096 by default, fit into the room that is left to them.
const SMALL_PUSH_BYTES_MAX: u64 = 32 << 10;
/// A commit that takes longer is a fault: the disk does not respond, or a thread that the engine waits for has ended.
const COMMIT_STUCK: Duration = Duration::from_secs(10);

/// A change that the engine has not committed yet.
#[derive(Debug)]
pub(crate) struct PendingChange {
    /// The canonical text of the grouping key.
    pub key: Arc<str>,
    /// What to write.
    pub change: GroupChange,
    /// The commit's hold on released names, see [`crate::shard::Applied::commit`].
    pub commit: Option<RunningEpoch>,
    /// What to do after the commit.
    pub completion: Completion,
}

/// Changes of one core, in order. The writer sends the batch back to the core with the result.
#[derive(Debug)]
pub(crate) struct Batch {
    pub core: usize,
    pub changes: Vec<PendingChange>,
    /// See [`PendingChange::bytes`].
    pub bytes: u64,
}

/// What a command did to a group.
#[derive(Debug)]
pub(crate) enum GroupChange {
    /// The group is now this record.
    Put(Vec<u8>),
    /// This patch applies to the record of the group, see [`sluicegate_engine::Change::Patch`].
    Patch(Vec<u8>),
    /// The group was deleted.
    Delete,
    /// The group is unchanged. The response is still sent in order, after those of earlier changes.
    Unchanged,
}

/// The state of the store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// Groups are being restored.
    Restoring {
        /// How many are restored so far.
        groups: u64,
        /// The fraction of the store's bytes that is read, if it is known.
        fraction: Option<f64>,
    },
    /// Writes are accepted.
    Ready,
    /// Writes are rejected for this reason, until the store has recovered.
    Failed(String),
}

/// Opens the store.
pub(crate) type Open = Box<dyn FnOnce() -> Result<UnreadStore, OpenError> + Send>;
/// Returns the groups to import from the official program's file. The argument says whether the store is new.
pub(crate) type Import = Box<dyn FnOnce(bool) -> Result<Records, ImportError> + Send>;
/// Sends a batch back to its core, with the result of the commit.
pub(crate) type Deliver = Box<dyn Fn(Batch, Result<(), CommitFailed>) + Send>;

/// What a store needs to start.
pub(crate) struct Start {
    pub open: Open,
    pub import: Import,
    pub deliver: Deliver,
    /// What an acknowledged push survives.
    pub durability: Durability,
    /// The shards of all cores, empty.
    pub shards: Vec<Arc<CoreShards>>,
    pub registry: Arc<Registry>,
    /// Requested if the store cannot start.
    pub shutdown: Shutdown,
}

/// The cores' handle to the store.
#[derive(Debug)]
pub(crate) struct Store {
    queue: Sender<WriterCommand>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<(), CloseError>>>>,
}

/// A command to the writer thread.
#[derive(Debug)]
pub(super) enum WriterCommand {
    Commit(Batch),
    Close,
}

/// What the writer thread and the cores share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    phase: AtomicU8,
    /// Why writes are rejected.
    pub(super) failure: Mutex<Option<String>>,
    pub(super) restored: Vec<Progress>,
    /// Approximate number of bytes to restore; 0 if unknown.
    pub(super) restore_bytes: AtomicU64,
    pub(super) contradictions: AtomicU64,
    pub(super) queued: AtomicUsize,
    pub(super) queued_bytes: AtomicU64,
    pub(super) stats: Mutex<Stats>,
    /// When the commit began that is running.
    pub(super) commit_began: Mutex<Option<Instant>>,
}

/// The phase of the writer thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    Restoring = 0,
    Ready,
    Failed,
    /// The start failed, so the program ends.
    NotStarted,
}

/// What was restored into the shard of one core. Aligned so that threads which count for different cores do not share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Progress {
    pub(super) groups: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Shared {
    pub(super) fn new(cores: usize) -> Self {
        Self { restored: (0..cores).map(|_| Progress::default()).collect(), ..Self::default() }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(super) fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) == phase as u8
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_failure(&self, reason: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Records that a commit begins, or that none is running.
    pub(super) fn set_commit_began(&self, began: Option<Instant>) {
        *self.commit_began.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }

    /// The number of restored groups, and the bytes of their records.
    pub(super) fn restored(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.restored
            .iter()
            .fold((0, 0), |(groups, bytes), core| (groups + load(&core.groups), bytes + load(&core.bytes)))
    }
}

/// Why a store could not be closed properly.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The store never started.
    #[error("{0}")]
    NotStarted(String),
    /// The writer thread panicked.
    #[error("the storage thread panicked")]
    Panicked,
    /// The engine failed to close the store, or had failed before.
    #[error("the store was not closed: {0}")]
    NotClosed(String),
}

impl Store {
    /// Starts the writer thread, which opens the engine and restores the groups. Changes that arrive earlier wait.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(start: Start) -> std::io::Result<Self> {
        let (queue, commands) = mpsc::channel();
        let shared = Arc::new(Shared::new(start.shards.len()));
        let thread = {
            let shared = shared.clone();
            faults::spawn("store", move || super::writer::run(start, &shared, &commands))?
        };
        Ok(Self { queue, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Sends a batch to the writer thread.
    pub(crate) fn enqueue(&self, batch: Batch) {
        self.shared.queued.fetch_add(batch.changes.len(), Ordering::Relaxed);
        self.shared.queued_bytes.fetch_add(batch.bytes, Ordering::Relaxed);
        // If the thread has ended, dropping the batch closes the channels of its clients.
        let _ = self.queue.send(WriterCommand::Commit(batch));
    }

    /// Whether so many bytes wait for the engine that a push of this size is rejected.
    pub(crate) fn is_full(&self, push_bytes: u64) -> bool {
        let is_large = push_bytes > SMALL_PUSH_BYTES_MAX;
        let bytes_max = if is_large { QUEUE_BYTES_OF_LARGE_MAX } else { QUEUE_BYTES_MAX };
        self.shared.queued_bytes.load(Ordering::Relaxed) > bytes_max
    }

    /// Whether writes are accepted. Cheaper than [`Self::state`].
    pub(crate) fn is_ready(&self) -> bool {
        self.shared.is(Phase::Ready)
    }

    pub(crate) fn state(&self) -> State {
        let shared = &self.shared;
        if shared.is(Phase::Ready) {
            State::Ready
        } else if shared.is(Phase::Failed) {
            State::Failed(shared.failure().unwrap_or_default())
        } else {
            let total = shared.restore_bytes.load(Ordering::Relaxed);
            let (groups, bytes) = shared.restored();
            let fraction = (total > 0).then(|| (bytes as f64 / total as f64).min(1.0));
            State::Restoring { groups, fraction }
        }
    }

    /// Why the gateway needs help: storage has failed, a commit does not end, or a background thread of the engine panicked.
    pub(crate) fn fault(&self) -> Option<String> {
        self.fault_at(Instant::now())
    }

    fn fault_at(&self, now: Instant) -> Option<String> {
        if let State::Failed(cause) = self.state() {
            return Some(format!("storage failed: {cause}"));
        }
        let began = *self.shared.commit_began.lock().unwrap_or_else(PoisonError::into_inner);
        let running = began.map(|began| now.saturating_duration_since(began));
        if let Some(running) = running.filter(|running| *running > COMMIT_STUCK) {
            return Some(format!("storage: a commit has been running for {} seconds", running.as_secs()));
        }
        let stats = self.stats();
        stats.background_error.filter(|_| stats.background_panic).map(|error| format!("storage: {error}"))
    }

    /// The engine's statistics, at most about a second old.
    pub(crate) fn stats(&self) -> Stats {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of changes that wait for the engine, and their bytes.
    pub(crate) fn queued(&self) -> (usize, u64) {
        (self.shared.queued.load(Ordering::Relaxed), self.shared.queued_bytes.load(Ordering::Relaxed))
    }

    /// The number of restored groups that contradicted others.
    pub(crate) fn contradictions(&self) -> u64 {
        self.shared.contradictions.load(Ordering::Relaxed)
    }

    /// Commits what is queued, closes the engine and ends the thread.
    ///
    /// # Errors
    /// See [`CloseError`].
    pub(crate) fn close(&self) -> Result<(), CloseError> {
        // Does not wait for a running restore, which has changed nothing.
        if !self.shared.is(Phase::Restoring) {
            let _ = self.queue.send(WriterCommand::Close);
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            return thread.map_or(Ok(()), |thread| thread.join().unwrap_or(Err(CloseError::Panicked)));
        }
        Ok(())
    }
}

impl Batch {
    /// An empty batch that reuses the memory of `changes`.
    pub(super) fn new(core: usize, changes: Vec<PendingChange>) -> Self {
        Self { core, changes, bytes: 0 }
    }

    pub(super) fn push(&mut self, change: PendingChange) {
        self.bytes += change.bytes();
        self.changes.push(change);
    }
}

impl PendingChange {
    /// Its approximate size in memory.
    pub(super) fn bytes(&self) -> u64 {
        let record = match &self.change {
            GroupChange::Put(record) | GroupChange::Patch(record) => record.len(),
            GroupChange::Delete | GroupChange::Unchanged => 0,
        };
        (size_of::<Self>() + self.key.len() + record) as u64
    }
}
