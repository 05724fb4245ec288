//! One file of the log: a head, frames, and zeros up to its end. Written and read here; what several of them mean together
//! stands in [`crate::log::replay`].
//!
//! A segment has its full length from the start, zeroed and synced, so that a batch changes content only: syncing it costs
//! half. And a file that is shorter was damaged, not torn.

use std::ops::Range;

use sluicegate_engine::{Change, EngineError};
use xxhash_rust::xxh3::xxh3_64;

use crate::bytes::{Fields, is_zero, u32_at, u64_at};
use crate::files::{Folder, Handle};
use crate::manifest::damaged;

const MAGIC: [u8; 8] = *b"SLGLOG\0\0";
const VERSION: u32 = 1;
pub(crate) const HEAD_BYTES: usize = 72;
pub(crate) const FRAME_HEAD_BYTES: usize = 32;
const CHANGE_HEAD_BYTES: usize = 9;
/// What is read of a segment at a time.
const WINDOW_BYTES: usize = 256 * 1024;
/// Frames begin at multiples of this.
const ALIGNMENT: usize = 8;
/// The most that the changes of one batch may weigh.
pub(crate) const BATCH_BYTES_MAX: u64 = 1 << 30;

/// What is wrong with a file that is not the same when it is read again.
pub(crate) const CHANGED: &str = "changed while it was read";

const DELETE: u8 = 0;
const PUT: u8 = 1;
const WIPE: u8 = 2;

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Head {
    pub store: u64,
    /// Of the run that wrote it; all its frames carry it.
    pub epoch: u64,
    /// Part of its name.
    pub number: u64,
    /// The number of its first batch.
    pub first: u64,
    /// Batches up to this one were on the disk when it was begun.
    pub synced: u64,
    /// The length of the file.
    pub length: u64,
}

pub(crate) fn name(number: u64) -> String {
    format!("log-{number:010}")
}

impl Head {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 4]);
        for number in [self.store, self.epoch, self.number, self.first, self.synced, self.length] {
            out.extend(number.to_le_bytes());
        }
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out.extend([0; 4]);
        out
    }

    fn decode(bytes: &[u8], folder: &Folder, name: &str) -> Result<Self, EngineError> {
        let wrong = |what: &str| Err(damaged(folder, name, what));
        let Some(head) = bytes.get(..HEAD_BYTES) else { return wrong("shorter than its head") };
        if u32_at(head, HEAD_BYTES - 8) != crc32c::crc32c(&head[..HEAD_BYTES - 8]) {
            return wrong("the checksum of the head is wrong");
        }
        let mut fields = Fields(head);
        if fields.magic() != MAGIC {
            return wrong("does not begin like a segment of a log");
        }
        let version = fields.u32();
        if version > VERSION {
            return Err(EngineError::TooNew { file: folder.path(name), found: version, known: VERSION });
        }
        fields.u32();
        Ok(Self {
            store: fields.u64(),
            epoch: fields.u64(),
            number: fields.u64(),
            first: fields.u64(),
            synced: fields.u64(),
            length: fields.u64(),
        })
    }
}

/// Makes the frame of a batch in `out`: 32 bytes of head, the changes, zeros up to a multiple of 8.
pub(crate) fn frame(
    out: &mut Vec<u8>,
    batch: &[Change<'_>],
    sequence: u64,
    synced: u64,
    epoch: u64,
) -> Result<(), EngineError> {
    let weight = |change: &Change<'_>| match change {
        Change::Put { key, record } => CHANGE_HEAD_BYTES + key.len() + record.len(),
        Change::Delete { key } => CHANGE_HEAD_BYTES + key.len(),
        Change::Wipe => CHANGE_HEAD_BYTES,
    };
    let bytes = batch.iter().map(|change| weight(change) as u64).sum();
    if bytes > BATCH_BYTES_MAX {
        return Err(EngineError::TooLarge { bytes, bytes_max: BATCH_BYTES_MAX });
    }
    out.clear();
    out.reserve(FRAME_HEAD_BYTES + bytes as usize + ALIGNMENT);
    out.extend([0; 4]);
    out.extend((bytes as u32).to_le_bytes());
    for number in [sequence, synced, epoch] {
        out.extend(number.to_le_bytes());
    }
    for change in batch {
        let (kind, key, record) = match change {
            Change::Put { key, record } => (PUT, *key, *record),
            Change::Delete { key } => (DELETE, *key, &[][..]),
            Change::Wipe => (WIPE, "", &[][..]),
        };
        out.push(kind);
        out.extend((key.len() as u32).to_le_bytes());
        out.extend((record.len() as u32).to_le_bytes());
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(record);
    }
    let checksum = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&checksum.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(())
}

