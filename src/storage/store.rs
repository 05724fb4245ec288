//! The thread that has the storage engine, and what cores know of it.
//!
//! A core puts what a command left behind into its outbox while it still holds its shard: so the changes of a group, and of all
//! groups of a core, reach the engine in the order in which they were applied. The thread drains its queue, commits once, and
//! sends everything back to its core, which answers. Scrapes and health checks never come here.
//!
//! After a commit that failed nobody knows what is on the disk. Then the store is *failed*: every write is refused until a restart,
//! and scrapes go on.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use futures_channel::oneshot;
use sluicegate_engine::{Durability, Engine, Stats};

use crate::shard::Shard;
use crate::shard::outcome::Outcome;
use crate::shard::registry::{Registry, RunningEpoch};
use crate::storage::import::Records;

use crate::cores::mailbox::Mailboxes;
use crate::cores::shard_task::Reply;
use crate::runtime::shutdown::Shutdown;

/// What may wait for the engine, in bytes of records. Above it pushes are turned away.
const QUEUE_BYTES_MAX: u64 = 256 << 20;

/// Commands that were not kept: nobody knows whether they will be there after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotKept;

/// What a command left behind, and who waits for it.
#[derive(Debug)]
pub struct Kept {
    /// The canonical text of the grouping key.
    pub key: Arc<str>,
    /// What became of the group.
    pub change: GroupChange,
    /// See [`crate::shard::Applied::commit`].
    pub commit: Option<RunningEpoch>,
    /// Whom to tell.
    pub waits: Waits,
}

/// What some commands of one core left behind, in their order. It comes back to the core with what became of it.
#[derive(Debug)]
pub struct Batch {
    /// Which core that is.
    pub core: usize,
    /// What the commands left behind.
    pub kept: Vec<Kept>,
    /// What it weighs, see [`Kept::bytes`].
    pub bytes: u64,
}

/// What became of a group.
#[derive(Debug)]
pub enum GroupChange {
    /// It is now this record.
    Put(Vec<u8>),
    /// It is gone.
    Delete,
    /// It is as it was; the answer comes after those to all changes before.
    Nothing,
}

/// Who waits until something is kept.
#[derive(Debug)]
pub enum Waits {
    /// A client, for this answer.
    Client(Reply, Outcome),
    /// A wipe.
    Wipe(oneshot::Sender<Result<(), NotKept>>),
    /// Nobody.
    Nobody,
}

/// How far the store is.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Groups are being taken back: how many are, and which part of the bytes, if that can be said.
    Restoring(u64, Option<f64>),
    /// Writes are taken.
    Ready,
    /// It takes nothing more, for this reason.
    Failed(String),
}

/// Opens the engine; an error is told to the operator.
pub type Open = Box<dyn FnOnce() -> Result<Box<dyn Engine>, String> + Send>;
/// Gives the groups that a store shall take over from another program. Is told whether the store is new.
pub type Import = Box<dyn FnOnce(bool) -> Result<Records, String> + Send>;

/// What is needed to begin with.
pub struct Start {
    /// Opens the engine.
    pub open: Open,
    /// Gives what is to be taken over.
    pub import: Import,
    /// What commits shall survive.
    pub durability: Durability,
    /// The shards of all cores, empty.
    pub shards: Vec<Arc<async_lock::Mutex<Shard>>>,
    /// Names taken.
    pub registry: Arc<Registry>,
    /// The way back to the cores.
    pub mailboxes: Mailboxes,
    /// Pulled if the start fails.
    pub shutdown: Shutdown,
}

/// The store as cores see it.
#[derive(Debug)]
pub struct Store {
    queue: Sender<Item>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
pub(super) enum Item {
    Keep(Batch),
    Close,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) phase: AtomicU8,
    /// Why nothing more is taken, or why the start failed.
    pub(super) failure: OnceLock<String>,
    pub(super) restored: Vec<Progress>,
    /// Bytes to restore, about; 0 if unknown.
    pub(super) restore_bytes: AtomicU64,
    pub(super) contradictions: AtomicU64,
    pub(super) waiting: AtomicUsize,
    pub(super) waiting_bytes: AtomicU64,
    pub(super) stats: Mutex<Stats>,
}

