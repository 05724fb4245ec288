//! The mark: a file beside the database that remembers what was acknowledged, so that a database which comes back older or
//! empty is noticed.
//!
//! Two slots are written in turn, each with a checksum: one of them is always whole.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sluicegate_engine::EngineError;

use crate::guard::damaged;
use crate::header::VERSION;

const MAGIC: [u8; 8] = *b"SLGMARK\0";
const SLOT_BYTES: usize = 40;
const CLOSED: u32 = 1;

/// What is known about a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The last batch that was acknowledged.
    pub acknowledged: u64,
    /// The last batch of which it was said that it survives a loss of power.
    pub on_disk: u64,
    /// Nothing was committed after this.
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

/// The open file.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    path: PathBuf,
    next_slot: u64,
}

impl Mark {
    /// Makes the file of a new store.
    pub fn create(path: &Path) -> Result<Self, EngineError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.map_err(error(path, "create"))?;
        let mut mark = Self { file, path: path.to_owned(), next_slot: 0 };
        mark.write(Known { closed: true, ..Known::default() })?;
        mark.write(Known { closed: true, ..Known::default() })?;
        mark.sync()?;
        Ok(mark)
    }

    /// Opens the file, if there is one, and says what is known.
    pub fn open(path: &Path) -> Result<Option<(Self, Known)>, EngineError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(error(path, "open"))?,
        };
        let mut newest = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            if file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64).is_err() {
                return Err(damaged(path, "shorter than it was made"));
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

    /// Remembers; survives the end of the process.
    pub fn write(&mut self, known: Known) -> Result<(), EngineError> {
        let at = self.next_slot * SLOT_BYTES as u64;
        self.file.write_all_at(&known.encode(), at).map_err(error(&self.path, "write"))?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }

    /// What was remembered survives a loss of power.
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
