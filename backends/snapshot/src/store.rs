//! The open store, shared by the thread that commits and the background threads.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sluicegate_engine::EngineError;

use crate::Options;
use crate::archive;
use crate::blanks::BlankPool;
use crate::failure::{Failure, lock};
use crate::files::{Folder, TEMPORARY_SUFFIX};
use crate::log::segment;
use crate::manifest::{self, Manifest};
use crate::sync::SyncQueue;

/// Why background work failed.
#[derive(Debug, Clone)]
pub(crate) struct BackgroundError {
    pub message: String,
    pub is_panic: bool,
}

pub(crate) struct Store {
    pub folder: Folder,
    pub options: Options,
    manifest: Mutex<Manifest>,
    pub syncs: SyncQueue,
    pub blanks: BlankPool,
    pub failure: Failure,
    /// Locked while archives are written or read.
    pub archives_in_use: Mutex<()>,
    /// The size of the log: bytes of frames that are not in the archives.
    pub log_bytes: AtomicU64,
    /// Makes a running compaction end early.
    pub stopping: AtomicBool,
    /// The error of the last compaction, if it failed.
    pub background_error: Mutex<Option<BackgroundError>>,
}

impl Store {
    /// A store of which batches up to `synced` are on the disk, with a log of `log_bytes` bytes.
    pub fn new(folder: Folder, options: Options, manifest: Manifest, synced: u64, log_bytes: u64) -> Self {
        Self {
            blanks: BlankPool::new(folder.clone()),
            folder,
            options,
            manifest: Mutex::new(manifest),
            syncs: SyncQueue::new(synced),
            failure: Failure::default(),
            archives_in_use: Mutex::default(),
            log_bytes: AtomicU64::new(log_bytes),
            stopping: AtomicBool::new(false),
            background_error: Mutex::default(),
        }
    }

    /// A copy of the manifest.
    pub fn manifest(&self) -> Manifest {
        lock(&self.manifest).clone()
    }

    /// Reads from the manifest without copying it.
    pub fn with_manifest<T>(&self, read: impl FnOnce(&Manifest) -> T) -> T {
        read(&lock(&self.manifest))
    }

    /// Changes the manifest on disk and then in memory.
    pub fn update_manifest(&self, change: impl FnOnce(&mut Manifest)) -> Result<(), EngineError> {
        let mut manifest = lock(&self.manifest);
        let mut next = manifest.clone();
        change(&mut next);
        next.synced = next.synced.max(self.syncs.synced());
        next.write(&self.folder)?;
        *manifest = next;
        Ok(())
    }

    /// Syncs the files in the queue. An error fails the engine.
    pub fn sync(&self) -> Result<(), EngineError> {
        self.syncs.sync(&self.failure)
    }

    /// Syncs everything written so far. An error fails the engine.
    pub fn sync_written(&self) -> Result<(), EngineError> {
        self.syncs.sync_written(&self.failure)
    }

    /// The size at which the log is compacted, see [`Options::log_bytes`].
    pub fn log_bytes_max(&self) -> u64 {
        let usual = self.options.log_bytes;
        let archives = self.with_manifest(Manifest::archive_bytes);
        let of_small_store = archives.saturating_mul(4).clamp(usual / 4, usual);
        of_small_store.max((archives / 4).min(usual * 4))
    }

    /// The size of the log at which commits wait for a running compaction.
    pub fn log_bytes_limit(&self) -> u64 {
        self.log_bytes_max().max(self.options.log_bytes) * 4
    }

    /// The length at which segments stop growing, see [`Options::segment_bytes_max`].
    pub fn segment_bytes_max(&self) -> u64 {
        let Options { segment_bytes_min, segment_bytes_max, .. } = self.options;
        (self.log_bytes_max() / 4).min(segment_bytes_max).max(segment_bytes_min)
    }

    /// Removes files that an earlier run did not finish. Nothing may be in progress.
    pub fn remove_temporary_files(&self) -> Result<(), EngineError> {
        let names = self.folder.names()?.into_iter();
        names.filter(|name| name.ends_with(TEMPORARY_SUFFIX)).try_for_each(|name| self.folder.remove(&name))
    }

    /// Removes the archives that a failed compaction or generation has written. Otherwise each attempt on a full disk would need more
    /// space. Nothing may write archives meanwhile.
    pub fn remove_unlisted_archives(&self) -> Result<(), EngineError> {
        let mut listed: Vec<String> =
            self.with_manifest(|manifest| manifest.archive_ids().map(|id| id.file_name()).collect());
        // If replacing the manifest failed at its end, the one in the folder is the new one.
        if let Some(on_disk) = Manifest::read(&self.folder)? {
            listed.extend(on_disk.archive_ids().map(|id| id.file_name()));
        }
        let names = self.folder.names()?.into_iter();
        let is_unlisted = |name: &String| {
            archive::is_archive(name.trim_end_matches(TEMPORARY_SUFFIX)) && !listed.contains(name)
        };
        names.filter(is_unlisted).try_for_each(|name| self.folder.remove(&name))
    }

    /// Removes the files that do not count, which an earlier run may have left. Needed before the first write after a start.
    pub fn remove_stale_files(&self) -> Result<(), EngineError> {
        // The manifest may be new, or an error may have kept it from the disk. It must be durable before files are removed.
        self.update_manifest(|_| {})?;
        let manifest = self.manifest();
        let archives: Vec<String> = manifest.archive_ids().map(|id| id.file_name()).collect();
        for name in self.folder.names()? {
            let is_stale_segment =
                segment::number_in(&name).is_some_and(|number| !manifest.segments().contains(&number));
            let is_stale_archive = archive::is_archive(&name) && !archives.contains(&name);
            if name.ends_with(TEMPORARY_SUFFIX) || is_stale_segment || is_stale_archive {
                self.folder.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Checks that the files that make up the store are still there.
    ///
    /// # Errors
    /// [`EngineError::Moved`] names what was removed, renamed or replaced.
    pub fn check_files(&self) -> Result<(), EngineError> {
        self.folder.check()?;
        let manifest = self.manifest();
        if !manifest.has_batches() {
            // A new store has no files yet.
            return Ok(());
        }
        let names: HashSet<String> = self.folder.names()?.into_iter().collect();
        let archives = manifest.archive_ids().map(|id| id.file_name());
        let segments = manifest.segments().map(segment::file_name);
        let missing =
            archives.chain(segments).chain([manifest::NAME.to_owned()]).find(|name| !names.contains(name));
        match missing {
            // A compaction may have replaced the manifest in the meantime, and removed what only the old one lists.
            Some(name) if self.with_manifest(|current| *current == manifest) => {
                Err(EngineError::Moved { file: self.folder.path(&name) })
            }
            _ => Ok(()),
        }
    }

    /// Sets [`Store::stopping`]: background work ends as soon as it can.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.blanks.stop_recycling();
    }
}
