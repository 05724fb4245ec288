//! Reading one partition: its archive, and what the log says since.

use std::collections::HashMap;
use std::ops::ControlFlow;

use rkyv::util::AlignedVec;
use sluicegate_engine::EngineError;

use crate::archive;
use crate::files::Folder;
use crate::log::changes::{CHANGED_WHILE_READ, RecordLocation};
use crate::log::replay::Replay;
use crate::manifest::Manifest;

/// Reads partitions of a store that does not change in the meantime.
pub(crate) struct PartitionReader<'a> {
    pub folder: &'a Folder,
    pub manifest: &'a Manifest,
    pub replay: &'a Replay,
}

/// Buffers that are reused from partition to partition.
#[derive(Default)]
pub(crate) struct Buffers {
    archive: AlignedVec,
    record: Vec<u8>,
}

/// Where in the log a record is.
struct LoggedRecord {
    /// Index in [`Replay::segments`].
    segment: usize,
    location: RecordLocation,
}

impl PartitionReader<'_> {
    /// Whether the log changes anything in a partition.
    pub fn is_changed(&self, partition: usize) -> bool {
        let segments = &self.replay.segments;
        segments.iter().any(|segment| !segment.changes.partitions[partition].is_empty())
    }

    /// Passes each record of a partition to `visit`: first those of the archive that the log does not change, then those of
    /// the log. Stops when `visit` does.
    pub fn read(
        &self,
        partition: usize,
        buffers: &mut Buffers,
        mut visit: impl FnMut(&str, &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, EngineError> {
        let changed = self.changed_keys(partition);
        if let Some(id) = self.manifest.archive(partition) {
            let entry = self.manifest.archives[partition];
            let read = archive::read(self.folder, id, entry, &mut buffers.archive, |key, record| {
                if !changed.is_empty() && changed.contains_key(key) {
                    return ControlFlow::Continue(());
                }
                visit(key, record)
            })?;
            if read.is_break() {
                return Ok(read);
            }
        }
        let mut records: Vec<(&str, LoggedRecord)> =
            changed.into_iter().filter_map(|(key, record)| Some((key, record?))).collect();
        // One segment after the other, each in the order on disk.
        records.sort_unstable_by_key(|(_, record)| (record.segment, record.location.start));
        for records in records.chunk_by(|(_, a), (_, b)| a.segment == b.segment) {
            let segment = &self.replay.segments[records[0].1.segment].segment;
            let file = segment.open(self.folder)?;
            for (key, record) in records {
                let record = record.location.read(&file, &mut buffers.record)?;
                let record = record.ok_or_else(|| segment.damaged(self.folder, CHANGED_WHILE_READ))?;
                if visit(key, record).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The keys that the log changes, each with its last record or `None` if the group was deleted.
    fn changed_keys(&self, partition: usize) -> HashMap<&str, Option<LoggedRecord>> {
        let mut changed = HashMap::new();
        for (segment, replayed) in self.replay.segments.iter().enumerate() {
            let changes = replayed.changes.partitions[partition].iter();
            changed.extend(
                changes.map(|(key, location)| {
                    (key, location.map(|location| LoggedRecord { segment, location }))
                }),
            );
        }
        changed
    }
}
