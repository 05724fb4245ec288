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

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use smallvec::SmallVec;

use crate::exposition::consistency;
use crate::exposition::escape::{Escaping, NameKind, SCHEMES, escape};
use crate::exposition::model::MetricType;
use crate::exposition::names::{Part, split_part};

use super::outcome::Inconsistency;

/// The number of a core.
pub type Core = u32;
/// The number of a set of grouping-label names, see [`Registry::set_id`].
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

/// Why a change was not made. Nothing changed except announcements.
#[derive(Debug, Clone)]
pub enum ChangeError {
    /// It conflicts with what other groups have.
    Conflict(Inconsistency),
    /// A slot is retired. The caller tries again when the epoch is past.
    Retired(Epoch),
    /// These sets of label names are now announced. The caller tries again when the epoch is past.
    Announced(Epoch, Vec<(Arc<SharedFamily>, SetId)>),
}

impl ChangeError {
    /// A conflict in the words of [`crate::exposition`].
    fn exposition(reason: consistency::Inconsistency) -> Self {
        Self::Conflict(Inconsistency::Exposition(reason))
    }
}

/// The process-wide registry.
#[derive(Debug, Default)]
pub struct Registry {
    inner: Mutex<Inner>,
    /// Notified whenever a collection or a commit ends.
    pub ended: event_listener::Event,
}

type Names = SmallVec<[Arc<str>; 1]>;
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
struct Inner {
    families: Map<Arc<str>, Entry>,
    /// Names that need quotes, by their spelling in each escaping scheme.
    escaped: Map<(Escaping, Box<str>), Names>,
    set_ids: Map<Arc<str>, SetId>,
    set_names: Vec<Arc<str>>,
    /// The epoch of the collection or commit that began last.
    latest: Epoch,
    /// The epochs of the running collections and commits, ascending.
    running: Vec<Epoch>,
    /// Names with retired slots, to be checked when a collection or commit ends.
    retired: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    shared: Arc<SharedFamily>,
    kind: MetricType,
    /// The gateway itself has it.
    own: bool,
    cores: SmallVec<[Core; 4]>,
    /// The number of cores and announcements that use each set.
    sets: SmallVec<[(SetId, u32); 2]>,
    /// Help texts with the number of cores that have them. The first one is shown.
    helps: SmallVec<[(Arc<str>, u32); 1]>,
    retired: SmallVec<[Retired; 1]>,
}

