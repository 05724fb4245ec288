//! What an operator does with a store while no gateway uses it, for any engine: look into it, verify it, carry it to another.
//!
//! What it does not do: open stores by name (who calls knows the engines), or print.

mod migrate;
mod survey;

pub use migrate::{MigrateError, Migrated, migrate};
pub use survey::{Bad, Survey, survey};

use xxhash_rust::xxh3::Xxh3;

/// Is told of each record that is passed, from several threads at once: what is being done, and the bytes of its key and content.
pub type Progress<'a> = &'a (dyn Fn(Phase, u64) + Sync);

/// What is being done. A tool goes through its phases one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading the store, or of two the source.
    ReadSource,
    /// Reading what the target holds before anything is written.
    ReadTarget,
    /// Writing to the target what it does not hold.
    Copy,
    /// Reading the target again.
    Check,
}

/// How many records there are, and a sum over them that does not depend on their order: equal stores have equal totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// The number of records.
    pub records: u64,
    /// The bytes of keys and records.
    pub bytes: u64,
    /// The sum of a 128-bit checksum of each.
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
