//! Leases of metric families: who adds series to a family in which twins are possible holds its lease from the look-up until
//! the push is applied, on whatever core.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_lock::MutexGuardArc;

type Table = HashMap<Arc<str>, Arc<async_lock::Mutex<()>>>;

/// The leases that are held or waited for.
#[derive(Debug, Default)]
pub struct Leases {
    table: Mutex<Table>,
}

/// A lease; given back when dropped.
pub struct Lease {
    leases: Arc<Leases>,
    family: Arc<str>,
    guard: Option<MutexGuardArc<()>>,
}

impl Leases {
    /// Takes the leases of these families one after the other. They must be in name order, and the caller must hold none: so
    /// nobody waits in a circle.
    pub async fn take(self: &Arc<Self>, families: &[Arc<str>]) -> Vec<Lease> {
        let mut leases = Vec::with_capacity(families.len());
        for family in families {
            let mutex = self.table().entry(family.clone()).or_default().clone();
            let guard = Some(mutex.lock_arc().await);
            leases.push(Lease { leases: self.clone(), family: family.clone(), guard });
        }
        leases
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.guard = None;
        let mut table = self.leases.table();
        // Only the table's own reference is left: nobody holds it or waits for it, and nobody can begin to without the table.
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
    fn a_lease_is_held_by_one_and_leaves_nothing_behind() {
        let leases = Arc::new(Leases::default());
        let family: Arc<str> = "m".into();
        let first = leases.take(std::slice::from_ref(&family)).now_or_never().expect("nobody holds it");
        let mut second = Box::pin(leases.take(std::slice::from_ref(&family)));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.as_mut().now_or_never().is_some());
        drop(second);
        assert!(leases.table().is_empty());
    }
}
