//! Taking groups back from the engine into the shards.
//!
//! The engine calls from several threads at once, and each puts its group where it belongs: no copy, no queue. Stores written by
//! this gateway hold no contradictions, so groups come in the engine's order, and only at the end is looked for series that
//! two groups share. If anything contradicts, all is begun again, in order of push time, slowly: a group that contradicts an earlier one
//! keeps only its times.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use async_lock::MutexGuard;
use sluicegate_engine::record::{Record, RecordError};
use sluicegate_engine::{Change, Durability, Engine};

use crate::shard::Shard;
use crate::shard::key::GroupingKey;
use crate::storage::import::Records;

use super::store::{Import, Open, Shared};
use super::stored_group::StoredGroup;

/// Groups deleted at one go, to begin again.
const CLEAR_KEYS: usize = 4096;

/// Where groups go to.
pub(crate) struct Restoring<'s> {
    pub shards: Vec<Arc<async_lock::Mutex<Shard>>>,
    pub shared: &'s Shared,
}

/// The text of a grouping key and what the store shall keep under it; `None`: nothing.
type Corrected = (String, Option<Vec<u8>>);

/// Opens the engine and takes everything back.
///
/// # Errors
/// The start must stop, for this reason.
pub(crate) fn restore(
    open: Open,
    import: Import,
    durability: Durability,
    restoring: &Restoring<'_>,
) -> Result<Box<dyn Engine>, String> {
    let begun = Instant::now();
    let mut backend = open()?;
    let open_seconds = begun.elapsed().as_secs_f64();
    let stats = backend.stats();
    restoring
        .shared
        .restore_bytes
        .store(stats.log_bytes.unwrap_or_default() + stats.archive_bytes, Ordering::Relaxed);

    let reading = Instant::now();
    let restored = restoring.in_any_order(&mut *backend)?;
    for warning in &restored.warnings {
        tracing::warn!(warning, "the store is not as it was left");
    }
    let read_seconds = reading.elapsed().as_secs_f64();

    let checking = Instant::now();
    if let Some(reason) = restored.contradiction.or_else(|| restoring.shared_series()) {
        tracing::error!(
            reason,
            "stored groups contradict each other; they are taken back again, in order of push time"
        );
        restoring.clear();
        let changed = restoring.in_order_of_push(&mut *backend)?;
        commit(&mut *backend, &changed, Durability::Disk)?;
    }
    let check_seconds = checking.elapsed().as_secs_f64();

    // A store whose groups were all deleted is not a new one.
    let imported = import(restored.sequence == 0)?;
    if !imported.is_empty() {
        restoring.import(&mut *backend, &imported, durability)?;
    }
    tracing::info!(
        groups = restoring.shared.restored().0,
        bytes = restored.bytes,
        was_closed = restored.closed,
        open_seconds,
        read_seconds,
        check_seconds,
        seconds = begun.elapsed().as_secs_f64(),
        "restored"
    );
    Ok(backend)
}

/// What the first way of restoring brought.
struct Brought {
    sequence: u64,
    bytes: u64,
    closed: bool,
    warnings: Vec<String>,
    contradiction: Option<String>,
}

