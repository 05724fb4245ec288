//! One file of the log: a head, frames, and zeros up to its end. Written and read here; what several of them mean together
//! stands in [`crate::replay`].
//!
//! A segment has its full length from the start, zeroed and synced, so that a batch changes content only: syncing it costs
//! half. And a file that is shorter was damaged, not torn.

use std::ops::Range;

use sluicegate_backend::{BackendError, Change};
use xxhash_rust::xxh3::xxh3_64;

use crate::bytes::{Fields, is_zero, u32_at, u64_at};
use crate::files::Folder;
use crate::manifest::damaged;

const MAGIC: [u8; 8] = *b"SLGLOG\0\0";
const VERSION: u32 = 1;
pub(crate) const HEAD_BYTES: usize = 72;
pub(crate) const FRAME_HEAD_BYTES: usize = 32;
const CHANGE_HEAD_BYTES: usize = 9;
/// Frames begin at multiples of this.
const ALIGNMENT: usize = 8;
/// The most that the changes of one batch may weigh.
pub(crate) const BATCH_BYTES_MAX: u64 = 1 << 30;

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

    fn decode(bytes: &[u8], folder: &Folder, name: &str) -> Result<Self, BackendError> {
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
            return Err(BackendError::TooNew { file: folder.path(name), found: version, known: VERSION });
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
) -> Result<(), BackendError> {
    let weight = |change: &Change<'_>| match change {
        Change::Put { key, record } => CHANGE_HEAD_BYTES + key.len() + record.len(),
        Change::Delete { key } => CHANGE_HEAD_BYTES + key.len(),
        Change::Wipe => CHANGE_HEAD_BYTES,
    };
    let bytes = batch.iter().map(|change| weight(change) as u64).sum();
    if bytes > BATCH_BYTES_MAX {
        return Err(BackendError::TooLarge { bytes, bytes_max: BATCH_BYTES_MAX });
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
    fn at(bytes: &[u8], at: usize, epoch: u64) -> Option<Self> {
        let head = bytes.get(at..at + FRAME_HEAD_BYTES)?;
        if u64_at(head, 24) != epoch {
            return None;
        }
        let start = at + FRAME_HEAD_BYTES;
        let payload = start..start + u32_at(head, 4) as usize;
        let covered = bytes.get(at + 4..payload.end)?;
        let whole = crc32c::crc32c(covered) == u32_at(head, 0);
        whole.then(|| Self { sequence: u64_at(head, 8), synced: u64_at(head, 16), payload })
    }

    fn end(&self) -> usize {
        self.payload.end.next_multiple_of(ALIGNMENT)
    }
}

/// A segment that was read.
#[derive(Debug)]
pub(crate) struct Segment {
    pub head: Head,
    pub bytes: Vec<u8>,
    /// Its batches, numbered without a gap from `head.first` on.
    pub frames: Vec<Frame>,
    /// Where something stands behind the last of them that does not belong there.
    pub torn: Option<usize>,
    /// What whole frames behind that place say was on the disk, and how many there are.
    pub beyond: (u64, usize),
}

impl Segment {
    /// Reads a segment and checks every frame.
    pub fn read(folder: &Folder, number: u64, store: u64) -> Result<Self, BackendError> {
        let name = name(number);
        let Some(bytes) = folder.read(&name)? else {
            return Err(damaged(folder, &name, "missing, although the manifest names it"));
        };
        let head = Head::decode(&bytes, folder, &name)?;
        if (head.number, head.store) != (number, store) {
            return Err(damaged(folder, &name, "a segment of another place or store"));
        }
        if head.length != bytes.len() as u64 {
            let what = format!("has {} bytes instead of {}", bytes.len(), head.length);
            return Err(damaged(folder, &name, &what));
        }
        let mut segment = Self { head, bytes, frames: Vec::new(), torn: None, beyond: (0, 0) };
        segment.walk();
        Ok(segment)
    }

