//! The storage engine for one gateway with a disk: a log of batches, and one archive for each partition.
//!
//! * A commit appends one frame with one checksum to a segment of the log and, with [`Durability::Disk`], syncs it. It does
//!   nothing else, and no record stays in memory.
//! * *Compaction* merges a log that has grown into the archives, on a thread of its own and one partition after the other. It
//!   then replaces the manifest, which makes the new archives count, and reuses the segments that it merged.
//! * A start reads the archives and the rest of the log, on as many threads as the caller allows.
//!
//! There is no index, and no way to look up a single group. `docs/storage.md` describes the files byte by byte.
//!
//! [`Durability::Disk`]: sluicegate_engine::Durability::Disk

mod archive;
mod blanks;
mod compaction;
mod engine;
mod failure;
mod files;
mod generation;
mod log;
mod manifest;

mod parallel;
mod partition;
mod random;
mod store;
mod sync;
#[cfg(test)]
mod tests;
mod workers;

use std::time::Duration;

use sluicegate_engine::EngineDescriptor;

pub use engine::Snapshot;

/// The engine as programs list it.
pub const ENGINE: EngineDescriptor = EngineDescriptor {
    name: "snapshot",
    summary: "a log of changes, merged into archives",
    is_present: manifest::is_store_present,
    open: |folder, options| {
        let options = Options { compaction_interval: options.archive_interval, ..Options::default() };
        Snapshot::open(folder, options)
    },
};

/// Sizes and times. The defaults suit every gateway; tests use small ones.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The number of partitions, and so of archives, of a new store. An existing store keeps its number.
    pub partitions: usize,
    /// Length of the first log segment after a start. Each further segment is twice as long as the one before.
    pub segment_bytes_min: u64,
    /// Length at which segments stop growing. They stop earlier at a quarter of the size at which the log is compacted.
    pub segment_bytes_max: u64,
    /// The log is compacted when it exceeds this size. A store whose archives are smaller than a quarter of this compacts it when it is
    /// four times as large as they are, or a quarter of this; one with archives of more than four times this size when it is a
    /// quarter as large as they are, or four times this.
    pub log_bytes: u64,
    /// Interval at which a log that is not empty is compacted, however small it is; `None` for never. Needs `background`.
    pub compaction_interval: Option<Duration>,
    /// Whether threads sync, zero and compact in the background. If not, a commit does so at fixed points, which makes tests
    /// deterministic.
    pub background: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 64,
            segment_bytes_min: 1 << 20,
            segment_bytes_max: 64 << 20,
            log_bytes: 64 << 20,
            compaction_interval: None,
            background: true,
        }
    }
}
