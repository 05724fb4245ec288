//! Finding things by hash and putting them in order, for tables that are flat vectors.

use smallvec::{SmallVec, smallvec};

use crate::exposition::model::Span;

/// Finds places in some other table by hash; whether a place is the right one is for the caller to say.
///
/// Small tables live where their owner lives. Never shrinks, has no removal.
pub(super) struct IndexTable {
    /// Open addressing, at most half full. The low half is the place plus one, 0 is free; the high half is the hash.
    slots: SmallVec<[u64; INLINE_SLOTS]>,
    len: usize,
}

const INLINE_SLOTS: usize = 64;

impl IndexTable {
    pub(super) fn new() -> Self {
        Self { slots: smallvec![0; INLINE_SLOTS], len: 0 }
    }

    /// The place with this hash for which `is` holds.
    #[inline]
    pub(super) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let slots = self.slots.as_slice();
        let mask = slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = slots[at];
            if slot == 0 {
                return None;
            }
            let index = slot as u32 - 1;
            if (slot >> 32) as u32 == hash && is(index) {
                return Some(index);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a place, which must not be in the table.
    pub(super) fn insert(&mut self, hash: u32, index: u32) {
        self.len += 1;
        if self.len * 2 > self.slots.len() {
            self.grow();
        }
        self.place(u64::from(hash) << 32 | u64::from(index + 1));
    }

    fn place(&mut self, slot: u64) {
        let slots = self.slots.as_mut_slice();
        let mask = slots.len() - 1;
        let mut at = (slot >> 32) as usize & mask;
        while slots[at] != 0 {
            at = (at + 1) & mask;
        }
        slots[at] = slot;
    }

    #[cold]
    fn grow(&mut self) {
        let larger = smallvec![0; self.slots.len() * 4];
        for slot in std::mem::replace(&mut self.slots, larger) {
            if slot != 0 {
                self.place(slot);
            }
        }
    }
}

/// Who owns the entries of a table, as runs of entries of one owner.
///
/// Bodies usually keep together what belongs together; then a run is all of its owner's entries.
#[derive(Default)]
pub(super) struct Runs {
    runs: SmallVec<[Run; 16]>,
    scattered: bool,
}

#[derive(Clone, Copy)]
struct Run {
    owner: u32,
    start: u32,
}

impl Runs {
    /// Notes that the entry at `index`, the newest, is the owner's, and widens the owner's span by it.
    #[inline]
    pub(super) fn note(&mut self, owner: u32, index: usize, span: &mut Span) {
        let index = index as u32;
        if self.runs.last().is_none_or(|run| run.owner != owner) {
            self.scattered |= !span.is_empty();
            if span.is_empty() {
                *span = Span { start: index, end: index };
            }
            self.runs.push(Run { owner, start: index });
        }
        span.end += 1;
    }

    /// Puts entries of one owner together if they are not, owners in the order of their numbers, and calls `settle`
    /// with each owner's span then.
    pub(super) fn gather<T: Clone>(&mut self, entries: &mut Vec<T>, mut settle: impl FnMut(u32, Span)) {
        if !self.scattered {
            return;
        }
        let ends: Vec<u32> =
            self.runs.iter().skip(1).map(|run| run.start).chain([entries.len() as u32]).collect();
        let mut order: Vec<(Run, u32)> = self.runs.drain(..).zip(ends).collect();
        order.sort_by_key(|(run, _)| run.owner);
        let mut gathered = Vec::with_capacity(entries.len());
        for runs in order.chunk_by(|(left, _), (right, _)| left.owner == right.owner) {
            let start = gathered.len() as u32;
            for (run, end) in runs {
                gathered.extend_from_slice(&entries[run.start as usize..*end as usize]);
            }
            settle(runs[0].0.owner, Span { start, end: gathered.len() as u32 });
        }
        *entries = gathered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_finds_what_was_put_in_and_grows() {
        let mut table = IndexTable::new();
        // Few hashes, so that many places share one.
        for index in 0..1000 {
            assert_eq!(table.find(index % 7, |found| found == index), None);
            table.insert(index % 7, index);
        }
        for index in 0..1000 {
            assert_eq!(table.find(index % 7, |found| found == index), Some(index));
            assert_eq!(table.find(7, |_| true), None);
        }
    }

    #[test]
    fn runs_gather_what_was_scattered() {
        let mut spans = [Span::default(); 3];
        let mut runs = Runs::default();
        let owners = [0_u32, 0, 2, 1, 0, 2];
        for (index, &owner) in owners.iter().enumerate() {
            runs.note(owner, index, &mut spans[owner as usize]);
        }
        let mut entries = vec!['a', 'b', 'x', 'm', 'c', 'y'];
        runs.gather(&mut entries, |owner, span| spans[owner as usize] = span);
        assert_eq!(entries, ['a', 'b', 'c', 'm', 'x', 'y']);
        assert_eq!(spans, [Span { start: 0, end: 3 }, Span { start: 3, end: 4 }, Span { start: 4, end: 6 }]);
    }

    #[test]
    fn runs_leave_alone_what_stands_together() {
        let mut spans = [Span::default(); 2];
        let mut runs = Runs::default();
        for (index, owner) in [1_u32, 1, 0].into_iter().enumerate() {
            runs.note(owner, index, &mut spans[owner as usize]);
        }
        let mut entries = vec![1, 2, 3];
        runs.gather(&mut entries, |_, _| unreachable!("nothing is scattered"));
        assert_eq!(spans, [Span { start: 2, end: 3 }, Span { start: 0, end: 2 }]);
    }
}
