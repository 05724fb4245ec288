//! What a push would change: decided without changing anything, so that it can be decided again.

use std::ops::DerefMut;
use std::sync::Arc;

use crate::exposition::consistency::Inconsistency;

use super::Shard;
use super::apply::ClaimedPlan;
use super::helps::NO_HELP;
use super::outcome::Rejection;
use super::push::{Content, Mode, Push, PushedFamily};
use super::registry::{AnnouncedSet, ChangeError, Epoch, FamilyChange, Presence, SetId};
use super::series::has_new_series;
use super::slab::Number;
use super::tables::GroupFamily;
use super::text_edit::{Edit, TextEdit};

/// The largest group that every engine can store, because a group is one record.
pub(super) const STORED_BYTES_MAX: u64 = 512 << 20;

/// What a shard decides about a push. Only [`Decision::Apply`] changes the shard.
#[derive(Debug)]
pub enum Decision<E> {
    /// The push is rejected.
    Reject(Rejection),
    /// Other groups may have the same series. The caller takes a lease of each of these families (they are in name order),
    /// looks for duplicates with [`Shard::duplicate_lookups`], sets [`PushAttempt::looked_up`], and lets the shard decide again
    /// while it still holds the leases.
    NeedsLookup(Vec<Arc<str>>),
    /// A slot that the push needs is retired. The caller lets the shard decide again when the epoch is past, see
    /// [`super::registry::Registry::is_past`].
    WaitFor(Epoch),
    /// The push is in the tables, or its failure is. The text follows, see [`TextEdit`].
    Apply(E),
}

/// What earlier decisions about a push have left behind.
#[derive(Debug, Default)]
pub struct PushAttempt {
    /// Families whose leases the caller holds and in which it found no duplicate.
    pub looked_up: Vec<Arc<str>>,
    /// Sets of label names announced for this push.
    pub(super) announced: Vec<AnnouncedSet>,
}

/// What a push does to one family of its group.
#[derive(Debug)]
pub(super) struct Step {
    /// The index of the pushed family in the push.
    pub pushed: usize,
    /// The family on this core, if the core has it.
    pub local: Option<Number>,
    /// The family as the group has it before the push.
    pub old: Option<GroupFamily>,
    /// The group has it with the help text that is pushed, or both have none.
    pub same_help: bool,
    /// The index of its change at the registry, if it needs one.
    pub change: Option<usize>,
}

/// Everything a push does.
struct Plan<'p> {
    steps: Vec<Step>,
    /// The families that a PUT removes from the group.
    dropped: Vec<GroupFamily>,
    changes: Vec<FamilyChange<'p>>,
}

impl Shard {
    /// Decides about a push, and applies it to the tables if nothing prevents that. The time is in Unix seconds.
    ///
    /// Reading what other groups hold and claiming it are one step, so nothing can happen in between.
    pub fn decide<S: DerefMut<Target = Self>>(
        mut shard: S,
        push: &Arc<Push>,
        attempt: &mut PushAttempt,
        now_seconds: f64,
    ) -> Decision<TextEdit<S>> {
        let decision = shard.decide_or_wait(push, attempt, now_seconds);
        if matches!(decision, Decision::Apply(_) | Decision::Reject(_)) {
            shard.registry.withdraw(&std::mem::take(&mut attempt.announced));
        }
        match decision {
            Decision::Reject(rejection) => Decision::Reject(rejection),
            Decision::NeedsLookup(families) => Decision::NeedsLookup(families),
            Decision::WaitFor(epoch) => Decision::WaitFor(epoch),
            Decision::Apply(edit) => Decision::Apply(TextEdit::new(shard, edit)),
        }
    }

