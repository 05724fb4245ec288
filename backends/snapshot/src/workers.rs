//! The engine's two background threads: one syncs and zeroes files, the other merges the log into the archives.
//!
//! A task that panics does not end its thread, so later tasks still run and nothing waits for a thread that is gone.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sluicegate_engine::EngineError;

use crate::compaction::merge;
use crate::panics::catch_panic;
use crate::store::Shared;

/// The delay after which batches committed with [`Durability::Process`](sluicegate_engine::Durability::Process) are synced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The background threads. Dropping this runs the tasks that are still queued and waits for both threads.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    disk: Worker<DiskTask>,
    archivist: Worker<Merge>,
    /// Disconnected once the last merge has ended, however it ended.
    merge_end: Option<Receiver<Infallible>>,
}

enum DiskTask {
    /// Sync the files queued for syncing.
    Sync,
    /// Sync everything written until [`SYNC_INTERVAL`] from now.
    SyncSoon,
    /// Prepare a blank segment of this many bytes.
    Prepare(u64),
}

struct Merge {
    last_segment: u64,
    below: u64,
    /// Dropped with the request: when the merge returns, when it panics, and when it cannot be started.
    _end: Sender<Infallible>,
}

impl Workers {
    pub fn start(shared: &Arc<Shared>) -> Result<Self, EngineError> {
        let disk = {
            let shared = shared.clone();
            Worker::start("store-disk", move |tasks| run_disk_tasks(&shared, &tasks))?
        };
        let archivist = {
            let shared = shared.clone();
            Worker::start("store-archive", move |merges| {
                for Merge { last_segment, below, _end } in merges {
                    merge(&shared, last_segment, below);
                }
            })?
        };
        Ok(Self { shared: shared.clone(), disk, archivist, merge_end: None })
    }

    pub fn sync(&self) {
        self.disk.send(DiskTask::Sync);
    }

    /// Schedules a sync of everything written, unless one is scheduled already.
    pub fn sync_soon(&self) {
        if self.shared.ask_for_sync() {
            self.disk.send(DiskTask::SyncSoon);
        }
    }

    pub fn prepare(&self, length: u64) {
        self.disk.send(DiskTask::Prepare(length));
    }

    /// Starts a merge, unless one is running.
    pub fn archive(&mut self, last_segment: u64, below: u64) {
        let is_running =
            self.merge_end.as_ref().is_some_and(|end| matches!(end.try_recv(), Err(TryRecvError::Empty)));
        if !is_running {
            let (_end, merge_end) = mpsc::channel();
            self.merge_end = Some(merge_end);
            self.archivist.send(Merge { last_segment, below, _end });
        }
    }

    pub fn wait_for_archive(&mut self) {
        if let Some(end) = self.merge_end.take() {
            // Nothing is ever sent: this returns when the merge drops its end of the channel.
            let _ = end.recv();
        }
    }

    /// Makes a running merge end early.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
    }
}

fn run_disk_tasks(shared: &Shared, tasks: &Receiver<DiskTask>) {
    let mut sync_at: Option<Instant> = None;
    loop {
        let next = match sync_at {
            Some(at) => tasks.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(DiskTask::Sync) => sync_or_poison(shared, Shared::sync),
            Ok(DiskTask::SyncSoon) => sync_at = Some(Instant::now() + SYNC_INTERVAL),
            Ok(DiskTask::Prepare(length)) => {
                // A blank is only prepared to save time: without it, the commit that needs one makes it and reports the error.
                let _ = catch_panic(|| shared.prepare_blank(length));
            }
            Err(RecvTimeoutError::Timeout) => {
                sync_at = None;
                sync_or_poison(shared, Shared::sync_written);
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Runs a sync. A panic fails_engine the store, as a sync that fails does itself.
fn sync_or_poison(shared: &Shared, sync: impl FnOnce(&Shared) -> Result<(), EngineError>) {
    if let Err(panic) = catch_panic(|| sync(shared)) {
        shared.fail(&format!("syncing panicked: {panic}"));
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
            doing: "start a thread",
            source,
        })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
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
