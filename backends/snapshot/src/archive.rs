//! The archive of a partition: all its records in one rkyv value, behind a head with a checksum.
//!
//! Keys and records stand in one blob, and a list says where each ends: a vector per record would cost half as much again.

use rkyv::rancor;
use rkyv::util::AlignedVec;
use sluicegate_engine::EngineError;

use crate::bytes::Fields;
use crate::files::{ASIDE, Folder};
use crate::manifest::{Entry, damaged};

const MAGIC: [u8; 8] = *b"SLGARCHV";
const VERSION: u32 = 1;
/// A multiple of 16, which is what rkyv wants its bytes aligned to.
const HEAD_BYTES: usize = 64;

/// The records of a partition.
#[derive(Debug, Default, rkyv::Archive, rkyv::Serialize)]
pub(crate) struct Records {
    /// Where in the blob the first key ends, then its record, then the second key, and so on.
    ends: Vec<u64>,
    blob: Vec<u8>,
}

impl Records {
    pub fn push(&mut self, key: &str, record: &[u8]) {
        self.blob.extend_from_slice(key.as_bytes());
        self.ends.push(self.blob.len() as u64);
        self.blob.extend_from_slice(record);
        self.ends.push(self.blob.len() as u64);
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn clear(&mut self) {
        self.ends.clear();
        self.blob.clear();
    }
}

/// Which archive of which store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub store: u64,
    pub partition: usize,
    pub generation: u64,
}

impl Place {
    pub fn name(&self) -> String {
        format!("archive-{:04}-{:010}", self.partition, self.generation)
    }
}

/// Writes an archive under its name. It counts only when a manifest names it; the folder is not synced.
pub(crate) fn write(folder: &Folder, place: Place, records: &Records) -> Result<Entry, EngineError> {
    let name = place.name();
    let body = rkyv::to_bytes::<rancor::Error>(records)
        .map_err(|error| damaged(folder, &name, &format!("cannot be made: {error}")))?;
    let checksum = crc32c::crc32c(&body);
    let head = head(place, body.len(), checksum);
    let aside = format!("{name}{ASIDE}");
    let handle = folder.create(&aside)?;
    handle.write_at(&head, 0)?;
    handle.write_at(&body, HEAD_BYTES as u64)?;
    handle.sync()?;
    folder.rename(&aside, &name)?;
    Ok(Entry {
        generation: place.generation,
        records: records.ends.len() as u64 / 2,
        bytes: (HEAD_BYTES + body.len()) as u64,
        checksum,
    })
}

fn head(place: Place, body_bytes: usize, checksum: u32) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend((place.partition as u32).to_le_bytes());
    for number in [place.store, place.generation, body_bytes as u64] {
        head.extend(number.to_le_bytes());
    }
    head.extend(checksum.to_le_bytes());
    head.resize(HEAD_BYTES - 4, 0);
    head.extend(crc32c::crc32c(&head).to_le_bytes());
    head
}

/// Reads an archive and gives its records, each key with its record. `buffer` is used again from call to call.
pub(crate) fn read(
    folder: &Folder,
    place: Place,
    entry: Entry,
    buffer: &mut AlignedVec,
    mut each: impl FnMut(&str, &[u8]),
) -> Result<(), EngineError> {
    let name = place.name();
    let wrong = |what: &str| damaged(folder, &name, what);
    let Some(handle) = folder.open_if_there(&name)? else {
        return Err(wrong("missing, although the manifest names it"));
    };
    let length = handle.length()?;
    if length != entry.bytes || length < HEAD_BYTES as u64 {
        return Err(wrong(&format!("has {length} bytes instead of {}", entry.bytes)));
    }
    let body_bytes = length as usize - HEAD_BYTES;
    let mut found = [0; HEAD_BYTES];
    handle.read_at(&mut found, 0)?;
    if found[..] != head(place, body_bytes, entry.checksum) {
        return Err(head_error(folder, &name, &found));
    }
    buffer.resize(body_bytes, 0);
    handle.read_at(buffer, HEAD_BYTES as u64)?;
    if crc32c::crc32c(buffer) != entry.checksum {
        return Err(wrong("the checksum is wrong"));
    }
    let records = rkyv::access::<ArchivedRecords, rancor::Error>(buffer)
        .map_err(|error| wrong(&format!("the structure is wrong: {error}")))?;
    let (pairs, rest) = records.ends.as_chunks::<2>();
    if pairs.len() as u64 != entry.records || !rest.is_empty() {
        return Err(wrong(&format!("has {} records instead of {}", pairs.len(), entry.records)));
    }
    let mut start = 0;
    for [key_end, record_end] in pairs {
        let (key_end, record_end) = (key_end.to_native() as usize, record_end.to_native() as usize);
        let key = records.blob.get(start..key_end).and_then(|key| std::str::from_utf8(key).ok());
        let (Some(key), Some(record)) = (key, records.blob.get(key_end..record_end)) else {
            return Err(wrong("a record stands outside"));
        };
        each(key, record);
        start = record_end;
    }
    Ok(())
}

fn head_error(folder: &Folder, name: &str, found: &[u8; HEAD_BYTES]) -> EngineError {
    let mut fields = Fields(found);
    let (magic, version) = (fields.magic(), fields.u32());
    let checksum = Fields(&found[HEAD_BYTES - 4..]).u32();
    if magic == MAGIC && version > VERSION && checksum == crc32c::crc32c(&found[..HEAD_BYTES - 4]) {
        return EngineError::TooNew { file: folder.path(name), found: version, known: VERSION };
    }
    damaged(folder, name, "the head is not the one that the manifest speaks of")
}