/// Where a batch stands in a segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub sequence: u64,
    pub synced: u64,
    /// Its changes.
    pub payload: Range<usize>,
}

impl Frame {
    /// Reads the frame at a place, if there is a whole one.
    fn at(window: &mut Window<'_>, at: usize, epoch: u64) -> Result<Option<Self>, EngineError> {
        let start = at + FRAME_HEAD_BYTES;
        let Some(head) = window.get(at..start)?.filter(|head| u64_at(head, 24) == epoch) else {
            return Ok(None);
        };
        let (checksum, bytes) = (u32_at(head, 0), u32_at(head, 4) as usize);
        let frame =
            Self { sequence: u64_at(head, 8), synced: u64_at(head, 16), payload: start..start + bytes };
        let covered = window.get(at + 4..frame.payload.end)?;
        Ok(covered.is_some_and(|covered| crc32c::crc32c(covered) == checksum).then_some(frame))
    }

    fn end(&self) -> usize {
        self.payload.end.next_multiple_of(ALIGNMENT)
    }
}

/// Bytes of a segment, a piece at a time: it may be larger than what there is of memory.
struct Window<'a> {
    handle: &'a Handle,
    length: usize,
    buffer: Vec<u8>,
    /// Where in the segment the buffer begins.
    start: usize,
}

impl<'a> Window<'a> {
    fn new(handle: &'a Handle, length: usize) -> Self {
        Self { handle, length, buffer: Vec::new(), start: 0 }
    }

    /// The bytes of a range, or `None` if it is not inside.
    fn get(&mut self, range: Range<usize>) -> Result<Option<&[u8]>, EngineError> {
        if range.end > self.length {
            return Ok(None);
        }
        if range.start < self.start || range.end > self.start + self.buffer.len() {
            let bytes = range.len().max(WINDOW_BYTES).min(self.length - range.start);
            self.buffer.resize(bytes, 0);
            // After an error it holds nothing.
            self.start = self.length;
            self.handle.read_at(&mut self.buffer, range.start as u64)?;
            self.start = range.start;
        }
        let start = range.start - self.start;
        Ok(self.buffer.get(start..start + range.len()))
    }

    /// Whether all is zero from a place on.
    fn is_zero_from(&mut self, start: usize) -> Result<bool, EngineError> {
        for at in (start..self.length).step_by(WINDOW_BYTES) {
            let piece = self.get(at..(at + WINDOW_BYTES).min(self.length))?;
            if !piece.is_some_and(is_zero) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A segment whose frames were read and checked. Their changes stay in the file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub head: Head,
    /// Its batches, numbered without a gap from `head.first` on.
    pub frames: Vec<Frame>,
    /// Where something stands behind the last of them that does not belong there.
    pub torn: Option<usize>,
    /// What whole frames behind that place say was on the disk, and how many there are.
    pub beyond: (u64, usize),
}

impl Segment {
    /// Reads a segment and checks every frame.
    pub fn read(folder: &Folder, number: u64, store: u64) -> Result<Self, EngineError> {
        let name = name(number);
        let Some(handle) = folder.open_if_there(&name)? else {
            return Err(damaged(folder, &name, "missing, although the manifest names it"));
        };
        let length = handle.length()?;
        let mut head = vec![0; HEAD_BYTES.min(length as usize)];
        handle.read_at(&mut head, 0)?;
        let head = Head::decode(&head, folder, &name)?;
        if (head.number, head.store) != (number, store) {
            return Err(damaged(folder, &name, "a segment of another place or store"));
        }
        if head.length != length {
            let what = format!("has {length} bytes instead of {}", head.length);
            return Err(damaged(folder, &name, &what));
        }
        let mut segment = Self { head, frames: Vec::new(), torn: None, beyond: (0, 0) };
        segment.walk(&mut Window::new(&handle, length as usize))?;
        Ok(segment)
    }

    /// Opens its file. There may be many segments, so they are open only while they are read.
    pub fn open(&self, folder: &Folder) -> Result<Handle, EngineError> {
        folder.open(&name(self.head.number))
    }

    /// The error that says what is wrong with it.
    pub fn damaged(&self, folder: &Folder, what: &str) -> EngineError {
        damaged(folder, &name(self.head.number), what)
    }

    /// The number of its last batch that can be reached, one below its first if there is none.
    pub fn last(&self) -> u64 {
        self.head.first + self.frames.len() as u64 - 1
    }

    /// Where the next frame would stand.
    pub fn used(&self) -> usize {
        self.frames.last().map_or(HEAD_BYTES, Frame::end)
    }

    fn walk(&mut self, window: &mut Window<'_>) -> Result<(), EngineError> {
        let epoch = self.head.epoch;
        while let Some(frame) = Frame::at(window, self.used(), epoch)? {
            if frame.sequence != self.last() + 1 {
                break;
            }
            self.frames.push(frame);
        }
        let end = self.used().min(window.length);
        if window.is_zero_from(end)? {
            return Ok(());
        }
        self.torn = Some(end);
        // Frames behind a gap say how much of what is missing was known to be on the disk.
        let mut at = end;
        while at + FRAME_HEAD_BYTES <= window.length {
            match Frame::at(window, at, epoch)? {
                Some(frame) => {
                    self.beyond = (self.beyond.0.max(frame.synced), self.beyond.1 + 1);
                    at = frame.end();
                }
                None => at += ALIGNMENT,
            }
        }
        Ok(())
    }
}

/// Where in a segment a record stands. Segments are below 4 GiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FoundPut {
    pub start: u32,
    bytes: u32,
    checksum: u32,
}

impl FoundPut {
    /// Reads the record from the file of its segment. `None` if it is not what it was.
    pub fn read<'a>(
        &self,
        handle: &Handle,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, EngineError> {
        buffer.resize(self.bytes as usize, 0);
        handle.read_at(buffer, u64::from(self.start))?;
        Ok((crc32c::crc32c(buffer) == self.checksum).then_some(buffer))
    }
}

/// The changes of one partition in one segment, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionChanges {
    /// All keys, one behind the other.
    keys: String,
    /// Where each key ends, and its record; `None` if the group was deleted.
    changes: Vec<(u32, Option<FoundPut>)>,
}