    /// The number of its last batch that can be reached, one below its first if there is none.
    pub fn last(&self) -> u64 {
        self.head.first + self.frames.len() as u64 - 1
    }

    /// Where the next frame would stand.
    pub fn used(&self) -> usize {
        self.frames.last().map_or(HEAD_BYTES, Frame::end)
    }

    fn walk(&mut self) {
        loop {
            let at = self.used();
            match Frame::at(&self.bytes, at, self.head.epoch) {
                Some(frame) if frame.sequence == self.last() + 1 => self.frames.push(frame),
                _ => break,
            }
        }
        let end = self.used().min(self.bytes.len());
        if is_zero(&self.bytes[end..]) {
            return;
        }
        self.torn = Some(end);
        // Frames behind a gap say how much of what is missing was known to be on the disk.
        let mut at = end;
        while at + FRAME_HEAD_BYTES <= self.bytes.len() {
            match Frame::at(&self.bytes, at, self.head.epoch) {
                Some(frame) => {
                    self.beyond = (self.beyond.0.max(frame.synced), self.beyond.1 + 1);
                    at = frame.end();
                }
                None => at += ALIGNMENT,
            }
        }
    }
}

/// A change as it stands in a segment: ranges into its bytes, which are below 4 GiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    start: u32,
    key: u32,
    record: u32,
    kind: u8,
}

/// What a place says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Found<'a> {
    Put(&'a str, &'a [u8]),
    Delete(&'a str),
}

impl Place {
    /// Reads the change. `None` if the key is no text, which [`changes`] has ruled out.
    pub fn read<'a>(&self, bytes: &'a [u8]) -> Option<Found<'a>> {
        let rest = bytes.get(self.start as usize..)?;
        let (key, rest) = rest.split_at_checked(self.key as usize)?;
        let key = std::str::from_utf8(key).ok()?;
        match self.kind {
            PUT => Some(Found::Put(key, rest.get(..self.record as usize)?)),
            _ => Some(Found::Delete(key)),
        }
    }
}

/// The changes of one segment, by partition.
#[derive(Debug)]
pub(crate) struct Changes {
    /// What came before the segment does not count.
    pub wiped: bool,
    /// In their order, since the last wipe.
    pub partitions: Vec<Vec<Place>>,
}

/// The partition of a key.
pub(crate) fn partition(key: &[u8], partitions: usize) -> usize {
    // The upper bits, multiplied out: an even spread for any number.
    ((u128::from(xxh3_64(key)) * partitions as u128) >> 64) as usize
}

/// Sorts the changes of the first frames of a segment. An error says where a frame that has the right checksum says what
/// cannot be.
pub(crate) fn changes(segment: &Segment, frames: usize, partitions: usize) -> Result<Changes, String> {
    let mut changes = Changes { wiped: false, partitions: vec![Vec::new(); partitions] };
    for frame in &segment.frames[..frames] {
        let wrong = || format!("batch {} says what cannot be", frame.sequence);
        let mut at = frame.payload.start;
        while at < frame.payload.end {
            let head = segment.bytes.get(at..(at + CHANGE_HEAD_BYTES).min(frame.payload.end));
            let Some(head @ [kind, ..]) = head.filter(|head| head.len() == CHANGE_HEAD_BYTES) else {
                return Err(wrong());
            };
            let (key, record) = (u32_at(head, 1), u32_at(head, 5));
            let start = at + CHANGE_HEAD_BYTES;
            at = start + key as usize + record as usize;
            if at > frame.payload.end || *kind > WIPE {
                return Err(wrong());
            }
            if *kind == WIPE {
                changes.wiped = true;
                changes.partitions.iter_mut().for_each(Vec::clear);
                continue;
            }
            let text = &segment.bytes[start..start + key as usize];
            if std::str::from_utf8(text).is_err() {
                return Err(wrong());
            }
            let place = Place { start: start as u32, key, record, kind: *kind };
            changes.partitions[partition(text, partitions)].push(place);
        }
    }
    Ok(changes)
}
