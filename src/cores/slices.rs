//! Long computations on a shard, between which the core serves its other tasks.

use std::pin::pin;

use crate::runtime::yield_now;
use crate::shard::Pace;

/// How much text is edited or written between two yields, in bytes; about a quarter of a millisecond.
pub(super) const SLICE_BYTES: usize = 1 << 20;

/// Runs a computation that pauses at the pace it is given, and yields whenever it does.
pub(super) async fn in_slices<T>(computation: impl AsyncFnOnce(&Pace) -> T) -> T {
    let pace = Pace::slices(SLICE_BYTES);
    let mut computation = pin!(computation(&pace));
    loop {
        if let std::task::Poll::Ready(result) = futures_util::poll!(computation.as_mut()) {
            return result;
        }
        yield_now().await;
    }
}

/// Drops items in slices.
pub(crate) async fn drop_in_slices<T>(items: Vec<T>) {
    in_slices(async |pace| pace.drop_all(items).await).await;
}
