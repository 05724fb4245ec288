//! Items by dense numbers.

/// An index into a [`Slab`]. Numbers are dense, and reused after a removal.
pub(super) type Number = u32;

const WORD_BITS: usize = u64::BITS as usize;

/// Items by dense numbers. A new item gets the lowest free number, and memory behind the highest number in use is freed, so a slab
/// that was large for a while becomes small again.
///
/// The `slab` crate numbers items with `usize`, keeps its memory, and cannot iterate from a number on.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    /// A bit for each item that is in use, so that free numbers cost little to skip.
    used: Vec<u64>,
    /// All numbers below this one are in use.
    full_below: usize,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), used: Vec::new(), full_below: 0, len: 0 }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, item: T) -> Number {
        let number = self.first_free();
        if number == self.items.len() {
            self.items.push(Some(item));
            self.used.resize(self.items.len().div_ceil(WORD_BITS), 0);
        } else {
            self.items[number] = Some(item);
        }
        self.used[number / WORD_BITS] |= 1 << (number % WORD_BITS);
        self.full_below = number + 1;
        self.len += 1;
        number as Number
    }

    pub fn remove(&mut self, number: Number) -> Option<T> {
        let number = number as usize;
        let item = self.items[number].take()?;
        self.used[number / WORD_BITS] &= !(1 << (number % WORD_BITS));
        self.full_below = self.full_below.min(number);
        self.len -= 1;
        if number + 1 == self.items.len() {
            self.truncate();
        }
        Some(item)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, number: Number) -> Option<&T> {
        self.items.get(number as usize)?.as_ref()
    }

    /// The items with this number and higher ones, with their numbers.
    pub fn from(&self, start: Number) -> impl Iterator<Item = (Number, &T)> {
        let mut next = start as usize;
        std::iter::from_fn(move || {
            let number = self.first_used(next)?;
            next = number + 1;
            Some((number as Number, self.items[number].as_ref()?))
        })
    }

    /// The lowest free number.
    fn first_free(&self) -> usize {
        let mut word = self.full_below / WORD_BITS;
        while let Some(bits) = self.used.get(word) {
            if *bits != u64::MAX {
                return word * WORD_BITS + bits.trailing_ones() as usize;
            }
            word += 1;
        }
        self.items.len()
    }

    /// The lowest number in use from `start` on.
    fn first_used(&self, start: usize) -> Option<usize> {
        let mut word = start / WORD_BITS;
        let mut bits = self.used.get(word)? & (u64::MAX << (start % WORD_BITS));
        while bits == 0 {
            word += 1;
            bits = *self.used.get(word)?;
        }
        Some(word * WORD_BITS + bits.trailing_zeros() as usize)
    }

    /// Frees memory behind the highest number in use.
    fn truncate(&mut self) {
        while self.used.pop_if(|bits| *bits == 0).is_some() {}
        let highest = self.used.last().map_or(0, |bits| WORD_BITS - bits.leading_zeros() as usize);
        let len = self.used.len().saturating_sub(1) * WORD_BITS + highest;
        self.items.truncate(len);
        // By a factor, so that few removals move the items.
        if self.items.capacity() > WORD_BITS && len < self.items.capacity() / 4 {
            self.items.shrink_to(2 * len);
            self.used.shrink_to(2 * self.used.len());
        }
    }
}

impl<T> std::ops::Index<Number> for Slab<T> {
    type Output = T;

    fn index(&self, number: Number) -> &T {
        self.items[number as usize].as_ref().expect("a number is used only while its item exists")
    }
}

impl<T> std::ops::IndexMut<Number> for Slab<T> {
    fn index_mut(&mut self, number: Number) -> &mut T {
        self.items[number as usize].as_mut().expect("a number is used only while its item exists")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_tree_of_the_lowest_numbers(
            steps in prop::collection::vec(prop_oneof![3 => Just(None), 2 => (0..200_u32).prop_map(Some)], 0..600),
        ) {
            let (mut slab, mut model) = (Slab::default(), BTreeMap::new());
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    None => {
                        let lowest = (0..).find(|number| !model.contains_key(number)).expect("is free");
                        prop_assert_eq!(slab.insert(value), lowest);
                        model.insert(lowest, value);
                    }
                    Some(number) if slab.get(number).is_some() => {
                        prop_assert_eq!(slab.remove(number), model.remove(&number));
                    }
                    Some(number) => prop_assert!(!model.contains_key(&number)),
                }
                prop_assert_eq!(slab.len(), model.len());
                let start = value as Number % 70;
                prop_assert!(slab.from(start).eq(model.range(start..).map(|(number, value)| (*number, value))));
                let highest = model.last_key_value().map_or(0, |(number, _)| *number as usize + 1);
                prop_assert_eq!(slab.items.len(), highest);
            }
        }
    }

    #[test]
    fn a_slab_that_loses_its_items_frees_their_memory() {
        let mut slab = Slab::default();
        (0..100_000).for_each(|number| assert_eq!(slab.insert(number), number));
        (1..100_000).for_each(|number| assert_eq!(slab.remove(number), Some(number)));
        assert!(slab.items.capacity() <= 2 * WORD_BITS, "{}", slab.items.capacity());
    }
}