impl Restoring<'_> {
    /// Its thread has it for a few microseconds at a time: to sleep would take longer than that.
    fn shard(&self, home: usize) -> MutexGuard<'_, Shard> {
        /// About 50 µs.
        const SPINS: usize = 1000;
        let shard = &self.shards[home];
        let spun = (0..SPINS).find_map(|_| {
            let guard = shard.try_lock();
            if guard.is_none() {
                std::hint::spin_loop();
            }
            guard
        });
        spun.unwrap_or_else(|| shard.lock_blocking())
    }

    /// Counts a group on its core, and says which that is.
    fn count(&self, group: &StoredGroup<'_>, bytes: u64) -> usize {
        let home = group.home(self.shards.len());
        let progress = &self.shared.restored[home];
        progress.groups.fetch_add(1, Ordering::Relaxed);
        progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        home
    }

    /// What was given to the shards is in its place.
    fn end(&self) {
        self.shards.iter().for_each(|shard| shard.lock_blocking().end_loading());
    }

    fn threads(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.shards.len()).unwrap_or(NonZeroUsize::MIN)
    }

    fn in_any_order(&self, backend: &mut dyn Engine) -> Result<Brought, String> {
        let (contradiction, unreadable) = (OnceLock::new(), OnceLock::new());
        let restored = backend.restore(self.threads(), &|key, bytes| {
            if contradiction.get().is_some() || unreadable.get().is_some() {
                return;
            }
            match Record::decode(bytes) {
                Ok(record) => {
                    let group = StoredGroup::new(key, record);
                    let home = self.count(&group, (key.len() + bytes.len()) as u64);
                    if let Err(reason) = group.load(&mut self.shard(home)) {
                        let _ = contradiction.set(reason.to_string());
                    }
                }
                Err(error) => {
                    let _ = unreadable.set(unreadable_record(key, &error));
                }
            }
        });
        let restored = restored.map_err(|error| error.to_string())?;
        self.end();
        match unreadable.into_inner() {
            Some(why) => Err(why),
            None => Ok(Brought {
                sequence: restored.sequence,
                bytes: restored.record_bytes,
                closed: restored.closed,
                warnings: restored.warnings,
                contradiction: contradiction.into_inner(),
            }),
        }
    }

    /// Whether two groups hold the same series.
    fn shared_series(&self) -> Option<String> {
        let mut hashes: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .shards
                .iter()
                .map(|shard| scope.spawn(move || shard.lock_blocking().series_hashes()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("hashing does not panic")).collect()
        });
        hashes.sort_unstable();
        let is_twice = hashes.windows(2).any(|pair| pair[0] == pair[1]);
        is_twice.then(|| "two groups hold the same series".to_owned())
    }

    /// Forgets all groups.
    fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock_blocking();
            loop {
                let keys = shard.some_keys(CLEAR_KEYS);
                if keys.is_empty() {
                    break;
                }
                for key in keys {
                    let _ = Shard::delete(&mut *shard, &GroupingKey::from_text(key)).finish();
                }
            }
        }
        for progress in &self.shared.restored {
            progress.groups.store(0, Ordering::Relaxed);
            progress.bytes.store(0, Ordering::Relaxed);
        }
    }

    /// The slow way. Returns the records that have to be changed in the store; `None` is one to be deleted.
    fn in_order_of_push(&self, backend: &mut dyn Engine) -> Result<Vec<Corrected>, String> {
        let records = Mutex::new(Vec::new());
        backend
            .restore(self.threads(), &|key, bytes| {
                let (key, bytes) = (key.to_owned(), bytes.to_vec());
                records.lock().unwrap_or_else(PoisonError::into_inner).push((key, bytes));
            })
            .map_err(|error| error.to_string())?;
        let records = records.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut decoded = Vec::with_capacity(records.len());
        for (key, bytes) in &records {
            decoded.push((key, Record::decode(bytes).map_err(|error| unreadable_record(key, &error))?));
        }
        decoded.sort_by(|(key, record), (other_key, other)| {
            record.push_seconds.total_cmp(&other.push_seconds).then_with(|| key.cmp(other_key))
        });
        let (mut seen, mut changed) = (HashSet::new(), Vec::new());
        for (key, record) in decoded {
            let group = StoredGroup::new(key, record);
            if let Some(kept) = self.take_or_strip(key, &group, &mut seen)? {
                self.shared.contradictions.fetch_add(1, Ordering::Relaxed);
                changed.push((key.clone(), kept.record));
            }
        }
        self.end();
        Ok(changed)
    }

    /// Takes a group back, or what can be had of it. `None` if all of it was taken.
    fn take_or_strip(
        &self,
        text: &str,
        group: &StoredGroup<'_>,
        seen: &mut HashSet<Box<[u8]>>,
    ) -> Result<Option<Stripped>, String> {
        let lines = group
            .record()
            .families
            .iter()
            .flat_map(|family| family.text.split_inclusive(|byte| *byte == b'\n'));
        let series: Vec<Box<[u8]>> =
            lines.filter_map(|line| Some(line[..memchr::memrchr(b' ', line)?].into())).collect();
        let home = self.count(group, 0);
        let mut reason = None;
        if let Some(twin) = series.iter().find(|series| seen.contains(*series)) {
            reason = Some(format!("an earlier group holds {}", String::from_utf8_lossy(twin)));
        }
        if reason.is_none() {
            reason = group.load(&mut self.shard(home)).err().map(|reason| reason.to_string());
        }
        let Some(reason) = reason else {
            seen.extend(series);
            return Ok(None);
        };
        let times = group.without_families();
        if let Err(reason) = times.load(&mut self.shard(home)) {
            tracing::error!(
                group = text,
                %reason,
                "a stored group contradicts an earlier one wholly and is left out"
            );
            return Ok(Some(Stripped { record: None }));
        }
        tracing::error!(
            group = text,
            reason,
            "a stored group contradicts an earlier one and keeps only its times"
        );
        let mut bytes = Vec::new();
        times.record().encode(&mut bytes).map_err(|error| unreadable_record(text, &error))?;
        Ok(Some(Stripped { record: Some(bytes) }))
    }

    /// Takes over the groups of another program.
    fn import(
        &self,
        backend: &mut dyn Engine,
        records: &Records,
        durability: Durability,
    ) -> Result<(), String> {
        let count = records.len();
        let (mut decoded, mut seen) = (Vec::with_capacity(count), HashSet::new());
        for (key, bytes) in records {
            decoded.push((
                key,
                bytes,
                Record::decode(bytes).map_err(|error| unreadable_record(key, &error))?,
            ));
        }
        decoded.sort_by(|(_, _, record), (_, _, other)| record.push_seconds.total_cmp(&other.push_seconds));
        let mut kept = Vec::with_capacity(count);
        for (key, bytes, record) in decoded {
            let group = StoredGroup::new(key, record);
            let record = match self.take_or_strip(key, &group, &mut seen)? {
                None => Some(bytes.clone()),
                Some(stripped) => {
                    self.shared.contradictions.fetch_add(1, Ordering::Relaxed);
                    stripped.record
                }
            };
            kept.push((key.clone(), record));
        }
        self.end();
        // In one batch: a start that is cut off begins anew.
        commit(backend, &kept, durability.max(Durability::Disk))?;
        tracing::info!(groups = count, "took over the groups of the persistence file");
        Ok(())
    }
}

/// What is left of a group that contradicted others.
struct Stripped {
    record: Option<Vec<u8>>,
}

fn commit(backend: &mut dyn Engine, records: &[Corrected], durability: Durability) -> Result<(), String> {
    let changes: Vec<Change<'_>> = records
        .iter()
        .map(|(key, record)| match record {
            Some(record) => Change::Put { key, record },
            None => Change::Delete { key },
        })
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    backend.commit(&changes, durability).map(drop).map_err(|error| error.to_string())
}

fn unreadable_record(key: &str, error: &RecordError) -> String {
    format!(
        "the record of the group {{{key}}} cannot be read: {error}; \
         it was not damaged on the disk, so another version of sluicegate may have written it"
    )
}
