//! A loop on several threads.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Does `work` for 0 up to `count`, and gives the results in that order. Each thread has a scratch of its own, and a stretch of
/// neighbours to begin with: they often end up in the same place, where others would be in its way. After an error no new work
/// is begun.
pub(crate) fn for_each<S: Default, T: Send, E: Send>(
    count: usize,
    threads: NonZeroUsize,
    work: impl Fn(usize, &mut S) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let stretches = Stretches::new(count, threads);
    let stop = AtomicBool::new(false);
    let run = |thread: usize| {
        let (mut done, mut scratch) = (Vec::new(), S::default());
        while let Some(at) = stretches.next(thread).filter(|_| !stop.load(Ordering::Relaxed)) {
            match work(at, &mut scratch) {
                Ok(result) => done.push((at, result)),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    let run = &run;
    let helpers = threads.get().min(count).saturating_sub(1);
    let mut all = thread::scope(|scope| {
        let helpers: Vec<_> = (1..=helpers).map(|thread| scope.spawn(move || run(thread))).collect();
        let mut all = run(0);
        for helper in helpers {
            let done = helper.join().unwrap_or_else(|panic| resume_unwind(panic));
            all = match (all, done) {
                (Ok(mut all), Ok(done)) => {
                    all.extend(done);
                    Ok(all)
                }
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
        }
        all
    })?;
    all.sort_unstable_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

/// The numbers below a count, a stretch for each thread. A thread whose stretch is done goes on in those of the others.
struct Stretches(Vec<(AtomicUsize, usize)>);

impl Stretches {
    fn new(count: usize, threads: NonZeroUsize) -> Self {
        let begin = |thread| count * thread / threads;
        Self((0..threads.get()).map(|thread| (AtomicUsize::new(begin(thread)), begin(thread + 1))).collect())
    }

    fn next(&self, thread: usize) -> Option<usize> {
        let (later, own_first) = self.0.split_at(thread.min(self.0.len()));
        own_first.iter().chain(later).find_map(|(next, end)| {
            let at = next.fetch_add(1, Ordering::Relaxed);
            (at < *end).then_some(at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_begin_apart_and_leave_nothing_out() {
        let stretches = |count, threads| Stretches::new(count, NonZeroUsize::new(threads).expect("not zero"));
        let six = stretches(6, 2);
        let order: Vec<_> = [0, 1, 0, 1, 1, 1, 0].map(|thread| six.next(thread)).into();
        assert_eq!(order, [Some(0), Some(3), Some(1), Some(4), Some(5), Some(2), None]);
        for (count, threads) in [(0, 1), (1, 4), (5, 2), (64, 3), (7, 8)] {
            let stretches = stretches(count, threads);
            let mut all: Vec<_> = std::iter::from_fn(|| stretches.next(threads - 1)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }
}
