//! A map that has few entries for most families, and stays fast when clients give it many.

use std::collections::BTreeMap;
use std::ops::Bound;

use smallvec::SmallVec;

/// Above this many entries, a map is a tree.
const SMALL_MAX: usize = 16;

/// A map in the order of its keys: a short list, or a tree if there are many entries.
#[derive(Debug)]
pub(super) enum SmallMap<K, V> {
    /// Sorted by key.
    Few(SmallVec<[(K, V); 2]>),
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl<K: Copy + Ord, V> SmallMap<K, V> {
    pub fn len(&self) -> usize {
        match self {
            Self::Few(entries) => entries.len(),
            Self::Many(entries) => entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, key: K) -> Option<&V> {
        match self {
            Self::Few(entries) => entries.iter().find(|(known, _)| *known == key).map(|(_, value)| value),
            Self::Many(entries) => entries.get(&key),
        }
    }

    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        match self {
            Self::Few(entries) => entries.iter_mut().find(|(known, _)| *known == key).map(|(_, value)| value),
            Self::Many(entries) => entries.get_mut(&key),
        }
    }

    /// Adds an entry, or replaces its value.
    pub fn insert(&mut self, key: K, value: V) {
        match self {
            Self::Few(entries) => match entries.binary_search_by_key(&key, |(known, _)| *known) {
                Ok(at) => entries[at].1 = value,
                Err(at) => {
                    entries.insert(at, (key, value));
                    if entries.len() > SMALL_MAX {
                        *self = Self::Many(std::mem::take(entries).into_iter().collect());
                    }
                }
            },
            Self::Many(entries) => drop(entries.insert(key, value)),
        }
    }

    pub fn remove(&mut self, key: K) -> Option<V> {
        match self {
            Self::Few(entries) => {
                let at = entries.binary_search_by_key(&key, |(known, _)| *known).ok()?;
                Some(entries.remove(at).1)
            }
            Self::Many(entries) => {
                let value = entries.remove(&key);
                // Half, so that a map at the border does not change its form each time.
                if entries.len() <= SMALL_MAX / 2 {
                    *self = Self::Few(std::mem::take(entries).into_iter().collect());
                }
                value
            }
        }
    }

    /// The first key above `after`, or of all; with a limited number of calls, a caller visits a large map in slices.
    pub fn next_key(&self, after: Option<K>) -> Option<K> {
        match self {
            Self::Few(entries) => {
                entries.iter().map(|(key, _)| *key).find(|key| after.is_none_or(|after| *key > after))
            }
            Self::Many(entries) => {
                let start = after.map_or(Bound::Unbounded, Bound::Excluded);
                entries.range((start, Bound::Unbounded)).next().map(|(key, _)| *key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_tree(steps in prop::collection::vec((any::<bool>(), 0..40_u32), 0..200)) {
            let (mut map, mut model) = (SmallMap::default(), BTreeMap::new());
            for (value, (insert, key)) in steps.into_iter().enumerate() {
                if insert {
                    map.insert(key, value);
                    model.insert(key, value);
                } else {
                    prop_assert_eq!(map.remove(key), model.remove(&key));
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.get(key), model.get(&key));
                let keys = std::iter::successors(map.next_key(None), |key| map.next_key(Some(*key)));
                prop_assert!(keys.eq(model.keys().copied()));
            }
        }
    }
}
