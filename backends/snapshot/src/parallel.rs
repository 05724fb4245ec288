//! A loop on several threads.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Does `work` for 0 up to `count`, and gives the results in that order. Each thread has a scratch of its own. After an error no
/// new work is begun.
pub(crate) fn for_each<S: Default, T: Send, E: Send>(
    count: usize,
    threads: NonZeroUsize,
    work: impl Fn(usize, &mut S) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let run = || {
        let (mut done, mut scratch) = (Vec::new(), S::default());
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(done);
            }
            match work(at, &mut scratch) {
                Ok(result) => done.push((at, result)),
                Err(error) => {
                    next.store(count, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let helpers = threads.get().min(count).saturating_sub(1);
    let mut all = thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(run)).collect();
        let mut all = run();
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

/// The numbers below `count` in an order in which threads that work beside each other are far apart: neighbours often end up in
/// the same place, where they would be in each other's way.
pub(crate) fn spread(count: usize, threads: NonZeroUsize) -> Vec<usize> {
    let stride = count.div_ceil(threads.get());
    (0..stride).flat_map(|at| (at..count).step_by(stride)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_is_spread_leaves_nothing_out() {
        let threads = |count| NonZeroUsize::new(count).expect("not zero");
        assert_eq!(spread(6, threads(2)), [0, 3, 1, 4, 2, 5]);
        for (count, number) in [(0, 1), (1, 4), (5, 2), (64, 3), (7, 8)] {
            let mut order = spread(count, threads(number));
            order.sort_unstable();
            assert_eq!(order, (0..count).collect::<Vec<_>>());
        }
    }
}
