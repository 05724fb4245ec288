//! The mark: a file next to the database that records what was acknowledged. It reveals a database that is older than that, or
//! empty.
//!
//! The file has two slots with a checksum each, written in turn, so one of them is always complete.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sluicegate_engine::EngineError;

use crate::guard::damaged;

const MAGIC: [u8; 8] = *b"SLGMARK\0";
/// The format of the file. Stores of later formats have it, too.
const VERSION: u32 = 2;
const SLOT_BYTES: usize = 40;
const CLOSED: u32 = 1;

/// What was acknowledged to the user of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The last acknowledged batch.
    pub acknowledged: u64,
    /// The last batch that was acknowledged as surviving a power failure.
    pub on_disk: u64,
    /// Whether the store was closed after that.
    pub closed: bool,
}

impl Known {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(&MAGIC);
        slot[8..12].copy_from_slice(&VERSION.to_le_bytes());
        slot[12..16].copy_from_slice(&if self.closed { CLOSED } else { 0 }.to_le_bytes());
        slot[16..24].copy_from_slice(&self.acknowledged.to_le_bytes());
        slot[24..32].copy_from_slice(&self.on_disk.to_le_bytes());
        let checksum = crc32c::crc32c(&slot[..32]);
        slot[32..36].copy_from_slice(&checksum.to_le_bytes());
        slot
    }

    fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(u32, Self)> {
        let number = |at: usize| slot[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let half = |at: usize| slot[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let whole = slot[..8] == MAGIC && half(32) == crc32c::crc32c(&slot[..32]) && half(36) == 0;
        let known = Self { acknowledged: number(16), on_disk: number(24), closed: half(12) & CLOSED != 0 };
        whole.then_some((half(8), known))
    }
}

/// The open mark file.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    path: PathBuf,
    next_slot: u64,
}

impl Mark {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the file of a new store.
    pub fn create(path: &Path) -> Result<Self, EngineError> {
        Self::create_with(path, Known { closed: true, ..Known::default() })
    }

    /// Replaces the file, without reading or changing the old one. It is durable once the folder is synced.
    pub fn replace(path: &Path, known: Known) -> Result<Self, EngineError> {
        let new = path.with_extension("new");
        let mark = Self::create_with(&new, known)?;
        fs::rename(&new, path).map_err(error(&new, "rename"))?;
        Ok(Self { path: path.to_owned(), ..mark })
    }

    fn create_with(path: &Path, known: Known) -> Result<Self, EngineError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.map_err(error(path, "create"))?;
        let mut mark = Self { file, path: path.to_owned(), next_slot: 0 };
        mark.write(known)?;
        mark.write(known)?;
        mark.sync()?;
        Ok(mark)
    }

    /// Opens the file, if it exists, and reads it.
    pub fn open(path: &Path) -> Result<Option<(Self, Known)>, EngineError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(error(path, "open"))?,
        };
        let mut newest = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            if file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64).is_err() {
                return Err(damaged(path, "the file is too short"));
            }
            let Some((version, known)) = Known::decode(&bytes) else { continue };
            if version > VERSION {
                return Err(EngineError::TooNew { file: path.to_owned(), found: version, known: VERSION });
            }
            if newest.is_none_or(|(_, newest): (u64, Known)| known.is_after(newest)) {
                newest = Some((slot, known));
            }
        }
        let Some((slot, known)) = newest else { return Err(damaged(path, "both checksums are wrong")) };
        Ok(Some((Self { file, path: path.to_owned(), next_slot: 1 - slot }, known)))
    }

    /// Records the state so that it survives the end of the process.
    pub fn write(&mut self, known: Known) -> Result<(), EngineError> {
        let at = self.next_slot * SLOT_BYTES as u64;
        self.file.write_all_at(&known.encode(), at).map_err(error(&self.path, "write"))?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }

    /// Makes the recorded state survive a power failure.
    pub fn sync(&self) -> Result<(), EngineError> {
        self.file.sync_data().map_err(error(&self.path, "sync"))
    }
}

impl Known {
    fn is_after(self, other: Self) -> bool {
        (self.acknowledged, self.on_disk, self.closed) > (other.acknowledged, other.on_disk, other.closed)
    }
}

pub(crate) fn error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> EngineError {
    let file = path.to_owned();
    move |source| EngineError::Io { file, doing, source }
}
