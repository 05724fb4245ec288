//! Fixed heads of files: numbers in a row, little-endian, with a checksum.

/// Reads numbers from the start of bytes that are known to be long enough for them.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (array, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *array
    }

    pub fn magic(&mut self) -> [u8; 8] {
        self.array()
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

/// The `u32` at a place; 0 beyond the end.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    Fields(bytes.get(at..).unwrap_or_default()).u32()
}

/// The `u64` at a place; 0 beyond the end.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    Fields(bytes.get(at..).unwrap_or_default()).u64()
}

/// Whether all are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // In one go over larger pieces: the end of a segment is long.
    bytes.chunks(4096).all(|chunk| chunk.iter().fold(0, |sum, byte| sum | byte) == 0)
}

/// A number that no other store or run has.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Seeded by the operating system; 0 means nothing was written.
    std::collections::hash_map::RandomState::new().build_hasher().finish().max(1)
}
