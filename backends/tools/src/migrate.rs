//! Copies all groups from one store to another, of any engines.
//!
//! A migration can be interrupted and repeated: groups that the target already contains are not written again. In the end it
//! reads the target again and compares it with the source.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use sluicegate_engine::{Change, Durability, Engine, EngineError, UnreadStore};
use xxhash_rust::xxh3::xxh3_128;

use crate::{Phase, Progress, Total};

/// The size of a batch.
const BATCH_BYTES: usize = 1 << 20;

/// The result of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// Groups that this migration wrote.
    pub written: u64,
    /// Groups that the target contained before.
    pub found: u64,
    /// The content of both stores.
    pub total: Total,
}

/// Why a migration failed. The source is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The source could not be read.
    #[error("source: {0}")]
    Source(#[source] EngineError),
    /// The target could not be read or written.
    #[error("target: {0}")]
    Target(#[source] EngineError),
    /// The target contains groups that the source does not: it is another store, or the source has changed since an earlier
    /// migration was interrupted. Nothing was written.
    #[error(
        "target: {groups} groups are missing from the source or differ there, for example {{{example}}}; start with an empty target"
    )]
    TargetHasOthers {
        /// The number of such groups.
        groups: u64,
        /// The key of one of them.
        example: String,
    },
    /// The target returns other records than were written to it.
    #[error("the stores differ after copying: the source contains {from:?}, the target {to:?}")]
    Differ {
        /// The content of the source.
        from: Total,
        /// The content of the target.
        to: Total,
    },
}

/// Copies all groups and closes the target. An interrupted migration can be repeated.
///
/// # Errors
/// A store cannot be read or written, or the target contains groups that the source does not.
pub fn migrate(
    from: UnreadStore,
    to: UnreadStore,
    threads: NonZeroUsize,
    progress: Progress<'_>,
) -> Result<Migrated, MigrateError> {
    let existing = Mutex::new(HashMap::new());
    let (mut to, _) = to
        .read_all(threads, &|key, record| {
            progress(Phase::ReadTarget, bytes(key, record));
            let entry = Existing { hash: xxh3_128(record), is_same: false };
            locked(&existing).insert(key.to_owned(), entry);
        })
        .map_err(MigrateError::Target)?;
    let source = Mutex::new(Total::default());
    let (mut from, _) = from
        .read_all(threads, &|key, record| {
            progress(Phase::ReadSource, bytes(key, record));
            locked(&source).add(key, record);
            if let Some(entry) = locked(&existing).get_mut(key) {
                entry.is_same = entry.hash == xxh3_128(record);
            }
        })
        .map_err(MigrateError::Source)?;
    let (source, existing) = (into_inner(source), into_inner(existing));
    // Before anything is written: it may be the wrong store.
    let mut others = existing.iter().filter(|(_, entry)| !entry.is_same).map(|(key, _)| key);
    if let Some(example) = others.next() {
        return Err(MigrateError::TargetHasOthers {
            groups: 1 + others.count() as u64,
            example: example.clone(),
        });
    }
    let found = existing.len() as u64;
    let written = copy(from.as_mut(), to.as_mut(), threads, &existing, progress)?;
    let target = Mutex::new(Total::default());
    to.read_all(threads, &|key, record| {
        progress(Phase::Check, bytes(key, record));
        locked(&target).add(key, record);
    })
    .map_err(MigrateError::Target)?;
    let target = into_inner(target);
    if source != target {
        return Err(MigrateError::Differ { from: source, to: target });
    }
    to.close().map_err(MigrateError::Target)?;
    Ok(Migrated { written, found, total: source })
}

/// A group that the target contained before.
struct Existing {
    hash: u128,
    /// Whether the source contains the same record.
    is_same: bool,
}

/// Writes the groups that the target lacks. Returns how many.
fn copy(
    from: &mut dyn Engine,
    to: &mut dyn Engine,
    threads: NonZeroUsize,
    existing: &HashMap<String, Existing>,
    progress: Progress<'_>,
) -> Result<u64, MigrateError> {
    let copy = Mutex::new(Copy { to, batch: Vec::new(), batch_bytes: 0, written: 0 });
    let read = from.read_until(threads, &|key, record| {
        progress(Phase::Copy, bytes(key, record));
        if existing.contains_key(key) {
            return ControlFlow::Continue(());
        }
        match locked(&copy).add(key, record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    });
    if let ControlFlow::Break(error) = read.map_err(MigrateError::Source)? {
        return Err(MigrateError::Target(error));
    }
    let mut copy = into_inner(copy);
    copy.flush(Durability::Disk).map_err(MigrateError::Target)?;
    Ok(copy.written)
}

struct Copy<'a> {
    to: &'a mut dyn Engine,
    batch: Vec<(String, Vec<u8>)>,
    batch_bytes: usize,
    written: u64,
}

impl Copy<'_> {
    fn add(&mut self, key: &str, record: &[u8]) -> Result<(), EngineError> {
        self.written += 1;
        self.batch_bytes += key.len() + record.len();
        self.batch.push((key.to_owned(), record.to_vec()));
        if self.batch_bytes < BATCH_BYTES {
            return Ok(());
        }
        self.flush(Durability::Process)
    }

    fn flush(&mut self, durability: Durability) -> Result<(), EngineError> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let changes: Vec<_> = batch.iter().map(|(key, record)| Change::Put { key, record }).collect();
        self.to.commit(&changes, durability).map(drop)
    }
}

fn bytes(key: &str, record: &[u8]) -> u64 {
    (key.len() + record.len()) as u64
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
