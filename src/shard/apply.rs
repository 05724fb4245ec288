//! Applying a decided command to the tables. The text follows, see [`super::text_edit`].

use std::ops::DerefMut;
use std::sync::Arc;

use crate::exposition::consistency::Inconsistency;

use super::group_families::{GroupFamilies, Near};
use super::growth::help_bytes;
use super::key::GroupingKey;
use super::list::FailedPush;
use super::outcome::{Failure, Outcome};
use super::pace::{CHANGE, Pace, at_once};
use super::pending::Place;
use super::plan::{Decision, PushAttempt, Step};
use super::push::{Mode, Push, PushedFamily};
use super::registry::{Announcements, RunningEpoch, SetId, SharedFamily};
use super::retired::RetiredLines;
use super::segments::{GroupLines, RUN_BYTES_MAX};
use super::series::has_new_series;
use super::shapes::NO_SHAPE;
use super::slab::Number;
use super::tables::{Group, GroupFamily, StoredBytes};
use super::text_edit::{Edit, Lines, Splice, Splices, Target, TextEdit};
use super::{FAILURE_TIME_NUMBER, PUSH_TIME_NUMBER, Shard};

/// A plan whose names are claimed at the registry.
pub(super) struct ClaimedPlan {
    pub steps: Vec<Step>,
    /// The families that the group releases.
    pub dropped: Vec<GroupFamily>,
    /// The families new to this core, by [`Step::change`].
    pub families: Vec<Option<Arc<SharedFamily>>>,
    /// The bytes of the push.
    pub bytes: u64,
    /// Reserves what the push releases.
    pub commit: Option<RunningEpoch>,
}

impl Shard {
    /// Gives the group of an inconsistent push a failure time, for a reason that only the caller could find: a duplicate on
    /// another core.
    pub async fn record_failure<S: DerefMut<Target = Self>>(
        mut shard: S,
        push: &Push,
        attempt: &mut PushAttempt,
        reason: Inconsistency,
        now_seconds: f64,
        pace: &Pace,
    ) -> Decision<TextEdit<S>> {
        shard.registry.withdraw(std::mem::take(&mut attempt.announced), pace).await;
        let decision = shard.fail(push, reason, now_seconds);
        decision.with_shard(shard)
    }

    /// Deletes a group, if it exists. A delete is never rejected.
    pub fn delete<S: DerefMut<Target = Self>>(shard: S, key: &GroupingKey) -> TextEdit<S> {
        at_once(Self::delete_in_slices(shard, key, &Pace::unlimited()))
    }

    /// The same in slices, for a group that [`Shard::is_large`].
    pub async fn delete_in_slices<S: DerefMut<Target = Self>>(
        mut shard: S,
        key: &GroupingKey,
        pace: &Pace,
    ) -> TextEdit<S> {
        let edit = shard.apply_delete(key, pace).await;
        TextEdit::new(shard, edit)
    }

