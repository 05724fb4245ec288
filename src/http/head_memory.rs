//! The memory of long request heads.
//!
//! A usual head fits into the buffers that every connection has. A longer one is reserved while it arrives and until its request is
//! complete: the headers and the path refer to it, and the path is copied when it is decoded.

use std::cell::{Cell, RefCell};

use crate::runtime::budget::{Budget, Reservation};

/// Heads up to this size need no reservation.
const USUAL_BYTES_MAX: usize = 8 << 10;
/// The copies of a head: hyper's buffer, the decoded path, and the labels in it.
const COPIES: usize = 3;

/// The memory of the head that a connection receives or serves.
#[derive(Debug, Default)]
pub(super) struct HeadMemory {
    bytes: Cell<usize>,
    reservation: RefCell<Option<Reservation>>,
    is_refused: Cell<bool>,
}

impl HeadMemory {
    /// Counts bytes of a head. Returns false if there is no memory for them.
    pub(super) fn add(&self, bytes: usize, budget: &Budget) -> bool {
        let total = self.bytes.get().saturating_add(bytes);
        self.bytes.set(total);
        if total <= USUAL_BYTES_MAX {
            return true;
        }
        let mut reservation = self.reservation.borrow_mut();
        let fits = match &mut *reservation {
            Some(reservation) => reservation.try_grow(bytes.saturating_mul(COPIES)),
            none => {
                *none = budget.try_reserve(total.saturating_mul(COPIES));
                none.is_some()
            }
        };
        self.is_refused.set(!fits);
        fits
    }

    /// The request is complete, or the next head begins.
    pub(super) fn clear(&self) {
        if self.bytes.replace(0) > USUAL_BYTES_MAX {
            self.reservation.replace(None);
        }
    }

    /// There is no memory for the next bytes.
    pub(super) fn refuse(&self) {
        self.is_refused.set(true);
    }

    /// Whether the last bytes did not fit.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.get()
    }

    /// How many bytes arrived, with those of pipelined requests behind the head.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_heads_are_reserved_and_until_they_end() {
        let budget = Budget::new(Some(96 << 10));
        let (first, second) = (HeadMemory::default(), HeadMemory::default());
        assert!(first.add(USUAL_BYTES_MAX, &budget));
        assert_eq!(budget.in_flight(), 0);
        assert!(first.add(12 << 10, &budget));
        assert_eq!(first.bytes(), 20 << 10);
        assert!(budget.in_flight() >= 60 << 10);
        assert!(!second.add(20 << 10, &budget) && second.is_refused());
        first.clear();
        assert_eq!(budget.in_flight(), 0);
        second.clear();
        assert!(second.add(20 << 10, &budget) && !second.is_refused());
    }
}
