//! The header record: how many batches and records the database contains, and the checksum of all records.

use xxhash_rust::xxh3::Xxh3;

/// Its key in the database. Grouping keys begin with a label name, so they never equal it.
pub(crate) const KEY: &[u8] = b"\0sluicegate";
/// The latest format of the whole store.
pub(crate) const VERSION: u32 = 3;
/// The format of a store without patches of numbers. Versions that do not know these can read it.
pub(crate) const VERSION_WITHOUT_NUMBERS: u32 = 2;
/// The format of a store without patches. Versions that do not know patches can read it.
pub(crate) const VERSION_WITHOUT_PATCHES: u32 = 1;
const BYTES: usize = 4 + 8 + 8 + 16;

/// A summary of the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// The number of the last batch.
    pub sequence: u64,
    /// The number of records and patches.
    pub records: u64,
    /// The sum of [`weight`] over all records and patches.
    pub sum: u128,
}

impl Header {
    /// `version` is that of the store.
    pub fn encode(&self, version: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend(version.to_le_bytes());
        out.extend(self.sequence.to_le_bytes());
        out.extend(self.records.to_le_bytes());
        out.extend(self.sum.to_le_bytes());
        out
    }

    /// The format version and the header.
    pub fn decode(bytes: &[u8]) -> Option<(u32, Self)> {
        let (version, rest) = bytes.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (records, rest) = rest.split_first_chunk()?;
        let sum = rest.try_into().ok()?;
        let header = Self {
            sequence: u64::from_le_bytes(*sequence),
            records: u64::from_le_bytes(*records),
            sum: u128::from_le_bytes(sum),
        };
        Some((u32::from_le_bytes(*version), header))
    }

    pub fn add(&mut self, weight: u128) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(weight);
    }

    pub fn subtract(&mut self, weight: u128) {
        // A damaged database may contain more than the header counts. The sum reveals that.
        self.records = self.records.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(weight);
    }
}

/// The checksum of one record. The header contains the sum, which does not depend on the order.
pub(crate) fn weight(key: &[u8], record: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(record);
    hash.digest128()
}
