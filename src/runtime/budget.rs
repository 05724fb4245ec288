//! One budget of memory for everything in flight, over all cores.
//!
//! Whatever a client can make the gateway hold for a while is reserved here, as it grows: bodies, what they decode to, what the parser
//! makes of them, and responses. A reservation that does not fit is refused at once and nothing waits, so requests that are half done
//! cannot block each other.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::exposition::memory::{Memory, OutOfMemory};

/// The last part of a budget is only for small reservations, so that ordinary pushes go on while large ones fill the rest.
const SMALL_SHARE: usize = 8;
/// The most that a reservation may have to count as small.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// Reservations grow in steps, so that a body in many pieces does not change the shared counter with each of them.
const STEP_BYTES: usize = 16 << 10;
/// What a request may use without a reservation; about what its connection takes anyway. Pushes are rarely larger.
const REQUEST_ALLOWANCE_BYTES: usize = 16 << 10;

/// A limited number of bytes. Copies share them.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Never freed: a program has one budget, and counting references would make all cores write to the same memory with each request.
    shared: &'static Shared,
}

#[derive(Debug)]
struct Shared {
    reserved: AtomicUsize,
    bytes_max: usize,
    rejected: AtomicU64,
}

/// A part of the budget; returned on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: &'static Shared,
    /// What the holder uses.
    used: usize,
    /// What of it is free of charge.
    allowance: usize,
    /// What is taken from the budget.
    counted: usize,
}

impl Budget {
    /// `None` means no limit; bytes are counted all the same.
    pub fn new(bytes_max: Option<u64>) -> Self {
        let bytes_max = bytes_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let shared = Shared { reserved: AtomicUsize::new(0), bytes_max, rejected: AtomicU64::new(0) };
        Self { shared: Box::leak(Box::new(shared)) }
    }

    /// Reserves bytes, or returns `None` and counts the rejection if they do not fit. Never waits.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let mut reservation = self.reservation(0);
        reservation.try_grow(bytes).then_some(reservation)
    }

    /// An empty reservation for a request and what it becomes. It costs no change of the shared counter as long as it is small.
    pub(crate) fn request(&self) -> Reservation {
        self.reservation(REQUEST_ALLOWANCE_BYTES)
    }

    fn reservation(&self, allowance: usize) -> Reservation {
        Reservation { budget: self.shared, used: 0, allowance, counted: 0 }
    }

    /// How many bytes are reserved now.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.reserved.load(Ordering::Relaxed)
    }

    /// The limit; `None` if there is none.
    pub(crate) fn bytes_max(&self) -> Option<usize> {
        (self.shared.bytes_max < usize::MAX).then_some(self.shared.bytes_max)
    }

    /// How many times bytes did not fit, since the start.
    pub(crate) fn rejected(&self) -> u64 {
        self.shared.rejected.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// How much may be in use after bytes are taken for a reservation that would then count `total` of them.
    fn bytes_max_for(&self, total: usize) -> usize {
        if total <= SMALL_BYTES_MAX { self.bytes_max } else { self.bytes_max - self.bytes_max / SMALL_SHARE }
    }

    /// Takes bytes for a reservation that would then count `total` of them.
    fn take(&self, bytes: usize, total: usize) -> bool {
        let bytes_max = self.bytes_max_for(total);
        // Counted before the comparison, so that two cores cannot take the same bytes. A core may then see bytes of another one that do not
        // fit, and refuse bytes that would; they would hardly have fitted.
        let before = self.reserved.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.checked_add(bytes).is_some_and(|after| after <= bytes_max);
        if !fits {
            self.reserved.fetch_sub(bytes, Ordering::Relaxed);
            self.rejected.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }
}

impl Reservation {
    /// Reserves more bytes. If they do not fit, returns false and changes nothing.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        let Some(used) = self.used.checked_add(bytes) else { return false };
        if used.saturating_sub(self.allowance) > self.counted {
            let Some(counted) = (used - self.allowance).checked_next_multiple_of(STEP_BYTES) else {
                return false;
            };
            if !self.budget.take(counted - self.counted, counted) {
                return false;
            }
            self.counted = counted;
        }
        self.used = used;
        true
    }

    /// Grows or shrinks to `bytes`.
    ///
    /// # Errors
    /// They do not fit. Nothing is changed then.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        match bytes.checked_sub(self.used) {
            Some(more) => self.grow(more),
            None => {
                self.shrink_to(bytes);
                Ok(())
            }
        }
    }

    /// Returns what exceeds `bytes`. A reservation that is smaller does not change.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        self.used = self.used.min(bytes);
        let counted = self.used.saturating_sub(self.allowance).next_multiple_of(STEP_BYTES).min(self.counted);
        if counted < self.counted {
            self.budget.reserved.fetch_sub(self.counted - counted, Ordering::Relaxed);
            self.counted = counted;
        }
    }

    /// How many bytes are reserved.
    pub(crate) fn bytes(&self) -> usize {
        self.used
    }
}