/// How many groups of a core were restored. Threads that count for different cores are not in each other's way.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Progress {
    pub(super) groups: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Shared {
    /// Groups restored, and the bytes of their records.
    pub(super) fn restored(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.restored
            .iter()
            .fold((0, 0), |(groups, bytes), core| (groups + load(&core.groups), bytes + load(&core.bytes)))
    }
}

pub(super) const RESTORING: u8 = 0;
pub(super) const READY: u8 = 1;
pub(super) const FAILED: u8 = 2;
pub(super) const NOT_STARTED: u8 = 3;

impl Store {
    /// Starts the thread. It opens the engine and restores; what is sent before that is done waits.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(start: Start) -> std::io::Result<Self> {
        let (queue, items) = mpsc::channel();
        let restored = start.shards.iter().map(|_| Progress::default()).collect();
        let shared = Arc::new(Shared { restored, ..Shared::default() });
        let thread = {
            let shared = shared.clone();
            let name = "store".to_owned();
            std::thread::Builder::new()
                .name(name)
                .spawn(move || super::writer::run(start, &shared, &items))?
        };
        Ok(Self { queue, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Sends what some commands left behind.
    pub fn keep(&self, batch: Batch) {
        self.shared.waiting.fetch_add(batch.kept.len(), Ordering::Relaxed);
        self.shared.waiting_bytes.fetch_add(batch.bytes, Ordering::Relaxed);
        // Without the thread whoever waits hears it from the channel that ends.
        let _ = self.queue.send(Item::Keep(batch));
    }

    /// Whether so much waits for the engine that no more is taken.
    pub fn is_full(&self) -> bool {
        self.shared.waiting_bytes.load(Ordering::Relaxed) > QUEUE_BYTES_MAX
    }

    /// Whether writes are taken. Cheaper than [`Self::state`].
    pub fn is_ready(&self) -> bool {
        self.shared.phase.load(Ordering::Acquire) == READY
    }

    /// How far the store is.
    pub fn state(&self) -> State {
        let shared = &self.shared;
        match shared.phase.load(Ordering::Acquire) {
            READY => State::Ready,
            FAILED => State::Failed(shared.failure.get().cloned().unwrap_or_default()),
            _ => {
                let whole = shared.restore_bytes.load(Ordering::Relaxed);
                let (groups, bytes) = shared.restored();
                State::Restoring(groups, (whole > 0).then(|| (bytes as f64 / whole as f64).min(1.0)))
            }
        }
    }

    /// What the engine says about itself, not older than about a second.
    pub fn stats(&self) -> Stats {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Commands that wait for the engine, and the bytes of their records.
    pub fn waiting(&self) -> (usize, u64) {
        (self.shared.waiting.load(Ordering::Relaxed), self.shared.waiting_bytes.load(Ordering::Relaxed))
    }

    /// Groups that contradicted others when they were restored.
    pub fn contradictions(&self) -> u64 {
        self.shared.contradictions.load(Ordering::Relaxed)
    }

    /// Commits what is waiting, closes the engine and ends the thread. Says why, if the store could not be started at all.
    ///
    /// # Errors
    /// The reason, for the operator.
    pub fn close(&self) -> Result<(), String> {
        // A restore that is under way is not waited for: it has changed nothing.
        if self.shared.phase.load(Ordering::Acquire) != RESTORING {
            let _ = self.queue.send(Item::Close);
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if thread.is_some_and(|thread| thread.join().is_err()) {
                return Err("the storage thread panicked".to_owned());
            }
        }
        match self.shared.phase.load(Ordering::Acquire) {
            NOT_STARTED => Err(self.shared.failure.get().cloned().unwrap_or_default()),
            _ => Ok(()),
        }
    }
}

impl Batch {
    /// An empty one, in memory for what comes.
    pub(super) fn new(core: usize, memory: Vec<Kept>) -> Self {
        Self { core, kept: memory, bytes: 0 }
    }

    /// Adds what a command left behind.
    pub(super) fn push(&mut self, kept: Kept) {
        self.bytes += kept.bytes();
        self.kept.push(kept);
    }
}

impl Kept {
    /// What it weighs in memory, about.
    pub(super) fn bytes(&self) -> u64 {
        let record = if let GroupChange::Put(record) = &self.change { record.len() } else { 0 };
        (size_of::<Self>() + self.key.len() + record) as u64
    }
}
