//! Compaction: merging the log into the archives. It writes new archives for the partitions that changed, then a manifest that
//! lists them, and then removes the old files. A crash in between leaves the old state or the new one.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use sluicegate_engine::EngineError;

use crate::archive::{self, ArchiveEntry, ArchiveId, Records};
use crate::failure::{catch_panic, lock};
use crate::log::replay::{LogPart, Replay};
use crate::log::segment;
use crate::manifest::Manifest;
use crate::partition::{Buffers, PartitionReader};
use crate::store::{BackgroundError, Store};

/// The part of the log to merge: from its beginning to a segment to which nothing more is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compaction {
    pub last_segment: u64,
    /// The part contains the batches below this number.
    pub sequence_end: u64,
}

impl Compaction {
    /// Compacts in the background: an error or a panic is reported as the engine's background error. The log keeps the data,
    /// and the next compaction starts over.
    pub fn run_in_background(self, store: &Store) {
        let failed = |message, is_panic| Some(BackgroundError { message, is_panic });
        let error = match catch_panic(|| self.run(store)) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => failed(format!("compacting the log failed: {error}"), false),
            Err(panic) => failed(format!("compacting the log panicked: {panic}"), true),
        };
        if error.is_some() {
            let _exclusive = lock(&store.archives_in_use);
            // The error of the compaction is the one to report.
            let _ = catch_panic(|| store.remove_unlisted_archives());
        }
        *lock(&store.background_error) = error;
    }

    /// Compacts. Returns early, without an error, if the store is stopping.
    pub fn run(self, store: &Store) -> Result<(), EngineError> {
        let _exclusive = lock(&store.archives_in_use);
        let old = store.manifest();
        if self.last_segment < old.first_segment {
            return Ok(());
        }
        let replay = self.read_log(store, &old)?;
        let Some(archives) = write_archives(store, &old, &replay)? else { return Ok(()) };
        store.folder.sync()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        store.update_manifest(|manifest| {
            manifest.archives = archives;
            manifest.archived = replay.last_sequence;
            manifest.first_segment = self.last_segment + 1;
            manifest.archived_unix_seconds = now.as_secs();
        })?;
        store.log_bytes.fetch_sub(replay.bytes, Ordering::AcqRel);
        self.remove_merged_files(store, &old)
    }

    fn read_log(self, store: &Store, manifest: &Manifest) -> Result<Replay, EngineError> {
        let part =
            LogPart { segments: manifest.first_segment..=self.last_segment, sequence_end: self.sequence_end };
        let replay = Replay::read_part(&store.folder, manifest, &part, NonZeroUsize::MIN)?;
        if replay.last_sequence + 1 != self.sequence_end {
            let what = format!("batch {} can no longer be read", replay.last_sequence + 1);
            return Err(store.folder.damaged(&segment::file_name(self.last_segment), &what));
        }
        Ok(replay)
    }

    /// Removes or recycles the files that only the old manifest lists.
    fn remove_merged_files(self, store: &Store, old: &Manifest) -> Result<(), EngineError> {
        let current: Vec<ArchiveId> = store.with_manifest(|manifest| manifest.archive_ids().collect());
        for id in old.archive_ids().filter(|id| !current.contains(id)) {
            store.folder.remove(&id.file_name())?;
        }
        for number in old.first_segment..=self.last_segment {
            store.blanks.recycle(&segment::file_name(number), store.segment_bytes_max())?;
        }
        Ok(())
    }
}

/// Writes the archives of the partitions that changed. Returns the entries of all, or `None` if the store is stopping.
fn write_archives(
    store: &Store,
    old: &Manifest,
    replay: &Replay,
) -> Result<Option<Vec<ArchiveEntry>>, EngineError> {
    let reader = PartitionReader { folder: &store.folder, manifest: old, replay };
    let mut entries = old.archives.clone();
    let (mut records, mut buffers) = (Records::default(), Buffers::default());
    for (partition, entry) in entries.iter_mut().enumerate() {
        if store.stopping.load(Ordering::Acquire) {
            return Ok(None);
        }
        if !reader.is_changed(partition) {
            continue;
        }
        records.clear();
        let read = reader.read(partition, &mut buffers, |key, record| {
            records.push(key, record);
            ControlFlow::Continue(())
        })?;
        debug_assert!(read.is_continue());
        *entry = if records.is_empty() {
            ArchiveEntry::default()
        } else {
            let id = ArchiveId { store_id: old.store_id, partition, generation: replay.last_sequence };
            archive::write(&store.folder, id, &records)?
        };
    }
    Ok(Some(entries))
}
