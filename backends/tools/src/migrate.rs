//! Carries all groups from one store to another, of whatever engines.
//!
//! It can be interrupted and started again: what is already there as it should be is not written again. In the end both
//! stores are read, and must hold the same.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use sluicegate_backend::{Backend, BackendError, Change, Commit, Durability};
use xxhash_rust::xxh3::xxh3_128;

use crate::Total;

/// So much is committed at once.
const BATCH_BYTES: usize = 1 << 20;

/// What a migration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// Groups that were written now.
    pub written: u64,
    /// Groups that were there already.
    pub found: u64,
    /// What both stores hold.
    pub total: Total,
}

/// Why a migration did not come to its end. The source is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The source cannot be read.
    #[error("source: {0}")]
    Source(BackendError),
    /// The target cannot be read or written.
    #[error("target: {0}")]
    Target(BackendError),
    /// The target is another store, or the source has changed since a migration was interrupted.
    #[error(
        "the target has {groups} groups that the source does not have, {example:?} for one; empty it and start again"
    )]
    TargetHasOthers {
        /// How many.
        groups: u64,
        /// One of them.
        example: String,
    },
    /// The target gives back something else than was put into it.
    #[error("the source holds {from:?}, but the target holds {to:?} when it is read again")]
    Differ {
        /// What the source holds.
        from: Total,
        /// What the target holds.
        to: Total,
    },
}

/// Copies all groups. Nobody else may use the stores meanwhile; the engines see to that.
///
/// # Errors
/// A store cannot be read or written, or the target holds what the source does not. Starting again is safe.
pub fn migrate(
    from: &mut dyn Backend,
    to: &mut dyn Backend,
    threads: NonZeroUsize,
) -> Result<Migrated, MigrateError> {
    let there = Mutex::new(HashMap::new());
    to.restore(threads, &|key, record| {
        locked(&there).insert(key.to_owned(), xxh3_128(record));
    })
    .map_err(MigrateError::Target)?;
    let there = there.into_inner().unwrap_or_else(PoisonError::into_inner);
    let copy =
        Mutex::new(Copy { to, there, batch: Vec::new(), batch_bytes: 0, written: 0, found: 0, failed: None });
    let read = from.restore(threads, &|key, record| locked(&copy).take(key, record));
    let mut copy = copy.into_inner().unwrap_or_else(PoisonError::into_inner);
    read.map_err(MigrateError::Source)?;
    copy.flush(Durability::Disk);
    let Copy { to, there, written, found, failed, .. } = copy;
    if let Some(error) = failed {
        return Err(MigrateError::Target(error));
    }
    if let Some(example) = there.keys().next() {
        let groups = there.len() as u64;
        return Err(MigrateError::TargetHasOthers { groups, example: example.clone() });
    }
    let source = total(from, threads).map_err(MigrateError::Source)?;
    let target = total(to, threads).map_err(MigrateError::Target)?;
    if source != target {
        return Err(MigrateError::Differ { from: source, to: target });
    }
    Ok(Migrated { written, found, total: source })
}

struct Copy<'a> {
    to: &'a mut dyn Backend,
    /// What the target had that was not met in the source yet.
    there: HashMap<String, u128>,
    batch: Vec<(String, Vec<u8>)>,
    batch_bytes: usize,
    written: u64,
    found: u64,
    failed: Option<BackendError>,
}

impl Copy<'_> {
    fn take(&mut self, key: &str, record: &[u8]) {
        if self.there.remove(key) == Some(xxh3_128(record)) {
            self.found += 1;
            return;
        }
        self.written += 1;
        self.batch_bytes += key.len() + record.len();
        self.batch.push((key.to_owned(), record.to_vec()));
        if self.batch_bytes >= BATCH_BYTES {
            self.flush(Durability::Process);
        }
    }

    fn flush(&mut self, durability: Durability) {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if self.failed.is_some() {
            return;
        }
        let changes: Vec<_> = batch.iter().map(|(key, record)| Change::Put { key, record }).collect();
        match self.to.commit(&changes, durability) {
            Ok(Commit::Kept(_)) => {}
            Ok(Commit::Conflict(_)) => {
                let why = "somebody else writes to the target".to_owned();
                self.failed = Some(BackendError::Poisoned { why });
            }
            Err(error) => self.failed = Some(error),
        }
    }
}

fn total(backend: &mut dyn Backend, threads: NonZeroUsize) -> Result<Total, BackendError> {
    let total = Mutex::new(Total::default());
    backend.restore(threads, &|key, record| locked(&total).add(key, record))?;
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
