//! The groups of a shard, by number and by key.

use std::hash::BuildHasher;

use super::large_table::LargeTable;
use super::slab::{Number, Slab};
use super::tables::Group;

/// The groups of a shard.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: Slab<Group>,
    /// The groups themselves have the keys.
    by_key: LargeTable<Number>,
    hasher: foldhash::fast::RandomState,
}

impl Groups {
    /// The group with a key, given as [`super::key::GroupingKey::text`].
    #[inline]
    pub fn number_of(&self, key: &str) -> Option<Number> {
        self.by_key.find(self.hasher.hash_one(key), |number| *self.groups[*number].key == *key).copied()
    }

    /// Adds a group whose key no other group has.
    pub fn insert(&mut self, group: Group) -> Number {
        let hash = self.hasher.hash_one(&*group.key);
        let number = self.groups.insert(group);
        self.by_key.insert(hash, number);
        number
    }

    pub fn remove(&mut self, number: Number) -> Option<Group> {
        let group = self.groups.remove(number)?;
        self.by_key.remove(self.hasher.hash_one(&*group.key), |known| *known == number);
        Some(group)
    }

    /// The bytes of memory for the groups, and for the table of keys.
    #[cfg(test)]
    pub fn allocated(&self) -> (usize, usize) {
        (self.groups.allocated_bytes(), self.by_key.allocated_bytes())
    }

    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// The groups with this number and higher ones, with their numbers.
    pub fn from(&self, start: Number) -> impl Iterator<Item = (Number, &Group)> {
        self.groups.from(start)
    }
}

impl std::ops::Index<Number> for Groups {
    type Output = Group;

    fn index(&self, number: Number) -> &Group {
        &self.groups[number]
    }
}

impl std::ops::IndexMut<Number> for Groups {
    fn index_mut(&mut self, number: Number) -> &mut Group {
        &mut self.groups[number]
    }
}