impl PartitionChanges {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.changes.clear();
    }

    fn push(&mut self, key: &str, put: Option<FoundPut>) {
        self.keys.push_str(key);
        self.changes.push((self.keys.len() as u32, put));
    }

    /// Each key with its record.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<FoundPut>)> {
        let mut start = 0;
        self.changes.iter().map(move |(end, put)| {
            let key = &self.keys[start..*end as usize];
            start = *end as usize;
            (key, *put)
        })
    }
}

/// The changes of one segment, by partition.
#[derive(Debug)]
pub(crate) struct Changes {
    /// What came before the segment does not count.
    pub wiped: bool,
    /// Since the last wipe.
    pub partitions: Vec<PartitionChanges>,
}

/// The partition of a key.
pub(crate) fn partition(key: &[u8], partitions: usize) -> usize {
    // The upper bits, multiplied out: an even spread for any number.
    ((u128::from(xxh3_64(key)) * partitions as u128) >> 64) as usize
}

/// Sorts the changes of the first frames of a segment. They are read anew, so they are checked anew.
pub(crate) fn changes(
    folder: &Folder,
    segment: &Segment,
    frames: usize,
    partitions: usize,
) -> Result<Changes, EngineError> {
    let mut changes = Changes { wiped: false, partitions: vec![PartitionChanges::default(); partitions] };
    let handle = segment.open(folder)?;
    let mut window = Window::new(&handle, segment.head.length as usize);
    for frame in &segment.frames[..frames] {
        let wrong = |what| segment.damaged(folder, &format!("batch {} {what}", frame.sequence));
        let start = frame.payload.start;
        let again = Frame::at(&mut window, start - FRAME_HEAD_BYTES, segment.head.epoch)?;
        let payload = window.get(frame.payload.clone())?.filter(|_| again.as_ref() == Some(frame));
        let payload = payload.ok_or_else(|| wrong(CHANGED))?;
        changes.read(payload, start).ok_or_else(|| wrong("says what cannot be"))?;
    }
    Ok(changes)
}

impl Changes {
    /// Reads those of a frame which begin at `start` in the segment. `None` if they say what cannot be.
    fn read(&mut self, payload: &[u8], start: usize) -> Option<()> {
        let mut rest = payload;
        while !rest.is_empty() {
            let (head, after) = rest.split_at_checked(CHANGE_HEAD_BYTES)?;
            let (kind, key_bytes, bytes) = (head[0], u32_at(head, 1), u32_at(head, 5));
            let (key, after) = after.split_at_checked(key_bytes as usize)?;
            let (record, after) = after.split_at_checked(bytes as usize)?;
            let key = std::str::from_utf8(key).ok()?;
            let put = FoundPut {
                start: (start + payload.len() - after.len() - record.len()) as u32,
                bytes,
                checksum: crc32c::crc32c(record),
            };
            rest = after;
            let put = match kind {
                WIPE => {
                    self.wiped = true;
                    self.partitions.iter_mut().for_each(PartitionChanges::clear);
                    continue;
                }
                DELETE => None,
                PUT => Some(put),
                _ => return None,
            };
            let partition = partition(key.as_bytes(), self.partitions.len());
            self.partitions[partition].push(key, put);
        }
        Some(())
    }
}