    /// Applies a push whose names are claimed.
    pub(super) async fn apply_push(
        &mut self,
        push: &Arc<Push>,
        group: Option<Number>,
        set: SetId,
        plan: ClaimedPlan,
        now_seconds: f64,
        pace: &Pace,
    ) -> Edit {
        let now = self.time_of_push(group, now_seconds);
        let mut splices = Splices::with_capacity(plan.steps.len() + plan.dropped.len() + 2);
        let group = group.unwrap_or_else(|| {
            splices.push_back(Splice { family: FAILURE_TIME_NUMBER, lines: Lines::Time(0.0) });
            self.add_group(&push.key, set, now, plan.steps.len())
        });
        let bytes_bound = self.bytes_bound_after(push.mode, plan.bytes, Some(group));
        for old in &plan.dropped {
            pace.spend(CHANGE).await;
            self.release(group, old, set);
            self.groups[group].families.remove(old.number);
            splices.push_back(Splice { family: old.number, lines: Lines::None });
        }
        if push.mode == Mode::Replace {
            self.groups[group].families.expect_push_of_all(now);
        }
        let mut near = Near::default();
        for step in &plan.steps {
            pace.spend(CHANGE).await;
            let pushed = &push.families()[step.pushed];
            let family = step.local.unwrap_or_else(|| {
                let shared = step.change.and_then(|change| plan.families[change].clone());
                self.add_family(
                    shared.expect("a family new to the core was claimed at the registry"),
                    pushed.kind,
                )
            });
            if step.old.is_some()
                && self.families[family].shared.has_several_sets()
                && self.loses_series(group, family, push, pushed, pace).await
            {
                self.retire_series(group, family);
            }
            let help = push.help(pushed);
            let local = &mut self.families[family];
            local.kind = pushed.kind;
            if step.old.is_none() {
                local.add_holder(set);
            }
            let help = match &step.old {
                Some(old) if step.same_help => old.help,
                old => {
                    let index = local.helps.add(help);
                    old.iter().for_each(|old| local.helps.release(old.help));
                    index
                }
            };
            let new = GroupFamily { number: family, help, push_seconds: now };
            self.groups[group].families.insert_near(new, &mut near);
            splices.push_back(Splice { family, lines: Lines::Pushed(step.pushed) });
        }
        pace.drop_all(plan.families).await;
        self.set_shape_of_push(group, push);
        pace.drop_all(plan.steps).await;
        pace.drop_all(plan.dropped).await;
        let entry = &mut self.groups[group];
        entry.families.share(&mut self.shared_lists);
        entry.push_seconds = now;
        entry.bytes_bound = bytes_bound;
        self.families_max = self.families_max.max(entry.families.len());
        self.bytes_max = self.bytes_max.max(bytes_bound);
        splices.push_back(Splice { family: PUSH_TIME_NUMBER, lines: Lines::Time(now) });
        Edit {
            target: Target::Put(group),
            splices,
            push: Some(push.clone()),
            commit: plan.commit,
            outcome: Outcome::Applied,
        }
    }

    /// Gives a group a failure time, and creates it if necessary.
    pub(super) fn apply_failure(&mut self, push: &Push, failure: Failure, now_seconds: f64) -> Edit {
        let key = &push.key;
        let group = self.groups.number_of(key.text());
        let now = self.time_of_failure(group, now_seconds);
        let mut splices = Splices::with_capacity(2);
        let group = match group {
            Some(group) => group,
            None => {
                let set = self.set_id(&key.names());
                splices.push_back(Splice { family: PUSH_TIME_NUMBER, lines: Lines::Time(0.0) });
                self.add_group(key, set, now, 0)
            }
        };
        self.groups[group].failure_seconds = now;
        self.groups[group].last_failure = Some(FailedPush::new(&failure.to_string(), push.source));
        splices.push_back(Splice { family: FAILURE_TIME_NUMBER, lines: Lines::Time(now) });
        Edit { target: Target::Put(group), splices, push: None, commit: None, outcome: failure.into() }
    }

    async fn apply_delete(&mut self, key: &GroupingKey, pace: &Pace) -> Edit {
        let group = self.groups.number_of(key.text());
        let families = group.map_or(0, |group| self.groups[group].families.len());
        let mut edit = Edit {
            target: Target::Missing,
            splices: Splices::with_capacity(families + 2),
            push: None,
            commit: None,
            outcome: Outcome::Applied,
        };
        let Some(group) = group else { return edit };
        edit.target = Target::Delete(group);
        let set = self.groups[group].set;
        let families = std::mem::take(&mut self.groups[group].families);
        let (mut changes, mut releases) = (Vec::new(), false);
        for old in families.iter() {
            pace.spend(CHANGE).await;
            changes.extend(self.change_for_release(&old, set));
            releases |= self.families[old.number].shared.has_several_sets();
        }
        releases |= !changes.is_empty();
        edit.commit = (self.is_stored() && releases).then(|| self.registry.begin_commit());
        if !changes.is_empty() {
            let released = self.change_registry(&changes, &Announcements::new(), pace).await;
            debug_assert!(released.is_ok(), "a release cannot conflict");
        }
        let released_bytes = help_bytes(&changes, pace).await;
        pace.drop_all(changes).await;
        self.extra_bytes += released_bytes;
        for old in families.iter() {
            pace.spend(CHANGE).await;
            self.release(group, &old, set);
            edit.splices.push_back(Splice { family: old.number, lines: Lines::None });
        }
        // Only now, because the series that it releases are those of its numbers.
        self.discard_numbers(group);
        self.clear_shape(group);
        families.free(pace).await;
        for family in [PUSH_TIME_NUMBER, FAILURE_TIME_NUMBER] {
            edit.splices.push_back(Splice { family, lines: Lines::None });
        }
        edit
    }

