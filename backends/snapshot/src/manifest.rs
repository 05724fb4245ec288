//! The one file that says which others count. It is replaced as a whole, so a store goes from one state to the next at once.

use sluicegate_engine::EngineError;

use crate::bytes::{Fields, random};
use crate::files::Folder;

pub(crate) const NAME: &str = "manifest";
const MAGIC: [u8; 8] = *b"SLGMANIF";
pub(crate) const VERSION: u32 = 1;
const HEAD_BYTES: usize = 72;
const ENTRY_BYTES: usize = 32;
const CLOSED: u32 = 1;
pub(crate) const PARTITIONS_MAX: usize = 4096;

/// What an operator can do when files are damaged.
pub(crate) const WAY_OUT: &str = "Put the folder back from a copy, or move it away to start with nothing";

/// Which files make up the store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    /// Names the store, so that files of two are not mixed.
    pub store: u64,
    /// The archives hold the batches up to this one.
    pub sequence: u64,
    /// Batches up to this one were on the disk when this was written.
    pub synced: u64,
    /// The first segment of the log that counts.
    pub log_first: u64,
    /// The last segment of the log; below `log_first` if there is none.
    pub log_last: u64,
    /// When the archives were written; 0 if never.
    pub archived_unix_seconds: u64,
    /// Nothing was committed after this.
    pub closed: bool,
    /// One for each partition.
    pub archives: Vec<Entry>,
}

/// One partition's archive.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Entry {
    /// Part of its name; 0 if there is no archive, because the partition is empty.
    pub generation: u64,
    /// How many records are in it.
    pub records: u64,
    /// The length of the file.
    pub bytes: u64,
    /// The checksum of its body.
    pub checksum: u32,
}

impl Manifest {
    /// That of a store in which nothing is.
    pub fn empty(partitions: usize) -> Self {
        Self {
            store: random(),
            sequence: 0,
            synced: 0,
            log_first: 1,
            log_last: 0,
            archived_unix_seconds: 0,
            closed: false,
            archives: vec![Entry::default(); partitions.clamp(1, PARTITIONS_MAX)],
        }
    }

    /// The bytes of all archives.
    pub fn archive_bytes(&self) -> u64 {
        self.archives.iter().map(|entry| entry.bytes).sum()
    }

    /// Reads the manifest; `None` if there is no store here.
    pub fn read(folder: &Folder) -> Result<Option<Self>, EngineError> {
        match folder.read(NAME)? {
            Some(bytes) => Self::decode(&bytes, folder).map(Some),
            None => {
                let names = folder.names()?;
                match names.iter().find(|name| name.starts_with("log-") || name.starts_with("archive-")) {
                    None => Ok(None),
                    Some(name) => Err(damaged(folder, NAME, &format!("missing, although there is {name}"))),
                }
            }
        }
    }

    /// Replaces the manifest on disk.
    pub fn write(&self, folder: &Folder) -> Result<(), EngineError> {
        folder.replace(NAME, &[&self.encode()])
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.archives.len() * ENTRY_BYTES + 4);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.archives.len() as u32).to_le_bytes());
        for number in [
            self.store,
            self.sequence,
            self.synced,
            self.log_first,
            self.log_last,
            self.archived_unix_seconds,
        ] {
            out.extend(number.to_le_bytes());
        }
        out.extend(if self.closed { CLOSED } else { 0 }.to_le_bytes());
        out.extend([0; 4]);
        for entry in &self.archives {
            for number in [entry.generation, entry.records, entry.bytes] {
                out.extend(number.to_le_bytes());
            }
            out.extend(entry.checksum.to_le_bytes());
            out.extend([0; 4]);
        }
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], folder: &Folder) -> Result<Self, EngineError> {
        let wrong = |what: &str| Err(damaged(folder, NAME, what));
        let mut fields = Fields(bytes);
        if fields.magic() != MAGIC {
            return wrong("does not begin like a manifest");
        }
        let version = fields.u32();
        if version > VERSION {
            // Only if the file is whole: a flipped bit is no later version.
            return match checksum_is_right(bytes) {
                true => Err(EngineError::TooNew { file: folder.path(NAME), found: version, known: VERSION }),
                false => wrong("the checksum is wrong"),
            };
        }
        let partitions = fields.u32() as usize;
        if !checksum_is_right(bytes) {
            return wrong("the checksum is wrong");
        }
        if version != VERSION
            || !(1..=PARTITIONS_MAX).contains(&partitions)
            || bytes.len() != HEAD_BYTES + partitions * ENTRY_BYTES + 4
        {
            return wrong("says what cannot be");
        }
        let [store, sequence, synced, log_first, log_last, archived_unix_seconds] =
            std::array::from_fn(|_| fields.u64());
        let closed = fields.u32() & CLOSED != 0;
        fields.u32();
        let archives = (0..partitions)
            .map(|_| {
                let entry = Entry {
                    generation: fields.u64(),
                    records: fields.u64(),
                    bytes: fields.u64(),
                    checksum: fields.u32(),
                };
                fields.u32();
                entry
            })
            .collect();
        Ok(Self { store, sequence, synced, log_first, log_last, archived_unix_seconds, closed, archives })
    }
}

fn checksum_is_right(bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk()
        .is_some_and(|(rest, checksum)| crc32c::crc32c(rest) == u32::from_le_bytes(*checksum))
}

/// The error of a file that is not as it was written.
pub(crate) fn damaged(folder: &Folder, name: &str, what: &str) -> EngineError {
    EngineError::Damaged { file: folder.path(name), what: what.to_owned(), way_out: WAY_OUT.to_owned() }
}
