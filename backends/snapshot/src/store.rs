//! What the thread that commits shares with those that work behind it: the manifest, what is not synced yet, blank segments.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use sluicegate_engine::EngineError;

use crate::Options;
use crate::files::{ASIDE, Folder, Handle};
use crate::manifest::Manifest;

/// Blank segments that are kept ready.
const BLANKS_MAX: usize = 2;
/// A larger blank is not zeroed while a batch waits for it.
const ZEROED_AT_ONCE_BYTES_MAX: u64 = 1 << 20;
/// Zeros are written in pieces.
const ZEROS: &[u8] = &[0; 1 << 18];

pub(crate) struct Shared {
    pub folder: Folder,
    pub options: Options,
    manifest: Mutex<Manifest>,
    /// Held while archives are written or read.
    pub archiving: Mutex<()>,
    /// Batches up to this one are on the disk.
    pub synced: AtomicU64,
    /// Bytes in the log that are not in the archives.
    pub log_bytes: AtomicU64,
    /// Work behind the scenes shall end.
    pub stopping: AtomicBool,
    /// Segments that are not needed any more are removed.
    no_blanks: AtomicBool,
    /// What archiving ended with the last time, if it failed.
    pub background_error: Mutex<Option<String>>,
    failure: OnceLock<String>,
    /// Files with the number of the last batch in them, oldest first.
    unsynced: Mutex<VecDeque<(Handle, u64)>>,
    /// The segment that is written, and the last batch that is.
    tail: Mutex<Option<Handle>>,
    written: AtomicU64,
    /// A sync of these was asked for and has not begun.
    sync_asked: AtomicBool,
    syncing: Mutex<()>,
    blanks: Mutex<Vec<Blank>>,
    blanks_made: AtomicU64,
}

/// A segment of zeros, synced, under a name that means nothing.
pub(crate) struct Blank {
    pub name: String,
    pub handle: Handle,
    pub length: u64,
}

