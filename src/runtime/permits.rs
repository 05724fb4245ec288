//! Limits how often something happens at the same time, over all cores.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::budget::Reservation;

/// A limited number of permits. Copies share them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permits {
    /// Never freed: a program has a few, and counting references would make all cores write to the same memory with each request.
    taken: &'static AtomicUsize,
    max: usize,
}

/// One of the permits; returned on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    taken: &'static AtomicUsize,
    /// The memory of what the permit is for.
    memory: Option<Reservation>,
}

impl Permits {
    /// `None` means no limit; permits are counted all the same.
    pub(crate) fn new(max: Option<usize>) -> Self {
        Self { taken: Box::leak(Box::default()), max: max.unwrap_or(usize::MAX) }
    }

    /// A permit, or `None` if all are taken. Never waits.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        // Counted before the comparison; a permit beyond the limit is returned by its drop.
        let permit = Permit { taken: self.taken, memory: None };
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.max).then_some(permit)
    }

    /// How many permits are taken.
    pub(crate) fn in_use(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// Keeps the memory reserved until the permit is returned.
    pub(crate) fn holding(self, memory: Reservation) -> Self {
        let mut permit = self;
        permit.memory = Some(memory);
        permit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_limited_and_returned_on_drop() {
        let permits = Permits::new(Some(2));
        let taken = [permits.try_acquire(), permits.try_acquire()];
        assert!(taken.iter().all(Option::is_some));
        assert!(permits.try_acquire().is_none());
        assert_eq!(permits.in_use(), 2);
        drop(taken);
        assert_eq!(permits.in_use(), 0);
        assert!(permits.try_acquire().is_some());
    }
}