    fn decide_or_wait(
        &mut self,
        push: &Arc<Push>,
        attempt: &mut PushAttempt,
        now_seconds: f64,
    ) -> Decision<Edit> {
        debug_assert!(!self.is_loading(), "pushes are accepted only after all groups are loaded");
        let group = self.groups_by_key.get(push.key.text()).copied();
        // Of two such groups only one can exist, so an existing group needs no check.
        let variant = if group.is_none() { push.key.empty_instance_variant() } else { None };
        if let Some(variant) = variant.filter(|variant| self.groups_by_key.contains_key(variant.text())) {
            return Decision::Reject(Rejection::SamePushTimes(variant.text().clone()));
        }
        if let Content::Inconsistent(reason) = &push.content {
            return Decision::Apply(self.apply_failure(push, reason.clone(), now_seconds));
        }
        let set = match group {
            Some(number) => self.groups[number].set,
            None => self.set_id(&push.key.names()),
        };
        if self.is_stored() && self.is_too_large(push, group) {
            return Decision::Reject(Rejection::TooLarge);
        }
        let plan = match self.plan(push, group, set) {
            Ok(plan) => plan,
            Err(reason) => return Decision::Apply(self.apply_failure(push, reason, now_seconds)),
        };
        let unsure = self.unsure_families(push, &plan, group, attempt);
        if !unsure.is_empty() {
            return Decision::NeedsLookup(unsure);
        }
        let commit =
            (self.is_stored() && self.releases(push, &plan, group)).then(|| self.registry.begin_commit());
        let mut families = Vec::new();
        if !plan.changes.is_empty() {
            match self.registry.change(self.core, &plan.changes, &attempt.announced) {
                Ok(claimed) => families = claimed,
                Err(ChangeError::Conflict(reason)) => {
                    return Decision::Apply(self.apply_failure(push, reason, now_seconds));
                }
                Err(ChangeError::Retired(epoch)) => return Decision::WaitFor(epoch),
                Err(ChangeError::Announced(epoch, sets)) => {
                    attempt.announced.extend(sets);
                    return Decision::WaitFor(epoch);
                }
            }
        }
        let Plan { steps, dropped, .. } = plan;
        let plan = ClaimedPlan { steps, dropped, families, commit };
        Decision::Apply(self.apply_push(push, group, set, plan, now_seconds))
    }

