//! Appending to the log: one segment is written at a time.

use sluicegate_engine::EngineError;

use super::frame::ALIGNMENT;
use super::segment::{self, HEADER_BYTES, SegmentHeader};
use crate::files::OpenFile;
use crate::store::Store;

/// The segment to which batches are appended.
pub(crate) struct SegmentWriter {
    pub file: OpenFile,
    /// The number in the file's name.
    pub number: u64,
    position: u64,
    length: u64,
    requested_next: bool,
}

/// The properties of a new segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewSegment {
    pub run_id: u64,
    /// The number of the first batch.
    pub first_sequence: u64,
    /// The size of the first frame, which must fit.
    pub frame_bytes: usize,
}

impl SegmentWriter {
    /// Creates the segment after `previous`, the one of this run before it. On return, everything about it is on the disk.
    pub fn create(store: &Store, previous: Option<&Self>, new: NewSegment) -> Result<Self, EngineError> {
        let usual = match previous {
            Some(previous) => previous.next_length(store),
            None => store.options.segment_bytes_min,
        };
        let length = usual.max((HEADER_BYTES + new.frame_bytes) as u64).next_multiple_of(ALIGNMENT as u64);
        let blank = store.blanks.take(length)?;
        let (store_id, number) =
            store.with_manifest(|manifest| (manifest.store_id, manifest.last_segment + 1));
        let header = SegmentHeader {
            store_id,
            run_id: new.run_id,
            number,
            first_sequence: new.first_sequence,
            synced: store.syncs.synced(),
            length: blank.length,
        };
        blank.file.write_at(&header.encode(), 0)?;
        blank.file.sync()?;
        let file = store.folder.rename_open(blank.file, &blank.name, &segment::file_name(number))?;
        store.folder.sync()?;
        store.update_manifest(|manifest| {
            manifest.last_segment = number;
            manifest.closed = false;
        })?;
        store.syncs.set_current_file(file.clone());
        Ok(Self { file, number, position: HEADER_BYTES as u64, length: blank.length, requested_next: false })
    }

    pub fn has_space(&self, frame_bytes: usize) -> bool {
        self.position + frame_bytes as u64 <= self.length
    }

    /// Appends a frame, for which there must be space.
    pub fn append(&mut self, frame: &[u8]) -> Result<(), EngineError> {
        self.file.write_at(frame, self.position)?;
        self.position += frame.len() as u64;
        Ok(())
    }

    /// Returns the length of the next segment once, when this one is half full.
    pub fn request_next(&mut self, store: &Store) -> Option<u64> {
        if self.requested_next || self.position < self.length / 2 {
            return None;
        }
        self.requested_next = true;
        Some(self.next_length(store))
    }

    /// The length of the next segment: twice that of this one if it was used, half if it was not.
    fn next_length(&self, store: &Store) -> u64 {
        let length = if self.position >= self.length / 2 { self.length * 2 } else { self.length / 2 };
        length.min(store.segment_bytes_max()).max(store.options.segment_bytes_min)
    }
}
