//! A hash table that never moves many of its items at once.
//!
//! A hash table that grows moves all of its items, which takes a tenth of a second for a million names. This one consists of many
//! small tables that grow one at a time. While it has few items, it is a single table, so that a look-up reads less memory.

use hashbrown::HashTable;

/// The number of tables if there are many items. Empty ones need no memory of their own.
const TABLES: usize = 256;

/// With more items, there are [`TABLES`].
const SINGLE_TABLE_MAX: usize = 512;

/// Tables with less room are never shrunk.
const SHRINK_CAPACITY_MIN: usize = 16;

/// Items that are found by hashes and a comparison. A client can create any number of them.
#[derive(Debug)]
pub(super) struct LargeTable<T> {
    /// None until the first insertion, then one, or [`TABLES`].
    tables: Vec<HashTable<Item<T>>>,
    len: usize,
}

#[derive(Debug)]
struct Item<T> {
    /// So that a table that grows does not look at what its items refer to, which is all over the memory.
    hash: ShortHash,
    item: T,
}

/// Half of a hash, because there is one for each item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ShortHash(u32);

impl ShortHash {
    fn of(hash: u64) -> Self {
        Self((hash >> 32) as u32 ^ hash as u32)
    }

    /// The hash for a table, which uses the lowest and the highest bits.
    fn whole(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }

    /// The index of a table among so many, a power of two.
    fn table(self, tables: usize) -> usize {
        (self.0 >> 17) as usize & tables.wrapping_sub(1)
    }
}

impl<T> Default for LargeTable<T> {
    fn default() -> Self {
        Self { tables: Vec::new(), len: 0 }
    }
}

impl<T> LargeTable<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub fn allocated_bytes(&self) -> usize {
        let tables: usize = self.tables.iter().map(HashTable::allocation_size).sum();
        tables + self.tables.capacity() * size_of::<HashTable<Item<T>>>()
    }

    /// The item with this hash for which `is` returns `true`.
    #[inline]
    pub fn find(&self, hash: u64, mut is: impl FnMut(&T) -> bool) -> Option<&T> {
        let hash = ShortHash::of(hash);
        let table = self.tables.get(hash.table(self.tables.len()))?;
        table.find(hash.whole(), |item| item.hash == hash && is(&item.item)).map(|item| &item.item)
    }

    /// The same to be changed, but not its hash.
    pub fn find_mut(&mut self, hash: u64, mut is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let hash = ShortHash::of(hash);
        let table = hash.table(self.tables.len());
        let found =
            self.tables.get_mut(table)?.find_mut(hash.whole(), |item| item.hash == hash && is(&item.item));
        found.map(|item| &mut item.item)
    }

    /// Adds an item.
    pub fn insert(&mut self, hash: u64, item: T) {
        match self.tables.len() {
            0 => self.tables.push(HashTable::new()),
            1 if self.len >= SINGLE_TABLE_MAX => self.divide(),
            _ => {}
        }
        self.len += 1;
        self.insert_item(Item { hash: ShortHash::of(hash), item });
    }

    /// Removes the item with this hash for which `is` returns `true`.
    pub fn remove(&mut self, hash: u64, mut is: impl FnMut(&T) -> bool) -> Option<T> {
        let hash = ShortHash::of(hash);
        let table = hash.table(self.tables.len());
        let table = self.tables.get_mut(table)?;
        let entry = table.find_entry(hash.whole(), |item| item.hash == hash && is(&item.item)).ok()?;
        self.len -= 1;
        let (Item { item, .. }, vacant) = entry.remove();
        let table = vacant.into_table();
        // A small table is not worth the work, and a factor keeps it from growing again at once.
        if table.capacity() > SHRINK_CAPACITY_MIN && table.len() < table.capacity() / 8 {
            table.shrink_to(2 * table.len(), |item| item.hash.whole());
        }
        Some(item)
    }

    fn insert_item(&mut self, item: Item<T>) {
        let table = item.hash.table(self.tables.len());
        self.tables[table].insert_unique(item.hash.whole(), item, |item| item.hash.whole());
    }

    /// Distributes the items of a single table.
    fn divide(&mut self) {
        let single = std::mem::take(&mut self.tables);
        self.tables.resize_with(TABLES, HashTable::new);
        single.into_iter().flatten().for_each(|item| self.insert_item(item));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::hash::hash_64;
    use super::*;

    fn hash(number: u32) -> u64 {
        hash_64(&number.to_le_bytes())
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(
            first in prop_oneof![Just(0), 0..2 * SINGLE_TABLE_MAX as u32],
            hashes in 1..40_u64,
            steps in prop::collection::vec((0..40_u32, any::<bool>()), 0..200),
        ) {
            let (mut table, mut reference) = (LargeTable::default(), BTreeSet::new());
            for number in 100..100 + first {
                table.insert(hash(number), number);
                reference.insert(number);
            }
            prop_assert!(reference.iter().all(|number| table.find(hash(*number), |known| known == number).is_some()));
            for (number, is_insertion) in steps {
                // Some have the same hash.
                let hash = u64::from(number) % hashes;
                if !is_insertion {
                    let removed = table.remove(hash, |known| *known == number);
                    prop_assert_eq!(removed.is_some(), reference.remove(&number));
                } else if reference.insert(number) {
                    table.insert(hash, number);
                }
                let is_known = reference.contains(&number);
                prop_assert_eq!(table.find(hash, |known| *known == number).is_some(), is_known);
                prop_assert_eq!(table.find_mut(hash, |known| *known == number).is_some(), is_known);
                prop_assert_eq!(table.len(), reference.len());
            }
        }
    }

    #[test]
    fn no_insertion_moves_many_items() {
        let mut table = LargeTable::default();
        (0..100_000).for_each(|number| table.insert(hash(number), number));
        let longest = table.tables.iter().map(HashTable::len).max();
        assert!(longest.is_some_and(|items| items < 1_000), "{longest:?}");
    }

    #[test]
    fn a_table_that_loses_its_items_frees_their_memory() {
        let mut table = LargeTable::default();
        (0..100_000).for_each(|number| table.insert(hash(number), number));
        (1..100_000)
            .for_each(|number| assert!(table.remove(hash(number), |known| *known == number).is_some()));
        let capacity: usize = table.tables.iter().map(HashTable::capacity).sum();
        assert!(capacity <= TABLES * SHRINK_CAPACITY_MIN, "{capacity}");
        assert!(table.find(hash(0), |known| *known == 0).is_some());
    }
}
