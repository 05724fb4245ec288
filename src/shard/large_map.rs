//! A hash map that never moves many of its entries at once.
//!
//! A hash table that grows moves all of its entries, which takes a tenth of a second for a million names. This map consists of many
//! small tables that grow one at a time. While it has few entries, it is a single table, so that a look-up reads less memory.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The number of tables of a map with many entries. Empty ones need no memory of their own.
const TABLES: usize = 256;

/// A map with more entries is divided into [`TABLES`].
const SINGLE_TABLE_MAX: usize = 512;

/// Tables with less room are never shrunk.
const SHRINK_CAPACITY_MIN: usize = 16;

/// A map from names or grouping keys, of which a client can create any number.
#[derive(Debug)]
pub(super) struct LargeMap<K, V> {
    /// None until the first insertion, then one, or [`TABLES`].
    tables: Vec<HashTable<Item<K, V>>>,
    hasher: foldhash::fast::RandomState,
    len: usize,
}

#[derive(Debug)]
struct Item<K, V> {
    /// The hash of the key, so that a table that grows does not look at the keys, which are all over the memory.
    hash: u64,
    key: K,
    value: V,
}

impl<K, V> Default for LargeMap<K, V> {
    fn default() -> Self {
        Self { tables: Vec::new(), hasher: foldhash::fast::RandomState::default(), len: 0 }
    }
}

impl<K: Hash + Eq, V> LargeMap<K, V> {
    #[cfg(any(test, feature = "reference"))]
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    #[inline]
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    #[inline]
    pub fn get_key_value<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let table = self.tables.get(table_of(hash, self.tables.len()))?;
        let item = table.find(hash, |item| item.hash == hash && item.key.borrow() == key)?;
        Some((&item.key, &item.value))
    }

    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let table = table_of(hash, self.tables.len());
        let table = self.tables.get_mut(table)?;
        table.find_mut(hash, |item| item.key.borrow() == key).map(|item| &mut item.value)
    }

    /// Inserts a value, or replaces that of an equal key.
    pub fn insert(&mut self, key: K, value: V) {
        let Self { tables, hasher, len } = self;
        let hash = hasher.hash_one(&key);
        match tables.len() {
            0 => tables.push(HashTable::new()),
            1 if *len >= SINGLE_TABLE_MAX => divide(tables),
            _ => {}
        }
        let table = table_of(hash, tables.len());
        let table = &mut tables[table];
        match table.entry(hash, |item| item.key == key, |item| item.hash) {
            Entry::Occupied(mut known) => known.get_mut().value = value,
            Entry::Vacant(vacant) => {
                vacant.insert(Item { hash, key, value });
                *len += 1;
            }
        }
    }

    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let table = table_of(hash, self.tables.len());
        let table = self.tables.get_mut(table)?;
        let entry = table.find_entry(hash, |item| item.key.borrow() == key).ok()?;
        self.len -= 1;
        let (Item { value, .. }, vacant) = entry.remove();
        let table = vacant.into_table();
        // A small table is not worth the work, and a factor keeps it from growing again at once.
        if table.capacity() > SHRINK_CAPACITY_MIN && table.len() < table.capacity() / 8 {
            table.shrink_to(2 * table.len(), |item| item.hash);
        }
        Some(value)
    }
}

/// The index of a table among so many, a power of two. The tables themselves use the lowest and the highest bits of the hash.
#[inline]
fn table_of(hash: u64, tables: usize) -> usize {
    (hash >> 40) as usize & tables.wrapping_sub(1)
}

/// Distributes the entries of a single table.
fn divide<K, V>(tables: &mut Vec<HashTable<Item<K, V>>>) {
    let single = std::mem::take(tables);
    tables.resize_with(TABLES, HashTable::new);
    for item in single.into_iter().flatten() {
        tables[table_of(item.hash, TABLES)].insert_unique(item.hash, item, |item| item.hash);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_the_map_of_the_standard_library(
            first in prop_oneof![Just(0), 0..2 * SINGLE_TABLE_MAX as u32],
            steps in prop::collection::vec((0..40_u32, any::<Option<u8>>()), 0..200),
        ) {
            let (mut map, mut reference) = (LargeMap::default(), HashMap::new());
            for number in 100..100 + first {
                map.insert(format!("name {number}"), 0);
                reference.insert(format!("name {number}"), 0);
            }
            prop_assert!(reference.keys().all(|key| map.contains_key(&**key)));
            for (key, value) in steps {
                let key = format!("name {key}");
                match value {
                    Some(value) => {
                        map.insert(key.clone(), value);
                        reference.insert(key.clone(), value);
                    }
                    None => prop_assert_eq!(map.remove(&*key), reference.remove(&key)),
                }
                prop_assert_eq!(map.get(&*key), reference.get(&key));
                prop_assert_eq!(map.get_mut(&*key), reference.get_mut(&key));
                prop_assert_eq!(map.contains_key(&*key), reference.contains_key(&key));
                prop_assert_eq!((map.len(), map.is_empty()), (reference.len(), reference.is_empty()));
            }
        }
    }

    #[test]
    fn no_insertion_moves_many_entries() {
        let mut map = LargeMap::default();
        for number in 0..100_000_u32 {
            map.insert(number, ());
        }
        let longest = map.tables.iter().map(HashTable::len).max();
        assert!(longest.is_some_and(|entries| entries < 1_000), "{longest:?}");
    }

    #[test]
    fn a_map_that_loses_its_entries_frees_their_memory() {
        let mut map = LargeMap::default();
        (0..100_000_u32).for_each(|number| map.insert(number, ()));
        (1..100_000).for_each(|number| assert!(map.remove(&number).is_some()));
        let capacity: usize = map.tables.iter().map(HashTable::capacity).sum();
        assert!(capacity <= TABLES * SHRINK_CAPACITY_MIN, "{capacity}");
        assert!(map.contains_key(&0));
    }
}
