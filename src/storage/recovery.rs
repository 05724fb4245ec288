//! Recovering a failed store without a restart.
//!
//! The cause of a failure often ends by itself: a disk is full for a while, or descriptors run out. Memory has every group as it is
//! now, so the engine writes all of them to new files. It never trusts the old ones: after a failed sync, nobody knows what of them is
//! on the disk, and the operating system may return something else than was written. Writes are rejected until the new files are on the
//! disk.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record_writer::RecordWriter;
use super::store::GroupChange;
use crate::shard::Shard;
use crate::shard::key::GroupingKey;
use crate::shard::sides::CoreShards;

/// The shortest delay between the end of an attempt and the next one. After a long attempt, the delay is as long as the attempt, so that
/// a disk that stays full is not written to all the time.
const DELAY: Duration = Duration::from_millis(500);
/// How many keys are listed before the shard is released.
const LISTED_KEYS: usize = 4096;

/// When the next attempt begins.
#[derive(Debug)]
pub(super) struct Attempts {
    next: Instant,
}

impl Attempts {
    /// The store has failed now: the first attempt begins at once.
    pub(super) fn new() -> Self {
        Self { next: Instant::now() }
    }

    /// The time until the next attempt.
    pub(super) fn until_next(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// An attempt that began at this time has failed.
    pub(super) fn add_failed(&mut self, began: Instant) {
        let now = Instant::now();
        self.next = now + now.saturating_duration_since(began).max(DELAY);
    }
}

/// The keys of all groups. The shards are released now and then, so groups that change meanwhile may be missing.
pub(super) fn keys(shards: &[Arc<CoreShards>]) -> Vec<Arc<str>> {
    let mut keys = Vec::new();
    for core in shards {
        add_keys(|| core.main.lock_blocking(), &mut keys);
        for side in core.sides() {
            add_keys(|| side.shard.lock_blocking(), &mut keys);
        }
    }
    keys
}

fn add_keys<G: std::ops::Deref<Target = Shard>>(lock: impl Fn() -> G, keys: &mut Vec<Arc<str>>) {
    let mut next = Some(0);
    while let Some(from) = next {
        let some;
        (some, next) = lock().some_keys(from, LISTED_KEYS);
        keys.extend(some);
    }
}

/// Writes the record of a group as it is now. Returns false if the group does not exist.
///
/// Waits for the shard, and keeps it while it copies the record. A group of more than a few megabytes has a shard of its own.
pub(super) fn current_record(shards: &[Arc<CoreShards>], key: &Arc<str>, record: &mut Vec<u8>) -> bool {
    let key = GroupingKey::from_text(key.clone());
    let shard = shards[key.home(shards.len())].lock_shard_of(&key);
    let Some(group) = shard.group_number(key.text()) else { return false };
    match RecordWriter::whole(shard, group, std::mem::take(record)).advance(usize::MAX) {
        ControlFlow::Break((_, GroupChange::Put(written))) => *record = written,
        _ => unreachable!("a whole record is written at once without a limit"),
    }
    true
}
