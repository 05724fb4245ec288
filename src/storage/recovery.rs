//! Recovering a failed store without a restart.
//!
//! The cause of a failure often ends by itself: a disk is full for a while, or descriptors run out. Memory has every group as it is
//! now. So the writer thread opens the store again, as a restart would, and writes the groups whose changes were not committed.
//! Writes are rejected until that has succeeded.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_engine::{Change, Durability, Engine, EngineError};

use super::engines::OpenError;
use super::record_writer::RecordWriter;
use super::store::{GroupChange, Open, PendingChange};
use crate::shard::ChangedPart;
use crate::shard::key::GroupingKey;
use crate::shard::sides::CoreShards;

/// The delay before the first attempt, and between the end of one and the next. The writer thread asks once a second, so a short attempt
/// is repeated every second.
const DELAY: Duration = Duration::from_millis(500);
/// A batch of this size is committed before further groups are written.
const BATCH_BYTES_MAX: usize = 128 << 20;

/// Why a store could not recover yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecoverError {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine failed to read or write.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The files no longer contain everything that was acknowledged.
    #[error(
        "the store ends with batch {found}, but batch {acknowledged} was acknowledged; restart the gateway to continue with what the \
         store contains"
    )]
    Incomplete {
        /// The last batch in the store.
        found: u64,
        /// The last batch that was acknowledged.
        acknowledged: u64,
    },
}

/// What the writer thread needs to recover a failed store.
pub(super) struct Recovery {
    open: Open,
    shards: Vec<Arc<CoreShards>>,
    /// The number of the last batch that was committed.
    acknowledged: u64,
    /// The groups whose changes were not committed.
    keys: HashSet<Arc<str>>,
    tried_at: Instant,
}

impl Recovery {
    pub(super) fn new(open: Open, shards: Vec<Arc<CoreShards>>, acknowledged: u64) -> Self {
        let keys = HashSet::new();
        Self { open, shards, acknowledged, keys, tried_at: Instant::now() }
    }

    /// Records that batches up to this one are committed.
    pub(super) fn set_acknowledged(&mut self, sequence: u64) {
        self.acknowledged = sequence;
    }

    /// Adds changes that were not committed.
    pub(super) fn add<'c>(&mut self, changes: impl Iterator<Item = &'c PendingChange>) {
        let changes = changes.filter(|change| !matches!(change.change, GroupChange::Unchanged));
        self.keys.extend(changes.map(|change| change.key.clone()));
    }

    /// The store has failed now.
    pub(super) fn begin(&mut self) {
        self.tried_at = Instant::now();
    }

    /// Whether it is time for the next attempt.
    pub(super) fn is_due(&self) -> bool {
        self.tried_at.elapsed() >= DELAY
    }

    /// Opens the store and writes the groups whose changes were not committed, as they are now.
    pub(super) fn run(&mut self) -> Result<Box<dyn Engine>, RecoverError> {
        let result = self.try_to_recover();
        self.tried_at = Instant::now();
        result
    }

    fn try_to_recover(&mut self) -> Result<Box<dyn Engine>, RecoverError> {
        let threads = NonZeroUsize::new(self.shards.len()).unwrap_or(NonZeroUsize::MIN);
        let (mut engine, restored) = (self.open)()?.read_all(threads, &|_, _| ())?;
        if restored.sequence < self.acknowledged {
            let (found, acknowledged) = (restored.sequence, self.acknowledged);
            return Err(RecoverError::Incomplete { found, acknowledged });
        }
        let mut records: Vec<(Arc<str>, Option<Vec<u8>>)> = Vec::new();
        let mut bytes = 0;
        let mut last = restored.sequence;
        for key in &self.keys {
            let record = self.current_record(key);
            bytes += key.len() + record.as_ref().map_or(0, Vec::len);
            records.push((key.clone(), record));
            if bytes >= BATCH_BYTES_MAX {
                commit(engine.as_mut(), &records)?;
                records.clear();
                bytes = 0;
            }
        }
        // Also without groups: only a commit shows that the store accepts writes again.
        last = last.max(commit(engine.as_mut(), &records)?);
        self.acknowledged = last;
        self.keys.clear();
        Ok(engine)
    }

    /// The record of a group as it is now; `None` if it does not exist.
    fn current_record(&self, key: &Arc<str>) -> Option<Vec<u8>> {
        let key = GroupingKey::from_text(key.clone());
        let shard = self.shards[key.home(self.shards.len())].lock_shard_of(&key);
        let key = key.text();
        let group = shard.group_number(key)?;
        match RecordWriter::new(shard, group, ChangedPart::All, Vec::new()).advance(usize::MAX) {
            ControlFlow::Break((_, GroupChange::Put(record))) => Some(record),
            _ => unreachable!("all of a group is a record, and written at once without a limit"),
        }
    }
}

/// Commits with the higher durability, because the cause of the failure may only show when files are synced.
fn commit(engine: &mut dyn Engine, records: &[(Arc<str>, Option<Vec<u8>>)]) -> Result<u64, EngineError> {
    let changes: Vec<Change<'_>> = records
        .iter()
        .map(|(key, record)| match record {
            Some(record) => Change::Put { key, record },
            None => Change::Delete { key },
        })
        .collect();
    engine.commit(&changes, Durability::Disk).map(|receipt| receipt.sequence)
}
