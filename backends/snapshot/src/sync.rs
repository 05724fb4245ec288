//! Syncing: the number of the last batch on the disk, and the files to sync before it can rise.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sluicegate_engine::EngineError;

use crate::failure::{Failure, lock};
use crate::files::OpenFile;

/// The files of a log that were written and not yet synced.
pub(crate) struct SyncQueue {
    /// Batches up to this one are on the disk.
    synced: AtomicU64,
    /// Oldest first.
    queue: Mutex<VecDeque<UnsyncedFile>>,
    /// The segment that is being written.
    current: Mutex<Option<OpenFile>>,
    /// Batches up to this one are written.
    written: AtomicU64,
    /// Whether a sync of everything written is scheduled and has not begun.
    scheduled: AtomicBool,
    syncing: Mutex<()>,
}

#[derive(Clone)]
struct UnsyncedFile {
    file: OpenFile,
    /// The number of the last batch in the file.
    last_sequence: u64,
}

impl SyncQueue {
    /// An empty queue; batches up to `synced` are on the disk.
    pub fn new(synced: u64) -> Self {
        Self {
            synced: AtomicU64::new(synced),
            queue: Mutex::default(),
            current: Mutex::default(),
            written: AtomicU64::new(0),
            scheduled: AtomicBool::new(false),
            syncing: Mutex::default(),
        }
    }

    /// The number of the last batch on the disk.
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Adds a file that was written since its last sync and contains batches up to `last_sequence`.
    pub fn push(&self, file: OpenFile, last_sequence: u64) {
        lock(&self.queue).push_back(UnsyncedFile { file, last_sequence });
    }

    /// Sets the file to which batches are written from now on.
    pub fn set_current_file(&self, file: OpenFile) {
        *lock(&self.current) = Some(file);
    }

    /// Records that batches up to `last_sequence` are written.
    pub fn set_written(&self, last_sequence: u64) {
        self.written.store(last_sequence, Ordering::Release);
    }

    /// Marks a sync of everything written as scheduled. Returns false if one was scheduled already.
    pub fn schedule(&self) -> bool {
        !self.scheduled.swap(true, Ordering::AcqRel)
    }

    /// Syncs everything written so far.
    pub fn sync_written(&self, failure: &Failure) -> Result<(), EngineError> {
        // The order matters: a batch written after this store schedules another sync. One written before is in the current
        // file, or in a file that is already in the queue.
        self.scheduled.store(false, Ordering::Release);
        let last_sequence = self.written.load(Ordering::Acquire);
        if let Some(file) = lock(&self.current).clone() {
            self.push(file, last_sequence);
        }
        self.sync(failure)
    }

    /// Syncs the files in the queue, oldest first. An error fails the engine.
    ///
    /// One thread syncs at a time, because the operating system reports a failed write only to the first sync after it.
    pub fn sync(&self, failure: &Failure) -> Result<(), EngineError> {
        let _one_at_a_time = lock(&self.syncing);
        failure.check()?;
        loop {
            let next = lock(&self.queue).front().cloned();
            let Some(UnsyncedFile { file, last_sequence }) = next else { return Ok(()) };
            if let Err(error) = file.sync() {
                failure.set(&error);
                return Err(error);
            }
            self.synced.fetch_max(last_sequence, Ordering::AcqRel);
            lock(&self.queue).pop_front();
        }
    }
}
