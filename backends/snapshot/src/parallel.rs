//! A loop on several threads.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Calls `work` with each index below `count`, and returns the results in the order of the indexes.
///
/// Each thread has a scratch value of its own. It begins with a contiguous range of indexes, because the work of neighbours
/// often ends up in the same place, where threads would get in each other's way.
///
/// # Errors
/// The first error that a thread returned. No further work begins after it.
pub(crate) fn map_indexes<S: Default, T: Send, E: Send>(
    count: usize,
    threads: NonZeroUsize,
    work: impl Fn(usize, &mut S) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let ranges = IndexRanges::new(count, threads);
    let stop = AtomicBool::new(false);
    let run = |thread: usize| {
        let (mut results, mut scratch) = (Vec::new(), S::default());
        while let Some(index) = ranges.next(thread).filter(|_| !stop.load(Ordering::Relaxed)) {
            match work(index, &mut scratch) {
                Ok(result) => results.push((index, result)),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(results)
    };
    let run = &run;
    let other_threads = threads.get().min(count).saturating_sub(1);
    let mut results = thread::scope(|scope| {
        let others: Vec<_> = (1..=other_threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let mut all = run(0);
        for other in others {
            let results = other.join().unwrap_or_else(|panic| resume_unwind(panic));
            all = all.and_then(|mut all| {
                all.extend(results?);
                Ok(all)
            });
        }
        all
    })?;
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// The indexes below a count, divided into a range for each thread.
struct IndexRanges(Vec<IndexRange>);

struct IndexRange {
    next: AtomicUsize,
    end: usize,
}

impl IndexRanges {
    fn new(count: usize, threads: NonZeroUsize) -> Self {
        let start = |thread| count * thread / threads;
        let range = |thread| IndexRange { next: AtomicUsize::new(start(thread)), end: start(thread + 1) };
        Self((0..threads.get()).map(range).collect())
    }

    /// The next index for a thread: from its own range, or from another's once its own is used up.
    fn next(&self, thread: usize) -> Option<usize> {
        let (later, own_first) = self.0.split_at(thread.min(self.0.len()));
        own_first.iter().chain(later).find_map(|range| {
            let index = range.next.fetch_add(1, Ordering::Relaxed);
            (index < range.end).then_some(index)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).expect("not zero")
    }

    #[test]
    fn each_thread_begins_with_its_own_range() {
        let ranges = IndexRanges::new(6, threads(2));
        let order = [0, 1, 0, 1, 1, 1, 0].map(|thread| ranges.next(thread));
        assert_eq!(order, [Some(0), Some(3), Some(1), Some(4), Some(5), Some(2), None]);
    }

    #[test]
    fn the_ranges_contain_each_index_once() {
        for (count, thread_count) in [(0, 1), (1, 4), (5, 2), (64, 3), (7, 8)] {
            let ranges = IndexRanges::new(count, threads(thread_count));
            let mut indexes: Vec<_> = std::iter::from_fn(|| ranges.next(thread_count - 1)).collect();
            indexes.sort_unstable();
            assert_eq!(indexes, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn results_are_in_the_order_of_the_indexes() {
        let squares = map_indexes(100, threads(3), |index, (): &mut ()| Ok::<_, ()>(index * index));
        assert_eq!(squares, Ok((0..100).map(|index| index * index).collect()));
    }

    #[test]
    fn an_error_stops_the_loop() {
        let begun = AtomicUsize::new(0);
        let result = map_indexes(1000, threads(1), |index, (): &mut ()| {
            begun.fetch_add(1, Ordering::Relaxed);
            if index == 3 { Err("failed") } else { Ok(()) }
        });
        assert_eq!(result, Err("failed"));
        assert_eq!(begun.into_inner(), 4);
    }
}
