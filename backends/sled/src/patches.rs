//! Patches of groups, which are stored under keys of their own until the whole record replaces them.
//!
//! The key of a patch is [`PREFIX`], the length of the grouping key, the grouping key, the number of the batch and the position in the
//! batch, in big-endian. So the patches of a group are adjacent and in order.

use std::collections::HashMap;

use crate::header;

/// Grouping keys begin with a label name, so they never begin with this. The header's key does not either.
const PREFIX: &[u8] = b"\0p";
const SUFFIX_BYTES: usize = 8 + 4;

/// The first part of the keys of a group's patches.
pub(crate) fn prefix(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX.len() + 4 + key.len() + SUFFIX_BYTES);
    out.extend_from_slice(PREFIX);
    out.extend((key.len() as u32).to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// The key of a patch.
pub(crate) fn patch_key(key: &[u8], sequence: u64, position: usize) -> Vec<u8> {
    let mut out = prefix(key);
    out.extend(sequence.to_be_bytes());
    out.extend((position as u32).to_be_bytes());
    out
}

/// Whether a key of the database has the form of a patch's key.
pub(crate) fn is_patch(key: &[u8]) -> bool {
    key.starts_with(PREFIX)
}

/// The grouping key in the key of a patch; `None` if it is invalid.
pub(crate) fn group_of(patch_key: &[u8]) -> Option<&[u8]> {
    let (length, rest) = patch_key.strip_prefix(PREFIX)?.split_first_chunk()?;
    let (key, suffix) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    (suffix.len() == SUFFIX_BYTES).then_some(key)
}

/// A patch in the database or in a batch.
#[derive(Debug, Clone)]
pub(crate) struct StoredPatch {
    pub key: Vec<u8>,
    pub weight: u128,
    /// Whether a patch of numbers directly after it replaces it.
    pub is_numbers: bool,
}

/// The groups that have patches in the database. Only these need a search when a record is replaced.
#[derive(Debug, Default)]
pub(crate) struct PatchedGroups {
    by_key: HashMap<Vec<u8>, GroupPatches>,
    /// How many of them have patches of numbers.
    with_numbers: usize,
}

/// The patches of a group in the database.
#[derive(Debug, Default)]
struct GroupPatches {
    has_numbers: bool,
    /// The last one, if it is one of numbers.
    last_numbers: Option<StoredPatch>,
}

impl PatchedGroups {
    pub fn contains(&self, key: &[u8]) -> bool {
        self.by_key.contains_key(key)
    }

    /// The last patch of a group, if it is one of numbers.
    pub fn last_numbers(&self, key: &[u8]) -> Option<&StoredPatch> {
        self.by_key.get(key)?.last_numbers.as_ref()
    }

    /// The format of a store with these patches.
    pub fn version(&self) -> u32 {
        match (self.by_key.is_empty(), self.with_numbers) {
            (true, _) => header::VERSION_WITHOUT_PATCHES,
            (false, 0) => header::VERSION_WITHOUT_NUMBERS,
            (false, _) => header::VERSION,
        }
    }

    /// Adds the next patch of a group.
    pub fn add(&mut self, key: &[u8], patch: StoredPatch) {
        let patches = match self.by_key.get_mut(key) {
            Some(patches) => patches,
            None => self.by_key.entry(key.to_vec()).or_default(),
        };
        self.with_numbers += usize::from(patch.is_numbers && !patches.has_numbers);
        patches.has_numbers |= patch.is_numbers;
        patches.last_numbers = Some(patch).filter(|patch| patch.is_numbers);
    }

    pub fn remove(&mut self, key: &[u8]) {
        if self.by_key.remove(key).is_some_and(|patches| patches.has_numbers) {
            self.with_numbers -= 1;
        }
    }
}

/// What a batch has done to the patches of a group so far.
#[derive(Debug, Default)]
pub(crate) struct BatchPatches {
    /// Whether the patches in the database are removed.
    pub cleared: bool,
    /// The key of the patch in the database that the batch replaces.
    pub replaced: Option<Vec<u8>>,
    /// The patches that the batch adds.
    pub added: Vec<StoredPatch>,
}

/// By grouping key.
pub(crate) type PatchesOfBatch = HashMap<Vec<u8>, BatchPatches>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_patch_contains_its_group() {
        for key in [&b"job=\"a\""[..], b"", b"x\0p\0\0"] {
            let patch = patch_key(key, 7, 3);
            assert!(patch.starts_with(&prefix(key)) && is_patch(&patch));
            assert_eq!(group_of(&patch), Some(key));
            assert!(patch_key(key, 255, 9) < patch_key(key, 256, 0));
            assert_eq!(group_of(&patch[..patch.len() - 1]), None);
        }
        assert!(!is_patch(header::KEY));
    }
}
