//! A segment: one file of the log, with a header, frames, and zeros to its end. [`super::replay`] decides what several
//! segments mean together.
//!
//! A segment has its full length from the start, zeroed and synced. A commit then changes content only, which halves the cost
//! of a sync, and a file that is shorter than its header says was damaged, not torn by a crash.

use bytes::{Buf, BufMut};
use sluicegate_engine::EngineError;

use super::frame::{self, ALIGNMENT, Frame};
use super::window::Window;
use crate::files::{Folder, OpenFile};

const MAGIC: [u8; 8] = *b"SLGLOG\0\0";
/// Version 2 added patches, and version 3 patches of numbers. An earlier version could not skip them, so every new segment has version 3.
const VERSION: u32 = 3;
pub(crate) const HEADER_BYTES: usize = 72;
const CHECKSUM_OFFSET: usize = HEADER_BYTES - 8;

const NAME_PREFIX: &str = "log-";

/// The name of the segment with this number.
pub(crate) fn file_name(number: u64) -> String {
    format!("{NAME_PREFIX}{number:010}")
}

/// The number in the name of a segment; `None` for other files.
pub(crate) fn number_in(file_name: &str) -> Option<u64> {
    file_name.strip_prefix(NAME_PREFIX)?.parse().ok()
}

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SegmentHeader {
    pub store_id: u64,
    /// The run of the process that wrote the segment; all its frames carry it.
    pub run_id: u64,
    /// The number in the file's name.
    pub number: u64,
    /// The number of the first batch.
    pub first_sequence: u64,
    /// The mark: batches up to this one were on the disk when the segment was begun.
    pub synced: u64,
    /// The length of the file.
    pub length: u64,
}

impl SegmentHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.put_slice(&MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(0);
        out.put_u64_le(self.store_id);
        out.put_u64_le(self.run_id);
        out.put_u64_le(self.number);
        out.put_u64_le(self.first_sequence);
        out.put_u64_le(self.synced);
        out.put_u64_le(self.length);
        out.put_u32_le(crc32c::crc32c(&out));
        out.put_u32_le(0);
        out
    }

    /// Decodes the header from the beginning of a file.
    fn decode(bytes: &[u8], folder: &Folder, name: &str) -> Result<Self, EngineError> {
        let damaged = |what: &str| Err(folder.damaged(name, what));
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return damaged("shorter than its header");
        };
        let (mut fields, mut checksum) = header.split_at(CHECKSUM_OFFSET);
        if crc32c::crc32c(fields) != checksum.get_u32_le() {
            return damaged("wrong checksum of the header");
        }
        if !fields.starts_with(&MAGIC) {
            return damaged("not a log segment");
        }
        fields.advance(MAGIC.len());
        let version = fields.get_u32_le();
        if version > VERSION {
            return Err(EngineError::TooNew { file: folder.path(name), found: version, known: VERSION });
        }
        fields.advance(4);
        Ok(Self {
            store_id: fields.get_u64_le(),
            run_id: fields.get_u64_le(),
            number: fields.get_u64_le(),
            first_sequence: fields.get_u64_le(),
            synced: fields.get_u64_le(),
            length: fields.get_u64_le(),
        })
    }
}

/// A segment whose frames were read and checked. Their changes remain in the file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub header: SegmentHeader,
    /// The frames, numbered without gaps from `header.first_sequence`.
    pub frames: Vec<Frame>,
    /// The offset after the last of `frames`, if the rest of the file is not zero there.
    pub torn_at: Option<usize>,
    pub beyond: FramesBeyond,
}

/// Intact frames after the place at which a segment is torn. Their marks show how much of what is missing had reached the disk.
#[derive(Debug, Default)]
pub(crate) struct FramesBeyond {
    pub count: usize,
    /// The highest mark in them.
    pub synced: u64,
}

impl Segment {
    /// Reads a segment and checks every frame.
    pub fn read(folder: &Folder, number: u64, store_id: u64) -> Result<Self, EngineError> {
        let name = file_name(number);
        let Some(file) = folder.open_if_exists(&name)? else {
            return Err(folder.damaged(&name, "missing, but listed in the manifest"));
        };
        let length = file.length()?;
        let mut header = vec![0; HEADER_BYTES.min(length as usize)];
        file.read_at(&mut header, 0)?;
        let header = SegmentHeader::decode(&header, folder, &name)?;
        if header.store_id != store_id {
            return Err(folder.damaged(&name, "belongs to another store"));
        }
        if header.number != number {
            return Err(folder.damaged(&name, &format!("segment {} under another name", header.number)));
        }
        if header.length != length {
            return Err(folder.damaged(&name, &format!("{length} bytes long instead of {}", header.length)));
        }
        let mut segment = Self { header, frames: Vec::new(), torn_at: None, beyond: FramesBeyond::default() };
        segment.read_frames(&mut Window::new(&file, length as usize))?;
        Ok(segment)
    }

    /// Opens the file. A log may have many segments, so their files are open only while they are read.
    pub fn open(&self, folder: &Folder) -> Result<OpenFile, EngineError> {
        folder.open(&self.file_name())
    }

    pub fn file_name(&self) -> String {
        file_name(self.header.number)
    }

    /// The error for a segment that is not as it was written.
    pub fn damaged(&self, folder: &Folder, what: &str) -> EngineError {
        folder.damaged(&self.file_name(), what)
    }

    /// The number of the last batch in `frames`; one below the first if there is none.
    pub fn last_sequence(&self) -> u64 {
        self.header.first_sequence + self.frames.len() as u64 - 1
    }

    /// The offset after the last of `frames`.
    pub fn used_bytes(&self) -> usize {
        self.frames.last().map_or(HEADER_BYTES, Frame::end)
    }

    /// The highest mark in the segment.
    pub fn synced(&self) -> u64 {
        let in_frames = self.frames.last().map_or(0, |frame| frame.synced);
        self.header.synced.max(in_frames).max(self.beyond.synced)
    }

    fn read_frames(&mut self, window: &mut Window<'_>) -> Result<(), EngineError> {
        let run_id = self.header.run_id;
        while let Some(frame) = Frame::read(window, self.used_bytes(), run_id)? {
            if frame.sequence != self.last_sequence() + 1 {
                break;
            }
            self.frames.push(frame);
        }
        let end = self.used_bytes().min(window.length());
        if window.is_zero_from(end)? {
            return Ok(());
        }
        self.torn_at = Some(end);
        let mut at = end;
        while at + frame::HEADER_BYTES <= window.length() {
            match Frame::read(window, at, run_id)? {
                Some(frame) => {
                    self.beyond.count += 1;
                    self.beyond.synced = self.beyond.synced.max(frame.synced);
                    at = frame.end();
                }
                None => at += ALIGNMENT,
            }
        }
        Ok(())
    }
}