    pub(super) fn release(&mut self, group: Number, old: &GroupFamily, set: SetId) {
        if self.families[old.number].shared.has_several_sets() {
            self.retire_series(group, old.number);
        }
        let family = &mut self.families[old.number];
        family.remove_holder(set);
        family.helps.release(old.help);
    }

    /// Remembers the lines that a group is about to release, if a running collection or commit may still contain them and a
    /// group on another core could add a duplicate of them to it.
    fn retire_series(&mut self, group: Number, family: Number) {
        let Some(epoch) = self.registry.retirement_epoch() else { return };
        let (local, key) = (&self.families[family], self.groups[group].key.clone());
        let latest = self.numbers_of(group).and_then(|numbers| numbers.lines(family, &key));
        let lines = latest.map_or_else(|| local.text.lines(group), GroupLines::Copied);
        let (family, kind) = (local.shared.name.clone(), local.kind);
        self.retired_series().push(RetiredLines { epoch, family, kind, key, lines });
    }

    /// Whether a group whose lines in a family are replaced by these loses a series that another group could add.
    pub(super) async fn loses_series(
        &self,
        group: Number,
        family: Number,
        push: &Push,
        pushed: &PushedFamily,
        pace: &Pace,
    ) -> bool {
        let local = &self.families[family];
        if !local.shared.has_several_sets() {
            return false;
        }
        if local.text.is_long(group) || push.text(pushed).len() > RUN_BYTES_MAX {
            // Comparing long lines takes longer than retiring them.
            return true;
        }
        let (old, new) = (local.text.run(group), [push.text(pushed)]);
        local.kind != pushed.kind || has_new_series(&local.shared.name, local.kind, new, old, pace).await
    }

    /// Adds a group, with memory for so many families.
    pub(super) fn add_group(
        &mut self,
        key: &GroupingKey,
        set: SetId,
        created_seconds: f64,
        families: usize,
    ) -> Number {
        let group = Group {
            key: key.text().clone(),
            set,
            push_seconds: 0.0,
            failure_seconds: 0.0,
            created_seconds,
            last_failure: None,
            bytes_bound: 0,
            stored: StoredBytes::default(),
            shape: NO_SHAPE,
            place: Place::default(),
            families: GroupFamilies::with_capacity(families),
        };
        self.sets.add_group(set);
        self.groups.insert(group)
    }

    /// The time of a push that is applied now. Within a group, times never go backwards, and a push is later than the failures before
    /// it, so that the last push is known to be successful. A clock that was wrong affects no other group.
    pub(super) fn time_of_push(&self, group: Option<Number>, now_seconds: f64) -> f64 {
        let Some(group) = group.map(|group| &self.groups[group]) else { return now_seconds };
        let after_failure = if group.failure_seconds > 0.0 { group.failure_seconds.next_up() } else { 0.0 };
        now_seconds.max(group.push_seconds).max(after_failure)
    }

    /// The time of a failed push, not before the group's other times.
    fn time_of_failure(&self, group: Option<Number>, now_seconds: f64) -> f64 {
        let Some(group) = group.map(|group| &self.groups[group]) else { return now_seconds };
        now_seconds.max(group.push_seconds).max(group.failure_seconds)
    }
}
