//! Merges the log into the archives: new archives for the partitions that changed, then a manifest that names them, then the
//! old files go. A crash anywhere in between leaves the old state or the new.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use rkyv::util::AlignedVec;
use sluicegate_engine::EngineError;

use crate::archive::{self, Place, Records};
use crate::files::Folder;
use crate::log::replay::{Part, Replay};
use crate::log::segment::{self, FoundPut};
use crate::manifest::{Entry, Manifest, damaged};
use crate::panics::catch_panic;
use crate::store::{Shared, locked};

/// The archives that a manifest names.
pub(crate) fn places(manifest: &Manifest) -> impl Iterator<Item = Place> {
    let there = manifest.archives.iter().enumerate().filter(|(_, entry)| entry.generation > 0);
    there.map(|(partition, entry)| Place { store: manifest.store, partition, generation: entry.generation })
}

/// How large the log grows before it is merged.
pub(crate) fn log_bytes_max(shared: &Shared) -> u64 {
    let least = shared.options.log_bytes;
    (shared.with_manifest(Manifest::archive_bytes) / 4).clamp(least, least * 4)
}

/// Does [`archive`] in the background: an error or a panic is reported as the engine's background error. The log keeps the
/// data, and the next merge starts over.
pub(crate) fn merge(shared: &Shared, last_segment: u64, below: u64) {
    let error = match catch_panic(|| archive(shared, last_segment, below)) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(panic) => Some(format!("merging the log into the archives panicked: {panic}")),
    };
    *locked(&shared.background_error) = error;
}

/// Merges segments up to `last_segment`, which hold the batches below `below` and are not written any more.
pub(crate) fn archive(shared: &Shared, last_segment: u64, below: u64) -> Result<(), EngineError> {
    let _alone = locked(&shared.archiving);
    let folder = &shared.folder;
    let old = shared.manifest();
    if last_segment < old.log_first {
        return Ok(());
    }
    let part = Part { first: old.log_first, last: last_segment, below };
    let replay = Replay::read_part(folder, &old, part, NonZeroUsize::MIN)?;
    if replay.last + 1 != below {
        let what = format!("batch {} cannot be read any more", replay.last + 1);
        return Err(damaged(folder, &segment::name(last_segment), &what));
    }
    let Some(archives) = merged(shared, &old, &replay)? else { return Ok(()) };
    folder.sync()?;
    let written = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    shared.publish(|manifest| {
        manifest.archives = archives;
        manifest.sequence = replay.last;
        manifest.log_first = last_segment + 1;
        manifest.archived_unix_seconds = written;
    })?;
    shared.log_bytes.fetch_sub(replay.bytes, Ordering::AcqRel);
    let new: Vec<Place> = shared.with_manifest(|manifest| places(manifest).collect());
    for place in places(&old).filter(|place| !new.contains(place)) {
        folder.remove(&place.name())?;
    }
    (old.log_first..=last_segment).try_for_each(|number| shared.recycle(&segment::name(number)))
}

/// Writes the archives that change. `None` if there is no time left for it.
fn merged(shared: &Shared, old: &Manifest, replay: &Replay) -> Result<Option<Vec<Entry>>, EngineError> {
    let mut archives = old.archives.clone();
    let (mut records, mut buffers) = (Records::default(), Buffers::default());
    for (partition, entry) in archives.iter_mut().enumerate() {
        if shared.stopping.load(Ordering::Acquire) {
            return Ok(None);
        }
        let changed = replay.segments.iter().any(|(_, changes)| !changes.partitions[partition].is_empty());
        if !changed && !replay.wiped() {
            continue;
        }
        records.clear();
        read_partition(&shared.folder, old, replay, partition, &mut buffers, |key, record| {
            records.push(key, record);
        })?;
        let place = Place { store: old.store, partition, generation: replay.last };
        *entry = match records.is_empty() {
            true => Entry::default(),
            false => archive::write(&shared.folder, place, &records)?,
        };
    }
    Ok(Some(archives))
}

/// Memory for [`read_partition`], used again from call to call.
#[derive(Default)]
pub(crate) struct Buffers {
    archive: AlignedVec,
    record: Vec<u8>,
}

/// Gives the records of a partition: those of its archive which the log does not change, then those of the log.
pub(crate) fn read_partition(
    folder: &Folder,
    manifest: &Manifest,
    replay: &Replay,
    partition: usize,
    buffers: &mut Buffers,
    mut each: impl FnMut(&str, &[u8]),
) -> Result<(), EngineError> {
    let mut changed: HashMap<&str, Option<(usize, FoundPut)>> = HashMap::new();
    for (at, (_, changes)) in replay.segments.iter().enumerate() {
        changed
            .extend(changes.partitions[partition].iter().map(|(key, put)| (key, put.map(|put| (at, put)))));
    }
    let entry = manifest.archives[partition];
    if entry.generation > 0 && !replay.wiped() {
        let place = Place { store: manifest.store, partition, generation: entry.generation };
        archive::read(folder, place, entry, &mut buffers.archive, |key, record| {
            if changed.is_empty() || !changed.contains_key(key) {
                each(key, record);
            }
        })?;
    }
    let mut puts: Vec<_> =
        changed.into_iter().filter_map(|(key, put)| put.map(|(at, put)| (at, put, key))).collect();
    // In the order in which they stand on the disk.
    puts.sort_unstable_by_key(|(at, put, _)| (*at, put.start));
    for of_segment in puts.chunk_by(|(at, ..), (other, ..)| at == other) {
        let (segment, _) = &replay.segments[of_segment[0].0];
        let handle = segment.open(folder)?;
        for (_, put, key) in of_segment {
            let record = put.read(&handle, &mut buffers.record)?;
            each(key, record.ok_or_else(|| segment.damaged(folder, segment::CHANGED))?);
        }
    }
    Ok(())
}
