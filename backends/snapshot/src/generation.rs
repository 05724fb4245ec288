//! A new generation of files, written from the caller's memory: archives of all partitions, an empty log, and a manifest that lists
//! them. Nothing of the old generation is read except its manifest, and none of its files is changed, so it counts until the new
//! manifest has replaced the old one. A crash leaves one of the two.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use sluicegate_engine::{CHANGED_ROUNDS_MAX, EngineError, Groups};

use crate::archive::{self, ArchiveEntry, ArchiveId, Records, Unnamed};
use crate::log::changes::partition_of;
use crate::manifest::{self, Manifest};
use crate::store::Store;

/// How many archives are written before they are synced. Each needs a descriptor until then.
const ARCHIVES_AT_A_TIME: usize = 16;

/// Writes a new generation, and returns its manifest. Nothing else may use the store. `sequence` is the number of the last batch.
///
/// # Errors
/// The files could not be written, or the manifest is not that of `store`. The old generation still counts.
pub(crate) fn write(store: &Store, sequence: u64, groups: &mut dyn Groups) -> Result<Manifest, EngineError> {
    store.folder.check()?;
    let old = manifest_on_disk(store)?;
    // It may have its name in memory only. The names of new archives must not reach the disk before it.
    store.folder.sync()?;
    // They may take up the space that is needed.
    store.remove_temporary_files()?;
    // No archive that counts has this number. An attempt may have failed after it replaced the manifest.
    let number = sequence.max(old.archived) + 1;
    let written = write_archives(store, &old, number, groups).and_then(|archives| {
        store.folder.sync()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let new = Manifest {
            store_id: old.store_id,
            archived: number,
            synced: number,
            first_segment: old.last_segment + 1,
            last_segment: old.last_segment,
            archived_unix_seconds: now.as_secs(),
            closed: false,
            archives,
        };
        new.write(&store.folder)?;
        Ok(new)
    });
    if written.is_err() {
        // The error of writing is the one to report. What remains is removed by the next attempt that succeeds.
        let _ = store.remove_unlisted_archives();
    }
    written
}

/// Reads the manifest in the folder. It is the one that the engine has written last, or tried to.
///
/// # Errors
/// Somebody removed or replaced it: what the folder contains now may be a backup that is being put back.
fn manifest_on_disk(store: &Store) -> Result<Manifest, EngineError> {
    let known = store.manifest();
    match Manifest::read(&store.folder)? {
        Some(found)
            if found.store_id == known.store_id
                && found.archived >= known.archived
                && found.last_segment >= known.last_segment =>
        {
            Ok(found)
        }
        None if !known.has_batches() => {
            // Archives without a manifest would be damage.
            known.write(&store.folder)?;
            Ok(known)
        }
        Some(_) | None => Err(EngineError::Moved { file: store.folder.path(manifest::NAME) }),
    }
}

/// Writes the archives of all partitions. A partition in which groups have changed meanwhile is written again.
fn write_archives(
    store: &Store,
    old: &Manifest,
    number: u64,
    groups: &mut dyn Groups,
) -> Result<Vec<ArchiveEntry>, EngineError> {
    let count = old.archives.len();
    let mut keys: Vec<Vec<Arc<str>>> = vec![Vec::new(); count];
    let mut entries = vec![ArchiveEntry::default(); count];
    let (mut records, mut record) = (Records::default(), Vec::new());
    for _ in 0..CHANGED_ROUNDS_MAX {
        let mut is_changed = vec![false; count];
        for key in groups.changed() {
            let partition = partition_of(&key, count);
            is_changed[partition] = true;
            keys[partition].push(key);
        }
        if !is_changed.contains(&true) {
            break;
        }
        let changed: Vec<usize> = (0..count).filter(|partition| is_changed[*partition]).collect();
        for partitions in changed.chunks(ARCHIVES_AT_A_TIME) {
            let mut written = Vec::with_capacity(partitions.len());
            for partition in partitions.iter().copied() {
                let keys = &mut keys[partition];
                keys.sort_unstable();
                keys.dedup();
                records.clear();
                for key in &*keys {
                    record.clear();
                    if groups.record(key, &mut record) {
                        records.push(key, &record);
                    }
                }
                entries[partition] = ArchiveEntry::default();
                if !records.is_empty() {
                    let id = ArchiveId { store_id: old.store_id, partition, generation: number };
                    written.push((partition, archive::write_unnamed(&store.folder, id, &records)?));
                }
            }
            sync_all(&written, store.options.background)?;
            for (partition, archive) in written {
                entries[partition] = archive.rename(&store.folder)?;
            }
        }
    }
    Ok(entries)
}

/// Syncs archives, with a thread for each if threads are allowed: the file system then writes its journal for several of them at once.
fn sync_all(archives: &[(usize, Unnamed)], has_threads: bool) -> Result<(), EngineError> {
    if !has_threads {
        return archives.iter().try_for_each(|(_, archive)| archive.sync());
    }
    thread::scope(|scope| {
        let started: Vec<_> = archives
            .iter()
            .map(|(_, archive)| {
                let builder = thread::Builder::new().name("store-sync".to_owned());
                // Without a thread, this one syncs it.
                builder.spawn_scoped(scope, || archive.sync()).map_err(|_| archive)
            })
            .collect();
        let mut result = Ok(());
        for sync in started {
            let synced = match sync {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(archive) => archive.sync(),
            };
            result = result.and(synced);
        }
        result
    })
}
