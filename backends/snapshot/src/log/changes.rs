//! The changes within frames: their encoding, and those of a whole segment sorted by partition.

use bytes::{Buf, BufMut};
use sluicegate_engine::record::is_numbers;
use sluicegate_engine::{Change, EngineError};
use xxhash_rust::xxh3::xxh3_64;

use super::frame::Frame;
use super::segment::Segment;
use super::window::Window;
use crate::files::{Folder, OpenFile};

const DELETE: u8 = 0;
const PUT: u8 = 1;
/// Since version 2 of segments. Since version 3, it may be a patch of numbers.
const PATCH: u8 = 2;

/// The kind, and the lengths of key and record.
const HEADER_BYTES: usize = 9;

/// The error for a file that differs when it is read again.
pub(crate) const CHANGED_WHILE_READ: &str = "changed while it was read";

/// The size of a batch as [`encode`] writes it.
pub(crate) fn encoded_bytes(batch: &[Change<'_>]) -> u64 {
    batch.iter().map(|change| HEADER_BYTES as u64 + change.bytes()).sum()
}

/// Appends a batch to `out`.
pub(crate) fn encode(out: &mut Vec<u8>, batch: &[Change<'_>]) {
    for change in batch {
        let (kind, key, record) = match change {
            Change::Put { key, record } => (PUT, *key, *record),
            Change::Patch { key, patch } => (PATCH, *key, *patch),
            Change::Delete { key } => (DELETE, *key, &[][..]),
        };
        out.put_u8(kind);
        out.put_u32_le(key.len() as u32);
        out.put_u32_le(record.len() as u32);
        out.put_slice(key.as_bytes());
        out.put_slice(record);
    }
}

/// The changes of one segment.
#[derive(Debug)]
pub(crate) struct SegmentChanges {
    /// By partition.
    pub partitions: Vec<PartitionChanges>,
}

/// The changes of one partition in one segment, in the order of the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionChanges {
    /// All keys, one after the other.
    keys: String,
    changes: Vec<KeyChange>,
}

#[derive(Debug, Clone, Copy)]
struct KeyChange {
    /// Where in `keys` the key ends.
    key_end: u32,
    change: LoggedChange,
}

/// A change in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LoggedChange {
    Delete,
    Put(RecordLocation),
    Patch(RecordLocation),
    /// A patch that replaces one of its kind directly before it.
    Numbers(RecordLocation),
}

/// Where in a segment a record or patch is. Segments are smaller than 4 GiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordLocation {
    pub start: u32,
    bytes: u32,
    checksum: u32,
}

impl SegmentChanges {
    /// Reads the changes of the first `frames` frames. The file is read a second time, so it is checked a second time.
    pub fn read(
        folder: &Folder,
        segment: &Segment,
        frames: usize,
        partitions: usize,
    ) -> Result<Self, EngineError> {
        let mut changes = Self { partitions: vec![PartitionChanges::default(); partitions] };
        let file = segment.open(folder)?;
        let mut window = Window::new(&file, segment.header.length as usize);
        for frame in &segment.frames[..frames] {
            let damaged = |what| segment.damaged(folder, &format!("batch {}: {what}", frame.sequence));
            let again = Frame::read(&mut window, frame.start(), segment.header.run_id)?;
            let payload = window.get(frame.payload.clone())?.filter(|_| again.as_ref() == Some(frame));
            let payload = payload.ok_or_else(|| damaged(CHANGED_WHILE_READ))?;
            changes.add(payload, frame.payload.start).ok_or_else(|| damaged("invalid content"))?;
        }
        Ok(changes)
    }

    /// Adds the changes of a frame, which begin at offset `start` of the segment. Returns `None` if they are invalid.
    fn add(&mut self, payload: &[u8], start: usize) -> Option<()> {
        let mut rest = payload;
        while !rest.is_empty() {
            let (mut header, after) = rest.split_at_checked(HEADER_BYTES)?;
            let kind = header.get_u8();
            let key_bytes = header.get_u32_le();
            let record_bytes = header.get_u32_le();
            let (key, after) = after.split_at_checked(key_bytes as usize)?;
            let (record, after) = after.split_at_checked(record_bytes as usize)?;
            let key = std::str::from_utf8(key).ok()?;
            let record_start = start + payload.len() - after.len() - record.len();
            rest = after;
            let location = RecordLocation {
                start: record_start as u32,
                bytes: record_bytes,
                checksum: crc32c::crc32c(record),
            };
            let change = match kind {
                DELETE => LoggedChange::Delete,
                PUT => LoggedChange::Put(location),
                PATCH if is_numbers(record) => LoggedChange::Numbers(location),
                PATCH => LoggedChange::Patch(location),
                _ => return None,
            };
            let partition = partition_of(key, self.partitions.len());
            self.partitions[partition].push(key, change);
        }
        Some(())
    }
}

/// The partition of a group.
pub(crate) fn partition_of(key: &str, partitions: usize) -> usize {
    // The upper bits of the product: an even distribution for any number of partitions.
    ((u128::from(xxh3_64(key.as_bytes())) * partitions as u128) >> 64) as usize
}

impl PartitionChanges {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Each changed key, with its change.
    pub fn iter(&self) -> impl Iterator<Item = (&str, LoggedChange)> {
        let mut start = 0;
        self.changes.iter().map(move |change| {
            let end = change.key_end as usize;
            let key = &self.keys[start..end];
            start = end;
            (key, change.change)
        })
    }

    fn push(&mut self, key: &str, change: LoggedChange) {
        self.keys.push_str(key);
        self.changes.push(KeyChange { key_end: self.keys.len() as u32, change });
    }
}

impl RecordLocation {
    /// Reads the record from the file of its segment. Returns `None` if it has changed since it was located.
    pub fn read<'a>(
        &self,
        file: &OpenFile,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, EngineError> {
        buffer.resize(self.bytes as usize, 0);
        file.read_at(buffer, u64::from(self.start))?;
        Ok((crc32c::crc32c(buffer) == self.checksum).then_some(buffer))
    }
}
