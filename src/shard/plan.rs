//! What a push would change: decided without changing anything, so that it can be decided again.

use std::collections::BTreeSet;
use std::ops::DerefMut;
use std::sync::Arc;

use crate::exposition::consistency::Inconsistency;

use super::Shard;
use super::apply::ClaimedPlan;
use super::group_families::{GroupFamilies, Near};
use super::growth::help_bytes;
use super::helps::NO_HELP;
use super::key::GroupingKey;
use super::outcome::Rejection;
use super::pace::{CHANGE, LOOK, Pace, at_once};
use super::push::{Content, Mode, Push, PushedFamily};
use super::registry::{Announcements, ChangeError, Epoch, FamilyChange, Presence, SetId, SharedFamily};
use super::series::has_new_series;
use super::sides::MAIN_FAMILIES_MAX;
use super::slab::Number;
use super::tables::{GroupFamily, LocalFamily};
use super::text_edit::{Edit, TextEdit};

/// The largest group that every engine can store, because a group is one record.
pub(super) const STORED_BYTES_MAX: u64 = 512 << 20;

/// A push or delete with more families is decided and applied in slices. About half a millisecond is enough for so many.
const FAMILIES_AT_ONCE_MAX: usize = 256;
/// Only pushes that take turns make so many changes: others drop at most all families of the group, and add all of their own.
const LARGE_CHANGE_MIN: usize =
    if cfg!(any(test, feature = "reference")) { 1 } else { 2 * MAIN_FAMILIES_MAX + 1 };
/// The lines of a larger group may be compared in slices.
const BYTES_AT_ONCE_MAX: u64 = 1 << 20;

/// What a shard decides about a push. Only [`Decision::Apply`] changes the shard.
#[derive(Debug)]
pub enum Decision<E> {
    /// The push is rejected.
    Reject(Rejection),
    /// Other groups may have the same series. The caller takes a lease of each of these families (they are in name order), looks
    /// for duplicates with [`super::Lookups`] and [`Shard::find_duplicates`], sets [`PushAttempt::looked_up`], and lets the shard
    /// decide again while it still holds the leases.
    NeedsLookup(Vec<Arc<str>>),
    /// A slot that the push needs is retired. The caller lets the shard decide again when the epoch is past, see
    /// [`super::registry::Registry::is_past`].
    WaitFor(Epoch),
    /// The push is in the tables, or its failure is. The text follows, see [`TextEdit`].
    Apply(E),
}

impl Decision<Edit> {
    pub(super) fn with_shard<S: DerefMut<Target = Shard>>(self, shard: S) -> Decision<TextEdit<S>> {
        match self {
            Self::Reject(rejection) => Decision::Reject(rejection),
            Self::NeedsLookup(families) => Decision::NeedsLookup(families),
            Self::WaitFor(epoch) => Decision::WaitFor(epoch),
            Self::Apply(edit) => Decision::Apply(TextEdit::new(shard, edit)),
        }
    }
}

/// What earlier decisions about a push have left behind.
#[derive(Debug, Default)]
pub struct PushAttempt {
    /// Families whose leases the caller holds and in which it found no duplicate.
    pub looked_up: Vec<Arc<str>>,
    /// Sets of label names announced for this push.
    pub(super) announced: Announcements,
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
pub(super) struct Plan<'p> {
    pub steps: Vec<Step>,
    /// The families that a PUT removes from the group.
    pub dropped: Vec<GroupFamily>,
    pub changes: Vec<FamilyChange<'p>>,
}

impl Plan<'_> {
    /// Drops the plan in slices.
    async fn free(self, pace: &Pace) {
        let Self { steps, dropped, changes } = self;
        pace.drop_all(steps).await;
        pace.drop_all(dropped).await;
        pace.drop_all(changes).await;
    }
}

impl Shard {
    /// Decides about a push, and applies it to the tables if nothing prevents that. The time is in Unix seconds.
    ///
    /// Reading what other groups hold and claiming it are one step, so nothing can happen in between.
    pub fn decide<S: DerefMut<Target = Self>>(
        shard: S,
        push: &Arc<Push>,
        attempt: &mut PushAttempt,
        now_seconds: f64,
    ) -> Decision<TextEdit<S>> {
        at_once(Self::decide_in_slices(shard, push, attempt, now_seconds, &Pace::unlimited()))
    }

