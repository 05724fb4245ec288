//! The memory that a response pins while its client reads it.
//!
//! A response shares segments with the shards. As long as a shard has a segment too, it costs nothing; once a push has replaced it,
//! only the response keeps it in memory, until it is sent. What is pinned in this way is counted, from time to time, against the
//! memory of everything in flight.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

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
    /// What the response has not sent yet is still there.
    shared: Vec<Weak<Pinned>>,
}

/// A segment that a response has.
pub(super) struct Pinned(Arc<Segment>);

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        self.0.text()
    }
}

/// The segments that a response is about to share. They are counted once this is dropped.
pub(super) struct Pinning {
    pins: Arc<Pins>,
    shared: Vec<Weak<Pinned>>,
}

impl Pinning {
    /// Pins a segment until the result is dropped.
    pub(super) fn pin(&mut self, segment: Arc<Segment>) -> Arc<Pinned> {
        let pinned = Arc::new(Pinned(segment));
        self.shared.push(Arc::downgrade(&pinned));
        pinned
    }

    /// The text of a segment as bytes that pin it.
    pub(super) fn bytes(&mut self, segment: Arc<Segment>) -> Bytes {
        struct Text(Arc<Pinned>);
        impl AsRef<[u8]> for Text {
            fn as_ref(&self) -> &[u8] {
                (*self.0).as_ref()
            }
        }
        Bytes::from_owner(Text(self.pin(segment)))
    }
}

impl Drop for Pinning {
    fn drop(&mut self) {
        self.pins.lock().shared = std::mem::take(&mut self.shared);
    }
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

    /// Begins to replace the segments that the response shares.
    pub(super) fn share(self: &Arc<Self>) -> Pinning {
        Pinning { pins: self.clone(), shared: Vec::new() }
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
        let unsent = self.shared.iter().filter_map(Weak::upgrade);
        let pinned = unsent.filter(|pinned| Arc::strong_count(&pinned.0) == 1);
        let pinned: usize = pinned.map(|pinned| pinned.0.text().len()).sum();
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
        let pins = Pins::new(&budget, 100_000).expect("the budget is empty");
        let mut pinning = pins.share();
        let mut in_response: Vec<_> = in_shard.iter().map(|segment| pinning.bytes(segment.clone())).collect();
        drop(pinning);
        assert!(pins.fits());
        let before = budget.in_flight();
        assert!(before < text.len());

        // What is sent is not counted, although a shard still has it.
        let sent = in_response.pop().expect("there are several").len();
        assert!(pins.fits());
        assert_eq!(budget.in_flight(), before);

        drop(in_shard);
        assert!(pins.fits());
        assert!(budget.in_flight() >= 100_000 + text.len() - sent);
        assert!(!pins.resize(1 << 20), "this does not fit");

        drop(in_response);
        assert!(pins.fits());
        assert_eq!(budget.in_flight(), before);
        drop(pins);
        assert_eq!(budget.in_flight(), 0);
    }
}
