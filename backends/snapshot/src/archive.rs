//! The archive of a partition: all its records in one rkyv value, behind a header with a checksum.
//!
//! Keys and records are stored in one blob, with a list of where each ends. A vector per record would take half as much space
//! again.

use std::ops::ControlFlow;

use bytes::{Buf, BufMut};
use rkyv::rancor;
use rkyv::util::AlignedVec;
use sluicegate_engine::EngineError;

use crate::files::{Folder, OpenFile, TEMPORARY_SUFFIX};

const MAGIC: [u8; 8] = *b"SLGARCHV";
const VERSION: u32 = 1;
/// A multiple of 16, the alignment that rkyv needs.
const HEADER_BYTES: usize = 64;
/// The header's own checksum, at its end.
const CHECKSUM_BYTES: usize = 4;

const NAME_PREFIX: &str = "archive-";

/// The records of a partition.
#[derive(Debug, Default, rkyv::Archive, rkyv::Serialize)]
pub(crate) struct Records {
    /// The offsets in `blob` at which the first key ends, its record, the second key, and so on.
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

/// Identifies an archive. Together with [`ArchiveEntry`] it gives the whole header.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ArchiveId {
    pub store_id: u64,
    pub partition: usize,
    /// The number of the last batch in the archive.
    pub generation: u64,
}

impl ArchiveId {
    pub fn file_name(&self) -> String {
        format!("{NAME_PREFIX}{:04}-{:010}", self.partition, self.generation)
    }
}

/// Whether a file has the name of an archive, of any partition and generation.
pub(crate) fn is_archive(name: &str) -> bool {
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    let numbers = name.strip_prefix(NAME_PREFIX).and_then(|rest| rest.split_once('-'));
    numbers.is_some_and(|(partition, generation)| is_number(partition) && is_number(generation))
}

/// What the manifest contains about the archive of a partition. All zeros if the partition is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ArchiveEntry {
    /// As in [`ArchiveId`]; 0 if there is no archive.
    pub generation: u64,
    /// The number of records.
    pub records: u64,
    /// The length of the file.
    pub bytes: u64,
    /// The checksum of the body.
    pub checksum: u32,
}

/// An archive under a temporary name.
pub(crate) struct Unnamed {
    id: ArchiveId,
    entry: ArchiveEntry,
    file: OpenFile,
}

impl Unnamed {
    /// Makes the content durable.
    pub fn sync(&self) -> Result<(), EngineError> {
        self.file.sync()
    }

    /// Gives the archive, which must be synced, its name.
    pub fn rename(self, folder: &Folder) -> Result<ArchiveEntry, EngineError> {
        let name = self.id.file_name();
        folder.rename(&format!("{name}{TEMPORARY_SUFFIX}"), &name)?;
        Ok(self.entry)
    }
}

/// Writes an archive and syncs it, but not the folder. The archive counts once a manifest lists it.
pub(crate) fn write(folder: &Folder, id: ArchiveId, records: &Records) -> Result<ArchiveEntry, EngineError> {
    let archive = write_unnamed(folder, id, records)?;
    archive.sync()?;
    archive.rename(folder)
}

/// Writes an archive, without syncing it.
pub(crate) fn write_unnamed(
    folder: &Folder,
    id: ArchiveId,
    records: &Records,
) -> Result<Unnamed, EngineError> {
    let name = id.file_name();
    let body = rkyv::to_bytes::<rancor::Error>(records)
        .map_err(|error| folder.damaged(&name, &format!("cannot be encoded: {error}")))?;
    let checksum = crc32c::crc32c(&body);
    let temporary = format!("{name}{TEMPORARY_SUFFIX}");
    let file = folder.create(&temporary)?;
    file.write_at(&encode_header(id, body.len(), checksum), 0)?;
    file.write_at(&body, HEADER_BYTES as u64)?;
    let entry = ArchiveEntry {
        generation: id.generation,
        records: records.ends.len() as u64 / 2,
        bytes: (HEADER_BYTES + body.len()) as u64,
        checksum,
    };
    Ok(Unnamed { id, entry, file })
}