/// Locks. A thread that panicked with the lock has left whole values: they are replaced in one go.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(folder: Folder, options: Options, manifest: Manifest, synced: u64, log_bytes: u64) -> Self {
        Self {
            folder,
            options,
            manifest: Mutex::new(manifest),
            archiving: Mutex::default(),
            synced: AtomicU64::new(synced),
            log_bytes: AtomicU64::new(log_bytes),
            stopping: AtomicBool::new(false),
            no_blanks: AtomicBool::new(false),
            background_error: Mutex::default(),
            failure: OnceLock::new(),
            unsynced: Mutex::default(),
            tail: Mutex::default(),
            written: AtomicU64::new(0),
            sync_asked: AtomicBool::new(false),
            syncing: Mutex::default(),
            blanks: Mutex::default(),
            blanks_made: AtomicU64::new(0),
        }
    }

    pub fn manifest(&self) -> Manifest {
        locked(&self.manifest).clone()
    }

    /// Looks at the manifest without a copy.
    pub fn with_manifest<T>(&self, look: impl FnOnce(&Manifest) -> T) -> T {
        look(&locked(&self.manifest))
    }

    /// Changes the manifest, on disk first.
    pub fn publish(&self, change: impl FnOnce(&mut Manifest)) -> Result<(), EngineError> {
        let mut manifest = locked(&self.manifest);
        let mut next = manifest.clone();
        change(&mut next);
        next.synced = next.synced.max(self.synced.load(Ordering::Acquire));
        next.write(&self.folder)?;
        *manifest = next;
        Ok(())
    }

    /// Takes nothing more in.
    pub fn fail(&self, why: &impl ToString) {
        // The first reason is the one that helps.
        let _ = self.failure.set(why.to_string());
    }

    pub fn refuse_if_failed(&self) -> Result<(), EngineError> {
        match self.failure.get() {
            Some(why) => Err(EngineError::Failed { why: why.clone() }),
            None => Ok(()),
        }
    }

    /// Remembers that batches up to `last` are in a file that was not synced since.
    pub fn leave_unsynced(&self, handle: Handle, last: u64) {
        locked(&self.unsynced).push_back((handle, last));
    }

    /// From now on batches are written into this file.
    pub fn set_tail(&self, handle: Handle) {
        *locked(&self.tail) = Some(handle);
    }

    /// A batch is written.
    pub fn set_written(&self, last: u64) {
        self.written.store(last, Ordering::Release);
    }

    /// Whether this is the first to ask for a sync of what is written.
    pub fn ask_for_sync(&self) -> bool {
        !self.sync_asked.swap(true, Ordering::AcqRel)
    }

    /// Syncs what was written until now.
    pub fn sync_written(&self) -> Result<(), EngineError> {
        // In this order: who writes from here on asks again, and a batch is in this file or in one that is left behind already.
        self.sync_asked.store(false, Ordering::Release);
        let last = self.written.load(Ordering::Acquire);
        if let Some(handle) = locked(&self.tail).clone() {
            self.leave_unsynced(handle, last);
        }
        self.sync()
    }

    /// Syncs all that is not, oldest first. One thread at a time: the operating system tells a failure only once.
    pub fn sync(&self) -> Result<(), EngineError> {
        let _one_at_a_time = locked(&self.syncing);
        self.refuse_if_failed()?;
        loop {
            let next = locked(&self.unsynced).front().cloned();
            let Some((handle, last)) = next else { return Ok(()) };
            if let Err(error) = handle.sync() {
                self.fail(&error);
                return Err(error);
            }
            self.synced.fetch_max(last, Ordering::AcqRel);
            locked(&self.unsynced).pop_front();
        }
    }

    /// A blank of at least that length: one that is ready, or a new one.
    pub fn take_blank(&self, length: u64) -> Result<Blank, EngineError> {
        let mut blanks = locked(&self.blanks);
        if let Some(at) = blanks.iter().position(|blank| blank.length >= length) {
            return Ok(blanks.swap_remove(at));
        }
        drop(blanks);
        self.make_blank(None, length, length <= ZEROED_AT_ONCE_BYTES_MAX)
    }

    /// Has a blank of that length ready for later.
    pub fn prepare_blank(&self, length: u64) -> Result<(), EngineError> {
        if locked(&self.blanks).iter().any(|blank| blank.length >= length) {
            return Ok(());
        }
        let blank = self.make_blank(None, length, true)?;
        self.keep_blank(blank)
    }

    /// Makes a blank of a segment that is not needed any more, or removes it if there are enough.
    pub fn recycle(&self, name: &str) -> Result<(), EngineError> {
        let length = self.folder.open(name)?.length()?;
        let enough = locked(&self.blanks).len() >= BLANKS_MAX || length < self.options.segment_bytes_max;
        if enough || self.stopping.load(Ordering::Acquire) || self.no_blanks.load(Ordering::Acquire) {
            return self.folder.remove(name);
        }
        let blank = self.make_blank(Some(name), length, true)?;
        self.keep_blank(blank)
    }

    /// From now on no blanks are made of old segments, and those that were made go.
    pub fn drop_blanks(&self) -> Result<(), EngineError> {
        self.no_blanks.store(true, Ordering::Release);
        locked(&self.blanks).drain(..).try_for_each(|blank| self.folder.remove(&blank.name))
    }

    fn keep_blank(&self, blank: Blank) -> Result<(), EngineError> {
        let mut blanks = locked(&self.blanks);
        if blanks.len() < BLANKS_MAX {
            blanks.push(blank);
            return Ok(());
        }
        // One of another length may be in the way of one that is needed.
        let out = std::mem::replace(&mut blanks[0], blank);
        self.folder.remove(&out.name)
    }

    /// One that is not zeroed is a hole that reads as zeros: made at once, but synced slower when batches are in it.
    fn make_blank(&self, from: Option<&str>, length: u64, zeroed: bool) -> Result<Blank, EngineError> {
        let name = format!("blank-{}{ASIDE}", self.blanks_made.fetch_add(1, Ordering::Relaxed));
        let handle = match from {
            Some(from) => {
                self.folder.rename(from, &name)?;
                self.folder.open(&name)?
            }
            None => self.folder.create(&name)?,
        };
        let mut at = if zeroed { 0 } else { length - 1 };
        while at < length {
            let piece = &ZEROS[..ZEROS.len().min((length - at) as usize)];
            handle.write_at(piece, at)?;
            at += piece.len() as u64;
        }
        handle.sync()?;
        Ok(Blank { name, handle, length })
    }
}
