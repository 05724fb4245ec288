//! The engine for one gateway with a disk: a log of batches, and now and then an archive of each partition that changed.
//!
//! * A batch is one frame with one checksum, appended to a segment of the log and, if asked for, synced. Nothing else
//!   happens on the way of a commit, and nothing of a record stays in memory.
//! * When the log has grown, a thread of its own merges it into the archives, one partition after the other, and replaces
//!   the manifest: from then on the new archives count, and the segments that are in them are used again.
//! * A start reads the archives and what the log says since, on as many threads as it is given.
//!
//! What it does not do: it has no index, and cannot look up a single group. `docs/storage.md` draws the files byte by byte.

mod archive;
mod bytes;
mod compaction;
mod engine;
mod files;
mod log;
mod manifest;
mod panics;
mod parallel;
mod store;
#[cfg(test)]
mod tests;
mod workers;

use std::path::Path;
use std::time::Duration;

use sluicegate_engine::EngineDescriptor;

pub use engine::Snapshot;

/// The engine as programs list it.
pub const ENGINE: EngineDescriptor = EngineDescriptor {
    name: "snapshot",
    summary: "a log of changes, merged into archives",
    is_present,
    open: |folder, options| {
        let options = Options { archive_interval: options.archive_interval, ..Options::default() };
        Ok(Box::new(Snapshot::open(folder, options)?))
    },
};

/// Without a manifest, too: a store that has lost it is damaged, not absent.
fn is_present(folder: &Path) -> bool {
    if folder.join("manifest").exists() {
        return true;
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.any(|name| name.starts_with("log-0") || name.starts_with("archive-0"))
}

/// Sizes. The defaults fit every gateway; tests want everything small.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Into how many archives a new store is split. An existing one keeps the number it has.
    pub partitions: usize,
    /// The first segment of the log after a start; each further one is twice as large,
    pub segment_bytes_min: u64,
    /// up to this.
    pub segment_bytes_max: u64,
    /// The log is merged into the archives when it is this large, or a quarter of the archives, but at most four times this.
    pub log_bytes: u64,
    /// How often a log with anything in it is merged into the archives, however small it is; `None`: never for that. Needs
    /// `background`.
    pub archive_interval: Option<Duration>,
    /// Whether syncs that nobody waits for, zeroing and merging happen on threads of their own. If not, they happen within a
    /// commit, always at the same point.
    pub background: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 64,
            segment_bytes_min: 1 << 20,
            segment_bytes_max: 64 << 20,
            log_bytes: 64 << 20,
            archive_interval: None,
            background: true,
        }
    }
}