    /// The same in slices, for a push that [`Shard::is_large`]. Those that [`Shard::takes_turns`] take turns, over all cores.
    pub async fn decide_in_slices<S: DerefMut<Target = Self>>(
        mut shard: S,
        push: &Arc<Push>,
        attempt: &mut PushAttempt,
        now_seconds: f64,
        pace: &Pace,
    ) -> Decision<TextEdit<S>> {
        let decision = shard.decide_or_wait(push, attempt, now_seconds, pace).await;
        if matches!(decision, Decision::Apply(_) | Decision::Reject(_)) {
            shard.registry.withdraw(std::mem::take(&mut attempt.announced), pace).await;
        }
        decision.with_shard(shard)
    }

    /// Whether a push to this key, with so many families, must be decided in slices. With no families, whether a delete must be.
    pub fn is_large(&self, key: &GroupingKey, families: usize) -> bool {
        let of_group = || {
            let group = self.groups.number_of(key.text())?;
            Some(self.groups[group].families.len())
        };
        families > FAMILIES_AT_ONCE_MAX
            // Spares nearly all pushes the look-up.
            || (self.families_max > FAMILIES_AT_ONCE_MAX
                && of_group().is_some_and(|families| families > FAMILIES_AT_ONCE_MAX))
    }

    /// Whether a push to this key, with so many families, must take turns with others because it may change very many names.
    pub fn takes_turns(&self, key: &GroupingKey, families: usize) -> bool {
        let of_group = || Some(self.groups[self.groups.number_of(key.text())?].families.len());
        families > MAIN_FAMILIES_MAX || of_group().is_some_and(|families| families > MAIN_FAMILIES_MAX)
    }

    /// Whether a push that is not large must be decided in slices because of its lines or those of its group. Such pushes need not
    /// take turns.
    pub fn is_long(&self, push: &Push) -> bool {
        let of_group = || Some(self.groups[self.groups.number_of(push.key.text())?].bytes_bound);
        push.is_long()
            || push.rendered_bytes() as u64 > BYTES_AT_ONCE_MAX
            || (self.bytes_max > BYTES_AT_ONCE_MAX
                && of_group().is_some_and(|bytes| bytes > BYTES_AT_ONCE_MAX))
    }

    async fn decide_or_wait(
        &mut self,
        push: &Arc<Push>,
        attempt: &mut PushAttempt,
        now_seconds: f64,
        pace: &Pace,
    ) -> Decision<Edit> {
        debug_assert!(!self.is_loading(), "pushes are accepted only after all groups are loaded");
        let group = self.groups.number_of(push.key.text());
        // Of two such groups only one can exist, so an existing group needs no check.
        let variant = if group.is_none() { push.key.empty_instance_variant() } else { None };
        if let Some(variant) = variant.filter(|variant| self.groups.number_of(variant.text()).is_some()) {
            return Decision::Reject(Rejection::SamePushTimes(variant.text().clone()));
        }
        if let Content::Inconsistent(reason) = &push.content {
            return self.fail(push, reason.clone(), now_seconds);
        }
        if let Some(group) = group {
            self.finish_numbers(group);
        }
        let set = match group {
            Some(number) => self.groups[number].set,
            None => self.set_id(&push.key.names()),
        };
        let bytes = push.bytes(pace).await;
        if self.is_stored() && self.is_too_large(push.mode, bytes, group, pace).await {
            return Decision::Reject(Rejection::TooLarge);
        }
        let plan = match self.plan(push, group, set, pace).await {
            Ok(plan) => plan,
            Err(reason) => return self.fail(push, reason, now_seconds),
        };
        let unsure = self.unsure_families(push, &plan, group, attempt, pace).await;
        if !unsure.is_empty() {
            plan.free(pace).await;
            return Decision::NeedsLookup(unsure);
        }
        let releases = self.is_stored() && self.releases(push, &plan, group, pace).await;
        let commit = releases.then(|| self.registry.begin_commit());
        let mut families = Vec::new();
        let reserved = match self.reserve(push, &plan, group, now_seconds, pace).await {
            Ok(reserved) => reserved,
            Err(exceeded) => {
                plan.free(pace).await;
                return self.fail(push, exceeded, now_seconds);
            }
        };
        if !plan.changes.is_empty() {
            match self.change_registry(&plan.changes, &attempt.announced, pace).await {
                Ok(claimed) => families = claimed,
                Err(error) => {
                    plan.free(pace).await;
                    self.cancel(reserved);
                    return match error {
                        ChangeError::Conflict(reason) => self.fail(push, reason, now_seconds),
                        ChangeError::Retired(epoch) => Decision::WaitFor(epoch),
                        ChangeError::Announced(epoch, sets) => {
                            for set in sets {
                                pace.spend(CHANGE).await;
                                attempt.announced.insert(set.family.name.clone(), set);
                            }
                            Decision::WaitFor(epoch)
                        }
                    };
                }
            }
        }
        let Plan { steps, dropped, changes } = plan;
        let added_bytes = help_bytes(&changes, pace).await;
        pace.drop_all(changes).await;
        self.extra_bytes += added_bytes;
        self.account(reserved);
        let plan = ClaimedPlan { steps, dropped, families, bytes, commit };
        Decision::Apply(self.apply_push(push, group, set, plan, now_seconds, pace).await)
    }

