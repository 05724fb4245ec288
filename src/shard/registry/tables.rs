//! The tables of the registry: names, their types and holders, and what is retired.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use smallvec::{SmallVec, smallvec};

use crate::exposition::consistency::Inconsistency;
use crate::exposition::escape::{Escaping, NameKind, SCHEMES, escape};
use crate::exposition::model::MetricType;
use crate::exposition::names::{Part, split_part};

use super::super::large_map::LargeMap;
use super::super::tables::Map;
use super::{AnnouncedSet, ChangeError, Core, Epoch, FamilyChange, Presence, SetId, SharedFamily, lock};

type Names = SmallVec<[Arc<str>; 1]>;

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub families: LargeMap<Arc<str>, Entry>,
    /// Names that need quotes, by their spelling in each escaping scheme.
    escaped: LargeMap<(Escaping, Box<str>), Names>,
    pub set_ids: Map<Arc<str>, SetId>,
    pub set_names: Vec<Arc<str>>,
    /// The epoch of the collection or commit that began last.
    pub latest: Epoch,
    /// The epochs of the running collections and commits, ascending.
    pub running: Vec<Epoch>,
    /// Names with retired slots, to be checked when a collection or commit ends.
    retired: Vec<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub shared: Arc<SharedFamily>,
    kind: MetricType,
    /// The gateway itself has it.
    pub own: bool,
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
                    sets: SmallVec::new(),
                    helps: SmallVec::new(),
                    retired: SmallVec::new(),
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
        // The type of a name that exists apart from what these changes release.
        let existing = |name: &str| -> Option<MetricType> {
            let entry = self.families.get(name)?;
            let others = entry.cores.iter().any(|holder| *holder != core || !released.contains_key(name));
            (entry.own || others).then_some(entry.kind)
        };
        let mut wait = None;
        for change in changes {
            let (Presence::Claimed(kind) | Presence::Changed(kind)) = change.presence else { continue };
            if let Some(other) = existing(change.name).filter(|other| *other != kind) {
                return Err(ChangeError::Conflict(Inconsistency::type_conflict(change.name, other, kind)));
            }
            self.wait_for_retired(change.name, core, |other| other != kind, &mut wait);
            for part in Part::ALL.into_iter().filter(|part| part.is_part_of(kind)) {
                let made = format!("{}{}", change.name, part.suffix());
                if existing(&made).is_some() {
                    return Err(ChangeError::Conflict(Inconsistency::suffix_collision(
                        &made,
                        change.name,
                        kind,
                    )));
                }
                self.wait_for_retired(&made, core, |_| true, &mut wait);
            }
            if let Some((base, part)) = split_part(change.name) {
                if let Some(other) = existing(base).filter(|other| part.is_part_of(*other)) {
                    return Err(ChangeError::Conflict(Inconsistency::suffix_collision(
                        change.name,
                        base,
                        other,
                    )));
                }
                self.wait_for_retired(base, core, |other| part.is_part_of(other), &mut wait);
            }
            if !self.escaped.is_empty() || !NameKind::Metric.is_plain(change.name) {
                self.check_escaped(core, change.name, kind, &existing, &mut wait)?;
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
    pub fn announce(
        &mut self,
        changes: &[FamilyChange<'_>],
        announced: &[AnnouncedSet],
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
                && !announced.iter().any(|known| known.set == set && known.family.name == entry.shared.name)
            {
                new.push(AnnouncedSet { family: entry.shared.clone(), set });
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        for AnnouncedSet { family, set } in &new {
            if let Some(entry) = self.families.get_mut(&family.name) {
                entry.add_set(*set);
            }
        }
        Err(ChangeError::Announced(self.latest, new))
    }

    pub fn apply(&mut self, core: Core, change: &FamilyChange<'_>) -> Option<Arc<SharedFamily>> {
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

    pub fn drop_set(&mut self, name: &str, set: SetId) {
        let Some(entry) = self.families.get_mut(name) else { return };
        if let Some(at) = entry.sets.iter().position(|(known, _)| *known == set) {
            entry.sets[at].1 -= 1;
            if entry.sets[at].1 == 0 {
                entry.sets.remove(at);
            }
        }
        entry.count_sets();
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

    pub fn free_retired(&mut self) {
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
    pub fn seen_sets(&self) -> SmallVec<[SetId; 4]> {
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
