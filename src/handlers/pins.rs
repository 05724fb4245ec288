//! The memory that a response pins while its client reads it.
//!
//! A response shares segments with the shards. As long as a shard has a segment too, it costs nothing; once a push has replaced it,
//! only the response keeps it in memory. What is pinned in this way is counted, from time to time, against the memory of everything
//! in flight.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::exposition::memory::OutOfMemory;
use crate::http::slots::Held;
use crate::runtime::budget::{Budget, Reservation};
use crate::shard::segments::Segment;

/// What a response holds in memory.
pub(super) struct Pins {
    state: Mutex<State>,
}

struct State {
    reservation: Reservation,
    /// The bytes of what only the response has.
    own_bytes: usize,
    shared: Vec<Weak<Segment>>,
}

impl Pins {
    /// Reserves `own_bytes` for a response. Segments that it shares follow later.
    ///
    /// # Errors
    /// The bytes do not fit.
    pub(super) fn new(budget: &Budget, own_bytes: usize) -> Result<Arc<Self>, OutOfMemory> {
        let reservation = budget.try_reserve(own_bytes).ok_or(OutOfMemory::InUse)?;
        Ok(Arc::new(Self { state: Mutex::new(State { reservation, own_bytes, shared: Vec::new() }) }))
    }

    /// Replaces the segments that the response shares.
    pub(super) fn share(&self, segments: Vec<Weak<Segment>>) {
        self.lock().shared = segments;
    }

    /// Changes how much the response has that nothing else has. Returns false, and changes nothing, if that does not fit.
    pub(super) fn resize(&self, own_bytes: usize) -> bool {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.own_bytes, own_bytes);
        let fits = state.update();
        if !fits {
            state.own_bytes = before;
        }
        fits
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Reserves what is in use now. Returns false, and changes nothing, if that does not fit.
    fn update(&mut self) -> bool {
        // What is sent is gone, and what a shard has is not counted.
        let pinned = self.shared.iter().filter(|segment| segment.strong_count() == 1);
        let pinned = pinned.filter_map(Weak::upgrade).map(|segment| segment.text().len()).sum::<usize>();
        let bytes = self.own_bytes.saturating_add(pinned);
        match bytes.checked_sub(self.reservation.bytes()) {
            Some(more) => self.reservation.try_grow(more),
            None => {
                self.reservation.shrink_to(bytes);
                true
            }
        }
    }
}

impl Held for Pins {
    fn fits(&self) -> bool {
        self.lock().update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::model::MetricType;
    use crate::shard::segments::own_segments;

    #[test]
    fn only_segments_that_no_shard_has_are_counted() {
        let budget = Budget::new(Some(1 << 20));
        let text = "m{job=\"a\"} 1\n".repeat(20_000);
        let in_shard = own_segments("m", MetricType::Untyped, text.as_bytes(), None);
        let in_response = in_shard.clone();
        let pins = Pins::new(&budget, 100_000).expect("the budget is empty");
        pins.share(in_response.iter().map(Arc::downgrade).collect());
        assert!(pins.fits());
        let before = budget.in_flight();
        assert!(before < text.len());

        drop(in_shard);
        assert!(pins.fits());
        assert!(budget.in_flight() >= 100_000 + text.len());
        assert!(!pins.resize(1 << 20), "this does not fit");

        drop(in_response);
        assert!(pins.fits());
        assert_eq!(budget.in_flight(), before);
        drop(pins);
        assert_eq!(budget.in_flight(), 0);
    }
}
