//! The engine as its user sees it.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluicegate_engine::{Change, Commit, Durability, Engine, EngineError, Receipt, Restored, Sink, Stats};

use crate::Options;
use crate::bytes::random;
use crate::compaction::{Buffers, archive, log_bytes_max, merge, read_partition};
use crate::files::{Disk, Files, Folder};
use crate::log::replay::{Doubtful, Replay};
use crate::log::segment;
use crate::log::writer::{Tail, tidy};
use crate::manifest::Manifest;
use crate::parallel::for_each;
use crate::store::{Shared, locked};
use crate::workers::Workers;

/// A log this many times larger than it should be makes commits wait for the archives.
const LOG_PATIENCE: u64 = 4;
/// At a close, a log below this part of the archives is left as it is: it is read faster than they are written.
const LOG_LEFT: u64 = 16;
/// A buffer that a large batch needed is given back.
const BUFFER_BYTES_MAX: usize = 32 << 20;

/// A store in a folder of its own.
pub struct Snapshot {
    shared: Arc<Shared>,
    workers: Option<Workers>,
    /// What opening has read, for the first restore.
    replay: Option<Replay>,
    restored: bool,
    /// What of the log may not be on the disk.
    doubtful: Vec<Doubtful>,
    /// Whether the store had been closed, and what is to be said about how it was found.
    found: (bool, Vec<String>),
    sequence: u64,
    /// All frames of this run carry it.
    epoch: u64,
    tail: Option<Tail>,
    /// When the log was last folded into the archives because it was time to, or the store was opened.
    folded: Instant,
    frame: Vec<u8>,
    /// Until the first restore, how long the opening took.
    restore_seconds: f64,
}

impl Snapshot {
    /// Opens a store, or makes a new one when the first batch comes. Reads the log, writes nothing.
    ///
    /// # Errors
    /// Another process has it, it cannot be read, or it was written by a later version.
    pub fn open(folder: &Path, options: Options) -> Result<Self, EngineError> {
        Self::on(Arc::new(Disk::open(folder)?), options)
    }

