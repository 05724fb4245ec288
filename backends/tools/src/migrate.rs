//! Carries all groups from one store to another, of whatever engines.
//!
//! It can be interrupted and started again: what is already there as it should be is not written again. In the end both
//! stores are read, and must hold the same.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use sluicegate_engine::{Change, Commit, Durability, Engine, EngineError};
use xxhash_rust::xxh3::xxh3_128;

use crate::{Phase, Progress, Total};

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
    Source(EngineError),
    /// The target cannot be read or written.
    #[error("target: {0}")]
    Target(EngineError),
    /// The target is another store, or the source has changed since a migration was interrupted. Nothing was written.
    #[error(
        "the target has {groups} groups that the source does not have, or has otherwise, {{{example}}} for one; empty it and start again"
    )]
    TargetHasOthers {
        /// How many.
        groups: u64,
        /// The key of one of them.
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
    from: &mut dyn Engine,
    to: &mut dyn Engine,
    threads: NonZeroUsize,
    progress: Progress<'_>,
) -> Result<Migrated, MigrateError> {
    let there = Mutex::new(HashMap::new());
    to.restore(threads, &|key, record| {
        progress(Phase::ReadTarget, bytes(key, record));
        let entry = There { hash: xxh3_128(record), is_same: false };
        locked(&there).insert(key.to_owned(), entry);
    })
    .map_err(MigrateError::Target)?;
    let source = Mutex::new(Total::default());
    from.restore(threads, &|key, record| {
        progress(Phase::ReadSource, bytes(key, record));
        locked(&source).add(key, record);
        if let Some(entry) = locked(&there).get_mut(key) {
            entry.is_same = entry.hash == xxh3_128(record);
        }
    })
    .map_err(MigrateError::Source)?;
    let (source, there) = (whole(source), whole(there));
    // Before anything is written: it may be the wrong store.
    let mut others = there.iter().filter(|(_, entry)| !entry.is_same).map(|(key, _)| key);
    if let Some(example) = others.next() {
        return Err(MigrateError::TargetHasOthers {
            groups: 1 + others.count() as u64,
            example: example.clone(),
        });
    }
    let found = there.len() as u64;
    let written = copy(from, to, threads, &there, progress)?;
    let target = Mutex::new(Total::default());
    to.restore(threads, &|key, record| {
        progress(Phase::Check, bytes(key, record));
        locked(&target).add(key, record);
    })
    .map_err(MigrateError::Target)?;
    let target = whole(target);
    if source != target {
        return Err(MigrateError::Differ { from: source, to: target });
    }
    Ok(Migrated { written, found, total: source })
}

/// A group that the target held at the beginning.
struct There {
    hash: u128,
    /// Whether the source has it, and the same.
    is_same: bool,
}

/// Writes what is not there; returns how many groups that were.
fn copy(
    from: &mut dyn Engine,
    to: &mut dyn Engine,
    threads: NonZeroUsize,
    there: &HashMap<String, There>,
    progress: Progress<'_>,
) -> Result<u64, MigrateError> {
    let copy = Mutex::new(Copy { to, batch: Vec::new(), batch_bytes: 0, written: 0, failed: None });
    let read = from.restore(threads, &|key, record| {
        progress(Phase::Copy, bytes(key, record));
        if !there.contains_key(key) {
            locked(&copy).take(key, record);
        }
    });
    read.map_err(MigrateError::Source)?;
    let mut copy = whole(copy);
    copy.flush(Durability::Disk);
    match copy.failed {
        Some(error) => Err(MigrateError::Target(error)),
        None => Ok(copy.written),
    }
}

struct Copy<'a> {
    to: &'a mut dyn Engine,
    batch: Vec<(String, Vec<u8>)>,
    batch_bytes: usize,
    written: u64,
    failed: Option<EngineError>,
}

impl Copy<'_> {
    fn take(&mut self, key: &str, record: &[u8]) {
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
                self.failed = Some(EngineError::Failed { why });
            }
            Err(error) => self.failed = Some(error),
        }
    }
}

fn bytes(key: &str, record: &[u8]) -> u64 {
    (key.len() + record.len()) as u64
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn whole<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
