//! A hash map that never moves many of its entries at once, see [`super::large_table`].

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use super::large_table::LargeTable;

/// A map from names, of which a client can create any number.
#[derive(Debug)]
pub(super) struct LargeMap<K, V> {
    entries: LargeTable<(K, V)>,
    hasher: foldhash::fast::RandomState,
}

impl<K, V> Default for LargeMap<K, V> {
    fn default() -> Self {
        Self { entries: LargeTable::default(), hasher: foldhash::fast::RandomState::default() }
    }
}

impl<K: Hash + Eq, V> LargeMap<K, V> {
    #[cfg(any(test, feature = "reference"))]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
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
        let found = self.entries.find(self.hasher.hash_one(key), |(known, _)| known.borrow() == key);
        found.map(|(key, value)| (key, value))
    }

    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let found = self.entries.find_mut(self.hasher.hash_one(key), |(known, _)| known.borrow() == key);
        found.map(|(_, value)| value)
    }

    /// Inserts a value, or replaces that of an equal key.
    pub fn insert(&mut self, key: K, value: V) {
        match self.get_mut(&key) {
            Some(known) => *known = value,
            None => self.entries.insert(self.hasher.hash_one(&key), (key, value)),
        }
    }

    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = self.entries.remove(self.hasher.hash_one(key), |(known, _)| known.borrow() == key);
        removed.map(|(_, value)| value)
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
            first in prop_oneof![Just(0), 0..1000_u32],
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
}