    pub(super) async fn change_registry(
        &self,
        changes: &[FamilyChange<'_>],
        announced: &Announcements,
        pace: &Pace,
    ) -> Result<Vec<Option<Arc<SharedFamily>>>, ChangeError> {
        // Only large pushes take turns.
        if pace.is_unlimited() || changes.len() < LARGE_CHANGE_MIN {
            self.registry.change(self.core, changes, announced)
        } else {
            self.registry.change_in_slices(self.core, changes, announced, pace).await
        }
    }

    /// Whether a push releases a name, a set of label names, or series that another group could add.
    async fn releases(&self, push: &Push, plan: &Plan<'_>, group: Option<Number>, pace: &Pace) -> bool {
        let Some(group) = group else { return false };
        for change in &plan.changes {
            pace.spend(LOOK).await;
            let is_release = matches!(change.presence, Presence::Changed(_) | Presence::Released);
            if is_release || change.set_dropped.is_some() {
                return true;
            }
        }
        for old in &plan.dropped {
            pace.spend(LOOK).await;
            if self.families[old.number].shared.has_several_sets() {
                return true;
            }
        }
        for step in &plan.steps {
            pace.spend(LOOK).await;
            let Some(old) = &step.old else { continue };
            let pushed = &push.families()[step.pushed];
            if self.loses_series(group, old.number, push, pushed, pace).await {
                return true;
            }
        }
        false
    }

    /// Whether the group after this push may be too large for a store.
    async fn is_too_large(&mut self, mode: Mode, bytes: u64, group: Option<Number>, pace: &Pace) -> bool {
        if self.bytes_bound_after(mode, bytes, group) <= STORED_BYTES_MAX {
            return false;
        }
        // The bound also counts what later pushes replaced, so count exactly.
        if let Some(group) = group {
            self.groups[group].bytes_bound = self.bytes_of(group, pace).await;
        }
        self.bytes_bound_after(mode, bytes, group) > STORED_BYTES_MAX
    }

    /// An upper bound of the bytes of a group after a push with so many bytes: nothing of the group is replaced.
    pub(super) fn bytes_bound_after(&self, mode: Mode, bytes: u64, group: Option<Number>) -> u64 {
        let old = match mode {
            Mode::Merge => group.map_or(0, |group| self.groups[group].bytes_bound),
            Mode::Replace => 0,
        };
        old + bytes
    }

    /// The exact bytes of a group's lines, help texts and protobuf.
    async fn bytes_of(&self, group: Number, pace: &Pace) -> u64 {
        let mut bytes = 0;
        for family in self.groups[group].families.iter() {
            pace.spend(LOOK).await;
            let local = &self.families[family.number];
            let lines: usize = local.text.run(group).map(<[u8]>::len).sum();
            let exact = local.text.exact(group).map_or(0, |exact| exact.len());
            bytes += lines + exact + local.helps.get(family.help).map_or(0, |help| help.len());
        }
        bytes as u64
    }

    /// Compares the pushed families with those of the group and of this core.
    async fn plan<'p>(
        &'p self,
        push: &'p Push,
        group: Option<Number>,
        set: SetId,
        pace: &Pace,
    ) -> Result<Plan<'p>, Inconsistency> {
        let group_families = group.map(|number| &self.groups[number].families);
        let steps = Vec::with_capacity(push.families().len());
        let droppable = group_families.filter(|_| push.mode == Mode::Replace).map_or(0, GroupFamilies::len);
        let changes_max = push.families().len() + droppable;
        // Copying a long list into a longer one takes many milliseconds. Small pushes change nothing, as a rule.
        let changes = Vec::with_capacity(if changes_max > FAMILIES_AT_ONCE_MAX { changes_max } else { 0 });
        let mut plan = Plan { steps, dropped: Vec::new(), changes };
        let (mut near, mut staying) = (Near::default(), 0);
        for (index, pushed) in push.families().iter().enumerate() {
            pace.spend(CHANGE).await;
            let name = push.name(pushed);
            let local = self.families_by_name.get(name).copied();
            let old = local.and_then(|local| group_families?.get_near(local, &mut near));
            staying += usize::from(old.is_some());
            let help = push.help(pushed);
            let family = local.map(|local| &self.families[local]);
            let same_help = family
                .zip(old)
                .is_some_and(|(family, old)| family.helps.get(old.help).map(|help| &**help) == help);
            let change = match family {
                // What nearly all pushes repeat.
                Some(family) if same_help && family.kind == pushed.kind => None,
                Some(family) => match (FamilyStep { pushed, help, family, old, same_help }).change(set) {
                    Ok(change) => change,
                    Err(reason) => {
                        plan.free(pace).await;
                        return Err(reason);
                    }
                },
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
        if push.mode == Mode::Replace
            && let Some(group_families) = group_families
            // Nearly all pushes drop none.
            && staying < group_families.len()
        {
            let mut stay = GroupFamilies::with_capacity(plan.steps.len());
            for step in &plan.steps {
                pace.spend(LOOK).await;
                step.old.into_iter().for_each(|old| stay.insert(old));
            }
            plan.dropped.reserve_exact(group_families.len() - staying);
            let mut stays = stay.iter().peekable();
            for old in group_families.iter() {
                pace.spend(CHANGE).await;
                if stays.next_if(|stays| stays.number == old.number).is_none() {
                    plan.dropped.push(old);
                    plan.changes.extend(self.change_for_release(&old, set));
                }
            }
            drop(stays);
            stay.free(pace).await;
        }
        Ok(plan)
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
    async fn unsure_families(
        &self,
        push: &Push,
        plan: &Plan<'_>,
        group: Option<Number>,
        attempt: &PushAttempt,
        pace: &Pace,
    ) -> Vec<Arc<str>> {
        // Sorted: leases are acquired in the order of names, or two pushes could deadlock.
        let mut unsure = BTreeSet::new();
        let mut all_looked_up = true;
        for step in &plan.steps {
            pace.spend(LOOK).await;
            let pushed = &push.families()[step.pushed];
            let announced = || attempt.announced.get(push.name(pushed));
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
            if attempt.looked_up.binary_search(&shared.name).is_ok() {
                unsure.insert(shared.name.clone());
                continue;
            }
            let old = step.local.zip(group).map(|(local, group)| self.families[local].text.run(group));
            let new = [push.text(pushed)];
            if has_new_series(push.name(pushed), pushed.kind, old.into_iter().flatten(), new, pace).await {
                all_looked_up = false;
                unsure.insert(shared.name.clone());
            }
        }
        let mut families = Vec::new();
        while let Some(family) = unsure.pop_first() {
            pace.spend(LOOK).await;
            // All of them, also those already looked up.
            families.push(family);
        }
        if all_looked_up {
            pace.drop_all(families).await;
            return Vec::new();
        }
        families
    }
}

/// A pushed family beside the same family on this core.
struct FamilyStep<'p> {
    pushed: &'p PushedFamily,
    help: Option<&'p str>,
    family: &'p LocalFamily,
    /// See [`Step::old`].
    old: Option<GroupFamily>,
    /// See [`Step::same_help`].
    same_help: bool,
}

impl<'p> FamilyStep<'p> {
    /// The change at the registry, if it needs one.
    fn change(self, set: SetId) -> Result<Option<FamilyChange<'p>>, Inconsistency> {
        let Self { pushed, help, family, old, same_help } = self;
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
}
