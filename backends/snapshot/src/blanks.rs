//! Blank segments: synced files of zeros, prepared so that a commit need not wait for one when a segment is full.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sluicegate_engine::EngineError;

use crate::failure::lock;
use crate::files::{Folder, OpenFile, TEMPORARY_SUFFIX};

/// The maximum number of blanks that are kept ready.
const BLANKS_MAX: usize = 1;
/// The maximum length of a blank that is zeroed while a commit waits for it.
const ZEROED_IN_COMMIT_BYTES_MAX: u64 = 1 << 20;
/// Zeros are written in pieces of this size.
const ZEROS: &[u8] = &[0; 1 << 18];

/// The blank segments of a store.
pub(crate) struct BlankPool {
    folder: Folder,
    ready: Mutex<Vec<Blank>>,
    /// For names that are not in use.
    created: AtomicU64,
    recycles: AtomicBool,
}

/// A segment of zeros under a temporary name.
pub(crate) struct Blank {
    pub name: String,
    pub file: OpenFile,
    pub length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Content {
    /// Written zeros.
    Zeros,
    /// A hole that reads as zeros: created at once, but syncing batches in it is slower.
    Hole,
}

impl BlankPool {
    pub fn new(folder: Folder) -> Self {
        Self { folder, ready: Mutex::default(), created: AtomicU64::new(0), recycles: AtomicBool::new(true) }
    }

    /// Returns a blank of at least `length` bytes: one that is ready, or a new one.
    pub fn take(&self, length: u64) -> Result<Blank, EngineError> {
        {
            let mut ready = lock(&self.ready);
            if let Some(at) = ready.iter().position(|blank| blank.length >= length) {
                return Ok(ready.swap_remove(at));
            }
        }
        let content = if length <= ZEROED_IN_COMMIT_BYTES_MAX { Content::Zeros } else { Content::Hole };
        self.create(length, content)
    }

    /// Makes sure that a blank of at least `length` bytes is ready.
    pub fn prepare(&self, length: u64) -> Result<(), EngineError> {
        if lock(&self.ready).iter().any(|blank| blank.length >= length) {
            return Ok(());
        }
        let blank = self.create(length, Content::Zeros)?;
        self.add(blank)
    }

    /// Turns a segment that no longer counts into a blank, or removes it if none is needed. One that is not about as long as the next
    /// segments, of `segment_bytes` bytes, is not needed.
    pub fn recycle(&self, segment_name: &str, segment_bytes: u64) -> Result<(), EngineError> {
        let length = self.folder.open(segment_name)?.length()?;
        let has_length = (segment_bytes..=segment_bytes * 2).contains(&length);
        let is_needed = has_length && lock(&self.ready).len() < BLANKS_MAX;
        if !is_needed || !self.recycles.load(Ordering::Acquire) {
            return self.folder.remove(segment_name);
        }
        let name = self.new_name();
        self.folder.rename(segment_name, &name)?;
        let file = self.folder.open(&name)?;
        let blank = self.fill(Blank { name, file, length }, Content::Zeros)?;
        self.add(blank)
    }

    /// Makes [`BlankPool::recycle`] remove segments from now on.
    pub fn stop_recycling(&self) {
        self.recycles.store(false, Ordering::Release);
    }

    /// Removes the blanks that are ready.
    pub fn clear(&self) -> Result<(), EngineError> {
        lock(&self.ready).drain(..).try_for_each(|blank| self.folder.remove(&blank.name))
    }

    fn add(&self, blank: Blank) -> Result<(), EngineError> {
        let mut ready = lock(&self.ready);
        if ready.len() < BLANKS_MAX {
            ready.push(blank);
            return Ok(());
        }
        // Those that are ready may all be too short.
        let replaced = std::mem::replace(&mut ready[0], blank);
        self.folder.remove(&replaced.name)
    }

    fn create(&self, length: u64, content: Content) -> Result<Blank, EngineError> {
        let name = self.new_name();
        let file = self.folder.create(&name)?;
        self.fill(Blank { name, file, length }, content)
    }

    /// Gives the file its length and content, and syncs it. Removes it after an error, because a disk that is full needs the space.
    fn fill(&self, blank: Blank, content: Content) -> Result<Blank, EngineError> {
        match fill(&blank, content) {
            Ok(()) => Ok(blank),
            Err(error) => {
                // The error is the one to report.
                let _ = self.folder.remove(&blank.name);
                Err(error)
            }
        }
    }

    fn new_name(&self) -> String {
        format!("blank-{}{TEMPORARY_SUFFIX}", self.created.fetch_add(1, Ordering::Relaxed))
    }
}

fn fill(blank: &Blank, content: Content) -> Result<(), EngineError> {
    let mut at = match content {
        Content::Zeros => 0,
        Content::Hole => blank.length - 1,
    };
    while at < blank.length {
        let piece = &ZEROS[..ZEROS.len().min((blank.length - at) as usize)];
        blank.file.write_at(piece, at)?;
        at += piece.len() as u64;
    }
    blank.file.sync()
}
