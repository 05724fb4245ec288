//! The end of the log that is written: one segment at a time.

use sluicegate_engine::EngineError;

use crate::files::{ASIDE, Handle};
use crate::log::segment::{self, HEAD_BYTES, Head};
use crate::store::Shared;

/// The segment that batches are appended to.
pub(crate) struct Tail {
    pub handle: Handle,
    /// Part of its name.
    pub number: u64,
    at: u64,
    length: u64,
    asked_for_next: bool,
}

impl Tail {
    /// Begins a segment for a frame of some length. Everything about it is on the disk before a batch is in it.
    pub fn begin(
        shared: &Shared,
        before: Option<&Self>,
        epoch: u64,
        first: u64,
        frame_bytes: usize,
    ) -> Result<Self, EngineError> {
        let options = &shared.options;
        let usual = before.map_or(options.segment_bytes_min, |before| next_length(before, shared));
        let length = usual.max((HEAD_BYTES + frame_bytes) as u64).next_multiple_of(8);
        let blank = shared.take_blank(length)?;
        let (store, number) = shared.with_manifest(|manifest| (manifest.store, manifest.log_last + 1));
        let synced = shared.synced.load(std::sync::atomic::Ordering::Acquire);
        let head = Head { store, epoch, number, first, synced, length: blank.length };
        blank.handle.write_at(&head.encode(), 0)?;
        blank.handle.sync()?;
        let name = segment::name(number);
        let handle = shared.folder.rename_open(blank.handle, &blank.name, &name)?;
        shared.folder.sync()?;
        shared.publish(|manifest| {
            manifest.log_last = number;
            manifest.closed = false;
        })?;
        shared.set_tail(handle.clone());
        Ok(Self { handle, number, at: HEAD_BYTES as u64, length: blank.length, asked_for_next: false })
    }

    /// Whether a frame fits in.
    pub fn has_room(&self, frame_bytes: usize) -> bool {
        self.at + frame_bytes as u64 <= self.length
    }

    /// Appends a frame that fits in.
    pub fn append(&mut self, frame: &[u8]) -> Result<(), EngineError> {
        self.handle.write_at(frame, self.at)?;
        self.at += frame.len() as u64;
        Ok(())
    }

    /// Once, when half of it is full: the length of the segment that will be needed next.
    pub fn wants_next(&mut self, shared: &Shared) -> Option<u64> {
        if self.asked_for_next || self.at < self.length / 2 {
            return None;
        }
        self.asked_for_next = true;
        Some(next_length(self, shared))
    }
}

fn next_length(before: &Tail, shared: &Shared) -> u64 {
    (before.length * 2).min(shared.options.segment_bytes_max)
}

/// Makes a folder ready to be written after a start: a manifest, and nothing that means nothing.
pub(crate) fn tidy(shared: &Shared) -> Result<(), EngineError> {
    // It may be the first, or one that an error kept from the disk: before files go, this one must be there to stay.
    shared.publish(|_| {})?;
    let counts = shared.manifest();
    let names = shared.folder.names()?;
    let archives: Vec<String> = crate::compaction::places(&counts).map(|place| place.name()).collect();
    for name in names {
        let is_segment = name.strip_prefix("log-").and_then(|number| number.parse::<u64>().ok());
        let rubbish = name.ends_with(ASIDE)
            || is_segment.is_some_and(|number| !(counts.log_first..=counts.log_last).contains(&number))
            || (name.starts_with("archive-") && !archives.contains(&name));
        if rubbish {
            shared.folder.remove(&name)?;
        }
    }
    Ok(())
}
