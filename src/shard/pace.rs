//! Long computations in slices.
//!
//! What a shard does for a large command is written as coroutines. They wait for nothing: they count their cost and pause when a
//! slice is used up, and the caller continues them after the core has served others. A small command runs without a pause.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

/// How much a computation does between two pauses. The unit of cost is the time to copy or compare a byte.
#[derive(Debug)]
pub struct Pace {
    slice: usize,
    left: Cell<usize>,
}

/// The cost of a step that looks at one family, or at one name of the registry.
pub(super) const LOOK: usize = 1024;
/// The cost of a step that changes one family, or one name of the registry.
pub(super) const CHANGE: usize = 4096;

impl Pace {
    /// Never pauses.
    pub fn unlimited() -> Self {
        Self::slices(usize::MAX)
    }

    /// Pauses whenever steps of about this cost were made.
    pub fn slices(cost: usize) -> Self {
        Self::continuing(cost, cost)
    }

    /// The same, but only `left` is left of the first slice.
    pub fn continuing(cost: usize, left: usize) -> Self {
        Self { slice: cost, left: Cell::new(left) }
    }

    /// What is left of the current slice.
    pub fn left(&self) -> usize {
        self.left.get()
    }

    pub(super) fn is_unlimited(&self) -> bool {
        self.slice == usize::MAX
    }

    /// Counts a step. Pauses if it does not fit in the slice.
    pub(super) fn spend(&self, cost: usize) -> Spend<'_> {
        Spend { pace: self, cost, has_paused: false }
    }

    /// Drops items in slices, and frees their memory along the way: returning a hundred megabytes to the operating system in one step
    /// takes more than ten milliseconds.
    pub(crate) async fn drop_all<T>(&self, mut items: Vec<T>) {
        while pop_and_shrink(&mut items).is_some() {
            self.spend(LOOK).await;
        }
    }
}

/// How much memory of a list that loses its items stays unused.
const SLACK_BYTES: usize = 1 << 20;

/// Removes the last item.
fn pop_and_shrink<T>(items: &mut Vec<T>) -> Option<T> {
    let item = items.pop();
    if (items.capacity() - items.len()).saturating_mul(size_of::<T>()) > SLACK_BYTES {
        items.shrink_to_fit();
    }
    item
}

/// See [`Pace::spend`].
pub(super) struct Spend<'p> {
    pace: &'p Pace,
    cost: usize,
    has_paused: bool,
}

impl Future for Spend<'_> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let left = self.pace.left.get();
        if self.cost <= left || self.has_paused {
            self.pace.left.set(left.saturating_sub(self.cost));
            return Poll::Ready(());
        }
        self.has_paused = true;
        self.pace.left.set(self.pace.slice);
        Poll::Pending
    }
}

/// Runs a computation with [`Pace::unlimited`].
pub(super) fn at_once<T>(computation: impl Future<Output = T>) -> T {
    match pin!(computation).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("an unlimited pace never pauses"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_has_about_the_cost_of_the_pace() {
        let (pace, done) = (Pace::slices(10), Cell::new(0));
        let mut computation = pin!(async {
            for cost in [3, 3, 3, 3, 20, 1] {
                pace.spend(cost).await;
                done.set(done.get() + 1);
            }
        });
        let mut context = Context::from_waker(Waker::noop());
        let slices: Vec<_> = std::iter::repeat_with(|| {
            let is_ready = computation.as_mut().poll(&mut context).is_ready();
            (is_ready, done.get())
        })
        .take(4)
        .collect();
        assert_eq!(slices, [(false, 3), (false, 4), (false, 5), (true, 6)]);
    }

    #[test]
    fn a_list_that_loses_its_items_frees_their_memory() {
        let mut items = vec![0_u64; 1_000_000];
        while pop_and_shrink(&mut items).is_some() {
            assert!((items.capacity() - items.len()) * size_of::<u64>() <= SLACK_BYTES, "{}", items.len());
        }
    }

    #[test]
    fn a_computation_without_a_limit_never_pauses() {
        let pace = Pace::unlimited();
        at_once(async {
            pace.spend(usize::MAX / 2).await;
            pace.drop_all(vec![0; 1_000]).await;
        });
    }
}
