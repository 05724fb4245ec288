//! The registry: what all cores must agree on, that is which family names are in use, with which type, and by groups with which
//! label names.
//!
//! The registry counts cores, not groups. Each core counts its own groups, and comes here only when its first group claims a name
//! or its last one releases it. A push that changes neither names nor types never comes here.
//!
//! The registry also knows the running collections and commits.
//!
//! * Cores return their snapshots at slightly different moments. A name that one core has released may already be in a scrape,
//!   and a claim by another core could get into the same scrape. A released slot is therefore *retired*: other cores can claim it
//!   only after every collection that began before the release has ended. The core itself may claim it at once, because it
//!   returns its snapshot in one step.
//! * A commit retires what its command released in the same way, so a claim never reaches the store before the release. Again,
//!   the core itself may claim it at once, because its changes reach the store in order.

mod helps;
mod large_change;
mod sets;
mod tables;
mod transfer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::exposition::consistency::Inconsistency;
use crate::exposition::model::MetricType;

use super::limits::{Quantity, StateLimits, Totals};
use super::pace::{CHANGE, Pace};
use large_change::BATCH;
use tables::Tables;
pub(super) use transfer::Transfer;

/// The number of a core, or of a side shard, which is like a core to the registry.
pub type Core = u32;
/// The number of a set of grouping-label names, see [`Registry::hold_set`].
pub type SetId = u32;
/// The number of a collection or commit, in the order in which they began. See [`Registry::is_past`].
pub type Epoch = u64;

/// A collection or commit that is running. It ends when this is dropped.
#[derive(Debug)]
#[must_use = "the collection or commit ends when this is dropped"]
pub struct RunningEpoch {
    /// `None` after [`Registry::end_all`].
    registry: Option<Arc<Registry>>,
    epoch: Epoch,
}

impl Drop for RunningEpoch {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.take() {
            registry.end(&[self.epoch]);
        }
    }
}

/// What cores share about a family.
#[derive(Debug)]
pub struct SharedFamily {
    /// The metric name.
    pub name: Arc<str>,
    /// The number of sets of grouping-label names that have series in it, or whose series are retired. Two groups can have equal
    /// series only if there are two or more.
    sets: AtomicU32,
    help: Mutex<Option<Arc<str>>>,
}

impl SharedFamily {
    /// Whether groups with different label names have it, so that new series must be looked up in other groups.
    pub fn has_several_sets(&self) -> bool {
        self.sets.load(Ordering::Acquire) > 1
    }

    /// The HELP text that scrapes show, the same on all cores.
    pub fn help(&self) -> Option<Arc<str>> {
        lock(&self.help).clone()
    }
}

/// A change to one family on one core.
#[derive(Debug, Clone, Default)]
pub struct FamilyChange<'a> {
    /// The metric name.
    pub name: &'a str,
    /// Whether the core claims or releases the name.
    pub presence: Presence,
    /// A set of label names whose first group on this core gets the family.
    pub set_added: Option<SetId>,
    /// A set whose last group on this core releases the family.
    pub set_dropped: Option<SetId>,
    /// A help text that is new to the family on this core.
    pub help_added: Option<Arc<str>>,
    /// A help text whose last group on this core releases it.
    pub help_dropped: Option<Arc<str>>,
}

/// What a command does to a core's claim on a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    /// The core has it before and after, with the same type.
    #[default]
    Unchanged,
    /// The core's first group claims it.
    Claimed(MetricType),
    /// The core's only group changes the type.
    Changed(MetricType),
    /// The core's last group releases it.
    Released,
}

/// A set of label names that is registered for a family before a push looks for duplicates, so that pushes on other cores take
/// it into account.
#[derive(Debug, Clone)]
pub struct AnnouncedSet {
    /// The family.
    pub family: Arc<SharedFamily>,
    /// The set.
    pub set: SetId,
}

/// The sets that are announced for a push, by family.
pub type Announcements = BTreeMap<Arc<str>, AnnouncedSet>;

/// Why a change was not made. Nothing changed except announcements.
#[derive(Debug, Clone)]
pub enum ChangeError {
    /// It conflicts with what other groups have.
    Conflict(Inconsistency),
    /// A slot is retired. The caller tries again when the epoch is past.
    Retired(Epoch),
    /// These sets of label names are now announced. The caller tries again when the epoch is past.
    Announced(Epoch, Vec<AnnouncedSet>),
}

/// The process-wide registry.
#[derive(Debug, Default)]
pub struct Registry {
    tables: Mutex<Tables>,
    /// `None` if there are no limits.
    totals: Option<Totals>,
    /// How many side shards there have been.
    side_shards: AtomicU32,
    /// Notified whenever a collection or a commit ends.
    pub ended: event_listener::Event,
}

