//! Restoring groups from the store into the shards.
//!
//! The engine passes records on several threads at once, and each thread loads its group directly into the shard of its core. If
//! another thread has the shard, it leaves a copy of the record to that thread instead of waiting.
//!
//! Stores that this gateway wrote contain no contradictions, so groups are restored in the engine's order, and the series of all groups
//! are compared once at the end. If there is a contradiction, everything is restored again in order of push time, which is slow: a group
//! that contradicts an earlier one keeps only its times.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_lock::MutexGuard;
use sluicegate_engine::record::{Record, RecordError};
use sluicegate_engine::{Change, Durability, Engine, EngineError, FirstRead};

use crate::shard::key::GroupingKey;
use crate::shard::sides::CoreShards;
use crate::shard::{LoadError, Shard};
use crate::storage::engines::OpenError;
use crate::storage::import::{ImportError, Records};

use super::store::{Import, Open, Shared};
use super::stored_group::StoredGroup;

/// How many bytes of records wait for a shard. A thread with more waits itself.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How many families of groups, including push times, are deleted at a time when a restore starts over.
const CLEAR_FAMILIES: usize = 16 * 1024;

/// Why the store could not be restored. The gateway does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine failed to read or write.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The persistence file of the official program could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A record is invalid, although the engine returned it as it was written.
    #[error(
        "cannot read the record of the group {{{key}}}: {error}; the file is not damaged, so another version of sluicegate may \
         have written it"
    )]
    InvalidRecord {
        /// The text of the grouping key.
        key: String,
        /// What is wrong with it.
        #[source]
        error: RecordError,
    },
    /// The engine panicked.
    #[error("the storage engine panicked: {0}")]
    Panicked(String),
}

/// Why restoring in the engine's order stopped.
enum Interruption {
    /// A group contradicts one that was restored before.
    Contradiction(String),
    Invalid(RestoreError),
}

/// Where groups are restored to.
pub(crate) struct Restoring<'s> {
    /// By core.
    shards: Vec<Arc<CoreShards>>,
    /// By core.
    waiting: Vec<Mutex<Waiting>>,
    shared: &'s Shared,
}

/// Records that wait for the thread that has their shard.
#[derive(Debug, Default)]
struct Waiting {
    records: Vec<(Box<str>, Box<[u8]>)>,
    bytes: usize,
}

/// The text of a grouping key, and the record that the store must contain for it; `None` to delete the group.
type Correction = (String, Option<Vec<u8>>);

/// Opens the store and restores all groups.
pub(crate) fn restore(
    open: Open,
    import: Import,
    durability: Durability,
    restoring: &Restoring<'_>,
) -> Result<Box<dyn Engine>, RestoreError> {
    let started = Instant::now();
    let store = open()?;
    let open_seconds = started.elapsed().as_secs_f64();
    let stats = store.stats();
    restoring
        .shared
        .restore_bytes
        .store(stats.log_bytes.unwrap_or_default() + stats.archive_bytes, Ordering::Relaxed);

    let reading = Instant::now();
    let first = store.read_until(restoring.threads(), &|key, bytes| restoring.add(key, bytes))?;
    let read_seconds = reading.elapsed().as_secs_f64();

    let checking = Instant::now();
    let contradiction = restoring.load_all_waiting();
    restoring.finish();
    let records = Mutex::new(Vec::new());
    let collect = |key: &str, bytes: &[u8]| {
        let record = (key.to_owned(), bytes.to_vec());
        records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    };
    let (mut engine, restored, is_consistent) = match first {
        FirstRead::Complete { mut engine, restored } => {
            match contradiction.or_else(|| restoring.duplicate_series()) {
                None => (engine, restored, true),
                Some(reason) => {
                    restoring.start_over(&reason);
                    let restored = engine.read_all(restoring.threads(), &collect)?;
                    (engine, restored, false)
                }
            }
        }
        FirstRead::Stopped { store, reason: Interruption::Contradiction(reason) } => {
            restoring.start_over(&reason);
            let (engine, restored) = store.read_all(restoring.threads(), &collect)?;
            (engine, restored, false)
        }
        FirstRead::Stopped { reason: Interruption::Invalid(error), .. } => return Err(error),
    };
    for warning in &restored.warnings {
        tracing::warn!(warning, "batches are missing from the store");
    }
    if !is_consistent {
        let records = records.into_inner().unwrap_or_else(PoisonError::into_inner);
        let corrections = restoring.in_order_of_push(&records)?;
        commit(engine.as_mut(), &corrections, Durability::Disk)?;
    }
    let check_seconds = checking.elapsed().as_secs_f64();

    // A store whose groups were all deleted is not new.
    let imported = import(restored.sequence == 0)?;
    if !imported.is_empty() {
        restoring.import(engine.as_mut(), &imported, durability)?;
    }
    tracing::info!(
        groups = restoring.shared.restored().0,
        bytes = restored.record_bytes,
        was_closed = restored.closed,
        open_seconds,
        read_seconds,
        check_seconds,
        seconds = started.elapsed().as_secs_f64(),
        "restored"
    );
    Ok(engine)
}

