//! The engine: opening, restoring, committing and closing a store.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluicegate_engine::{
    Change, Durability, Engine, EngineError, Groups, Receipt, Restored, Sink, Stats, UnreadStore,
};

use crate::Options;
use crate::compaction::Compaction;
use crate::failure::lock;
use crate::files::{Disk, FileSystem, Folder};
use crate::generation;
use crate::log::frame::{self, FrameHeader};
use crate::log::replay::{Replay, UnsyncedRange};
use crate::log::segment;
use crate::log::writer::{NewSegment, SegmentWriter};
use crate::manifest::Manifest;
use crate::parallel::map_indexes;
use crate::partition::{Buffers, PartitionReader};
use crate::random::random_id;
use crate::store::Store;
use crate::workers::Workers;

/// When the store is closed, a log smaller than this fraction of the archives is not compacted: reading it at the next start
/// takes less time than writing archives.
const CLOSE_LOG_FRACTION: u64 = 16;
/// A larger buffer is freed after the batch that needed it.
const BUFFER_BYTES_MAX: usize = 32 << 20;

/// A store in a folder of its own.
pub struct Snapshot {
    store: Arc<Store>,
    /// `None` if everything happens within commits.
    workers: Option<Workers>,
    /// The log as it was read when the store was opened. Used by the first read, dropped by the first commit.
    replay: Option<Replay>,
    found: FoundStore,
    /// The parts of the log that may not be on the disk.
    unsynced: Vec<UnsyncedRange>,
    /// The number of the last batch.
    sequence: u64,
    /// Identifies this run in the frames it writes.
    run_id: u64,
    /// Whether files that an earlier run did not finish are removed. Opening a store removes nothing.
    leftovers_removed: bool,
    /// `None` before the first commit.
    writer: Option<SegmentWriter>,
    /// When the last compaction by [`Options::compaction_interval`] began, or the store was opened.
    compacted_at: Instant,
    /// The frame of the current batch.
    frame: Vec<u8>,
    /// Duration of opening, until the first read includes it in its own.
    open_seconds: f64,
    /// Duration of the last read; before the first, of opening.
    restore_seconds: f64,
}

/// The state in which an earlier run left the store.
#[derive(Debug, Clone)]
struct FoundStore {
    closed: bool,
    warnings: Vec<String>,
}

impl Snapshot {
    /// Opens a store. Reads the log and writes nothing: the first commit creates a new store.
    ///
    /// # Errors
    /// Another process uses the store, it cannot be read, or a later version wrote it.
    pub fn open(folder: &Path, options: Options) -> Result<UnreadStore, EngineError> {
        Self::open_on(Arc::new(Disk::open(folder)?), options).map(UnreadStore::new)
    }

    /// Opens a store in files that may be simulated.
    pub(crate) fn open_on(files: Arc<dyn FileSystem>, options: Options) -> Result<Self, EngineError> {
        let started = Instant::now();
        let folder = Folder::new(files);
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (manifest, replay) = match Manifest::read(&folder)? {
            Some(manifest) => {
                let replay = Replay::read(&folder, &manifest, threads)?;
                (manifest, Some(replay))
            }
            None => (Manifest::new(options.partitions)?, None),
        };
        let mut found = FoundStore { closed: manifest.closed, warnings: Vec::new() };
        let (mut sequence, mut synced, mut log_bytes, mut unsynced) = (0, 0, 0, Vec::new());
        if let Some(replay) = &replay {
            found.warnings.clone_from(&replay.warnings);
            unsynced.clone_from(&replay.unsynced);
            (sequence, synced, log_bytes) = (replay.last_sequence, replay.synced, replay.bytes);
        }
        let open_seconds = started.elapsed().as_secs_f64();
        let store = Arc::new(Store::new(folder, options, manifest, synced, log_bytes));
        Ok(Self {
            workers: if options.background { Some(Workers::start(&store)?) } else { None },
            store,
            replay,
            found,
            unsynced,
            sequence,
            run_id: random_id()?,
            leftovers_removed: false,
            writer: None,
            compacted_at: started,
            frame: Vec::new(),
            open_seconds,
            restore_seconds: open_seconds,
        })
    }
}

