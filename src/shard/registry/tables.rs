//! The tables of the registry: names, their types and holders, and what is retired.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use smallvec::{SmallVec, smallvec};

use crate::exposition::consistency::Inconsistency;
use crate::exposition::escape::{Escaping, NameKind, SCHEMES, escape};
use crate::exposition::model::MetricType;
use crate::exposition::names::{Part, split_part};

use super::super::large_map::LargeMap;
use super::super::small_map::SmallMap;
use super::super::tables::Map;
use super::helps::Helps;
use super::sets::Sets;
use super::{
    AnnouncedSet, Announcements, ChangeError, Core, Epoch, FamilyChange, Presence, SetId, SharedFamily, lock,
};

type Names = SmallVec<[Arc<str>; 1]>;

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub families: LargeMap<Arc<str>, Entry>,
    /// Names that need quotes, by their spelling in each escaping scheme.
    escaped: LargeMap<(Escaping, Box<str>), Names>,
    pub sets: Sets,
    /// The epoch of the collection or commit that began last.
    pub latest: Epoch,
    /// The epochs of the running collections and commits, ascending.
    pub running: Vec<Epoch>,
    /// Everything that is retired, in the order of the epochs.
    retired: VecDeque<RetiredSlot>,
}

/// How many retired slots are freed when a collection or commit ends. The others follow when the next ones end, or when something
/// else is retired.
const FREED_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Entry {
    pub shared: Arc<SharedFamily>,
    kind: MetricType,
    /// The gateway itself has it.
    pub own: bool,
    pub cores: SmallVec<[Core; 4]>,
    /// The sets that have series, are announced, or are retired.
    sets: SmallMap<SetId, SetUses>,
    helps: Helps,
    /// The name as cores have retired it, with the last epoch for each core and type.
    retired: SmallVec<[RetiredName; 1]>,
    /// What a large change is about to do with it.
    pending: Option<Box<Pending>>,
}

/// A part of a change that is made in slices, see [`super::Registry::change_in_slices`]. There is one such change at a time.
#[derive(Debug)]
struct Pending {
    core: Core,
    /// Past when the change is made or abandoned.
    epoch: Epoch,
    /// The type with which the core claims the name.
    claimed: Option<MetricType>,
    /// The core releases the name as it is.
    is_released: bool,
    set_added: Option<SetId>,
}

/// What uses a set in a family.
#[derive(Debug, Clone, Copy, Default)]
struct SetUses {
    /// The number of cores and announcements.
    holders: u32,
    /// How often it is retired.
    retired: u32,
}

#[derive(Debug, Clone, Copy)]
struct RetiredName {
    core: Core,
    kind: MetricType,
    epoch: Epoch,
}

/// A slot that a core released while a collection or commit was running.
#[derive(Debug)]
struct RetiredSlot {
    epoch: Epoch,
    family: Arc<str>,
    slot: Slot,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Name,
    Set(SetId),
}

impl Tables {
    pub fn is_past(&self, epoch: Epoch) -> bool {
        self.running.first().is_none_or(|oldest| *oldest > epoch)
    }

    pub fn entry(&mut self, name: &str, kind: MetricType) -> &mut Entry {
        // The entry API would need an `Arc` for each look-up.
        if !self.families.contains_key(name) {
            let name: Arc<str> = name.into();
            if !NameKind::Metric.is_plain(&name) {
                for scheme in SCHEMES {
                    let shown = (scheme, escape(&name, scheme, NameKind::Metric).into());
                    match self.escaped.get_mut(&shown) {
                        Some(names) => names.push(name.clone()),
                        None => self.escaped.insert(shown, smallvec![name.clone()]),
                    }
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
                    sets: SmallMap::default(),
                    helps: Helps::default(),
                    retired: SmallVec::new(),
                    pending: None,
                },
            );
        }
        self.families.get_mut(name).expect("was just inserted")
    }

