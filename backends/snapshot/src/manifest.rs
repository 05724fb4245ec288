//! The manifest: the file that lists which others count. It is replaced as a whole, so a store goes from one state to the
//! next at once.

use std::ops::RangeInclusive;
use std::path::Path;

use bytes::{Buf, BufMut};
use sluicegate_engine::EngineError;

use crate::archive::{self, ArchiveEntry, ArchiveId};
use crate::files::Folder;
use crate::log::segment;
use crate::random::random_id;

pub(crate) const NAME: &str = "manifest";
const MAGIC: [u8; 8] = *b"SLGMANIF";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 72;
const ENTRY_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
const FLAG_CLOSED: u32 = 1;
const PARTITIONS_MAX: usize = 4096;

/// Whether a folder contains a store. One that has lost its manifest is damaged, not absent.
pub(crate) fn is_store_present(folder: &Path) -> bool {
    if folder.join(NAME).exists() {
        return true;
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.any(|name| is_data_file(&name))
}

/// Whether a file belongs to a store, and so to a manifest.
fn is_data_file(name: &str) -> bool {
    archive::is_archive(name) || segment::number_in(name).is_some()
}

/// The files that make up a store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    /// Identifies the store, so that files of two stores are not mixed up.
    pub store_id: u64,
    /// The archives contain the batches up to this one.
    pub archived: u64,
    /// The mark: batches up to this one were on the disk when the manifest was written.
    pub synced: u64,
    /// The first log segment that counts.
    pub first_segment: u64,
    /// The last log segment; below `first_segment` if there is none.
    pub last_segment: u64,
    /// When the archives were written; 0 for never.
    pub archived_unix_seconds: u64,
    /// Whether the store was closed: no batch was committed after this manifest.
    pub closed: bool,
    /// One entry for each partition.
    pub archives: Vec<ArchiveEntry>,
}

impl Manifest {
    /// The manifest of a new store. Fails only if the operating system has no random numbers.
    pub fn new(partitions: usize) -> Result<Self, EngineError> {
        Ok(Self {
            store_id: random_id()?,
            archived: 0,
            synced: 0,
            first_segment: 1,
            last_segment: 0,
            archived_unix_seconds: 0,
            closed: true,
            archives: vec![ArchiveEntry::default(); partitions.clamp(1, PARTITIONS_MAX)],
        })
    }

    /// Reads the manifest. Returns `None` if the folder contains no store.
    pub fn read(folder: &Folder) -> Result<Option<Self>, EngineError> {
        if let Some(bytes) = folder.read(NAME)? {
            return Self::decode(&bytes, folder).map(Some);
        }
        let names = folder.names()?;
        match names.iter().find(|name| is_data_file(name)) {
            None => Ok(None),
            Some(name) => Err(folder.damaged(NAME, &format!("missing, but {name} exists"))),
        }
    }

    /// Replaces the manifest on disk.
    pub fn write(&self, folder: &Folder) -> Result<(), EngineError> {
        folder.replace(NAME, &self.encode())
    }

    /// Whether a batch was ever committed.
    pub fn has_batches(&self) -> bool {
        !self.segments().is_empty() || self.archived > 0
    }

    /// The log segments that count.
    pub fn segments(&self) -> RangeInclusive<u64> {
        self.first_segment..=self.last_segment
    }

    /// The archive of a partition, or `None` if the partition is empty.
    pub fn archive(&self, partition: usize) -> Option<ArchiveId> {
        let generation = self.archives[partition].generation;
        (generation > 0).then_some(ArchiveId { store_id: self.store_id, partition, generation })
    }

    /// The archives of all partitions that are not empty.
    pub fn archive_ids(&self) -> impl Iterator<Item = ArchiveId> {
        (0..self.archives.len()).filter_map(|partition| self.archive(partition))
    }

    /// The size of all archives.
    pub fn archive_bytes(&self) -> u64 {
        self.archives.iter().map(|entry| entry.bytes).sum()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.archives.len() * ENTRY_BYTES + CHECKSUM_BYTES);
        out.put_slice(&MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(self.archives.len() as u32);
        out.put_u64_le(self.store_id);
        out.put_u64_le(self.archived);
        out.put_u64_le(self.synced);
        out.put_u64_le(self.first_segment);
        out.put_u64_le(self.last_segment);
        out.put_u64_le(self.archived_unix_seconds);
        out.put_u32_le(if self.closed { FLAG_CLOSED } else { 0 });
        out.put_u32_le(0);
        for entry in &self.archives {
            out.put_u64_le(entry.generation);
            out.put_u64_le(entry.records);
            out.put_u64_le(entry.bytes);
            out.put_u32_le(entry.checksum);
            out.put_u32_le(0);
        }
        out.put_u32_le(crc32c::crc32c(&out));
        out
    }

    fn decode(bytes: &[u8], folder: &Folder) -> Result<Self, EngineError> {
        let damaged = |what: &str| Err(folder.damaged(NAME, what));
        let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return damaged("too short");
        };
        if content.len() < HEADER_BYTES || content[..MAGIC.len()] != MAGIC {
            return damaged("not a manifest");
        }
        if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
            return damaged("wrong checksum");
        }
        let mut fields = &content[MAGIC.len()..];
        let version = fields.get_u32_le();
        if version > VERSION {
            return Err(EngineError::TooNew { file: folder.path(NAME), found: version, known: VERSION });
        }
        let partitions = fields.get_u32_le() as usize;
        if version != VERSION
            || !(1..=PARTITIONS_MAX).contains(&partitions)
            || content.len() != HEADER_BYTES + partitions * ENTRY_BYTES
        {
            return damaged("invalid content");
        }
        let store_id = fields.get_u64_le();
        let archived = fields.get_u64_le();
        let synced = fields.get_u64_le();
        let first_segment = fields.get_u64_le();
        let last_segment = fields.get_u64_le();
        let archived_unix_seconds = fields.get_u64_le();
        let closed = fields.get_u32_le() & FLAG_CLOSED != 0;
        fields.advance(4);
        let entries = fields.chunks_exact(ENTRY_BYTES).map(|mut entry| ArchiveEntry {
            generation: entry.get_u64_le(),
            records: entry.get_u64_le(),
            bytes: entry.get_u64_le(),
            checksum: entry.get_u32_le(),
        });
        Ok(Self {
            store_id,
            archived,
            synced,
            first_segment,
            last_segment,
            archived_unix_seconds,
            closed,
            archives: entries.collect(),
        })
    }
}
