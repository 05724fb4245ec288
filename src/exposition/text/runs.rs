//! Groups the entries of a flat table by owner.

use smallvec::SmallVec;

use crate::exposition::model::Span;

/// The owners of a table's entries, as runs of consecutive entries of one owner.
///
/// Bodies usually list the entries of an owner together. A run then covers all entries of its owner.
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
    /// Records that the owner has the entry at `index`, the newest one, and extends the owner's span by it.
    #[inline]
    pub(super) fn record(&mut self, owner: u32, index: usize, span: &mut Span) {
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

    /// The memory of the runs.
    pub(super) fn bytes(&self) -> usize {
        self.runs.len() * size_of::<Run>()
    }

    /// The memory for making entries of that many bytes contiguous.
    pub(super) fn gathering_bytes(&self, entries_bytes: usize) -> usize {
        if self.scattered { entries_bytes + self.runs.len() * 3 * size_of::<(Run, u32)>() } else { 0 }
    }

    /// Makes the entries of each owner contiguous, in the order of the owners' numbers, and calls `set_span` with each
    /// owner's new span. Does nothing if the entries are contiguous already.
    pub(super) fn make_contiguous<T: Clone>(
        &mut self,
        entries: &mut Vec<T>,
        mut set_span: impl FnMut(u32, Span),
    ) {
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
            set_span(runs[0].0.owner, Span { start, end: gathered.len() as u32 });
        }
        *entries = gathered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_entries_become_contiguous() {
        let mut spans = [Span::default(); 3];
        let mut runs = Runs::default();
        let owners = [0_u32, 0, 2, 1, 0, 2];
        for (index, &owner) in owners.iter().enumerate() {
            runs.record(owner, index, &mut spans[owner as usize]);
        }
        let mut entries = vec!['a', 'b', 'x', 'm', 'c', 'y'];
        runs.make_contiguous(&mut entries, |owner, span| spans[owner as usize] = span);
        assert_eq!(entries, ['a', 'b', 'c', 'm', 'x', 'y']);
        assert_eq!(spans, [Span { start: 0, end: 3 }, Span { start: 3, end: 4 }, Span { start: 4, end: 6 }]);
    }

    #[test]
    fn contiguous_entries_are_left_alone() {
        let mut spans = [Span::default(); 2];
        let mut runs = Runs::default();
        for (index, owner) in [1_u32, 1, 0].into_iter().enumerate() {
            runs.record(owner, index, &mut spans[owner as usize]);
        }
        let mut entries = vec![1, 2, 3];
        runs.make_contiguous(&mut entries, |_, _| unreachable!("nothing is scattered"));
        assert_eq!(spans, [Span { start: 2, end: 3 }, Span { start: 0, end: 2 }]);
    }
}