    pub(crate) fn on(files: Arc<dyn Files>, options: Options) -> Result<Self, EngineError> {
        let started = Instant::now();
        let folder = Folder::new(files);
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (manifest, replay) = match Manifest::read(&folder)? {
            Some(manifest) => {
                let replay = Replay::read(&folder, &manifest, threads)?;
                (manifest, Some(replay))
            }
            None => (Manifest { closed: true, ..Manifest::empty(options.partitions) }, None),
        };
        let closed = manifest.closed;
        let doubtful = replay.as_ref().map_or(Vec::new(), |replay| replay.doubtful.clone());
        let (sequence, synced, log_bytes, warnings) = replay
            .as_ref()
            .map_or((0, 0, 0, Vec::new()), |r| (r.last, r.synced, r.bytes, r.warnings.clone()));
        let shared = Arc::new(Shared::new(folder, options, manifest, synced, log_bytes));
        Ok(Self {
            workers: if options.background { Some(Workers::start(&shared)?) } else { None },
            shared,
            replay,
            restored: false,
            doubtful,
            found: (closed, warnings),
            sequence,
            epoch: random(),
            tail: None,
            folded: started,
            frame: Vec::new(),
            restore_seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// After this, batches can be appended.
    fn make_room(&mut self, frame_bytes: usize) -> Result<(), EngineError> {
        let first = self.sequence + 1;
        let Some(tail) = &self.tail else {
            tidy(&self.shared)?;
            self.write_doubtful()?;
            self.tail = Some(Tail::begin(&self.shared, None, self.epoch, first, frame_bytes)?);
            return Ok(());
        };
        if tail.has_room(frame_bytes) {
            return Ok(());
        }
        self.begin_next(frame_bytes)?;
        self.after_a_segment(first)
    }

    /// Leaves the segment that is written for a new one.
    fn begin_next(&mut self, frame_bytes: usize) -> Result<(), EngineError> {
        let Some(tail) = &self.tail else { return Ok(()) };
        self.shared.leave_unsynced(tail.handle.clone(), self.sequence);
        self.tail = Some(Tail::begin(&self.shared, Some(tail), self.epoch, self.sequence + 1, frame_bytes)?);
        Ok(())
    }

    /// Folds all of the log into the archives, behind the scenes.
    fn fold(&mut self) -> Result<(), EngineError> {
        match &self.tail {
            Some(_) => self.begin_next(0)?,
            // What an earlier run has left.
            None => self.make_room(0)?,
        }
        // What opening has read would be out of date.
        self.replay = None;
        if let (Some(workers), Some(tail)) = (&mut self.workers, &self.tail) {
            workers.sync();
            workers.archive(tail.number - 1, self.sequence + 1);
        }
        Ok(())
    }

    /// Writes again what an earlier run may not have brought to the disk. Syncing it would not do: after an error of a sync the
    /// operating system takes what it could not write for written.
    fn write_doubtful(&mut self) -> Result<(), EngineError> {
        for Doubtful { segment, bytes: range, last } in std::mem::take(&mut self.doubtful) {
            let handle = self.shared.folder.open(&segment::name(segment))?;
            let mut bytes = vec![0; range.len()];
            handle.read_at(&mut bytes, range.start as u64)?;
            handle.write_at(&bytes, range.start as u64)?;
            self.shared.leave_unsynced(handle, last);
        }
        Ok(())
    }

    /// Syncs the segment that is full now, and merges the log if it has grown. `below` is the first batch of the new one.
    fn after_a_segment(&mut self, below: u64) -> Result<(), EngineError> {
        let full = self.tail.as_ref().map_or(0, |tail| tail.number - 1);
        let (log_bytes, log_bytes_max) =
            (self.shared.log_bytes.load(Ordering::Acquire), log_bytes_max(&self.shared));
        match &mut self.workers {
            None => {
                self.shared.sync()?;
                if log_bytes > log_bytes_max {
                    merge(&self.shared, full, below);
                }
            }
            Some(workers) => {
                workers.sync();
                if log_bytes > log_bytes_max {
                    workers.archive(full, below);
                }
                if log_bytes > log_bytes_max * LOG_PATIENCE {
                    workers.wait_for_archive();
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, durability: Durability) -> Result<(), EngineError> {
        self.make_room(self.frame.len())?;
        let Some(tail) = &mut self.tail else { return Err(EngineError::NotRestored) };
        tail.append(&self.frame)?;
        self.sequence += 1;
        self.shared.set_written(self.sequence);
        self.shared.log_bytes.fetch_add(self.frame.len() as u64, Ordering::AcqRel);
        if durability == Durability::Disk {
            self.shared.leave_unsynced(tail.handle.clone(), self.sequence);
            self.shared.sync()?;
        }
        let Some(workers) = &self.workers else { return Ok(()) };
        if let Some(length) = tail.wants_next(&self.shared) {
            workers.prepare(length);
        }
        if durability == Durability::Process {
            workers.sync_soon();
        }
        Ok(())
    }
}

impl Engine for Snapshot {
    fn restore(&mut self, threads: NonZeroUsize, sink: Sink<'_>) -> Result<Restored, EngineError> {
        let started = Instant::now();
        // Nobody may take archives away while they are read.
        let _alone = locked(&self.shared.archiving);
        let manifest = self.shared.manifest();
        let folder = &self.shared.folder;
        let exists = manifest.log_last >= manifest.log_first || manifest.sequence > 0;
        let replay = match self.replay.take() {
            Some(replay) => Some(replay),
            None if exists => Some(Replay::read(folder, &manifest, threads)?),
            None => None,
        };
        let (records, record_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        if let Some(replay) = &replay {
            for_each(manifest.archives.len(), threads, |partition, buffers: &mut Buffers| {
                let (mut count, mut bytes) = (0, 0);
                let each = |key: &str, record: &[u8]| {
                    count += 1;
                    bytes += (key.len() + record.len()) as u64;
                    sink(key, record);
                };
                read_partition(folder, &manifest, replay, partition, buffers, each)?;
                records.fetch_add(count, Ordering::Relaxed);
                record_bytes.fetch_add(bytes, Ordering::Relaxed);
                Ok::<_, EngineError>(())
            })?;
        }
        // The first begins with the opening.
        let before = if self.restored { 0.0 } else { self.restore_seconds };
        self.restore_seconds = before + started.elapsed().as_secs_f64();
        self.restored = true;
        let (closed, warnings) = self.found.clone();
        Ok(Restored {
            records: records.into_inner(),
            record_bytes: record_bytes.into_inner(),
            sequence: self.sequence,
            closed,
            warnings,
        })
    }

    fn commit(&mut self, batch: &[Change<'_>], durability: Durability) -> Result<Commit, EngineError> {
        if !self.restored {
            return Err(EngineError::NotRestored);
        }
        self.shared.refuse_if_failed()?;
        let synced = self.shared.synced.load(Ordering::Acquire);
        segment::frame(&mut self.frame, batch, self.sequence + 1, synced, self.epoch)?;
        // What opening has read would be out of date.
        self.replay = None;
        let appended = self.append(durability);
        if self.frame.capacity() > BUFFER_BYTES_MAX {
            self.frame = Vec::new();
        }
        match appended {
            Ok(()) => Ok(Commit::Kept(Receipt { sequence: self.sequence })),
            Err(error) => {
                self.shared.fail(&error);
                Err(error)
            }
        }
    }

    fn maintain(&mut self) -> Result<(), EngineError> {
        let Some(interval) = self.shared.options.archive_interval else { return Ok(()) };
        let is_due = self.restored && self.folded.elapsed() >= interval;
        if !is_due || self.shared.log_bytes.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        self.shared.refuse_if_failed()?;
        self.folded = Instant::now();
        self.fold().inspect_err(|error| self.shared.fail(error))
    }

    fn stats(&self) -> Stats {
        let (archive_bytes, archived) =
            self.shared.with_manifest(|manifest| (manifest.archive_bytes(), manifest.archived_unix_seconds));
        let archived = (archived > 0).then(|| UNIX_EPOCH + Duration::from_secs(archived));
        Stats {
            log_bytes: Some(self.shared.log_bytes.load(Ordering::Acquire)),
            archive_bytes,
            archive_age_seconds: archived
                .map(|at| SystemTime::now().duration_since(at).unwrap_or_default().as_secs_f64()),
            restore_seconds: self.restore_seconds,
            sequence: self.sequence,
            sequence_on_disk: self.shared.synced.load(Ordering::Acquire).min(self.sequence),
            background_error: locked(&self.shared.background_error).clone(),
        }
    }

    fn close(mut self: Box<Self>) -> Result<(), EngineError> {
        // What is begun behind the scenes is finished, so that only this thread goes on.
        self.workers = None;
        self.shared.refuse_if_failed()?;
        let manifest = self.shared.manifest();
        if !self.restored || (manifest.closed && self.tail.is_none()) {
            return Ok(());
        }
        match &self.tail {
            Some(tail) => self.shared.leave_unsynced(tail.handle.clone(), self.sequence),
            None => {
                tidy(&self.shared)?;
                self.write_doubtful()?;
            }
        }
        self.shared.sync()?;
        let log_bytes = self.shared.log_bytes.load(Ordering::Acquire);
        // They would only be in the way of the next start.
        self.shared.drop_blanks()?;
        if log_bytes > manifest.archive_bytes() / LOG_LEFT {
            archive(&self.shared, manifest.log_last, self.sequence + 1)?;
        }
        self.shared.publish(|manifest| manifest.closed = true)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Some(workers) = &self.workers {
            workers.stop();
        }
        self.workers = None;
    }
}
