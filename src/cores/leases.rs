//! Leases on metric families.
//!
//! If the groups of a family differ in the names of their grouping labels, two of them can contain the same series. A push that adds
//! series to such a family holds the family's lease from the look-up of duplicates until it is applied, even if its home is another core.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_lock::{MutexGuardArc, RwLock, RwLockReadGuardArc, RwLockWriteGuardArc};

type Table = HashMap<Arc<str>, Arc<async_lock::Mutex<()>>>;

/// The leases that are held or waited for, and the turn of large pushes.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    table: Mutex<Table>,
    /// Shared by the holders of leases on single families.
    all: Arc<RwLock<()>>,
    large_push: async_lock::Mutex<()>,
}

/// A lease; released on drop.
pub(crate) enum Lease {
    /// On one family.
    Family { _lease: FamilyLease },
    /// On every family.
    All { _guard: RwLockWriteGuardArc<()> },
}

/// A lease on one family.
pub(crate) struct FamilyLease {
    leases: Arc<Leases>,
    family: Arc<str>,
    guard: Option<MutexGuardArc<()>>,
    /// Keeps leases on every family away.
    _shared: Arc<RwLockReadGuardArc<()>>,
}

/// A push that needs leases on more families gets one on every family: so many would take long to acquire and to release.
const FAMILIES_MAX: usize = 256;

impl Leases {
    /// Acquires the leases of `families` one after the other.
    ///
    /// The families must be sorted by name and the caller must hold no lease. With one global order of acquisition there is no
    /// deadlock.
    pub(crate) async fn acquire(self: &Arc<Self>, families: &[Arc<str>]) -> Vec<Lease> {
        if families.len() > FAMILIES_MAX {
            return vec![Lease::All { _guard: self.all.write_arc().await }];
        }
        let shared = Arc::new(self.all.read_arc().await);
        let mut leases = Vec::with_capacity(families.len());
        for family in families {
            let mutex = self.table().entry(family.clone()).or_default().clone();
            let guard = Some(mutex.lock_arc().await);
            let (leases_of_all, family, _shared) = (self.clone(), family.clone(), shared.clone());
            leases.push(Lease::Family {
                _lease: FamilyLease { leases: leases_of_all, family, guard, _shared },
            });
        }
        leases
    }

    /// The right to decide about a large push. Held while the shard decides, and not while a lease is waited for.
    pub(crate) async fn large_push(&self) -> async_lock::MutexGuard<'_, ()> {
        self.large_push.lock().await
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FamilyLease {
    fn drop(&mut self) {
        self.guard = None;
        let mut table = self.leases.table();
        // If only the table refers to the mutex, no task holds it or waits for it, and none can start to while the table is
        // locked.
        if table.get(&self.family).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            table.remove(&self.family);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_lease_is_exclusive_and_leaves_no_entry_behind() {
        let leases = Arc::new(Leases::default());
        let family: Arc<str> = "m".into();
        let first = leases.acquire(std::slice::from_ref(&family)).now_or_never().expect("the lease is free");
        let mut second = Box::pin(leases.acquire(std::slice::from_ref(&family)));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.as_mut().now_or_never().is_some());
        drop(second);
        assert!(leases.table().is_empty());
    }

    #[test]
    fn a_lease_on_many_families_is_one_on_all() {
        let leases = Arc::new(Leases::default());
        let families: Vec<Arc<str>> = (0..=FAMILIES_MAX).map(|number| format!("m{number}").into()).collect();
        let family = std::slice::from_ref(&families[0]);
        let first = leases.acquire(family).now_or_never().expect("the lease is free");
        let mut many = Box::pin(leases.acquire(&families));
        assert!(many.as_mut().now_or_never().is_none());
        drop(first);
        let all = many.as_mut().now_or_never().expect("the leases are free");
        assert!(leases.table().is_empty());
        let mut other = Box::pin(leases.acquire(family));
        assert!(other.as_mut().now_or_never().is_none());
        drop(all);
        assert!(other.as_mut().now_or_never().is_some());
    }
}
