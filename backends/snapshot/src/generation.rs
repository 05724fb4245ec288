//! A new generation of files, written from the caller's memory: archives of all partitions, an empty log, and a manifest that lists
//! them. Nothing of the old generation is read except its manifest, and none of its files is changed, so it counts until the new
//! manifest has replaced the old one. A crash leaves one of the two.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sluicegate_engine::{CHANGED_ROUNDS_MAX, EngineError, Groups};

use crate::archive::{self, ArchiveEntry, ArchiveId, Records};
use crate::log::changes::partition_of;
use crate::manifest::{self, Manifest};
use crate::store::Store;

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
        for (partition, keys) in keys.iter_mut().enumerate().filter(|(partition, _)| is_changed[*partition]) {
            keys.sort_unstable();
            keys.dedup();
            records.clear();
            for key in &*keys {
                record.clear();
                if groups.record(key, &mut record) {
                    records.push(key, &record);
                }
            }
            entries[partition] = if records.is_empty() {
                ArchiveEntry::default()
            } else {
                let id = ArchiveId { store_id: old.store_id, partition, generation: number };
                archive::write(&store.folder, id, &records)?
            };
        }
    }
    Ok(entries)
}
