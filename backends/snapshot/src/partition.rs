//! Reading one partition: its archive, and what the log says since.

use std::collections::{HashMap, VecDeque};
use std::ops::{ControlFlow, Range};

use rkyv::util::AlignedVec;
use sluicegate_engine::EngineError;
use sluicegate_engine::record::apply_patches;

use crate::archive;
use crate::files::{Folder, OpenFile};
use crate::log::changes::{CHANGED_WHILE_READ, LoggedChange, RecordLocation};
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
    log: LogBuffers,
}

/// How many segments are open at a time. Patches are read in the order of the archive, so each may be in another segment.
const OPEN_SEGMENTS_MAX: usize = 4;

/// Buffers for what is read from the log.
#[derive(Default)]
struct LogBuffers {
    /// Segments that are open, by their index in [`Replay::segments`]. The first one was opened last.
    open: VecDeque<(usize, OpenFile)>,
    record: Vec<u8>,
    /// The patches of a group, one after the other.
    patches: Vec<u8>,
    patch: Vec<u8>,
    patched: Vec<u8>,
}

/// Where in the log a record or patch is.
#[derive(Debug, Clone, Copy)]
struct LoggedRecord {
    /// Index in [`Replay::segments`].
    segment: usize,
    location: RecordLocation,
    /// Whether a patch of numbers directly after it replaces it.
    is_numbers: bool,
}

/// What the log says about a group.
#[derive(Debug)]
struct LoggedGroup {
    base: Base,
    /// Patches of the base, in the order of the log, without those that others replace.
    patches: Vec<LoggedRecord>,
}

impl LoggedGroup {
    fn add_patch(&mut self, patch: LoggedRecord) {
        match self.patches.last_mut().filter(|last| last.is_numbers && patch.is_numbers) {
            Some(last) => *last = patch,
            None => self.patches.push(patch),
        }
    }
}

/// The record to which the patches of a group apply.
#[derive(Debug, Clone, Copy)]
enum Base {
    /// The one in the archive, if there is one.
    Archived,
    Logged(LoggedRecord),
    Deleted,
}

impl PartitionReader<'_> {
    /// Whether the log changes anything in a partition.
    pub fn is_changed(&self, partition: usize) -> bool {
        let segments = &self.replay.segments;
        segments.iter().any(|segment| !segment.changes.partitions[partition].is_empty())
    }

    /// Passes each record of a partition to `visit`: first those of the archive that the log does not replace, then those of
    /// the log. Stops when `visit` does.
    pub fn read(
        &self,
        partition: usize,
        buffers: &mut Buffers,
        mut visit: impl FnMut(&str, &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, EngineError> {
        let changed = self.changed_groups(partition);
        if let Some(id) = self.manifest.archive(partition) {
            let entry = self.manifest.archives[partition];
            let mut error = None;
            let log = &mut buffers.log;
            let read =
                archive::read(self.folder, id, entry, &mut buffers.archive, |key, record| {
                    match changed.get(key) {
                        None => visit(key, record),
                        Some(LoggedGroup { base: Base::Archived, patches }) => {
                            match self.patched(record, patches, log) {
                                Ok(patched) => visit(key, patched),
                                Err(failed) => {
                                    error = Some(failed);
                                    ControlFlow::Break(())
                                }
                            }
                        }
                        Some(_) => ControlFlow::Continue(()),
                    }
                })?;
            match error {
                Some(error) => return Err(error),
                None if read.is_break() => return Ok(read),
                None => {}
            }
        }
        let logged = changed.into_iter().filter_map(|(key, group)| match group.base {
            Base::Logged(record) => Some((key, record, group.patches)),
            Base::Archived | Base::Deleted => None,
        });
        let mut logged: Vec<(&str, LoggedRecord, Vec<LoggedRecord>)> = logged.collect();
        // One segment after the other, each in the order on disk.
        logged.sort_unstable_by_key(|(_, record, _)| (record.segment, record.location.start));
        let mut record_bytes = std::mem::take(&mut buffers.log.record);
        for groups in logged.chunk_by(|(_, a, _), (_, b, _)| a.segment == b.segment) {
            let segment = &self.replay.segments[groups[0].1.segment].segment;
            let file = segment.open(self.folder)?;
            for (key, record, patches) in groups {
                let record = record.location.read(&file, &mut record_bytes)?;
                let record = record.ok_or_else(|| segment.damaged(self.folder, CHANGED_WHILE_READ))?;
                if visit(key, self.patched(record, patches, &mut buffers.log)?).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        buffers.log.record = record_bytes;
        Ok(ControlFlow::Continue(()))
    }

    /// A record after its patches.
    fn patched<'r>(
        &self,
        record: &'r [u8],
        patches: &[LoggedRecord],
        buffers: &'r mut LogBuffers,
    ) -> Result<&'r [u8], EngineError> {
        let Some(last) = patches.last() else { return Ok(record) };
        buffers.patches.clear();
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(patches.len());
        for patch in patches {
            let file = self.open_segment(patch.segment, &mut buffers.open)?;
            let read = patch.location.read(file, &mut buffers.patch)?;
            let segment = &self.replay.segments[patch.segment].segment;
            let read = read.ok_or_else(|| segment.damaged(self.folder, CHANGED_WHILE_READ))?;
            let start = buffers.patches.len();
            buffers.patches.extend_from_slice(read);
            ranges.push(start..buffers.patches.len());
        }
        let patches: Vec<&[u8]> = ranges.into_iter().map(|range| &buffers.patches[range]).collect();
        buffers.patched.clear();
        apply_patches(record, &patches, &mut buffers.patched).map_err(|error| {
            let segment = &self.replay.segments[last.segment].segment;
            segment.damaged(self.folder, &format!("a group cannot be patched: {error}"))
        })?;
        Ok(&buffers.patched)
    }

    /// The file of a segment, which is opened unless it is open.
    fn open_segment<'o>(
        &self,
        segment: usize,
        open: &'o mut VecDeque<(usize, OpenFile)>,
    ) -> Result<&'o OpenFile, EngineError> {
        let at = match open.iter().position(|(index, _)| *index == segment) {
            Some(at) => at,
            None => {
                open.truncate(OPEN_SEGMENTS_MAX - 1);
                open.push_front((segment, self.replay.segments[segment].segment.open(self.folder)?));
                0
            }
        };
        Ok(&open[at].1)
    }

    /// The groups that the log changes, by key.
    fn changed_groups(&self, partition: usize) -> HashMap<&str, LoggedGroup> {
        let mut changed: HashMap<&str, LoggedGroup> = HashMap::new();
        for (segment, replayed) in self.replay.segments.iter().enumerate() {
            let logged = |location, is_numbers| LoggedRecord { segment, location, is_numbers };
            for (key, change) in replayed.changes.partitions[partition].iter() {
                let replaced = |base| LoggedGroup { base, patches: Vec::new() };
                match change {
                    LoggedChange::Delete => {
                        changed.insert(key, replaced(Base::Deleted));
                    }
                    LoggedChange::Put(location) => {
                        changed.insert(key, replaced(Base::Logged(logged(location, false))));
                    }
                    LoggedChange::Patch(location) | LoggedChange::Numbers(location) => {
                        let is_numbers = matches!(change, LoggedChange::Numbers(_));
                        let group = changed.entry(key).or_insert_with(|| replaced(Base::Archived));
                        group.add_patch(logged(location, is_numbers));
                    }
                }
            }
        }
        changed
    }
}