impl<'s> Restoring<'s> {
    /// Restores to these shards, by core.
    pub(crate) fn new(shards: Vec<Arc<CoreShards>>, shared: &'s Shared) -> Self {
        let waiting = shards.iter().map(|_| Mutex::default()).collect();
        Self { shards, waiting, shared }
    }

    /// Locks a main shard. Other threads hold the lock for a few microseconds only, so spinning is cheaper than sleeping.
    fn shard(&self, home: usize) -> MutexGuard<'_, Shard> {
        /// About 50 µs.
        const SPINS: usize = 1000;
        let shard = &self.shards[home].main;
        let spun = (0..SPINS).find_map(|_| {
            let guard = shard.try_lock();
            if guard.is_none() {
                std::hint::spin_loop();
            }
            guard
        });
        spun.unwrap_or_else(|| shard.lock_blocking())
    }

    fn waiting(&self, home: usize) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting[home].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads a group into the shard to which it belongs.
    fn load(&self, home: usize, group: &StoredGroup<'_>) -> Result<(), LoadError> {
        let shards = &self.shards[home];
        let mut main = self.shard(home);
        if !group.needs_side() {
            return load_into(shards, &mut main, group);
        }
        // The group itself was not loaded before, so the side shard has the other group with the same push times.
        if let Some(side) = shards.side_of(group.key()) {
            return Err(LoadError::SamePushTimes(side.key.clone()));
        }
        if let Some(variant) = group.key().empty_instance_variant()
            && main.group_number(variant.text()).is_some()
        {
            return Err(LoadError::SamePushTimes(variant.text().clone()));
        }
        let Some((side, mut shard)) = shards.add_side(&main, group.key()) else {
            return group.load(&mut main);
        };
        drop(main);
        let loaded = group.load(&mut shard);
        shard.end_loading();
        match loaded {
            Ok(()) => side.set_complete(),
            Err(_) => shards.remove_side(&side),
        }
        loaded
    }

    /// Counts a group as restored, and returns its core.
    fn count(&self, group: &StoredGroup<'_>, bytes: u64) -> usize {
        let home = group.home(self.shards.len());
        let progress = &self.shared.restored[home];
        progress.groups.fetch_add(1, Ordering::Relaxed);
        progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        home
    }

    /// Completes the shards after the last group.
    fn finish(&self) {
        self.shards.iter().for_each(|shards| shards.main.lock_blocking().end_loading());
    }

    fn threads(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.shards.len()).unwrap_or(NonZeroUsize::MIN)
    }

    /// Restores a group without comparing its series with other groups.
    fn add(&self, key: &str, bytes: &[u8]) -> ControlFlow<Interruption> {
        let record = match decode(key, bytes) {
            Ok(record) => record,
            Err(error) => return ControlFlow::Break(Interruption::Invalid(error)),
        };
        let group = StoredGroup::new(key, record);
        let home = self.count(&group, (key.len() + bytes.len()) as u64);
        let loaded = match self.shards[home].main.try_lock().filter(|_| !group.needs_side()) {
            Some(mut main) => load_into(&self.shards[home], &mut main, &group)
                .and_then(|()| self.load_waiting(home, &mut main)),
            None if group.needs_side() => self.load(home, &group),
            None => self.wait(home, key, bytes),
        };
        match loaded {
            Ok(()) => ControlFlow::Continue(()),
            Err(reason) => ControlFlow::Break(Interruption::Contradiction(reason.to_string())),
        }
    }

    /// Leaves a group to the thread that has its main shard.
    fn wait(&self, home: usize, key: &str, bytes: &[u8]) -> Result<(), LoadError> {
        let is_full = {
            let mut waiting = self.waiting(home);
            waiting.records.push((key.into(), bytes.into()));
            waiting.bytes += bytes.len();
            waiting.bytes > WAITING_BYTES_MAX
        };
        if is_full { self.load_waiting(home, &mut self.shard(home)) } else { Ok(()) }
    }

    /// Loads the groups that wait for a main shard.
    fn load_waiting(&self, home: usize, main: &mut Shard) -> Result<(), LoadError> {
        loop {
            let Waiting { records, .. } = std::mem::take(&mut *self.waiting(home));
            if records.is_empty() {
                return Ok(());
            }
            for (key, bytes) in &records {
                let record = Record::decode(bytes).expect("was decoded before it began to wait");
                load_into(&self.shards[home], main, &StoredGroup::new(key, record))?;
            }
        }
    }

    /// Loads the groups that still wait after the last one was read. Returns the contradiction, if there is one.
    fn load_all_waiting(&self) -> Option<String> {
        let load = |home| self.load_waiting(home, &mut self.shard(home)).err();
        (0..self.shards.len()).find_map(load).map(|reason| reason.to_string())
    }

    /// Removes all groups from the shards, because some contradict each other.
    fn start_over(&self, reason: &str) {
        tracing::error!(reason, "stored groups contradict each other, restoring again in order of push time");
        self.clear();
    }

    /// The contradiction, if two groups contain the same series.
    fn duplicate_series(&self) -> Option<String> {
        let mut hashes: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.shards.iter().map(|shards| scope.spawn(move || series_hashes(shards))).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("hashing does not panic")).collect()
        });
        hashes.sort_unstable();
        let is_duplicate = hashes.windows(2).any(|pair| pair[0] == pair[1]);
        is_duplicate.then(|| "two groups contain the same series".to_owned())
    }

    /// Removes all groups from the shards.
    fn clear(&self) {
        for shards in &self.shards {
            clear(&mut shards.main.lock_blocking());
            for side in shards.sides() {
                clear(&mut side.shard.lock_blocking());
                shards.remove_side(&side);
            }
        }
        for progress in &self.shared.restored {
            progress.groups.store(0, Ordering::Relaxed);
            progress.bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Restores all records in order of push time. Returns the changes that the store needs.
    fn in_order_of_push(&self, records: &Records) -> Result<Vec<Correction>, RestoreError> {
        let mut decoded = Vec::with_capacity(records.len());
        for (key, bytes) in records {
            decoded.push((key, decode(key, bytes)?));
        }
        decoded.sort_by(|(key, record), (other_key, other)| {
            record.push_seconds.total_cmp(&other.push_seconds).then_with(|| key.cmp(other_key))
        });
        let (mut seen, mut corrections) = (HashSet::new(), Vec::new());
        for (key, record) in decoded {
            let group = StoredGroup::new(key, record);
            if let Some(stripped) = self.restore_or_strip(key, &group, &mut seen)? {
                corrections.push((key.clone(), stripped.record));
            }
        }
        self.finish();
        Ok(corrections)
    }

    /// Restores a group, or only its times if it contradicts an earlier one. Returns `None` if all of it was restored.
    fn restore_or_strip(
        &self,
        text: &str,
        group: &StoredGroup<'_>,
        seen: &mut HashSet<Box<[u8]>>,
    ) -> Result<Option<Stripped>, RestoreError> {
        let lines = group
            .record()
            .families
            .iter()
            .flat_map(|family| family.text.split_inclusive(|byte| *byte == b'\n'));
        let series: Vec<Box<[u8]>> =
            lines.filter_map(|line| Some(line[..memchr::memrchr(b' ', line)?].into())).collect();
        let home = self.count(group, 0);
        let reason = match series.iter().find(|series| seen.contains(*series)) {
            Some(series) => Some(format!("an earlier group contains {}", String::from_utf8_lossy(series))),
            None => self.load(home, group).err().map(|reason| reason.to_string()),
        };
        let Some(reason) = reason else {
            seen.extend(series);
            return Ok(None);
        };
        self.shared.contradictions.fetch_add(1, Ordering::Relaxed);
        let times = group.without_families();
        if let Err(reason) = self.load(home, &times) {
            tracing::error!(
                group = text,
                %reason,
                "a group contradicts an earlier one even with its times alone, deleting it"
            );
            return Ok(Some(Stripped { record: None }));
        }
        tracing::error!(group = text, reason, "a group contradicts an earlier one, keeping only its times");
        let mut bytes = Vec::new();
        times.record().encode(&mut bytes).map_err(|error| invalid_record(text, error))?;
        Ok(Some(Stripped { record: Some(bytes) }))
    }

    /// Imports the groups of the official program.
    fn import(
        &self,
        engine: &mut dyn Engine,
        records: &Records,
        durability: Durability,
    ) -> Result<(), RestoreError> {
        let count = records.len();
        let (mut decoded, mut seen) = (Vec::with_capacity(count), HashSet::new());
        for (key, bytes) in records {
            decoded.push((key, bytes, decode(key, bytes)?));
        }
        decoded.sort_by(|(_, _, record), (_, _, other)| record.push_seconds.total_cmp(&other.push_seconds));
        let mut imported = Vec::with_capacity(count);
        for (key, bytes, record) in decoded {
            let group = StoredGroup::new(key, record);
            let record = match self.restore_or_strip(key, &group, &mut seen)? {
                None => Some(bytes.clone()),
                Some(stripped) => stripped.record,
            };
            imported.push((key.clone(), record));
        }
        self.finish();
        // One batch, so that an interrupted start imports again from the beginning.
        commit(engine, &imported, durability.max(Durability::Disk))?;
        tracing::info!(groups = count, "imported the persistence file");
        Ok(())
    }
}

/// Loads a group into the main shard to which it belongs.
fn load_into(shards: &CoreShards, main: &mut Shard, group: &StoredGroup<'_>) -> Result<(), LoadError> {
    // The group itself was not loaded before, so the side shard has the other group with the same push times.
    if let Some(side) = shards.side_of(group.key()) {
        return Err(LoadError::SamePushTimes(side.key.clone()));
    }
    group.load(main)
}

fn series_hashes(shards: &CoreShards) -> Vec<u64> {
    let mut hashes = shards.main.lock_blocking().series_hashes();
    for side in shards.sides() {
        hashes.extend(side.shard.lock_blocking().series_hashes());
    }
    hashes
}

/// Deletes all groups of a shard.
fn clear(shard: &mut Shard) {
    let mut next = Some(0);
    while let Some(from) = next {
        let keys;
        (keys, next) = shard.some_keys(from, CLEAR_FAMILIES);
        for key in keys {
            let _ = Shard::delete(&mut *shard, &GroupingKey::from_text(key)).finish();
        }
    }
}

/// What remains of a group that contradicted others. Without a record, the group is deleted.
struct Stripped {
    record: Option<Vec<u8>>,
}

fn commit(
    engine: &mut dyn Engine,
    records: &[Correction],
    durability: Durability,
) -> Result<(), EngineError> {
    let changes: Vec<Change<'_>> =
        records.iter().map(|(key, record)| Change::of(key, record.as_deref())).collect();
    if changes.is_empty() {
        return Ok(());
    }
    engine.commit(&changes, durability).map(drop)
}

fn decode<'a>(key: &str, bytes: &'a [u8]) -> Result<Record<'a>, RestoreError> {
    Record::decode(bytes).map_err(|error| invalid_record(key, error))
}

fn invalid_record(key: &str, error: RecordError) -> RestoreError {
    RestoreError::InvalidRecord { key: key.to_owned(), error }
}

#[cfg(test)]
mod tests;
