//! Tools for stores that no gateway uses, for any engine: survey a store, and migrate it to another.
//!
//! This crate does not open stores by name, since the caller knows the engines, and it does not print.

mod migrate;
mod survey;

pub use migrate::{MigrateError, Migrated, migrate};
pub use survey::{Bad, Survey, survey};

use xxhash_rust::xxh3::Xxh3;

/// Called for each record that is read, from several threads at once, with the phase and the bytes of key and record.
pub type Progress<'a> = &'a (dyn Fn(Phase, u64) + Sync);

/// What a tool is doing. The phases follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading the only store, or the source.
    ReadSource,
    /// Reading the target before anything is written.
    ReadTarget,
    /// Writing the groups that the target lacks.
    Copy,
    /// Reading the target again to compare it with the source.
    Check,
}

/// The number of records and their checksum, which does not depend on the order. Stores with the same content have equal totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// The number of records.
    pub records: u64,
    /// Bytes of keys and records.
    pub bytes: u64,
    /// The sum of the 128-bit checksums of all records.
    pub sum: u128,
}

impl Total {
    fn add(&mut self, key: &str, record: &[u8]) {
        let mut hash = Xxh3::new();
        hash.update(&(key.len() as u64).to_le_bytes());
        hash.update(key.as_bytes());
        hash.update(record);
        self.records += 1;
        self.bytes += (key.len() + record.len()) as u64;
        self.sum = self.sum.wrapping_add(hash.digest128());
    }
}
