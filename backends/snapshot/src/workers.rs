//! The two background threads: one syncs files and zeroes blank segments, the other compacts the log.
//!
//! A task that panics does not end its thread, so later tasks still run and nothing waits for a thread that is gone.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sluicegate_engine::EngineError;

use crate::compaction::Compaction;
use crate::failure::catch_panic;
use crate::store::Store;

/// The delay after which batches committed with [`Durability::Process`](sluicegate_engine::Durability::Process) are synced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The background threads. Dropping this runs the tasks that are still queued and waits for both threads.
pub(crate) struct Workers {
    store: Arc<Store>,
    disk: Worker<DiskTask>,
    compactor: Worker<CompactionTask>,
    /// Disconnected once the last compaction has ended, however it ended.
    compaction_end: Option<Receiver<Infallible>>,
}

enum DiskTask {
    /// Sync the files in the queue.
    Sync,
    /// Sync everything written until [`SYNC_INTERVAL`] from now.
    SyncLater,
    /// Prepare a blank segment of this many bytes.
    PrepareBlank(u64),
}

struct CompactionTask {
    compaction: Compaction,
    /// Dropped with the task: when the compaction returns, when it panics, and when it cannot be started.
    _end: Sender<Infallible>,
}

impl Workers {
    pub fn start(store: &Arc<Store>) -> Result<Self, EngineError> {
        let disk = {
            let store = store.clone();
            Worker::start("store-disk", move |tasks| run_disk_tasks(&store, &tasks))?
        };
        let compactor = {
            let store = store.clone();
            Worker::start("store-compact", move |tasks| {
                for CompactionTask { compaction, _end } in tasks {
                    compaction.run_in_background(&store);
                }
            })?
        };
        Ok(Self { store: store.clone(), disk, compactor, compaction_end: None })
    }

    /// Whether both threads run. They catch the panics of their tasks, so nothing should end them.
    pub fn are_running(&self) -> bool {
        self.disk.is_running() && self.compactor.is_running()
    }

    /// Starts a sync of the files in the queue.
    pub fn sync(&self) {
        self.disk.send(DiskTask::Sync);
    }

    /// Schedules a sync of everything written, unless one is scheduled already.
    pub fn sync_later(&self) {
        if self.store.syncs.schedule() {
            self.disk.send(DiskTask::SyncLater);
        }
    }

    pub fn prepare_blank(&self, length: u64) {
        self.disk.send(DiskTask::PrepareBlank(length));
    }

    /// Starts a compaction, unless one is running.
    pub fn compact(&mut self, compaction: Compaction) {
        let is_running = |end: &Receiver<_>| matches!(end.try_recv(), Err(TryRecvError::Empty));
        if !self.compaction_end.as_ref().is_some_and(is_running) {
            let (_end, compaction_end) = mpsc::channel();
            self.compaction_end = Some(compaction_end);
            self.compactor.send(CompactionTask { compaction, _end });
        }
    }

    /// Waits for the running compaction, if there is one.
    pub fn wait_for_compaction(&mut self) {
        if let Some(end) = self.compaction_end.take() {
            // Nothing is ever sent: this returns when the task drops its end of the channel.
            let _ = end.recv();
        }
    }
}

fn run_disk_tasks(store: &Store, tasks: &Receiver<DiskTask>) {
    let mut sync_at: Option<Instant> = None;
    loop {
        let next = match sync_at {
            Some(at) => tasks.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(DiskTask::Sync) => sync_or_fail(store, Store::sync),
            Ok(DiskTask::SyncLater) => sync_at = Some(Instant::now() + SYNC_INTERVAL),
            Ok(DiskTask::PrepareBlank(length)) => {
                // This only saves time. If it fails, the commit that needs a blank creates one, and reports the error.
                let _ = catch_panic(|| store.blanks.prepare(length));
            }
            Err(RecvTimeoutError::Timeout) => {
                sync_at = None;
                sync_or_fail(store, Store::sync_written);
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Runs a sync. Its errors fail the engine, and so do its panics.
fn sync_or_fail(store: &Store, sync: impl FnOnce(&Store) -> Result<(), EngineError>) {
    if let Err(panic) = catch_panic(|| sync(store)) {
        store.failure.set(&format!("syncing panicked: {panic}"));
    }
}

/// A thread with a queue of tasks.
struct Worker<T> {
    /// `None` only while it is dropped.
    sender: Option<Sender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Worker<T> {
    fn start(name: &str, run: impl FnOnce(Receiver<T>) + Send + 'static) -> Result<Self, EngineError> {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(receiver));
        let thread = thread.map_err(|source| EngineError::Io {
            file: name.into(),
            doing: "start the thread",
            source,
        })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn send(&self, task: T) {
        if let Some(sender) = &self.sender {
            // The receiver lives as long as the thread, which ends only after the sender is dropped.
            let _ = sender.send(task);
        }
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // Tasks do not panic out of their thread.
            let _ = thread.join();
        }
    }
}