/// Reads an archive and passes each key with its record to `visit`. `buffer` is reused between calls.
pub(crate) fn read(
    folder: &Folder,
    id: ArchiveId,
    entry: ArchiveEntry,
    buffer: &mut AlignedVec,
    mut visit: impl FnMut(&str, &[u8]) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, EngineError> {
    let name = id.file_name();
    let damaged = |what: &str| folder.damaged(&name, what);
    let Some(file) = folder.open_if_exists(&name)? else {
        return Err(damaged("missing, but listed in the manifest"));
    };
    read_body(folder, &file, id, entry, buffer)?;
    let records = rkyv::access::<ArchivedRecords, rancor::Error>(buffer)
        .map_err(|error| damaged(&format!("invalid structure: {error}")))?;
    let (pairs, rest) = records.ends.as_chunks::<2>();
    if pairs.len() as u64 != entry.records || !rest.is_empty() {
        return Err(damaged(&format!("{} records instead of {}", pairs.len(), entry.records)));
    }
    let mut start = 0;
    for [key_end, record_end] in pairs {
        let (key_end, record_end) = (key_end.to_native() as usize, record_end.to_native() as usize);
        let key = records.blob.get(start..key_end).and_then(|key| std::str::from_utf8(key).ok());
        let (Some(key), Some(record)) = (key, records.blob.get(key_end..record_end)) else {
            return Err(damaged("a record ends outside of the file"));
        };
        if visit(key, record).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        start = record_end;
    }
    Ok(ControlFlow::Continue(()))
}

/// Reads the body into `buffer` after checking the header, and checks the body.
fn read_body(
    folder: &Folder,
    file: &OpenFile,
    id: ArchiveId,
    entry: ArchiveEntry,
    buffer: &mut AlignedVec,
) -> Result<(), EngineError> {
    let name = id.file_name();
    let length = file.length()?;
    if length != entry.bytes || length < HEADER_BYTES as u64 {
        return Err(folder.damaged(&name, &format!("{length} bytes long instead of {}", entry.bytes)));
    }
    let body_bytes = length as usize - HEADER_BYTES;
    let mut header = [0; HEADER_BYTES];
    file.read_at(&mut header, 0)?;
    if header[..] != encode_header(id, body_bytes, entry.checksum) {
        return Err(header_error(folder, &name, &header));
    }
    buffer.resize(body_bytes, 0);
    file.read_at(buffer, HEADER_BYTES as u64)?;
    if crc32c::crc32c(buffer) != entry.checksum {
        return Err(folder.damaged(&name, "wrong checksum"));
    }
    Ok(())
}

fn encode_header(id: ArchiveId, body_bytes: usize, checksum: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.put_slice(&MAGIC);
    header.put_u32_le(VERSION);
    header.put_u32_le(id.partition as u32);
    header.put_u64_le(id.store_id);
    header.put_u64_le(id.generation);
    header.put_u64_le(body_bytes as u64);
    header.put_u32_le(checksum);
    header.resize(HEADER_BYTES - CHECKSUM_BYTES, 0);
    header.put_u32_le(crc32c::crc32c(&header));
    header
}

/// The error for a header other than the one expected: it has a later version, or is damaged.
fn header_error(folder: &Folder, name: &str, header: &[u8; HEADER_BYTES]) -> EngineError {
    let (mut content, mut checksum) = header.split_at(HEADER_BYTES - CHECKSUM_BYTES);
    let is_intact = checksum.get_u32_le() == crc32c::crc32c(content);
    if is_intact && content.starts_with(&MAGIC) {
        content.advance(MAGIC.len());
        let version = content.get_u32_le();
        if version > VERSION {
            return EngineError::TooNew { file: folder.path(name), found: version, known: VERSION };
        }
    }
    folder.damaged(name, "the header does not match the manifest")
}