/// Why reading ended early.
enum ReadEnd {
    /// The sink stopped it.
    Stopped,
    Failed(EngineError),
}

impl Engine for Snapshot {
    fn read(
        &mut self,
        threads: NonZeroUsize,
        sink: Sink<'_>,
    ) -> Result<ControlFlow<(), Restored>, EngineError> {
        let started = Instant::now();
        // A compaction would remove archives that are being read.
        let _exclusive = lock(&self.store.archives_in_use);
        let manifest = self.store.manifest();
        let folder = &self.store.folder;
        let replay = match self.replay.take() {
            Some(replay) => Some(replay),
            None if manifest.has_batches() => Some(Replay::read(folder, &manifest, threads)?),
            None => None,
        };
        let (records, record_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        if let Some(replay) = &replay {
            let reader = PartitionReader { folder, manifest: &manifest, replay };
            let read = map_indexes(manifest.archives.len(), threads, |partition, buffers: &mut Buffers| {
                let (mut count, mut bytes) = (0, 0);
                let read = reader.read(partition, buffers, |key, record| {
                    count += 1;
                    bytes += (key.len() + record.len()) as u64;
                    sink(key, record)
                });
                if read.map_err(ReadEnd::Failed)?.is_break() {
                    return Err(ReadEnd::Stopped);
                }
                records.fetch_add(count, Ordering::Relaxed);
                record_bytes.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            });
            match read {
                Ok(_) => {}
                Err(ReadEnd::Failed(error)) => return Err(error),
                Err(ReadEnd::Stopped) => return Ok(ControlFlow::Break(())),
            }
        }
        let open_seconds = std::mem::take(&mut self.open_seconds);
        self.restore_seconds = open_seconds + started.elapsed().as_secs_f64();
        let FoundStore { closed, warnings } = self.found.clone();
        Ok(ControlFlow::Continue(Restored {
            records: records.into_inner(),
            record_bytes: record_bytes.into_inner(),
            sequence: self.sequence,
            closed,
            warnings,
        }))
    }

    fn commit(&mut self, batch: &[Change<'_>], durability: Durability) -> Result<Receipt, EngineError> {
        self.store.failure.check()?;
        let header = FrameHeader {
            sequence: self.sequence + 1,
            synced: self.store.syncs.synced(),
            run_id: self.run_id,
        };
        frame::encode(&mut self.frame, batch, header)?;
        // The log is about to change.
        self.replay = None;
        let appended = self.append_frame(durability);
        if self.frame.capacity() > BUFFER_BYTES_MAX {
            self.frame = Vec::new();
        }
        match appended {
            Ok(()) => Ok(Receipt { sequence: self.sequence }),
            Err(error) => {
                self.store.failure.set(&error);
                Err(error)
            }
        }
    }

    fn start_anew(&mut self, groups: &mut dyn Groups) -> Result<Receipt, EngineError> {
        self.store.failure.set(&"a new generation of files is being written");
        self.store.stop();
        // Finishes what the threads are doing, so that only this thread uses the store from here on.
        self.workers = None;
        (self.replay, self.writer, self.unsynced) = (None, None, Vec::new());
        let manifest = generation::write(&self.store, self.sequence, groups)?;
        let (sequence, options) = (manifest.archived, self.store.options);
        let folder = self.store.folder.clone();
        self.sequence = sequence;
        let store = Arc::new(Store::new(folder, options, manifest, sequence, 0));
        if options.background {
            self.workers = Some(Workers::start(&store)?);
        }
        self.run_id = random_id()?;
        self.store = store;
        self.found = FoundStore { closed: false, warnings: Vec::new() };
        // The first commit removes the old generation.
        self.leftovers_removed = false;
        self.compacted_at = Instant::now();
        Ok(Receipt { sequence })
    }

    fn maintain(&mut self) -> Result<(), EngineError> {
        self.store.failure.check()?;
        self.check_parts().inspect_err(|error| self.store.failure.set(error))?;
        self.remove_leftovers()?;
        let Some(interval) = self.store.options.compaction_interval else { return Ok(()) };
        let is_due = self.compacted_at.elapsed() >= interval;
        if !is_due || self.store.log_bytes.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        self.compacted_at = Instant::now();
        self.compact_whole_log().inspect_err(|error| self.store.failure.set(error))
    }

    fn stats(&self) -> Stats {
        let (archive_bytes, archived_unix_seconds) =
            self.store.with_manifest(|manifest| (manifest.archive_bytes(), manifest.archived_unix_seconds));
        let age_seconds = |unix_seconds| {
            let written = UNIX_EPOCH + Duration::from_secs(unix_seconds);
            SystemTime::now().duration_since(written).unwrap_or_default().as_secs_f64()
        };
        let background_error = lock(&self.store.background_error).clone();
        Stats {
            log_bytes: Some(self.store.log_bytes.load(Ordering::Acquire)),
            archive_bytes,
            archive_age_seconds: (archived_unix_seconds > 0).then(|| age_seconds(archived_unix_seconds)),
            restore_seconds: self.restore_seconds,
            sequence: self.sequence,
            sequence_on_disk: self.store.syncs.synced().min(self.sequence),
            background_panic: background_error.as_ref().is_some_and(|error| error.is_panic),
            background_error: background_error.map(|error| error.message),
        }
    }

    fn close(mut self: Box<Self>) -> Result<(), EngineError> {
        // Finishes the queued tasks, so that only this thread uses the store from here on.
        self.workers = None;
        self.store.failure.check()?;
        self.remove_leftovers()?;
        let manifest = self.store.manifest();
        if manifest.closed && self.writer.is_none() {
            return Ok(());
        }
        match &self.writer {
            Some(writer) => self.store.syncs.push(writer.file.clone(), self.sequence),
            None => {
                self.store.remove_stale_files()?;
                self.rewrite_unsynced()?;
            }
        }
        self.store.sync()?;
        let log_bytes = self.store.log_bytes.load(Ordering::Acquire);
        // The next start would remove the blanks.
        self.store.blanks.stop_recycling();
        self.store.blanks.clear()?;
        if log_bytes > manifest.archive_bytes() / CLOSE_LOG_FRACTION {
            let whole_log =
                Compaction { last_segment: manifest.last_segment, sequence_end: self.sequence + 1 };
            whole_log.run(&self.store)?;
        }
        self.store.update_manifest(|manifest| manifest.closed = true)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if self.workers.is_some() {
            self.store.stop();
        }
        self.workers = None;
    }
}

impl Snapshot {
    /// Writes `self.frame` to the log, as durably as asked.
    fn append_frame(&mut self, durability: Durability) -> Result<(), EngineError> {
        self.ensure_space(self.frame.len())?;
        let writer = self.writer.as_mut().expect("ensure_space has begun a segment");
        writer.append(&self.frame)?;
        self.sequence += 1;
        self.store.syncs.set_written(self.sequence);
        self.store.log_bytes.fetch_add(self.frame.len() as u64, Ordering::AcqRel);
        if durability == Durability::Disk {
            self.store.syncs.push(writer.file.clone(), self.sequence);
            self.store.sync()?;
            // A sync of deleted files succeeds.
            self.store.folder.check()?;
        }
        let Some(workers) = &self.workers else { return Ok(()) };
        if let Some(length) = writer.request_next(&self.store) {
            workers.prepare_blank(length);
        }
        if durability == Durability::Process {
            workers.sync_later();
        }
        Ok(())
    }

    /// Removes what an earlier run did not finish, unless a commit has done so.
    fn remove_leftovers(&mut self) -> Result<(), EngineError> {
        if !self.leftovers_removed && self.writer.is_none() {
            self.store.remove_temporary_files()?;
        }
        self.leftovers_removed = true;
        Ok(())
    }

    /// Checks what commits rely on: the files of the store and the background threads.
    fn check_parts(&self) -> Result<(), EngineError> {
        self.store.check_files()?;
        if self.workers.as_ref().is_some_and(|workers| !workers.are_running()) {
            return Err(EngineError::Failed {
                why: "a background thread of the engine has ended".to_owned(),
            });
        }
        Ok(())
    }

    /// Makes sure that there is a segment with space for a frame.
    fn ensure_space(&mut self, frame_bytes: usize) -> Result<(), EngineError> {
        let Some(writer) = &self.writer else {
            self.store.remove_stale_files()?;
            self.rewrite_unsynced()?;
            return self.begin_segment(frame_bytes);
        };
        if writer.has_space(frame_bytes) {
            return Ok(());
        }
        self.begin_segment(frame_bytes)?;
        self.sync_and_compact()
    }

    /// Continues the log in a new segment.
    fn begin_segment(&mut self, frame_bytes: usize) -> Result<(), EngineError> {
        if let Some(writer) = &self.writer {
            self.store.syncs.push(writer.file.clone(), self.sequence);
        }
        let new = NewSegment { run_id: self.run_id, first_sequence: self.sequence + 1, frame_bytes };
        self.writer = Some(SegmentWriter::create(&self.store, self.writer.as_ref(), new)?);
        Ok(())
    }

    /// Writes the parts of the log again that an earlier run may not have synced. Syncing them would not be enough: after a
    /// failed sync, the operating system regards what it could not write as written.
    fn rewrite_unsynced(&mut self) -> Result<(), EngineError> {
        for range in std::mem::take(&mut self.unsynced) {
            let file = self.store.folder.open(&segment::file_name(range.segment))?;
            let mut bytes = vec![0; range.bytes.len()];
            let start = range.bytes.start as u64;
            file.read_at(&mut bytes, start)?;
            file.write_at(&bytes, start)?;
            self.store.syncs.push(file, range.last_sequence);
        }
        Ok(())
    }

    /// Syncs the segments before the current one, and compacts them if the log is too large.
    fn sync_and_compact(&mut self) -> Result<(), EngineError> {
        let compaction = self.all_before_current_segment();
        let log_bytes = self.store.log_bytes.load(Ordering::Acquire);
        let log_bytes_max = self.store.log_bytes_max();
        let Some(workers) = &mut self.workers else {
            self.store.sync()?;
            if log_bytes > log_bytes_max {
                compaction.run_in_background(&self.store);
            }
            return Ok(());
        };
        workers.sync();
        if log_bytes > log_bytes_max {
            workers.compact(compaction);
        }
        if log_bytes > self.store.log_bytes_limit() {
            workers.wait_for_compaction();
        }
        Ok(())
    }

    /// Starts a compaction of the whole log, including that of an earlier run.
    fn compact_whole_log(&mut self) -> Result<(), EngineError> {
        if self.writer.is_some() {
            self.begin_segment(0)?;
        } else {
            self.ensure_space(0)?;
        }
        // The log is about to change.
        self.replay = None;
        let compaction = self.all_before_current_segment();
        if let Some(workers) = &mut self.workers {
            workers.sync();
            workers.compact(compaction);
        }
        Ok(())
    }

    /// The compaction of everything before the current segment, in which no batch has been written yet.
    fn all_before_current_segment(&self) -> Compaction {
        let current = self.writer.as_ref().map_or(1, |writer| writer.number);
        Compaction { last_segment: current - 1, sequence_end: self.sequence + 1 }
    }
}
