//! A set of groups of a shard.

use std::ops::RangeInclusive;

use super::slab::Number;

/// Groups by number, a bit for each. The numbers of groups are dense.
#[derive(Debug, Default)]
pub struct GroupSet {
    words: Vec<u64>,
    len: usize,
}

/// The word of a group, and its bit there.
#[inline]
fn place(group: Number) -> (usize, u64) {
    ((group / u64::BITS) as usize, 1 << (group % u64::BITS))
}

impl GroupSet {
    /// The number of groups.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a group is in the set.
    #[inline]
    pub fn contains(&self, group: Number) -> bool {
        let (word, bit) = place(group);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds a group. Returns whether it is new.
    pub fn insert(&mut self, group: Number) -> bool {
        let (word, bit) = place(group);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += usize::from(is_new);
        is_new
    }

    /// Removes a group. Returns whether it was in the set.
    pub fn remove(&mut self, group: Number) -> bool {
        let is_known = self.contains(group);
        if is_known {
            let (word, bit) = place(group);
            self.words[word] &= !bit;
            self.len -= 1;
        }
        is_known
    }

    /// Whether one of these groups is in the set.
    pub fn has_any(&self, groups: RangeInclusive<Number>) -> bool {
        let ((first, first_bit), (last, last_bit)) = (place(*groups.start()), place(*groups.end()));
        let Some(words) = self.words.get(first..=last.min(self.words.len().saturating_sub(1))) else {
            return false;
        };
        words.iter().zip(first..).any(|(word, at)| {
            let from = if at == first { !(first_bit - 1) } else { u64::MAX };
            let to = if at == last { last_bit | (last_bit - 1) } else { u64::MAX };
            word & from & to != 0
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_tree(
            steps in prop::collection::vec((any::<bool>(), 0..300_u32), 0..100),
            ranges in prop::collection::vec((0..400_u32, 0..200_u32), 1..20),
        ) {
            let (mut set, mut reference) = (GroupSet::default(), BTreeSet::new());
            for (is_added, group) in steps {
                if is_added {
                    prop_assert_eq!(set.insert(group), reference.insert(group));
                } else {
                    prop_assert_eq!(set.remove(group), reference.remove(&group));
                }
                prop_assert_eq!(set.contains(group), reference.contains(&group));
            }
            prop_assert_eq!((set.len(), set.is_empty()), (reference.len(), reference.is_empty()));
            for (start, more) in ranges {
                let range = start..=start + more;
                prop_assert_eq!(set.has_any(range.clone()), reference.range(range).next().is_some());
            }
        }
    }
}
