//! Long computations on a shard, between which the core serves its other tasks.

use std::cell::Cell;
use std::pin::pin;
use std::task::Poll;

use crate::runtime::{poll_number, yield_now};
use crate::shard::Pace;

/// How much text is edited or written between two yields, in bytes; about a quarter of a millisecond.
pub(super) const SLICE_BYTES: usize = 1 << 20;

thread_local! {
    /// A poll of a task, and what it has left of its slice.
    static SLICE: Cell<(u32, usize)> = const { Cell::new((0, SLICE_BYTES)) };
}

/// Runs a computation that pauses at the pace it is given, and yields whenever it does. Computations that follow each other without a yield
/// share a slice, so a loop of short ones does not hold the core.
pub(super) async fn in_slices<T>(computation: impl AsyncFnOnce(&Pace) -> T) -> T {
    let (poll, left) = SLICE.get();
    let left = if poll == poll_number() { left } else { SLICE_BYTES };
    let pace = Pace::continuing(SLICE_BYTES, left);
    let mut computation = pin!(computation(&pace));
    loop {
        if let Poll::Ready(result) = futures_util::poll!(computation.as_mut()) {
            SLICE.set((poll_number(), pace.left()));
            return result;
        }
        yield_now().await;
    }
}

/// Drops items in slices.
pub(crate) async fn drop_in_slices<T>(items: Vec<T>) {
    in_slices(async |pace| pace.drop_all(items).await).await;
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::runtime::spawn;
    use crate::runtime::threads::{CoreIndex, DriverChoice, run_on_cores};

    #[test]
    fn short_computations_that_follow_each_other_yield_too() {
        const SHORT: usize = 100;
        let turns = Arc::new(AtomicUsize::new(0));
        let seen = turns.clone();
        run_on_cores(1, DriverChoice::Epoll, move |CoreIndex(_)| {
            let turns = seen.clone();
            async move {
                let done = Rc::new(Cell::new(false));
                let other = spawn({
                    let done = done.clone();
                    async move {
                        while !done.get() {
                            turns.fetch_add(1, Ordering::Relaxed);
                            yield_now().await;
                        }
                    }
                });
                let computations = spawn(async {
                    for _ in 0..10 * SHORT {
                        let items = vec![(); SLICE_BYTES / SHORT / 1024];
                        in_slices(async |pace| pace.drop_all(items).await).await;
                    }
                });
                computations.await;
                done.set(true);
                other.await;
            }
        })
        .expect("epoll works everywhere");
        let turns = turns.load(Ordering::Relaxed);
        assert!(turns >= 8, "the other task had {turns} turns beside ten slices");
    }
}