/// Ignores poisoning, because nothing that holds these locks panics in the middle of a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Registry {
    /// A registry that contains the gateway's own families, given as name, type and HELP.
    pub fn new<'a>(own: impl IntoIterator<Item = (&'a str, MetricType, &'a str)>) -> Self {
        let registry = Self::default();
        {
            let mut tables = lock(&registry.tables);
            for (name, kind, help) in own {
                let entry = tables.entry(name, kind);
                entry.own = true;
                *lock(&entry.shared.help) = Some(help.into());
            }
        }
        registry
    }

    /// Limits what the groups of all cores contain. Call this before there are groups.
    #[must_use]
    pub fn with_limits(self, limits: StateLimits) -> Self {
        Self { totals: Totals::new(limits), ..self }
    }

    /// The totals of all cores, if there are limits.
    pub(super) fn totals(&self) -> Option<&Totals> {
        self.totals.as_ref()
    }

    /// The limited quantities with their totals and their limits.
    pub fn limited(&self) -> impl Iterator<Item = (Quantity, u64, u64)> {
        self.totals.iter().flat_map(Totals::limited)
    }

    /// One of the gateway's own families, as a gauge if [`Self::new`] did not get it.
    pub(super) fn own_family(&self, name: &str) -> Arc<SharedFamily> {
        let mut tables = lock(&self.tables);
        let entry = tables.entry(name, MetricType::Gauge);
        entry.own = true;
        entry.shared.clone()
    }

    /// Reserves the number of a set of grouping-label names, given as [`super::key::GroupingKey::names`], until
    /// [`Self::release_set`] is called. Returns it with the names.
    pub(super) fn hold_set(&self, names: &str) -> (SetId, Arc<str>) {
        lock(&self.tables).sets.hold_named(names)
    }

    /// Ends the reservation by [`Self::hold_set`].
    pub(super) fn release_set(&self, set: SetId) {
        lock(&self.tables).sets.release(set);
    }

    /// The label names of at most `count_max` sets that have series in a family, are announced, or whose series are retired: those
    /// after a number, or from the first one on. Also returns the last number, if there may be more.
    pub(super) fn sets_after(
        &self,
        family: &str,
        after: Option<SetId>,
        count_max: usize,
    ) -> (Vec<Arc<str>>, Option<SetId>) {
        let tables = lock(&self.tables);
        let Some(entry) = tables.families.get(family) else { return (Vec::new(), None) };
        let sets = std::iter::successors(entry.next_set(after), |set| entry.next_set(Some(*set)));
        let sets: Vec<SetId> = sets.take(count_max).collect();
        let last = sets.last().copied().filter(|_| sets.len() == count_max);
        (sets.into_iter().map(|set| tables.sets.names(set).clone()).collect(), last)
    }

    /// Begins a collection. Call this before the first core is asked for its snapshot, and drop the result when every core has
    /// returned its snapshot.
    pub fn begin_collection(self: &Arc<Self>) -> RunningEpoch {
        self.begin()
    }

    /// Begins the commit of a command that releases something. Call this before [`Self::change`], and drop the result when the
    /// store has recorded the command, or never will.
    pub(super) fn begin_commit(self: &Arc<Self>) -> RunningEpoch {
        self.begin()
    }

    fn begin(self: &Arc<Self>) -> RunningEpoch {
        let mut tables = lock(&self.tables);
        tables.latest += 1;
        let epoch = tables.latest;
        tables.running.push(epoch);
        RunningEpoch { registry: Some(self.clone()), epoch }
    }

    /// Ends collections or commits of this registry under one lock.
    pub fn end_all(&self, running: impl IntoIterator<Item = RunningEpoch>) {
        let epochs = running.into_iter().map(|mut running| {
            running.registry = None;
            running.epoch
        });
        let mut epochs: Vec<Epoch> = epochs.collect();
        if !epochs.is_empty() {
            epochs.sort_unstable();
            self.end(&epochs);
        }
    }

    /// Ends collections or commits; `epochs` is sorted.
    fn end(&self, epochs: &[Epoch]) {
        let mut tables = lock(&self.tables);
        tables.running.retain(|epoch| epochs.binary_search(epoch).is_err());
        tables.end_epochs();
        drop(tables);
        self.ended.notify(usize::MAX);
    }

    /// Whether every collection and commit that began at or before this epoch has ended.
    pub fn is_past(&self, epoch: Epoch) -> bool {
        lock(&self.tables).is_past(epoch)
    }

    /// All epochs below this one are past.
    pub(super) fn oldest_epoch(&self) -> Epoch {
        lock(&self.tables).running.first().copied().unwrap_or(Epoch::MAX)
    }

    /// The epoch with which something that is released now is retired. `None` if no collection and no commit is running.
    pub fn retirement_epoch(&self) -> Option<Epoch> {
        let tables = lock(&self.tables);
        (!tables.running.is_empty()).then_some(tables.latest)
    }

    /// Makes all of the changes of a core, or none.
    ///
    /// `announced` are the sets that an earlier attempt of the same push has announced. Returns for each change the family, if
    /// the change claims one.
    ///
    /// # Errors
    /// Returns an error if the changes conflict with other groups, or have to wait.
    pub fn change(
        &self,
        core: Core,
        changes: &[FamilyChange<'_>],
        announced: &Announcements,
    ) -> Result<Vec<Option<Arc<SharedFamily>>>, ChangeError> {
        let mut tables = lock(&self.tables);
        tables.check(core, changes)?;
        tables.announce(changes, announced)?;
        Ok(changes.iter().map(|change| tables.apply(core, change)).collect())
    }

    /// Withdraws the announcements of a push that was decided.
    pub(super) async fn withdraw(&self, mut announced: Announcements, pace: &Pace) {
        while !announced.is_empty() {
            {
                let mut tables = lock(&self.tables);
                for _ in 0..BATCH {
                    let Some((_, AnnouncedSet { family, set })) = announced.pop_first() else { break };
                    tables.drop_set(&family.name, set);
                    tables.remove_if_unused(&family.name);
                }
            }
            pace.spend(BATCH * CHANGE).await;
        }
    }

    /// The number of names, including the gateway's own.
    #[cfg(any(test, feature = "reference"))]
    pub(crate) fn len(&self) -> usize {
        lock(&self.tables).families.len()
    }

    /// The number of sets of label names in use.
    #[cfg(any(test, feature = "reference"))]
    pub(crate) fn sets_len(&self) -> usize {
        lock(&self.tables).sets.len()
    }
}