    /// Whether a push releases a name, a set of label names, or series that another group could add.
    fn releases(&self, push: &Push, plan: &Plan<'_>, group: Option<Number>) -> bool {
        let Some(group) = group else { return false };
        let at_registry = |change: &FamilyChange<'_>| {
            matches!(change.presence, Presence::Changed(_) | Presence::Released)
                || change.set_dropped.is_some()
        };
        plan.changes.iter().any(at_registry)
            || plan.dropped.iter().any(|old| self.families[old.number].shared.has_several_sets())
            || plan.steps.iter().any(|step| {
                let pushed = &push.families()[step.pushed];
                step.old.is_some_and(|old| self.loses_series(group, old.number, Some((push, pushed))))
            })
    }

    /// Whether the group after this push may be too large for a store.
    fn is_too_large(&mut self, push: &Push, group: Option<Number>) -> bool {
        if self.bytes_bound_after(push, group) <= STORED_BYTES_MAX {
            return false;
        }
        // The bound also counts what later pushes replaced, so count exactly.
        if let Some(group) = group {
            self.groups[group].bytes_bound = self.bytes_of(group);
        }
        self.bytes_bound_after(push, group) > STORED_BYTES_MAX
    }

    /// An upper bound of the bytes of a group after a push: nothing of the group is replaced.
    pub(super) fn bytes_bound_after(&self, push: &Push, group: Option<Number>) -> u64 {
        let old = match push.mode {
            Mode::Merge => group.map_or(0, |group| self.groups[group].bytes_bound),
            Mode::Replace => 0,
        };
        old + push.bytes()
    }

    /// The exact bytes of a group's lines, help texts and protobuf.
    fn bytes_of(&self, group: Number) -> u64 {
        let bytes = self.groups[group].families.iter().map(|family| {
            let local = &self.families[family.number];
            let lines: usize = local.text.run(group).map(<[u8]>::len).sum();
            let exact = local.text.exact(group).map_or(0, |exact| exact.len());
            lines + exact + local.helps.get(family.help).map_or(0, |help| help.len())
        });
        bytes.sum::<usize>() as u64
    }

    /// Compares the pushed families with those of the group and of this core.
    fn plan<'p>(
        &'p self,
        push: &'p Push,
        group: Option<Number>,
        set: SetId,
    ) -> Result<Plan<'p>, Inconsistency> {
        let group_families: &[GroupFamily] = group.map_or(&[], |number| &self.groups[number].families);
        let steps = Vec::with_capacity(push.families().len());
        let mut plan = Plan { steps, dropped: Vec::new(), changes: Vec::new() };
        for (index, pushed) in push.families().iter().enumerate() {
            let name = push.name(pushed);
            let local = self.families_by_name.get(name).copied();
            let old = local.and_then(|local| find_family(group_families, local));
            let help = push.help(pushed);
            let same_help = local.zip(old).is_some_and(|(local, old)| {
                self.families[local].helps.get(old.help).map(|help| &**help) == help
            });
            let change = match local {
                Some(local) => {
                    let step = FamilyStep { pushed, help, local, old, same_help };
                    self.change_for_push(&step, set)?
                }
                None => Some(FamilyChange {
                    name,
                    presence: Presence::Claimed(pushed.kind),
                    set_added: Some(set),
                    help_added: help.map(Arc::from),
                    ..FamilyChange::default()
                }),
            };
            let change = change.map(|change| {
                plan.changes.push(change);
                plan.changes.len() - 1
            });
            plan.steps.push(Step { pushed: index, local, old, same_help, change });
        }
        if push.mode == Mode::Replace {
            let mut pushed: Vec<Number> = plan.steps.iter().filter_map(|step| step.local).collect();
            pushed.sort_unstable();
            let is_dropped = |old: &&GroupFamily| pushed.binary_search(&old.number).is_err();
            let dropped = || group_families.iter().filter(is_dropped);
            plan.dropped.extend(dropped());
            plan.changes.extend(dropped().filter_map(|old| self.change_for_release(old, set)));
        }
        Ok(plan)
    }

    /// The change at the registry for a pushed family that this core has. Most pushes need none.
    fn change_for_push(
        &self,
        step: &FamilyStep<'_>,
        set: SetId,
    ) -> Result<Option<FamilyChange<'_>>, Inconsistency> {
        let FamilyStep { pushed, help, local, old, same_help } = *step;
        let family = &self.families[local];
        let name = &*family.shared.name;
        let presence = match old {
            _ if family.kind == pushed.kind => Presence::Unchanged,
            Some(_) if family.holders == 1 => Presence::Changed(pushed.kind),
            _ => return Err(Inconsistency::type_conflict(name, family.kind, pushed.kind)),
        };
        let old_help = old.and_then(|old| family.helps.get(old.help));
        let change = FamilyChange {
            name,
            presence,
            set_added: (old.is_none() && family.groups_of_set(set) == 0).then_some(set),
            set_dropped: None,
            help_added: help.filter(|help| !same_help && family.helps.find(help).is_none()).map(Arc::from),
            help_dropped: old
                .filter(|old| !same_help && old.help != NO_HELP && family.helps.groups(old.help) == 1)
                .and(old_help.cloned()),
        };
        let is_empty = change.presence == Presence::Unchanged
            && change.set_added.is_none()
            && change.help_added.is_none()
            && change.help_dropped.is_none();
        Ok((!is_empty).then_some(change))
    }

    /// The change at the registry when a group releases a family, if it needs one.
    pub(super) fn change_for_release(&self, old: &GroupFamily, set: SetId) -> Option<FamilyChange<'_>> {
        let family = &self.families[old.number];
        let is_last = family.holders == 1;
        let set_dropped = (family.groups_of_set(set) == 1).then_some(set);
        let help_dropped = family.helps.get(old.help).filter(|_| family.helps.groups(old.help) == 1).cloned();
        (is_last || set_dropped.is_some() || help_dropped.is_some()).then(|| FamilyChange {
            name: &family.shared.name,
            presence: if is_last { Presence::Released } else { Presence::Unchanged },
            set_dropped,
            help_dropped,
            ..FamilyChange::default()
        })
    }

    /// The pushed families in which another group may have one of the new series, sorted by name.
    ///
    /// Two groups with equal label names differ in a value, and the values of the URL are on every series. Duplicates are
    /// therefore possible only in a family with several sets of label names, and only for series that the group did not have
    /// before.
    fn unsure_families(
        &self,
        push: &Push,
        plan: &Plan<'_>,
        group: Option<Number>,
        attempt: &PushAttempt,
    ) -> Vec<Arc<str>> {
        let mut unsure = Vec::new();
        let mut all_looked_up = true;
        for step in &plan.steps {
            let pushed = &push.families()[step.pushed];
            let name = push.name(pushed);
            let announced = || attempt.announced.iter().find(|known| *known.family.name == *name);
            let shared = match step.local {
                Some(local) => &self.families[local].shared,
                None => match announced() {
                    Some(known) => &known.family,
                    None => continue,
                },
            };
            if !shared.has_several_sets() {
                continue;
            }
            let old: Vec<u8> = match (group, step.local) {
                (Some(group), Some(local)) => {
                    self.families[local].text.run(group).collect::<Vec<_>>().concat()
                }
                _ => Vec::new(),
            };
            if has_new_series(name, pushed.kind, &old, push.text(pushed)) {
                all_looked_up &= attempt.looked_up.contains(&shared.name);
                unsure.push(shared.name.clone());
            }
        }
        if all_looked_up {
            return Vec::new();
        }
        // All of them, also those already looked up: leases are acquired in the order of names, or two pushes could deadlock.
        unsure.sort_unstable();
        unsure
    }
}

/// A pushed family beside the same family on this core.
struct FamilyStep<'p> {
    pushed: &'p PushedFamily,
    help: Option<&'p str>,
    local: Number,
    /// See [`Step::old`].
    old: Option<GroupFamily>,
    /// See [`Step::same_help`].
    same_help: bool,
}

/// A family of a group, whose families are sorted by number.
pub(super) fn find_family(families: &[GroupFamily], family: Number) -> Option<GroupFamily> {
    families.binary_search_by_key(&family, |known| known.number).ok().map(|at| families[at])
}
