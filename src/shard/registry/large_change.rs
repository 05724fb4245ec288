//! Changes of many names, in slices.
//!
//! The lock of the tables is never held for long, so such a change is made step by step. To others it is still one change: first
//! it marks all of its names, then it checks them, and only then it makes the changes, which cannot fail any more. A change of
//! another core that collides with a mark is neither made nor rejected, because the mark may go away; it waits for the epoch of
//! the large change. Large changes take turns, or two of them could wait for each other's marks.

use std::sync::Arc;

use super::super::pace::{CHANGE, Pace};
use super::{Announcements, ChangeError, Core, Epoch, FamilyChange, Presence, Registry, SharedFamily, lock};

/// How many names are changed under one lock. Tests interleave other changes everywhere.
pub(super) const BATCH: usize = if cfg!(any(test, feature = "reference")) { 1 } else { 32 };

impl Registry {
    /// The same as [`Self::change`] in slices, for many changes. The caller makes no two large changes at a time.
    ///
    /// # Errors
    /// The same as [`Self::change`].
    pub async fn change_in_slices(
        self: &Arc<Self>,
        core: Core,
        changes: &[FamilyChange<'_>],
        announced: &Announcements,
        pace: &Pace,
    ) -> Result<Vec<Option<Arc<SharedFamily>>>, ChangeError> {
        let needs_check = |change: &FamilyChange<'_>| {
            matches!(change.presence, Presence::Claimed(_) | Presence::Changed(_))
                || change.set_added.is_some()
        };
        // Releases alone cannot fail, and need not be one step.
        if changes.iter().any(needs_check) {
            let running = self.begin();
            if let Err(error) = self.mark_all(core, running.epoch, changes, announced, pace).await {
                for batch in changes.chunks(BATCH) {
                    {
                        let mut tables = lock(&self.tables);
                        batch.iter().for_each(|change| tables.unmark(change.name));
                    }
                    pace.spend(batch.len() * CHANGE).await;
                }
                return Err(error);
            }
            return Ok(self.apply_all(core, changes, pace).await);
        }
        Ok(self.apply_all(core, changes, pace).await)
    }

    /// Marks and checks all changes, and announces their sets.
    async fn mark_all(
        &self,
        core: Core,
        epoch: Epoch,
        changes: &[FamilyChange<'_>],
        announced: &Announcements,
        pace: &Pace,
    ) -> Result<(), ChangeError> {
        for batch in changes.chunks(BATCH) {
            {
                let mut tables = lock(&self.tables);
                batch.iter().for_each(|change| tables.mark(core, epoch, change));
            }
            pace.spend(batch.len() * CHANGE).await;
        }
        let mut wait = None;
        for batch in changes.chunks(BATCH) {
            {
                let tables = lock(&self.tables);
                // What the change itself releases is marked.
                batch.iter().try_for_each(|change| tables.check_one(core, change, &|_| false, &mut wait))?;
            }
            pace.spend(batch.len() * CHANGE).await;
        }
        if let Some(epoch) = wait {
            return Err(ChangeError::Retired(epoch));
        }
        let (mut new, mut latest) = (Vec::new(), epoch);
        for batch in changes.chunks(BATCH) {
            {
                let mut tables = lock(&self.tables);
                new.extend(batch.iter().filter_map(|change| tables.announce_one(change, announced)));
                latest = tables.latest;
            }
            pace.spend(batch.len() * CHANGE).await;
        }
        if new.is_empty() { Ok(()) } else { Err(ChangeError::Announced(latest, new)) }
    }

    async fn apply_all(
        &self,
        core: Core,
        changes: &[FamilyChange<'_>],
        pace: &Pace,
    ) -> Vec<Option<Arc<SharedFamily>>> {
        let mut families = Vec::with_capacity(changes.len());
        for batch in changes.chunks(BATCH) {
            {
                let mut tables = lock(&self.tables);
                families.extend(batch.iter().map(|change| tables.apply(core, change)));
            }
            pace.spend(batch.len() * CHANGE).await;
        }
        families
    }
}
