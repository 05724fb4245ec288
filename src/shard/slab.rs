//! Items by dense numbers.

/// An index into a [`Slab`]. Numbers are dense, and reused after a removal.
pub(super) type Number = u32;

/// How many items are in a chunk: one for each bit that says which are in use.
const CHUNK_ITEMS: usize = u64::BITS as usize;

/// Items by dense numbers. A new item gets the lowest free number. The items are in chunks, so that none of them moves when the slab
/// grows, and the memory of a chunk without items is freed: a slab that was large for a while becomes small again.
///
/// The `slab` crate numbers items with `usize`, moves and keeps its memory, and cannot iterate from a number on.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// The last one has an item.
    chunks: Vec<Chunk<T>>,
    /// The chunks before this one are full.
    full_below: usize,
    len: usize,
}

#[derive(Debug)]
struct Chunk<T> {
    /// A bit for each item that is in use, so that free numbers cost little to skip.
    used: u64,
    /// Ends with the highest number that was in use since the chunk was empty.
    items: Vec<Option<T>>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), full_below: 0, len: 0 }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, item: T) -> Number {
        let is_full = |chunk: &Chunk<T>| chunk.used == u64::MAX;
        while self.chunks.get(self.full_below).is_some_and(is_full) {
            self.full_below += 1;
        }
        if self.full_below == self.chunks.len() {
            self.chunks.push(Chunk { used: 0, items: Vec::new() });
        }
        let chunk = &mut self.chunks[self.full_below];
        let at = chunk.used.trailing_ones() as usize;
        if at < chunk.items.len() {
            chunk.items[at] = Some(item);
        } else {
            chunk.items.push(Some(item));
        }
        chunk.used |= 1 << at;
        self.len += 1;
        (self.full_below * CHUNK_ITEMS + at) as Number
    }

    pub fn remove(&mut self, number: Number) -> Option<T> {
        let (index, at) = place(number);
        let chunk = &mut self.chunks[index];
        let item = chunk.items[at].take()?;
        chunk.used &= !(1 << at);
        self.full_below = self.full_below.min(index);
        self.len -= 1;
        if chunk.used == 0 {
            chunk.items = Vec::new();
            while self.chunks.pop_if(|chunk| chunk.used == 0).is_some() {}
            if self.chunks.len() < self.chunks.capacity() / 4 {
                self.chunks.shrink_to(2 * self.chunks.len());
            }
        }
        Some(item)
    }

    #[cfg(test)]
    pub fn allocated_bytes(&self) -> usize {
        let items: usize = self.chunks.iter().map(|chunk| chunk.items.capacity()).sum();
        items * size_of::<Option<T>>() + self.chunks.capacity() * size_of::<Chunk<T>>()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, number: Number) -> Option<&T> {
        let (index, at) = place(number);
        self.chunks.get(index)?.items.get(at)?.as_ref()
    }

    fn get_mut(&mut self, number: Number) -> Option<&mut T> {
        let (index, at) = place(number);
        self.chunks.get_mut(index)?.items.get_mut(at)?.as_mut()
    }

    /// The items with this number and higher ones, with their numbers.
    pub fn from(&self, start: Number) -> impl Iterator<Item = (Number, &T)> {
        let (first, skipped) = place(start);
        let chunks = self.chunks.iter().enumerate().skip(first).filter(|(_, chunk)| chunk.used != 0);
        chunks.flat_map(move |(index, chunk)| {
            let items = chunk.items.iter().enumerate().skip(if index == first { skipped } else { 0 });
            items.filter_map(move |(at, item)| Some(((index * CHUNK_ITEMS + at) as Number, item.as_ref()?)))
        })
    }
}

/// The chunk of an item, and its place there.
fn place(number: Number) -> (usize, usize) {
    (number as usize / CHUNK_ITEMS, number as usize % CHUNK_ITEMS)
}

impl<T> std::ops::Index<Number> for Slab<T> {
    type Output = T;

    fn index(&self, number: Number) -> &T {
        self.get(number).expect("a number is used only while its item exists")
    }
}

impl<T> std::ops::IndexMut<Number> for Slab<T> {
    fn index_mut(&mut self, number: Number) -> &mut T {
        self.get_mut(number).expect("a number is used only while its item exists")
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
                let chunks = model.last_key_value().map_or(0, |(number, _)| place(*number).0 + 1);
                prop_assert_eq!(slab.chunks.len(), chunks);
                prop_assert!(slab.chunks.iter().all(|chunk| chunk.used != 0 || chunk.items.capacity() == 0));
            }
        }
    }

    #[test]
    fn a_slab_that_loses_its_items_frees_their_memory() {
        let mut slab = Slab::default();
        (0..100_000).for_each(|number| assert_eq!(slab.insert(number), number));
        (1..100_000).for_each(|number| assert_eq!(slab.remove(number), Some(number)));
        assert!(slab.chunks.capacity() <= CHUNK_ITEMS, "{}", slab.chunks.capacity());
    }

    #[test]
    fn no_step_moves_or_visits_many_items() {
        let mut slab = Slab::default();
        (0..10_000).for_each(|number| assert_eq!(slab.insert(number), number));
        assert!(slab.chunks.iter().all(|chunk| chunk.items.capacity() <= CHUNK_ITEMS));
        // Only the last one keeps the slab long.
        (0..9_999).for_each(|number| assert_eq!(slab.remove(number), Some(number)));
        let kept: usize = slab.chunks.iter().map(|chunk| chunk.items.len()).sum();
        assert!(kept <= CHUNK_ITEMS, "{kept}");
    }
}