impl Memory for Reservation {
    fn grow(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        if self.try_grow(bytes) {
            return Ok(());
        }
        let total = self.used.saturating_add(bytes).saturating_sub(self.allowance);
        let bytes_max = self.budget.bytes_max_for(total);
        Err(if total > bytes_max { OutOfMemory::NeverFits { bytes_max } } else { OutOfMemory::InUse })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.counted > 0 {
            self.budget.reserved.fetch_sub(self.counted, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn bytes_are_limited_and_returned_on_drop() {
        let budget = Budget::new(Some(8 * MIB as u64));
        let mut large = budget.try_reserve(6 * MIB).expect("the budget is empty");
        assert!(!large.try_grow(2 * MIB), "the last eighth is for small reservations");
        assert_eq!((budget.in_flight(), budget.rejected()), (6 * MIB, 1));
        assert!(large.try_grow(MIB));
        assert!(budget.try_reserve(MIB).is_none());
        let small: Vec<_> = std::iter::from_fn(|| budget.try_reserve(SMALL_BYTES_MAX)).collect();
        assert_eq!(small.len(), MIB / SMALL_BYTES_MAX);
        large.shrink_to(MIB);
        assert_eq!((large.bytes(), budget.in_flight()), (MIB, 2 * MIB));
        drop((large, small));
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn a_request_that_never_fits_has_an_error_of_its_own() {
        let budget = Budget::new(Some(8 * MIB as u64));
        let others = budget.try_reserve(4 * MIB).expect("the budget is empty");
        let mut request = budget.request();
        assert_eq!(request.grow(4 * MIB), Err(OutOfMemory::InUse));
        assert_eq!(request.resize(7 * MIB), Err(OutOfMemory::InUse));
        request.grow(2 * MIB).expect("there is room");
        // Together with what the request has.
        assert_eq!(request.grow(6 * MIB), Err(OutOfMemory::NeverFits { bytes_max: 7 * MIB }));
        assert_eq!(request.resize(8 * MIB), Err(OutOfMemory::NeverFits { bytes_max: 7 * MIB }));
        assert_eq!(request.grow(usize::MAX), Err(OutOfMemory::NeverFits { bytes_max: 7 * MIB }));
        drop(others);
        request.resize(7 * MIB).expect("now there is room");
    }

    #[test]
    fn a_small_request_is_not_counted() {
        let budget = Budget::new(Some(0));
        let mut request = budget.request();
        assert!(request.try_grow(REQUEST_ALLOWANCE_BYTES));
        assert!(!request.try_grow(1));
        assert_eq!((request.bytes(), budget.in_flight()), (REQUEST_ALLOWANCE_BYTES, 0));
    }

    #[test]
    fn without_a_limit_bytes_are_counted() {
        let budget = Budget::new(None);
        let all = budget.try_reserve(usize::MAX / 2);
        assert!(all.is_some());
        assert!(budget.in_flight() >= usize::MAX / 2);
        assert!(budget.try_reserve(usize::MAX).is_none(), "the counter must not overflow");
        assert_eq!(budget.bytes_max(), None);
    }

    proptest! {
        #[test]
        fn the_counter_is_the_sum_of_the_reservations(
            steps in prop::collection::vec((0..4_usize, prop::option::of(0..300_000_usize), 0..300_000_usize), 0..100),
        ) {
            let budget = Budget::new(Some(MIB as u64));
            let mut held: Vec<_> = (0..4).map(|_| budget.request()).collect();
            for (at, grow, to) in steps {
                match grow {
                    Some(bytes) => {
                        let before = held[at].bytes();
                        let has_grown = held[at].try_grow(bytes);
                        prop_assert_eq!(held[at].bytes(), if has_grown { before + bytes } else { before });
                    }
                    None => held[at].shrink_to(to),
                }
                let counted: usize = held.iter().map(|reservation| reservation.counted).sum();
                prop_assert_eq!(budget.in_flight(), counted);
                prop_assert!(counted <= MIB);
                for reservation in &held {
                    let exact = reservation.used.saturating_sub(REQUEST_ALLOWANCE_BYTES);
                    prop_assert!((exact..exact + STEP_BYTES).contains(&reservation.counted));
                }
            }
            drop(held);
            prop_assert_eq!(budget.in_flight(), 0);
        }
    }
}