    /// Checks every claimed name against the names that stay, the other claimed names, and retired names.
    pub fn check(&self, core: Core, changes: &[FamilyChange<'_>]) -> Result<(), ChangeError> {
        let released: Map<&str, ()> = changes
            .iter()
            .filter(|change| !matches!(change.presence, Presence::Unchanged))
            .map(|change| (change.name, ()))
            .collect();
        let mut wait = None;
        let is_released = |name: &str| released.contains_key(name);
        changes.iter().try_for_each(|change| self.check_one(core, change, &is_released, &mut wait))?;
        wait.map_or(Ok(()), |epoch| Err(ChangeError::Retired(epoch)))
    }

    /// Checks one change. `is_released` says which names the core releases in the same step, beside those that are marked. Raises
    /// `wait` to the epoch that has to be past.
    pub fn check_one(
        &self,
        core: Core,
        change: &FamilyChange<'_>,
        is_released: &impl Fn(&str) -> bool,
        wait: &mut Option<Epoch>,
    ) -> Result<(), ChangeError> {
        // The type of a name that exists apart from what is being released.
        let existing = |name: &str| -> Option<MetricType> {
            let entry = self.families.get(name)?;
            let leaves =
                |holder: &Core| entry.is_releasing(*holder) || (*holder == core && is_released(name));
            (entry.own || entry.cores.iter().any(|holder| !leaves(holder))).then_some(entry.kind)
        };
        if let Some(set) = change.set_added
            && let Some(pending) = self.pending_elsewhere(change.name, core)
            && pending.set_added.is_some_and(|other| other != set)
        {
            *wait = (*wait).max(Some(pending.epoch));
        }
        let (Presence::Claimed(kind) | Presence::Changed(kind)) = change.presence else { return Ok(()) };
        if let Some(other) = existing(change.name).filter(|other| *other != kind) {
            return Err(ChangeError::Conflict(Inconsistency::type_conflict(change.name, other, kind)));
        }
        self.wait_for_retired(change.name, core, |other| other != kind, wait);
        for part in Part::ALL.into_iter().filter(|part| part.is_part_of(kind)) {
            let made = format!("{}{}", change.name, part.suffix());
            if existing(&made).is_some() {
                return Err(ChangeError::Conflict(Inconsistency::suffix_collision(&made, change.name, kind)));
            }
            self.wait_for_retired(&made, core, |_| true, wait);
        }
        if let Some((base, part)) = split_part(change.name) {
            if let Some(other) = existing(base).filter(|other| part.is_part_of(*other)) {
                return Err(ChangeError::Conflict(Inconsistency::suffix_collision(change.name, base, other)));
            }
            self.wait_for_retired(base, core, |other| part.is_part_of(other), wait);
        }
        if !self.escaped.is_empty() || !NameKind::Metric.is_plain(change.name) {
            self.check_escaped(core, change.name, kind, &existing, wait)?;
        }
        Ok(())
    }

    /// What a large change of another core is about to do with a name.
    fn pending_elsewhere(&self, name: &str, core: Core) -> Option<&Pending> {
        self.families.get(name)?.pending.as_deref().filter(|pending| pending.core != core)
    }

    /// Marks a name as part of a large change, so that changes of other cores which collide with it wait.
    pub fn mark(&mut self, core: Core, epoch: Epoch, change: &FamilyChange<'_>) {
        let (claimed, is_released) = match change.presence {
            Presence::Unchanged => (None, false),
            Presence::Claimed(kind) => (Some(kind), false),
            Presence::Changed(kind) => (Some(kind), true),
            Presence::Released => (None, true),
        };
        let entry = match claimed {
            Some(kind) => Some(self.entry(change.name, kind)),
            None => self.families.get_mut(change.name),
        };
        if let Some(entry) = entry {
            let set_added = change.set_added;
            entry.pending = Some(Box::new(Pending { core, epoch, claimed, is_released, set_added }));
        }
    }

    /// Removes the mark of a change that is not made.
    pub fn unmark(&mut self, name: &str) {
        if let Some(entry) = self.families.get_mut(name) {
            entry.pending = None;
        }
        self.remove_if_unused(name);
    }

    /// Checks a claimed name against the names that collide with it when escaped: equal names, and parts of histograms and
    /// summaries.
    fn check_escaped(
        &self,
        core: Core,
        name: &str,
        kind: MetricType,
        existing: &impl Fn(&str) -> Option<MetricType>,
        wait: &mut Option<Epoch>,
    ) -> Result<(), ChangeError> {
        for scheme in SCHEMES {
            let shown = escape(name, scheme, NameKind::Metric);
            for other in self.escaped_to(scheme, &shown).filter(|other| *other != name) {
                if existing(other).is_some() {
                    return Err(ChangeError::Conflict(Inconsistency::escaped_names(name, other)));
                }
                self.wait_for_retired(other, core, |_| true, wait);
            }
            for part in Part::ALL.into_iter().filter(|part| part.is_part_of(kind)) {
                for other in self.escaped_to(scheme, &format!("{shown}{}", part.suffix())) {
                    if existing(other).is_some() {
                        return Err(ChangeError::Conflict(Inconsistency::suffix_collision(
                            other, name, kind,
                        )));
                    }
                    self.wait_for_retired(other, core, |_| true, wait);
                }
            }
            let Some((base, part)) = split_part(&shown) else { continue };
            for other in self.escaped_to(scheme, base) {
                if let Some(kind) = existing(other).filter(|kind| part.is_part_of(*kind)) {
                    return Err(ChangeError::Conflict(Inconsistency::suffix_collision(name, other, kind)));
                }
                self.wait_for_retired(other, core, |kind| part.is_part_of(kind), wait);
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
    fn wait_for_retired(
        &self,
        name: &str,
        core: Core,
        matters: impl Fn(MetricType) -> bool,
        wait: &mut Option<Epoch>,
    ) {
        let Some(entry) = self.families.get(name) else { return };
        for retired in &entry.retired {
            if retired.core != core && matters(retired.kind) && !self.is_past(retired.epoch) {
                *wait = (*wait).max(Some(retired.epoch));
            }
        }
        if let Some(pending) = entry.pending.as_deref().filter(|pending| pending.core != core) {
            let is_released = entry.cores.iter().any(|holder| entry.is_releasing(*holder));
            if pending.claimed.is_some_and(&matters) || (is_released && matters(entry.kind)) {
                *wait = (*wait).max(Some(pending.epoch));
            }
        }
    }

    /// Announces sets of label names that join others in a family. From then on, all pushes look for duplicates before they add
    /// a series to it.
    pub fn announce(
        &mut self,
        changes: &[FamilyChange<'_>],
        announced: &Announcements,
    ) -> Result<(), ChangeError> {
        let new: Vec<_> = changes.iter().filter_map(|change| self.announce_one(change, announced)).collect();
        if new.is_empty() { Ok(()) } else { Err(ChangeError::Announced(self.latest, new)) }
    }

    /// Announces the set that a change adds, if it must be and is not yet.
    pub fn announce_one(
        &mut self,
        change: &FamilyChange<'_>,
        announced: &Announcements,
    ) -> Option<AnnouncedSet> {
        let set = change.set_added?;
        let entry = self.families.get(change.name)?;
        let others = entry.sets.len() - usize::from(entry.sets.get(set).is_some());
        if others == 0 || announced.get(change.name).is_some_and(|known| known.set == set) {
            return None;
        }
        let family = entry.shared.clone();
        self.add_set(change.name, set);
        Some(AnnouncedSet { family, set })
    }

    pub fn apply(&mut self, core: Core, change: &FamilyChange<'_>) -> Option<Arc<SharedFamily>> {
        if let Some(entry) = self.families.get_mut(change.name) {
            // A mark of another core stays: that change is yet to come.
            entry.pending.take_if(|pending| pending.core == core);
        }
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
            self.retire_set(change.name, set);
            self.drop_set(change.name, set);
        }
        if let Some(set) = change.set_added {
            self.add_set(change.name, set);
        }
        let entry = self.families.get_mut(change.name);
        let shared = entry.map(|entry| {
            entry.change_help(change.help_added.as_ref(), change.help_dropped.as_ref());
            entry.shared.clone()
        });
        self.remove_if_unused(change.name);
        shared.filter(|_| matches!(change.presence, Presence::Claimed(_)))
    }

    fn retire(&mut self, name: &str, core: Core) {
        if self.running.is_empty() {
            return;
        }
        let epoch = self.latest;
        let Some(entry) = self.families.get_mut(name) else { return };
        let kind = entry.kind;
        match entry.retired.iter_mut().find(|retired| retired.core == core && retired.kind == kind) {
            Some(retired) => retired.epoch = epoch,
            None => entry.retired.push(RetiredName { core, kind, epoch }),
        }
        let family = entry.shared.name.clone();
        self.push_retired(RetiredSlot { epoch, family, slot: Slot::Name });
    }

    fn retire_set(&mut self, name: &str, set: SetId) {
        if self.running.is_empty() {
            return;
        }
        let epoch = self.latest;
        let Some(entry) = self.families.get_mut(name) else { return };
        let Some(uses) = entry.sets.get_mut(set) else { return };
        uses.retired += 1;
        let family = entry.shared.name.clone();
        self.push_retired(RetiredSlot { epoch, family, slot: Slot::Set(set) });
    }

    fn push_retired(&mut self, slot: RetiredSlot) {
        self.retired.push_back(slot);
        // As many as are added, so that they do not pile up.
        self.free_retired(2);
    }

    /// Counts a core or an announcement that uses a set in a family.
    pub fn add_set(&mut self, name: &str, set: SetId) {
        let Some(entry) = self.families.get_mut(name) else { return };
        if let Some(uses) = entry.sets.get_mut(set) {
            uses.holders += 1;
        } else {
            self.sets.hold(set);
            entry.sets.insert(set, SetUses { holders: 1, retired: 0 });
            entry.count_sets();
        }
    }

    pub fn drop_set(&mut self, name: &str, set: SetId) {
        self.change_set(name, set, |uses| uses.holders -= 1);
    }

    /// Changes the uses of a set in a family, and removes the set if nothing is left.
    fn change_set(&mut self, name: &str, set: SetId, change: impl FnOnce(&mut SetUses)) {
        let Some(entry) = self.families.get_mut(name) else { return };
        let Some(uses) = entry.sets.get_mut(set) else { return };
        change(uses);
        if uses.holders == 0 && uses.retired == 0 {
            entry.sets.remove(set);
            entry.count_sets();
            self.sets.release(set);
        }
    }

    pub fn remove_if_unused(&mut self, name: &str) {
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

    /// Frees at most `count_max` retired slots whose epochs are past.
    pub fn free_retired(&mut self, count_max: usize) {
        for _ in 0..count_max {
            let oldest = self.running.first().copied().unwrap_or(Epoch::MAX);
            if self.retired.front().is_none_or(|retired| retired.epoch >= oldest) {
                break;
            }
            let Some(RetiredSlot { family, slot, .. }) = self.retired.pop_front() else { break };
            match slot {
                Slot::Set(set) => self.change_set(&family, set, |uses| uses.retired -= 1),
                Slot::Name => {
                    if let Some(entry) = self.families.get_mut(&family) {
                        entry.retired.retain(|retired| retired.epoch >= oldest);
                    }
                }
            }
            self.remove_if_unused(&family);
        }
        if self.retired.is_empty() {
            self.retired = VecDeque::new();
        }
    }

    /// Frees retired slots after a collection or commit has ended.
    pub fn end_epochs(&mut self) {
        self.free_retired(FREED_MAX);
    }
}

impl Entry {
    fn is_unused(&self) -> bool {
        !self.own
            && self.cores.is_empty()
            && self.sets.is_empty()
            && self.retired.is_empty()
            && self.pending.is_none()
    }

    /// Whether a large change is about to release this core's hold.
    fn is_releasing(&self, holder: Core) -> bool {
        self.pending.as_deref().is_some_and(|pending| pending.core == holder && pending.is_released)
    }

    fn count_sets(&self) {
        self.shared.sets.store(self.sets.len() as u32, Ordering::Release);
    }

    /// The first set above `after`, or of all, that has series, is announced, or is retired.
    pub fn next_set(&self, after: Option<SetId>) -> Option<SetId> {
        self.sets.next_key(after)
    }

    pub fn change_help(&mut self, added: Option<&Arc<str>>, dropped: Option<&Arc<str>>) {
        if added.is_none() && dropped.is_none() {
            return;
        }
        added.into_iter().for_each(|added| self.helps.add(added));
        dropped.into_iter().for_each(|dropped| self.helps.remove(dropped));
        if !self.own {
            *lock(&self.shared.help) = self.helps.first().cloned();
        }
    }
}
