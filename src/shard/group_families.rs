//! The families of a group, sorted by number.
//!
//! They are in chunks, so that adding one to a group with very many moves only a few. Nearly all groups have one chunk.

use smallvec::SmallVec;

use super::pace::{LOOK, Pace};
use super::slab::Number;
use super::tables::GroupFamily;

/// A chunk with more families is split.
const CHUNK_LEN_MAX: usize = 512;

/// The families of a group.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupFamilies {
    /// Sorted, and none is empty.
    chunks: SmallVec<[Vec<GroupFamily>; 1]>,
}

/// Where the next family probably is: nearly all pushes list their families in the order in which their first push did, which gave
/// them their numbers.
#[derive(Debug, Default)]
pub(super) struct Near(usize);

/// Where a family is, or where it would be inserted.
enum Place {
    Found(usize, usize),
    Missing(usize, usize),
}

impl GroupFamilies {
    /// No families, with memory for some.
    pub fn with_capacity(families: usize) -> Self {
        let mut new = Self::default();
        if (1..=CHUNK_LEN_MAX).contains(&families) {
            new.chunks.push(Vec::with_capacity(families));
        }
        new
    }

    /// Drops the list in slices.
    pub async fn free(self, pace: &Pace) {
        for chunk in self.chunks {
            drop(chunk);
            pace.spend(LOOK).await;
        }
    }

    pub fn len(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = &GroupFamily> {
        self.chunks.iter().flatten()
    }

    /// Sets the push time of all families.
    pub fn set_push_seconds(&mut self, push_seconds: f64) {
        self.chunks.iter_mut().flatten().for_each(|family| family.push_seconds = push_seconds);
    }

    /// The families with this number and higher ones.
    pub fn from(&self, start: Number) -> impl Iterator<Item = &GroupFamily> {
        let (Place::Found(chunk, at) | Place::Missing(chunk, at)) = self.place(start);
        let rest = self.chunks.get(chunk + 1..).unwrap_or_default();
        let first = self.chunks.get(chunk).and_then(|chunk| chunk.get(at..)).unwrap_or_default();
        first.iter().chain(rest.iter().flatten())
    }

    pub fn get(&self, number: Number) -> Option<&GroupFamily> {
        self.get_near(number, &mut Near::default())
    }

    /// The same. Visiting families in their order is fast.
    #[inline]
    pub fn get_near(&self, number: Number, near: &mut Near) -> Option<&GroupFamily> {
        match self.place_near(number, near) {
            Place::Found(chunk, at) => Some(&self.chunks[chunk][at]),
            Place::Missing(..) => None,
        }
    }

    /// Adds a family, or replaces the one with its number.
    pub fn insert(&mut self, family: GroupFamily) {
        self.insert_near(family, &mut Near::default());
    }

    /// The same. Visiting families in their order is fast.
    #[inline]
    pub fn insert_near(&mut self, family: GroupFamily, near: &mut Near) {
        match self.place_near(family.number, near) {
            Place::Found(chunk, at) => self.chunks[chunk][at] = family,
            Place::Missing(chunk, at) => self.insert_at(chunk, at, family),
        }
    }

    fn insert_at(&mut self, chunk: usize, at: usize, family: GroupFamily) {
        let Some(families) = self.chunks.get_mut(chunk) else { return self.chunks.push(vec![family]) };
        if families.len() < CHUNK_LEN_MAX {
            families.insert(at, family);
        } else if at == CHUNK_LEN_MAX {
            // Families that are new to the core have rising numbers, so leave the full chunk as it is.
            self.chunks.insert(chunk + 1, vec![family]);
        } else {
            let rest = families.split_off(CHUNK_LEN_MAX / 2);
            self.chunks.insert(chunk + 1, rest);
            self.insert(family);
        }
    }

    pub fn remove(&mut self, number: Number) {
        if let Place::Found(chunk, at) = self.place(number) {
            self.chunks[chunk].remove(at);
            if self.chunks[chunk].is_empty() {
                self.chunks.remove(chunk);
            }
        }
    }

    #[inline]
    fn place_near(&self, number: Number, near: &mut Near) -> Place {
        let first = self.chunks.first().map(Vec::as_slice).unwrap_or_default();
        let place = match first.get(near.0) {
            Some(next) if next.number == number => Place::Found(0, near.0),
            _ => self.place(number),
        };
        if let Place::Found(_, at) = place {
            near.0 = at + 1;
        }
        place
    }

    fn place(&self, number: Number) -> Place {
        let starts_before =
            |chunk: &Vec<GroupFamily>| chunk.first().is_some_and(|first| first.number <= number);
        let chunk = match self.chunks.len() {
            0 | 1 => 0,
            _ => self.chunks.partition_point(starts_before).saturating_sub(1),
        };
        let Some(families) = self.chunks.get(chunk) else { return Place::Missing(0, 0) };
        match families.binary_search_by_key(&number, |family| family.number) {
            Ok(at) => Place::Found(chunk, at),
            Err(at) => Place::Missing(chunk, at),
        }
    }
}

impl FromIterator<GroupFamily> for GroupFamilies {
    fn from_iter<I: IntoIterator<Item = GroupFamily>>(families: I) -> Self {
        let families = families.into_iter();
        let mut new = Self::with_capacity(families.size_hint().0);
        families.for_each(|family| new.insert(family));
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const NUMBERS: Number = 4 * CHUNK_LEN_MAX as Number;

    proptest! {
        #[test]
        fn the_families_of_a_group_behave_like_a_map(
            first in prop::collection::vec(0..NUMBERS, 0..2 * NUMBERS as usize),
            steps in prop::collection::vec((0..NUMBERS, any::<bool>()), 0..50),
            start in 0..NUMBERS,
        ) {
            let first = first.into_iter().map(|number| (number, false));
            let (mut families, mut reference) = (GroupFamilies::with_capacity(8), BTreeMap::new());
            let mut near = Near::default();
            for (step, (number, is_removal)) in first.chain(steps).enumerate() {
                if is_removal {
                    families.remove(number);
                    reference.remove(&number);
                } else {
                    let family = GroupFamily { number, help: step as u32, push_seconds: 0.0 };
                    families.insert_near(family, &mut near);
                    reference.insert(number, step as u32);
                }
            }
            let pairs = |family: &GroupFamily| (family.number, family.help);
            prop_assert_eq!(families.len(), reference.len());
            for number in [start, start + 1] {
                let expected = reference.get(&number).map(|help| (number, *help));
                prop_assert_eq!(families.get_near(number, &mut near).map(pairs), expected);
            }
            let rest: Vec<_> = families.from(start).map(pairs).collect();
            prop_assert_eq!(rest, reference.range(start..).map(|(number, help)| (*number, *help)).collect::<Vec<_>>());
            let all: Vec<_> = families.iter().map(pairs).collect();
            prop_assert_eq!(all, reference.into_iter().collect::<Vec<_>>());
            prop_assert!(families.chunks.iter().all(|chunk| (1..=CHUNK_LEN_MAX).contains(&chunk.len()) || families.len() == 0));
        }
    }
}