/// A slot that a core released while a collection or commit was running.
#[derive(Debug, Clone, Copy)]
struct Retired {
    core: Core,
    epoch: Epoch,
    slot: Slot,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Name(MetricType),
    Set(SetId),
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
            let mut inner = lock(&registry.inner);
            for (name, kind, help) in own {
                let entry = inner.entry(name, kind);
                entry.own = true;
                *lock(&entry.shared.help) = Some(help.into());
            }
        }
        registry
    }

    /// One of the gateway's own families, as a gauge if [`Self::new`] did not get it.
    pub(super) fn own_family(&self, name: &str) -> Arc<SharedFamily> {
        let mut inner = lock(&self.inner);
        let entry = inner.entry(name, MetricType::Gauge);
        entry.own = true;
        entry.shared.clone()
    }

    /// The number of a set of grouping-label names, given as [`super::key::GroupingKey::names`].
    pub fn set_id(&self, names: &str) -> SetId {
        let mut inner = lock(&self.inner);
        if let Some(id) = inner.set_ids.get(names) {
            return *id;
        }
        let (id, names): (SetId, Arc<str>) = (inner.set_names.len() as SetId, names.into());
        inner.set_names.push(names.clone());
        inner.set_ids.insert(names, id);
        id
    }

    /// The label names of the other sets that have series in a family, or whose series are retired.
    pub fn other_sets(&self, family: &str, own: SetId) -> Vec<Arc<str>> {
        let inner = lock(&self.inner);
        let Some(entry) = inner.families.get(family) else { return Vec::new() };
        let others = entry.seen_sets().into_iter().filter(|set| *set != own);
        others.map(|set| inner.set_names[set as usize].clone()).collect()
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
        let mut inner = lock(&self.inner);
        inner.latest += 1;
        let epoch = inner.latest;
        inner.running.push(epoch);
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
        let mut inner = lock(&self.inner);
        inner.running.retain(|epoch| epochs.binary_search(epoch).is_err());
        inner.free_retired();
        drop(inner);
        self.ended.notify(usize::MAX);
    }

    /// Whether every collection and commit that began at or before this epoch has ended.
    pub fn is_past(&self, epoch: Epoch) -> bool {
        lock(&self.inner).is_past(epoch)
    }

    /// The epoch with which something that is released now is retired. `None` if no collection and no commit is running.
    pub fn retirement_epoch(&self) -> Option<Epoch> {
        let inner = lock(&self.inner);
        (!inner.running.is_empty()).then_some(inner.latest)
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
        announced: &[(Arc<SharedFamily>, SetId)],
    ) -> Result<Vec<Option<Arc<SharedFamily>>>, ChangeError> {
        let mut inner = lock(&self.inner);
        inner.check(core, changes)?;
        inner.announce(changes, announced)?;
        Ok(changes.iter().map(|change| inner.apply(core, change)).collect())
    }

    /// Withdraws the announcements of a push that was decided.
    pub fn withdraw(&self, announced: &[(Arc<SharedFamily>, SetId)]) {
        if announced.is_empty() {
            return;
        }
        let mut inner = lock(&self.inner);
        for (family, set) in announced {
            inner.drop_set(&family.name, *set);
            inner.remove_if_unused(&family.name);
        }
    }

    /// The number of names, including the gateway's own.
    pub fn len(&self) -> usize {
        lock(&self.inner).families.len()
    }

    /// Whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn is_past(&self, epoch: Epoch) -> bool {
        self.running.first().is_none_or(|oldest| *oldest > epoch)
    }

    fn entry(&mut self, name: &str, kind: MetricType) -> &mut Entry {
        // The entry API would need an `Arc` for each look-up.
        if !self.families.contains_key(name) {
            let name: Arc<str> = name.into();
            if !NameKind::Metric.is_plain(&name) {
                for scheme in SCHEMES {
                    let shown = escape(&name, scheme, NameKind::Metric).into();
                    self.escaped.entry((scheme, shown)).or_default().push(name.clone());
                }
            }
            let shared = SharedFamily { name: name.clone(), sets: AtomicU32::new(0), help: Mutex::new(None) };
            self.families.insert(
                name,
                Entry {
                    shared: Arc::new(shared),
                    kind,
                    own: false,
                    cores: SmallVec::new(),
                    sets: SmallVec::new(),
                    helps: SmallVec::new(),
                    retired: SmallVec::new(),
                },
            );
        }
        self.families.get_mut(name).expect("was just inserted")
    }

    /// Checks every claimed name against the names that stay, the other claimed names, and retired names.
    fn check(&self, core: Core, changes: &[FamilyChange<'_>]) -> Result<(), ChangeError> {
        let released: Map<&str, ()> = changes
            .iter()
            .filter(|change| !matches!(change.presence, Presence::Unchanged))
            .map(|change| (change.name, ()))
            .collect();
        let held = |name: &str| -> Option<MetricType> {
            let entry = self.families.get(name)?;
            let others = entry.cores.iter().any(|holder| *holder != core || !released.contains_key(name));
            (entry.own || others).then_some(entry.kind)
        };
        let mut wait = None;
        for change in changes {
            let (Presence::Claimed(kind) | Presence::Changed(kind)) = change.presence else { continue };
            if let Some(other) = held(change.name).filter(|other| *other != kind) {
                return Err(ChangeError::Conflict(Inconsistency::of_type(change.name, other, kind)));
            }
            self.retired_by_others(change.name, core, |other| other != kind, &mut wait);
            for part in Part::ALL.into_iter().filter(|part| part.is_part_of(kind)) {
                let made = format!("{}{}", change.name, part.suffix());
                if held(&made).is_some() {
                    return Err(ChangeError::exposition(consistency::Inconsistency::suffix_collision(
                        &made,
                        change.name,
                        kind,
                    )));
                }
                self.retired_by_others(&made, core, |_| true, &mut wait);
            }
            if let Some((base, part)) = split_part(change.name) {
                if let Some(other) = held(base).filter(|other| part.is_part_of(*other)) {
                    return Err(ChangeError::exposition(consistency::Inconsistency::suffix_collision(
                        change.name,
                        base,
                        other,
                    )));
                }
                self.retired_by_others(base, core, |other| part.is_part_of(other), &mut wait);
            }
            if !self.escaped.is_empty() || !NameKind::Metric.is_plain(change.name) {
                self.check_escaped(core, change.name, kind, &held, &mut wait)?;
            }
        }
        wait.map_or(Ok(()), |epoch| Err(ChangeError::Retired(epoch)))
    }

    /// Checks a claimed name against the names that collide with it when escaped: equal names, and parts of histograms and
    /// summaries.
    fn check_escaped(
        &self,
        core: Core,
        name: &str,
        kind: MetricType,
        held: &impl Fn(&str) -> Option<MetricType>,
        wait: &mut Option<Epoch>,
    ) -> Result<(), ChangeError> {
        for scheme in SCHEMES {
            let shown = escape(name, scheme, NameKind::Metric);
            for other in self.escaped_to(scheme, &shown).filter(|other| *other != name) {
                if held(other).is_some() {
                    return Err(ChangeError::exposition(consistency::Inconsistency::escaped_names(
                        name, other,
                    )));
                }
                self.retired_by_others(other, core, |_| true, wait);
            }
            for part in Part::ALL.into_iter().filter(|part| part.is_part_of(kind)) {
                for other in self.escaped_to(scheme, &format!("{shown}{}", part.suffix())) {
                    if held(other).is_some() {
                        return Err(ChangeError::exposition(consistency::Inconsistency::suffix_collision(
                            other, name, kind,
                        )));
                    }
                    self.retired_by_others(other, core, |_| true, wait);
                }
            }
            let Some((base, part)) = split_part(&shown) else { continue };
            for other in self.escaped_to(scheme, base) {
                if let Some(kind) = held(other).filter(|kind| part.is_part_of(*kind)) {
                    return Err(ChangeError::exposition(consistency::Inconsistency::suffix_collision(
                        name, other, kind,
                    )));
                }
                self.retired_by_others(other, core, |kind| part.is_part_of(kind), wait);
            }
        }
        Ok(())
    }

    /// The names that this scheme escapes to `shown`.
    fn escaped_to<'s>(&'s self, scheme: Escaping, shown: &str) -> impl Iterator<Item = &'s str> {
        let plain = self.families.get_key_value(shown).map(|(name, _)| &**name);
        let escaped = self.escaped.get(&(scheme, shown.into())).into_iter().flatten();
        plain.into_iter().chain(escaped.map(|name| &**name))
    }

    /// Raises `wait` to the latest epoch with which another core retired this name, if the type matters.
    fn retired_by_others(
        &self,
        name: &str,
        core: Core,
        matters: impl Fn(MetricType) -> bool,
        wait: &mut Option<Epoch>,
    ) {
        let Some(entry) = self.families.get(name) else { return };
        for retired in &entry.retired {
            if let Slot::Name(kind) = retired.slot
                && retired.core != core
                && matters(kind)
                && !self.is_past(retired.epoch)
            {
                *wait = (*wait).max(Some(retired.epoch));
            }
        }
    }

    /// Announces sets of label names that join others in a family. From then on, all pushes look for duplicates before they add
    /// a series to it.
    fn announce(
        &mut self,
        changes: &[FamilyChange<'_>],
        announced: &[(Arc<SharedFamily>, SetId)],
    ) -> Result<(), ChangeError> {
        let mut new = Vec::new();
        for change in changes {
            let Some(set) = change.set_added else { continue };
            let Some(entry) = self.families.get(change.name) else { continue };
            let others = entry.sets.iter().any(|(other, _)| *other != set)
                || entry.retired.iter().any(|retired| {
                    matches!(retired.slot, Slot::Set(other) if other != set) && !self.is_past(retired.epoch)
                });
            if others
                && !announced.iter().any(|(family, known)| *known == set && family.name == entry.shared.name)
            {
                new.push((entry.shared.clone(), set));
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        for (family, set) in &new {
            let kind = self.families[&family.name].kind;
            self.entry(&family.name, kind).add_set(*set);
        }
        Err(ChangeError::Announced(self.latest, new))
    }

    fn apply(&mut self, core: Core, change: &FamilyChange<'_>) -> Option<Arc<SharedFamily>> {
        match change.presence {
            Presence::Unchanged => {}
            Presence::Claimed(kind) => {
                let entry = self.entry(change.name, kind);
                entry.kind = kind;
                entry.cores.push(core);
            }
            Presence::Changed(kind) => {
                self.retire(change.name, core);
                self.entry(change.name, kind).kind = kind;
            }
            Presence::Released => {
                self.retire(change.name, core);
                if let Some(entry) = self.families.get_mut(change.name) {
                    entry.cores.retain(|holder| *holder != core);
                }
            }
        }
        if let Some(set) = change.set_dropped {
            self.retire_set(change.name, core, set);
            self.drop_set(change.name, set);
        }
        let entry = self.families.get_mut(change.name);
        let shared = entry.map(|entry| {
            if let Some(set) = change.set_added {
                entry.add_set(set);
            }
            entry.change_help(change.help_added.as_ref(), change.help_dropped.as_ref());
            entry.shared.clone()
        });
        self.remove_if_unused(change.name);
        shared.filter(|_| matches!(change.presence, Presence::Claimed(_)))
    }

    fn retire(&mut self, name: &str, core: Core) {
        let Some(kind) = self.families.get(name).map(|entry| entry.kind) else { return };
        self.push_retired(name, core, Slot::Name(kind));
    }

    fn retire_set(&mut self, name: &str, core: Core, set: SetId) {
        self.push_retired(name, core, Slot::Set(set));
    }

    fn push_retired(&mut self, name: &str, core: Core, slot: Slot) {
        if self.running.is_empty() {
            return;
        }
        let epoch = self.latest;
        if let Some(entry) = self.families.get_mut(name) {
            entry.retired.push(Retired { core, epoch, slot });
            entry.count_sets();
            self.retired.push(entry.shared.name.clone());
        }
    }

    fn drop_set(&mut self, name: &str, set: SetId) {
        let Some(entry) = self.families.get_mut(name) else { return };
        if let Some(at) = entry.sets.iter().position(|(known, _)| *known == set) {
            entry.sets[at].1 -= 1;
            if entry.sets[at].1 == 0 {
                entry.sets.remove(at);
            }
        }
        entry.count_sets();
    }

    fn remove_if_unused(&mut self, name: &str) {
        if self.families.get(name).is_none_or(|entry| !entry.is_unused()) {
            return;
        }
        self.families.remove(name);
        if NameKind::Metric.is_plain(name) {
            return;
        }
        for scheme in SCHEMES {
            let shown = (scheme, escape(name, scheme, NameKind::Metric).into());
            if let Some(names) = self.escaped.get_mut(&shown) {
                names.retain(|known| **known != *name);
                if names.is_empty() {
                    self.escaped.remove(&shown);
                }
            }
        }
    }

    fn free_retired(&mut self) {
        let names = std::mem::take(&mut self.retired);
        for name in names {
            let oldest = self.running.first().copied();
            let Some(entry) = self.families.get_mut(&name) else { continue };
            entry.retired.retain(|retired| oldest.is_some_and(|oldest| oldest <= retired.epoch));
            entry.count_sets();
            if entry.retired.is_empty() {
                self.remove_if_unused(&name);
            } else {
                self.retired.push(name);
            }
        }
    }
}

impl Entry {
    fn is_unused(&self) -> bool {
        !self.own && self.cores.is_empty() && self.sets.is_empty() && self.retired.is_empty()
    }

    fn add_set(&mut self, set: SetId) {
        match self.sets.iter_mut().find(|(known, _)| *known == set) {
            Some((_, count)) => *count += 1,
            None => self.sets.push((set, 1)),
        }
        self.count_sets();
    }

    /// The sets that have series, and the sets whose series are retired.
    fn seen_sets(&self) -> SmallVec<[SetId; 4]> {
        let mut sets: SmallVec<[SetId; 4]> = self.sets.iter().map(|(set, _)| *set).collect();
        sets.extend(self.retired.iter().filter_map(|retired| match retired.slot {
            Slot::Set(set) => Some(set),
            Slot::Name(_) => None,
        }));
        sets.sort_unstable();
        sets.dedup();
        sets
    }

    fn count_sets(&self) {
        self.shared.sets.store(self.seen_sets().len() as u32, Ordering::Release);
    }

    /// Shows the first help text as long as any group has it, so that it does not alternate between scrapes.
    fn change_help(&mut self, added: Option<&Arc<str>>, dropped: Option<&Arc<str>>) {
        if added.is_none() && dropped.is_none() {
            return;
        }
        if let Some(added) = added {
            match self.helps.iter_mut().find(|(known, _)| known == added) {
                Some((_, count)) => *count += 1,
                None => self.helps.push((added.clone(), 1)),
            }
        }
        if let Some(at) =
            dropped.and_then(|dropped| self.helps.iter().position(|(known, _)| known == dropped))
        {
            self.helps[at].1 -= 1;
            if self.helps[at].1 == 0 {
                self.helps.remove(at);
            }
        }
        if !self.own {
            *lock(&self.shared.help) = self.helps.first().map(|(help, _)| help.clone());
        }
    }
}
